/**
 * Steps that issue an intermediate. A crash between them does no harm: the key is stored before it is imported into Vault's PKI mount, every
 * later step can be repeated, and the CA entry alone decides which CA is current. See docs/adr/0002. Pure.
 */
import { bundleFacts, certificateFacts, type CertificateFacts } from '../facts/certificate.ts';
import { isRevoked } from '../facts/revoked.ts';
import type { DerivedState } from '../facts/derived.ts';
import { isDeepStrictEqual } from 'node:util';
import { annotations } from '../../api/annotations.ts';
import { rfc3339 } from '../../api/time.ts';
import { abandonedStagingMarker, ownables, owns } from '../ownership/ownership.ts';
import { importOf, offeredRoot, pathOfGiven, signatureOf, type Import } from '../facts/outside-roots.ts';
import { newKeyAtRenewal, pendingRequest } from '../facts/desired.ts';
import { generationName } from '../facts/identity.ts';
import type { Issuer, StagingEntry } from '../facts/observed.ts';
import { rotationRequest as rootRotationRequest } from '../rotation/rotation.ts';
import { paused } from '../rotation/waits.ts';
import { collectUnused } from './collect.ts';
import { restoreUsage } from './issuer-usage.ts';
import { recordedState, withGeneration } from './state.ts';
import { keepPublished, publishAgain, publishSteps } from './publish.ts';
import { awaitsLists } from './revocation-lists.ts';
import type { Step } from '../steps.ts';

/** Why a new CA generation is needed, for the user; undefined: none is needed. */
export function newGenerationReason(s: DerivedState): string | undefined {
  if (s.checksOnly) return undefined;
  if (s.imports) return newImportReason(s);
  // the root of an imported CA, or a lost one, signs nothing, and until a rotation is requested no other one does
  if (s.awaitsFirstIssue || s.hasKeylessRoot) return undefined;
  const state = s.stateEntry;
  if (!s.currentCa) {
    if (state?.root !== undefined && state.root.fingerprint === undefined && state.history.length > 0)
      return 'a lost root was made anew';
    return s.caEntry || state?.intermediate?.fingerprint ? 'the published key was lost or replaced' : 'first issue';
  }
  if (state?.intermediate && !isDeepStrictEqual(state.intermediate.spec, s.desired.intermediate))
    return `spec.intermediate changed (${changed(state.intermediate.spec, s.desired.intermediate)})`.slice(0, 256);
  if (isRevoked(s)) return 'the intermediate was revoked';
  if (rotationRequest(s) !== undefined) return `asked for by ${annotations.rotateIntermediate}`;
  if (asksForOtherRoot(s)) return `asked for by ${annotations.rotateRoot}`;
  if (signedByOtherRoot(s)) return `root rotation${state?.rotation?.back ? ' rolled back' : ''}`;
  const due = s.renewAt;
  return due !== undefined && s.now >= due ? 'renewal' : undefined;
}

/** Why the CA in the Secret is to be imported, for the user; undefined: it is in use, or cannot be. */
function newImportReason(s: DerivedState): string | undefined {
  const imported = importOf(s);
  if (imported?.kind !== 'accepted') return undefined;
  if (!s.currentCa) return s.caEntry ? 'the published key was lost or replaced' : 'first import';
  const isInUse = s.currentCa.certificate.fingerprint === imported.chain[0]?.fingerprint;
  return isInUse ? undefined : `another CA is in Secret ${imported.secret}`;
}

/** Whether a root, or an issuer of others, that no longer signs issued the current intermediate. */
function signedByOtherRoot(s: DerivedState): boolean {
  const { currentCa, signer } = s;
  return currentCa !== undefined && signer !== undefined && !s.isUnderSigner(currentCa.certificate);
}

/** Whether another root is asked for that signs outside of Vault: it is known only by a certificate that it signs. */
const asksForOtherRoot = (s: DerivedState): boolean =>
  s.rootSource === 'External' &&
  !s.imports &&
  s.rotation === undefined &&
  rootRotationRequest(s) !== undefined &&
  !paused(s);

