/** What must hold before the control plane's fields are written; Vault work goes on meanwhile. */
import { annotations as known } from '../../api/annotations.ts';
import type { Desired } from '../desired.ts';
import type { Observed } from '../observed.ts';
import type { Problem } from '../problem.ts';

export function controlPlaneNotFound(d: Desired, o: Observed): Problem | undefined {
  if (o.kubernetes.controlPlane) return undefined;
  const { kind, name } = d.spec.controlPlane;
  return {
    condition: 'ControlPlanePatched',
    reason: 'ControlPlaneNotFound',
    message: o.kubernetes.controlPlaneServed
      ? `spec.controlPlane: there is no ${kind} ${name} in namespace ${d.identity.namespace}; it is configured as soon as it comes`
      : `spec.controlPlane: the cluster serves no ${kind} (its CRD is not installed); it is configured as soon as it comes`,
    blocks: 'controlPlane',
    retryAfterMs: 30_000,
  };
}

/** Without the injector istiod would start without files, and sign by itself: so it is not told to look for them. */
export function injectorNotFound(d: Desired, o: Observed): Problem | undefined {
  const { injector, controlPlane } = o.kubernetes;
  if (d.annotations[known.skipPreflight] === 'true' || controlPlane?.carriesFields) return undefined;
  if (injector.found && injector.selectsNamespace) return undefined;
  const { namespace } = d.identity;
  const why = injector.found
    ? `the Vault agent injector's webhook ${injector.name} does not select namespace ${namespace} (its namespaceSelector)`
    : 'no mutating webhook of the Vault agent injector is registered (none calls a path /mutate for pods with the name vault.hashicorp.com)';
  return {
    condition: 'ControlPlanePatched',
    reason: 'InjectorNotFound',
    message: `${why}; istiod would sign by itself. Install the injector or change its selector, or annotate this resource with ${known.skipPreflight}=true`,
    blocks: 'controlPlane',
    retryAfterMs: 30_000,
  };
}

/** Somebody set the very field that we would set, to something else. */
export function fieldConflict(d: Desired, o: Observed): Problem | undefined {
  const conflicts = o.kubernetes.controlPlane?.conflicts ?? [];
  if (conflicts.length === 0) return undefined;
  const list = conflicts.map((c) => `${c.place} is ${c.value}`).join('; ');
  return {
    condition: 'ControlPlanePatched',
    reason: 'FieldConflict',
    message: `${d.spec.controlPlane.kind} ${d.spec.controlPlane.name} already sets what this resource would set: ${list}. Remove it there, or change this resource to match`,
    blocks: 'controlPlane',
  };
}
