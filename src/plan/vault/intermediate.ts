/**
 * Issuing an intermediate so that a crash is harmless: the key is stored before Vault acts on it, every later step can be
 * repeated, and the live entry alone decides what is current. See docs/adr/0002.
 */
import type { OwnIssuer, CurrentCa, DerivedState } from '../facts/derived.ts';
import { isDeepStrictEqual } from 'node:util';
import { annotations } from '../../api/annotations.ts';
import { rfc3339 } from '../../api/time.ts';
import { abandonedStagingMarker, markerFor, ownables, owns } from '../ownership/ownership.ts';
import { isSignedBy } from '../facts/certificate.ts';
import { needsRewrite } from './entry-lifetime.ts';
import { newKeyAtRenewal, pendingRequest } from '../facts/desired.ts';
import { generationName, generationOf } from '../facts/identity.ts';
import { ownEntry, type Issuer, type Observed, type StagingEntry } from '../facts/observed.ts';
import { servedEverywhere } from '../rotation/gates.ts';
import { recordedState, withGeneration } from './state.ts';
import type { Step } from '../steps.ts';

/** Why a new generation is needed; undefined when the live one serves. */
export function newGenerationReason(s: DerivedState): string | undefined {
  const state = s.stateEntry;
  if (!s.currentCa) {
    if (state?.root !== undefined && state.root.fingerprint === undefined && state.history.length > 0)
      return 'a lost root was made anew';
    return s.caEntry || state?.intermediate?.fingerprint ? 'the published key was lost' : 'first issue';
  }
  if (state?.intermediate && !isDeepStrictEqual(state.intermediate.spec, s.desired.intermediate))
    return `spec.intermediate changed (${changed(state.intermediate.spec, s.desired.intermediate)})`.slice(0, 256);
  if (rotationRequest(s) !== undefined) return `asked for by ${annotations.rotateIntermediate}`;
  if (signedByAnother(s)) return `root rotation${state?.rotation?.back ? ' rolled back' : ''}`;
  const due = s.renewAt;
  return due !== undefined && s.now >= due ? 'renewal' : undefined;
}

/** The live intermediate is under a root of ours that does not sign any more. */
function signedByAnother(s: DerivedState): boolean {
  const live = s.currentCa;
  const signer = s.signer;
  return live !== undefined && signer !== undefined && !isSignedBy(live.certificate, signer.certificate);
}

/** What differs between the spec something was issued for and the one that stands. */
export function changed(was: object, is: object): string {
  const before = new Map(Object.entries(was));
  return Object.entries(is)
    .filter(([key, value]) => before.get(key) !== value)
    .map(([key, value]) => `${key}: ${String(before.get(key))} → ${String(value)}`)
    .join(', ');
}

/** A text of `rotate-intermediate` that was not answered yet. */
const rotationRequest = (s: DerivedState): string | undefined =>
  pendingRequest(s.desired, s.stateEntry?.handled, annotations.rotateIntermediate);

/** With `rotationPolicy: Never` the published key is signed again, if it is as the spec asks and lies in the mount. */
function reusedKey(s: DerivedState): string | undefined {
  const live = s.currentCa;
  if (!live || newKeyAtRenewal(s.spec) || !s.vault.intermediatePki) return undefined;
  const { keyType, keyBits } = live.certificate;
  if (keyType !== s.desired.intermediate.keyType || keyBits !== s.desired.intermediate.keyBits) return undefined;
  return s.keyIdOf(s.vault.intermediatePki, live);
}

/** Clock difference, in milliseconds, between Vault and here that a comparison of ends must bear. */
const clockSlackMs = 60_000;

function signStep(s: DerivedState, root: OwnIssuer, staged: StagingEntry, keyId: string): Step {
  const endsFirst = root.certificate.notAfter - clockSlackMs < s.now + s.desired.intermediate.ttl * 1000;
  return {
    kind: 'SignIntermediate',
    generation: staged.generation,
    keyId,
    spec: s.desired.intermediate,
    rootIssuerId: root.id,
    notAfter: endsFirst ? rfc3339(root.certificate.notAfter) : undefined,
  };
}

/** Recorded while the staged entry, which knows the spec it was made for, still stands. */
function recordStep(s: DerivedState): Step[] {
  const state = recordedState(s);
  return state ? [{ kind: 'WriteState', state, cas: s.vault.state.casVersion, reason: 'what was issued' }] : [];
}

/** Fingerprints of what was published: the live certificate and those of the history. */
function publishedFingerprints(s: DerivedState): Set<string> {
  const history = s.stateEntry?.history ?? [];
  return new Set([s.caEntry?.certificate?.fingerprint ?? '', ...history.map((entry) => entry.fingerprint)]);
}

/** Issuers of the intermediate mount that carry a key. */
const issuersOf = (s: DerivedState, publicKey: string | undefined): Issuer[] =>
  (s.vault.intermediatePki?.issuers ?? []).filter((i) => i.certificate.publicKey === publicKey && i.keyId !== '');