/**
 * Lists the properties that differ, for the user.
 * @param was properties that a certificate was issued with
 * @param is desired properties
 */
export function changed(was: object, is: object): string {
  const before = new Map(Object.entries(was));
  return Object.entries(is)
    .filter(([key, value]) => before.get(key) !== value)
    .map(([key, value]) => `${key}: ${String(before.get(key))} → ${String(value)}`)
    .join(', ');
}

/** The text of annotation `rotate-intermediate` that requests a new CA generation not yet issued; undefined: no request. */
const rotationRequest = (s: DerivedState): string | undefined =>
  pendingRequest(s.desired, s.stateEntry?.handled, annotations.rotateIntermediate);

/**
 * Id of the published key in the intermediate mount, if a renewal keeps the key (`rotationPolicy: Never`) and the key has the desired type and
 * size; undefined: a new key is needed.
 */
function reusedKey(s: DerivedState): string | undefined {
  const ca = s.currentCa;
  // what was revoked may be in the wrong hands, so its key is not certified again
  if (!ca || isRevoked(s) || newKeyAtRenewal(s.spec) || !s.vault.intermediatePki) return undefined;
  const { keyType, keyBits } = ca.certificate;
  if (keyType !== s.desired.intermediate.keyType || keyBits !== s.desired.intermediate.keyBits) return undefined;
  return s.keyIdOf(s.vault.intermediatePki, ca);
}

/** Tolerated difference between Vault's clock and the operator's clock, milliseconds. */
const clockSkewMs = 60_000;

/** The step that has an issuer in Vault sign a staged key. If it expires before the desired lifetime ends, the intermediate expires with it. */
function signStep(s: DerivedState, staged: StagingEntry, keyId: string): Step[] {
  const issuer = s.signingIssuer;
  // an issuer of others that is gone is reported by IssuerNotFound
  if (!issuer) return [];
  const expiresFirst = issuer.end - clockSkewMs < s.now + s.desired.intermediate.ttl * 1000;
  return [
    {
      kind: 'SignIntermediate',
      generation: staged.generation,
      keyId,
      spec: s.desired.intermediate,
      rootIssuerId: issuer.id,
      notAfter: expiresFirst ? rfc3339(issuer.end) : undefined,
    },
  ];
}

/** The next step toward a certificate that is signed outside of Vault: the request is recorded, then what answers it is installed. */
function signatureSteps(s: DerivedState, staged: StagingEntry, keyId: string): Step[] {
  const { mount } = s.spec.intermediate;
  const { generation } = staged;
  if (!staged.csr)
    return [{ kind: 'RecordCSR', generation, keyId, spec: s.desired.intermediate, cas: s.vault.staging.casVersion }];
  const signature = signatureOf(s);
  const { stateEntry: state, rotation } = s;
  if (signature?.kind !== 'accepted') return [];
  // the root is recorded before anything under it is installed
  const recorded = [state?.root, rotation?.to].some((one) => one?.fingerprint === signature.root.fingerprint);
  // without the CAs between it is installed again
  const installed = s.vault.intermediatePki?.issuers.some(
    ({ certificate }) =>
      certificate.fingerprint === signature.chain[0]?.fingerprint && s.leads(certificate, signature.root),
  );
  if (!recorded || installed) return [];
  return [
    {
      kind: 'InstallSigned',
      mount,
      generation,
      chain: signature.chain.map(({ pem }) => pem),
      ...shortened(s, signature.chain),
    },
  ];
}

/** When a certificate that was signed outside of Vault ends, if that is clearly sooner than the spec asks for. */
function shortened(s: DerivedState, [leaf]: readonly CertificateFacts[]): { notAfter?: string } {
  const wanted = s.desired.intermediate.ttl * 1000;
  return leaf && leaf.notAfter - leaf.notBefore < wanted * 0.9 ? { notAfter: rfc3339(leaf.notAfter) } : {};
}

