/**
 * The revocation lists in the CA entry (`delivery.crl`): which lists proxies need, which list of a CA is published, when Vault is asked for new ones,
 * and what is said when one is missing or about to end. See docs/adr/0011. Pure.
 */
import { isDeepStrictEqual } from 'node:util';
import { annotations } from '../../api/annotations.ts';
import { rfc3339 } from '../../api/time.ts';
import type { CertificateFacts } from '../facts/certificate.ts';
import { derivedOnce, type DerivedState } from '../facts/derived.ts';
import { maxWorkloadCertTtlMs } from '../facts/desired.ts';
import { fieldsAppliedFlag, type ListSettings } from '../facts/observed.ts';
import type { Problem } from '../facts/problem.ts';
import { caOf, type RevocationList } from '../facts/revocation-list.ts';
import { created, ownables } from '../ownership/ownership.ts';
import { servedEverywhere } from '../rotation/gates.ts';
import type { RepeatReason, Step } from '../steps.ts';

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
const atPart = ({ thisUpdate, nextUpdate }: RevocationList, part: number): number =>
  nextUpdate === Infinity ? Infinity : thisUpdate + (nextUpdate - thisUpdate) * part;

/** Whether half of the time of a list is over, by Vault's clock, which dated the list. */
const isDue = (s: DerivedState, list: RevocationList): boolean => s.vault.time >= atPart(list, 1 / 2);

/**
 * The CAs whose lists proxies need: every trusted root, and every intermediate of this resource that workload certificates can be
 * from. Envoy refuses a certificate if it has a list of one CA above it but not of another.
 */
const listedCas = derivedOnce((s: DerivedState): CertificateFacts[] => {
  const current = s.currentCa ? [s.currentCa.certificate] : [];
  const intermediates = s.ownIntermediates.map(({ certificate }) => certificate);
  const all = [...(s.rootRoles.trusted ?? []), ...current, ...intermediates].filter(({ notAfter }) => notAfter > s.now);
  return [...new Map(all.map((certificate) => [certificate.fingerprint, certificate])).values()];
});

/** The published lists, by CA. */
const publishedLists = derivedOnce(
  (s: DerivedState) => new Map((s.caEntry?.lists ?? []).map((list) => [list.ca, list] as const)),
);

/**
 * Serial numbers of intermediates with which istiod may still sign: the current one if it is revoked, and those before it until every replica was seen
 * with the current one. If they were refused at once, no workload could get a certificate that is not.
 */
const inUse = derivedOnce((s: DerivedState): ReadonlySet<string> => {
  const isReplaced = s.stateEntry?.intermediate?.servedAt !== undefined && !s.isRevoked;
  const used = isReplaced
    ? []
    : [s.currentCa?.certificate, ...s.ownIntermediates.map(({ certificate }) => certificate)];
  return new Set(used.flatMap((certificate) => certificate?.serial ?? []));
});

/** How long the publication of a revocation is held back at most while the intermediate is replaced, milliseconds. */
const longestHoldMs = 3_600_000;

/** Serial numbers on a list that an earlier list of the same CA does not have. */
const added = (before: RevocationList, after: RevocationList): string[] =>
  Object.keys(after.revoked).filter((serial) => !Object.hasOwn(before.revoked, serial));

/** Serial numbers that Vault has put on a list and that are not published yet, because the intermediate is being replaced. */
const heldBack = (s: DerivedState, ofVault: RevocationList): string[] => {
  const published = publishedLists(s).get(ofVault.ca);
  if (!published) return [];
  return added(published, ofVault).filter(
    (serial) => inUse(s).has(serial) && s.vault.time < (ofVault.revoked[serial] ?? 0) + longestHoldMs,
  );
};