/** Issuers that were signed for a staged generation and not published yet, newest first. */
function unpublishedIssuers(s: DerivedState, staged: StagingEntry): Issuer[] {
  const known = publishedFingerprints(s);
  return issuersOf(s, staged.publicKey)
    .filter((i) => !staged.before.includes(i.id) && !known.has(i.certificate.fingerprint))
    .sort((a, b) => b.certificate.notBefore - a.certificate.notBefore);
}

/**
 * A staged key that cannot be read, or was made for another spec, is given up; its number is never given out again. What was signed
 * for a key that stays is removed first, else the next generation of the same key would take it for its own.
 */
function discardStaged(s: DerivedState, staged: StagingEntry, remove: Step): Step[] {
  const { mount } = s.spec.intermediate;
  const spare = staged.keyRef === '' ? [] : unpublishedIssuers(s, staged);
  if (spare.length > 0) {
    const what = `unpublished issuers of generation ${staged.generation}`;
    return [{ kind: 'Collect', mount, issuerIds: spare.map((i) => i.id), keyIds: [], what }];
  }
  const state = s.stateEntry;
  const next = state && withGeneration(state, staged);
  if (!next || isDeepStrictEqual(next, state)) return [remove];
  return [{ kind: 'WriteState', state: next, cas: s.vault.state.casVersion, reason: 'a generation was given up' }];
}

/** From a staged key to the published set: exactly one next step. */
function stagedSteps(s: DerivedState, staged: StagingEntry): Step[] {
  const root = s.signer;
  const { mount } = s.spec.intermediate;
  const pki = s.vault.intermediatePki;
  const remove: Step = { kind: 'RemoveStaging', generation: staged.generation, version: s.vault.staging.casVersion };
  if (staged.generation <= (s.caEntry?.generation ?? 0)) {
    const record = recordStep(s);
    return [...restoreMount(s), ...(record.length > 0 ? record : [remove])];
  }
  if (staged.publicKey === undefined || !isDeepStrictEqual(staged.spec, s.desired.intermediate))
    return discardStaged(s, staged, remove);
  if (!pki) return [];
  const keyId = s.keyIdOf(pki, staged);
  if (keyId === undefined) {
    const name = generationName(s.identity, 'intermediate', staged.generation);
    return [{ kind: 'ImportKey', mount, from: 'staging', generation: staged.generation, name }];
  }
  // a root that has ended signs nothing any more: RootNearEnd says so
  if (!root || root.certificate.notAfter <= s.now) return [];
  const issuer = unpublishedIssuers(s, staged).find(
    ({ certificate }) => certificate.notAfter > s.now && isSignedBy(certificate, root.certificate),
  );
  if (!issuer) return [signStep(s, root, staged, keyId)];
  return publishSteps(s, { from: 'staging', issuer, ...staged });
}

/** Nothing while a root that istiod must hand out is not known, or none of them vouches for the intermediate. */
function publishSteps(
  s: DerivedState,
  what: { from: 'staging' | 'live' | 'adopted'; issuer: Issuer; generation: number; keyRef: string; same?: boolean },
): Step[] {
  const { trusted } = s.rootRoles;
  if (!trusted?.some((root) => isSignedBy(what.issuer.certificate, root))) return [];
  return [
    {
      kind: 'PublishLive',
      from: what.from,
      generation: what.generation,
      issuerId: what.issuer.id,
      roots: trusted.map(({ pem }) => pem),
      keyRef: what.keyRef,
      mark: markerFor(s, ownables(s).live),
      cas: s.vault.live.casVersion,
      ...(what.same ? { same: true } : {}),
    },
  ];
}

/** root-cert.pem is exactly the roots that are trusted now: none less, and none that somebody slipped in. */
function publishRoots(s: DerivedState, same = false): Step[] {
  const live = s.currentCa;
  const issuer = s.currentIssuer;
  const bundle = s.trustBundle;
  if (!live || !issuer || bundle === undefined || (live.root === bundle) !== same) return [];
  const { generation, keyRef } = live;
  return publishSteps(s, { from: 'live', issuer, generation, keyRef, same });
}

/** What is published stays where Vault would delete it, whatever else goes on. */
const rewriteExpiring = (s: DerivedState): Step[] => (needsRewrite(s.vault.live, s) ? publishRoots(s, true) : []);

/**
 * Own keys and issuers that nothing needs. The generation before the live one is kept until every replica was seen with the live one: then it
 * goes, and with it the older versions of the live entry, which hold its key. Issuers in Vault verify nothing; workloads go on with what they carry.
 */
