/** Checks that protect the root that workloads trust: the operator replaces it only on request. */
import type { DerivedState } from '../facts/derived.ts';
import { annotations as known } from '../../api/annotations.ts';
import { bundleFacts, type CertificateFacts } from '../facts/certificate.ts';
import { pendingRequest } from '../facts/desired.ts';
import { adoptionOf } from '../ownership/adoption.ts';
import { ownables, owns } from '../ownership/ownership.ts';
import { fieldsAppliedFlag } from '../facts/observed.ts';
import type { Problem } from '../facts/problem.ts';
import { resumesForward } from '../rotation/rotation.ts';

/** The roots that istiod would distribute. If this resource does not own the root mount, which is another problem, all roots in it count. */
function rootsToDistribute(s: DerivedState): CertificateFacts[] {
  const adoption = adoptionOf(s);
  const { root, retiring } = (typeof adoption === 'string' ? undefined : adoption?.ca) ?? {};
  if (root) return [root, ...(retiring ? [retiring] : [])].map(({ certificate }) => certificate);
  const ownIds = s.ownRoots.map(({ id }) => id);
  const { rootMount } = ownables(s);
  const all = rootMount && !owns(s, rootMount) ? (s.vault.rootPki?.issuers ?? []) : [];
  const foreign = all.filter(({ id }) => !ownIds.includes(id));
  return [...(s.rootRoles.trusted ?? []), ...foreign.map(({ certificate }) => certificate)];
}

/**
 * The mesh of this namespace trusts neither a root that istiod would distribute nor one in the CA entry. A root of the mesh that the root mount
 * contains but that istiod would not distribute does not count. The check applies until the fields of the control plane are written for the
 * first time.
 */
export function wouldReplaceRoot(s: DerivedState): Problem | undefined {
  const { meshRoots, controlPlane } = s.kubernetes;
  // without a state entry, the fields can come from an earlier resource, which distributed other roots
  const state = s.stateEntry;
  const applied = state && (controlPlane?.writtenBefore === true || state.made.includes(fieldsAppliedFlag));
  if (!meshRoots || meshRoots.length === 0 || applied) return undefined;
  const acceptable = [...rootsToDistribute(s), ...bundleFacts(s.caEntry?.root ?? '')].map((root) => root.fingerprint);
  if (meshRoots.some(({ fingerprint }) => acceptable.includes(fingerprint))) return undefined;
  const [first] = meshRoots;
  if (!first || s.desired.annotations[known.confirmRootChange] === first.fingerprint) return undefined;
  return {
    condition: 'RootReady',
    reason: 'WouldReplaceRoot',
    message: `ConfigMap istio-ca-root-cert of this namespace holds another root ("${first.subject.commonName || first.subject.organization}", SHA-256 ${first.fingerprint}): workloads that trust only that root would fail. To go on, annotate this resource with ${known.confirmRootChange}=${first.fingerprint}`,
    blocks: 'all',
  };
}

/**
 * The root that must sign is lost. Workloads trust it, so the operator creates another root only if annotation `allow-reissue` names the lost
 * one.
 */
export function rootLost(s: DerivedState): Problem | undefined {
  const adoption = adoptionOf(s);
  // the checks of adoption apply to objects that are to be adopted
  if (s.signer || typeof adoption === 'string' || adoption?.ca?.root) return undefined;
  if (resumesForward(s)) return undefined;
  const rotatedTo = newRootThatMustSign(s);
  if (rotatedTo === 'rolled back') return undefined;
  const { fingerprint, serial } = rotatedTo ?? s.lastKnownRoot ?? {};
  if (fingerprint === undefined && serial === undefined && !s.kubernetes.controlPlane?.writtenBefore) return undefined;
  const text = serial ?? s.kubernetes.meshRoots?.[0]?.serial ?? 'unknown';
  if (s.desired.annotations[known.allowReissue]?.toLowerCase() === text) return undefined;
  const mount = `${s.spec.root.mount}/`;
  const recorded = serial === undefined ? fingerprint && `SHA-256 ${fingerprint}` : `serial ${serial}`;
  const cause =
    recorded === undefined
      ? `The control plane carries fields of an IstioVaultCA, but mount ${mount} contains no root certificate of this resource. Restore the Vault data, correct spec.vault.address, or re-create the IstioVaultCA that wrote the fields.`
      : `Mount ${mount} no longer contains the root certificate with ${recorded}. Restore the Vault data, or correct spec.vault.address.`;
  return {
    condition: 'RootReady',
    reason: 'RootLost',
    message: `${cause} The operator does not create a new root automatically. If the root is permanently lost, set annotation ${known.allowReissue}=${text}, then restart istiod and all workloads.`,
    blocks: 'all',
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
