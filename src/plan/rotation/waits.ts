/** What a root rotation waits for besides propagation: older workload certificates, and the user. Pure. */
import { annotations as known } from '../../api/annotations.ts';
import { defaultMaxWorkloadCertTtlMs } from '../../api/istiod.ts';
import type { DerivedState } from '../facts/derived.ts';
import type { DerivedVault } from '../facts/derived-vault.ts';
import { maxWorkloadCertTtlMs } from '../facts/desired.ts';
import type { Rotation } from '../facts/state-entry.ts';

/** The user paused the rotation: no phase begins while annotation `pause-rotation` is `true`. */
const pausedByUser = (s: DerivedVault): boolean => s.desired.annotations[known.pauseRotation] === 'true';

/** A rotation to a root that this resource generates stands still while others manage the root (`root.manage: false`). */
export const standsStill = ({ rotation, rootIsOthers }: DerivedVault): boolean =>
  rootIsOthers && rotation !== undefined && rotation.to.certificate === undefined;

/** No phase of a rotation begins. */
export const paused = (s: DerivedVault): boolean => pausedByUser(s) || standsStill(s);

/**
 * Returns the longest workload certificate lifetime that istiod allowed since the rotation began, in milliseconds; 0: unknown so far. If
 * istiod does not exist or is unreadable, the earlier value stays.
 * @param before the earlier value, in milliseconds
 */
export function longestAllowed(s: DerivedState, before = 0): number {
  const now = maxWorkloadCertTtlMs(s.spec, s.kubernetes.maxWorkloadCertTtlMs);
  return now === 'unknown' ? before : Math.max(now, before);
}

/**
 * The old root, which the rotation replaces, has expired. Continuing then breaks nothing, because no certificate under the old root
 * verifies, and waiting for verification under it is pointless.
 */
export const oldRootExpired = (s: DerivedState): boolean =>
  ((s.recordedRoot ?? s.lostRoot(s.stateEntry?.root))?.certificate.notAfter ?? Infinity) <= s.now;

/** Allowance in milliseconds for clock skew, and for the minute in which a kubelet updates a mounted ConfigMap in the Pods. */
const slackMs = 60_000;

/** Returns the earliest end of a phase, in milliseconds since the epoch; `undefined`: the phase is not propagated yet. */
export function earliestNext(s: DerivedState, rotation: Pick<Rotation, 'reachedAt' | 'longestMs'>): number | undefined {
  if (rotation.reachedAt === undefined) return undefined;
  // certificates that istiod signed under an earlier, longer limit are still valid; only spec.intermediate.maxWorkloadCertTTL shortens the
  // wait
  const specified = s.spec.intermediate.maxWorkloadCertTTL !== undefined;
  const longest = specified ? longestAllowed(s) : longestAllowed(s, rotation.longestMs) || defaultMaxWorkloadCertTtlMs;
  return Date.parse(rotation.reachedAt) + longest + slackMs;
}