/** The step that records what was issued. It precedes the removal of the staging entry, which contains the properties that were requested. */
function recordStep(s: DerivedState): Step[] {
  const state = recordedState(s);
  return state ? [{ kind: 'WriteState', state, cas: s.vault.state.casVersion, reason: 'what was issued' }] : [];
}

/** Fingerprints of published certificates: the one in the CA entry and those in the history. */
function publishedFingerprints(s: DerivedState): Set<string> {
  const history = s.stateEntry?.history ?? [];
  return new Set([s.caEntry?.certificate?.fingerprint ?? '', ...history.map((entry) => entry.fingerprint)]);
}

/** Issuers of the intermediate mount that have their key in the mount and are for the given public key. */
const issuersOf = (s: DerivedState, publicKey: string | undefined): Issuer[] =>
  (s.vault.intermediatePki?.issuers ?? []).filter((i) => i.certificate.publicKey === publicKey && i.keyId !== '');

/** Issuers that were signed for a staged CA generation and are not published, newest first. */
function unpublishedIssuers(s: DerivedState, staged: StagingEntry): Issuer[] {
  const published = publishedFingerprints(s);
  return issuersOf(s, staged.publicKey)
    .filter((i) => !i.revoked && !staged.before.includes(i.id) && !published.has(i.certificate.fingerprint))
    .sort((a, b) => b.certificate.notBefore - a.certificate.notBefore);
}

/**
 * Steps that give up a staged key, because the key cannot be read or was staged for other properties. The number of its CA generation is never
 * used again. If the key is a published one, issuers that were signed for the given-up generation are removed first: otherwise the next
 * generation with the same key would publish them as its own.
 */
function discardStaged(s: DerivedState, staged: StagingEntry, remove: Step): Step[] {
  const { mount } = s.spec.intermediate;
  const unused = staged.keyRef === '' ? [] : unpublishedIssuers(s, staged);
  if (unused.length > 0) {
    const what = `unpublished issuers of generation ${staged.generation}`;
    return [{ kind: 'Collect', mount, issuerIds: unused.map((i) => i.id), keyIds: [], what }];
  }
  const state = s.stateEntry;
  const next = state && withGeneration(state, staged);
  if (!next || isDeepStrictEqual(next, state)) return [remove];
  return [{ kind: 'WriteState', state: next, cas: s.vault.state.casVersion, reason: 'a generation was given up' }];
}

/** The next step from an imported CA in the staging entry to the published one: when its root signs, it is published as it is. */
function importedSteps(
  s: DerivedState,
  staged: StagingEntry,
  { chain, root, secret }: NonNullable<StagingEntry['imported']>,
  remove: Step,
): Step[] {
  const certificate = certificateFacts(chain[0] ?? '');
  const top = certificateFacts(root)?.fingerprint;
  if (!certificate || top === undefined) return discardStaged(s, staged, remove);
  if (top === s.signer?.certificate.fingerprint) {
    const issuer: Issuer = { id: '', keyId: '', keyName: '', certificate };
    if (awaitsLists(s, certificate, bundleFacts(chain.join('')))) return keepPublished(s);
    return publishSteps(s, { from: 'staging', issuer, generation: staged.generation, keyRef: '', chain, secret });
  }
  const { stateEntry: state, rotation } = s;
  const isNext = top === (rotation?.back ? undefined : rotation?.to.fingerprint) || top === state?.root?.fingerprint;
  return isNext || (rotation === undefined && top === offeredRoot(s)?.fingerprint)
    ? []
    : discardStaged(s, staged, remove);
}

/** Whether a staged CA generation was signed outside under a root from which a rotation goes back. */
function isForGivenUpRoot(s: DerivedState, staged: StagingEntry): boolean {
  const to = s.rotation?.back ? s.findRoot(s.rotation.to) : undefined;
  if (!to || s.spec.root.source !== 'External') return false;
  return unpublishedIssuers(s, staged).some(({ certificate }) => s.leads(certificate, to.certificate));
}

