/** A CA that is brought along (`intermediate.source: Import`), and the way from it to a root in Vault. */
import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { annotations } from '../../src/api/annotations.ts';
import { resourceSchema } from '../../src/api/schema.ts';
import { bundleFacts, type CertificateFacts } from '../../src/plan/facts/certificate.ts';
import { caEntryDefect } from '../../src/plan/facts/ca-entry.ts';
import type { Desired } from '../../src/plan/facts/desired.ts';
import { ownEntry, type Observed } from '../../src/plan/facts/observed.ts';
import type { RotationPhase } from '../../src/plan/facts/state-entry.ts';
import { plan } from '../../src/plan/plan.ts';
import { statusOf } from '../../src/plan/status/status.ts';
import { rotationView } from '../../src/plan/rotation/view.ts';
import { outsideNote } from '../../src/plan/vault/outside-root-checks.ts';
import { converge, derived, desiredOf, emptyWorld, identity, leftBehind, someCa, start } from './model.ts';
import { follow, live, rootsOf, runTo, state, takes } from './rotating-world.ts';

const hour = 3_600_000;
const year = 365 * 24 * hour;
const maxWorkloadCertTTL = '24h';
const wanted = (texts: Record<string, string> = {}, over: object = {}, more: object = {}): Desired =>
  desiredOf({ intermediate: { source: 'Import', importRef: { secretRef: { name: 'cacerts' } }, maxWorkloadCertTTL, ...over }, ...more }, texts); // prettier-ignore
const issued = (texts: Record<string, string> = {}): Desired =>
  desiredOf({ intermediate: { maxWorkloadCertTTL } }, texts);
const d = wanted();

const own = someCa('cluster.local', undefined);
const root = someCa('Old Root', undefined);
const plugged = someCa('Old Intermediate', root);

/** The world with these certificates in the Secret, the first with its key. */
const given = (world: Observed, ...certificates: CertificateFacts[]): Observed => {
  const ca = { place: 'Secret istio-system/cacerts', secret: 'cacerts', publicKey: certificates[0]?.publicKey, certificates }; // prettier-ignore
  return { ...world, kubernetes: { ...world.kubernetes, given: ca } };
};
const withoutSecret = (world: Observed): Observed => {
  const kubernetes = { ...world.kubernetes };
  delete kubernetes.given;
  return { ...world, kubernetes };
};

const imported = (): Observed => follow(converge(d, given(emptyWorld(), plugged, root)).world, d);

