/**
 * Values of Istio's chart `istiod`, in a ConfigMap that the operator creates. A Flux HelmRelease references it in `valuesFrom`; users of other
 * tools commit the values. https://fluxcd.io/flux/components/helm/helmreleases/#values-references
 */
import type { JsonObject } from '../api/json.ts';
import { dumpYaml } from '../runtime/yaml.ts';
import type { IstiodFields } from '../plan/control-plane/istiod-fields.ts';
import { controlPlaneKinds } from '../plan/control-plane/kinds.ts';
import { missingFields } from '../plan/proof/mesh.ts';
import type { IstiodSettings } from '../plan/facts/observed-istiod.ts';
import { nest, type Target } from './adapter.ts';
import { appliedAdapter, leavesUnder } from './applied.ts';

/**
 * The values, under `pilot`, which every version of the chart reads. Source: Istio,
 * manifests/charts/istio-control/istio-discovery/values.yaml.
 */
function valuesOf(fields: IstiodFields): JsonObject {
  const { env, podAnnotations } = fields;
  const mesh = leavesUnder(
    { env: {}, podAnnotations: {}, holdApplicationUntilProxyStarts: fields.holdApplicationUntilProxyStarts },
    [],
    [],
    ['meshConfig'],
  );
  const sorted = Object.fromEntries(Object.entries(podAnnotations).sort(([a], [b]) => (a < b ? -1 : 1)));
  return { pilot: { env, podAnnotations: sorted }, ...mesh.map(({ path, value }) => nest(path, value))[0] };
}

/** The fields that istiod Deployments lack. With `write: Render`, only the Deployments show whether the values are in use. */
function missing({ deployments, spec }: Target, fields: IstiodFields): string[] {
  const revision = spec.revision ?? 'default';
  if (!deployments) return ['(the operator lacks permission to list deployments.apps: docs/rbac.md)'];
  const own = deployments.filter((deployment) => deployment.revision === revision);
  const none: IstiodSettings = { env: {}, annotations: {} };
  const every = (own.length > 0 ? own.map(({ settings }) => settings) : [none]).flatMap((settings) => {
    const { env, annotations } = missingFields(settings, fields);
    return [...env.map((name) => `pilot.env.${name}`), ...annotations.map((name) => `pilot.podAnnotations[${name}]`)];
  });
  return [...new Set(every)].sort();
}

export const helmValues = appliedAdapter({
  row: controlPlaneKinds.HelmValues,
  type: { version: 'v1', plural: 'configmaps' },
  makesIt: true,
  relatives: undefined,
  revisions: ({ spec }) => [spec.revision ?? 'default'],
  settings: undefined,
  leaves: (fields) => [
    { path: ['data', 'values.yaml'], value: dumpYaml(valuesOf(fields)) },
    // With this label, Flux reconciles a change immediately and not at the next interval.
    { path: ['metadata', 'labels', 'reconcile.fluxcd.io/watch'], value: 'Enabled' },
    { path: ['metadata', 'labels', 'app.kubernetes.io/managed-by'], value: 'istio-vault-ca' },
  ],
  // For Flux, a ConfigMap without the key is an error, even if the reference is optional.
  empty: [{ path: ['data', 'values.yaml'], value: '{}\n' }],
  missing,
  render: valuesOf,
});
