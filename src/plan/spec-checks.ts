/** Rules on the spec alone, for what CEL cannot see or an older schema let through: nothing in Vault is changed by a refused spec. */
import { parseGoDuration } from '../api/duration.ts';
import type { Spec } from '../api/schema.ts';
import type { Desired } from './facts/desired.ts';
import { refusedDeliveryAnnotations } from './control-plane/istiod-fields.ts';
import type { Problem } from './facts/problem.ts';

const refuse = (condition: Problem['condition'], reason: Problem['reason'], message: string): Problem => ({
  condition,
  reason,
  message,
  blocks: 'all',
});

/** What belongs to the API but not to this version: refused, never ignored. */
export function notYetSupported(d: Desired): Problem | undefined {
  const { spec } = d;
  const asked: [boolean, string][] = [
    [
      spec.vault.auth.method !== 'Kubernetes' && spec.vault.auth.method !== 'Token',
      `spec.vault.auth.method: ${spec.vault.auth.method}`,
    ],
    [spec.root.source !== 'Generate', `spec.root.source: ${spec.root.source}`],
    [!spec.root.manage, 'spec.root.manage: false'],
    [spec.intermediate.source !== 'Issue', `spec.intermediate.source: ${spec.intermediate.source}`],
    [!spec.intermediate.manage, 'spec.intermediate.manage: false'],
    [!spec.keyStore.manage, 'spec.keyStore.manage: false'],
    [!spec.policy.manage, 'spec.policy.manage: false'],
    [!spec.kubernetesAuth.manage, 'spec.kubernetesAuth.manage: false'],
  ];
  const fields = asked.filter(([unsupported]) => unsupported).map(([, field]) => field);
  if (fields.length === 0) return undefined;
  return refuse(
    'VaultReady',
    'NotYetSupported',
    `${fields.join(', ')}: not supported by this version; remove or change it`,
  );
}

/** Sail names the revisions of an Istio itself, and its fields are for all of them. */
export function revisionOfSail({ spec }: Desired): Problem | undefined {
  const { kind, revision } = spec.controlPlane;
  if (kind !== 'Sail' || revision === undefined) return undefined;
  return refuse(
    'ControlPlanePatched',
    'InvalidSpec',
    `spec.controlPlane.revision: ${revision}: the Sail operator names the revisions of an Istio, and this resource is for all of them; create it anew without revision`,
  );
}

export function intermediateOutlivesRoot({ spec }: Desired): Problem | undefined {
  if (spec.root.source !== 'Generate') return undefined;
  if (parseGoDuration(spec.intermediate.ttl) <= parseGoDuration(spec.root.ttl)) return undefined;
  return refuse(
    'IntermediateReady',
    'IntermediateOutlivesRoot',
    `spec.intermediate.ttl ${spec.intermediate.ttl} is longer than spec.root.ttl ${spec.root.ttl}: shorten the one or lengthen the other`,
  );
}

/** Renewed before it is issued, an intermediate would be renewed for ever. */
export function renewBeforeTooLong({ spec }: Desired): Problem | undefined {
  const { renewBefore, ttl } = spec.intermediate;
  if (renewBefore === undefined || parseGoDuration(renewBefore) < parseGoDuration(ttl)) return undefined;
  return refuse(
    'IntermediateReady',
    'InvalidSpec',
    `spec.intermediate.renewBefore ${renewBefore} must be shorter than spec.intermediate.ttl ${ttl}, else every intermediate would be due at once`,
  );
}

/** A private CA of Vault must reach istiod's agent, which mounts Secrets only. */
export function agentCaMissing({ spec }: Desired): Problem | undefined {
  const given = (name: string) => `vault.hashicorp.com/${name}` in spec.delivery.annotations;
  if (spec.vault.tls?.caConfigMapRef === undefined || (given('ca-cert') && given('tls-secret'))) return undefined;
  return refuse(
    'VaultReady',
    'AgentCAMissing',
    "spec.vault.tls.caConfigMapRef: istiod's Vault agent can mount a Secret only; use caSecretRef, or add vault.hashicorp.com/tls-secret and vault.hashicorp.com/ca-cert to spec.delivery.annotations",
  );
}

export function deliveryAnnotationsRefused({ spec }: Desired): Problem | undefined {
  const field = 'spec.delivery.annotations';
  const unreadable = Object.entries(spec.delivery.annotations)
    .filter(([key, value]) => !key.startsWith('vault.hashicorp.com/') || /\n|: /.test(value))
    .map(([key]) => key);
  if (unreadable.length > 0) {
    const message = `${field}: ${unreadable.join(', ')}: keys must begin with vault.hashicorp.com/, values be one line without ": "`;
    return refuse('ControlPlanePatched', 'InvalidSpec', message);
  }
  const refused = refusedDeliveryAnnotations(spec);
  if (refused.length === 0) return undefined;
  return refuse(
    'ControlPlanePatched',
    'InvalidSpec',
    `${field} may not set ${refused.join(', ')}: the operator sets it, or it would bypass what it promises; remove it`,
  );
}

/** KV 1 has no check-and-set, so only the Lease keeps two operators apart. */
export function kv1NeedsLeaderElection({ keyStore }: Spec, leaderElection: boolean): Problem | undefined {
  if (keyStore.version === 2 || leaderElection) return undefined;
  return refuse(
    'KeyStored',
    'KV1NeedsLeaderElection',
    'spec.keyStore.version: 1 has no check-and-set and needs --leader-elect; use version 2 or turn leader election on',
  );
}
