/**
 * One root for several (`root.shared`): any two workloads of the owner and of its members verify each other at any time. Members read the mount of the
 * owner as Vault shows it to everybody; test/e2e/shared-root.test.ts has a real one.
 */
import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { annotations, digestAnnotation } from '../../src/api/annotations.ts';
import { bundleFacts, type CertificateFacts } from '../../src/plan/facts/certificate.ts';
import { leadsTo } from '../../src/plan/facts/certificate-path.ts';
import { desire, type Desired } from '../../src/plan/facts/desired.ts';
import { generationOfAnyRoot } from '../../src/plan/facts/identity.ts';
import { ownEntry, type ExistingIssuers, type Observed } from '../../src/plan/facts/observed.ts';
import type { Served } from '../../src/plan/facts/observed-istiod.ts';
import { checkSpec, plan } from '../../src/plan/plan.ts';
import { rotationDue } from '../../src/plan/rotation/rotation.ts';
import { rotationView } from '../../src/plan/rotation/view.ts';
import { simulateStep } from '../../src/plan/simulate.ts';
import { rootStays } from '../../src/plan/vault/cleanup.ts';
import { rootMessage } from '../../src/plan/status/expiry.ts';
import { leafOf, meshBundle, podOf, settingsOf, withIstiod } from './istiod-world.ts';
import { converge, derived, desiredOf, emptyWorld, identity, leftBehind, minimalSpec, someCa, start } from './model.ts';
import { live, phase, rootsOf, state } from './rotating-world.ts';

const hour = 3_600_000;
const lifetime = { maxWorkloadCertTTL: '24h' };
type Texts = Record<string, string>;

const ownerWith = (texts: Texts = {}, over: Record<string, unknown> = {}): Desired =>
  desiredOf({ root: { shared: true }, intermediate: lifetime, ...over }, texts);
/** A member in a cluster of its own. */
const memberWith = (n: number, texts: Texts = {}, over: Record<string, unknown> = {}): Desired =>
  desire(
    { ...identity, cluster: `c-${n + 2}` },
    minimalSpec({ root: { source: 'Existing' }, intermediate: { ...lifetime, mount: `member-${n}` }, ...over }),
    texts,
  );

/** What a member reads in the mount of the owner. */
function mountOf({ vault: { rootPki } }: Observed, recorded: readonly (string | undefined)[]): ExistingIssuers {
  const issuers = (rootPki?.issuers ?? []).map(({ id, keyName, certificate }) => ({
    id,
    name: keyName,
    certificate,
    above: [certificate],
  }));
  const newestFirst = [...issuers].sort(
    (a, b) => (generationOfAnyRoot(b.name) ?? 0) - (generationOfAnyRoot(a.name) ?? 0),
  );
  const defaultId = issuers.find(({ id }) => id === rootPki?.defaultIssuerId)?.id;
  const found = issuers.filter(({ id }) => recorded.includes(id) || newestFirst.some((one) => one.id === id));
  return found.length === 0
    ? { found: [], wantedId: undefined, defaultId: undefined }
    : { found, wantedId: defaultId, defaultId, owners: { ids: newestFirst.map(({ id }) => id), complete: true } };
}

/** The member with the mount as it is now. */
function reading(member: Observed, owner: Observed): Observed {
  const { root, rotation } = ownEntry(member.vault.state) ?? {};
  const existing = mountOf(owner, [root?.issuerId, rotation?.to.issuerId]);
  return { ...member, vault: { ...member.vault, existing } };
}

/** What one istiod replica holds: the CA that was current when it last loaded its files. */
interface Held {
  served: Served;
  /** Fingerprint of the root that signed its intermediate. */
  signer: string;
  /** Fingerprints of the roots that it distributes. */
  roots: string[];
}

function heldBy(world: Observed): Held {
  const { certificate, chain } = live(world);
  const roots = bundleFacts(live(world).root);
  const signer = roots.find((root) => leadsTo(certificate!, bundleFacts(chain), root))!;
  const served = { leaf: leafOf(certificate!), chain: bundleFacts(chain), issuer: 'CN=Istio Intermediate CA' };
  return { served, signer: signer.fingerprint, roots: rootsOf(world) };
}

/** The world with an istiod of these replicas. */
function seeing(world: Observed, desired: Desired, replicas: Held[], namespaceRoots: string[]): Observed {
  const settings = settingsOf(world, desired);
  // the digest of these Pods is unknown, so each replica is asked for its distributed roots
  const asked = { ...settings, annotations: { ...settings.annotations, [digestAnnotation]: 'unknown' } };
  const pods = replicas.map(({ served, roots }, i) =>
    podOf(world, `istiod-${i}`, { settings: asked, served, signed: { ...served, roots } }, desired),
  );
  return withIstiod(world, pods, { bundles: [meshBundle(desired.identity.namespace, namespaceRoots)] }, desired);
}

