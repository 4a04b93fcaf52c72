/** How long the certificates of the CA still serve, in the words of `RootReady` and `IntermediateReady`. Pure; no clocks in what it says. */
import type { OwnIssuer, DerivedState } from '../facts/derived.ts';
import { annotations as known } from '../../api/annotations.ts';
import { expiryReason, type StageCondition } from '../../api/conditions.ts';
import { formatGoDuration } from '../../api/duration.ts';
import { rfc3339 } from '../../api/time.ts';

const hour = 3_600_000;
const day = (ms: number) => rfc3339(ms).slice(0, 10);

/** When a root should be replaced, in milliseconds since the epoch: with a third of its life left. It is never replaced unasked. */
export function rootRenewAt({ certificate }: OwnIssuer): number {
  return certificate.notAfter - (certificate.notAfter - certificate.notBefore) / 3;
}

/** The reason of a stage that holds, and will not for ever; undefined: there is time. */
export function expiry(stage: StageCondition, s: DerivedState): string | undefined {
  const root = s.signer;
  const due = s.renewAt;
  if (stage === 'RootReady' && root && s.now >= rootRenewAt(root)) return expiryReason.RootReady;
  // due is past while the CA is looked at only when something keeps it from being renewed
  if (stage === 'IntermediateReady' && due !== undefined && s.now >= due) return expiryReason.IntermediateReady;
  return undefined;
}

/** The root that stands, and from its `renewAt` on what to do. */
export function rootMessage(s: DerivedState): string | undefined {
  const root = s.signer;
  if (!root) return undefined;
  const { serial, notAfter } = root.certificate;
  const stands = `root ${serial.slice(0, 11)}… in ${s.spec.root.mount} until ${day(notAfter)}`;
  if (expiry('RootReady', s) === undefined) return stands;
  return `${stands}; since ${day(rootRenewAt(root))} it has less than a third of its life left. It is not replaced by itself: plan a rotation (annotation ${known.rotateRoot}) while the intermediates that it signs can still have their full life`;
}

/**
 * The intermediate that stands, and the ceiling that it sets for workload certificates: as long as it is renewed in time, those of the life
 * that it has left at its renewal never outlive it. Istio before 1.31 does not cut them itself (security/pkg/pki/util/generate_cert.go).
 */
export function intermediateMessage(s: DerivedState): string | undefined {
  const live = s.currentCa;
  if (!live) return undefined;
  const { notAfter } = live.certificate;
  const stands = `generation ${live.generation} in ${s.spec.intermediate.mount} until ${day(notAfter)}`;
  const due = s.renewAt;
  if (due === undefined || s.now >= due) {
    const late = due === undefined ? '' : `; its renewal was due on ${day(due)}`;
    return `${stands}${late}; workload certificates must end by then`;
  }
  const ceiling = Math.floor((notAfter - due) / hour) * hour || notAfter - due;
  return `${stands}, renewed on ${day(due)}; workload certificates of up to ${formatGoDuration(Math.floor(ceiling))} end before it`;
}
