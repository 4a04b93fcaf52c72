/** How long the certificates of the CA still serve, in the words of `RootReady` and `IntermediateReady`. Pure; no clocks in what it says. */
import { annotations as known } from '../../api/annotations.ts';
import { expiryReason, type StageCondition } from '../../api/conditions.ts';
import { formatGoDuration } from '../../api/duration.ts';
import { rfc3339 } from '../../api/time.ts';
import type { Desired } from '../facts/desired.ts';
import { currentRoot, renewAt, currentCa, type OwnIssuer } from '../facts/derived.ts';
import type { Observed } from '../facts/observed.ts';

const hour = 3_600_000;
const day = (ms: number) => rfc3339(ms).slice(0, 10);

/** When a root should be replaced, in milliseconds since the epoch: with a third of its life left. It is never replaced unasked. */
export function rootRenewAt({ certificate }: OwnIssuer): number {
  return certificate.notAfter - (certificate.notAfter - certificate.notBefore) / 3;
}

/** The reason of a stage that holds, and will not for ever; undefined: there is time. */
export function expiry(stage: StageCondition, d: Desired, o: Observed, now: number): string | undefined {
  const root = currentRoot(d, o);
  const due = renewAt(d, o);
  if (stage === 'RootReady' && root && now >= rootRenewAt(root)) return expiryReason.RootReady;
  // due is past while the CA is looked at only when something keeps it from being renewed
  if (stage === 'IntermediateReady' && due !== undefined && now >= due) return expiryReason.IntermediateReady;
  return undefined;
}

/** The root that stands, and from its `renewAt` on what to do. */
export function rootMessage(d: Desired, o: Observed, now: number): string | undefined {
  const root = currentRoot(d, o);
  if (!root) return undefined;
  const { serial, notAfter } = root.certificate;
  const stands = `root ${serial.slice(0, 11)}… in ${d.spec.root.mount} until ${day(notAfter)}`;
  if (expiry('RootReady', d, o, now) === undefined) return stands;
  return `${stands}; since ${day(rootRenewAt(root))} it has less than a third of its life left. It is not replaced by itself: plan a rotation (annotation ${known.rotateRoot}) while the intermediates that it signs can still have their full life`;
}

/**
 * The intermediate that stands, and the ceiling that it sets for workload certificates: as long as it is renewed in time, those of the life
 * that it has left at its renewal never outlive it. Istio before 1.31 does not cut them itself (security/pkg/pki/util/generate_cert.go).
 */
export function intermediateMessage(d: Desired, o: Observed, now: number): string | undefined {
  const live = currentCa(d, o);
  if (!live) return undefined;
  const { notAfter } = live.certificate;
  const stands = `generation ${live.generation} in ${d.spec.intermediate.mount} until ${day(notAfter)}`;
  const due = renewAt(d, o);
  if (due === undefined || now >= due) {
    const late = due === undefined ? '' : `; its renewal was due on ${day(due)}`;
    return `${stands}${late}; workload certificates must end by then`;
  }
  const ceiling = Math.floor((notAfter - due) / hour) * hour || notAfter - due;
  return `${stands}, renewed on ${day(due)}; workload certificates of up to ${formatGoDuration(Math.floor(ceiling))} end before it`;
}