/** All replicas and namespaces take over the current CA. */
const following = (world: Observed, desired: Desired): Observed =>
  seeing(world, desired, [heldBy(world), heldBy(world)], rootsOf(world));

/** An owner and one member, which settle together. */
class Pair {
  now = start;
  owner: Observed;
  member: Observed;
  ownerTexts: Texts = {};
  memberTexts: Texts = {};
  readonly over: Record<string, unknown>;
  constructor(over: Record<string, unknown> = {}) {
    this.over = over;
    this.owner = following(converge(this.wanted, emptyWorld()).world, this.wanted);
    const first = converge(this.memberWanted, reading(emptyWorld(), this.owner)).world;
    this.member = following(first, this.memberWanted);
    this.pass(1);
  }
  get wanted(): Desired {
    return ownerWith(this.ownerTexts);
  }
  get memberWanted(): Desired {
    return memberWith(0, this.memberTexts, this.over);
  }
  /** Both reconcile, every replica follows, and time passes. */
  pass(hours: number): void {
    for (let i = 0; i < 3; i += 1) {
      this.owner = following(converge(this.wanted, this.owner, { now: this.now }).world, this.wanted);
      const member = reading(this.member, this.owner);
      this.member = following(converge(this.memberWanted, member, { now: this.now }).world, this.memberWanted);
    }
    this.now += hours * hour;
  }
  /** Days, until nothing changes any more. */
  settle(): void {
    for (let i = 0; i < 6; i += 1) this.pass(25);
  }
  ask(texts: Texts): this {
    this.ownerTexts = { ...this.ownerTexts, ...texts };
    this.settle();
    return this;
  }
  get ownerWaits(): string {
    return rotationView(derived(this.wanted, this.owner, this.now))?.waitingFor ?? '';
  }
  get memberView() {
    return rotationView(derived(this.memberWanted, reading(this.member, this.owner), this.now));
  }
}

const rotate = { [annotations.rotateRoot]: 'a' };
const ready = (text: string): Texts => ({ [annotations.membersReady]: text });
const rootAt = (world: Observed, generation: number): CertificateFacts =>
  world.vault.rootPki!.issuers.find(({ keyName }) => keyName.endsWith(`-r${generation}`))!.certificate;

