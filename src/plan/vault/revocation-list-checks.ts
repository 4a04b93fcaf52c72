/** What is said of revocation lists (`delivery.crl`) that are missing, not taken up by istiod, or about to end. See docs/adr/0011. Pure. */
import { annotations } from '../../api/annotations.ts';
import { rfc3339 } from '../../api/time.ts';
import { bundleFacts, type CertificateFacts } from '../facts/certificate.ts';
import type { DerivedState } from '../facts/derived.ts';
import type { Problem } from '../facts/problem.ts';
import { caOf, type RevocationList } from '../facts/revocation-list.ts';
import { listRemedy, ownMountOf, presentList, whyNone } from './list-sources.ts';
import {
  atPart,
  comingCas,
  firstListsAt,
  firstListsWait,
  heldBack,
  leadEnd,
  listedCas,
  missingIn,
  neededLists,
  publishedLists,
  stagedChain,
  unlisted,
} from './revocation-lists.ts';

const day = 24 * 3_600_000;

/** How many serial numbers a message lists, and how many CAs, of which it says more. */
const mostNamed = 5;
const mostCas = 3;

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
    return list && !taken.has(list.ca) && s.vault.time >= leadEnd(s, list);
  });
}

const namesOf = (cas: readonly CertificateFacts[]): string =>
  cas
    .slice(0, mostCas)
    .map(({ serial, subject }) => `${subject.commonName} (${serial})`)
    .join(', ');

/** Who has to do what about CAs without a list, and behind it why what is there does not count, as sentences for the end of a message. */
function remediesFor(s: DerivedState, cas: readonly CertificateFacts[]): string {
  const named = cas.slice(0, mostCas);
  const remedies = new Set(named.map((ca) => listRemedy(s, ca)));
  const reasons = named.flatMap((ca) => {
    const why = whyNone(s, ca);
    return why === undefined ? [] : [`${ca.subject.commonName}: ${why}`];
  });
  return [...remedies, ...reasons].join('. ');
}

/** The CAs above the intermediate in use, by serial number. */
const serialsAbove = (s: DerivedState): Set<string> =>
  new Set(bundleFacts(s.currentCa?.chain ?? '').slice(1).map(({ serial }) => serial)); // prettier-ignore

/** A revocation that is held back, because istiod signs with what was revoked, or under it. */
function revocationHeldBack(s: DerivedState): Problem | undefined {
  const present = listedCas(s).flatMap((certificate) => presentList(s, certificate) ?? []);
  const held = present.flatMap((list) => heldBack(s, list));
  const [first] = held.filter((serial) => serialsAbove(s).has(serial));
  if (first !== undefined)
    return problem(
      'CRLMissing',
      `${first}, a CA above the intermediate with which istiod signs, was revoked. Its revocation is published an hour after it at the latest, and sidecars then refuse every workload. Have another CA sign before: set spec.root.existing.issuerRef, or hand in a certificate or a CA from elsewhere, as docs/compromise.md says`,
    );
  if (held.length === 0) return undefined;
  const by = s.signsOutside ? 'a revocation list' : `mount ${s.spec.root.mount}`;
  return problem(
    'CRLMissing',
    `${by} has revoked ${held.slice(0, mostNamed).join(', ')}, with which istiod still signs. A new intermediate is ${s.signsOutside ? 'needed' : 'issued'} first; the list is published when every replica serves it, and an hour after the revocation at the latest. Workloads with a certificate of the revoked intermediate are refused from then on: restart them when istiod serves the new one (docs/compromise.md)`,
  );
}

/** The root is shared with the IstioVaultCA that owns its mount, which is refused revocation lists for the same reason (`sharedRefused`). */
export function crlUnderSharedRoot({ spec, sharedRoots }: DerivedState): Problem | undefined {
  if (!spec.delivery.crl || !sharedRoots) return undefined;
  return {
    condition: 'RootReady',
    reason: 'InvalidSpec',
    message: `spec.delivery.crl: true does not go with a root that is shared: mount ${spec.root.mount} is that of another IstioVaultCA. A proxy with revocation lists needs one of every CA that it meets, and has none of the intermediates of other resources under this root, so it would refuse their workloads. Set spec.delivery.crl to false.`,
    blocks: 'all',
  };
}

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
  const held = revocationHeldBack(s);
  if (held) return held;
  const { missing } = neededLists(s);
  if (missing.length > 0)
    return problem(
      'CRLMissing',
      `there is no revocation list of ${namesOf(missing)} that this CA signed and that is at most 128 KiB long. Nothing new is published until there is: with lists of some CAs only, a sidecar refuses every connection. ${remediesFor(s, missing)}`,
    );
  const next = missingIn(s, stagedChain(s));
  if (next.length > 0)
    return problem(
      'CRLMissing',
      `a new intermediate waits for the revocation list of ${namesOf(next)}, of at most 128 KiB${s.currentCa ? ', and the CA in use goes on' : ''}: sidecars would refuse every certificate under a CA without one. ${remediesFor(s, next)}`,
    );
  const absent = notTakenUp(s);
  if (absent.length > 0) {
    return problem(
      'CRLMissing',
      `the revocation list of ${namesOf(absent)} is in the CA entry, and not in ConfigMap ${s.kubernetes.meshLists?.name ?? ''}: istiod does not take it up, and a new intermediate waits for it. Look at the logs of istiod and of its agent. If istiod is to publish no lists any more (before 1.27, or PILOT_ENABLE_CA_CRL=false), set spec.delivery.crl to false and delete the ConfigMap in every namespace`,
    );
  }
  const { mount } = s.spec.root;
  if (unlisted(s).length === 0) return undefined;
  return problem(
    'CRLMissing',
    s.issuesRoot
      ? `mount ${mount} has revoked ${unlisted(s).slice(0, mostNamed).join(', ')}, but its revocation list lacks it. Look at \`vault read ${mount}/config/crl\`: disable must be false`
      : `mount ${mount} has revoked ${unlisted(s).slice(0, mostNamed).join(', ')}, but its revocation list lacks it. The owner of the mount has to have it signed again: \`vault read ${mount}/crl/rotate\`, and disable=false in ${mount}/config/crl`,
  );
}

