/**
 * The revocation lists in the CA entry (`delivery.crl`): which lists proxies need, which list of a CA is published, and when Vault is asked for new
 * ones. See docs/adr/0011. Pure.
 */
import { isDeepStrictEqual } from 'node:util';
import { rfc3339 } from '../../api/time.ts';
import { bundleFacts, type CertificateFacts } from '../facts/certificate.ts';
import { isRevoked } from '../facts/revoked.ts';
import { pathTo } from '../facts/certificate-path.ts';
import { derivedOnce, type DerivedState } from '../facts/derived.ts';
import { maxWorkloadCertTtlMs } from '../facts/desired.ts';
import { fieldsAppliedFlag, type ListSettings } from '../facts/observed.ts';
import { caOf, type RevocationList } from '../facts/revocation-list.ts';
import { created, ownables } from '../ownership/ownership.ts';
import { servedEverywhere } from '../rotation/gates.ts';
import type { RepeatReason, Step } from '../steps.ts';
import { presentList } from './list-sources.ts';

const day = 24 * 3_600_000;

/**
 * The shortest time of a list in a mount that this resource made, milliseconds. The mesh lives on the lists that it has for at least half of it
 * while this operator is away, suspended or deleted. Vault's default is three days.
 */
const shortestLifeMs = 30 * day;

/** How old a list is before it replaces one with the same content, milliseconds: a node whose clock is behind refuses a list from the future. */
const agedMs = 5 * 60_000;

/** How often, and for how long, the operator looks whether istiod has published a list that is old enough, milliseconds. */
const publicationMs = 5000;
const publicationsMs = 120_000;

/** How much later than Vault's clock, which is read when a reconcile begins, a list can be dated that was signed before it, milliseconds. */
const skewMs = 5000;

/** How old the first list of a CA may be when it is published, milliseconds: its age shows how long the mesh has had it. */
const firstAgeMs = 60_000;

/** Vault gives times in whole seconds: a list can be this much shorter than its settings say, milliseconds. */
const resolutionMs = 2000;

/** A moment in the time of a list, given as a part of it: milliseconds since the epoch. */
export const atPart = ({ thisUpdate, nextUpdate }: RevocationList, part: number): number =>
  nextUpdate === Infinity ? Infinity : thisUpdate + (nextUpdate - thisUpdate) * part;

/** Whether half of the time of a list is over, by Vault's clock, which dated the list. */
const isDue = (s: DerivedState, list: RevocationList): boolean => s.vault.time >= atPart(list, 1 / 2);

/** Certificates that have not expired, each once. */
function unexpired(s: DerivedState, certificates: readonly CertificateFacts[]): CertificateFacts[] {
  const valid = certificates.filter(({ notAfter }) => notAfter > s.now);
  return [...new Map(valid.map((certificate) => [certificate.fingerprint, certificate])).values()];
}

/**
 * The CAs whose lists proxies need: every trusted root, every CA of the current chain, and every intermediate of this resource that workload certificates
 * can be from. Envoy refuses a certificate if it has a list of one CA above it but not of another.
 */
export const listedCas = derivedOnce((s: DerivedState): CertificateFacts[] => {
  const current = s.currentCa ? [s.currentCa.certificate, ...bundleFacts(s.currentCa.chain)] : [];
  const intermediates = s.ownIntermediates.map(({ certificate }) => certificate);
  return unexpired(s, [...(s.rootRoles.trusted ?? []), ...current, ...intermediates]);
});

/** A certificate with the CAs above it up to a root of this resource, as far as they are known. */
function chainOf(
  s: DerivedState,
  certificate: CertificateFacts,
  known: readonly CertificateFacts[],
): CertificateFacts[] {
  const roots = [...(s.rootRoles.trusted ?? []), ...s.ownRoots.map((root) => root.certificate)];
  return pathTo(certificate, known, roots) ?? [certificate];
}

/** The certificates of a CA that is staged: imported, or signed and not published yet. Its own first. */
export const stagedChain = derivedOnce((s: DerivedState): CertificateFacts[] => {
  const staged = s.stagingEntry;
  if (!staged || staged.generation <= (s.caEntry?.generation ?? 0)) return [];
  if (staged.imported) return bundleFacts([...staged.imported.chain, staged.imported.root].join(''));
  const issuer = s.ownIntermediates.find(
    ({ certificate: { publicKey, fingerprint } }) =>
      publicKey === staged.publicKey && fingerprint !== s.caEntry?.certificate?.fingerprint,
  );
  return issuer ? chainOf(s, issuer.certificate, s.knownCas) : [];
});

