/**
 * The kinds of control plane, one row each: what the planner and the messages must know of a kind. How an object of a kind is read and
 * written is in `src/control-planes`, one adapter a kind, which takes the identity of the kind from its row. Pure.
 */
import type { Component } from '../../api/permissions.ts';
import type { Spec } from '../../api/schema.ts';

type ControlPlane = Spec['controlPlane'];

/** What is the same for every object of a kind. */
export interface ControlPlaneKind {
  /** The Kubernetes kind of the object. */
  objectKind: string;
  /** Its API group; empty for the core group. */
  group: string;
  /** The object belongs to no namespace. */
  clusterScoped: boolean;
  /** The component of the deployment that grants the permissions on the object. */
  component: Component;
  /** Paths of the fields below which the operator writes. */
  fields: readonly string[];
  /** The fields are items of a list, which has a single owner; else they are keys of maps, and each has managers of its own. */
  fieldsInList: boolean;
  /** The object exists for the operator's values alone: if somebody else wrote its content, the operator does not claim the object. */
  dedicated: boolean;
  /** With `write: Render`: whether the committed fields show in the object itself, or only in istiod's Deployment. */
  showsCommit: 'object' | 'deployment';
  /** With `write: Render`: name of the file to commit. */
  renderFile: 'manifest.yaml' | 'values.yaml';
  /** For the command `render`: comment lines that say where the content belongs. */
  renderInstructions: (controlPlane: ControlPlane) => string[];
  /** Name of the operator that reconciles the object and names the revisions of istiod itself; undefined: none does. */
  namesRevisions: string | undefined;
  /** Who applies the object's fields to istiod, and how to find out why that does not happen; completes "It passes when …". */
  propagator: (controlPlane: ControlPlane, namespace: string) => string;
}

/** The table. */
export const controlPlaneKinds: { readonly [K in ControlPlane['kind']]: ControlPlaneKind } = {
  TetrateControlPlane: {
    objectKind: 'ControlPlane',
    group: 'install.tetrate.io',
    clusterScoped: false,
    component: 'tetrate',
    fields: ['spec.components.istio.kubeSpec.overlays'],
    fieldsInList: true,
    dedicated: false,
    showsCommit: 'object',
    renderFile: 'manifest.yaml',
    renderInstructions: ({ name, revision }) => [
      `Merge into ControlPlane ${name} in Git: one entry of overlays for each IstioOperator; other entries and patches stay.`,
      ...(revision === undefined
        ? [
            'With isolation boundaries the IstioOperator is xcp-iop-default, or that of another revision: set spec.controlPlane.revision.',
          ]
        : []),
    ],
    namesRevisions: undefined,
    propagator: (_, namespace) =>
      `TSB's operator has rolled istiod out; if it lasts, look at that operator (\`kubectl logs -n ${namespace} deployment/tsb-operator-control-plane\`, and \`kubectl get istiooperators -n ${namespace}\`)`,
  },
  IstioOperator: {
    objectKind: 'IstioOperator',
    group: 'install.istio.io',
    clusterScoped: false,
    component: 'istio-operator',
    fields: ['spec.values.pilot.env', 'spec.components.pilot.k8s.podAnnotations'],
    fieldsInList: false,
    dedicated: false,
    showsCommit: 'object',
    renderFile: 'manifest.yaml',
    renderInstructions: ({ name }) => [`Merge into IstioOperator ${name} in Git.`],
    namesRevisions: undefined,
    propagator: ({ name }, namespace) =>
      `Istio's operator has rolled istiod out; if it lasts, look at that operator (\`kubectl describe istiooperator -n ${namespace} ${name}\`, and the log of its Deployment istio-operator): the status may be left from one that is gone, as Istio has none since 1.24`,
  },
  Sail: {
    objectKind: 'Istio',
    group: 'sailoperator.io',
    clusterScoped: true,
    component: 'sail',
    fields: ['spec.values.pilot.env', 'spec.values.pilot.podAnnotations'],
    fieldsInList: false,
    dedicated: false,
    showsCommit: 'object',
    renderFile: 'manifest.yaml',
    renderInstructions: ({ name }) => [`Merge into Istio ${name} in Git.`],
    namesRevisions: 'the Sail operator',
    propagator: ({ name }) =>
      `the Sail operator has rolled istiod out; if it lasts, look at that operator (\`kubectl describe istio ${name}\`, \`kubectl get istiorevisions\`)`,
  },
  HelmValues: {
    objectKind: 'ConfigMap',
    group: '',
    clusterScoped: false,
    component: 'configmaps',
    fields: ['data'],
    fieldsInList: false,
    dedicated: true,
    showsCommit: 'deployment',
    renderFile: 'values.yaml',
    renderInstructions: () => ["Values of Istio's chart istiod: merge into the values file or the HelmRelease in Git."],
    namesRevisions: undefined,
    propagator: ({ name, write }, namespace) =>
      write === 'Render'
        ? 'the release is installed with these values'
        : `the release is upgraded with the values of ConfigMap ${name}; if it lasts, see that the HelmRelease names it in valuesFrom, and what \`kubectl describe helmrelease -n ${namespace}\` says`,
  },
};

/** Returns the row of a spec's control plane. */
export const kindOfControlPlane = ({ controlPlane }: Spec): ControlPlaneKind => controlPlaneKinds[controlPlane.kind];
