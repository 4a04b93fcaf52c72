/** Checks that a root that workloads trust, and that is lost, is not replaced without a request. */
import type { DerivedState } from '../facts/derived.ts';
import type { OwnIssuer } from '../facts/derived-vault.ts';
import { annotations as known } from '../../api/annotations.ts';
import { rfc3339 } from '../../api/time.ts';
import { pendingRequest } from '../facts/desired.ts';
import { adoptionOf } from '../ownership/adoption.ts';
import { meshTrustsWantedRoot } from '../facts/outside-roots.ts';
import type { Problem } from '../facts/problem.ts';
import { resumesForward } from '../rotation/rotation.ts';

/**
 * The root that must sign is lost. Workloads trust it, so the operator creates another root only if annotation `allow-reissue` names the lost
 * one.
 */
export function rootLost(s: DerivedState): Problem | undefined {
  // others make the CA, and with it the choice of its root
  if (s.checksOnly && !s.issuesRoot) return undefined;
  const adoption = adoptionOf(s);
  if (s.lostSigner) return signerLost(s, s.lostSigner);
  // the checks of adoption apply to objects that are to be adopted
  if (s.signer || typeof adoption === 'string' || adoption?.ca?.root) return undefined;
  if (resumesForward(s)) return undefined;
  const rotatedTo = newRootThatMustSign(s);
  if (rotatedTo === 'rolled back') return undefined;
  const { fingerprint, serial } = rotatedTo ?? s.lastKnownRoot ?? {};
  const isRecorded = fingerprint !== undefined || serial !== undefined;
  if (!isRecorded && (!s.kubernetes.controlPlane?.writtenBefore || meshTrustsWantedRoot(s))) return undefined;
  const text = serial ?? s.kubernetes.meshRoots?.[0]?.serial ?? 'unknown';
  if (s.desired.annotations[known.allowReissue]?.toLowerCase() === text) return undefined;
  const mount = `${s.spec.root.mount}/`;
  const recorded = serial === undefined ? fingerprint && `SHA-256 ${fingerprint}` : `serial ${serial}`;
  const { keyStore } = s.spec;
  const entries = `${keyStore.mount}/${keyStore.path}`;
  // a root outside is known by what is recorded of it
  const cause = !s.issuesRoot
    ? `The control plane carries fields of an IstioVaultCA, but neither entry ${entries} nor ${entries}-state, which name its root, is there. Restore them, or correct spec.vault.address or spec.keyStore.`
    : recorded === undefined
      ? `The control plane carries fields of an IstioVaultCA, but mount ${mount} contains no root certificate of this resource. Restore the Vault data, correct spec.vault.address, or re-create the IstioVaultCA that wrote the fields.`
      : `Mount ${mount} no longer contains the root certificate with ${recorded}. Restore the Vault data, or correct spec.vault.address.`;
  const remedy = s.issuesRoot
    ? `The operator does not create a new root automatically. If the root is permanently lost, set annotation ${known.allowReissue}=${text}, then restart istiod and all workloads.`
    : `If they are permanently lost, set annotation ${known.allowReissue}=${text}: the operator then looks for the root anew.`;
  return {
    condition: 'RootReady',
    reason: 'RootLost',
    message: `${cause} ${remedy}`,
    blocks: 'all',
  };
}

/**
 * The root of the current intermediate is lost. The intermediate goes on: everything that istiod needs is kept, and nothing is issued until the user
 * requests a rotation, which distributes another root beside the lost one.
 */
function signerLost(s: DerivedState, { certificate: { serial } }: OwnIssuer): Problem | undefined {
  const { rotation } = s.stateEntry ?? {};
  const forward = rotation && !rotation.back && /Issuing|Distributing/.test(rotation.phase);
  const bothLost = forward && rotation.to.fingerprint !== undefined && !s.findRoot(rotation.to);
  if (forward && !bothLost) return undefined;
  if (bothLost && s.desired.annotations[known.allowReissue]?.toLowerCase() === rotation.to.serial) return undefined;
  const end = s.currentCa?.certificate.notAfter ?? 0;
  const mount = `${s.spec.root.mount}/`;
  const bundle = s.spec.delivery.source === 'Bundle' ? '' : 'set spec.delivery.source to Bundle, then ';
  const remedies = bothLost
    ? `The new root of the rotation, serial ${rotation.to.serial ?? ''}, is lost too. To have another one created, while workloads trust the lost root too, set annotation ${known.allowReissue}=${rotation.to.serial ?? ''}.`
    : `To have a new root replace it while workloads trust both, ${bundle}set annotation ${known.rotateRoot} to a new text. To replace it at once, set annotation ${known.allowReissue}=${serial}, then restart istiod and all workloads.`;
  return {
    condition: 'RootReady',
    reason: 'RootLost',
    message: `Mount ${mount} no longer contains the root certificate with serial ${serial}. Restore the Vault data, or correct spec.vault.address. The intermediate ${end > s.now ? `goes on until it ends on ${rfc3339(end)}` : `ended on ${rfc3339(end)}`}; it cannot be renewed, and the operator does not create a new root automatically. ${remedies}`,
    blocks: 'nothing',
  };
}

/**
 * The new root of a rotation, in the phases in which it signs and does not exist any more; undefined: no such rotation. `rolled back`: a
 * rollback is requested and possible, which solves the problem.
 */
function newRootThatMustSign(s: DerivedState): { serial?: string; fingerprint?: string } | 'rolled back' | undefined {
  const state = s.stateEntry;
  const { rotation } = state ?? {};
  if (!state || !rotation || rotation.back || !/Switching|Retiring/.test(rotation.phase)) return undefined;
  const requested =
    rotation.phase === 'Switching' && pendingRequest(s.desired, state.handled, known.rollbackRotation) !== undefined;
  return requested && s.recordedRoot !== undefined ? 'rolled back' : rotation.to;
}
