/**
 * Content of the state entry (KV entry `<path>-state`). The operator writes it before it creates the first object, and again when a certificate
 * was issued. Pure.
 */
import type { DerivedState } from '../facts/derived.ts';
import type { OwnIssuer, DerivedVault } from '../facts/derived-vault.ts';
import { isDeepStrictEqual } from 'node:util';
import { actionAnnotations, annotations } from '../../api/annotations.ts';
import { rfc3339 } from '../../api/time.ts';
import { adoptionOf, type Adoption } from '../ownership/adoption.ts';
import { adoptedByMarker, adoptedLater, markedAs, rootWasOthers, unmanagedObjects } from '../ownership/ownership.ts';
import { handledText, type Desired } from '../facts/desired.ts';
import type {
  HistoryEntry,
  IntermediateSpec,
  Issued,
  IssuedRoot,
  RootSpec,
  Rotation,
  StateEntry,
} from '../facts/state-entry.ts';
import { withoutCa } from '../facts/state-entry.ts';
import { offeredRoot, wasPublished } from '../facts/outside-roots.ts';
import { parseMarker } from '../facts/identity.ts';
import { rotatedState, resumesForward } from '../rotation/rotation.ts';
import { fieldsAppliedFlag, ownEntry, type Issuer } from '../facts/observed.ts';
import { bundleFacts } from '../facts/certificate.ts';
import { servedSince } from './revocation-lists.ts';

/** Texts of the action annotations that are set, by annotation. A new state entry records them as handled: an old text never starts an action. */
function presentTexts(desired: Desired): Record<string, string> {
  return Object.fromEntries(
    actionAnnotations.flatMap((name) => {
      const text = handledText(desired, name);
      return text === undefined ? [] : [[name, text]];
    }),
  );
}

/** The record of an issuer. @param spec the properties that it was requested with */
function issuedBy<S>(issuer: Issuer, generation: number, spec: S): Issued<S> {
  return {
    generation,
    spec,
    issuerId: issuer.id,
    keyId: issuer.keyId,
    serial: issuer.certificate.serial,
    fingerprint: issuer.certificate.fingerprint,
  };
}

/** The record of an intermediate that is adopted. One that was imported is in no mount. */
function adoptedIntermediate(issuer: Issuer, generation: number, spec: IntermediateSpec): Issued<IntermediateSpec> {
  if (issuer.id !== '') return issuedBy(issuer, generation, spec);
  const { serial, fingerprint } = issuer.certificate;
  return { generation, spec, serial, fingerprint };
}

/** The record of a root. One that no mount of this resource holds is recorded with its certificate. */
function rootRecord(issuer: Issuer, generation: number, spec: RootSpec): IssuedRoot {
  const { id, keyId, certificate } = issuer;
  if (keyId !== '') return issuedBy(issuer, generation, spec);
  const { serial, fingerprint, pem } = certificate;
  return { generation, spec, ...(id === '' ? {} : { issuerId: id }), serial, fingerprint, certificate: pem };
}

const issuedRoot = (issuer: OwnIssuer, spec: RootSpec): IssuedRoot => rootRecord(issuer, issuer.generation, spec);

