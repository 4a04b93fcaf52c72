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
import { currentRoot, ownIssuers, rootsOf, soundLive, wantedBundle, type OwnIssuer, type SoundLive } from './facts.ts';
import { generationOf } from './identity.ts';
import { lookAgainMs, meshView, type MeshView } from './istiod-ready.ts';
import { own, type Issued, type Observed, type Rotation, type RotationPhase, type StateEntry } from './observed.ts';
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

type Replica = MeshView['replicas'][number];

/** The set of the phase in Vault, which replicas are compared with; or what is missing of it. */
function published(d: Desired, o: Observed): { live: SoundLive; signer: OwnIssuer; roots: string[] } | string {
  const live = soundLive(d, o);
  const { signer } = rootsOf(d, o);
  const bundle = wantedBundle(d, o);
  if (!live || !signer || own(o.vault.staging) || !isSignedBy(live.certificate, signer.certificate))
    return 'an intermediate under the root that signs now';
  if (bundle === undefined || live.root !== bundle) return 'root-cert.pem in the key store';
  return { live, signer, roots: bundleFacts(bundle).map((root) => root.fingerprint) };
}

/** Whether every replica of istiod was seen to serve the live intermediate. */
export function served(d: Desired, o: Observed, now: number): Gate {
  const set = published(d, o);
  if (typeof set === 'string') return waiting(set);
  const mesh = meshView(d, o, now);
  if (!o.kubernetes.controlPlane?.carriesFields) return waiting(`${d.spec.controlPlane.kind} to carry the fields`);
  if (!mesh) return waiting('istiod to be looked at');
  if (mesh.unfinished !== undefined) return waiting(mesh.unfinished);
  if (mesh.replicas.length === 0) return waiting('an istiod replica');
  const behind = mesh.replicas.find(({ serves }) => serves !== set.live.certificate.fingerprint);
  return behind ? waiting(`replica ${behind.name} to serve the current intermediate`) : passed;
}

/** Whether istiod and the namespaces have the set that Vault holds now, and Vault the set of the phase. */
function everywhere(d: Desired, o: Observed, now: number): Gate {
  const set = published(d, o);
  const mesh = meshView(d, o, now);
  if (typeof set === 'string' || !mesh) return served(d, o, now);
  const { signer, roots } = set;
  // an older intermediate under the root that signs is only late; another root, or other roots, undo what was reached
  const underSigner = (fingerprint: string) =>
    o.vault.intermediatePki?.issuers.some(
      ({ certificate }) => certificate.fingerprint === fingerprint && isSignedBy(certificate, signer.certificate),
    ) === true;
  const contradicts = ({ serves, roots: held }: Replica) =>
    (serves !== undefined && !underSigner(serves)) || (held !== undefined && !sameSet(held, roots));
  const other = mesh.replicas.find(contradicts);
  if (other) return waiting(`replica ${other.name} to take up the current set`, true);
  const all = served(d, o, now);
  if (!all.passed) return all;
  const unknown = mesh.replicas.find(({ roots: held }) => held === undefined);
  if (unknown) {
    const why = unknown.why === undefined ? '' : ` (${unknown.why})`;
    return waiting(`replica ${unknown.name} to be seen with the current root-cert.pem${why}`);
  }
  return distributed(d, mesh, roots);
}