/**
 * Imported CAs before the current one, with the CAs above them, as far as a user hands their certificates along beside lists: nobody else has them.
 * Workload certificates of them can still be valid.
 */
const olderImported = derivedOnce((s: DerivedState): CertificateFacts[] => {
  if (s.now >= olderRunOutAt(s)) return [];
  const had = new Set(
    s.stateEntry?.history.flatMap(({ kind, fingerprint }) => (kind === 'Intermediate' ? fingerprint : [])),
  );
  const given = (s.kubernetes.givenLists ?? []).flatMap(({ certificates }) => certificates);
  const older = given.filter(({ fingerprint }) => had.has(fingerprint));
  return older.flatMap((certificate) => chainOf(s, certificate, [...given, ...s.knownCas]));
});

/** CAs whose lists are published as soon as there is one, before workloads have certificates under them. */
export const comingCas = derivedOnce((s: DerivedState): CertificateFacts[] => {
  const chains = s.ownIntermediates.flatMap(({ certificate }) => chainOf(s, certificate, s.knownCas));
  const roots = new Set(s.ownRoots.map(({ certificate }) => certificate.fingerprint));
  const needed = new Set(listedCas(s).map(({ fingerprint }) => fingerprint));
  return unexpired(s, [...chains, ...stagedChain(s), ...olderImported(s)]).filter(
    ({ fingerprint, selfIssued }) => !needed.has(fingerprint) && !(selfIssued && roots.has(fingerprint)),
  );
});

/** The published lists, by CA. */
export const publishedLists = derivedOnce(
  (s: DerivedState) => new Map((s.caEntry?.lists ?? []).map((list) => [list.ca, list] as const)),
);

/**
 * Serial numbers of intermediates with which istiod may still sign: the current one if it is revoked, and those before it until every replica was seen
 * with the current one; and those of the CAs above the current one. If they were refused at once, no workload could get a certificate that is not.
 */
const inUse = derivedOnce((s: DerivedState): ReadonlySet<string> => {
  const state = s.stateEntry;
  const isReplaced = state?.intermediate?.servedAt !== undefined && !isRevoked(s);
  const current = s.currentCa?.certificate;
  // an imported one is in no mount
  const previous = state?.history.find(
    (one) => one.kind === 'Intermediate' && one.fingerprint !== current?.fingerprint,
  );
  const used = isReplaced ? [] : [current, previous, ...s.ownIntermediates.map(({ certificate }) => certificate)];
  const above = bundleFacts(s.currentCa?.chain ?? '').slice(1);
  return new Set([...used, ...above].flatMap((certificate) => certificate?.serial ?? []));
});

/** How long the publication of a revocation is held back at most while the intermediate is replaced, milliseconds. */
const longestHoldMs = 3_600_000;

/** Serial numbers on a list that an earlier list of the same CA does not have. */
const added = (before: RevocationList, after: RevocationList): string[] =>
  Object.keys(after.revoked).filter((serial) => !Object.hasOwn(before.revoked, serial));

/** Serial numbers that Vault has put on a list and that are not published yet, because the intermediate is being replaced. */
export const heldBack = (s: DerivedState, ofVault: RevocationList): string[] => {
  const published = publishedLists(s).get(ofVault.ca);
  return (published ? added(published, ofVault) : Object.keys(ofVault.revoked)).filter(
    (serial) => inUse(s).has(serial) && s.vault.time < (ofVault.revoked[serial] ?? 0) + longestHoldMs,
  );
};

/** Which list of a CA is to be published: the published one stays until Vault's has something new, or half of its time is over. */
function chosen(s: DerivedState, ofVault: RevocationList): RevocationList | undefined {
  const published = publishedLists(s).get(ofVault.ca);
  if (!published) return heldBack(s, ofVault).length > 0 ? undefined : ofVault;
  // a standby, or a Vault restored from a backup
  if (ofVault.thisUpdate <= published.thisUpdate) return published;
  if (heldBack(s, ofVault).length > 0) return published;
  if (added(published, ofVault).length > 0) return ofVault;
  const isAged = s.vault.time >= ofVault.thisUpdate + agedMs;
  return isDue(s, published) && isAged ? ofVault : published;
}

/** What there is no list of keeps the published one as long as that has not ended: a root or a mount can be lost, and nobody hands a list along in time. */
function listOf(s: DerivedState, certificate: CertificateFacts): RevocationList | undefined {
  const present = presentList(s, certificate);
  if (present) return chosen(s, present);
  const published = publishedLists(s).get(caOf(certificate));
  return published && published.nextUpdate > s.vault.time ? published : undefined;
}

