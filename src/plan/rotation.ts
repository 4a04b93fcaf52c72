/**
 * Replacing the root without a workload that fails: trust both, then sign with the new one, then trust only that. Each phase begins when the
 * one before is proven everywhere, and, where certificates must have run out first, no sooner than the longest of them has. Pure.
 *
 * The phase is in `<path>-state` and written before anything of it is done; which root signs and which are trusted follows from it
 * (`rootsOf`), and the issuing of `intermediate.ts` does the rest. docs/rotation.md, docs/adr/0006.
 */
import { annotations as known } from '../api/annotations.ts';
import type { Status } from '../api/status-schema.ts';
import { rfc3339 } from '../api/time.ts';
import { bundleFacts, isSignedBy } from './certificate.ts';
import { rotationProblem } from './checks/rotation.ts';
import { handledText, maxWorkloadCertTtlMs, type Desired } from './desired.ts';
import { currentRoot, ownIssuers, rootsOf, soundLive, wantedBundle } from './facts.ts';
import { lookAgainMs, meshView } from './istiod-ready.ts';
import { own, type Issued, type Observed, type Rotation, type StateEntry } from './observed.ts';
import type { RootSpec } from './desired.ts';

/** Whether what a phase brought is everywhere. */
export interface Gate {
  passed: boolean;
  /** Somebody was seen to have something else: what was reached before is reached no more. */
  contradicted: boolean;
  /** What is missing; empty when it is passed. */
  waitingFor: string;
}

const passed: Gate = { passed: true, contradicted: false, waitingFor: '' };
const waiting = (waitingFor: string, contradicted = false): Gate => ({ passed: false, contradicted, waitingFor });

const sameSet = (one: readonly string[], other: readonly string[]): boolean =>
  one.every((item) => other.includes(item)) && other.every((item) => one.includes(item));

/** Whether istiod and the namespaces have the set that Vault holds now, and Vault the set of the phase. */
export function everywhere(d: Desired, o: Observed, now: number): Gate {
  const live = soundLive(d, o);
  const { signer } = rootsOf(d, o);
  const bundle = wantedBundle(d, o);
  if (!live || !signer || own(o.vault.staging) || !isSignedBy(live.certificate, signer.certificate))
    return waiting('an intermediate under the root that signs now');
  if (bundle === undefined || live.root !== bundle) return waiting('root-cert.pem in the key store');
  const mesh = meshView(d, o, now);
  const { controlPlane } = o.kubernetes;
  if (!controlPlane?.carriesFields) return waiting(`${d.spec.controlPlane.kind} to carry the fields`);
  if (!mesh) return waiting('istiod to be looked at');
  if (mesh.namespaces === 'unreadable')
    return waiting('the right to read ConfigMap istio-ca-root-cert in all namespaces (docs/rbac.md)');
  if (mesh.unfinished !== undefined) return waiting(mesh.unfinished);
  if (mesh.replicas.length === 0) return waiting('an istiod replica');
  const roots = bundleFacts(bundle).map((root) => root.fingerprint);
  for (const { name, serves, roots: held, why } of mesh.replicas) {
    if (serves !== undefined && serves !== live.certificate.fingerprint)
      return waiting(`replica ${name} to serve the current intermediate`, true);
    if (held !== undefined && !sameSet(held, roots))
      return waiting(`replica ${name} to take up the current root-cert.pem`, true);
    if (serves === undefined || held === undefined)
      return waiting(`replica ${name} to be seen with the current set${why === undefined ? '' : ` (${why})`}`);
  }
  if (!mesh.namespaces.some((one) => one.namespace === d.identity.namespace))
    return waiting(`ConfigMap istio-ca-root-cert of namespace ${d.identity.namespace}`);
  const behind = mesh.namespaces.filter((one) => !sameSet(one.roots, roots)).map((one) => one.namespace);
  if (behind.length === 0) return passed;
  const named = behind.slice(0, 5).join(', ');
  return waiting(`ConfigMap istio-ca-root-cert of ${behind.length} namespaces to follow (${named})`);
}

