/**
 * Messages of `RootReady` and `IntermediateReady` about the expiry of the certificates. They contain fixed dates and no remaining time, so
 * that they stay stable. Pure.
 */
import type { CertificateFacts } from '../facts/certificate.ts';
import type { DerivedState } from '../facts/derived.ts';
import type { OwnIssuer } from '../facts/derived-vault.ts';
import { annotations as known } from '../../api/annotations.ts';
import { expiryReason, type StageCondition } from '../../api/conditions.ts';
import { formatGoDuration } from '../../api/duration.ts';
import { rfc3339 } from '../../api/time.ts';
import { ownersNotes } from '../rotation/owners-roots.ts';
import { isAwaited } from '../vault/outside-root-checks.ts';

const hour = 3_600_000;

/** Date of a time, `YYYY-MM-DD` in UTC. @param ms milliseconds since the epoch */
export const day = (ms: number) => rfc3339(ms).slice(0, 10);

/**
 * Returns when a root should be replaced: when a third of its lifetime is left, in milliseconds since the epoch. The operator replaces a
 * root only on request.
 */
export function rootRenewAt({ certificate }: OwnIssuer): number {
  return certificate.notAfter - (certificate.notAfter - certificate.notBefore) / 3;
}

/** Returns the reason for a certificate that expires soon; `undefined`: it does not, or the stage has no certificate. */
export function expiry(stage: StageCondition, s: DerivedState): string | undefined {
  const root = s.signer;
  const due = s.renewAt;
  if (stage === 'RootReady' && root && s.now >= rootRenewAt(root)) return expiryReason.RootReady;
  // the plan renews an intermediate when it is due, so a due date in the past means that something prevents the renewal, unless a signature outside
  // of Vault is awaited
  if (stage === 'IntermediateReady' && due !== undefined && s.now >= due && !isAwaited(s))
    return expiryReason.IntermediateReady;
  return undefined;
}

/** Returns the message about the signing root, from its `renewAt` on with the action to take; `undefined`: no root signs. */
export function rootMessage(s: DerivedState): string | undefined {
  const root = s.signer;
  if (!root) return undefined;
  const { serial, notAfter } = root.certificate;
  const isExisting = s.rootSource === 'Existing' && root.id !== '';
  const outside = isExisting ? `above issuer ${root.id} of ${s.spec.root.mount}` : 'outside of Vault';
  const lost = `lost, no longer in ${s.spec.root.mount}, valid`;
  const isInMount = s.rootSource === 'Generate' && !s.hasKeylessRoot;
  const where = s.lostSigner ? lost : isInMount ? `in ${s.spec.root.mount}` : outside;
  const current = [`root ${serial.slice(0, 11)}… ${where} until ${day(notAfter)}`, ...ownersNotes(s)].join('; ');
  if (expiry('RootReady', s) === undefined) return current;
  if (s.checksOnly)
    return `${current}; since ${day(rootRenewAt(root))} it has less than a third of its life left: whoever manages the CA must replace it, see docs/checks.md`;
  const remedy = s.sharedRoots
    ? 'have the IstioVaultCA that owns the mount rotate it, which this resource follows,'
    : `plan a rotation (annotation ${known.rotateRoot})`;
  return `${current}; since ${day(rootRenewAt(root))} it has less than a third of its life left. It is not replaced by itself: ${remedy} while the intermediates that it signs can still have their full life`;
}

/**
 * Returns the message about the current intermediate and its limit for workload certificates; `undefined`: there is no valid CA. The limit
 * is the lifetime that the intermediate has left at its renewal. If the renewal is on time, workload certificates within this limit never
 * outlive the intermediate. Istio before 1.31 does not limit them to the expiry of the intermediate itself.
 * Source: https://github.com/istio/istio, security/pkg/pki/util/generate_cert.go
 */
export function intermediateMessage(s: DerivedState): string | undefined {
  const ca = s.currentCa;
  if (!ca) return undefined;
  const { notAfter } = ca.certificate;
  if (s.checksOnly) return messageOfOthers(s, ca.certificate);
  const where = ca.imported ? 'imported, valid' : `in ${s.spec.intermediate.mount}`;
  const current = `generation ${ca.generation} ${where} until ${day(notAfter)}`;
  const due = s.renewAt;
  if (due === undefined || s.now >= due) {
    const late = due === undefined ? '' : `; its renewal was due on ${day(due)}`;
    return `${current}${late}; workload certificates must end by then`;
  }
  const limit = Math.floor((notAfter - due) / hour) * hour || notAfter - due;
  return `${current}, renewed on ${day(due)}; workload certificates of up to ${formatGoDuration(Math.floor(limit))} end before it`;
}

/** The message about an intermediate that others manage, and that they must renew. */
function messageOfOthers(s: DerivedState, { serial, notAfter }: CertificateFacts): string {
  const due = s.renewAt;
  const current = `intermediate ${serial.slice(0, 11)}… of others until ${day(notAfter)}`;
  if (due === undefined) return current;
  return s.now < due
    ? `${current}, which they must renew from ${day(due)} on`
    : `${current}; since ${day(due)} it is due to be renewed, by whoever manages it; workload certificates must end before it`;
}
