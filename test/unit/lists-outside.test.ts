/**
 * Revocation lists of CAs outside of this resource: signed in a mount of others, or handed along by a user beside certificates. Lists here do not exist;
 * src/plan/facts/revocation-list.test.ts and test/e2e/revocation-outside.test.ts have real ones.
 */
import { describe, expect, it } from '@jest/globals';
import { annotations } from '../../src/api/annotations.ts';
import { bundleFacts, plannedCertificate, type CertificateFacts } from '../../src/plan/facts/certificate.ts';
import type { Desired } from '../../src/plan/facts/desired.ts';
import { ownEntry, type GivenLists, type Observed } from '../../src/plan/facts/observed.ts';
import { plannedList, type RevocationList } from '../../src/plan/facts/revocation-list.ts';
import type { RotationPhase } from '../../src/plan/facts/state-entry.ts';
import { plan } from '../../src/plan/plan.ts';
import type { Step } from '../../src/plan/steps.ts';
import { crlMissing, crlNearEnd } from '../../src/plan/vault/revocation-list-checks.ts';
import { outsideNote } from '../../src/plan/vault/outside-root-checks.ts';
import { converge, derived, desiredOf, emptyWorld, someCa, start } from './model.ts';
import { follow, live, phase, rootsOf, state } from './rotating-world.ts';

const minute = 60_000;
const hour = 60 * minute;
const day = 24 * hour;

const rootA = someCa('root A', undefined);
const rootB = someCa('root B', undefined);
const tierA = someCa('issuing CA of A', rootA, 3000);
const tierB = someCa('issuing CA of B', rootB, 3000);
const ca = someCa('imported CA', tierA);
const caB = someCa('next imported CA', tierB);

const crl = { delivery: { crl: true } };
const maxWorkloadCertTTL = '24h';
const importing = { source: 'Import', importRef: { secretRef: { name: 'cacerts' } }, maxWorkloadCertTTL };
const imports = (texts: Record<string, string> = {}, over: object = {}): Desired =>
  desiredOf({ ...crl, intermediate: importing, ...over }, texts);
const place = 'Secret istio-system/cacerts, key ca-crl.pem';

/** A list of a CA, signed now for a time. */
const listOf = (of: CertificateFacts, now = start, life = 30 * day): RevocationList => plannedList(of, now, life);
const revoking = (list: RevocationList, serial: string, when = list.thisUpdate): RevocationList =>
  ({ ...list, pem: `${list.pem}revoked ${serial}\n`, revoked: { [serial]: when } }); // prettier-ignore

/** The world with these lists beside what users hand in. */
const handed = (world: Observed, lists: RevocationList[], certificates: CertificateFacts[] = []): Observed => {
  const given: GivenLists = { place, lists, certificates };
  return { ...world, kubernetes: { ...world.kubernetes, givenLists: [given] } };
};
/** The world with a CA in the Secret. */
const given = (world: Observed, ...certificates: CertificateFacts[]): Observed => {
  const one = { place: 'Secret istio-system/cacerts', secret: 'cacerts', publicKey: certificates[0]?.publicKey, certificates }; // prettier-ignore
  return { ...world, kubernetes: { ...world.kubernetes, given: one } };
};

const listed = (world: Observed): string[] => (live(world).lists ?? []).map((list) => list.ca).sort();
const prints = (...cas: CertificateFacts[]): string[] => cas.map(({ fingerprint }) => fingerprint).sort();
const published = (steps: Step[]) =>
  steps.flatMap((step) => (step.kind === 'PublishLive' ? (step.same ?? step.from) : []));
const at = (now: number, world: Observed, desired: Desired) => {
  world.vault.time = now;
  return converge(desired, world, { now });
};
const missing = (desired: Desired, world: Observed, now = world.vault.time): string =>
  crlMissing(derived(desired, world, now))?.message ?? '';
const nearEnd = (desired: Desired, world: Observed, now: number): string => {
  world.vault.time = now;
  return crlNearEnd(derived(desired, world, now))?.message ?? '';
};