/** Texts of the two action annotations that were not answered yet. */
function requests(d: Desired, { handled }: StateEntry) {
  const fresh = (name: string) => {
    const text = handledText(d, name);
    return text === handled[name] ? undefined : text;
  };
  return { rotate: fresh(known.rotateRoot), rollBack: fresh(known.rollbackRotation) };
}

const paused = (d: Desired): boolean => d.annotations[known.pauseRotation] === 'true';

/** The text of `rotate-root` that asks for a rotation that has not begun. */
function rotationAsked(d: Desired, o: Pick<Observed, 'vault'>): string | undefined {
  const state = own(o.vault.state);
  return state && !state.rotation ? requests(d, state).rotate : undefined;
}

function begin(d: Desired, o: Observed, state: StateEntry, now: number): StateEntry {
  const { rotate } = requests(d, state);
  if (rotate === undefined || paused(d) || rotationProblem(d, o) || state.root?.fingerprint === undefined) return state;
  if (!soundLive(d, o) || !currentRoot(d, o) || own(o.vault.staging) || !o.kubernetes.istiod) return state;
  const numbers = ownIssuers(d, 'root', o.vault).map((issuer) => issuer.generation);
  const to: Issued<RootSpec> = { generation: Math.max(state.root.generation, ...numbers) + 1, spec: d.root };
  // a text that stands already does not roll back what begins only now
  const rollBack = handledText(d, known.rollbackRotation);
  const handled = {
    ...state.handled,
    [known.rotateRoot]: rotate,
    ...(rollBack === undefined ? {} : { [known.rollbackRotation]: rollBack }),
  };
  return { ...state, handled, rotation: { phase: 'Issuing', startedAt: rfc3339(now), to, back: false } };
}

/** The new root, once it is made. */
const madeRoot = (d: Desired, o: Observed, { to }: Rotation) =>
  ownIssuers(d, 'root', o.vault).find((issuer) => issuer.generation === to.generation && issuer.keyId !== '');

function without(state: StateEntry): StateEntry {
  const rest = { ...state };
  delete rest.rotation;
  return rest;
}

/** Back by the shortest way that no workload notices: under the new root nothing was signed before `Switching` published. */
function rollBack(d: Desired, o: Observed, state: StateEntry, rotation: Rotation): StateEntry {
  const text = handledText(d, known.rollbackRotation) ?? '';
  const next = { ...state, handled: { ...state.handled, [known.rollbackRotation]: text } };
  const { startedAt, to } = rotation;
  const live = soundLive(d, o);
  const from = ownIssuers(d, 'root', o.vault).find((i) => i.certificate.fingerprint === state.root?.fingerprint);
  // too late, or on its way back already
  if (rotation.phase === 'Retiring' || rotation.back) return next;
  if (rotation.phase === 'Issuing') return without(next);
  const underOld = live && from && isSignedBy(live.certificate, from.certificate);
  const phase = rotation.phase === 'Distributing' || underOld ? 'Retiring' : 'Switching';
  return { ...next, rotation: { phase, startedAt, to, back: true } };
}

/** When a phase that was reached may end: milliseconds since the epoch. */
function earliestNext(d: Desired, o: Observed, rotation: Rotation): number | undefined {
  if (rotation.reachedAt === undefined) return undefined;
  return Date.parse(rotation.reachedAt) + maxWorkloadCertTtlMs(d.spec, o.kubernetes.maxWorkloadCertTtlMs);
}

/** The end: the root that all trust is the root of this CA. */
function finish(d: Desired, o: Observed, state: StateEntry, rotation: Rotation, now: number): StateEntry {
  const root = currentRoot(d, o)?.certificate;
  if (rotation.back || !root) return without(state);
  const entry = {
    time: rfc3339(now),
    kind: 'Root' as const,
    serial: root.serial,
    fingerprint: root.fingerprint,
    reason: `asked for by ${known.rotateRoot}`,
  };
  return { ...without(state), root: rotation.to, history: [entry, ...state.history].slice(0, 10) };
}