/** Which list of a CA is to be published: the published one stays until Vault's has something new, or half of its time is over. */
function chosen(s: DerivedState, ofVault: RevocationList): RevocationList {
  const published = publishedLists(s).get(ofVault.ca);
  if (!published) return ofVault;
  // a standby, or a Vault restored from a backup
  if (ofVault.thisUpdate <= published.thisUpdate) return published;
  if (heldBack(s, ofVault).length > 0) return published;
  if (added(published, ofVault).length > 0) return ofVault;
  const isAged = s.vault.time >= ofVault.thisUpdate + agedMs;
  return isDue(s, published) && isAged ? ofVault : published;
}

/** What Vault has no list of keeps the published one as long as that has not ended: a root or a mount can be lost. */
function listOf(s: DerivedState, certificate: CertificateFacts): RevocationList | undefined {
  const ofVault = s.vault.lists[certificate.fingerprint];
  if (ofVault) return chosen(s, ofVault);
  const published = publishedLists(s).get(caOf(certificate));
  return published && published.nextUpdate > s.vault.time ? published : undefined;
}

/**
 * The lists to publish, one for each CA, and the CAs of which there is none. Until workload certificates of older intermediates have run out, published
 * lists stay of which nobody knows the CA any more.
 */
const neededLists = derivedOnce((s: DerivedState): { lists: RevocationList[]; missing: CertificateFacts[] } => {
  const found = listedCas(s).map((certificate) => listOf(s, certificate));
  const published = [...publishedLists(s).values()].filter(({ nextUpdate }) => nextUpdate > s.vault.time);
  const older = s.now < olderRunOutAt(s) ? published : [];
  const byCa = new Map<string, RevocationList>();
  for (const list of [...found, ...older]) if (list && !byCa.has(list.ca)) byCa.set(list.ca, list);
  return { lists: [...byCa.values()], missing: listedCas(s).filter((_, at) => found[at] === undefined) };
});

/** How long a replica of istiod is taken to go on with an older intermediate at most, if nobody saw when it stopped, milliseconds. */
const longestLagMs = 30 * day;

/** Whether istiod has had the fields of this resource at any time, so that workloads can have certificates of this CA. */
const hasIssued = ({ stateEntry, kubernetes: { controlPlane } }: DerivedState): boolean =>
  stateEntry?.made.includes(fieldsAppliedFlag) === true || controlPlane?.carriesFields === true;

/**
 * When the first lists may be published, milliseconds since the epoch: as soon as there is no workload certificate of an intermediate that is gone
 * already, for its list cannot be made any more. Infinity: the time is not known.
 */
function firstListsAt(s: DerivedState): number {
  const state = s.stateEntry;
  const current = s.currentCa?.certificate;
  const issued = state?.history.filter(({ kind }) => kind === 'Intermediate') ?? [];
  const inMount = new Set(s.ownIntermediates.map(({ certificate }) => certificate.fingerprint));
  const adopted = state?.adopted.includes(`entry:${s.spec.keyStore.path}`) === true;
  const isGone = adopted || issued.some(({ fingerprint }) => !inMount.has(fingerprint));
  if (!current || !isGone || !(adopted || hasIssued(s))) return 0;
  const since = issued.find(({ fingerprint }) => fingerprint === current.fingerprint)?.time;
  const longest = maxWorkloadCertTtlMs(s.spec, s.kubernetes.maxWorkloadCertTtlMs);
  const assumed = since === undefined || longest === 'unknown' ? Infinity : Date.parse(since) + longestLagMs + longest;
  return Math.min(olderRunOutAt(s), assumed);
}

/** Whether the first lists have to wait for workload certificates to run out. */
const firstListsWait = (s: DerivedState): boolean =>
  s.currentCa !== undefined && s.currentCa.lists === undefined && s.now < firstListsAt(s);

/**
 * The lists that go into the CA entry, PEM, for any publication: none without `delivery.crl`, and none before the first lists may be published.
 * undefined: one is missing, so that nothing may be published.
 */