/** Every replica takes over the current CA, which is recorded. */
const seen = (world: Observed, desired: Desired): Observed =>
  at(world.vault.time, follow(world, desired), desired).world;

/** Every CA of the published chain and every published root has a list, or none has: istiod and proxies refuse everything else. */
function expectComplete(world: Observed): void {
  if (live(world).lists === undefined) return;
  const all = [...bundleFacts(live(world).chain), ...bundleFacts(live(world).root)];
  expect(listed(world)).toEqual(expect.arrayContaining(prints(...all)));
}

const allLists = [rootA, tierA, ca].map((one) => listOf(one));
/** A mesh that runs with an imported CA and its lists. */
const running = (desired = imports()): Observed =>
  seen(at(start, handed(given(emptyWorld(), ca, tierA, rootA), allLists), desired).world, desired);

describe('a CA that is imported', () => {
  const d = imports();

  it('is published with the lists of every CA, without any PKI mount', () => {
    const { world, done } = at(start, handed(given(emptyWorld(), ca, tierA, rootA), allLists), d);
    expect(listed(world)).toEqual(prints(rootA, tierA, ca));
    expect(done.some(({ kind }) => /CRL|MountPKI/.test(kind))).toBe(false);
    expect(plan(d, seen(world, d), start)).toEqual({ steps: [], problems: [] });
  });

  it.each<[string, RevocationList[], RegExp]>([
    ['none', [], /no revocation list of imported CA .*issuing CA of A.*root A/s],
    ['one of a tier', [listOf(rootA), listOf(ca)], /waits for the revocation list of issuing CA of A \(/],
    ['one that has not ended', [listOf(rootA), listOf(ca), listOf(tierA, start - 2 * day, day)], /issuing CA of A: its list in Secret .* has ended on 2029-12-31/], // prettier-ignore
    ['one from now', [listOf(rootA), listOf(ca), listOf(tierA, start + hour)], /is not valid before 2030-01-01T01:00:00Z/], // prettier-ignore
    ['one that proxies take', [listOf(rootA), listOf(ca), { ...listOf(tierA), unfit: 'is of version 1' }], /its list in Secret .*, key ca-crl.pem is of version 1/], // prettier-ignore
  ])('without %s waits, says where it belongs, and goes on by itself', (name, lists, why) => {
    const { world, last } = at(start, handed(given(emptyWorld(), ca, tierA, rootA), lists), d);
    expect(ownEntry(world.vault.live)).toBeUndefined();
    const [found] = last.problems.filter(({ reason }) => reason === 'CRLMissing');
    if (name === 'none') expect(found?.message).toContain(place);
    else expect(found?.message).toMatch(why);
    expect(found).toMatchObject({ condition: 'IntermediateReady', blocks: 'nothing' });
    expect(found?.message).toContain(`Put it, PEM, into ${place}`);
    expect(listed(at(start, handed(world, allLists), d).world)).toEqual(prints(rootA, tierA, ca));
  });

  it('in a mesh without lists goes on without, until all are there', () => {
    const without = desiredOf({ intermediate: importing });
    const before = follow(at(start, given(emptyWorld(), ca, tierA, rootA), without).world, without);
    const waiting = at(start + hour, handed(before, [listOf(rootA), listOf(ca)]), d);
    expect([published(waiting.done), live(waiting.world).lists]).toEqual([[], undefined]);
    const { done, world } = at(start + hour, handed(waiting.world, allLists), d);
    expect([published(done), listed(world)]).toEqual([['lists'], prints(rootA, tierA, ca)]);
  });

  it('a list that is older than the published one, or of another CA, changes nothing', () => {
    const world = running();
    const { lists } = live(world);
    const stranger = { ...listOf(caB), ca: tierA.fingerprint, pem: listOf(caB).pem };
    for (const other of [listOf(tierA, start - day), stranger])
      expect(at(start + hour, handed(world, [listOf(rootA), other, listOf(ca)]), d).done).toEqual([]);
    expect(live(world).lists).toEqual(lists);
  });

  it('a newer list replaces the published one when half of its time is over, and one with a revocation at once', () => {
    const world = running();
    const newer = [rootA, tierA, ca].map((one) => listOf(one, start + day));
    expect(at(start + 2 * day, handed(world, newer), d).done).toEqual([]);
    expect(published(at(start + 15 * day, handed(world, newer), d).done)).toEqual(['listsDue']);
    const leaked = [revoking(listOf(rootA, start + day), '0a:01'), listOf(tierA), listOf(ca)];
    expect(published(at(start + 2 * day, handed(world, leaked), d).done)).toEqual(['revoked']);
  });

  it('lists that are taken away stay published; before they end it is said which, where, and who must act', () => {
    const world = handed(running(), []);
    expect(at(start + 10 * day, world, d).done).toEqual([]);
    expect(nearEnd(d, world, start + 20 * day - 1)).toBe('');
    const message = nearEnd(d, world, start + 20 * day);
    expect(message).toMatch(/ends on 2030-01-31T00:00:00Z \(that of .*\): .*Whoever runs that CA has to sign one/);
    expect(message).toContain(place);
    // a list for less than three days is always near its end
    const short = handed(running(), [listOf(rootA), listOf(tierA), revoking(listOf(ca, start + hour, 2 * day), '0a')]);
    expect(nearEnd(d, at(start + 2 * hour, short, d).world, start + 2 * hour)).toContain('2030-01-03T01:00:00Z');
  });

  it('that is on the list of the CA above it is to be replaced, and its list is held back for an hour at most', () => {
    const lists = [listOf(rootA), revoking(listOf(tierA, start + hour), ca.serial), listOf(ca)];
    const held = at(start + hour, handed(running(), lists), d);
    expect(published(held.done)).toEqual([]);
    expect(outsideNote(derived(d, held.world, start + hour))).toMatchObject({ reason: 'AwaitingImport' });
    expect(missing(d, held.world)).toContain(ca.serial);
    expect(published(at(start + 2 * hour, held.world, d).done)).toEqual(['revoked']);
  });

  it('switched on with a CA that is on a list already waits for an hour after the revocation', () => {
    const without = desiredOf({ intermediate: importing });
    const before = follow(at(start, given(emptyWorld(), ca, tierA, rootA), without).world, without);
    const lists = [listOf(rootA), revoking(listOf(tierA), ca.serial), listOf(ca)];
    const held = at(start + minute, handed(before, lists), d);
    expect([published(held.done), missing(d, held.world)]).toEqual([[], expect.stringContaining(ca.serial)]);
    expect(published(at(start + hour, held.world, d).done)).toEqual(['lists']);
  });

  it('a CA above it that is on the list of the root is named, with what to do before that is published', () => {
    const lists = [revoking(listOf(rootA, start + hour), tierA.serial), listOf(tierA), listOf(ca)];
    const held = at(start + hour, handed(running(), lists), d);
    expect(published(held.done)).toEqual([]);
    expect(missing(d, held.world)).toMatch(
      new RegExp(`^${tierA.serial}, a CA above the intermediate.*Have another CA sign`),
    );
    expect(published(at(start + 2 * hour, held.world, d).done)).toEqual(['revoked']);
  });

  it('the next one waits for its lists, then until proxies have them, however old they are', () => {
    const next = someCa('imported later', tierA);
    const secret = given(running(), next, tierA, rootA);
    const waiting = at(start + hour, handed(secret, allLists), d);
    expect(missing(d, waiting.world)).toMatch(/waits for the revocation list of imported later/);
    expect(bundleFacts(live(waiting.world).chain)[0]).toEqual(ca);
    // signed long before it is handed along
    const first = at(start + 2 * hour, handed(waiting.world, [...allLists, listOf(next)]), d);
    expect([published(first.done), missing(d, first.world)]).toEqual([['lists'], '']);
    expect(at(start + 2 * hour + d.crlLeadMs - 1, first.world, d).done).toEqual([]);
    const { world } = at(start + 2 * hour + d.crlLeadMs, first.world, d);
    expect(bundleFacts(live(world).chain)[0]).toEqual(next);
    // workload certificates of the one before can still be valid
    expect(listed(world)).toEqual(prints(rootA, tierA, ca, next));
    const after = follow(at(start + 3 * hour, follow(world, d), d).world, d);
    const message = nearEnd(d, after, start + 20 * day);
    expect(message).toContain('Whoever runs that CA');
    expect(listed(at(start + 28 * hour, follow(after, d), d).world)).toEqual(prints(rootA, tierA, next));
  });

  it('switched on after another one was imported waits for certificates of the one before, unless that comes with its list', () => {
    const without = desiredOf({ intermediate: importing });
    const next = someCa('imported later', tierA);
    const first = follow(at(start, given(emptyWorld(), ca, tierA, rootA), without).world, without);
    const second = follow(at(start + hour, given(first, next, tierA, rootA), without).world, without);
    const lists = [...allLists, listOf(next)];
    const waiting = at(start + 2 * hour, handed(second, lists, [next, tierA, rootA]), d);
    expect([published(waiting.done), missing(d, waiting.world)]).toEqual([[], expect.stringContaining('have run out')]);
    const both = at(start + 2 * hour, handed(second, lists, [next, tierA, rootA, ca]), d);
    expect([published(both.done), listed(both.world)]).toEqual([['lists'], prints(rootA, tierA, ca, next)]);
  });

  it('the list of the one before is replaced by one that comes with its certificate', () => {
    const next = someCa('imported later', tierA);
    const lists = [...allLists, listOf(next)];
    const secret = handed(given(running(), next, tierA, rootA), lists);
    const { world } = at(start + 2 * hour, at(start + hour, secret, d).world, d);
    expect(bundleFacts(live(world).chain)[0]).toEqual(next);
    world.vault.time = start + 20 * day;
    const newer = listOf(ca, start + 19 * day);
    expect(nearEnd(d, handed(world, lists), start + 20 * day)).toMatch(/certificate behind the others|Whoever/);
    const renewed = at(start + 20 * day, handed(world, [...lists, newer], [ca, tierA, rootA]), d).world;
    expect(live(renewed).lists).toContainEqual(newer);
  });
});

describe('on the way from an imported CA to a root in Vault, and back,', () => {
  const issued = (texts: Record<string, string>): Desired =>
    desiredOf({ ...crl, intermediate: { importRef: importing.importRef, maxWorkloadCertTTL } }, texts);

  /** Lets time pass through all phases. @returns each settled world on the way */
  function pass(from: Observed, desired: Desired, until: RotationPhase | undefined, begin = start + hour) {
    const way: Observed[] = [];
    let world = from;
    for (let now = begin; now < begin + 20 * day; now += 2 * hour) {
      world = at(now, world, desired).world;
      way.push(world);
      expectComplete(world);
      if (phase(world) === until && (until !== undefined || way.length > 1)) return { world, now, way };
      world = follow(world, desired);
    }
    throw new Error(`never in ${until ?? 'the end'}, but in ${phase(world) ?? 'none'}`);
  }

  it('each phase has the lists of both roots and of all CAs, and the end those of the new ones', () => {
    const desired = issued({ [annotations.rotateRoot]: 'now' });
    const { world, way } = pass(running(), desired, undefined);
    const ofPhase = (one: RotationPhase) => way.filter((step) => phase(step) === one);
    for (const one of ['Distributing', 'Switching'] as const) {
      const [, last] = ofPhase(one) as [Observed, Observed];
      expect(rootsOf(last)).toHaveLength(2);
      expect(listed(last)).toEqual(expect.arrayContaining(prints(rootA, tierA, ca)));
      expect(listed(last)).toEqual(expect.arrayContaining(rootsOf(last)));
    }
    expect(listed(world)).toEqual(expect.arrayContaining(rootsOf(world)));
    const end = at(start + 19 * day, follow(world, desired), desired).world;
    expect(listed(end)).toEqual([rootsOf(end)[0]!, live(end).certificate!.fingerprint].sort());
  });

  it.each(['Distributing', 'Switching'] as const)('a rollback from %s keeps every list that workloads need', (from) => {
    const desired = issued({ [annotations.rotateRoot]: 'now' });
    const { world, now } = pass(running(), desired, from);
    const texts = { ...desired.annotations, [annotations.rollbackRotation]: 'back' };
    const back = from === 'Switching' ? imports(texts) : issued(texts);
    const again = from === 'Switching' ? given(world, ca, tierA, rootA) : world;
    const { world: end } = pass(follow(again, back), back, undefined, now);
    expect(rootsOf(end)).toEqual([rootA.fingerprint]);
    expect(bundleFacts(live(end).chain)[0]).toEqual(ca);
  });

  it('the end of a list of the CA that goes is said with the Secret that came with it', () => {
    const desired = issued({ [annotations.rotateRoot]: 'now' });
    const { world } = pass(running(), desired, 'Distributing');
    expect(nearEnd(desired, world, start + 21 * day)).toContain(place);
    const without = desiredOf({ ...crl, intermediate: { maxWorkloadCertTTL } }, desired.annotations);
    const kubernetes = { ...world.kubernetes };
    delete kubernetes.givenLists;
    expect(nearEnd(without, { ...world, kubernetes }, start + 21 * day)).toContain(
      'named in spec.intermediate.importRef',
    );
  });

  it('from a root in Vault to an imported CA, no phase lacks a list either', () => {
    const before = issued({});
    const made = seen(at(start, emptyWorld(), before).world, before);
    const [old] = rootsOf(made);
    const desired = imports({ [annotations.rotateRoot]: rootA.fingerprint });
    const { world, way } = pass(follow(handed(given(made, ca, tierA, rootA), allLists), desired), desired, undefined);
    expect([rootsOf(world), listed(world)]).toEqual([[rootA.fingerprint], expect.arrayContaining(prints(rootA, tierA, ca))]); // prettier-ignore
    expect(listed(way.find((one) => phase(one) === 'Switching')!)).toContain(old);
  });

  it('to another imported root: nothing is switched without its lists', () => {
    const desired = imports({ [annotations.rotateRoot]: rootB.fingerprint });
    const both = [...allLists, listOf(rootB), listOf(tierB), listOf(caB)];
    const secret = follow(given(running(), caB, tierB, rootB), desired);
    const stuck = at(start + hour, handed(secret, allLists), desired);
    expect(rootsOf(stuck.world)).toEqual([rootA.fingerprint]);
    expect(missing(desired, stuck.world)).toContain('root B');
    const { world } = pass(handed(stuck.world, both), desired, undefined, start + 2 * hour);
    expect([rootsOf(world), bundleFacts(live(world).chain)[0]]).toEqual([[rootB.fingerprint], caB]);
  });
});

describe('a root outside of Vault', () => {
  const root = { source: 'External', external: { signed: { configMapRef: { name: 'signed' } } } };
  const d = desiredOf({ ...crl, root, intermediate: { maxWorkloadCertTTL } });
  const answered = (world: Observed, now: number): Observed => {
    const facts = { publicKey: ownEntry(world.vault.staging)?.publicKey ?? '', notBefore: now, notAfter: now + 1825 * day, subject: { commonName: 'Istio Intermediate CA', organization: '' }, selfIssued: false, isCa: true, maxPathLength: 0, canSignCertificates: true, keyType: 'rsa' as const, keyBits: 2048 }; // prettier-ignore
    const certificates = [plannedCertificate(facts, tierA.fingerprint), tierA, rootA];
    return { ...world, kubernetes: { ...world.kubernetes, signed: { place: 'ConfigMap istio-system/signed, key tls.crt', certificates } } }; // prettier-ignore
  };

  it('has its list and those of the CAs between handed along, and that of the intermediate from its mount', () => {
    const waiting = at(start, emptyWorld(), d).world;
    const without = at(start, handed(answered(waiting, start), []), d);
    expect(ownEntry(without.world.vault.live)).toBeUndefined();
    expect(missing(d, without.world)).toMatch(/root A .*Whoever runs that CA/s);
    const { world } = at(start, handed(without.world, [listOf(rootA), listOf(tierA)]), d);
    expect(listed(world)).toEqual(prints(rootA, tierA, live(world).certificate!));
    expect(plan(d, seen(world, d), start)).toEqual({ steps: [], problems: [] });
  });

  it('asks for another signature when its list has the intermediate', () => {
    const waiting = at(start, emptyWorld(), d).world;
    const { world } = at(start, handed(answered(waiting, start), [listOf(rootA), listOf(tierA)]), d);
    const { serial } = live(world).certificate!;
    const lists = [listOf(rootA), revoking(listOf(tierA, start + hour), serial)];
    const { world: asked, done } = at(start + hour, handed(follow(world, d), lists), d);
    expect(done.map(({ kind }) => kind)).toEqual(expect.arrayContaining(['StageKey', 'RecordCSR']));
    expect(ownEntry(asked.vault.staging)?.reason).toBe('the intermediate was revoked');
  });
});

describe('an issuer of others', () => {
  const root = { source: 'Existing', mount: 'corp', existing: { issuerRef: 'a' } };
  const d = desiredOf({ ...crl, root, intermediate: { maxWorkloadCertTTL } });
  const withLists = (world: Observed, ...lists: [CertificateFacts, RevocationList][]): Observed => {
    const existing = { found: [{ id: 'a', name: 'a', certificate: tierA, above: [rootA] }], wantedId: 'a', defaultId: undefined }; // prettier-ignore
    const ofVault = Object.fromEntries(lists.map(([of, list]) => [of.fingerprint, list]));
    return { ...world, vault: { ...world.vault, existing, lists: { ...world.vault.lists, ...ofVault } } };
  };

  it('has its lists read from its mount, in which nothing is written', () => {
    const { world, done } = at(start, withLists(emptyWorld(), [tierA, listOf(tierA)], [rootA, listOf(rootA)]), d);
    expect(listed(world)).toEqual(prints(rootA, tierA, live(world).certificate!));
    expect(done.filter((step) => 'mount' in step && step.mount === 'corp')).toEqual([]);
    const later = at(start + 16 * day, follow(world, d), d);
    expect(later.done).toContainEqual({ kind: 'RotateCRL', mount: 'istioca' });
    expect(later.done).not.toContainEqual({ kind: 'RotateCRL', mount: 'corp' });
    expect(nearEnd(d, later.world, start + 23 * day)).toContain(
      'The owner of mount corp has to have its issuer sign one',
    );
  });

  it('without the list of the root above it waits, and takes one that is handed along', () => {
    const waiting = at(start, withLists(emptyWorld(), [tierA, listOf(tierA)]), d);
    expect(ownEntry(waiting.world.vault.live)).toBeUndefined();
    expect(missing(d, waiting.world)).toContain('named in spec.root.existing.rootCertRef');
    expect(listed(at(start, handed(waiting.world, [listOf(rootA)]), d).world)).toContain(rootA.fingerprint);
    expect(state(waiting.world).root?.fingerprint).toBe(rootA.fingerprint);
  });

  it('whose list has ended, as one of a mount with the settings of Vault does after three days, is named with the remedy', () => {
    const ended = listOf(tierA, start - 4 * day, 3 * day);
    const { world } = at(start, withLists(emptyWorld(), [tierA, ended], [rootA, listOf(rootA)]), d);
    expect(missing(d, world)).toMatch(
      /auto_rebuild=true in corp\/config\/crl. issuing CA of A: its list in mount corp has ended on 2029-12-31/,
    );
  });
});
