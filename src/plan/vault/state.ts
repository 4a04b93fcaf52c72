/** What `<path>-state` records: written before the first thing is made, and again when something was issued. */
import type { OwnIssuer, DerivedState, DerivedVault } from '../facts/derived.ts';
import { isDeepStrictEqual } from 'node:util';
import { actionAnnotations, annotations } from '../../api/annotations.ts';
import { rfc3339 } from '../../api/time.ts';
import { adoptionOf, type Adoption } from '../ownership/adoption.ts';
import { adoptedByMarker, markedAs } from '../ownership/ownership.ts';
import { handledText, type Desired } from '../facts/desired.ts';
import type { HistoryEntry, IntermediateSpec, Issued, RootSpec, Rotation, StateEntry } from '../facts/state-entry.ts';
import { parseMarker } from '../facts/identity.ts';
import { rotatedState, resumesForward } from '../rotation/rotation.ts';
import { fieldsAppliedFlag, ownEntry, type Issuer } from '../facts/observed.ts';
import { bundleFacts } from '../facts/certificate.ts';

/** All texts present count as handled when the state begins: an old text never starts an action. */
function presentTexts(desired: Desired): Record<string, string> {
  return Object.fromEntries(
    actionAnnotations.flatMap((name) => {
      const text = handledText(desired, name);
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

function issuedIntermediate(s: DerivedState, spec: IntermediateSpec): Issued<IntermediateSpec> | undefined {
  const live = s.currentCa;
  if (!live) return undefined;
  const issuer = s.currentIssuer;
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
 * The rest of a rotation that two roots handed out at a time tell of: what signs goes on signing, both are trusted until all is proven and older
 * certificates have run out, then the other one goes. Safe wherever it was, also on its way back; but not to be turned, since the other one may be
 * a root that not all have learned yet.
 */
const lastWait = (to: Issued<RootSpec>, now: number): Rotation => ({
  phase: 'Switching',
  startedAt: rfc3339(now),
  to,
  back: false,
  found: true,
  longestMs: 0,
});

/** What was taken over: recorded as it is, with the spec of now, so that no difference from it is a change. */
function adoptedState(desired: Desired, ca: NonNullable<Adoption['ca']>, now: number): StateEntry {
  const { root, leaving, intermediate, generation } = ca;
  const facts = (issuer: Issuer) => ({
    issuerId: issuer.id,
    keyId: issuer.keyId,
    serial: issuer.certificate.serial,
    fingerprint: issuer.certificate.fingerprint,
  });
  const rootFacts = (issuer: Issuer) => ({ generation: 1, spec: desired.root, ...facts(issuer) });
  const signer = root && rootFacts(root);
  const other = leaving && rootFacts(leaving);
  const issued = {
    root: other ?? signer ?? { generation: 0, spec: desired.root },
    intermediate: intermediate
      ? { generation, spec: desired.intermediate, ...facts(intermediate) }
      : { generation: 0, spec: desired.intermediate },
  };
  return {
    ...emptyState(desired),
    ...issued,
    ...(signer && other ? { rotation: lastWait(signer, now) } : {}),
    highestGeneration: intermediate ? generation : 0,
    publicKeys: intermediate ? [intermediate.certificate.publicKey] : [],
    history: [
      ...(intermediate ? [historyOf('Intermediate', issued.intermediate, now, 'adopted')] : []),
      ...(signer ? [historyOf('Root', signer, now, 'adopted')] : []),
      ...(other ? [historyOf('Root', other, now, 'adopted, to be retired')] : []),
    ],
  };
}

const emptyState = (desired: Desired) => ({
  role: desired.spec.kubernetesAuth.role,
  made: [],
  adopted: [],
  handled: presentTexts(desired),
});

/**
 * The state before anything is issued; or, when it was lost while things of ours exist, what can be known of them.
 */
function initialState(s: DerivedState): StateEntry {
  const found = adoptionOf(s);
  const adoption = typeof found === 'string' ? undefined : found;
  const begun = adoption?.ca ? adoptedState(s.desired, adoption.ca, s.now) : rebuiltState(s);
  const adopted = [...new Set([...adoptedByMarker(s), ...(adoption?.things ?? [])])];
  const stood = stoodBefore(s);
  return { ...begun, adopted, ...(stood ? { stood } : {}) };
}

/**
 * What a person wrote into the live entry, be it deleted since. Also all versions of an entry that was taken over before, when the memory of it
 * is lost: what cannot be told from a person's is not destroyed.
 */
function stoodBefore({ spec, vault: { live } }: DerivedVault): StateEntry['stood'] {
  if (spec.keyStore.version === 1 || live.casVersion === 0 || parseMarker(live.mark)?.origin === 'made')
    return undefined;
  const publicKey = live.foreign?.publicKey ?? ownEntry(live)?.publicKey;
  return { version: live.casVersion, ...(publicKey === undefined ? {} : { publicKey }) };
}

/** The rotation that two roots of ours in the live entry, or when that is lost, in the mesh, tell of. */
function rebuiltRotation(s: DerivedState): { root: OwnIssuer; rotation: Rotation } | undefined {
  const live = s.caEntry;
  const given = live ? bundleFacts(live.root) : (s.kubernetes.meshRoots ?? []);
  const handedOut = given.map(({ fingerprint }) => fingerprint);
  const ours = s.ownRoots.filter((i) => handedOut.includes(i.certificate.fingerprint));
  const signer = s.signer;
  const other = ours.find((issuer) => issuer.id !== signer?.id);
  if (!signer || !other || !ours.some((issuer) => issuer.id === signer.id)) return undefined;
  return { root: other, rotation: lastWait(issuedRoot(signer, s.desired.root), s.now) };
}

function rebuiltState(s: DerivedState): StateEntry {
  const rotating = rebuiltRotation(s);
  const root = rotating?.root ?? s.signer;
  const lostRoot = { generation: s.highestRootGeneration, spec: s.desired.root };
  const intermediate = issuedIntermediate(s, s.desired.intermediate);
  // the generation before is remembered too: it is kept as long as it may be needed
  const before = s.ownIntermediates
    .filter((issuer) => issuer.certificate.fingerprint !== intermediate?.fingerprint)
    .slice(0, 1)
    .map(({ certificate: { serial, fingerprint }, generation }) => ({
      generation,
      serial,
      fingerprint,
      spec: undefined,
    }));
  const rebuilt = [
    ...(intermediate ? [historyOf('Intermediate', intermediate, s.now, 'state rebuilt')] : []),
    ...before.map((issued) => historyOf('Intermediate', issued, s.now, 'state rebuilt')),
    ...(root ? [historyOf('Root', issuedRoot(root, s.desired.root), s.now, 'state rebuilt')] : []),
  ];
  return {
    ...emptyState(s.desired),
    made: markedAs(s, 'made'),
    highestGeneration: s.highestGeneration,
    root: root ? issuedRoot(root, s.desired.root) : lostRoot,
    intermediate: intermediate ?? { generation: 0, spec: s.desired.intermediate },
    publicKeys: s.ownIntermediates.map((issuer) => issuer.certificate.publicKey),
    history: rebuilt,
    ...(rotating ? { rotation: rotating.rotation } : {}),
  };
}

/** What carries no mark, so that the memory must tell of it: an audit device of ours, and that istiod was told to use this CA. */
function madeBesides(s: DerivedState): string[] {
  return [
    ...(s.spec.audit && !s.vault.auditDevice ? [`audit:${s.spec.audit.path}`] : []),
    ...(s.kubernetes.controlPlane?.carriesFields && s.currentCa ? [fieldsAppliedFlag] : []),
  ];
}

/**
 * The state as it must be before anything further is made: the present one, with the intent of what comes next. An intent
 * that nothing came of follows the spec. When a lost root may be made anew, its record gives way, but not its number.
 */
export function intendedState(s: DerivedState): StateEntry {
  const state = s.stateEntry ?? initialState(s);
  // what is about to be taken over is not ours by name, only by this very state
  const found = s.vault.rootPki?.issuers.some((issuer) => issuer.certificate.fingerprint === state.root?.fingerprint);
  const stands = found || s.signer !== undefined || resumesForward(s);
  const root = state.root && stands ? state.root : intendedRoot(s, state);
  const intended = { ...state, root, made: [...new Set([...state.made, ...madeBesides(s)])] };
  // a root made anew in the place of a lost one ends whatever rotation there was
  if (root !== state.root && state.rotation) delete intended.rotation;
  return s.stateEntry ? rotatedState(s, intended) : intended;
}

/**
 * A root to be made: under the number after that of a lost one, whose serial stays known until then, and after those of all others that lie
 * in the mount: none of them is taken for it.
 */
function intendedRoot(s: DerivedState, { root }: StateEntry): Issued<RootSpec> {
  const lost = s.lastKnownRoot?.serial;
  const generation = root?.generation ?? 0;
  if (lost === undefined) return { generation, spec: s.desired.root };
  // once it is intended, its number stands: its key may be made already
  const begun = generation > 0 && root?.fingerprint === undefined && root?.serial !== undefined;
  const last = begun ? generation : Math.max(1, generation, s.highestRootGeneration);
  return { generation: last, spec: s.desired.root, serial: lost };
}

const mostPublicKeys = 200;

/** The state once a staged generation was given up or published: its number and its key are remembered. */
export function withGeneration(
  state: StateEntry,
  { generation, publicKey }: { generation: number; publicKey: string | undefined },
): StateEntry {
  const publicKeys =
    publicKey === undefined || state.publicKeys.includes(publicKey)
      ? state.publicKeys
      : [publicKey, ...state.publicKeys].slice(0, mostPublicKeys);
  return { ...state, highestGeneration: Math.max(state.highestGeneration, generation), publicKeys };
}

/** The state with what was issued since; undefined when there is nothing new to record. */
export function recordedState(s: DerivedState): StateEntry | undefined {
  const state = s.stateEntry;
  const root = s.signer;
  const live = s.currentCa;
  if (!state || !root || !live) return undefined;
  const next: StateEntry = withGeneration(state, live);
  const news: HistoryEntry[] = [];
  // the root of a rotation is recorded with its phases
  if (!state.rotation && state.root?.fingerprint !== root.certificate.fingerprint) {
    next.root = issuedRoot(root, state.root && state.root.fingerprint === undefined ? state.root.spec : s.desired.root);
    news.push(
      historyOf('Root', next.root, s.now, state.history.length === 0 ? 'first issue' : 'a lost root made anew'),
    );
  }
  if (state.intermediate?.fingerprint !== live.certificate.fingerprint) {
    const staged = s.stagingEntry;
    const answered = staged?.generation === live.generation ? staged : undefined;
    const issued = issuedIntermediate(s, answered?.spec ?? s.desired.intermediate);
    if (issued) {
      next.intermediate = issued;
      news.unshift(historyOf('Intermediate', issued, s.now, answered?.reason ?? 'found published'));
    }
    if (answered?.request !== undefined)
      next.handled = { ...next.handled, [annotations.rotateIntermediate]: answered.request };
  }
  next.history = [...news, ...state.history].slice(0, 10);
  next.made = [...new Set([...state.made, ...markedAs(s, 'made')])];
  return isDeepStrictEqual(next, state) ? undefined : next;
}
