/**
 * A stand-in for Tetrate's CRD, composed from its public documentation: the real one is not public. The list of overlays carries
 * no list type, so it is replaced whole, as Kubernetes does by default.
 */
const open = { type: 'object', 'x-kubernetes-preserve-unknown-fields': true } as const;

export const tetrateControlPlaneCrd = {
  apiVersion: 'apiextensions.k8s.io/v1',
  kind: 'CustomResourceDefinition',
  metadata: { name: 'controlplanes.install.tetrate.io' },
  spec: {
    group: 'install.tetrate.io',
    scope: 'Namespaced',
    names: { plural: 'controlplanes', singular: 'controlplane', kind: 'ControlPlane', listKind: 'ControlPlaneList' },
    versions: [
      {
        name: 'v1alpha1',
        served: true,
        storage: true,
        subresources: { status: {} },
        schema: { openAPIV3Schema: { type: 'object', properties: { spec: open, status: open } } },
      },
    ],
  },
};
