/** Preconditions for writing the istiod fields of the control plane. Writes to Vault continue while one of them is not met. Pure. */
import { injectorDomains } from '../../api/injectors.ts';
import type { DerivedState } from '../facts/derived.ts';
import { annotations as known } from '../../api/annotations.ts';
import { objectName, renderName } from './istiod-fields.ts';
import { kindOfControlPlane } from './kinds.ts';
import type { Problem } from '../facts/problem.ts';

/** Reports that the control plane object does not exist or cannot hold the fields; `undefined`: it exists and can. */
export function controlPlaneNotFound(s: DerivedState): Problem | undefined {
  if (s.kubernetes.controlPlane) return undefined;
  const { clusterScoped, objectKind } = kindOfControlPlane(s.spec);
  const unfit = s.kubernetes.controlPlaneUnfit;
  if (unfit) {
    const { reason, message } = unfit;
    return { condition: 'ControlPlanePatched', reason, message, blocks: 'controlPlane' };
  }
  return {
    condition: 'ControlPlanePatched',
    reason: 'ControlPlaneNotFound',
    message: s.kubernetes.controlPlaneServed
      ? `spec.controlPlane: there is no ${objectName(s.desired)}${clusterScoped ? '' : ` in namespace ${s.identity.namespace}`}; it is configured as soon as it comes`
      : `spec.controlPlane: the cluster serves no ${objectKind} (its CRD is not installed); it is configured as soon as it comes`,
    blocks: 'controlPlane',
  };
}

/**
 * No webhook of Vault Agent Injector is registered, or none selects the namespace. istiod would start without the CA files and use its
 * self-signed CA, so the operator does not write the fields yet.
 */
export function injectorNotFound(s: DerivedState): Problem | undefined {
  const { injector, controlPlane } = s.kubernetes;
  if (s.desired.annotations[known.skipPreflight] === 'true' || controlPlane?.carriesFields) return undefined;
  if (injector.found && injector.selectsNamespace) return undefined;
  const { namespace } = s.identity;
  const [cause, action] = injector.found
    ? [
        `The mutating webhook ${injector.name} of Vault Agent Injector does not select namespace ${namespace}`,
        'Change the namespaceSelector of the webhook or the labels of the namespace',
      ]
    : [`No mutating webhook named ${injectorDomains.join(' or ')} is registered`, 'Install the injector'];
  return {
    condition: 'ControlPlanePatched',
    reason: 'InjectorNotFound',
    message: `${cause}. Without Vault Agent Injector, istiod gets no CA files and uses its self-signed CA, so the operator does not configure it yet. ${action}, or set annotation ${known.skipPreflight}=true.`,
    blocks: 'controlPlane',
  };
}

/** Reports fields that the operator must set and that already have another value; `undefined`: there are none. */
export function fieldConflict(s: DerivedState): Problem | undefined {
  const conflicts = s.kubernetes.controlPlane?.conflicts ?? [];
  if (conflicts.length === 0) return undefined;
  const list = conflicts
    .map((c) => `${c.place} is ${c.value}${c.manager === undefined ? '' : ` (set by field manager ${c.manager})`}`)
    .join('; ');
  return {
    condition: 'ControlPlanePatched',
    reason: 'FieldConflict',
    message: `${objectName(s.desired)} already sets what this resource would set: ${list}. Remove it there, or change this resource to match`,
    blocks: 'controlPlane',
  };
}

/**
 * With `write: Render`, reports that the ConfigMap for the rendered fields exists and is not owned by this resource; `undefined`: it is not
 * so.
 */
export function renderNotOwned(s: DerivedState): Problem | undefined {
  if (s.spec.controlPlane.write !== 'Render' || s.kubernetes.rendered !== 'foreign') return undefined;
  return {
    condition: 'ControlPlanePatched',
    reason: 'FieldConflict',
    message: `ConfigMap ${renderName(s.desired)} exists and is not this resource's; remove it, or give this resource another name`,
    blocks: 'controlPlane',
  };
}

/**
 * With `write: Render`, reports fields that the user has not committed yet or that have not reached the cluster; `undefined`: there are
 * none.
 */
export function awaitingCommit(s: DerivedState): Problem | undefined {
  const { controlPlane, rendered } = s.kubernetes;
  if (s.spec.controlPlane.write !== 'Render' || !controlPlane || controlPlane.carriesFields) return undefined;
  const missing = controlPlane.missing ?? [];
  const [first, ...more] = missing;
  const others = more.length === 0 ? '' : ` and ${more.length} more`;
  const where = kindOfControlPlane(s.spec).showsCommit === 'deployment' ? "istiod's Deployment" : objectName(s.desired);
  const action =
    rendered === 'current'
      ? `commit what ConfigMap ${renderName(s.desired)} shows (\`kubectl get configmap -n ${s.identity.namespace} ${renderName(s.desired)} -o yaml\`)`
      : `ConfigMap ${renderName(s.desired)} shows what to commit as soon as Vault is ready and the injector is there`;
  return {
    condition: 'ControlPlanePatched',
    reason: 'AwaitingCommit',
    message: `${where} does not have ${first ?? 'every field'}${others} yet; ${action}`,
    blocks: 'nothing',
  };
}

/** Reports that the control plane carries the fields but no operator seems to reconcile it; `undefined`: it is not so. */
export function notReconciled(s: DerivedState): Problem | undefined {
  const target = s.kubernetes.controlPlane;
  if (!target?.carriesFields || target.unreconciled === undefined) return undefined;
  return {
    condition: 'ControlPlanePatched',
    reason: 'NotReconciled',
    message: target.unreconciled,
    blocks: 'nothing',
  };
}