describe('a rotation of the owner', () => {
  it('reaches the member by itself, and stops twice until the members are ready', () => {
    const pair = new Pair();
    const [a] = rootsOf(pair.member);
    pair.ask(rotate);
    const b = rootAt(pair.owner, 2).fingerprint;
    expect([phase(pair.owner), phase(pair.member)]).toEqual(['Distributing', undefined]);
    expect([rootsOf(pair.owner), rootsOf(pair.member)]).toEqual([
      [a, b],
      [a, b],
    ]);
    expect(pair.ownerWaits).toContain(`annotation ${annotations.membersReady} with a new text`);
    expect(pair.ownerWaits).toContain(`begins with "${pair.memberView?.waitingFor}"`);
    expect(pair.memberView).toMatchObject({
      phase: 'Distributing',
      waitingFor: `ready for members-ready: root ${b}`,
    });
    expect(rotationDue(derived(pair.wanted, pair.owner, pair.now))).toBeUndefined();
    pair.ask(ready('distributed'));
    expect([phase(pair.owner), state(pair.owner).rotation?.awaitsMembers]).toEqual(['Switching', true]);
    expect([heldBy(pair.owner).signer, heldBy(pair.member).signer]).toEqual([b, b]);
    expect(pair.ownerWaits).toContain(`annotation ${annotations.membersReady} with another new text`);
    expect(pair.ownerWaits).toContain(`has status.root.fingerprint ${b}`);
    expect([state(pair.member).root?.fingerprint, pair.memberView]).toEqual([b, undefined]);
    expect(state(pair.member).history[0]).toMatchObject({
      kind: 'Root',
      reason: 'the owner of mount pki signs with it',
    });
    pair.ask(ready('switched'));
    expect([phase(pair.owner), rootsOf(pair.owner)]).toEqual([undefined, [b]]);
    // the owner has its old root still, and so the member hands it out
    expect(rootsOf(pair.member)).toEqual([a, b]);
    expect(plan(pair.memberWanted, reading(pair.member, pair.owner), pair.now)).toEqual({ problems: [], steps: [] });
    expect(plan(pair.wanted, pair.owner, pair.now)).toEqual({ problems: [], steps: [] });
  });

  it('makes the new root the default issuer only after an intermediate under it is published', () => {
    const pair = new Pair().ask(rotate);
    const { done } = converge(ownerWith({ ...rotate, ...ready('distributed') }), pair.owner, { now: pair.now });
    const kinds = done.map(({ kind }) => kind);
    expect(kinds.indexOf('SetDefaultIssuer')).toBeGreaterThan(kinds.indexOf('PublishLive'));
    expect(kinds.indexOf('PublishLive')).toBeGreaterThan(0);
  });

  it('takes no text for the second stop that was set before it stood there', () => {
    const pair = new Pair().ask(rotate);
    pair.ownerTexts = { ...pair.ownerTexts, ...ready('distributed') };
    pair.pass(1);
    expect(phase(pair.owner)).toBe('Switching');
    pair.ask(ready('distributed, corrected'));
    expect([phase(pair.owner), state(pair.owner).rotation?.awaitsMembers]).toEqual(['Switching', true]);
    pair.ask(ready('switched'));
    expect(phase(pair.owner)).toBeUndefined();
  });

  it('takes no text that was there when it began', () => {
    const pair = new Pair();
    pair.ask({ ...rotate, ...ready('early') });
    expect(phase(pair.owner)).toBe('Distributing');
  });

  it('stops at neither place when the old root has expired', () => {
    const pair = new Pair().ask(rotate);
    const [old] = pair.owner.vault.rootPki!.issuers;
    old!.certificate = { ...old!.certificate, notAfter: pair.now };
    pair.settle();
    expect(phase(pair.owner)).toBeUndefined();
  });

  it('renews the intermediate while it waits, and keeps a request for the next rotation', () => {
    const pair = new Pair().ask(rotate);
    for (const text of ['distributed', 'switched']) {
      const before = live(pair.owner).generation;
      pair.ask({ [annotations.rotateIntermediate]: text, [annotations.rotateRoot]: 'b' });
      expect(live(pair.owner).generation).toBe(before + 1);
      pair.ask(ready(text));
    }
    expect(state(pair.owner).root?.generation).toBe(2);
    expect([phase(pair.owner), state(pair.owner).rotation?.to.generation]).toEqual(['Distributing', 3]);
  });

  it('is followed back, and both ways as often as the owner goes', () => {
    const pair = new Pair().ask(rotate).ask(ready('distributed'));
    const [a, b] = rootsOf(pair.owner);
    pair.ask({ [annotations.rollbackRotation]: 'no' });
    expect([heldBy(pair.owner).signer, heldBy(pair.member).signer]).toEqual([a, a]);
    expect(pair.ownerWaits).toContain(`on its way back: annotation ${annotations.membersReady}`);
    expect(pair.ownerWaits).toContain(`has status.root.fingerprint ${a}`);
    pair.ask(ready('gone back'));
    expect([phase(pair.owner), rootsOf(pair.owner), rootsOf(pair.member)]).toEqual([undefined, [a], [a, b]]);
    expect(pair.memberView?.waitingFor).toBe(`ready for members-ready: root ${b}`);
    expect(plan(pair.memberWanted, reading(pair.member, pair.owner), pair.now).steps).toEqual([]);
    pair
      .ask({ [annotations.rotateRoot]: 'again' })
      .ask(ready('3'))
      .ask(ready('4'));
    const c = rootAt(pair.owner, 3).fingerprint;
    expect([rootsOf(pair.owner), heldBy(pair.member).signer, rootsOf(pair.member)]).toEqual([[c], c, [a, b, c]]);
  });

  it('that is called off in the middle of the member’s switch is followed back in it', () => {
    const pair = new Pair().ask(rotate);
    pair.ownerTexts = { ...pair.ownerTexts, ...ready('distributed') };
    pair.pass(1);
    expect([phase(pair.member), state(pair.member).rotation?.back]).toEqual(['Switching', false]);
    pair.ownerTexts = { ...pair.ownerTexts, [annotations.rollbackRotation]: 'no' };
    pair.pass(1);
    expect([phase(pair.member), state(pair.member).rotation?.back]).toEqual(['Switching', true]);
    pair.settle();
    expect([phase(pair.member), heldBy(pair.member).signer]).toEqual([undefined, rootAt(pair.owner, 1).fingerprint]);
  });

  it('is not rolled back at the member alone', () => {
    const pair = new Pair().ask(rotate);
    pair.ownerTexts = { ...pair.ownerTexts, ...ready('distributed') };
    pair.pass(1);
    pair.memberTexts = { [annotations.rollbackRotation]: 'here' };
    const { done } = converge(pair.memberWanted, reading(pair.member, pair.owner), { now: pair.now });
    expect(done[0]).toMatchObject({ kind: 'WriteState', event: 'RootRotationNotRolledBack' });
    pair.settle();
    expect(heldBy(pair.member).signer).toBe(rootAt(pair.owner, 2).fingerprint);
  });
});

