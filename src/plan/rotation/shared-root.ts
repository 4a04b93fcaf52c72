/**
 * A member of a shared root: a resource that signs under the root of another IstioVaultCA (`root.source: Existing`). It hands out all roots of the owner
 * (`DerivedState.sharedRoots`), records since when its mesh trusts each of them, and signs under the default issuer of the mount, which the owner
 * signs with itself, once its workloads have trusted that root for long enough. The way back is the same. Pure.
 */
import { rfc3339 } from '../../api/time.ts';
import type { DerivedState } from '../facts/derived.ts';
import type { ExistingIssuer } from '../facts/observed.ts';
import type { Rotation, StateEntry, TrustedRoot } from '../facts/state-entry.ts';
import { meshView } from '../proof/mesh.ts';
import { rotationProblem } from './checks.ts';
import { propagation } from './gates.ts';
import { fingerprintOf, followedRoot } from './owners-roots.ts';
import { earliestNext, longestAllowed, oldRootExpired, paused } from './waits.ts';
import { ztunnelRestart } from './ztunnels.ts';

/** What is recorded of one root that is handed out. */
function recordOf(s: DerivedState, fingerprint: string, before: TrustedRoot | undefined): TrustedRoot {
  const longestMs = longestAllowed(s, before?.longestMs);
  const lacking = (meshView(s)?.replicas ?? []).some(
    ({ roots }) => roots !== undefined && !roots.includes(fingerprint),
  );
  const reachedAt = before?.reachedAt ?? (propagation(s).passed ? rfc3339(s.now) : undefined);
  return { longestMs, ...(lacking || reachedAt === undefined ? {} : { reachedAt }) };
}

type TrustedRoots = NonNullable<StateEntry['trustedRoots']>;

const sameRecords = (one: TrustedRoots, other: TrustedRoots): boolean =>
  Object.keys(one).length === Object.keys(other).length &&
  Object.entries(one).every(
    ([root, { reachedAt, longestMs }]) => other[root]?.reachedAt === reachedAt && other[root]?.longestMs === longestMs,
  );

/** The state entry with what is known of the roots that are handed out; the same state entry if it says so already. */
export function withTrustedRoots(s: DerivedState, state: StateEntry): StateEntry {
  const { trustedRoots: before, ...rest } = state;
  if (!s.sharedRoots) return s.vault.existing?.found.length === 0 || !before ? state : rest;
  const { trusted } = s.rootRoles;
  if (!trusted) return state;
  const records = trusted.map(({ fingerprint: one }) => [one, recordOf(s, one, before?.[one])]);
  const trustedRoots = Object.fromEntries(records) as TrustedRoots;
  return before && sameRecords(trustedRoots, before) ? state : { ...state, trustedRoots };
}

/**
 * What has to happen before this resource can sign with a root of the owner, as a noun phrase; empty: nothing.
 * @returns `due`: when the wait for older workload certificates ends, milliseconds since the epoch
 */
export function beforeSigning(s: DerivedState, fingerprint: string): { waitingFor: string; due?: number } {
  const record = s.stateEntry?.trustedRoots?.[fingerprint] ?? { longestMs: 0 };
  const gate = propagation(s);
  if (!gate.passed) return { waitingFor: gate.waitingFor };
  const due = earliestNext(s, record);
  if (due === undefined) return { waitingFor: 'root-cert.pem to be seen everywhere' };
  if (due > s.now) return { waitingFor: 'workload certificates that were issued before to run out', due };
  const { reachedAt } = record;
  return {
    waitingFor: ztunnelRestart(s, { phase: 'Distributing', ...(reachedAt === undefined ? {} : { reachedAt }) }),
    due,
  };
}

/**
 * The record of the root that this resource is to sign with from now on, as the owner does; undefined: it does already, or cannot yet. If the issuer
 * that signed so far is gone, the default issuer is not followed: Vault makes the first issuer of an empty mount the default, although the owner
 * does not sign with it.
 */
export function rootToFollow(s: DerivedState, state: StateEntry): ExistingIssuer | undefined {
  const root = followedRoot(s);
  const fingerprint = state.root?.fingerprint;
  if (!root || fingerprint === undefined || fingerprint === fingerprintOf(root) || paused(s)) return undefined;
  if (rotationProblem(s)) return undefined;
  if (oldRootExpired(s)) return root;
  const isReady = !s.lacksIssuer(s.recordedRoot) && beforeSigning(s, fingerprintOf(root)).waitingFor === '';
  return isReady ? root : undefined;
}

/** The direction that the owner gives a rotation in `Switching`; undefined: the one that it has, or the owner gives none. */
export function ownersDirection(s: DerivedState, { phase, to, back, found }: Rotation): 'back' | 'forward' | undefined {
  const root = followedRoot(s);
  if (!root || phase !== 'Switching' || found) return undefined;
  const fingerprint = fingerprintOf(root);
  if (fingerprint === to.fingerprint) return back ? 'forward' : undefined;
  return fingerprint === s.stateEntry?.root?.fingerprint && !back ? 'back' : undefined;
}
