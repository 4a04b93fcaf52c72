/** Guards round the trust root: a mesh that trusts another root is never switched unasked. */
import { annotations as known } from '../../api/annotations.ts';
import { bundleFacts } from '../certificate.ts';
import { handledText, type Desired } from '../desired.ts';
import { adoptionOf } from '../adoption.ts';
import { currentRoot, lostRootSerial } from '../facts.ts';
import { own, type Observed } from '../observed.ts';
import type { Problem } from '../problem.ts';

/**
 * The mesh of this namespace trusts a root that is neither in our root mount nor in what we published. Raised before a
 * root is made and before the control plane's fields are first written; never once they are there.
 */
export function wouldReplaceRoot(d: Desired, o: Observed): Problem | undefined {
  const { meshRoots, controlPlane } = o.kubernetes;
  // fields that a resource before this one has left say nothing of what this one would bring
  const ours = controlPlane?.writtenBefore === true && own(o.vault.state) !== undefined;
  if (!meshRoots || meshRoots.length === 0 || ours) return undefined;
  const known_ = new Set(
    [...(o.vault.rootPki?.issuers ?? []).map((i) => i.certificate), ...bundleFacts(own(o.vault.live)?.root ?? '')].map(
      (c) => c.fingerprint,
    ),
  );
  if (meshRoots.some((root) => known_.has(root.fingerprint))) return undefined;
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
export function rootLost(d: Desired, o: Observed): Problem | undefined {
  const adoption = adoptionOf(d, o);
  // what is taken over is judged by what it is
  if (currentRoot(d, o) || typeof adoption === 'string' || adoption?.ca?.root) return undefined;
  const rotating = lostByRotation(d, o);
  if (rotating === 'called off') return undefined;
  const recorded =
    rotating?.fingerprint ??
    own(o.vault.state)?.root?.fingerprint ??
    bundleFacts(own(o.vault.live)?.root ?? '')[0]?.fingerprint;
  const serial = rotating?.serial ?? lostRootSerial(o);
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
  const state = own(o.vault.state);
  const { rotation } = state ?? {};
  if (!state || !rotation || rotation.back || !/Switching|Retiring/.test(rotation.phase)) return undefined;
  const stands = o.vault.rootPki?.issuers.some(
    ({ certificate }) => certificate.fingerprint === state.root?.fingerprint,
  );
  const text = handledText(d, known.rollbackRotation);
  const asked = rotation.phase === 'Switching' && text !== undefined && text !== state.handled[known.rollbackRotation];
  return stands && asked ? 'called off' : rotation.to;
}