function collectUnused(s: DerivedState): Step[] {
  const live = s.currentCa;
  const state = s.stateEntry;
  const pki = s.vault.intermediatePki;
  if (!live || !pki || state?.intermediate?.fingerprint !== live.certificate.fingerprint) return [];
  const before = state.history.find((e) => e.kind === 'Intermediate' && e.fingerprint !== live.certificate.fingerprint);
  const over = servedEverywhere(s).passed;
  const kept = new Set([live.certificate.fingerprint, over ? undefined : before?.fingerprint]);
  const ours = s.ownIntermediates;
  const issuers = ours.filter((issuer) => !kept.has(issuer.certificate.fingerprint));
  const needed = new Set([
    s.keyIdOf(pki, live),
    ...pki.issuers.filter((i) => kept.has(i.certificate.fingerprint)).map((i) => i.keyId),
  ]);
  const carried = new Set(ours.map((issuer) => issuer.keyId));
  const keys = pki.keys.filter(
    (key) =>
      (generationOf(s.identity, 'intermediate', key.name) !== undefined || carried.has(key.id)) && !needed.has(key.id),
  );
  if (issuers.length + keys.length === 0) {
    const versions = unusedVersions(s, live, over);
    return versions.length > 0 ? [{ kind: 'DestroyVersions', versions }] : [];
  }
  const what = `${issuers.length} issuers and ${keys.length} keys that nothing needs`;
  const { mount } = s.spec.intermediate;
  return [{ kind: 'Collect', mount, issuerIds: issuers.map((i) => i.id), keyIds: keys.map((k) => k.id), what }];
}

/**
 * Older versions of the live entry that nothing needs: all of ours when every replica has the current one, until then all but the last, as
 * `max_versions` has it where nobody else wrote. Of a person's only the one that was taken over, when its key is in use no more.
 */
function unusedVersions({ vault }: Observed, live: CurrentCa, over: boolean): number[] {
  const { version: last = 0, publicKey } = ownEntry(vault.state)?.stood ?? {};
  const ours = vault.liveOlder.filter((version) => version > last).sort((a, b) => a - b);
  if (!over) return ours.slice(0, -1);
  const retired = publicKey !== undefined && publicKey !== live.publicKey;
  return [...vault.liveOlder.filter((version) => version === last && retired), ...ours];
}

/** The mount follows the live entry: its key and certificate are in it, and it is the default issuer. */
function restoreMount(s: DerivedState): Step[] {
  const live = s.currentCa;
  const pki = s.vault.intermediatePki;
  if (!live || !pki) return [];
  const { mount } = s.spec.intermediate;
  const issuer = s.currentIssuer;
  if (!issuer || issuer.keyId === '') {
    const name = generationName(s.identity, 'intermediate', live.generation);
    return s.keyIdOf(pki, live) !== undefined
      ? [{ kind: 'InstallCertificate', mount, generation: live.generation }]
      : [{ kind: 'ImportKey', mount, from: 'live', generation: live.generation, name }];
  }
  return pki.defaultIssuerId === issuer.id ? [] : [{ kind: 'SetDefaultIssuer', mount, issuerId: issuer.id }];
}

/**
 * A live entry of ours without our mark, be it just taken over or written over since, that holds the key of the recorded intermediate gets
 * all four files and our mark: nothing is chosen. One that holds another key is a lost key, and is replaced like any.
 */
function markCaEntry(s: DerivedState): Step[] | undefined {
  const state = s.stateEntry;
  const { live } = ownables(s);
  if (s.vault.live.entry !== 'foreign' || !live || !state || !owns(s, live)) return undefined;
  const recorded = state.intermediate?.fingerprint;
  const issuer = s.vault.intermediatePki?.issuers.find((i) => i.certificate.fingerprint === recorded);
  const root = s.signer;
  if (!issuer || !root || issuer.certificate.publicKey !== s.vault.live.foreign?.publicKey) return undefined;
  const generation = state.intermediate?.generation ?? 1;
  return publishSteps(s, { from: 'adopted', issuer, generation, keyRef: issuer.keyId });
}

/** What to do now about the intermediate and its key. */
export function intermediateSteps(s: DerivedState): Step[] {
  const marked = markCaEntry(s);
  if (marked) return marked;
  const kept = rewriteExpiring(s);
  if (kept.length > 0) return kept;
  const left = abandonedStagingMarker(s);
  if (left !== undefined) return [{ kind: 'RemoveStaging', generation: 0, version: s.vault.staging.casVersion, left }];
  const staged = s.stagingEntry;
  if (staged) return stagedSteps(s, staged);
  // what stands is put right and recorded before anything new is begun: the record says what it was made for
  const first = [...restoreMount(s), ...recordStep(s)];
  if (first.length > 0) return first;
  const roots = publishRoots(s);
  if (roots.length > 0) return roots;
  const reason = newGenerationReason(s);
  if (reason === undefined) return collectUnused(s);
  const reuse = reusedKey(s);
  return [
    {
      kind: 'StageKey',
      generation: s.highestGeneration + 1,
      spec: s.desired.intermediate,
      reuse,
      before: reuse === undefined ? [] : issuersOf(s, s.caEntry?.publicKey).map((issuer) => issuer.id),
      cas: s.vault.staging.casVersion,
      reason,
      request: rotationRequest(s),
    },
  ];
}