export function listsToPublish(s: DerivedState): string[] | undefined {
  if (!s.spec.delivery.crl || firstListsWait(s)) return [];
  const { lists, missing } = neededLists(s);
  return missing.length > 0 ? undefined : lists.map(({ pem }) => pem);
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

/**
 * Whether a new intermediate waits for its list before it is published: proxies must have the list before the first workload has a certificate of it.
 * Without lists in the mesh, or with the key of a CA that has one, there is nothing to wait for.
 */
export function awaitsLists(s: DerivedState, intermediate: CertificateFacts): boolean {
  const ofVault = s.vault.lists[intermediate.fingerprint];
  if (!s.spec.delivery.crl || s.currentCa?.lists === undefined || isOver(s) || !ofVault) return false;
  const published = publishedLists(s).get(ofVault.ca);
  if (!published) return true;
  // istiod has not taken up the list, or its ConfigMap is not written yet
  const { meshLists } = s.kubernetes;
  const inNamespace = meshLists === undefined || meshLists.lists.some(({ ca }) => ca === ofVault.ca);
  const sharesList = s.vault.lists[s.currentCa.certificate.fingerprint]?.ca === ofVault.ca;
  return !sharesList && !(inNamespace && s.vault.time >= published.thisUpdate + s.desired.crlLeadMs);
}

/** When the first of the published lists ends, milliseconds since the epoch; Infinity: none is published, or none ends. */
export const firstEnd = (s: DerivedState): number =>
  Math.min(Infinity, ...[...publishedLists(s).values()].map(({ nextUpdate }) => nextUpdate));

/** Serial numbers of intermediates that the root mount has revoked and that no list of Vault has. */
const unlisted = derivedOnce((s: DerivedState): string[] => {
  const listed = new Set(Object.values(s.vault.lists).flatMap(({ revoked }) => Object.keys(revoked)));
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
      .filter(({ certificate }) => listedCas(s).some(({ fingerprint }) => fingerprint === certificate.fingerprint))
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
  if (!s.spec.delivery.crl || firstListsWait(s)) return [];
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
    ...published.flatMap((list) => [atPart(list, 1 / 2), list.thisUpdate + s.desired.crlLeadMs]),
    ...Object.values(s.vault.lists).flatMap(({ thisUpdate }) => [thisUpdate + agedMs, thisUpdate + longestHoldMs]),
  ];
  const first = firstListsWait(s) ? [firstListsAt(s)] : [];
  // a staged intermediate whose list is old enough waits for istiod to publish it
  const leadEnd = Math.max(...published.map(({ thisUpdate }) => thisUpdate + s.desired.crlLeadMs));
  const isAwaited = s.stagingEntry && s.vault.time >= leadEnd && s.vault.time < leadEnd + publicationsMs;
  const publication = isAwaited ? [s.now + publicationMs] : [];
  return [olderRunOutAt(s), ...first, ...publication, ...byVault.map((at) => s.now + at - s.vault.time)];
}

/** How many CAs or serial numbers a message lists. */
const mostNamed = 5;

const problem = (reason: Problem['reason'], message: string): Problem => ({
  condition: 'IntermediateReady',
  reason,
  message,
  blocks: 'nothing',
});

/** CAs whose published list istiod should have put into its ConfigMap by now, and has not; empty if there is no such ConfigMap. */
function notTakenUp(s: DerivedState): CertificateFacts[] {
  const { meshLists } = s.kubernetes;
  if (!meshLists) return [];
  const taken = new Set(meshLists.lists.map(({ ca }) => ca));
  return listedCas(s).filter((certificate) => {
    const list = publishedLists(s).get(caOf(certificate));
    return list && !taken.has(list.ca) && s.vault.time >= list.thisUpdate + s.desired.crlLeadMs;
  });
}

const namesOf = (cas: readonly CertificateFacts[]): string =>
  cas
    .slice(0, mostNamed)
    .map(({ serial, subject }) => `${subject.commonName} (${serial})`)
    .join(', ');

/** A list that proxies need is missing, or lacks a revoked intermediate. */
export function crlMissing(s: DerivedState): Problem | undefined {
  if (!s.spec.delivery.crl) return undefined;
  if (firstListsWait(s)) {
    const at = firstListsAt(s);
    const until =
      at === Infinity ? 'a time that is known when every replica of istiod was seen with the current one' : rfc3339(at);
    return problem(
      'CRLMissing',
      `workloads can still have certificates of an earlier intermediate, which is gone, so that Vault cannot sign its revocation list: sidecars would refuse them. The lists are published when those certificates have run out, on ${until}; until then ca-crl.pem stays empty. A shorter spec.intermediate.maxWorkloadCertTTL, if it is true, ends the wait`,
    );
  }
  const { missing } = neededLists(s);
  if (missing.length > 0) {
    return problem(
      'CRLMissing',
      `Vault has no revocation list of ${namesOf(missing)} that this CA signed and that is at most 128 KiB long. Nothing new is published until it has: with lists of some CAs only, a sidecar refuses every connection. Look at the usage of the issuer, which needs crl-signing, then \`vault read <mount>/crl/rotate\``,
    );
  }
  const absent = notTakenUp(s);
  if (absent.length > 0) {
    return problem(
      'CRLMissing',
      `the revocation list of ${namesOf(absent)} is in the CA entry, and not in ConfigMap ${s.kubernetes.meshLists?.name ?? ''}: istiod does not take it up, and a new intermediate waits for it. Look at the logs of istiod and of its agent. If istiod is to publish no lists any more (before 1.27, or PILOT_ENABLE_CA_CRL=false), set spec.delivery.crl to false and delete the ConfigMap in every namespace`,
    );
  }
  const { mount } = s.spec.root;
  const held = Object.values(s.vault.lists).flatMap((list) => heldBack(s, list));
  if (held.length > 0) {
    return problem(
      'CRLMissing',
      `mount ${mount} has revoked ${held.slice(0, mostNamed).join(', ')}, with which istiod still signs. A new intermediate is issued first; the list is published when every replica serves it, and an hour after the revocation at the latest. Workloads with a certificate of the revoked intermediate are refused from then on: restart them when istiod serves the new one (docs/compromise.md)`,
    );
  }
  if (unlisted(s).length === 0) return undefined;
  return problem(
    'CRLMissing',
    `mount ${mount} has revoked ${unlisted(s).slice(0, mostNamed).join(', ')}, but its revocation list lacks it. Look at \`vault read ${mount}/config/crl\`: disable must be false`,
  );
}

/** A list in the CA entry, or the one that istiod publishes, is about to end. */
export function crlNearEnd(s: DerivedState): Problem | undefined {
  const needed = new Set(listedCas(s).map(caOf));
  const inEntry = [...publishedLists(s).values()]
    .filter(({ ca }) => needed.has(ca))
    .map((list) => ({ list, where: 'the CA entry' }));
  const known = new Set(inEntry.map(({ list }) => list.ca));
  const inMesh = (s.kubernetes.meshLists?.lists ?? [])
    .filter(({ ca }) => known.has(ca))
    .map((list) => ({ list, where: `ConfigMap ${s.kubernetes.meshLists?.name ?? ''}` }));
  const ending = [...inEntry, ...inMesh].filter(({ list }) => s.vault.time >= atPart(list, 3 / 4));
  const [first] = ending.sort((a, b) => a.list.nextUpdate - b.list.nextUpdate);
  if (!first) return undefined;
  const end = first.list.nextUpdate;
  const when = end <= s.vault.time ? `ended on ${rfc3339(end)}` : `ends on ${rfc3339(end)}`;
  const remedy =
    first.where === 'the CA entry'
      ? `Vault has to sign a new one: \`vault read ${s.spec.root.mount}/crl/rotate\`, \`vault read ${s.spec.intermediate.mount}/crl/rotate\`; then annotate this resource with ${annotations.reconcileRequestedAt}`
      : 'the CA entry has a newer one: look at the log of istiod and of its agent, and that istiod is 1.27 or later without PILOT_ENABLE_CA_CRL=false';
  return problem(
    'CRLNearEnd',
    `a revocation list in ${first.where} ${when}: from then on sidecars refuse every connection. ${remedy}`,
  );
}
