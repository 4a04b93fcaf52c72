/** What `<path>-state` records: written before the first thing is made, and again when something was issued. */
import { isDeepStrictEqual } from 'node:util';
import { actionAnnotations } from '../api/annotations.ts';
import { rfc3339 } from '../api/time.ts';
import type { Desired, IntermediateSpec, RootSpec } from './desired.ts';
import { currentRoot, highestGeneration, issuerOf, soundLive, type OwnIssuer } from './facts.ts';
import { own, type HistoryEntry, type Issued, type Observed, type StateEntry } from './observed.ts';

/** All texts present count as handled when the state begins: an old text never starts an action. */
function presentTexts(d: Desired): Record<string, string> {
  return Object.fromEntries(
    actionAnnotations.flatMap((name) => {
      const text = d.annotations[name];
      return text === undefined ? [] : [[name, text]];
    }),
  );
}

function issuedRoot(issuer: OwnIssuer, spec: RootSpec): Issued<RootSpec> {
  return {
    generation: issuer.generation,
    spec,
    issuerId: issuer.id,
    keyId: issuer.keyId,
    serial: issuer.certificate.serial,
    fingerprint: issuer.certificate.fingerprint,
  };
}

function issuedIntermediate(d: Desired, o: Observed, spec: IntermediateSpec): Issued<IntermediateSpec> | undefined {
  const live = soundLive(d, o);
  if (!live) return undefined;
  const issuer = issuerOf(live, o);
  return {
    generation: live.generation,
    spec,
    ...(issuer ? { issuerId: issuer.id, keyId: issuer.keyId } : {}),
    serial: live.certificate.serial,
    fingerprint: live.certificate.fingerprint,
  };
}

const historyOf = (kind: HistoryEntry['kind'], issued: Issued<unknown>, now: number, reason: string): HistoryEntry => ({
  time: rfc3339(now),
  kind,
  serial: issued.serial ?? '',
  fingerprint: issued.fingerprint ?? '',
  reason,
});

/**
 * The state before anything is issued; or, when it was lost while things of ours exist, what can be known of them.
 */
function initialState(d: Desired, o: Observed, now: number): StateEntry {
  const root = currentRoot(d, o);
  const intermediate = issuedIntermediate(d, o, d.intermediate);
  const rebuilt = [
    ...(intermediate ? [historyOf('Intermediate', intermediate, now, 'state rebuilt')] : []),
    ...(root ? [historyOf('Root', issuedRoot(root, d.root), now, 'state rebuilt')] : []),
  ];
  return {
    highestGeneration: highestGeneration(d, o),
    root: root ? issuedRoot(root, d.root) : { generation: 0, spec: d.root },
    intermediate: intermediate ?? { generation: 0, spec: d.intermediate },
    role: d.spec.kubernetesAuth.role,
    made: [],
    handled: presentTexts(d),
    history: rebuilt,
  };
}

/** An audit device carries no mark, so the memory must say that it is ours. */
function madeBesides(d: Desired, o: Observed): string[] {
  return d.spec.audit && !o.vault.auditDevice ? [`audit:${d.spec.audit.path}`] : [];
}

/**
 * The state as it must be before anything further is made: the present one, with the intent of what comes next. An intent
 * that nothing came of follows the spec.
 */
export function intendedState(d: Desired, o: Observed, now: number): StateEntry {
  const state = own(o.vault.state) ?? initialState(d, o, now);
  const root = currentRoot(d, o) && state.root ? state.root : { generation: 0, spec: d.root };
  return { ...state, root, made: [...new Set([...state.made, ...madeBesides(d, o)])] };
}

/** The state with what was issued since; undefined when there is nothing new to record. */
export function recordedState(d: Desired, o: Observed, now: number): StateEntry | undefined {
  const state = own(o.vault.state);
  const root = currentRoot(d, o);
  const live = soundLive(d, o);
  if (!state || !root || !live) return undefined;
  const next: StateEntry = { ...state, highestGeneration: Math.max(state.highestGeneration, live.generation) };
  const news: HistoryEntry[] = [];
  if (state.root?.fingerprint !== root.certificate.fingerprint) {
    next.root = issuedRoot(root, state.root && state.root.fingerprint === undefined ? state.root.spec : d.root);
    news.push(historyOf('Root', next.root, now, 'first issue'));
  }
  if (state.intermediate?.fingerprint !== live.certificate.fingerprint) {
    const staged = own(o.vault.staging);
    const spec = staged?.generation === live.generation ? staged.spec : undefined;
    const issued = issuedIntermediate(d, o, spec ?? d.intermediate);
    if (issued) {
      next.intermediate = issued;
      const reason = state.intermediate?.fingerprint === undefined ? 'first issue' : 'the published key was lost';
      news.unshift(historyOf('Intermediate', issued, now, reason));
    }
  }
  next.history = [...news, ...state.history].slice(0, 10);
  return isDeepStrictEqual(next, state) ? undefined : next;
}