describe('a member', () => {
  it('does not sign with another root before its workloads have trusted it for long enough, be the owner ahead', () => {
    const pair = new Pair();
    const before = pair.member;
    pair.ask(rotate).ask(ready('too early'));
    const b = rootAt(pair.owner, 2).fingerprint;
    const late = following(converge(memberWith(1), reading(emptyWorld(), pair.owner), { now: pair.now }).world, memberWith(1)); // prettier-ignore
    expect([heldBy(late).signer, heldBy(late).roots.length]).toEqual([b, 2]);
    // one that was away all the time
    const begin = pair.now;
    const desired = memberWith(0);
    let away = before;
    const look = (at: number): Observed =>
      (away = following(converge(desired, reading(away, pair.owner), { now: at }).world, desired));
    look(begin);
    look(begin);
    expect([heldBy(away).signer === b, rootsOf(away).length]).toEqual([false, 2]);
    const view = rotationView(derived(desired, reading(away, pair.owner), begin));
    expect(view).toMatchObject({ phase: 'Distributing', waitingFor: expect.stringContaining('workload certificates') });
    look(begin + 24 * hour);
    expect(phase(away)).toBeUndefined();
    look(begin + 25 * hour);
    expect([phase(away), heldBy(away).signer]).toEqual(['Switching', b]);
  });

  it('keeps what it hands out while the mount is away or shows only a part, and drops what the owner has removed', () => {
    const pair = new Pair().ask(rotate).ask(ready('1')).ask(ready('2'));
    const [a = '', b = ''] = rootsOf(pair.member);
    const settled = (existing: ExistingIssuers) => {
      const world = { ...pair.member, vault: { ...pair.member.vault, existing } };
      return rootsOf(converge(pair.memberWanted, world, { now: pair.now }).world);
    };
    const idOf = (fingerprint: string) => pair.owner.vault.rootPki!.issuers.find(({ certificate }) => certificate.fingerprint === fingerprint)!.id; // prettier-ignore
    expect(settled({ found: [], wantedId: undefined, defaultId: undefined })).toEqual([a, b]);
    const existing = reading(pair.member, pair.owner).vault.existing!;
    const listed = (complete: boolean, ...ids: string[]) => settled({ ...existing, owners: { ids, complete } });
    expect(listed(false)).toEqual([a, b]);
    expect(listed(true, idOf(b))).toEqual([b]);
    expect(listed(true, idOf(a))).toEqual([a, b]);
  });

  it('names a root that it does not hand out, and why', () => {
    const pair = new Pair();
    const { rootPki } = pair.owner.vault;
    const short = { ...someCa('short', undefined), keyBits: 1024, notBefore: start + hour };
    const leaf = { ...someCa('leaf', undefined), isCa: false };
    const name = (n: number) => rootPki!.issuers[0]!.keyName.replace(/1$/, String(n));
    for (const [i, certificate] of [short, leaf].entries())
      rootPki!.issuers.push({ id: `odd-${i}`, keyId: '', keyName: name(i + 7), certificate });
    pair.settle();
    expect(rootsOf(pair.member)).toHaveLength(1);
    const message = rootMessage(derived(pair.memberWanted, reading(pair.member, pair.owner), pair.now));
    expect(message).toMatch(/"short" \(serial .*\) is not handed out: it has a key that istiod does not take/);
    expect(message).toMatch(/"leaf" .* is not handed out: it is no CA certificate/);
  });

  it('with rootCertRef hands out only what is in it', () => {
    const pair = new Pair().ask(rotate);
    const place = 'ConfigMap istio-system/roots, key ca.crt';
    const limited = (...certificates: CertificateFacts[]): Observed => {
      const world = reading(pair.member, pair.owner);
      return { ...world, kubernetes: { ...world.kubernetes, givenRoots: { place, certificates } } };
    };
    const [a, b] = [rootAt(pair.owner, 1), rootAt(pair.owner, 2)];
    const { world } = converge(pair.memberWanted, limited(a), { now: pair.now });
    expect(rootsOf(world)).toEqual([a.fingerprint]);
    expect(rootMessage(derived(pair.memberWanted, limited(a), pair.now))).toContain(`SHA-256 ${b.fingerprint}) is not handed out: it is not in ${place}`); // prettier-ignore
    expect(rootsOf(converge(pair.memberWanted, limited(a, b), { now: pair.now }).world)).toHaveLength(2);
  });

  it('keeps what it hands out while rootCertRef names nothing, and says so', () => {
    const pair = new Pair().ask(rotate);
    const place = 'ConfigMap istio-system/roots, key ca.crt';
    const member = reading(pair.member, pair.owner);
    const world = { ...member, kubernetes: { ...member.kubernetes, givenRoots: { place, certificates: [] } } };
    expect(rootsOf(converge(pair.memberWanted, world, { now: pair.now }).world)).toHaveLength(2);
    expect(rootMessage(derived(pair.memberWanted, world, pair.now))).toContain(`${place}, which spec.root.existing.rootCertRef names, has no root, so none is withdrawn`); // prettier-ignore
  });

  it('forgets since when its mesh trusts the roots while others make its intermediate', () => {
    const pair = new Pair().ask(rotate);
    expect(state(pair.member).trustedRoots).toBeDefined();
    const checks = memberWith(0, {}, { intermediate: { ...lifetime, mount: 'member-0', manage: false } });
    const { world } = converge(checks, reading(pair.member, pair.owner), { now: pair.now });
    expect(state(world).trustedRoots).toBeUndefined();
    const back = converge(pair.memberWanted, reading(following(world, pair.memberWanted), pair.owner), { now: pair.now + 25 * hour }).world; // prettier-ignore
    expect(phase(back)).toBeUndefined();
  });

  it('is refused revocation lists, as the owner is', () => {
    const { owner, now } = new Pair();
    const { last } = converge(memberWith(1, {}, { delivery: { crl: true } }), reading(emptyWorld(), owner), { now });
    expect(last.problems).toMatchObject([{ reason: 'InvalidSpec', message: expect.stringContaining('mount pki is that of another IstioVaultCA'), blocks: 'all' }]); // prettier-ignore
  });

  it('that is gone is adopted with every root of the owner', () => {
    const pair = new Pair();
    for (const text of ['1', '2']) pair.ask({ [annotations.rotateRoot]: text }).ask(ready(`${text} a`)).ask(ready(`${text} b`)); // prettier-ignore
    expect(rootsOf(pair.member)).toHaveLength(3);
    const adopting = memberWith(0, {}, { adopt: true });
    const { world, last } = converge(adopting, leftBehind(reading(pair.member, pair.owner)), { now: pair.now });
    expect([last.problems, rootsOf(world), phase(world)]).toEqual([[], rootsOf(pair.member), undefined]);
  });

  it('with an issuer in its spec hands out every root, and signs with that issuer until the spec changes', () => {
    const first = new Pair().owner.vault.rootPki!.issuers[0]!.keyName;
    const pair = new Pair({ root: { source: 'Existing', existing: { issuerRef: first } } });
    pair.ask(rotate);
    expect(pair.memberView?.waitingFor).toMatch(/^ready for members-ready: root [0-9a-f]{64}; spec\.root\.existing\.issuerRef/);
    pair.ask(ready('distributed'));
    expect([heldBy(pair.member).signer, rootsOf(pair.member).length]).toEqual([rootAt(pair.owner, 1).fingerprint, 2]);
  }); // prettier-ignore

  it('does not take the default issuer for the owner’s when the one that signed is gone: an empty mount gets one by itself', () => {
    const pair = new Pair();
    const { rootPki } = pair.owner.vault;
    Object.assign(rootPki!, { issuers: [], defaultIssuerId: '' });
    pair.ask(rotate);
    expect(rootsOf(pair.member)).toHaveLength(2);
    expect(phase(pair.member)).toBeUndefined();
    const { problems } = plan(pair.memberWanted, reading(pair.member, pair.owner), pair.now);
    expect(problems).toMatchObject([{ reason: 'IssuerNotFound', message: expect.stringContaining(annotations.rotateRoot) }]); // prettier-ignore
    expect(pair.memberView?.waitingFor).toContain('the issuer that signed so far is gone');
  });

  it('with delivery.source: PKI says at once that it cannot follow', () => {
    const pair = new Pair({ delivery: { source: 'PKI' } });
    pair.ask(rotate);
    expect(rootsOf(pair.member)).toHaveLength(1);
    const { problems } = plan(pair.memberWanted, reading(pair.member, pair.owner), pair.now);
    expect(problems).toMatchObject([{ condition: 'RootReady', reason: 'RootRotationNeedsBundle', blocks: 'nothing' }]);
    expect(pair.memberView?.waitingFor).toContain('spec.delivery.source: Bundle');
  });

  it('of a stranger’s mount is none: nothing is handed out but the root above the issuer', () => {
    const pair = new Pair();
    const read = reading(pair.member, pair.owner);
    const { owners, ...others } = read.vault.existing!;
    expect(owners).toBeDefined();
    expect(derived(pair.memberWanted, { ...read, vault: { ...read.vault, existing: others } }).sharedRoots).toBeUndefined();
  }); // prettier-ignore
});

