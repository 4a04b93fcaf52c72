/**
 * Checks of the spec alone, for rules that CEL cannot express, and for specs that an older schema accepted. Each problem blocks all writes.
 */
import { agentCaAnnotations, auditOptions, deliveryAnnotations, refusedTexts } from '../api/allowed-texts.ts';
import { parseGoDuration } from '../api/duration.ts';
import type { Spec } from '../api/schema.ts';
import { rootSourceOf, type Desired } from './facts/desired.ts';
import type { Problem } from './facts/problem.ts';
import { requestMapName } from './facts/signature-request.ts';
import { controlPlaneKinds } from './control-plane/kinds.ts';

const refuse = (condition: Problem['condition'], reason: Problem['reason'], message: string): Problem => ({
  condition,
  reason,
  message,
  blocks: 'all',
});

/** The spec has fields or values of the API that this version does not support. The operator refuses them and never ignores them. */
export function notYetSupported(d: Desired): Problem | undefined {
  const { spec } = d;
  const unsupported: [boolean, string][] = [
    [spec.delivery.crl && !spec.intermediate.manage, 'spec.delivery.crl with spec.intermediate.manage: false'],
  ];
  const fields = unsupported.filter(([used]) => used).map(([, field]) => field);
  if (fields.length === 0) return undefined;
  return refuse(
    'VaultReady',
    'NotYetSupported',
    `${fields.join(', ')}: not supported by this version; remove or change it`,
  );
}

/** The spec names a revision, although the operator of its kind of control plane names the revisions, and the fields apply to all of them. */
export function revisionNotSettable({ spec }: Desired): Problem | undefined {
  const { kind, revision } = spec.controlPlane;
  const { namesRevisions, objectKind } = controlPlaneKinds[kind];
  if (namesRevisions === undefined || revision === undefined) return undefined;
  return refuse(
    'ControlPlanePatched',
    'InvalidSpec',
    `spec.controlPlane.revision: ${revision} cannot be set with kind ${kind}: ${namesRevisions} names the revisions of ${objectKind} ${spec.controlPlane.name}, and this resource is for all of them. Delete this resource, and create it again without spec.controlPlane.revision.`,
  );
}

/** The signed certificate would come in the ConfigMap in which the operator shows the request, and which it removes afterwards. */
export function signedInRequestMap({ spec, identity }: Desired): Problem | undefined {
  const name = requestMapName(identity);
  if (spec.root.external?.signed?.configMapRef?.name !== name) return undefined;
  return refuse(
    'IntermediateReady',
    'InvalidSpec',
    `spec.root.external.signed.configMapRef: ${name} is the ConfigMap in which the operator shows the certificate signing request: name another one`,
  );
}

/** `root.shared` at a resource that does not own the root, or with revocation lists, which have no entry for the CAs of members. */
export function sharedRefused({ spec }: Desired): Problem | undefined {
  const { root, delivery } = spec;
  if (!root.shared) return undefined;
  if (rootSourceOf(spec) !== 'Generate')
    return refuse(
      'RootReady',
      'InvalidSpec',
      `spec.root.shared: true goes only with spec.root.source: Generate and spec.root.manage: true. Set it at the IstioVaultCA that has the root in a mount of its own, and remove it here: resources that sign under that root have source Existing and its mount.`,
    );
  if (!delivery.crl) return undefined;
  return refuse(
    'RootReady',
    'InvalidSpec',
    'spec.delivery.crl: true does not go with spec.root.shared: true. A proxy with revocation lists needs one of every CA that it meets, and has none of the intermediates of other resources under this root, so it would refuse their workloads. Remove one of the two.',
  );
}

/** The intermediate has a longer lifetime than the root. */
export function intermediateOutlivesRoot({ spec }: Desired): Problem | undefined {
  if (spec.root.source !== 'Generate') return undefined;
  if (parseGoDuration(spec.intermediate.ttl) <= parseGoDuration(spec.root.ttl)) return undefined;
  return refuse(
    'IntermediateReady',
    'IntermediateOutlivesRoot',
    `spec.intermediate.ttl ${spec.intermediate.ttl} is longer than spec.root.ttl ${spec.root.ttl}: shorten the one or lengthen the other`,
  );
}