/**
 * The lists to publish, one for each CA, and the CAs of which there is none. Until workload certificates of older intermediates have run out, published
 * lists stay of which nobody knows the CA any more.
 */
export const neededLists = derivedOnce((s: DerivedState): { lists: RevocationList[]; missing: CertificateFacts[] } => {
  const found = listedCas(s).map((certificate) => listOf(s, certificate));
  const coming = comingCas(s).map((certificate) => listOf(s, certificate));
  const published = [...publishedLists(s).values()].filter(({ nextUpdate }) => nextUpdate > s.vault.time);
  const older = s.now < olderRunOutAt(s) ? published : [];
  const byCa = new Map<string, RevocationList>();
  for (const list of [...found, ...coming, ...older]) if (list && !byCa.has(list.ca)) byCa.set(list.ca, list);
  return { lists: [...byCa.values()], missing: listedCas(s).filter((_, at) => found[at] === undefined) };
});

/** CAs of a chain, among those that have not expired, of which there is no list. */
export const missingIn = (s: DerivedState, chain: readonly CertificateFacts[]): CertificateFacts[] =>
  unexpired(s, chain).filter((certificate) => listOf(s, certificate) === undefined);

/** How long a replica of istiod is taken to go on with an older intermediate at most, if nobody saw when it stopped, milliseconds. */
const longestLagMs = 30 * day;

/** Whether istiod has had the fields of this resource at any time, so that workloads can have certificates of this CA. */
const hasIssued = ({ stateEntry, kubernetes: { controlPlane } }: DerivedState): boolean =>
  stateEntry?.made.includes(fieldsAppliedFlag) === true || controlPlane?.carriesFields === true;

/**
 * When the first lists may be published, milliseconds since the epoch: as soon as there is no workload certificate of an intermediate that is gone
 * already, for its list cannot be made any more. Infinity: the time is not known.
 */
export function firstListsAt(s: DerivedState): number {
  const state = s.stateEntry;
  const current = s.currentCa?.certificate;
  const issued = state?.history.filter(({ kind }) => kind === 'Intermediate') ?? [];
  const withList = olderImported(s).filter((certificate) => presentList(s, certificate) !== undefined);
  const known = [
    ...s.ownIntermediates.map(({ certificate }) => certificate),
    ...withList,
    ...(current ? [current] : []),
  ];
  const isKnown = new Set(known.map(({ fingerprint }) => fingerprint));
  const adopted = state?.adopted.includes(`entry:${s.spec.keyStore.path}`) === true;
  const isGone = adopted || issued.some(({ fingerprint }) => !isKnown.has(fingerprint));
  if (!current || !isGone || !(adopted || hasIssued(s))) return 0;
  const since = issued.find(({ fingerprint }) => fingerprint === current.fingerprint)?.time;
  const longest = maxWorkloadCertTtlMs(s.spec, s.kubernetes.maxWorkloadCertTtlMs);
  const assumed = since === undefined || longest === 'unknown' ? Infinity : Date.parse(since) + longestLagMs + longest;
  return Math.min(olderRunOutAt(s), assumed);
}

/** Whether the first lists have to wait for workload certificates to run out. */
export const firstListsWait = (s: DerivedState): boolean =>
  s.currentCa !== undefined && s.currentCa.lists === undefined && s.now < firstListsAt(s);

/**
 * The lists that go into the CA entry, PEM, for any publication: none without `delivery.crl`, and none before the first lists may be published.
 * undefined: one is missing, so that nothing may be published.
 * @param chain the certificates that are to be published, as far as they are not the current ones
 */
export function listsToPublish(s: DerivedState, chain: readonly CertificateFacts[] = []): string[] | undefined {
  if (!s.spec.delivery.crl || firstListsWait(s)) return [];
  const { lists, missing } = neededLists(s);
  if (missing.length > 0 || missingIn(s, chain).length > 0) return undefined;
  const all = [...lists, ...unexpired(s, chain).flatMap((one) => listOf(s, one) ?? [])];
  return [...new Map(all.map(({ ca, pem }) => [ca, pem])).values()];
}

/**
 * When the lists in the CA entry last got the list of another CA, RFC 3339: the mesh has had none of them for longer than that, or than they say.
 * @param pems the lists that are to be published; undefined: there are none
 */
export function listsSince(s: DerivedState, pems: readonly string[]): string | undefined {
  if (pems.length === 0) return undefined;
  const before = publishedLists(s);
  const known = [...neededLists(s).lists, ...before.values()];
  const isNew = pems.some((pem) => !before.has(known.find((list) => list.pem === pem)?.ca ?? ''));
  if (isNew) return rfc3339(s.vault.time);
  return s.caEntry?.listsSince === undefined ? undefined : rfc3339(s.caEntry.listsSince);
}