describe('two revisions in one namespace, of which one istiod publishes the roots', () => {
  /** The pair at the second stop of the owner, and what the two hand out when it is over. */
  const over = () => {
    const pair = new Pair().ask(rotate).ask(ready('1'));
    pair.ownerTexts = { ...pair.ownerTexts, ...ready('2') };
    return pair;
  };

  it('the owner does not wait for the member to forget the old root', () => {
    const pair = over();
    const retiring = converge(pair.wanted, pair.owner, { now: pair.now }).world;
    const held = heldBy(retiring);
    const [a = '', b = ''] = rootsOf(pair.member);
    const published = (...roots: string[]) => seeing(retiring, pair.wanted, [held, held], roots);
    expect([phase(retiring), rootsOf(retiring)]).toEqual(['Retiring', [b]]);
    expect(phase(converge(pair.wanted, published(a), { now: pair.now }).world)).toBe('Retiring');
    expect(phase(converge(pair.wanted, published(a, b), { now: pair.now }).world)).toBeUndefined();
  });

  it('a member trusts the next root although the owner publishes no old one, and not before it is published', () => {
    const pair = over();
    pair.settle();
    pair.ask({ [annotations.rotateRoot]: 'next' });
    const [a = '', b = '', c = ''] = rootsOf(pair.member);
    const { reachedAt, ...record } = state(pair.member).trustedRoots![c]!;
    expect(reachedAt).toBeDefined();
    const member = reading(pair.member, pair.owner);
    ownEntry(member.vault.state)!.trustedRoots = { [a]: record, [b]: record, [c]: record };
    const held = heldBy(member);
    const since = (...roots: string[]) => {
      const world = seeing(member, pair.memberWanted, [held, held], roots);
      return state(converge(pair.memberWanted, world, { now: pair.now }).world).trustedRoots![c]?.reachedAt;
    };
    expect(since(a, b)).toBeUndefined();
    expect(since(b, c)).toBeDefined();
  });

  it('a member drops a root that the owner deletes, although an older one that remains is not published', () => {
    const pair = over();
    pair.settle();
    pair
      .ask({ [annotations.rotateRoot]: 'next' })
      .ask(ready('3'))
      .ask(ready('4'));
    const [, b = '', c = ''] = rootsOf(pair.member);
    const { rootPki } = pair.owner.vault;
    rootPki!.issuers = rootPki!.issuers.filter(({ keyName }) => !keyName.endsWith('-r1'));
    const member = reading(pair.member, pair.owner);
    member.kubernetes.meshRoots = [rootAt(pair.owner, 3)];
    expect(rootsOf(converge(pair.memberWanted, member, { now: pair.now }).world)).toEqual([b, c]);
  });
});