/** Whether a staged CA generation is what the spec asks for. An imported one has no properties of the spec: it is from the Secret that it names. */
function isForSpec({ desired: { intermediate: wanted } }: DerivedState, { spec, imported }: StagingEntry): boolean {
  if (imported) return spec?.source === wanted.source && spec.importRef === wanted.importRef;
  return isDeepStrictEqual(spec, wanted);
}

/** Whether the root that is to sign is revoked, or the issuer of others that signs under it is gone. */
const signsNothing = (s: DerivedState): boolean => s.signer?.revoked === true || (s.signer !== undefined && s.lacksIssuer(s.signer)); // prettier-ignore

/** The next step from a staged key to the published CA. */
function stagedSteps(s: DerivedState, staged: StagingEntry): Step[] {
  const root = s.signer;
  const { mount } = s.spec.intermediate;
  const pki = s.vault.intermediatePki;
  const remove: Step = {
    kind: 'RemoveStaging',
    generation: staged.generation,
    version: s.vault.staging.casVersion,
    ...(staged.csr ? { twice: true } : {}),
  };
  if (staged.generation <= (s.caEntry?.generation ?? 0)) {
    const record = recordStep(s);
    return [...restoreMount(s), ...(record.length > 0 ? record : [remove])];
  }
  // what is revoked or gone signs nothing, and a staged key would keep a rotation from going on; a revoked key is not certified again
  const useless =
    signsNothing(s) ||
    s.lostSigner !== undefined ||
    (isRevoked(s) && staged.publicKey === s.currentCa?.publicKey) ||
    isForGivenUpRoot(s, staged);
  if (useless || staged.publicKey === undefined || !isForSpec(s, staged)) return discardStaged(s, staged, remove);
  if (staged.imported) return importedSteps(s, staged, staged.imported, remove);
  if (!pki) return [];
  const keyId = s.keyIdOf(pki, staged);
  if (keyId === undefined) {
    const name = generationName(s.identity, 'intermediate', staged.generation);
    return [{ kind: 'ImportKey', mount, from: 'staging', generation: staged.generation, name }];
  }
  // an expired root signs nothing; the reason RootNearEnd reports it. Outside of Vault the request can be answered under another one
  if (root && !s.signsOutside && root.certificate.notAfter <= s.now) return [];
  const issuer =
    root &&
    unpublishedIssuers(s, staged).find(
      ({ certificate }) => certificate.notAfter > s.now && s.isUnderSigner(certificate),
    );
  if (!issuer) return s.signsOutside ? signatureSteps(s, staged, keyId) : signStep(s, staged, keyId);
  if (awaitsLists(s, issuer.certificate)) return keepPublished(s);
  return publishSteps(s, { from: 'staging', issuer, ...staged });
}

/** Restores the intermediate mount from the CA entry: the mount must contain its key and certificate, and have it as the default issuer. */
function restoreMount(s: DerivedState): Step[] {
  const ca = s.currentCa;
  const pki = s.vault.intermediatePki;
  // an imported CA is in no mount
  if (!ca || !pki || ca.imported) return [];
  const { mount } = s.spec.intermediate;
  const issuer = s.currentIssuer;
  if (!issuer || issuer.keyId === '') {
    const name = generationName(s.identity, 'intermediate', ca.generation);
    return s.keyIdOf(pki, ca) !== undefined
      ? [{ kind: 'InstallCertificate', mount, generation: ca.generation }]
      : [{ kind: 'ImportKey', mount, from: 'live', generation: ca.generation, name }];
  }
  const isDefault = pki.defaultIssuerId === issuer.id && !pki.followsLatest;
  return [
    ...(isDefault ? [] : [{ kind: 'SetDefaultIssuer' as const, mount, issuerId: issuer.id }]),
    ...restoreUsage(s, mount, issuer),
  ];
}

