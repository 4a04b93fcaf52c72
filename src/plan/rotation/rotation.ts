/**
 * Replacing the root without a workload that fails: trust both, then sign with the new one, then trust only that. Each phase begins when the
 * one before is proven everywhere, and, where certificates must have run out first, no sooner than the longest of them has. Pure.
 *
 * The phase is in `<path>-state` and written before anything of it is done; which root signs and which are trusted follows from it
 * (`rootsOf`), and the issuing of `intermediate.ts` does the rest. docs/rotation.md, docs/adr/0006.
 */
import type { DerivedState, DerivedVault } from '../facts/derived.ts';
import { annotations as known } from '../../api/annotations.ts';
import { defaultMaxWorkloadCertTtlMs } from '../../api/istiod.ts';
import { rfc3339 } from '../../api/time.ts';
import { rotationProblem } from './checks.ts';
import { handledText, maxWorkloadCertTtlMs, pendingRequest } from '../facts/desired.ts';
import { hasDigest } from '../control-plane/istiod-fields.ts';
import type { Issued, RootSpec, Rotation, RotationPhase, StateEntry } from '../facts/state-entry.ts';
import { recheckMs } from '../proof/ready.ts';
import { propagation } from './gates.ts';

/** Texts of the two action annotations that were not answered yet. */
const requests = (s: DerivedVault, { handled }: StateEntry) => ({
  rotate: pendingRequest(s.desired, handled, known.rotateRoot),
  rollBack: pendingRequest(s.desired, handled, known.rollbackRotation),
});

/** A person has asked for no phase to begin. */
export const paused = (s: DerivedVault): boolean => s.desired.annotations[known.pauseRotation] === 'true';

/** The text of `rotate-root` that asks for a rotation that has not begun. */
export function rotationAsked(s: DerivedVault): string | undefined {
  const state = s.stateEntry;
  return state && !state.rotation ? requests(s, state).rotate : undefined;
}

/**
 * The longest workload certificate that was seen to be allowed since a rotation began, in milliseconds; 0: none yet. An istiod that is not
 * there, or may not be read, adds nothing to what was seen before.
 */
function longestSeen(s: DerivedState, before = 0): number {
  const now = maxWorkloadCertTtlMs(s.spec, s.kubernetes.maxWorkloadCertTtlMs);
  return now === 'unknown' ? before : Math.max(now, before);
}

/** The root that a rotation leads away from has run out: nothing works that going on could break, and nothing under it can be proven. */
const hasEnded = (s: DerivedState): boolean => (s.recordedRoot?.certificate.notAfter ?? Infinity) <= s.now;

/** The old root could sign again. */
export const canRollBack = (s: DerivedState): boolean => s.recordedRoot !== undefined && !hasEnded(s);

/** A root to be made for the spec of now. */
const rootToIssue = (s: DerivedState, state: StateEntry): Issued<RootSpec> => ({
  generation: Math.max(state.root?.generation ?? 0, s.highestRootGeneration) + 1,
  spec: s.desired.root,
});

function begin(s: DerivedState, state: StateEntry): StateEntry {
  const { rotate } = requests(s, state);
  if (rotate === undefined || paused(s) || rotationProblem(s) || state.root?.fingerprint === undefined) return state;
  if (!s.currentCa || !s.signer || !s.kubernetes.istiod) return state;
  if (s.stagingEntry && !hasEnded(s)) return state;
  // a text that stands already does not roll back what begins only now
  const rollBack = handledText(s.desired, known.rollbackRotation);
  const handled = {
    ...state.handled,
    [known.rotateRoot]: rotate,
    ...(rollBack === undefined ? {} : { [known.rollbackRotation]: rollBack }),
  };
  const rotation = {
    phase: 'Issuing' as const,
    startedAt: rfc3339(s.now),
    to: rootToIssue(s, state),
    back: false,
    longestMs: longestSeen(s),
  };
  return { ...state, handled, rotation };
}

/** A phase that begins: what was reached before is over. */
function withPhase(rotation: Rotation, over: Partial<Rotation>): Rotation {
  const next = { ...rotation, ...over };
  delete next.reachedAt;
  return next;
}

/** Led the other way, or to another root: from here on it is known how it came about. */
function redirected(rotation: Rotation, over: Partial<Rotation>): Rotation {
  const next = withPhase(rotation, over);
  delete next.found;
  return next;
}

/** The new root, once it is made. */
const createdRoot = (s: DerivedState, { to }: Rotation) =>
  s.ownRoots.find((issuer) => issuer.generation === to.generation && issuer.keyId !== '');

function withoutRotation(state: StateEntry): StateEntry {
  const rest = { ...state };
  delete rest.rotation;
  return rest;
}

/**
 * Back by the shortest way that no workload notices: under the new root nothing is signed before `Switching`, and from then on what was
 * begun under it may still land.
 * @param lost the new root is gone for good
 */
function rollBack(s: DerivedState, state: StateEntry, rotation: Rotation, lost: boolean): StateEntry {
  const text = handledText(s.desired, known.rollbackRotation);
  const handled = text === undefined ? state.handled : { ...state.handled, [known.rollbackRotation]: text };
  const next = { ...state, handled };
  // with neither root to go to nothing works any more, and one is made anew
  if (!canRollBack(s))
    return lost
      ? { ...next, rotation: redirected(rotation, { phase: 'Issuing', to: rootToIssue(s, state), back: false }) }
      : next;
  // on its way back already, or too late, or to a root that not all may trust: unless there is nothing to go on to
  if (rotation.back || ((rotation.phase === 'Retiring' || rotation.found) && !lost)) return next;
  if (rotation.phase === 'Issuing') return withoutRotation(next);
  const phase = rotation.phase === 'Distributing' ? 'Retiring' : 'Switching';
  return { ...next, rotation: redirected(rotation, { phase, back: true }) };
}

