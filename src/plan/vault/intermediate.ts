/**
 * Issuing an intermediate so that a crash is harmless: the key is stored before Vault acts on it, every later step can be
 * repeated, and the live entry alone decides what is current. See docs/adr/0002.
 */
import { isDeepStrictEqual } from 'node:util';
import { annotations } from '../../api/annotations.ts';
import { rfc3339 } from '../../api/time.ts';
import { abandonedStagingMarker, markerFor, ownables, owns } from '../ownership/ownership.ts';
import { isSignedBy } from '../facts/certificate.ts';
import { needsRewrite } from './entry-lifetime.ts';
import { newKeyAtRenewal, pendingRequest, type Desired } from '../facts/desired.ts';
import {
  currentRoot,
  highestGeneration,
  issuerOf,
  keyIdOf,
  ownIssuers,
  renewAt,
  rootRoles,
  currentCa,
  desiredTrustBundle,
  type OwnIssuer,
  type CurrentCa,
} from '../facts/derived.ts';
import { generationName, generationOf } from '../facts/identity.ts';
import { ownEntry, type Issuer, type Observed, type StagingEntry } from '../facts/observed.ts';
import { servedEverywhere } from '../rotation/gates.ts';
import { recordedState, withGeneration } from './state.ts';
import type { Step } from '../steps.ts';

/** Why a new generation is needed; undefined when the live one serves. */
export function newGenerationReason(d: Desired, o: Observed, now: number): string | undefined {
  const state = ownEntry(o.vault.state);
  if (!currentCa(d, o)) {
    if (state?.root !== undefined && state.root.fingerprint === undefined && state.history.length > 0)
      return 'a lost root was made anew';
    return ownEntry(o.vault.live) || state?.intermediate?.fingerprint ? 'the published key was lost' : 'first issue';
  }
  if (state?.intermediate && !isDeepStrictEqual(state.intermediate.spec, d.intermediate))
    return `spec.intermediate changed (${changed(state.intermediate.spec, d.intermediate)})`.slice(0, 256);
  if (rotationRequest(d, o) !== undefined) return `asked for by ${annotations.rotateIntermediate}`;
  if (signedByAnother(d, o)) return `root rotation${state?.rotation?.back ? ' rolled back' : ''}`;
  const due = renewAt(d, o);
  return due !== undefined && now >= due ? 'renewal' : undefined;
}

