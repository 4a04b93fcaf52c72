/** Guards round the trust root: a mesh that trusts another root is never switched unasked. */
import { annotations as known } from '../../api/annotations.ts';
import { bundleFacts, type CertificateFacts } from '../facts/certificate.ts';
import { pendingRequest, type Desired } from '../facts/desired.ts';
import { adoptionOf } from '../ownership/adoption.ts';
import { ownables, owns } from '../ownership/ownership.ts';
import { currentRoot, lastKnownRoot, ownIssuers, recordedRoot, rootRoles } from '../facts/derived.ts';
import { fieldsAppliedFlag, ownEntry, type Observed } from '../facts/observed.ts';
import type { Problem } from '../facts/problem.ts';
import { resumesForward } from '../rotation/rotation.ts';

/** The roots that would be handed out; in a mount of somebody else, which is another problem, all there are. */
function rootsToCome(d: Desired, o: Observed): CertificateFacts[] {
  const adoption = adoptionOf(d, o);
  const { root, leaving } = (typeof adoption === 'string' ? undefined : adoption?.ca) ?? {};
  if (root) return [root, ...(leaving ? [leaving] : [])].map(({ certificate }) => certificate);
  const ours = ownIssuers(d, 'root', o.vault).map(({ id }) => id);
  const { rootMount } = ownables(d, o.vault);
  const all = rootMount && !owns(d, o, rootMount) ? (o.vault.rootPki?.issuers ?? []) : [];
  const theirs = all.filter(({ id }) => !ours.includes(id));
  return [...(rootRoles(d, o).trusted ?? []), ...theirs.map(({ certificate }) => certificate)];
}

/**
 * The mesh of this namespace trusts none of the roots that it would be given, nor one that was published: that another of its roots lies in
 * the mount does not help. Raised before a root is made and before the control plane's fields are first written; never once they are there.
 */
export function wouldReplaceRoot(d: Desired, o: Observed): Problem | undefined {
  const { meshRoots, controlPlane } = o.kubernetes;
  // fields that a resource before this one has left say nothing of what this one would bring
  const state = ownEntry(o.vault.state);
  const ours = state && (controlPlane?.writtenBefore === true || state.made.includes(fieldsAppliedFlag));
  if (!meshRoots || meshRoots.length === 0 || ours) return undefined;
  const given = [...rootsToCome(d, o), ...bundleFacts(ownEntry(o.vault.live)?.root ?? '')].map(
    (root) => root.fingerprint,
  );
  if (meshRoots.some(({ fingerprint }) => given.includes(fingerprint))) return undefined;
  const [first] = meshRoots;
  if (!first || d.annotations[known.confirmRootChange] === first.fingerprint) return undefined;
  return {
    condition: 'RootReady',
    reason: 'WouldReplaceRoot',
    message: `ConfigMap istio-ca-root-cert of this namespace holds another root ("${first.subject.commonName || first.subject.organization}", SHA-256 ${first.fingerprint}): workloads that trust only that root would fail. To go on, annotate this resource with ${known.confirmRootChange}=${first.fingerprint}`,
    blocks: 'all',
  };
}

/** A root was there and is gone: the mesh trusts it, so another one is made only when a person says so. */
export function rootLost(d: Desired, o: Observed, now: number): Problem | undefined {
  const adoption = adoptionOf(d, o);
  // what is taken over is judged by what it is
  if (currentRoot(d, o) || typeof adoption === 'string' || adoption?.ca?.root) return undefined;
  if (resumesForward(d, o, now)) return undefined;
  const rotating = lostByRotation(d, o);
  if (rotating === 'called off') return undefined;
  const { fingerprint: recorded, serial } = rotating ?? lastKnownRoot(o) ?? {};
  if (recorded === undefined && serial === undefined && !o.kubernetes.controlPlane?.writtenBefore) return undefined;
  const text = serial ?? o.kubernetes.meshRoots?.[0]?.serial ?? 'unknown';
  if (d.annotations[known.allowReissue]?.toLowerCase() === text) return undefined;
  const which =
    serial === undefined && recorded === undefined
      ? 'the control plane carries fields of an IstioVaultCA, so a root was'
      : `root ${recorded ?? serial} was`;
  return {
    condition: 'RootReady',
    reason: 'RootLost',
    message: `${which} issued, but ${d.spec.root.mount} holds none of this resource's; restore Vault's data, check spec.vault.address and the names in the spec, or create the resource anew that made it. No new root is made by itself: when it is gone for good, annotate this resource with ${known.allowReissue}=${text}; every workload must then learn to trust the new root`,
    blocks: 'all',
  };
}

/** The new root of a rotation that signs already and is gone; a roll-back that is asked for puts that right by itself. */
function lostByRotation(d: Desired, o: Observed): { fingerprint?: string; serial?: string } | 'called off' | undefined {
  const state = ownEntry(o.vault.state);
  const { rotation } = state ?? {};
  if (!state || !rotation || rotation.back || !/Switching|Retiring/.test(rotation.phase)) return undefined;
  const stands = recordedRoot(d, o) !== undefined;
  const asked =
    rotation.phase === 'Switching' && pendingRequest(d, state.handled, known.rollbackRotation) !== undefined;
  return stands && asked ? 'called off' : rotation.to;
}
