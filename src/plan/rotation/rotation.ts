/**
 * Replacing the root without a workload that fails: trust both, then sign with the new one, then trust only that. Each phase begins when the
 * one before is proven everywhere, and, where certificates must have run out first, no sooner than the longest of them has. Pure.
 *
 * The phase is in `<path>-state` and written before anything of it is done; which root signs and which are trusted follows from it
 * (`rootsOf`), and the issuing of `intermediate.ts` does the rest. docs/rotation.md, docs/adr/0006.
 */
import { annotations as known } from '../../api/annotations.ts';
import { defaultMaxWorkloadCertTtlMs } from '../../api/istiod.ts';
import { rfc3339 } from '../../api/time.ts';
import { rotationProblem } from './checks.ts';
import { handledText, maxWorkloadCertTtlMs, pendingRequest, type Desired } from '../facts/desired.ts';
import { hasDigest } from '../control-plane/istiod-fields.ts';
import type { Issued, RootSpec, Rotation, RotationPhase, StateEntry } from '../facts/state-entry.ts';
import { currentRoot, highestRootGeneration, ownIssuers, recordedRoot, findRoot, currentCa } from '../facts/derived.ts';
import { lookAgainMs } from '../proof/ready.ts';
import { ownEntry, type Observed } from '../facts/observed.ts';
import { propagation } from './gates.ts';

/** Texts of the two action annotations that were not answered yet. */
const requests = (d: Desired, { handled }: StateEntry) => ({
  rotate: pendingRequest(d, handled, known.rotateRoot),
  rollBack: pendingRequest(d, handled, known.rollbackRotation),
});

/** A person has asked for no phase to begin. */
export const paused = (d: Desired): boolean => d.annotations[known.pauseRotation] === 'true';

/** The text of `rotate-root` that asks for a rotation that has not begun. */
export function rotationAsked(d: Desired, o: Pick<Observed, 'vault'>): string | undefined {
  const state = ownEntry(o.vault.state);
  return state && !state.rotation ? requests(d, state).rotate : undefined;
}

/**
 * The longest workload certificate that was seen to be allowed since a rotation began, in milliseconds; 0: none yet. An istiod that is not
 * there, or may not be read, adds nothing to what was seen before.
 */
function longestSeen(d: Desired, o: Observed, before = 0): number {
  const now = maxWorkloadCertTtlMs(d.spec, o.kubernetes.maxWorkloadCertTtlMs);
  return now === 'unknown' ? before : Math.max(now, before);
}

/** The root that a rotation leads away from has run out: nothing works that going on could break, and nothing under it can be proven. */
const hasEnded = (d: Desired, o: Observed, now: number): boolean =>
  (recordedRoot(d, o)?.certificate.notAfter ?? Infinity) <= now;

/** The old root could sign again. */
export const canRollBack = (d: Desired, o: Observed, now: number): boolean =>
  recordedRoot(d, o) !== undefined && !hasEnded(d, o, now);

/** A root to be made for the spec of now. */
const rootToIssue = (d: Desired, o: Observed, state: StateEntry): Issued<RootSpec> => ({
  generation: Math.max(state.root?.generation ?? 0, highestRootGeneration(d, o)) + 1,
  spec: d.root,
});

