/**
 * Root rotation: replaces the root without a failing workload. All workloads first trust both roots, then the new root signs, then all
 * workloads trust only the new root. A phase begins when the previous phase is propagated. Where older workload certificates must expire
 * first, the phase also waits for the longest workload certificate lifetime. Pure.
 *
 * The phase is recorded in the state entry `<path>-state` before any of its steps. The phase determines which root signs and which roots are
 * trusted (`DerivedState.rootRoles`); `src/plan/vault/intermediate.ts` then issues the intermediate. See docs/rotation.md and docs/adr/0006.
 */
import type { DerivedState } from '../facts/derived.ts';
import type { DerivedVault, OwnIssuer } from '../facts/derived-vault.ts';
import { annotations as known } from '../../api/annotations.ts';
import { rfc3339 } from '../../api/time.ts';
import { rotationProblem } from './checks.ts';
import { handledText, pendingRequest } from '../facts/desired.ts';
import { hasDigest } from '../control-plane/istiod-fields.ts';
import { offeredRoot } from '../facts/outside-roots.ts';
import type { IssuedRoot, Rotation, RotationPhase, StateEntry } from '../facts/state-entry.ts';
import { recheckMs } from '../proof/ready.ts';
import { propagation } from './gates.ts';
import { awaitMembers, needsMembers, withMembersText } from './members.ts';
import { comingRoots, fingerprintOf, followedRoot } from './owners-roots.ts';
import { beforeSigning, ownersDirection, rootToFollow, withTrustedRoots } from './shared-root.ts';
import { earliestNext, longestAllowed, oldRootExpired, paused, standsStill } from './waits.ts';
import { needsZtunnels, ztunnelRestart } from './ztunnels.ts';

/** Values of the annotations `rotate-root` and `rollback-rotation` that were not handled yet; `undefined`: no such request. */
const requests = (s: DerivedVault, { handled }: StateEntry) => ({
  rotate: pendingRequest(s.desired, handled, known.rotateRoot),
  rollBack: pendingRequest(s.desired, handled, known.rollbackRotation),
});

/** Returns the value of annotation `rotate-root` that requests a rotation which has not begun; `undefined`: no such request. */
export function rotationRequest(s: DerivedVault): string | undefined {
  const state = s.stateEntry;
  return state && !state.rotation ? requests(s, state).rotate : undefined;
}

/** The old root can sign again: it is neither lost, expired nor revoked. Until the new root signs, it need not. */
export function canRollBack(s: DerivedState): boolean {
  const { recordedRoot: root, rotation } = s;
  const needsToSign = rotation?.phase === 'Switching';
  return root !== undefined && !root.revoked && !oldRootExpired(s) && !(needsToSign && s.lacksIssuer(root));
}

/**
 * The next root, under the next CA generation: the intent to issue one for the current spec, or a root outside that is known already; undefined: the
 * root outside is the present one, or none is known.
 */
function nextRoot(s: DerivedState, state: StateEntry): IssuedRoot | undefined {
  const next = {
    generation: Math.max(state.root?.generation ?? 0, s.highestRootGeneration) + 1,
    spec: s.desired.root,
  };
  if (s.issuesRoot) return next;
  const offered = offeredRoot(s);
  return offered && offered.fingerprint !== state.root?.fingerprint ? { ...next, ...offered } : undefined;
}

/**
 * With `root.source: Existing`: the recorded root with the issuer that the spec names now, if both issuers are under the same root; undefined: they
 * are not, or another source. Workloads trust the root, so only the next intermediate changes.
 */
function withWantedIssuer(s: DerivedState, { root }: StateEntry): IssuedRoot | undefined {
  const offered = s.rootSource === 'Existing' && !s.imports ? offeredRoot(s) : undefined;
  if (!root || !offered || offered.fingerprint !== root.fingerprint) return undefined;
  return { ...root, ...offered, spec: s.desired.root };
}

/**
 * Returns the state entry with a rotation to the root that the owner of the mount signs with; `undefined`: this resource signs with it already, has no
 * owner to follow, or cannot follow yet. Its workloads trust that root already, so the rotation begins with `Switching`.
 */