/** Whether `istio-ca-root-cert` holds exactly these roots wherever it is. */
function distributed(d: Desired, { namespaces }: MeshView, roots: string[]): Gate {
  if (namespaces === 'unreadable')
    return waiting('the right to read ConfigMap istio-ca-root-cert in all namespaces (docs/rbac.md)');
  const home = d.identity.namespace;
  if (!namespaces.some(({ namespace }) => namespace === home))
    return waiting(`ConfigMap istio-ca-root-cert of namespace ${home}`);
  const behind = namespaces.filter((one) => !sameSet(one.roots, roots)).map(({ namespace }) => namespace);
  if (behind.length === 0) return passed;
  return waiting(
    `ConfigMap istio-ca-root-cert of ${behind.length} namespaces to follow (${behind.slice(0, 5).join(', ')})`,
  );
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

/** The longest workload certificate, as far as istiod tells now. Milliseconds. */
const longestNow = (d: Desired, o: Observed): number => maxWorkloadCertTtlMs(d.spec, o.kubernetes.maxWorkloadCertTtlMs);

/** The root that a rotation leads away from has run out: nothing works that going on could break, and nothing under it can be proven. */
function hasEnded(d: Desired, o: Observed, state: StateEntry, now: number): boolean {
  const root = ownIssuers(d, 'root', o.vault).find((i) => i.certificate.fingerprint === state.root?.fingerprint);
  return root !== undefined && root.certificate.notAfter <= now;
}

function begin(d: Desired, o: Observed, state: StateEntry, now: number): StateEntry {
  const { rotate } = requests(d, state);
  if (rotate === undefined || paused(d) || rotationProblem(d, o) || state.root?.fingerprint === undefined) return state;
  if (!soundLive(d, o) || !currentRoot(d, o) || !o.kubernetes.istiod) return state;
  if (own(o.vault.staging) && !hasEnded(d, o, state, now)) return state;
  // a number is never given out twice, also when somebody has removed the issuer and left its key
  const numbers = [
    ...ownIssuers(d, 'root', o.vault).map((issuer) => issuer.generation),
    ...(o.vault.rootPki?.keys ?? []).map((key) => generationOf(d.identity, 'root', key.name) ?? 0),
  ];
  const to: Issued<RootSpec> = { generation: Math.max(state.root.generation, ...numbers) + 1, spec: d.root };
  // a text that stands already does not roll back what begins only now
  const rollBack = handledText(d, known.rollbackRotation);
  const handled = {
    ...state.handled,
    [known.rotateRoot]: rotate,
    ...(rollBack === undefined ? {} : { [known.rollbackRotation]: rollBack }),
  };
  return {
    ...state,
    handled,
    rotation: { phase: 'Issuing', startedAt: rfc3339(now), to, back: false, longestMs: longestNow(d, o) },
  };
}

/** The new root, once it is made. */
const madeRoot = (d: Desired, o: Observed, { to }: Rotation) =>
  ownIssuers(d, 'root', o.vault).find((issuer) => issuer.generation === to.generation && issuer.keyId !== '');

function without(state: StateEntry): StateEntry {
  const rest = { ...state };
  delete rest.rotation;
  return rest;
}

/**
 * Back by the shortest way that no workload notices: under the new root nothing is signed before `Switching`, and from then on what was
 * begun under it may still land.
 * @param lost the new root is gone for good
 */
function rollBack(d: Desired, state: StateEntry, rotation: Rotation, lost: boolean): StateEntry {
  const text = handledText(d, known.rollbackRotation);
  const handled = text === undefined ? state.handled : { ...state.handled, [known.rollbackRotation]: text };
  const next = { ...state, handled };
  const { startedAt, to, longestMs } = rotation;
  // on its way back already, or too late: unless there is nothing to go on to
  if (rotation.back || (rotation.phase === 'Retiring' && !lost)) return next;
  if (rotation.phase === 'Issuing') return without(next);
  const phase = rotation.phase === 'Distributing' ? 'Retiring' : 'Switching';
  return { ...next, rotation: { phase, startedAt, to, back: true, longestMs } };
}

/** Clocks differ, and a kubelet takes a minute to show a changed ConfigMap to the agents that mount it. Milliseconds. */
const slackMs = 60_000;

/** When a phase that was reached may end: milliseconds since the epoch. */
function earliestNext(d: Desired, o: Observed, rotation: Rotation): number | undefined {
  if (rotation.reachedAt === undefined) return undefined;
  // what istiod allowed before still lives; only a person who knows better shortens it
  const asked = d.spec.intermediate.maxWorkloadCertTTL !== undefined;
  const longest = asked ? longestNow(d, o) : Math.max(longestNow(d, o), rotation.longestMs);
  return Date.parse(rotation.reachedAt) + longest + slackMs;
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
  const { phase, startedAt, longestMs, to, back, reachedAt } = rotation;
  const gate = everywhere(d, o, now);
  const ended = hasEnded(d, o, state, now);
  const inPhase = (next: RotationPhase, root = to): StateEntry => ({
    ...state,
    rotation: { phase: next, startedAt, to: root, back, longestMs },
  });
  if (phase === 'Issuing') {
    const made = madeRoot(d, o, rotation);
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
function givenUp(d: Desired, o: Observed, state: StateEntry, { to, back }: Rotation): boolean {
  if (back) return false;
  const issuers = ownIssuers(d, 'root', o.vault).map(({ certificate }) => certificate.fingerprint);
  const lost = to.fingerprint !== undefined && !issuers.includes(to.fingerprint);
  const stands = issuers.includes(state.root?.fingerprint ?? '');
  return lost && stands && d.annotations[known.allowReissue]?.toLowerCase() === to.serial;
}

/** The state with the step of a root rotation that is due now: its begin, its next phase, its way back, its end. */
export function rotatedState(d: Desired, o: Observed, state: StateEntry, now: number): StateEntry {
  const { rotation } = state;
  if (!rotation) return begin(d, o, state, now);
  const lost = givenUp(d, o, state, rotation);
  if (requests(d, state).rollBack !== undefined || lost) return rollBack(d, state, rotation, lost);
  const longestMs = Math.max(rotation.longestMs, longestNow(d, o));
  if (longestMs > rotation.longestMs) return { ...state, rotation: { ...rotation, longestMs } };
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

/** The root that signs now ends before the next phase may begin. */
function tooLate(d: Desired, o: Observed, due: number): string {
  const root = currentRoot(d, o)?.certificate;
  if (!root || root.notAfter >= due) return '';
  return `; but the root that signs now ends on ${rfc3339(root.notAfter)}, before that: if no workload certificate lives so long, set spec.intermediate.maxWorkloadCertTTL`;
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
  const runOut =
    due !== undefined && due > now
      ? `workload certificates that were issued before to run out${tooLate(d, o, due)}`
      : '';
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