/**
 * On its way back to a root that was lost, or has run out: the new one, if it stands, signs again. Not once the new one is trusted no more,
 * unless nothing works that this could break.
 */
export function resumesForward(s: DerivedState): boolean {
  const { rotation } = s.stateEntry ?? {};
  if (!rotation?.back || canRollBack(s) || !s.findRoot(rotation.to)) return false;
  return rotation.phase === 'Switching' || hasEnded(s);
}

/** Clocks differ, and a kubelet takes a minute to show a changed ConfigMap to the agents that mount it. Milliseconds. */
const slackMs = 60_000;

/** When a phase that was reached may end: milliseconds since the epoch. */
export function earliestNext(s: DerivedState, rotation: Rotation): number | undefined {
  if (rotation.reachedAt === undefined) return undefined;
  // what istiod allowed before still lives; only a person who knows better shortens it
  const asked = s.spec.intermediate.maxWorkloadCertTTL !== undefined;
  const longest = asked ? longestSeen(s) : longestSeen(s, rotation.longestMs) || defaultMaxWorkloadCertTtlMs;
  return Date.parse(rotation.reachedAt) + longest + slackMs;
}

/** The end: the root that all trust is the root of this CA. */
function finish(s: DerivedState, state: StateEntry, rotation: Rotation): StateEntry {
  const root = s.signer?.certificate;
  if (rotation.back || !root) return withoutRotation(state);
  const told = state.history.some((entry) => entry.kind === 'Root' && entry.fingerprint === root.fingerprint);
  if (told) return { ...withoutRotation(state), root: rotation.to };
  const entry = {
    time: rfc3339(s.now),
    kind: 'Root' as const,
    serial: root.serial,
    fingerprint: root.fingerprint,
    reason: rotation.found ? 'end of a rotation that was found' : `asked for by ${known.rotateRoot}`,
  };
  return { ...withoutRotation(state), root: rotation.to, history: [entry, ...state.history].slice(0, 10) };
}

function advance(s: DerivedState, state: StateEntry, rotation: Rotation): StateEntry {
  const { phase, to, reachedAt } = rotation;
  const gate = propagation(s);
  const ended = hasEnded(s);
  const inPhase = (next: RotationPhase, root = to): StateEntry => ({
    ...state,
    rotation: withPhase(rotation, { phase: next, to: root }),
  });
  if (phase === 'Issuing') {
    const made = createdRoot(s, rotation);
    if (!made || !(gate.passed || ended) || paused(s)) return state;
    const { serial, fingerprint } = made.certificate;
    return inPhase(ended ? 'Switching' : 'Distributing', {
      ...to,
      issuerId: made.id,
      keyId: made.keyId,
      serial,
      fingerprint,
    });
  }
  if (phase === 'Distributing' && ended && !paused(s)) return inPhase('Switching');
  if (phase === 'Retiring') return gate.passed && !paused(s) ? finish(s, state, rotation) : state;
  if (reachedAt === undefined)
    return gate.passed ? { ...state, rotation: { ...rotation, reachedAt: rfc3339(s.now) } } : state;
  if (gate.contradicted) return inPhase(phase);
  if (!gate.passed || paused(s) || s.now < (earliestNext(s, rotation) ?? Infinity)) return state;
  return inPhase(phase === 'Distributing' ? 'Switching' : 'Retiring');
}

/** The new root is lost, and a person has said by `allow-reissue` that it is gone for good. */
function givenUp(s: DerivedState, { to, back }: Rotation): boolean {
  if (back) return false;
  const lost = to.fingerprint !== undefined && !s.findRoot(to);
  return lost && s.recordedRoot !== undefined && s.desired.annotations[known.allowReissue]?.toLowerCase() === to.serial;
}

/** The state with the step of a root rotation that is due now: its begin, its next phase, its way back, its end. */
export function rotatedState(s: DerivedState, state: StateEntry): StateEntry {
  const { rotation } = state;
  if (!rotation) return begin(s, state);
  const lost = givenUp(s, rotation);
  if (requests(s, state).rollBack !== undefined || lost) return rollBack(s, state, rotation, lost);
  if (resumesForward(s)) return { ...state, rotation: redirected(rotation, { phase: 'Switching', back: false }) };
  const longestMs = longestSeen(s, rotation.longestMs);
  if (longestMs > rotation.longestMs) return { ...state, rotation: { ...rotation, longestMs } };
  return advance(s, state, rotation);
}

/** When a rotation must be looked at again; undefined: when something changes. Milliseconds since the epoch. */
export function rotationDue(s: DerivedState): number | undefined {
  const rotation = s.stateEntry?.rotation;
  if (!rotation || paused(s)) return undefined;
  return propagation(s).passed ? earliestNext(s, rotation) : s.now + recheckMs;
}

/**
 * The roots that a replica must be trusted by to be asked which ones it hands out: PEM. undefined: it need not be asked, since no rotation
 * goes on, or a digest on its pod tells.
 */
export function trustForRootQuery(s: DerivedState): string | undefined {
  const { rotation } = s.stateEntry ?? {};
  const live = s.currentCa;
  const digest = hasDigest(s.spec);
  return (rotation || rotationAsked(s) !== undefined) && !digest ? live?.root : undefined;
}