/** Whether the current intermediate has ended: nobody accepts it any more, with whatever lists. */
const isOver = (s: DerivedState): boolean => s.currentCa !== undefined && s.currentCa.certificate.notAfter <= s.now;

/** Why the current CA is to be published again for its revocation lists; undefined: there is no reason, or a list is missing. */
export function reasonToPublishLists(s: DerivedState): RepeatReason | undefined {
  const { crl } = s.spec.delivery;
  if (!crl) return s.currentCa?.lists ? 'withdrawn' : undefined;
  if (!s.currentCa || isOver(s) || !listsToPublish(s) || firstListsWait(s)) return undefined;
  const { lists } = neededLists(s);
  const before = publishedLists(s);
  if (before.size !== lists.length || lists.some(({ ca }) => !before.has(ca))) return 'lists';
  const changed = lists.filter((list) => before.get(list.ca)?.pem !== list.pem);
  if (changed.length === 0) return undefined;
  const isRevocation = (list: RevocationList): boolean => {
    const old = before.get(list.ca);
    return old !== undefined && added(old, list).length > 0;
  };
  return changed.some(isRevocation) ? 'revoked' : 'listsDue';
}

/** When a published list has been in the mesh for long enough, milliseconds since the epoch by Vault's clock. Others date theirs long before. */
export const leadEnd = (s: DerivedState, { thisUpdate }: RevocationList): number =>
  Math.max(thisUpdate, s.caEntry?.listsSince ?? 0) + s.desired.crlLeadMs;

/** Whether the mesh does not have the list of a CA yet under which istiod is to sign. */
function awaitsList(s: DerivedState, ca: CertificateFacts, inUse: ReadonlySet<string>): boolean {
  const list = listOf(s, ca);
  const published = list && publishedLists(s).get(list.ca);
  if (!list || !published) return true;
  if (inUse.has(list.ca)) return false;
  // istiod has not taken up the list, or its ConfigMap is not written yet
  const { meshLists } = s.kubernetes;
  const inNamespace = meshLists === undefined || meshLists.lists.some((one) => one.ca === list.ca);
  return !(inNamespace && s.vault.time >= leadEnd(s, published));
}

/**
 * Whether a new intermediate waits for its list, and those of the CAs above it, before it is published: proxies must have the lists before the first
 * workload has a certificate of it. Without lists in the mesh, or with the key of a CA that has one, there is nothing to wait for.
 * @param known CAs that can be above it, besides those that are known anyway
 */
export function awaitsLists(
  s: DerivedState,
  intermediate: CertificateFacts,
  known: readonly CertificateFacts[] = [],
): boolean {
  if (!s.spec.delivery.crl || s.currentCa?.lists === undefined || isOver(s)) return false;
  const current = [...(s.rootRoles.trusted ?? []), s.currentCa.certificate, ...bundleFacts(s.currentCa.chain)];
  const inUse = new Set(current.flatMap((one) => listOf(s, one)?.ca ?? []));
  const chain = unexpired(s, chainOf(s, intermediate, [...known, ...s.knownCas]));
  return chain.some((ca) => awaitsList(s, ca, inUse));
}

/** When the first of the published lists ends, milliseconds since the epoch; Infinity: none is published, or none ends. */
export const firstEnd = (s: DerivedState): number =>
  Math.min(Infinity, ...[...publishedLists(s).values()].map(({ nextUpdate }) => nextUpdate));

/** Serial numbers of intermediates that the root mount has revoked and that no list of Vault has. */
export const unlisted = derivedOnce((s: DerivedState): string[] => {
  const present = listedCas(s).flatMap((certificate) => presentList(s, certificate) ?? []);
  const all = [...Object.values(s.vault.lists), ...present];
  const listed = new Set(all.flatMap(({ revoked }) => Object.keys(revoked)));
  return s.vault.revokedIntermediates.filter((serial) => !listed.has(serial));
});

/** The PKI mounts with what is known of their lists. */
const listMounts = (s: DerivedState) =>
  (['root', 'intermediate'] as const).map((tier) => ({
    tier,
    mount: s.spec[tier].mount,
    settings: s.vault.listSettings[tier],
    lists: s
      .ownIssuers(tier)
      .filter(
        ({ keyId, certificate }) =>
          keyId !== '' && listedCas(s).some(({ fingerprint }) => fingerprint === certificate.fingerprint),
      )
      .flatMap(({ certificate }) => s.vault.lists[certificate.fingerprint] ?? []),
  }));