function begin(d: Desired, o: Observed, state: StateEntry, now: number): StateEntry {
  const { rotate } = requests(d, state);
  if (rotate === undefined || paused(d) || rotationProblem(d, o) || state.root?.fingerprint === undefined) return state;
  if (!currentCa(d, o) || !currentRoot(d, o) || !o.kubernetes.istiod) return state;
  if (ownEntry(o.vault.staging) && !hasEnded(d, o, now)) return state;
  // a text that stands already does not roll back what begins only now
  const rollBack = handledText(d, known.rollbackRotation);
  const handled = {
    ...state.handled,
    [known.rotateRoot]: rotate,
    ...(rollBack === undefined ? {} : { [known.rollbackRotation]: rollBack }),
  };
  const rotation = {
    phase: 'Issuing' as const,
    startedAt: rfc3339(now),
    to: rootToIssue(d, o, state),
    back: false,
    longestMs: longestSeen(d, o),
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
const createdRoot = (d: Desired, o: Observed, { to }: Rotation) =>
  ownIssuers(d, 'root', o.vault).find((issuer) => issuer.generation === to.generation && issuer.keyId !== '');

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
function rollBack(
  d: Desired,
  o: Observed,
  state: StateEntry,
  rotation: Rotation,
  lost: boolean,
  now: number,
): StateEntry {
  const text = handledText(d, known.rollbackRotation);
  const handled = text === undefined ? state.handled : { ...state.handled, [known.rollbackRotation]: text };
  const next = { ...state, handled };
  // with neither root to go to nothing works any more, and one is made anew
  if (!canRollBack(d, o, now))
    return lost
      ? { ...next, rotation: redirected(rotation, { phase: 'Issuing', to: rootToIssue(d, o, state), back: false }) }
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
export function resumesForward(d: Desired, o: Observed, now: number): boolean {
  const { rotation } = ownEntry(o.vault.state) ?? {};
  if (!rotation?.back || canRollBack(d, o, now) || !findRoot(d, o, rotation.to)) return false;
  return rotation.phase === 'Switching' || hasEnded(d, o, now);
}

/** Clocks differ, and a kubelet takes a minute to show a changed ConfigMap to the agents that mount it. Milliseconds. */
const slackMs = 60_000;

/** When a phase that was reached may end: milliseconds since the epoch. */
export function earliestNext(d: Desired, o: Observed, rotation: Rotation): number | undefined {
  if (rotation.reachedAt === undefined) return undefined;
  // what istiod allowed before still lives; only a person who knows better shortens it
  const asked = d.spec.intermediate.maxWorkloadCertTTL !== undefined;
  const longest = asked ? longestSeen(d, o) : longestSeen(d, o, rotation.longestMs) || defaultMaxWorkloadCertTtlMs;
  return Date.parse(rotation.reachedAt) + longest + slackMs;
}

/** The end: the root that all trust is the root of this CA. */
function finish(d: Desired, o: Observed, state: StateEntry, rotation: Rotation, now: number): StateEntry {
  const root = currentRoot(d, o)?.certificate;
  if (rotation.back || !root) return withoutRotation(state);
  const told = state.history.some((entry) => entry.kind === 'Root' && entry.fingerprint === root.fingerprint);
  if (told) return { ...withoutRotation(state), root: rotation.to };
  const entry = {
    time: rfc3339(now),
    kind: 'Root' as const,
    serial: root.serial,
    fingerprint: root.fingerprint,
    reason: rotation.found ? 'end of a rotation that was found' : `asked for by ${known.rotateRoot}`,
  };
  return { ...withoutRotation(state), root: rotation.to, history: [entry, ...state.history].slice(0, 10) };
}

function advance(d: Desired, o: Observed, state: StateEntry, rotation: Rotation, now: number): StateEntry {
  const { phase, to, reachedAt } = rotation;
  const gate = propagation(d, o, now);
  const ended = hasEnded(d, o, now);
  const inPhase = (next: RotationPhase, root = to): StateEntry => ({
    ...state,
    rotation: withPhase(rotation, { phase: next, to: root }),
  });
  if (phase === 'Issuing') {
    const made = createdRoot(d, o, rotation);
    if (!made || !(gate.passed || ended) || paused(d)) return state;
    const { serial, fingerprint } = made.certificate;
    return inPhase(ended ? 'Switching' : 'Distributing', {
      ...to,
      issuerId: made.id,
      keyId: made.keyId,
      serial,
      fingerprint,
    });
  }
  if (phase === 'Distributing' && ended && !paused(d)) return inPhase('Switching');
  if (phase === 'Retiring') return gate.passed && !paused(d) ? finish(d, o, state, rotation, now) : state;
  if (reachedAt === undefined)
    return gate.passed ? { ...state, rotation: { ...rotation, reachedAt: rfc3339(now) } } : state;
  if (gate.contradicted) return inPhase(phase);
  if (!gate.passed || paused(d) || now < (earliestNext(d, o, rotation) ?? Infinity)) return state;
  return inPhase(phase === 'Distributing' ? 'Switching' : 'Retiring');
}

/** The new root is lost, and a person has said by `allow-reissue` that it is gone for good. */
function givenUp(d: Desired, o: Observed, { to, back }: Rotation): boolean {
  if (back) return false;
  const lost = to.fingerprint !== undefined && !findRoot(d, o, to);
  return lost && recordedRoot(d, o) !== undefined && d.annotations[known.allowReissue]?.toLowerCase() === to.serial;
}

/** The state with the step of a root rotation that is due now: its begin, its next phase, its way back, its end. */
export function rotatedState(d: Desired, o: Observed, state: StateEntry, now: number): StateEntry {
  const { rotation } = state;
  if (!rotation) return begin(d, o, state, now);
  const lost = givenUp(d, o, rotation);
  if (requests(d, state).rollBack !== undefined || lost) return rollBack(d, o, state, rotation, lost, now);
  if (resumesForward(d, o, now))
    return { ...state, rotation: redirected(rotation, { phase: 'Switching', back: false }) };
  const longestMs = longestSeen(d, o, rotation.longestMs);
  if (longestMs > rotation.longestMs) return { ...state, rotation: { ...rotation, longestMs } };
  return advance(d, o, state, rotation, now);
}

/** When a rotation must be looked at again; undefined: when something changes. Milliseconds since the epoch. */
export function rotationDue(d: Desired, o: Observed, now: number): number | undefined {
  const rotation = ownEntry(o.vault.state)?.rotation;
  if (!rotation || paused(d)) return undefined;
  return propagation(d, o, now).passed ? earliestNext(d, o, rotation) : now + lookAgainMs;
}

/**
 * The roots that a replica must be trusted by to be asked which ones it hands out: PEM. undefined: it need not be asked, since no rotation
 * goes on, or a digest on its pod tells.
 */
export function trustForRootQuery(d: Desired, o: Observed): string | undefined {
  const { rotation } = ownEntry(o.vault.state) ?? {};
  const live = currentCa(d, o);
  const digest = hasDigest(d.spec);
  return (rotation || rotationAsked(d, o) !== undefined) && !digest ? live?.root : undefined;
}