describe('what is imported', () => {
  it.each([
    ['a CA with its root', [plugged, root], [plugged], root],
    ['a CA that is its own root, as istiod makes one', [own], [own], own],
  ])('%s, without any PKI mount', (_, certificates, chain, top) => {
    const { world, done } = converge(d, given(emptyWorld(), ...certificates));
    expect(done.map(({ kind }) => kind)).not.toContain('MountPKI');
    expect(bundleFacts(live(world).chain)).toEqual(chain);
    expect([rootsOf(world), live(world).imported]).toEqual([[top.fingerprint], true]);
    expect(caEntryDefect(live(world))).toBeUndefined();
    const seen = follow(world, d);
    expect(plan(d, seen, start)).toEqual({ steps: [], problems: [] });
    // the Secret may go
    expect(plan(d, withoutSecret(seen), start)).toEqual({ steps: [], problems: [] });
  });

  it('is waited for, and nothing else is missing', () => {
    const { last, world } = converge(d, emptyWorld());
    expect(last.problems.map(({ reason }) => reason)).toEqual(['AwaitingImport', 'AwaitingImport']);
    expect(world.vault.role).toBeDefined();
  });

  const noCa = { ...plugged, isCa: false };
  it.each<[string, Observed, RegExp]>([
    ['without its root', given(emptyWorld(), plugged), /no chain of signatures leads from it to a self-signed root/],
    ['with another key', { ...given(emptyWorld(), plugged, root), kubernetes: { ...emptyWorld().kubernetes, given: { place: 'Secret a/b', secret: 'b', publicKey: 'other', certificates: [plugged, root] } } }, /its key is not that of its certificate/], // prettier-ignore
    ['that is none', given(emptyWorld(), noCa, root), /no CA certificate/],
    ['that has expired', given(emptyWorld(), someCa('over', root, -1), root), /has expired/],
    [
      'with a small key',
      given(emptyWorld(), { ...plugged, keyBits: 1024 }, root),
      /has a key that istiod does not take/,
    ],
  ])('a CA %s is refused', (_, world, why) => {
    const { last } = converge(d, world);
    expect(last.problems[0]).toMatchObject({ reason: 'ImportRefused', message: expect.stringMatching(why) as unknown });
    expect(ownEntry(world.vault.live)).toBeUndefined();
  });

  it('needs nothing of a root mount that others would make (root.manage: false), nor is its root compared with the spec', () => {
    const ofOthers = wanted({}, {}, { root: { manage: false } });
    const world = given(emptyWorld(), plugged, root);
    world.vault.existing = { found: [], wantedId: undefined, defaultId: undefined };
    const { world: end, last } = converge(ofOthers, world);
    expect([last.problems, rootsOf(end)]).toEqual([[], [root.fingerprint]]);
    const checks = wanted({}, { manage: false }, { root: { manage: false }, keyStore: { manage: false } });
    expect(converge(checks, end).last.problems).toEqual([]);
  });

  it('a mesh with another root has to be asked first', () => {
    const world = given({ ...emptyWorld() }, plugged, root);
    world.kubernetes.meshRoots = [own];
    expect(converge(d, world).last.problems[0]).toMatchObject({ reason: 'WouldReplaceRoot' });
  });

  it('is renewed with another one under the same root; before, from its renewal on, it is said', () => {
    const world = imported();
    const due = start + 1300 * 24 * hour;
    expect(outsideNote(derived(d, world, due))).toMatchObject({ reason: 'AwaitingImport' });
    const next = someCa('New Intermediate', root, 3000);
    const { world: renewed } = converge(d, given(world, next, root), { now: due });
    expect(bundleFacts(live(renewed).chain)).toEqual([next]);
    expect(live(renewed).generation).toBe(2);
  });

  it('one under another root is refused until that is asked for', () => {
    const other = someCa('Other Root', undefined);
    const next = someCa('Other Intermediate', other);
    const refused = converge(d, given(imported(), next, other));
    expect(outsideNote(derived(d, refused.world))?.message).toContain(`${annotations.rotateRoot}=${other.fingerprint}`);
    const asked = wanted({ [annotations.rotateRoot]: other.fingerprint });
    const { world: end, seen } = runTo(undefined, follow(given(imported(), next, other), asked), asked);
    expect(rootsOf(end)).toEqual([other.fingerprint]);
    for (const [i, one] of seen.entries()) expect(takes(one, seen[i + 1] ?? one)).toBe(true);
  });

  const other = someCa('Other Root', undefined);
  const next = someCa('Other Intermediate', other);
  const asked = { [annotations.rotateRoot]: other.fingerprint };
  const toOther = (at: RotationPhase) => runTo(at, follow(given(imported(), next, other), wanted(asked)), wanted(asked)); // prettier-ignore

  it('has nothing of spec.root, which can be prepared for the way to Vault', () => {
    const prepared = desiredOf({ ...d.spec, root: { commonName: 'Next Root' } });
    const resource = resourceSchema.parse({ apiVersion: 'istiovaultca.io/v1alpha1', kind: 'IstioVaultCA', metadata: identity, spec: prepared.spec }); // prettier-ignore
    const status = statusOf({ resource, desired: prepared, observed: imported(), problems: [], now: start });
    expect(status.conditions?.find(({ type }) => type === 'RootReady')).toMatchObject({ status: 'True' });
  });

  it('waits for its phase whatever else of the spec changes', () => {
    const { world, now } = toOther('Distributing');
    const changed = wanted(asked, { ttl: '40000h', commonName: 'Another' });
    const settled = converge(changed, withoutSecret(follow(world, changed)), { now }).world;
    expect(ownEntry(settled.vault.staging)?.imported?.chain).toEqual([next.pem]);
  });

  it('that is lost before its phase is asked for', () => {
    const { world, now } = toOther('Distributing');
    const lost = withoutSecret(follow(world, wanted(asked)));
    lost.vault.staging = { casVersion: lost.vault.staging.casVersion, entry: undefined };
    const { world: switching, now: then } = runTo('Switching', lost, wanted(asked), now);
    const { problems } = plan(wanted(asked), follow(switching, wanted(asked)), then);
    expect(problems).toMatchObject([{ condition: 'IntermediateReady', reason: 'AwaitingImport', message: expect.stringContaining(other.serial) as unknown }]); // prettier-ignore
  });

  it('under a root that a rotation has switched to is named when the spec asks for another source', () => {
    const { world, now } = toOther('Distributing');
    const left = converge(issued(asked), withoutSecret(follow(world, issued(asked))), { now }).world;
    const { world: switched, now: then } = runTo('Switching', follow(left, issued(asked)), issued(asked), now);
    expect(rotationView(derived(issued(asked), switched, then))?.waitingFor).toContain(`under root ${other.serial}`);
  });

  it('needs no issuer of others, and goes over to one under the same root when that is asked for', () => {
    const root = { source: 'Existing', mount: 'corp', existing: { issuerRef: 'a' } };
    const tier = someCa('Corporate Issuing CA', own);
    const first = someCa('First Intermediate', tier);
    const from = desiredOf({ ...d.spec, root });
    const to = desiredOf({ ...issued().spec, root }, { [annotations.rotateRoot]: 'now' });
    const before = given(emptyWorld(), first, tier, own);
    before.vault.existing = { found: [], wantedId: undefined, defaultId: undefined };
    const { world, last } = converge(from, before);
    expect([last.problems, rootsOf(world)]).toEqual([[], [own.fingerprint]]);
    world.vault.existing = { found: [{ id: 'a', name: 'a', certificate: tier, above: [own] }], wantedId: 'a', defaultId: undefined }; // prettier-ignore
    const { world: end } = converge(to, follow(world, to));
    expect([rootsOf(end), live(end).imported, live(end).generation]).toEqual([[own.fingerprint], undefined, 2]);
  });

  it('only some steps of any iteration are carried out: the end is the same', () => {
    fc.assert(
      fc.property(fc.array(fc.boolean(), { maxLength: 60 }), (luck) => {
        const pick = <T>(steps: T[], round: number): T[] => steps.filter((_, i) => luck[round + i] ?? true);
        const { world } = converge(d, given(emptyWorld(), plugged, root), { pick });
        expect(caEntryDefect(live(world))).toBeUndefined();
        expect([live(world).generation, ownEntry(world.vault.staging)]).toEqual([1, undefined]);
      }),
      { numRuns: 40 },
    );
  });
});

