/**
 * Values of Istio's chart `istiod`, in a ConfigMap of the operator's own: a Flux HelmRelease takes them up by one line in `valuesFrom`, and
 * whoever runs Helm otherwise commits them. https://fluxcd.io/flux/components/helm/helmreleases/#values-references
 */
import type { JsonObject } from '../api/json.ts';
import { dumpYaml } from '../runtime/yaml.ts';
import type { IstiodFields } from '../plan/control-plane/istiod-fields.ts';
import { missingFields } from '../plan/proof/mesh.ts';
import type { IstiodSettings } from '../plan/facts/observed-istiod.ts';
import { nest, type Target } from './adapter.ts';
import { appliedAdapter, leavesUnder } from './applied.ts';

/** Under `pilot`, where every version of the chart has read them. manifests/charts/istio-control/istio-discovery, values.yaml */
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

/** What istiod's Deployments lack: with `write: Render` there is no other place where the values would show. */
function missing({ deployments, spec }: Target, fields: IstiodFields): string[] {
  const revision = spec.revision ?? 'default';
  if (!deployments) return ["(istiod's Deployments may not be listed: docs/rbac.md)"];
  const own = deployments.filter((one) => one.revision === revision);
  const none: IstiodSettings = { env: {}, annotations: {} };
  const every = (own.length > 0 ? own.map(({ settings }) => settings) : [none]).flatMap((settings) => {
    const { env, annotations } = missingFields(settings, fields);
    return [...env.map((name) => `pilot.env.${name}`), ...annotations.map((name) => `pilot.podAnnotations[${name}]`)];
  });
  return [...new Set(every)].sort();
}

export const helmValues = appliedAdapter({
  gvr: { group: '', version: 'v1', plural: 'configmaps' },
  kind: 'ConfigMap',
  clusterScoped: false,
  makesIt: true,
  relatives: undefined,
  revisions: ({ spec }) => [spec.revision ?? 'default'],
  leaves: (fields) => [
    { path: ['data', 'values.yaml'], value: dumpYaml(valuesOf(fields)) },
    // Flux looks at it at once, not at its next interval
    { path: ['metadata', 'labels', 'reconcile.fluxcd.io/watch'], value: 'Enabled' },
    { path: ['metadata', 'labels', 'app.kubernetes.io/managed-by'], value: 'istio-vault-ca' },
  ],
  // Flux takes a ConfigMap without the key for a failure, even where it is optional
  empty: [{ path: ['data', 'values.yaml'], value: '{}\n' }],
  missing,
  render: valuesOf,
});