/** The record of the current intermediate; undefined: there is no current CA. The intermediate mount can have lost the issuer. */
function issuedIntermediate(s: DerivedState, spec: IntermediateSpec): Issued<IntermediateSpec> | undefined {
  const ca = s.currentCa;
  if (!ca) return undefined;
  const issuer = s.currentIssuer;
  return {
    generation: ca.generation,
    spec,
    ...(issuer ? { issuerId: issuer.id, keyId: issuer.keyId } : {}),
    serial: ca.certificate.serial,
    fingerprint: ca.certificate.fingerprint,
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
 * The rest of a rotation of which only two distributed roots are known. The root that signs goes on signing. Both roots are trusted until every
 * replica is verified and older workload certificates have expired; then the other root is retired. This is safe in whatever phase the rotation
 * was, including a rollback. It cannot be rolled back: some workloads may not trust the other root yet.
 * @param to the root that signs
 */
const remainingRotation = (to: IssuedRoot, now: number): Rotation => ({
  phase: 'Switching',
  startedAt: rfc3339(now),
  to,
  back: false,
  found: true,
  longestMs: 0,
});

/** The state entry for an adopted CA. It records the present spec, so a difference between spec and certificates does not count as a change. */
function adoptedState(desired: Desired, ca: NonNullable<Adoption['ca']>, now: number): StateEntry {
  const { root, retiring, intermediate, generation } = ca;
  const signer = root && rootRecord(root, 1, desired.root);
  const other = retiring && rootRecord(retiring, 1, desired.root);
  const issued = {
    root: other ?? signer ?? { generation: 0, spec: desired.root },
    intermediate: intermediate
      ? adoptedIntermediate(intermediate, generation, desired.intermediate)
      : { generation: 0, spec: desired.intermediate },
  };
  return {
    ...emptyState(desired),
    ...issued,
    ...(signer && other ? { rotation: remainingRotation(signer, now) } : {}),
    highestGeneration: intermediate ? generation : 0,
    publicKeys: intermediate ? [intermediate.certificate.publicKey] : [],
    history: [
      ...(intermediate ? [historyOf('Intermediate', issued.intermediate, now, 'adopted')] : []),
      ...(signer ? [historyOf('Root', signer, now, 'adopted')] : []),
      ...(other ? [historyOf('Root', other, now, 'adopted, to be retired')] : []),
    ],
  };
}

/**
 * The state entry of a backup as it is written to a Vault that has lost it. What it records of objects that are gone is left out: which the operator made,
 * versions of the CA entry, the token of the reviewer. Requests that are set now count as handled: nothing begins by itself.
 * @param sameCluster false: it comes from another cluster, whose control plane carried the fields
 */
export function restoredState(state: StateEntry, desired: Desired, sameCluster: boolean): StateEntry {
  const restored: StateEntry = {
    ...state,
    made: state.made.filter((name) => name === fieldsAppliedFlag && sameCluster),
    handled: { ...state.handled, ...presentTexts(desired) },
  };
  delete restored.stood;
  delete restored.reviewer;
  return restored;
}

const emptyState = (desired: Desired) => ({
  role: desired.spec.kubernetesAuth.manage ? desired.spec.kubernetesAuth.role : '',
  made: [],
  adopted: [],
  handled: presentTexts(desired),
});

/** The first state entry. If an earlier one was lost, it records what the other objects of this resource show. */
function initialState(s: DerivedState): StateEntry {
  const result = adoptionOf(s);
  const adoption = typeof result === 'string' ? undefined : result;
  const state = adoption?.ca ? adoptedState(s.desired, adoption.ca, s.now) : rebuiltState(s);
  const adopted = [...new Set([...adoptedByMarker(s), ...(adoption?.objects ?? [])])];
  const stood = preexistingVersions(s);
  const initial = { ...state, adopted, ...(stood ? { stood } : {}) };
  if (!s.checksOnly) return initial;
  // the CA of others is not recorded
  delete initial.stood;
  const history = s.issuesRoot ? initial.history.filter(({ kind }) => kind === 'Root') : [];
  return { ...withoutCa(initial, s.issuesRoot), publicKeys: [], history };
}

/**
 * The state entry that the intent is added to: the present one or, if there is none, the first one. When this resource adopts a CA that others managed
 * since, the record of the CA is that of an adoption, and the rest stays.
 */
function startingState(s: DerivedState): StateEntry {
  const before = s.stateEntry;
  const adoption = before && adoptionOf(s);
  if (!before || (typeof adoption === 'object' && adoption.ca)) {
    const initial = initialState(s);
    if (!before) return initial;
    return {
      ...initial,
      role: before.role,
      made: before.made,
      adopted: [...new Set([...before.adopted, ...initial.adopted])],
      highestGeneration: Math.max(before.highestGeneration, initial.highestGeneration),
      publicKeys: [...new Set([...initial.publicKeys, ...before.publicKeys])].slice(0, mostPublicKeys),
      history: [...initial.history, ...before.history].slice(0, 10),
      ...(before.reviewer === undefined ? {} : { reviewer: before.reviewer }),
    };
  }
  return before;
}

/**
 * Versions of the CA entry that the operator did not write, deleted ones included; undefined: none. If the state entry for an adopted CA entry
 * is lost, all versions count: versions that cannot be distinguished from those of others are not destroyed.
 */
function preexistingVersions({ spec, vault: { live } }: DerivedVault): StateEntry['stood'] {
  if (spec.keyStore.version === 1 || live.casVersion === 0 || parseMarker(live.mark)?.origin === 'made')
    return undefined;
  const publicKey = live.foreign?.publicKey ?? ownEntry(live)?.publicKey;
  return { version: live.casVersion, ...(publicKey === undefined ? {} : { publicKey }) };
}

/**
 * The rotation that two own roots in the CA entry or, if that is lost, in the mesh indicate, and the root that it retires; undefined: no
 * rotation.
 */
function rebuiltRotation(s: DerivedState): { root: OwnIssuer; rotation: Rotation } | undefined {
  const entry = s.caEntry;
  const roots = entry ? bundleFacts(entry.root) : (s.kubernetes.meshRoots ?? []);
  const distributed = roots.map(({ fingerprint }) => fingerprint);
  const own = s.ownRoots.filter((i) => distributed.includes(i.certificate.fingerprint));
  const signer = s.signer;
  const isSigner = ({ certificate }: OwnIssuer) => certificate.fingerprint === signer?.certificate.fingerprint;
  const other = own.find((issuer) => !isSigner(issuer));
  if (!signer || !other || !own.some(isSigner)) return undefined;
  return { root: other, rotation: remainingRotation(issuedRoot(signer, s.desired.root), s.now) };
}

/** A state entry from what the CA entry, the mounts and the markers show; without any of them, an empty one. */
function rebuiltState(s: DerivedState): StateEntry {
  const rotating = rebuiltRotation(s);
  const root = rotating?.root ?? s.signer;
  const lostRoot = { generation: s.highestRootGeneration, spec: s.desired.root };
  const intermediate = issuedIntermediate(s, s.desired.intermediate);
  // the history also has the previous CA generation, so that garbage collection keeps it as long as it can be needed
  const previous = s.ownIntermediates
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
    ...previous.map((issued) => historyOf('Intermediate', issued, s.now, 'state rebuilt')),
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

/** Values of `made` that no marker shows: the audit device, and the flag that the control plane has carried the fields. */
function createdWithoutMarker(s: DerivedState): string[] {
  return [
    ...(s.spec.audit && !s.vault.auditDevice ? [`audit:${s.spec.audit.path}`] : []),
    ...(s.kubernetes.controlPlane?.carriesFields && s.currentCa ? [fieldsAppliedFlag] : []),
  ];
}

/**
 * The state entry as it must be before further objects are created: the present one, with the intent of the next steps. An intent without a
 * result follows the spec. If a lost root can be re-created, its record is replaced, and its CA generation is not used again.
 */
export function intendedState(s: DerivedState): StateEntry {
  const state = startingState(s);
  const root = s.checksOnly && !s.issuesRoot ? undefined : rootToRecord(s, state);
  const unmanaged = unmanagedObjects(s);
  const managed = (names: string[]) => [...new Set(names)].filter((name) => !unmanaged.includes(name));
  const intended: StateEntry = {
    ...state,
    ...(root ? { root } : {}),
    role: intendedRole(s, state),
    made: managed([...state.made, ...createdWithoutMarker(s)]),
    adopted: managed([...state.adopted, ...(s.stateEntry ? [...adoptedLater(s), ...markedAs(s, 'adopted')] : [])]),
  };
  const reviewer = s.vault.reviewerWritten ?? state.reviewer;
  if (reviewer !== undefined) intended.reviewer = reviewer;
  // a root that replaces a lost one ends any rotation
  if (root?.fingerprint !== state.root?.fingerprint && state.rotation) delete intended.rotation;
  if (s.checksOnly) return withKeptRecord(s, intended);
  return s.stateEntry ? rotatedState(s, intended) : intended;
}

/**
 * The state entry while others manage the CA: what it records of a CA of before stays as it is, and actions that are requested meanwhile count as
 * handled, so that none begins when this resource manages the CA again. Since when the mesh trusts which roots does not stay: others can hand out others.
 */
function withKeptRecord(s: DerivedState, state: StateEntry): StateEntry {
  const { root, intermediate, rotation } = s.writtenState ?? {};
  return {
    ...state,
    handled: { ...state.handled, ...presentTexts(s.desired) },
    ...(root && !s.issuesRoot ? { root } : {}),
    ...(intermediate ? { intermediate } : {}),
    ...(rotation ? { rotation: notReached(rotation) } : {}),
  };
}

function notReached(rotation: Rotation): Rotation {
  const rest = { ...rotation };
  delete rest.reachedAt;
  return rest;
}

/** The record of the root, or of the intent to create one. */
function rootToRecord(s: DerivedState, state: StateEntry): IssuedRoot {
  // all issuers of the mount count: this state entry is what makes the resource the owner of a root to adopt
  const inMount = s.vault.rootPki?.issuers.some((issuer) => issuer.certificate.fingerprint === state.root?.fingerprint);
  // a root outside is there as long as its certificate is recorded
  const isOutside = state.root?.certificate !== undefined;
  const exists = inMount || isOutside || s.signer !== undefined || resumesForward(s);
  const found = outsideRootToRecord(s, state);
  if (found) return found;
  if (!state.root) return s.signer ? issuedRoot(s.signer, s.desired.root) : intendedRoot(s, state);
  if (s.rootIsOthers) return handedOver(s, state.root);
  if (rootWasOthers(s)) return takenBack(s, state.root);
  // no intermediate of this resource follows that would record it
  if (s.checksOnly && state.root.fingerprint === undefined && s.signer) return issuedRoot(s.signer, state.root.spec);
  return exists ? state.root : intendedRoot(s, state);
}

/** The record of a root that this resource generated and that others manage now: it is known by its certificate, like every root of others. */
function handedOver(s: DerivedState, root: IssuedRoot): IssuedRoot {
  // a rotation stands still meanwhile, with its record
  const found = root.certificate === undefined && !s.rotation ? s.findRoot(root) : undefined;
  return found ? rootRecord({ ...found, keyId: '' }, root.generation, root.spec) : root;
}

/** The record of a root that others managed, and that is in the mount of this resource again. */
function takenBack(s: DerivedState, record: IssuedRoot): IssuedRoot {
  const root = { ...record };
  delete root.certificate;
  const found = s.vault.rootPki?.issuers.find((issuer) => issuer.certificate.fingerprint === root.fingerprint);
  return found ? issuedBy(found, root.generation, root.spec) : root;
}

/**
 * The record of a root outside, once it is known, and of another one as long as nothing is published under the recorded one; undefined: there is
 * nothing to record.
 */
function outsideRootToRecord(s: DerivedState, { root, intermediate, rotation }: StateEntry): IssuedRoot | undefined {
  // a CA that is about to be adopted was published by somebody
  const isPublished = wasPublished(s) || intermediate?.fingerprint !== undefined;
  const offered = s.issuesRoot || rotation || isPublished ? undefined : offeredRoot(s);
  if (!offered || (root?.fingerprint === offered.fingerprint && root?.issuerId === offered.issuerId)) return undefined;
  return { generation: (root?.generation ?? 0) + 1, spec: s.desired.root, ...offered };
}

/** The name of the role that this resource owns or is about to create or adopt; empty: none, or this resource does not manage it. */
function intendedRole(s: DerivedState, state: StateEntry): string {
  const { manage, role } = s.spec.kubernetesAuth;
  if (!manage) return '';
  const taken = s.vault.role === undefined || adoptedLater(s).includes(`role:${role}`);
  return taken ? role : state.role;
}

/**
 * The intent to create a root. `generation` is the CA generation before that of the new root: at least that of a lost root and of every root in
 * the mount, so that no root in the mount counts as the new one. `serial` is the serial number of the lost root, until the new one is created.
 */
function intendedRoot(s: DerivedState, { root }: StateEntry): IssuedRoot {
  const lostSerial = s.lastKnownRoot?.serial;
  const generation = root?.generation ?? 0;
  if (lostSerial === undefined) return { generation, spec: s.desired.root };
  // the number of a recorded intent stays: the key of the new root can exist already
  const recorded = generation > 0 && root?.fingerprint === undefined && root?.serial !== undefined;
  const last = recorded ? generation : Math.max(1, generation, s.highestRootGeneration);
  return { generation: last, spec: s.desired.root, serial: lostSerial };
}

const mostPublicKeys = 200;

/** The state entry after a staged CA generation was published or given up: it records the number and the public key of the generation. */
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

/** The state entry with the certificates that were issued since it was written; undefined: it is up to date, or there is no current CA. */
export function recordedState(s: DerivedState): StateEntry | undefined {
  const state = s.stateEntry;
  const root = s.signer;
  const ca = s.currentCa;
  if (!state || !root || !ca) return undefined;
  const next: StateEntry = withGeneration(state, ca);
  const added: HistoryEntry[] = [];
  // the phases of a rotation record its new root
  if (!state.rotation && state.root?.fingerprint !== root.certificate.fingerprint)
    next.root = issuedRoot(root, state.root && state.root.fingerprint === undefined ? state.root.spec : s.desired.root);
  // a root outside is recorded before anything is published under it
  const isFirst = next.root?.certificate !== undefined && !state.history.some(({ kind }) => kind === 'Root');
  if (next.root && (next.root !== state.root || isFirst)) {
    const reason = state.history.length === 0 ? 'first issue' : 'a lost root made anew';
    added.push(historyOf('Root', next.root, s.now, reason));
  }
  if (state.intermediate?.fingerprint !== ca.certificate.fingerprint) {
    const staging = s.stagingEntry;
    const published = staging?.generation === ca.generation ? staging : undefined;
    const issued = issuedIntermediate(s, published?.spec ?? s.desired.intermediate);
    if (issued) {
      next.intermediate = issued;
      added.unshift(historyOf('Intermediate', issued, s.now, published?.reason ?? 'found published'));
    }
    if (published?.request !== undefined)
      next.handled = { ...next.handled, [annotations.rotateIntermediate]: published.request };
  }
  const servedAt = servedSince(s);
  if (next.intermediate && servedAt !== undefined) next.intermediate = { ...next.intermediate, servedAt };
  next.history = [...added, ...state.history].slice(0, 10);
  next.made = [...new Set([...state.made, ...markedAs(s, 'made')])];
  return isDeepStrictEqual(next, state) ? undefined : next;
}
