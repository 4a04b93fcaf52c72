/** Guards round the trust root: a mesh that trusts another root is never switched unasked. */
import type { DerivedState } from '../facts/derived.ts';
import { annotations as known } from '../../api/annotations.ts';
import { bundleFacts, type CertificateFacts } from '../facts/certificate.ts';
import { pendingRequest } from '../facts/desired.ts';
import { adoptionOf } from '../ownership/adoption.ts';
import { ownables, owns } from '../ownership/ownership.ts';
import { fieldsAppliedFlag } from '../facts/observed.ts';
import type { Problem } from '../facts/problem.ts';
import { resumesForward } from '../rotation/rotation.ts';

/** The roots that would be handed out; in a mount of somebody else, which is another problem, all there are. */
function rootsToCome(s: DerivedState): CertificateFacts[] {
  const adoption = adoptionOf(s);
  const { root, leaving } = (typeof adoption === 'string' ? undefined : adoption?.ca) ?? {};
  if (root) return [root, ...(leaving ? [leaving] : [])].map(({ certificate }) => certificate);
  const ours = s.ownRoots.map(({ id }) => id);
  const { rootMount } = ownables(s);
  const all = rootMount && !owns(s, rootMount) ? (s.vault.rootPki?.issuers ?? []) : [];
  const theirs = all.filter(({ id }) => !ours.includes(id));
  return [...(s.rootRoles.trusted ?? []), ...theirs.map(({ certificate }) => certificate)];
}

/**
 * The mesh of this namespace trusts none of the roots that it would be given, nor one that was published: that another of its roots lies in
 * the mount does not help. Raised before a root is made and before the control plane's fields are first written; never once they are there.
 */
export function wouldReplaceRoot(s: DerivedState): Problem | undefined {
  const { meshRoots, controlPlane } = s.kubernetes;
  // fields that a resource before this one has left say nothing of what this one would bring
  const state = s.stateEntry;
  const ours = state && (controlPlane?.writtenBefore === true || state.made.includes(fieldsAppliedFlag));
  if (!meshRoots || meshRoots.length === 0 || ours) return undefined;
  const given = [...rootsToCome(s), ...bundleFacts(s.caEntry?.root ?? '')].map((root) => root.fingerprint);
  if (meshRoots.some(({ fingerprint }) => given.includes(fingerprint))) return undefined;
  const [first] = meshRoots;
  if (!first || s.desired.annotations[known.confirmRootChange] === first.fingerprint) return undefined;
  return {
    condition: 'RootReady',
    reason: 'WouldReplaceRoot',
    message: `ConfigMap istio-ca-root-cert of this namespace holds another root ("${first.subject.commonName || first.subject.organization}", SHA-256 ${first.fingerprint}): workloads that trust only that root would fail. To go on, annotate this resource with ${known.confirmRootChange}=${first.fingerprint}`,
    blocks: 'all',
  };
}

/** A root was there and is gone: the mesh trusts it, so another one is made only when a person says so. */
export function rootLost(s: DerivedState): Problem | undefined {
  const adoption = adoptionOf(s);
  // what is taken over is judged by what it is
  if (s.signer || typeof adoption === 'string' || adoption?.ca?.root) return undefined;
  if (resumesForward(s)) return undefined;
  const rotating = lostByRotation(s);
  if (rotating === 'called off') return undefined;
  const { fingerprint: recorded, serial } = rotating ?? s.lastKnownRoot ?? {};
  if (recorded === undefined && serial === undefined && !s.kubernetes.controlPlane?.writtenBefore) return undefined;
  const text = serial ?? s.kubernetes.meshRoots?.[0]?.serial ?? 'unknown';
  if (s.desired.annotations[known.allowReissue]?.toLowerCase() === text) return undefined;
  const which =
    serial === undefined && recorded === undefined
      ? 'the control plane carries fields of an IstioVaultCA, so a root was'
      : `root ${recorded ?? serial} was`;
  return {
    condition: 'RootReady',
    reason: 'RootLost',
    message: `${which} issued, but ${s.spec.root.mount} holds none of this resource's; restore Vault's data, check spec.vault.address and the names in the spec, or create the resource anew that made it. No new root is made by itself: when it is gone for good, annotate this resource with ${known.allowReissue}=${text}; every workload must then learn to trust the new root`,
    blocks: 'all',
  };
}

/** The new root of a rotation that signs already and is gone; a roll-back that is asked for puts that right by itself. */
function lostByRotation(s: DerivedState): { fingerprint?: string; serial?: string } | 'called off' | undefined {
  const state = s.stateEntry;
  const { rotation } = state ?? {};
  if (!state || !rotation || rotation.back || !/Switching|Retiring/.test(rotation.phase)) return undefined;
  const stands = s.recordedRoot !== undefined;
  const asked =
    rotation.phase === 'Switching' && pendingRequest(s.desired, state.handled, known.rollbackRotation) !== undefined;
  return stands && asked ? 'called off' : rotation.to;
}