/**
 * Publishes all four files and the marker to a CA entry that this resource owns and that does not carry its marker, because the entry was
 * adopted or others overwrote it. Requires that the entry contains the key of the recorded intermediate; undefined: not such an entry. An entry
 * with another key counts as a lost key, and a new CA generation replaces it.
 */
function markCaEntry(s: DerivedState): Step[] | undefined {
  const state = s.stateEntry;
  const { live } = ownables(s);
  if (s.vault.live.entry !== 'foreign' || !live || !state || !owns(s, live)) return undefined;
  const recorded = state.intermediate?.fingerprint;
  if (s.imports) return markImported(s, state.intermediate?.generation ?? 1, recorded);
  const issuer = s.vault.intermediatePki?.issuers.find((i) => i.certificate.fingerprint === recorded);
  const root = s.signer;
  if (!issuer || !root || issuer.certificate.publicKey !== s.vault.live.foreign?.publicKey) return undefined;
  const generation = state.intermediate?.generation ?? 1;
  return publishSteps(s, { from: 'adopted', issuer, generation, keyRef: issuer.keyId });
}

/** The same for an imported CA, whose certificates are in the CA entry alone. @param recorded fingerprint of the recorded certificate */
function markImported(s: DerivedState, generation: number, recorded: string | undefined): Step[] | undefined {
  const { publicKey, certificates = [] } = s.vault.live.foreign ?? {};
  const certificate = certificates.find(({ fingerprint }) => fingerprint === recorded);
  const path = certificate && pathOfGiven(s, certificate, [...certificates, ...(s.rootRoles.trusted ?? [])]);
  if (!path || certificate.publicKey !== publicKey) return undefined;
  const chain = (path.length === 1 ? path : path.slice(0, -1)).map(({ pem }) => pem);
  const issuer: Issuer = { id: '', keyId: '', keyName: '', certificate };
  return publishSteps(s, { from: 'adopted', issuer, generation, keyRef: '', chain });
}

/** The step that takes the CA in the Secret into the key store. */
function importStep(s: DerivedState, imported: Extract<Import, { kind: 'accepted' }>, reason: string): Step {
  return {
    kind: 'ImportCA',
    generation: s.highestGeneration + 1,
    spec: s.desired.intermediate,
    secret: imported.secret,
    publicKey: imported.publicKey,
    chain: imported.chain.map(({ pem }) => pem),
    root: imported.root.pem,
    cas: s.vault.staging.casVersion,
    reason,
  };
}

/** Steps for the intermediate and its key. */
export function intermediateSteps(s: DerivedState): Step[] {
  if (s.checksOnly) return [];
  const marking = markCaEntry(s);
  if (marking) return marking;
  const again = publishAgain(s);
  if (again.length > 0) return again;
  const left = abandonedStagingMarker(s);
  if (left !== undefined) return [{ kind: 'RemoveStaging', generation: 0, version: s.vault.staging.casVersion, left }];
  const staged = s.stagingEntry;
  const issuing = staged ? stagedSteps(s, staged) : [];
  // while a signature outside of Vault is awaited, or waits for its phase, everything else is kept
  if (issuing.length > 0 || (staged && !s.signsOutside)) return issuing;
  // the current CA is restored and recorded before a new generation starts: the record has the properties that it was issued with
  const restoring = [...restoreMount(s), ...recordStep(s)];
  if (restoring.length > 0) return restoring;
  const publishing = keepPublished(s);
  if (publishing.length > 0 || staged) return publishing;
  const reason = newGenerationReason(s);
  if (reason === undefined) return collectUnused(s);
  // until it is replaced, the current CA goes on
  if (signsNothing(s)) return [];
  const imported = importOf(s);
  if (imported) return imported.kind === 'accepted' ? [importStep(s, imported, reason)] : [];
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