function follow(s: DerivedState, state: StateEntry): StateEntry | undefined {
  const root = rootToFollow(s, state);
  if (!root || !s.currentCa || !s.kubernetes.istiod || (s.stagingEntry && !oldRootExpired(s))) return undefined;
  const { pem, fingerprint, serial } = root.certificate;
  const to = {
    generation: Math.max(state.root?.generation ?? 0, s.highestRootGeneration) + 1,
    spec: s.desired.root,
    certificate: pem,
    fingerprint,
    serial,
    issuerId: root.id,
  };
  const longestMs = longestAllowed(s, state.trustedRoots?.[fingerprint]?.longestMs);
  const rotation = { phase: 'Switching' as const, startedAt: rfc3339(s.now), to, back: false, longestMs };
  return { ...state, handled: withRollbackText(s, state), rotation };
}

/** Handled texts with the text of `rollback-rotation` that is set before a rotation begins: it does not apply to it. */
function withRollbackText(s: DerivedState, { handled }: StateEntry): StateEntry['handled'] {
  const text = handledText(s.desired, known.rollbackRotation);
  return text === undefined ? handled : { ...handled, [known.rollbackRotation]: text };
}

/** Returns the state entry with a rotation that begins; the same state entry if no rotation is requested or it cannot begin yet. */
function begin(s: DerivedState, state: StateEntry): StateEntry {
  const { rotate } = requests(s, state);
  const following = rotate === undefined && !s.checksOnly ? follow(s, state) : undefined;
  if (following) return following;
  // others would have to issue the intermediates of its phases
  if (rotate === undefined || s.checksOnly || paused(s) || rotationProblem(s) || state.root?.fingerprint === undefined)
    return state;
  const root = withWantedIssuer(s, state);
  if (root) return { ...state, root, handled: { ...state.handled, [known.rotateRoot]: rotate } };
  const to = nextRoot(s, state);
  if (!to || !s.currentCa || !s.signer || !s.kubernetes.istiod) return state;
  // a certificate that was signed outside or imported under the new root is the staged one
  if (s.stagingEntry && !oldRootExpired(s) && !s.signsOutside) return state;
  const handled = { ...withMembersText(s.desired, withRollbackText(s, state)), [known.rotateRoot]: rotate };
  const rotation = {
    phase: 'Issuing' as const,
    startedAt: rfc3339(s.now),
    to,
    back: false,
    longestMs: longestAllowed(s),
  };
  return { ...state, handled, rotation };
}

/** Returns the rotation with changes that begin a phase. A new phase is not propagated yet, so `reachedAt` is removed. */
function withPhase(rotation: Rotation, over: Partial<Rotation>): Rotation {
  const next = { ...rotation, ...over };
  delete next.reachedAt;
  delete next.awaitsMembers;
  return next;
}

/**
 * Returns the rotation in another direction or toward another root. The operator has then started it itself, so the flag `found` (it was
 * found in progress) is removed.
 */
function redirected(rotation: Rotation, over: Partial<Rotation>): Rotation {
  const next = withPhase(rotation, over);
  delete next.found;
  return next;
}

/** The new root, with its key unless it is outside; `undefined`: not issued yet. */
function createdRoot(s: DerivedState, { to }: Rotation): OwnIssuer | undefined {
  // one that was others' has no name with its CA generation
  const isNew = ({ generation, certificate }: OwnIssuer) =>
    to.fingerprint === undefined ? generation === to.generation : certificate.fingerprint === to.fingerprint;
  return s.ownRoots.find((issuer) => isNew(issuer) && (issuer.keyId !== '' || !s.issuesRoot));
}

function withoutRotation(state: StateEntry): StateEntry {
  const rest = { ...state };
  delete rest.rotation;
  return rest;
}

/**
 * Returns the state entry after a rollback request, with the request marked as handled. The rollback takes the shortest way that no workload
 * notices. Before `Switching`, the new root has signed nothing, so all workloads can return to the old root at once. From `Switching` on,
 * certificates under the new root can exist or still be issued, so both roots stay trusted first.
 * @param lost the new root is permanently lost
 */