/** How a mount that this resource made signs its lists: they live for 30 days or longer, and Vault renews them when half of that is over. */
const desiredSettings = ({ lifeMs }: ListSettings): ListSettings => {
  const life = Math.max(lifeMs, shortestLifeMs);
  return { lifeMs: life, disabled: false, autoRebuild: true, graceMs: Math.round(life / 2000) * 1000 };
};

/** Steps that configure the lists of PKI mounts that this resource made. Others can rely on the lists of adopted mounts, which stay as they are. */
export function listSettingsSteps(s: DerivedState): Step[] {
  if (!s.spec.delivery.crl) return [];
  return listMounts(s).flatMap(({ tier, mount, settings }): Step[] => {
    if (!settings || !created(s, ownables(s)[`${tier}Mount`])) return [];
    const desired = desiredSettings(settings);
    return isDeepStrictEqual(settings, desired) ? [] : [{ kind: 'ConfigureCRL', mount, settings: desired }];
  });
}

/**
 * Steps that have Vault sign new lists: if half of the time of one is over; if one was signed for a shorter time than the settings say; if one lacks
 * an intermediate that Vault has revoked, which `auto_rebuild` delays; and if one is published for the first time, because its age shows how long the
 * mesh has had it.
 */
export function rotateLists(s: DerivedState): Step[] {
  // while a CA is imported, this resource has no right in PKI mounts that were made before, which renew their lists themselves
  if (!s.spec.delivery.crl || s.imports || firstListsWait(s)) return [];
  const incomplete = unlisted(s).length > 0;
  return listMounts(s).flatMap(({ tier, mount, settings, lists }): Step[] => {
    const life = created(s, ownables(s)[`${tier}Mount`]) ? (settings?.lifeMs ?? 0) : 0;
    const isStale = (list: RevocationList): boolean => {
      const ageMs = s.vault.time - list.thisUpdate;
      const isShort = list.nextUpdate - list.thisUpdate < life - resolutionMs;
      const isFirst = s.currentCa?.lists !== undefined && !publishedLists(s).has(list.ca);
      return (
        isDue(s, list) ||
        (ageMs > skewMs && (isShort || (incomplete && tier === 'root'))) ||
        (ageMs > firstAgeMs && isFirst)
      );
    };
    const again = lists.some(isStale);
    return again ? [{ kind: 'RotateCRL', mount }] : [];
  });
}

/**
 * When the last workload certificate of the intermediates before the current one has run out, milliseconds since the epoch: every replica has then
 * served the current one for the longest lifetime of a workload certificate. Infinity: not known. Until then the lists of those are needed.
 */
export function olderRunOutAt(s: DerivedState): number {
  const longest = maxWorkloadCertTtlMs(s.spec, s.kubernetes.maxWorkloadCertTtlMs);
  const servedAt = s.stateEntry?.intermediate?.servedAt;
  return longest === 'unknown' || servedAt === undefined ? Infinity : Date.parse(servedAt) + longest;
}

/** When the current intermediate was first seen at every replica, RFC 3339, if that is to be recorded now; undefined: it is recorded, or not so. */
export function servedSince(s: DerivedState): string | undefined {
  const recorded = s.stateEntry?.intermediate;
  if (!s.spec.delivery.crl || recorded?.servedAt !== undefined) return undefined;
  if (recorded?.fingerprint !== s.currentCa?.certificate.fingerprint) return undefined;
  return servedEverywhere(s).passed ? rfc3339(s.now) : undefined;
}

/** Times at which the lists are to be looked at again, milliseconds since the epoch, by the operator's clock. */
export function listsDueAt(s: DerivedState): number[] {
  if (!s.spec.delivery.crl) return [];
  const published = [...publishedLists(s).values()];
  const byVault = [
    ...published.flatMap((list) => [atPart(list, 1 / 2), leadEnd(s, list)]),
    ...[...listedCas(s), ...comingCas(s)]
      .flatMap((one) => presentList(s, one) ?? [])
      .flatMap(({ thisUpdate }) => [thisUpdate + agedMs, thisUpdate + longestHoldMs]),
  ];
  const first = firstListsWait(s) ? [firstListsAt(s)] : [];
  // a staged intermediate whose list is old enough waits for istiod to publish it
  const lastEnd = Math.max(...published.map((list) => leadEnd(s, list)));
  const isAwaited = s.stagingEntry && s.vault.time >= lastEnd && s.vault.time < lastEnd + publicationsMs;
  const publication = isAwaited ? [s.now + publicationMs] : [];
  return [olderRunOutAt(s), ...first, ...publication, ...byVault.map((at) => s.now + at - s.vault.time)];
}