/** The live intermediate is under a root of ours that does not sign any more. */
function signedByAnother(d: Desired, o: Observed): boolean {
  const live = currentCa(d, o);
  const signer = currentRoot(d, o);
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
const rotationRequest = (d: Desired, o: Observed): string | undefined =>
  pendingRequest(d, ownEntry(o.vault.state)?.handled, annotations.rotateIntermediate);

/** With `rotationPolicy: Never` the published key is signed again, if it is as the spec asks and lies in the mount. */
function reusedKey(d: Desired, o: Observed): string | undefined {
  const live = currentCa(d, o);
  if (!live || newKeyAtRenewal(d.spec) || !o.vault.intermediatePki) return undefined;
  const { keyType, keyBits } = live.certificate;
  if (keyType !== d.intermediate.keyType || keyBits !== d.intermediate.keyBits) return undefined;
  return keyIdOf(d, o.vault.intermediatePki, live);
}

/** Clock difference, in milliseconds, between Vault and here that a comparison of ends must bear. */
const clockSlackMs = 60_000;

function signStep(d: Desired, root: OwnIssuer, staged: StagingEntry, keyId: string, now: number): Step {
  const endsFirst = root.certificate.notAfter - clockSlackMs < now + d.intermediate.ttl * 1000;
  return {
    kind: 'SignIntermediate',
    generation: staged.generation,
    keyId,
    spec: d.intermediate,
    rootIssuerId: root.id,
    notAfter: endsFirst ? rfc3339(root.certificate.notAfter) : undefined,
  };
}

/** Recorded while the staged entry, which knows the spec it was made for, still stands. */
function recordStep(d: Desired, o: Observed, now: number): Step[] {
  const state = recordedState(d, o, now);
  return state ? [{ kind: 'WriteState', state, cas: o.vault.state.casVersion, reason: 'what was issued' }] : [];
}

/** Fingerprints of what was published: the live certificate and those of the history. */
function publishedFingerprints(o: Observed): Set<string> {
  const history = ownEntry(o.vault.state)?.history ?? [];
  return new Set([
    ownEntry(o.vault.live)?.certificate?.fingerprint ?? '',
    ...history.map((entry) => entry.fingerprint),
  ]);
}

/** Issuers of the intermediate mount that carry a key. */
const issuersOf = (o: Observed, publicKey: string | undefined): Issuer[] =>
  (o.vault.intermediatePki?.issuers ?? []).filter((i) => i.certificate.publicKey === publicKey && i.keyId !== '');

/** Issuers that were signed for a staged generation and not published yet, newest first. */
function unpublishedIssuers(o: Observed, staged: StagingEntry): Issuer[] {
  const known = publishedFingerprints(o);
  return issuersOf(o, staged.publicKey)
    .filter((i) => !staged.before.includes(i.id) && !known.has(i.certificate.fingerprint))
    .sort((a, b) => b.certificate.notBefore - a.certificate.notBefore);
}

/**
 * A staged key that cannot be read, or was made for another spec, is given up; its number is never given out again. What was signed
 * for a key that stays is removed first, else the next generation of the same key would take it for its own.
 */
function discardStaged(d: Desired, o: Observed, staged: StagingEntry, remove: Step): Step[] {
  const { mount } = d.spec.intermediate;
  const spare = staged.keyRef === '' ? [] : unpublishedIssuers(o, staged);
  if (spare.length > 0) {
    const what = `unpublished issuers of generation ${staged.generation}`;
    return [{ kind: 'Collect', mount, issuerIds: spare.map((i) => i.id), keyIds: [], what }];
  }
  const state = ownEntry(o.vault.state);
  const next = state && withGeneration(state, staged);
  if (!next || isDeepStrictEqual(next, state)) return [remove];
  return [{ kind: 'WriteState', state: next, cas: o.vault.state.casVersion, reason: 'a generation was given up' }];
}

/** From a staged key to the published set: exactly one next step. */
function stagedSteps(d: Desired, o: Observed, staged: StagingEntry, now: number): Step[] {
  const root = currentRoot(d, o);
  const { mount } = d.spec.intermediate;
  const pki = o.vault.intermediatePki;
  const remove: Step = { kind: 'RemoveStaging', generation: staged.generation, version: o.vault.staging.casVersion };
  if (staged.generation <= (ownEntry(o.vault.live)?.generation ?? 0)) {
    const record = recordStep(d, o, now);
    return [...restoreMount(d, o), ...(record.length > 0 ? record : [remove])];
  }
  if (staged.publicKey === undefined || !isDeepStrictEqual(staged.spec, d.intermediate))
    return discardStaged(d, o, staged, remove);
  if (!pki) return [];
  const keyId = keyIdOf(d, pki, staged);
  if (keyId === undefined) {
    const name = generationName(d.identity, 'intermediate', staged.generation);
    return [{ kind: 'ImportKey', mount, from: 'staging', generation: staged.generation, name }];
  }
  // a root that has ended signs nothing any more: RootNearEnd says so
  if (!root || root.certificate.notAfter <= now) return [];
  const issuer = unpublishedIssuers(o, staged).find(
    ({ certificate }) => certificate.notAfter > now && isSignedBy(certificate, root.certificate),
  );
  if (!issuer) return [signStep(d, root, staged, keyId, now)];
  return publishSteps(d, o, { from: 'staging', issuer, ...staged });
}

/** Nothing while a root that istiod must hand out is not known, or none of them vouches for the intermediate. */
function publishSteps(
  d: Desired,
  o: Observed,
  what: { from: 'staging' | 'live' | 'adopted'; issuer: Issuer; generation: number; keyRef: string; same?: boolean },
): Step[] {
  const { trusted } = rootRoles(d, o);
  if (!trusted?.some((root) => isSignedBy(what.issuer.certificate, root))) return [];
  return [
    {
      kind: 'PublishLive',
      from: what.from,
      generation: what.generation,
      issuerId: what.issuer.id,
      roots: trusted.map(({ pem }) => pem),
      keyRef: what.keyRef,
      mark: markerFor(d, o, ownables(d, o.vault).live),
      cas: o.vault.live.casVersion,
      ...(what.same ? { same: true } : {}),
    },
  ];
}

/** root-cert.pem is exactly the roots that are trusted now: none less, and none that somebody slipped in. */
function publishRoots(d: Desired, o: Observed, same = false): Step[] {
  const live = currentCa(d, o);
  const issuer = issuerOf(live, o);
  const bundle = desiredTrustBundle(d, o);
  if (!live || !issuer || bundle === undefined || (live.root === bundle) !== same) return [];
  const { generation, keyRef } = live;
  return publishSteps(d, o, { from: 'live', issuer, generation, keyRef, same });
}

/** What is published stays where Vault would delete it, whatever else goes on. */
const rewriteExpiring = (d: Desired, o: Observed): Step[] =>
  needsRewrite(o.vault.live, o) ? publishRoots(d, o, true) : [];

/**
 * Own keys and issuers that nothing needs. The generation before the live one is kept until every replica was seen with the live one: then it
 * goes, and with it the older versions of the live entry, which hold its key. Issuers in Vault verify nothing; workloads go on with what they carry.
 */
function collectUnused(d: Desired, o: Observed, now: number): Step[] {
  const live = currentCa(d, o);
  const state = ownEntry(o.vault.state);
  const pki = o.vault.intermediatePki;
  if (!live || !pki || state?.intermediate?.fingerprint !== live.certificate.fingerprint) return [];
  const before = state.history.find((e) => e.kind === 'Intermediate' && e.fingerprint !== live.certificate.fingerprint);
  const over = servedEverywhere(d, o, now).passed;
  const kept = new Set([live.certificate.fingerprint, over ? undefined : before?.fingerprint]);
  const ours = ownIssuers(d, 'intermediate', o.vault);
  const issuers = ours.filter((issuer) => !kept.has(issuer.certificate.fingerprint));
  const needed = new Set([
    keyIdOf(d, pki, live),
    ...pki.issuers.filter((i) => kept.has(i.certificate.fingerprint)).map((i) => i.keyId),
  ]);
  const carried = new Set(ours.map((issuer) => issuer.keyId));
  const keys = pki.keys.filter(
    (key) =>
      (generationOf(d.identity, 'intermediate', key.name) !== undefined || carried.has(key.id)) && !needed.has(key.id),
  );
  if (issuers.length + keys.length === 0) {
    const versions = unusedVersions(o, live, over);
    return versions.length > 0 ? [{ kind: 'DestroyVersions', versions }] : [];
  }
  const what = `${issuers.length} issuers and ${keys.length} keys that nothing needs`;
  const { mount } = d.spec.intermediate;
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
function restoreMount(d: Desired, o: Observed): Step[] {
  const live = currentCa(d, o);
  const pki = o.vault.intermediatePki;
  if (!live || !pki) return [];
  const { mount } = d.spec.intermediate;
  const issuer = issuerOf(live, o);
  if (!issuer || issuer.keyId === '') {
    const name = generationName(d.identity, 'intermediate', live.generation);
    return keyIdOf(d, pki, live) !== undefined
      ? [{ kind: 'InstallCertificate', mount, generation: live.generation }]
      : [{ kind: 'ImportKey', mount, from: 'live', generation: live.generation, name }];
  }
  return pki.defaultIssuerId === issuer.id ? [] : [{ kind: 'SetDefaultIssuer', mount, issuerId: issuer.id }];
}

/**
 * A live entry of ours without our mark, be it just taken over or written over since, that holds the key of the recorded intermediate gets
 * all four files and our mark: nothing is chosen. One that holds another key is a lost key, and is replaced like any.
 */
function markCaEntry(d: Desired, o: Observed): Step[] | undefined {
  const state = ownEntry(o.vault.state);
  const { live } = ownables(d, o.vault);
  if (o.vault.live.entry !== 'foreign' || !live || !state || !owns(d, o, live)) return undefined;
  const recorded = state.intermediate?.fingerprint;
  const issuer = o.vault.intermediatePki?.issuers.find((i) => i.certificate.fingerprint === recorded);
  const root = currentRoot(d, o);
  if (!issuer || !root || issuer.certificate.publicKey !== o.vault.live.foreign?.publicKey) return undefined;
  const generation = state.intermediate?.generation ?? 1;
  return publishSteps(d, o, { from: 'adopted', issuer, generation, keyRef: issuer.keyId });
}

/** What to do now about the intermediate and its key. */
export function intermediateSteps(d: Desired, o: Observed, now: number): Step[] {
  const marked = markCaEntry(d, o);
  if (marked) return marked;
  const kept = rewriteExpiring(d, o);
  if (kept.length > 0) return kept;
  const left = abandonedStagingMarker(d, o);
  if (left !== undefined) return [{ kind: 'RemoveStaging', generation: 0, version: o.vault.staging.casVersion, left }];
  const staged = ownEntry(o.vault.staging);
  if (staged) return stagedSteps(d, o, staged, now);
  // what stands is put right and recorded before anything new is begun: the record says what it was made for
  const first = [...restoreMount(d, o), ...recordStep(d, o, now)];
  if (first.length > 0) return first;
  const roots = publishRoots(d, o);
  if (roots.length > 0) return roots;
  const reason = newGenerationReason(d, o, now);
  if (reason === undefined) return collectUnused(d, o, now);
  const reuse = reusedKey(d, o);
  return [
    {
      kind: 'StageKey',
      generation: highestGeneration(d, o) + 1,
      spec: d.intermediate,
      reuse,
      before: reuse === undefined ? [] : issuersOf(o, ownEntry(o.vault.live)?.publicKey).map((issuer) => issuer.id),
      cas: o.vault.staging.casVersion,
      reason,
      request: rotationRequest(d, o),
    },
  ];
}