/** The shortest time that users get to hand a new list along, milliseconds. */
const toHandAlongMs = 3 * day;

/** The CA of a published list, as far as its certificate is known. */
function certificateOf(s: DerivedState, { ca }: RevocationList): CertificateFacts | undefined {
  const given = (s.kubernetes.givenLists ?? []).flatMap(({ certificates }) => certificates);
  return [...listedCas(s), ...comingCas(s), ...given].find((one) => caOf(one) === ca);
}

/** When the end of a list is near, milliseconds since the epoch: Vault renews its own by itself, and people need time to hand one along. */
function nearEndAt(s: DerivedState, list: RevocationList): number {
  const ca = certificateOf(s, list);
  const isVaults = ca && (ownMountOf(s, ca) !== undefined || s.vault.lists[ca.fingerprint] !== undefined);
  return isVaults ? atPart(list, 3 / 4) : Math.min(atPart(list, 2 / 3), list.nextUpdate - toHandAlongMs);
}

/** A list in the CA entry, or the one that istiod publishes, is about to end. */
export function crlNearEnd(s: DerivedState): Problem | undefined {
  const needed = new Set(
    neededLists(s)
      .lists.map(({ ca }) => ca)
      .concat(listedCas(s).map(caOf)),
  );
  const inEntry = [...publishedLists(s).values()]
    .filter(({ ca }) => needed.has(ca))
    .map((list) => ({ list, where: 'the CA entry' }));
  const known = new Set(inEntry.map(({ list }) => list.ca));
  const inMesh = (s.kubernetes.meshLists?.lists ?? [])
    .filter(({ ca }) => known.has(ca))
    .map((list) => ({ list, where: `ConfigMap ${s.kubernetes.meshLists?.name ?? ''}` }));
  const ending = [...inEntry, ...inMesh].filter(({ list }) => s.vault.time >= nearEndAt(s, list));
  const [first] = ending.sort((a, b) => a.list.nextUpdate - b.list.nextUpdate);
  if (!first) return undefined;
  const end = first.list.nextUpdate;
  const when = end <= s.vault.time ? `ended on ${rfc3339(end)}` : `ends on ${rfc3339(end)}`;
  const remedy =
    first.where === 'the CA entry'
      ? `${remedyForEnding(s, first.list)}; then annotate this resource with ${annotations.reconcileRequestedAt}`
      : 'the CA entry has a newer one: look at the log of istiod and of its agent, and that istiod is 1.27 or later without PILOT_ENABLE_CA_CRL=false';
  const ca = certificateOf(s, first.list);
  return problem(
    'CRLNearEnd',
    `a revocation list in ${first.where} ${when}${ca ? ` (that of ${namesOf([ca])})` : ''}: from then on sidecars refuse every connection. ${remedy}`,
  );
}

/** Who has to do what, so that a published list is replaced before it ends. */
function remedyForEnding(s: DerivedState, list: RevocationList): string {
  const ca = certificateOf(s, list);
  const { root, intermediate } = s.spec;
  if (ca && ownMountOf(s, ca) === undefined) return listRemedy(s, ca);
  if (ca || s.issuesRoot)
    return `Vault has to sign a new one: \`vault read ${root.mount}/crl/rotate\`, \`vault read ${intermediate.mount}/crl/rotate\``;
  return `It is that of a CA before the current one: ${olderRemedy(s)}`;
}

/** A list of a CA whose certificate is not known any more is taken with that certificate. */
const olderRemedy = (s: DerivedState): string => {
  const place = s.kubernetes.givenLists?.[0]?.place;
  return `put a new list of it into ${place ?? 'key ca-crl.pem of the object that it came with'}, and its certificate behind the others of that object`;
};