/** `renewBefore` is not shorter than the lifetime of the intermediate, so that every intermediate would be due for renewal at once. */
export function renewBeforeTooLong({ spec }: Desired): Problem | undefined {
  const { renewBefore, ttl } = spec.intermediate;
  if (renewBefore === undefined || parseGoDuration(renewBefore) < parseGoDuration(ttl)) return undefined;
  return refuse(
    'IntermediateReady',
    'InvalidSpec',
    `spec.intermediate.renewBefore ${renewBefore} must be shorter than spec.intermediate.ttl ${ttl}, else every intermediate would be due at once`,
  );
}

/**
 * istiod's Vault Agent, which mounts one Secret, does not get what it needs for TLS: Vault's CA is in a ConfigMap, or it is in another Secret than the
 * client certificate.
 */
export function agentCaMissing({ spec }: Desired): Problem | undefined {
  const isSet = (name: string) => `vault.hashicorp.com/${name}` in spec.delivery.annotations;
  const { caConfigMapRef, caSecretRef, clientCertSecretRef } = spec.vault.tls ?? {};
  if (clientCertSecretRef) {
    if (caSecretRef === undefined || caSecretRef.name === clientCertSecretRef.name) return undefined;
    return refuse(
      'VaultReady',
      'AgentCAMissing',
      `spec.vault.tls.caSecretRef: istiod's Vault agent can mount one Secret only, so Vault's CA must be in the Secret of the client certificate: add it to Secret ${clientCertSecretRef.name} as ca.crt, and remove caSecretRef`,
    );
  }
  if (caConfigMapRef === undefined || (isSet('ca-cert') && isSet('tls-secret'))) return undefined;
  return refuse(
    'VaultReady',
    'AgentCAMissing',
    "spec.vault.tls.caConfigMapRef: istiod's Vault agent can mount a Secret only; use caSecretRef, or add vault.hashicorp.com/tls-secret and vault.hashicorp.com/ca-cert to spec.delivery.annotations",
  );
}

/** `delivery.annotations` has keys or values that are not permitted. */
export function deliveryAnnotationsRefused({ spec }: Desired): Problem | undefined {
  const field = 'spec.delivery.annotations';
  const { annotations } = spec.delivery;
  const refused = refusedTexts(field, annotations, deliveryAnnotations);
  if (refused !== undefined) return refuse('ControlPlanePatched', 'InvalidSpec', refused);
  const ca = agentCaAnnotations.filter((key) => key in annotations);
  if (ca.length === 0) return undefined;
  if (spec.vault.tls?.clientCertSecretRef !== undefined) {
    return refuse(
      'ControlPlanePatched',
      'InvalidSpec',
      `${field}: ${ca.join(', ')}: not with spec.vault.tls.clientCertSecretRef, whose Secret istiod's Vault agent mounts; remove it, and put the CA into that Secret as ca.crt`,
    );
  }
  if (spec.vault.tls?.caConfigMapRef !== undefined) return undefined;
  return refuse(
    'ControlPlanePatched',
    'InvalidSpec',
    `${field}: ${ca.join(', ')}: only with spec.vault.tls.caConfigMapRef; remove it, and give the CA as spec.vault.tls.caSecretRef`,
  );
}

/** `audit` names another type than `file`, has options that are not permitted, or goes with a Vault namespace. */
export function auditRefused({ spec: { audit, vault } }: Desired): Problem | undefined {
  if (audit && vault.namespace !== undefined) {
    return refuse(
      'VaultReady',
      'InvalidSpec',
      `spec.audit: cannot be used with spec.vault.namespace ${vault.namespace}: audit devices belong to the root namespace; remove spec.audit, the device itself stays`,
    );
  }
  const refused =
    audit && audit.type !== 'file'
      ? `spec.audit.type: ${audit.type}: must be file; remove spec.audit, the device itself stays`
      : audit && refusedTexts('spec.audit.options', audit.options, auditOptions);
  return refused === undefined ? undefined : refuse('VaultReady', 'InvalidSpec', refused);
}

/** The key store is KV 1 without leader election. KV 1 has no check-and-set, so only the Lease prevents concurrent writes of two operators. */
export function kv1NeedsLeaderElection({ keyStore }: Spec, leaderElection: boolean): Problem | undefined {
  if (keyStore.version === 2 || leaderElection) return undefined;
  return refuse(
    'KeyStored',
    'KV1NeedsLeaderElection',
    'spec.keyStore.version: 1 has no check-and-set and needs --leader-elect; use version 2 or turn leader election on',
  );
}