describe('what is adopted', () => {
  const adopting = (texts: Record<string, string> = {}): Desired => desiredOf({ ...d.spec, adopt: true }, texts);
  /** A CA entry that somebody made by hand, with all four files. */
  const byHand = (
    certificates: CertificateFacts[],
    roots: CertificateFacts[],
    publicKey = certificates[0]?.publicKey,
  ) => {
    const world = emptyWorld();
    const foreign = { publicKey, generation: 0, root: roots.map(({ pem }) => pem).join(''), others: [], certificates };
    Object.assign(world.vault, {
      kvMount: { type: 'kv', description: '', maxLeaseTtl: 0, kvVersion: 2 },
      live: { casVersion: 1, entry: 'foreign', mark: '', foreign },
    });
    world.kubernetes.meshRoots = roots;
    return world;
  };
  const kinds = (world: Observed, desired = adopting()) => converge(desired, world).done.map(({ kind }) => kind);

  it.each([
    ['with its root', [plugged], [root]],
    ['that is its own root', [own], [own]],
  ])('is the same CA afterwards: one %s, without the Secret and without any PKI mount', (_, certificates, roots) => {
    const { world } = converge(adopting(), byHand(certificates, roots));
    expect(bundleFacts(live(world).chain)).toEqual(certificates);
    expect([rootsOf(world), live(world).imported, live(world).generation]).toEqual([[roots[0]!.fingerprint], true, 1]);
    expect([state(world).adopted, state(world).history.map(({ reason }) => reason)]).toEqual([['entry:istioca'], ['adopted', 'adopted']]); // prettier-ignore
    const seen = follow(world, adopting());
    expect(plan(adopting(), seen, start)).toEqual({ steps: [], problems: [] });
    expect(kinds(byHand(certificates, roots)).filter((kind) => /MountPKI|ImportCA|StageKey/.test(kind))).toEqual([]);
  });

  it('whatever of the steps is carried out first', () => {
    fc.assert(
      fc.property(fc.array(fc.boolean(), { maxLength: 40 }), (luck) => {
        const pick = <T>(steps: T[], round: number): T[] => steps.filter((_, i) => luck[round + i] ?? true);
        const { world } = converge(adopting(), given(byHand([plugged], [root]), plugged, root), { pick });
        expect([live(world).generation, bundleFacts(live(world).chain)]).toEqual([1, [plugged]]);
      }),
      { numRuns: 30 },
    );
  });

  const refused = { ...plugged, canSignCertificates: false };
  it.each<[string, Observed, RegExp]>([
    ['without a certificate', byHand([], [root], 'key'), /holds a key, and no certificate in ca-cert.pem/],
    ['without a key', byHand([plugged], [root], ''), /is not the key of ca-cert.pem/],
    ['with the key of another CA', byHand([plugged], [root], 'other'), /ca-key.pem of kv\/istioca is not the key/],
    ['under another root', byHand([plugged], [own]), /does not lead through cert-chain.pem to a self-signed root/],
    ['that cannot sign', byHand([refused], [root]), /key usage without certificate signing/],
    ['that has expired', byHand([someCa('over', root, -1)], [root]), /has expired/],
  ])('is not an entry %s, and nothing is written', (_, world, why) => {
    const { done, last } = converge(adopting(), world);
    expect([done.filter(({ kind }) => kind !== 'ClaimControlPlane'), last.problems.find(({ reason }) => reason === 'AdoptionMismatch')]).toEqual([[], expect.objectContaining({ message: expect.stringMatching(why) as unknown })]); // prettier-ignore
  });

  it('stays when the Secret holds a CA under another root, which has to be asked for', () => {
    const other = someCa('Other Root', undefined);
    const world = given(byHand([plugged], [root]), someCa('Other Intermediate', other), other);
    const { world: end } = converge(adopting(), world);
    expect([rootsOf(end), state(end).root?.fingerprint]).toEqual([[root.fingerprint], root.fingerprint]);
    expect(outsideNote(derived(adopting(), end))?.message).toContain(`${annotations.rotateRoot}=${other.fingerprint}`);
  });

  it('is followed by another CA under the same root in the Secret, as any CA that is imported', () => {
    const next = someCa('New Intermediate', root);
    const { world, done } = converge(adopting(), given(byHand([plugged], [root]), next, root));
    const published = done.flatMap((step) => (step.kind === 'PublishLive' ? step.from : []));
    expect([published, bundleFacts(live(world).chain)]).toEqual([['adopted', 'staging'], [next]]);
  });

  it('can be the CA of a resource that is gone, with its generation', () => {
    const left = leftBehind(withoutSecret(imported()));
    left.vault.live.foreign = { ...left.vault.live.foreign!, certificates: [plugged] };
    const { world } = converge(adopting(), left);
    expect(bundleFacts(live(world).chain)).toEqual([plugged]);
    expect(plan(d, left, start).problems.map(({ reason }) => reason)).toContain('MountNotOwned');
  });

  it('with two roots goes on as a root rotation, at whose end the other one is gone', () => {
    const { world } = converge(adopting(), byHand([plugged], [root, own]));
    expect([rootsOf(world).length, state(world).rotation?.phase]).toEqual([2, 'Switching']);
    const { world: end } = runTo(undefined, follow(world, adopting()), adopting());
    expect(rootsOf(end)).toEqual([root.fingerprint]);
  });
});

