/** Preconditions for writing the istiod fields of the control plane. Writes to Vault continue while one of them is not met. Pure. */
import { injectorDomains } from '../../api/injectors.ts';
import { fieldsWereApplied } from '../facts/applied.ts';
import type { DerivedState } from '../facts/derived.ts';
import { annotations as known } from '../../api/annotations.ts';
import { componentPath } from '../../api/permissions.ts';
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
 * istiod signs no workload certificates, so no CA takes effect. Before istiod has had the fields, nothing is written; afterwards the CA is kept
 * as it is.
 */
export function istiodSignsNothing(s: DerivedState): Problem | undefined {
  const { signsNothing } = s.kubernetes;
  if (signsNothing === undefined) return undefined;
  return {
    condition: 'ControlPlanePatched',
    reason: 'ControlPlaneUnfit',
    message: `istiod signs no workload certificates (${signsNothing}), so a CA of Vault has no effect on the mesh. Remove the setting from istiod, or delete this resource`,
    blocks: fieldsWereApplied(s) ? 'nothing' : 'all',
  };
}

/**
 * No webhook of an agent injector is registered that takes the Pods of istiod, or nobody answers it and it lets Pods pass. istiod would start
 * without the CA files and use its self-signed CA, so the operator does not write the fields yet.
 */
export function injectorNotFound(s: DerivedState): Problem | undefined {
  if (s.desired.annotations[known.skipPreflight] === 'true' || s.kubernetes.controlPlane?.carriesFields)
    return undefined;
  const obstacle = injectorObstacle(s);
  if (!obstacle) return undefined;
  return {
    condition: 'ControlPlanePatched',
    reason: 'InjectorNotFound',
    message: `${obstacle.cause}. Without Vault Agent Injector, istiod gets no CA files and uses its self-signed CA, so the operator does not configure it yet. ${obstacle.action}, or set annotation ${known.skipPreflight}=true.`,
    blocks: 'controlPlane',
  };
}

/** Why Pods of istiod would get no agent, and what to do about it, as sentences without a period; `undefined`: nothing is known to prevent it. */
export function injectorObstacle(s: DerivedState): { cause: string; action: string } | undefined {
  const { injector } = s.kubernetes;
  const { namespace } = s.identity;
  if (!injector.found)
    return {
      cause: `No mutating webhook named ${injectorDomains.join(' or ')} is registered`,
      action: 'Install the injector',
    };
  const webhook = `The mutating webhook ${injector.name} of Vault Agent Injector`;
  if (!injector.selectsNamespace)
    return {
      cause: `${webhook} does not select namespace ${namespace}`,
      action: 'Change the namespaceSelector of the webhook or the labels of the namespace',
    };
  if (!injector.selectsPods)
    return {
      cause: `${webhook} does not select the Pods of istiod (objectSelector or rules)`,
      action: "Change the objectSelector of the webhook or the labels of istiod's Pods",
    };
  if (injector.service?.answers === false && injector.failurePolicy === 'Ignore')
    return {
      cause: `No ready endpoint stands behind Service ${injector.service.name} of the mutating webhook ${injector.name}, whose failurePolicy Ignore lets Pods pass without an agent`,
      action: 'Start the injector',
    };
  return undefined;
}

/** What is not known of the injector's webhook, as clauses for a message; empty: nothing. */
export function injectorNotes({ kubernetes: { injector } }: DerivedState): string[] {
  const { name, matchConditions, service, failurePolicy } = injector;
  const conditions = matchConditions.slice(0, mostNamed).join(', ');
  return [
    ...(matchConditions.length > 0
      ? [`webhook ${name} has matchConditions that the operator does not evaluate: ${conditions}`]
      : []),
    ...(service?.answers === 'unreadable' && failurePolicy === 'Ignore'
      ? [
          `not verified, because the operator lacks permission to list endpointslices.discovery.k8s.io (${componentPath('injector')}): whether Service ${service.name} of webhook ${name} has a ready endpoint`,
        ]
      : []),
  ];
}

/** A message names at most this many matchConditions. */
const mostNamed = 5;

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