function advance(d: Desired, o: Observed, state: StateEntry, rotation: Rotation, now: number): StateEntry {
  const { phase, startedAt, to, back } = rotation;
  const gate = everywhere(d, o, now);
  if (phase === 'Issuing') {
    const made = madeRoot(d, o, rotation);
    if (!made || !gate.passed || paused(d)) return state;
    const { serial, fingerprint } = made.certificate;
    const issued = { ...to, issuerId: made.id, keyId: made.keyId, serial, fingerprint };
    return { ...state, rotation: { phase: 'Distributing', startedAt, to: issued, back } };
  }
  if (phase === 'Retiring') return gate.passed && !paused(d) ? finish(d, o, state, rotation, now) : state;
  const { reachedAt } = rotation;
  if (reachedAt === undefined)
    return gate.passed ? { ...state, rotation: { ...rotation, reachedAt: rfc3339(now) } } : state;
  if (gate.contradicted) return { ...state, rotation: { phase, startedAt, to, back } };
  if (!gate.passed || paused(d) || now < (earliestNext(d, o, rotation) ?? Infinity)) return state;
  return { ...state, rotation: { phase: phase === 'Distributing' ? 'Switching' : 'Retiring', startedAt, to, back } };
}

/** The state with the step of a root rotation that is due now: its begin, its next phase, its way back, its end. */
export function rotatedState(d: Desired, o: Observed, state: StateEntry, now: number): StateEntry {
  const { rotation } = state;
  if (!rotation) return begin(d, o, state, now);
  if (requests(d, state).rollBack !== undefined) return rollBack(d, o, state, rotation);
  return advance(d, o, state, rotation, now);
}

/** When a rotation must be looked at again; undefined: when something changes. Milliseconds since the epoch. */
export function rotationDue(d: Desired, o: Observed, now: number): number | undefined {
  const rotation = own(o.vault.state)?.rotation;
  if (!rotation || paused(d)) return undefined;
  return everywhere(d, o, now).passed ? earliestNext(d, o, rotation) : now + lookAgainMs;
}

/**
 * The roots that a replica must be trusted by to be asked which ones it hands out: PEM. undefined: it need not be asked, since no rotation
 * goes on, or a digest on its pod tells.
 */
export function asksForRoots(d: Desired, o: Observed): string | undefined {
  const { rotation } = own(o.vault.state) ?? {};
  const live = soundLive(d, o);
  const digest = d.spec.rollout === 'WhenChanged' && d.spec.controlPlane.write === 'Patch';
  return (rotation || rotationAsked(d, o) !== undefined) && !digest ? live?.root : undefined;
}

/** What `status.rotation` shows of a root rotation; undefined when there is none. */
export function rotationView(d: Desired, o: Observed, now: number): Status['rotation'] {
  const rotation = own(o.vault.state)?.rotation;
  if (!rotation) {
    if (rotationAsked(d, o) === undefined) return undefined;
    if (paused(d))
      return { kind: 'Root', phase: 'Paused', waitingFor: `annotation ${known.pauseRotation} to be removed` };
    const waitingFor = rotationProblem(d, o)?.message ?? everywhere(d, o, now).waitingFor;
    return { kind: 'Root', phase: 'Issuing', ...(waitingFor === '' ? {} : { waitingFor: waitingFor.slice(0, 1024) }) };
  }
  const gate = everywhere(d, o, now);
  const due = earliestNext(d, o, rotation);
  const runOut = due !== undefined && due > now ? 'workload certificates that were issued before to run out' : '';
  const held = paused(d) ? `annotation ${known.pauseRotation} to be removed (phase ${rotation.phase})` : '';
  const waitingFor = [held, gate.waitingFor || runOut].filter(Boolean).join('; ');
  return {
    kind: 'Root',
    phase: paused(d) ? 'Paused' : rotation.phase,
    startedAt: rotation.startedAt,
    ...(waitingFor === ''
      ? {}
      : { waitingFor: `${rotation.back ? 'on its way back: ' : ''}${waitingFor}`.slice(0, 1024) }),
    ...(due === undefined ? {} : { earliestNext: rfc3339(due) }),
  };
}