describe('the owner', () => {
  it.each([
    ['Existing', { root: { source: 'Existing', shared: true } }, /goes only with spec\.root\.source: Generate/],
    ['revocation lists', { root: { shared: true }, delivery: { crl: true } }, /spec\.delivery\.crl: true does not go/],
  ])('is refused with %s', (_, spec, message) => {
    expect(checkSpec(desiredOf(spec), true)).toMatchObject([{ reason: 'InvalidSpec', message: expect.stringMatching(message), blocks: 'all' }]); // prettier-ignore
  });

  it('keeps its mount when it is deleted', () => {
    const { owner, wanted } = new Pair();
    const confirmed = ownerWith({ [annotations.confirmDeleteRoot]: rootAt(owner, 1).serial });
    expect(rootStays(derived(confirmed, owner))).toContain('spec.root.shared');
    expect(rootStays(derived(wanted, owner))).toContain(annotations.confirmDeleteRoot);
  });
});

describe('any two workloads of owner and members verify each other at any moment', () => {
  const ttl = 24 * hour;
  interface Workload {
    signer: string;
    trusts: string[];
    until: number;
  }
  /** One resource with its mesh. */
  interface Party {
    world: Observed;
    istiods: Held[];
    namespace: string[];
    workloads: Workload[];
    texts: Texts;
    desired: (texts: Texts) => Desired;
  }
  interface Scene {
    now: number;
    parties: Party[];
    /** How many texts the user has given. */
    given: number;
  }
  const party = { party: fc.nat(2) };
  const event = fc.oneof(
    { weight: 8, arbitrary: fc.record({ kind: fc.constant('step' as const), ...party, bits: fc.nat(31) }) },
    { weight: 5, arbitrary: fc.record({ kind: fc.constant('reload' as const), ...party, replica: fc.nat(1) }) },
    { weight: 3, arbitrary: fc.record({ kind: fc.constant('renew' as const), ...party, workload: fc.nat(1), replica: fc.nat(1) }) },
    { weight: 4, arbitrary: fc.record({ kind: fc.constant('wait' as const), hours: fc.constantFrom(1, 2, 3, 30) }) },
    { weight: 3, arbitrary: fc.record({ kind: fc.constant('namespace' as const), ...party }) },
    { weight: 3, arbitrary: fc.record({ kind: fc.constant('membersReady' as const) }) },
    {
      weight: 1,
      arbitrary: fc.record({
        kind: fc.constant('annotate' as const),
        ...party,
        name: fc.constantFrom(annotations.rotateRoot, annotations.rollbackRotation, annotations.rotateIntermediate),
        text: fc.constantFrom<string>('a', 'b', 'c', 'd'),
      }),
    },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('pause' as const), ...party, on: fc.boolean() }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constantFrom('forget' as const, 'mountAway' as const), ...party }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('join' as const) }) },
  ); // prettier-ignore
  type Event = typeof event extends fc.Arbitrary<infer T> ? T : never;

  function beginning(now: number, world: Observed, desired: Party['desired']): Party {
    const held = heldBy(world);
    const workload = { signer: held.signer, trusts: held.roots, until: now + ttl };
    return { world, istiods: [held, held], namespace: held.roots, workloads: [workload, workload], texts: {}, desired };
  }

  const join = (scene: Scene): void => {
    const n = scene.parties.length;
    const desired = (texts: Texts) => memberWith(n, texts);
    const { world } = converge(desired({}), reading(emptyWorld(), scene.parties[0]!.world), { now: scene.now });
    scene.parties.push(beginning(scene.now, world, desired));
  };

  const renew = (scene: Scene, one: Party, workload: number, replica: number) => {
    const { signer, roots } = one.istiods[replica]!;
    one.workloads[workload] = { signer, trusts: roots, until: scene.now + ttl };
  };

  const seen = (scene: Scene, one: Party): Observed => {
    const world = seeing(one.world, one.desired(one.texts), one.istiods, one.namespace);
    return one === scene.parties[0] ? world : reading(world, scene.parties[0]!.world);
  };

  function step(scene: Scene, one: Party, bits: number, without?: 'mount'): void {
    const desired = one.desired(one.texts);
    one.world = seen(scene, one);
    if (without && one !== scene.parties[0])
      one.world.vault.existing = { found: [], wantedId: undefined, defaultId: undefined };
    const { steps } = plan(desired, one.world, scene.now);
    for (const [i, next] of steps.entries())
      if (i === 0 || (bits >> i) & 1) one.world = simulateStep(desired, one.world, next, scene.now);
  }

  /** The user does what `status.rotation.waitingFor` of the owner says: a text, if the status of every member is as it says. */
  function membersReady(scene: Scene): void {
    const [owner, ...members] = scene.parties;
    const { waitingFor = '' } = rotationView(derived(owner!.desired(owner!.texts), seen(scene, owner!), scene.now)) ?? {}; // prettier-ignore
    const first = /begins with "([^"]+)"/.exec(waitingFor)?.[1];
    const second = /has status\.root\.fingerprint ([0-9a-f]{64})/.exec(waitingFor)?.[1];
    const looks = members.map((one) => {
      const s = derived(one.desired(one.texts), seen(scene, one), scene.now);
      const view = rotationView(s);
      if (first !== undefined) return view?.waitingFor?.startsWith(first) === true;
      const settled = view === undefined || view.phase === 'Distributing';
      return settled && s.signer?.certificate.fingerprint === second;
    });
    if ((first ?? second) === undefined || looks.includes(false)) return;
    scene.given += 1;
    owner!.texts = { ...owner!.texts, ...ready(`text ${scene.given}`) };
  }

  function happen(scene: Scene, e: Event): void {
    const one = 'party' in e ? scene.parties[e.party % scene.parties.length]! : scene.parties[0]!;
    switch (e.kind) {
      case 'step':
        step(scene, one, e.bits);
        break;
      case 'mountAway':
        step(scene, one, 31, 'mount');
        break;
      case 'reload':
        one.istiods[e.replica] = heldBy(one.world);
        break;
      case 'namespace':
        one.namespace = one.istiods[0]!.roots;
        break;
      case 'renew':
        renew(scene, one, e.workload, e.replica);
        break;
      case 'wait': {
        const later = scene.now + e.hours * hour;
        for (const each of scene.parties)
          for (const [i, workload] of each.workloads.entries())
            if (workload.until <= later) renew({ ...scene, now: workload.until }, each, i, i % 2);
        scene.now = later;
        break;
      }
      case 'membersReady':
        membersReady(scene);
        break;
      case 'annotate':
        one.texts = { ...one.texts, [e.name]: e.text };
        break;
      case 'pause':
        one.texts = { ...one.texts, [annotations.pauseRotation]: String(e.on) };
        break;
      case 'forget':
        one.world.vault.state = { ...one.world.vault.state, entry: undefined };
        break;
      case 'join':
        if (scene.parties.length < 3) join(scene);
    }
  }

  /** What is wrong with a scene; empty: nothing. */
  function defectsOf({ parties }: Scene): string[] {
    const workloads = parties.flatMap((one, n) => one.workloads.map((workload) => ({ ...workload, n })));
    const strangers = workloads.flatMap((a) => workloads.filter((b) => !b.trusts.includes(a.signer)).map((b) => `${b.n} refuses ${a.n}`)); // prettier-ignore
    const istiods = parties.flatMap(({ istiods: all, namespace }, n) =>
      all.some(({ signer }) => !namespace.includes(signer)) ? [`namespace ${n} refuses its istiod`] : [],
    );
    const entries = parties.flatMap(({ world, desired }, n) =>
      derived(desired({}), world).currentCa ? [] : [`no CA of ${n}`],
    );
    return [...strangers, ...istiods, ...entries];
  }

  /** Events that bring an undisturbed scene through every phase. */
  const settle = (n: number): Event[] =>
    Array.from({ length: 2 }, (): Event[] => [
      ...Array.from({ length: 6 }, (): Event => ({ kind: 'step', party: n, bits: 31 })),
      { kind: 'reload', party: n, replica: 0 },
      { kind: 'reload', party: n, replica: 1 },
      { kind: 'namespace', party: n },
    ]).flat();
  const rounds = (n: number): Event[] =>
    Array.from({ length: n }, (): Event[] => [
      ...[0, 1, 2].flatMap(settle),
      { kind: 'wait', hours: 30 },
      { kind: 'membersReady' },
      { kind: 'join' },
    ]).flat();
  const whole = rounds(12);
  /** A rotation that is rolled back after some rounds, when the member has followed. */
  const thereAndBack = (after: number): Event[] => [
    ...rounds(after),
    ...[0, 1].flatMap(settle),
    { kind: 'annotate', party: 0, name: annotations.rollbackRotation, text: 'back' },
    ...rounds(8),
  ];
  /** Two days in which a rotation gets far, between what is random. */
  const stretch: Event[] = [
    ...[0, 1, 2].flatMap(settle),
    { kind: 'wait', hours: 30 },
    ...[0, 1, 2].flatMap(settle),
    { kind: 'membersReady' },
  ];

  it('whatever lags, crashes, pauses, is rolled back or forgotten, comes late, or cannot read the mount', () => {
    const reached = new Set<string>();
    const chunk = fc.oneof(
      { weight: 12, arbitrary: event.map((one) => [one]) },
      { weight: 1, arbitrary: fc.constant(stretch) },
    );
    fc.assert(
      fc.property(fc.array(chunk, { minLength: 30, maxLength: 80 }), fc.boolean(), (chunks, calm) => {
        const ownersWorld = converge(ownerWith(), emptyWorld()).world;
        const scene: Scene = { now: start, parties: [beginning(start, ownersWorld, ownerWith)], given: 0 };
        join(scene);
        scene.now += hour;
        const disturbs = (one: Event) => /pause|forget|annotate/.test(one.kind);
        const begin: Event = { kind: 'annotate', party: 0, name: annotations.rotateRoot, text: 'first' };
        for (const one of [begin, ...chunks.flat().filter((one) => !calm || !disturbs(one))]) {
          happen(scene, one);
          const broken = defectsOf(scene);
          if (broken.length > 0) expect([one, broken]).toEqual([one, []]);
          for (const [n, { world }] of scene.parties.entries()) {
            const { phase: at = 'none', back = false } = ownEntry(world.vault.state)?.rotation ?? {};
            reached.add(`${n === 0 ? 'owner' : 'member'} ${at}${back ? ' back' : ''}`);
          }
        }
      }),
      {
        numRuns: 30,
        examples: [
          [[whole], true],
          ...[1, 2, 3].map((rounds): [Event[][], boolean] => [[thereAndBack(rounds)], false]),
        ],
      },
    );
    for (const at of ['Issuing', 'Distributing', 'Switching', 'Retiring', 'Switching back', 'Retiring back'])
      expect([...reached]).toContain(`owner ${at}`);
    for (const at of ['none', 'Switching', 'Retiring', 'Switching back'])
      expect([...reached]).toContain(`member ${at}`);
  });
});