function rollBack(s: DerivedState, state: StateEntry, rotation: Rotation, lost: boolean): StateEntry {
  const next = { ...state, handled: withMembersText(s.desired, withRollbackText(s, state)) };
  // the owner of the mount decides
  const followed = followedRoot(s);
  if (followed && followed.certificate.fingerprint === rotation.to.fingerprint) return next;
  // if both roots are lost or expired, nothing verifies any more, and another root is issued
  if (!canRollBack(s)) {
    const to = lost ? nextRoot(s, state) : undefined;
    return to ? { ...next, rotation: redirected(rotation, { phase: 'Issuing', to, back: false }) } : next;
  }
  // no rollback if one is in progress, if it is too late, or if some workloads might not trust the old root; the last two yield to a lost
  // new root
  if (rotation.back || ((rotation.phase === 'Retiring' || rotation.found) && !lost)) return next;
  // on the way back, what was signed outside under the new root is given up
  if (rotation.phase === 'Issuing' && s.issuesRoot) return withoutRotation(next);
  const phase = rotation.phase === 'Switching' || rotation.phase === 'Retiring' ? 'Switching' : 'Retiring';
  return { ...next, rotation: redirected(rotation, { phase, back: true }) };
}

/**
 * The rollback cannot be completed, because the old root is lost, expired or revoked: the rotation resumes toward the new root, if that exists
 * and can sign. If workloads no longer trust the new root, the rotation resumes only if the old root has expired, because then nothing else
 * works either.
 */
export function resumesForward(s: DerivedState): boolean {
  const { rotation } = s.stateEntry ?? {};
  const to = rotation && s.findRoot(rotation.to);
  if (!rotation?.back || canRollBack(s) || !to || to.revoked || s.lacksIssuer(to)) return false;
  return rotation.phase === 'Switching' || oldRootExpired(s);
}

/** Why a rotation that is over began, for the history. */
function reasonOf(s: DerivedState, { found, to }: Rotation): string {
  if (found) return 'end of a rotation that was found';
  const followed = followedRoot(s);
  return followed?.certificate.fingerprint === to.fingerprint
    ? `the owner of mount ${s.spec.root.mount} signs with it`
    : `asked for by ${known.rotateRoot}`;
}

/** Returns the state entry without the rotation; after a completed rotation, the new root becomes the recorded root. */
function finish(s: DerivedState, state: StateEntry, rotation: Rotation): StateEntry {
  const root = s.signer?.certificate;
  if (rotation.back || !root) return withoutRotation(state);
  const inHistory = state.history.some((entry) => entry.kind === 'Root' && entry.fingerprint === root.fingerprint);
  if (inHistory) return { ...withoutRotation(state), root: rotation.to };
  const entry = {
    time: rfc3339(s.now),
    kind: 'Root' as const,
    serial: root.serial,
    fingerprint: root.fingerprint,
    reason: reasonOf(s, rotation),
  };
  return { ...withoutRotation(state), root: rotation.to, history: [entry, ...state.history].slice(0, 10) };
}

/** Returns the state entry with the next phase or a new `reachedAt`; the same state entry if the rotation has to wait. */
function advance(s: DerivedState, state: StateEntry, rotation: Rotation): StateEntry {
  const { phase, to, reachedAt } = rotation;
  const gate = propagation(s);
  const expired = oldRootExpired(s);
  const inPhase = (next: RotationPhase, root = to): StateEntry => ({
    ...state,
    rotation: withPhase(rotation, { phase: next, to: root }),
  });
  if (phase === 'Issuing') {
    const created = createdRoot(s, rotation);
    if (!created || !(gate.passed || expired) || paused(s)) return state;
    const { serial, fingerprint } = created.certificate;
    const ids = created.keyId === '' ? {} : { issuerId: created.id, keyId: created.keyId };
    return inPhase(expired ? 'Switching' : 'Distributing', { ...to, ...ids, serial, fingerprint });
  }
  // what is revoked or gone must not begin to sign; RootReady asks for a rollback
  const next = s.findRoot(to);
  if (!rotation.back && (next?.revoked || (phase === 'Distributing' && s.lacksIssuer(next)))) return state;
  if (phase === 'Distributing' && expired && !paused(s)) return inPhase('Switching');
  if (phase === 'Retiring') return gate.passed && !paused(s) ? finish(s, state, rotation) : state;
  if (reachedAt === undefined)
    return gate.passed ? { ...state, rotation: { ...rotation, reachedAt: rfc3339(s.now) } } : state;
  if (gate.contradicted) return inPhase(phase);
  if (!gate.passed || paused(s) || s.now < (earliestNext(s, rotation) ?? Infinity)) return state;
  // if both roots are lost, the current intermediate goes on until the user gives the new root up
  if (phase === 'Distributing' && s.lostSigner && !s.findRoot(to)) return state;
  if (ztunnelRestart(s, rotation) !== '') return state;
  const waiting = awaitMembers(s, state, rotation);
  if (waiting) return waiting;
  return inPhase(phase === 'Distributing' ? 'Switching' : 'Retiring');
}