describe.each([
  ['of Secret cacerts', [plugged, root]],
  ['that istiod made', [own]],
])('from a CA %s to a root in Vault', (_, certificates) => {
  const before = (): Observed => follow(converge(d, given(emptyWorld(), ...certificates)).world, d);
  const old = certificates.at(-1)!;

  it('nothing is made in Vault before a rotation is asked for', () => {
    const { world, done, last } = converge(issued(), before());
    expect(done).toEqual([]);
    expect(last.problems).toMatchObject([{ reason: 'RootSpecChanged', blocks: 'nothing' }]);
    expect(world.vault.rootMount).toBeUndefined();
  });

  it.each(['before a rotation', 'in Distributing'])('the CA entry is lost %s: it is said what brings it back', (at) => {
    const to = issued(at === 'before a rotation' ? {} : { [annotations.rotateRoot]: 'now' });
    const { world, now } = to.annotations[annotations.rotateRoot]
      ? runTo('Distributing', withoutSecret(before()), to)
      : { world: withoutSecret(before()), now: start };
    world.vault.live = { casVersion: 3, entry: undefined };
    expect(converge(to, world, { now }).last.problems).toMatchObject([{ reason: 'AwaitingImport', message: expect.stringContaining(old.serial) as unknown }]); // prettier-ignore
  });

  it('goes through the four phases; any two workloads on the way accept each other', () => {
    const desired = issued({ [annotations.rotateRoot]: 'now' });
    const { world: end, seen } = runTo(undefined, withoutSecret(before()), desired);
    const [made] = end.vault.rootPki!.issuers;
    expect(rootsOf(end)).toEqual([made!.certificate.fingerprint]);
    expect(live(end).imported).toBeUndefined();
    expect(state(end).root?.certificate).toBeUndefined();
    const way = [before(), ...seen];
    for (const [i, one] of way.entries()) {
      const next = way[i + 1] ?? one;
      expect([takes(one, next), takes(next, one)]).toEqual([true, true]);
    }
    expect(plan(desired, follow(end, desired), start + 300 * hour)).toEqual({ steps: [], problems: [] });
  });

  it('is rolled back before the switch without the Secret', () => {
    const desired = issued({ [annotations.rotateRoot]: 'now' });
    const { world } = runTo('Distributing', withoutSecret(before()), desired);
    const back = issued({ ...desired.annotations, [annotations.rollbackRotation]: 'back' });
    const { world: end } = runTo(undefined, follow(world, back), back);
    expect(rootsOf(end)).toEqual([old.fingerprint]);
    expect(converge(back, follow(end, back), { now: start + year }).world.vault.live).toEqual(end.vault.live);
  });

  it('is rolled back after the switch with the Secret, and says that it needs it', () => {
    const desired = issued({ [annotations.rotateRoot]: 'now' });
    const { world, now } = runTo('Switching', withoutSecret(before()), desired);
    const texts = { ...desired.annotations, [annotations.rollbackRotation]: 'back' };
    const waiting = converge(issued(texts), follow(world, issued(texts)), { now }).world;
    expect(rotationView(derived(issued(texts), waiting, now))?.waitingFor).toContain(
      'spec.intermediate.source: Import',
    );
    expect(new Set(rootsOf(waiting))).toEqual(new Set(rootsOf(world)));
    const back = wanted(texts);
    const { world: end } = runTo(undefined, given(waiting, ...certificates), back);
    expect(rootsOf(end)).toEqual([old.fingerprint]);
    expect(live(end)).toMatchObject({ imported: true });
  });

  it.each(['Distributing', 'Switching'] as const)(
    'the state entry is lost in %s: no root is taken away at once',
    (at) => {
      const desired = issued({ [annotations.rotateRoot]: 'now' });
      const { world, now } = runTo(at, withoutSecret(before()), desired);
      const roots = rootsOf(world);
      const lost = follow(world, desired);
      lost.vault.state = { casVersion: lost.vault.state.casVersion, entry: undefined };
      const settled = converge(desired, lost, { now: now + 1 }).world;
      expect(new Set(rootsOf(settled))).toEqual(new Set(roots));
      expect(roots).toHaveLength(2);
    },
  );
});