/** The new root is lost, and the user confirmed with annotation `allow-reissue` that it is permanently lost. */
function newRootGivenUp(s: DerivedState, { to, back }: Rotation): boolean {
  if (back) return false;
  const lost = to.fingerprint !== undefined && !s.findRoot(to);
  const goesOn = s.recordedRoot ?? s.lostRoot(s.stateEntry?.root);
  return lost && goesOn !== undefined && s.desired.annotations[known.allowReissue]?.toLowerCase() === to.serial;
}

/** Returns the state entry after the transition of a root rotation that is due now: begin, next phase, rollback or end. */
export function rotatedState(s: DerivedState, state: StateEntry): StateEntry {
  const trusting = withTrustedRoots(s, state);
  if (trusting !== state) return trusting;
  const { rotation } = state;
  if (!rotation) return begin(s, state);
  const direction = ownersDirection(s, rotation);
  if (direction)
    return { ...state, rotation: redirected(rotation, { phase: 'Switching', back: direction === 'back' }) };
  const lost = newRootGivenUp(s, rotation);
  if (standsStill(s)) return state;
  if (requests(s, state).rollBack !== undefined || lost) return rollBack(s, state, rotation, lost);
  if (resumesForward(s)) return { ...state, rotation: redirected(rotation, { phase: 'Switching', back: false }) };
  const longestMs = longestAllowed(s, rotation.longestMs);
  if (longestMs > rotation.longestMs) return { ...state, rotation: { ...rotation, longestMs } };
  return advance(s, state, rotation);
}

/** Returns when a rotation must be rechecked, in milliseconds since the epoch; `undefined`: not before something changes. */
export function rotationDue(s: DerivedState): number | undefined {
  const rotation = s.stateEntry?.rotation;
  if (paused(s)) return undefined;
  if (!rotation) return followingDue(s);
  if (!propagation(s).passed) return s.now + recheckMs;
  const next = earliestNext(s, rotation);
  if (next === undefined || next > s.now) return next;
  if (ztunnelRestart(s, rotation) !== '') return s.now + recheckMs;
  // the annotation is an event
  return needsMembers(s, rotation) ? undefined : next;
}

/** When it is looked again whether the mesh trusts roots of an owner; `undefined`: it does, and the owner is looked at with every `--resync`. */
function followingDue(s: DerivedState): number | undefined {
  const waits = comingRoots(s).map((root) => beforeSigning(s, fingerprintOf(root)));
  const open = waits.filter(({ waitingFor }) => waitingFor !== '');
  if (open.length === 0) return undefined;
  return Math.min(...open.map(({ due }) => (due !== undefined && due > s.now ? due : s.now + recheckMs)));
}

/** A rotation is requested or in progress, or the owner of the mount can begin to sign with another root. */
const rotationPending = (s: DerivedState): boolean =>
  s.stateEntry?.rotation !== undefined || rotationRequest(s) !== undefined || comingRoots(s).length > 0;

/** The ztunnels of an ambient mesh are to be read: what is requested or in progress waits for them. */
export const asksForZtunnels = (s: DerivedState): boolean =>
  rotationPending(s) && needsZtunnels(s.stateEntry?.rotation);

/**
 * Every istiod replica is to be asked which roots it distributes: a rotation is requested or in progress, and no digest on the Pods shows which
 * roots they hold.
 */
export const asksForRoots = (s: DerivedState): boolean => rotationPending(s) && !hasDigest(s.spec);
