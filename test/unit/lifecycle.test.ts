/** Properties of the planner after the first issue: renewal, reissue, adoption, deletion. */
import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { annotations } from '../../src/api/annotations.ts';
import type { CertificateFacts } from '../../src/plan/facts/certificate.ts';
import type { Desired } from '../../src/plan/facts/desired.ts';
import { markerOf, parseMarker } from '../../src/plan/facts/identity.ts';
import { ownEntry, type Observed } from '../../src/plan/facts/observed.ts';
import { plan } from '../../src/plan/plan.ts';
import { simulateStep } from '../../src/plan/simulate.ts';
import type { Step, StepKind } from '../../src/plan/steps.ts';
import { mountsThatStay, rootStays, cleanup } from '../../src/plan/vault/cleanup.ts';
import {
  converge,
  desiredOf,
  emptyWorld,
  essence,
  handMadeWorld,
  identity,
  leftBehind,
  someCa,
  start,
  derived,
} from './model.ts';

const d = desiredOf();
const kinds = (steps: Step[]): StepKind[] => steps.map((step) => step.kind);
const live = (world: Observed) => ownEntry(world.vault.live)!;
const state = (world: Observed) => ownEntry(world.vault.state)!;
const provisioned = (desired = d) => converge(desired, emptyWorld()).world;
const subset = (steps: Step[], bits: number) => steps.filter((_, i) => (bits >> i) & 1);
/** The steps that are executed despite crashes: a bit mask for each iteration. */
const crashes = fc.array(fc.nat(31), { maxLength: 20 });
const crashing = (bits: number[]) => ({
  pick: (steps: Step[], round: number) => (round < bits.length ? subset(steps, bits[round]!) : steps),
});

/** Whether the key in the CA entry is the key of its certificate. */
const ofOneSet = (world: Observed) => live(world).publicKey === live(world).certificate?.publicKey;

describe('renewal', () => {
  const rotating = (text: string, over: Record<string, unknown> = {}): Desired =>
    desiredOf(over, { [annotations.rotateIntermediate]: text });
  const never = { intermediate: { key: { rotationPolicy: 'Never' } } };

  it('begins at renewAt and not before', () => {
    const world = provisioned();
    const due = derived(d, world).renewAt!;
    expect(plan(d, world, due - 1).steps).toEqual([]);
    const { world: end, done } = converge(d, world, { now: due });
    expect(kinds(done)).toEqual([
      'StageKey',
      'ImportKey',
      'SignIntermediate',
      'PublishLive',
      'SetDefaultIssuer',
      'WriteState',
      'RemoveStaging',
    ]);
    expect(state(end).history[0]).toMatchObject({ kind: 'Intermediate', reason: 'renewal' });
  });

  it('by a new text, once; the same text again, a restart or another look do nothing', () => {
    const { world, done } = converge(rotating('a'), provisioned());
    expect([live(world).generation, kinds(done)[0]]).toEqual([2, 'StageKey']);
    expect(plan(rotating('a'), world, start)).toEqual({ problems: [], steps: [] });
    expect(live(converge(rotating('b'), world).world).generation).toBe(3);
  });

  it('a text that stands at the first issue is handled already', () => {
    expect(live(converge(rotating('a'), emptyWorld()).world).generation).toBe(1);
  });

  it('a long text is remembered by its hash, and still only once', () => {
    const long = rotating('x'.repeat(10_000));
    const { world } = converge(long, provisioned());
    expect(live(world).generation).toBe(2);
    expect(JSON.stringify(state(world)).length).toBeLessThan(5000);
    expect(plan(long, world, start).steps).toEqual([]);
  });

  it('by a changed spec, against what it was issued for and never against the certificate', () => {
    const changed = desiredOf({ intermediate: { commonName: 'Other' } });
    const { world } = converge(changed, provisioned());
    expect([live(world).generation, live(world).certificate?.subject.commonName]).toEqual([2, 'Other']);
    expect(state(world).history[0]?.reason).toContain('commonName: Istio Intermediate CA → Other');
  });

  it('with rotationPolicy Never the same key is signed again; a changed key type makes a new one', () => {
    const before = provisioned(desiredOf(never));
    const { world } = converge(rotating('a', never), before);
    expect([live(world).generation, live(world).publicKey]).toEqual([2, live(before).publicKey]);
    expect(live(world).certificate?.fingerprint).not.toBe(live(before).certificate?.fingerprint);
    const other = desiredOf({ intermediate: { key: { rotationPolicy: 'Never', type: 'ec' } } });
    expect(live(converge(other, world).world).publicKey).not.toBe(live(before).publicKey);
  });

  it('PKI delivery keeps the key by default', () => {
    const pki = { delivery: { source: 'PKI' } };
    const before = provisioned(desiredOf(pki));
    expect(live(converge(rotating('a', pki), before).world).publicKey).toBe(live(before).publicKey);
  });

  it('a hundred of them leave two generations at most, whatever crashes between', () => {
    for (const over of [{}, never]) {
      let world = provisioned(desiredOf(over));
      fc.assert(
        fc.property(crashes, (bits) => {
          const text = String(live(world).generation);
          world = converge(rotating(text, over), world, crashing(bits)).world;
          expect(world.vault.intermediatePki?.issuers.length).toBeLessThanOrEqual(2);
          expect(world.vault.intermediatePki?.keys.length).toBeLessThanOrEqual(2);
          expect(ofOneSet(world)).toBe(true);
        }),
        { numRuns: 100 },
      );
      expect(live(world).generation).toBeGreaterThan(100);
      expect(world.vault.rootPki?.issuers).toHaveLength(1);
    }
  });

  it('a spec that changes again and again on the way ends in the last one, with nothing left over', () => {
    const specs = fc.array(fc.tuple(fc.constantFrom('A', 'B', 'C'), fc.nat(6)), { minLength: 1, maxLength: 6 });
    fc.assert(
      fc.property(specs, fc.constantFrom('Always', 'Never'), (changes, rotationPolicy) => {
        const wanted = (commonName: string) => desiredOf({ intermediate: { commonName, key: { rotationPolicy } } });
        let world = provisioned(wanted('first'));
        for (const [commonName, rounds] of changes) {
          for (let round = 0; round < rounds; round += 1)
            for (const step of plan(wanted(commonName), world, start).steps)
              world = simulateStep(wanted(commonName), world, step, start);
        }
        const last = changes.at(-1)![0];
        const { world: end } = converge(wanted(last), world);
        expect(live(end).certificate?.subject.commonName).toBe(last);
        expect(essence(d, end)).toMatchObject({ liveDefect: undefined, defaultIsLive: true, staging: undefined });
        expect(end.vault.intermediatePki?.issuers.length).toBeLessThanOrEqual(2);
        expect(end.vault.intermediatePki?.keys.length).toBeLessThanOrEqual(2);
      }),
      { numRuns: 200 },
    );
  });

  it('what carries the reused key already answers no request, and stays', () => {
    const before = provisioned(desiredOf(never));
    const root = before.vault.rootPki!.issuers[0]!.certificate;
    const { keyId, certificate } = before.vault.intermediatePki!.issuers[0]!;
    const byHand = { ...someCa('signed again by hand', root), publicKey: certificate.publicKey };
    before.vault.intermediatePki!.issuers.push({ id: 'i-x', keyId, keyName: '', certificate: byHand });
    const changed = desiredOf({ intermediate: { key: { rotationPolicy: 'Never' }, organization: 'New' } });
    const { world, done } = converge(changed, before);
    expect(kinds(done)).toContain('SignIntermediate');
    expect(live(world).certificate?.subject.organization).toBe('New');
    const other = desiredOf({ intermediate: { key: { rotationPolicy: 'Never' }, organization: 'Newer' } });
    const staged = simulateStep(changed, before, plan(changed, before, start).steps[0]!, start);
    expect(converge(other, staged).done.filter((s) => s.kind === 'Collect' && s.issuerIds.includes('i-x'))).toEqual([]);
  });

  it('one that has ended while the operator was away is signed again, not published', () => {
    const short = { intermediate: { ttl: '2h', maxWorkloadCertTTL: '10m' } };
    let world = provisioned(desiredOf(short));
    const wanted = rotating('a', short);
    while (
      !world.vault.intermediatePki!.issuers.some(
        (i) => i.certificate.fingerprint !== live(world).certificate!.fingerprint,
      )
    )
      for (const step of plan(wanted, world, start).steps) world = simulateStep(wanted, world, step, start);
    const now = start + 3 * 3_600_000;
    const { world: end } = converge(wanted, world, { now });
    expect(live(end).certificate!.notAfter).toBeGreaterThan(now);
  });

  it('never touches what somebody else keeps in the mount', () => {
    const world = provisioned();
    const stranger = someCa('stranger', world.vault.rootPki!.issuers[0]!.certificate);
    world.vault.intermediatePki!.issuers.push({ id: 'i-x', keyId: 'k-x', keyName: 'theirs', certificate: stranger });
    world.vault.intermediatePki!.keys.push({ id: 'k-x', name: 'theirs' }, { id: 'k-y', name: '' });
    const end = ['a', 'b', 'c'].reduce((w, text) => converge(rotating(text), w).world, world);
    expect(end.vault.intermediatePki!.keys.map((key) => key.id)).toEqual(expect.arrayContaining(['k-x', 'k-y']));
    expect(end.vault.intermediatePki!.issuers.map((issuer) => issuer.id)).toContain('i-x');
  });
});

describe('an intermediate that is short for what istiod allows', () => {
  const hour = 3_600_000;
  const of = (ttl: string, texts: Record<string, string> = {}) => desiredOf({ intermediate: { ttl } }, texts);
  const short = of('720h');
  type Limit = Observed['kubernetes']['maxWorkloadCertTtlMs'];
  const showing = (world: Observed, limit: Limit): Observed => ({
    ...world,
    kubernetes: { ...world.kubernetes, maxWorkloadCertTtlMs: limit },
  });
  const brief = (desired: Desired, world: Observed, limit: Limit) => {
    const { problems, steps } = plan(desired, showing(world, limit), start);
    return [steps.length, ...problems.map(({ reason, blocks }) => `${reason} ${blocks}`)];
  };
  /** A world with an intermediate that was issued while istiod allowed workload certificates of a day. */
  const issued = () => converge(short, showing(emptyWorld(), 24 * hour)).world;
  const refused = [0, 'IntermediateTTLTooShort all'];

  it('is refused before it is issued, by Istio’s default where istiod is not there to tell', () => {
    expect(brief(short, emptyWorld(), 2160 * hour)).toEqual(refused);
    expect(brief(short, emptyWorld(), 'unknown')).toEqual(refused);
    expect(plan(short, emptyWorld(), start).problems[0]?.message).toContain("(2160h: Istio's default, since istiod is");
    expect(issued().vault.live.entry).toBeDefined();
  });

  it('says nothing and is renewed no sooner while istiod is gone for a moment', () => {
    const world = issued();
    expect(brief(short, world, 'unknown')).toEqual([0]);
    expect(derived(short, showing(world, 'unknown')).renewAt).toBe(derived(short, world).renewAt);
    const long = desiredOf({ intermediate: { ttl: '5000h' } });
    const other = converge(long, showing(emptyWorld(), 2160 * hour)).world;
    expect(derived(long, showing(other, 'unknown')).renewAt).toBeGreaterThan(derived(long, other).renewAt!);
  });

  it('is said once istiod allows more, and renewed and repaired all the same', () => {
    const world = issued();
    expect(brief(short, world, 2160 * hour)).toEqual([0, 'IntermediateTTLTooShort nothing']);
    const asked = of('720h', { [annotations.rotateIntermediate]: 'x' });
    expect(live(converge(asked, showing(world, 2160 * hour)).world).generation).toBe(2);
    const damaged = issued();
    damaged.vault.live = { casVersion: damaged.vault.live.casVersion, entry: undefined };
    damaged.vault.policy = undefined;
    const repaired = converge(short, showing(damaged, 2160 * hour)).world;
    expect(essence(short, repaired)).toMatchObject({ liveDefect: undefined, live: true, staging: undefined });
    damaged.vault.state = { casVersion: 9, entry: undefined };
    expect(
      brief(short, { ...issued(), vault: { ...issued().vault, state: damaged.vault.state } }, 2160 * hour),
    ).toEqual([1, 'IntermediateTTLTooShort nothing']);
  });

  it('in the place of a longer one is refused as ever; a longer one that is still too short is an improvement', () => {
    for (const limit of [2160 * hour, 'unknown'] as const) expect(brief(of('700h'), issued(), limit)).toEqual(refused);
    expect(brief(of('800h'), issued(), 2160 * hour)).toEqual([1, 'IntermediateTTLTooShort nothing']);
  });

  it('never ends unrenewed, and is never renewed before half of its life, whatever istiod shows and when', () => {
    const shows = fc.record({
      limit: fc.constantFrom<Limit>(24 * hour, 300 * hour, 2160 * hour, 9000 * hour, 'unknown'),
      hours: fc.integer({ min: 1, max: 200 }),
    });
    fc.assert(
      fc.property(fc.array(shows, { maxLength: 40 }), (looks) => {
        let world = issued();
        let now = start;
        for (const { limit, hours } of looks) {
          now += hours * hour;
          const before = live(world);
          world = converge(short, showing(world, limit), { now }).world;
          const { generation, certificate } = live(world);
          expect(certificate!.notAfter).toBeGreaterThan(now);
          if (generation !== before.generation)
            expect(now - before.certificate!.notBefore).toBeGreaterThanOrEqual(360 * hour);
        }
      }),
    );
  });
});

describe('what somebody wrote over', () => {
  it('gets its mark back', () => {
    const world = provisioned();
    world.vault.rootMount!.description = 'Istio root';
    world.vault.intermediateMount!.description = '';
    world.vault.policy = 'path "kv/data/istioca" { capabilities = ["read"] }';
    const { world: end, last, done } = converge(d, world);
    expect(last.problems).toEqual([]);
    for (const text of [end.vault.rootMount?.description, end.vault.intermediateMount?.description, end.vault.policy])
      expect(parseMarker(text)).toMatchObject({ ...identity, origin: 'made' });
    expect(kinds(done).sort()).toEqual(['TuneMount', 'TuneMount', 'WritePolicy']);
  });

  it.each<[string, (w: Observed) => void]>([
    ['bears the mark of another', (w) => (w.vault.rootMount!.description = markerOf({ ...identity, name: 'other' }))],
    ['holds a CA of somebody else', (w) => {
      w.vault.rootMount!.description = '';
      w.vault.rootPki = { issuers: [{ id: 'x', keyId: 'k', keyName: '', certificate: someCa('theirs', undefined) }], keys: [], defaultIssuerId: 'x' };
    }],
  ])('is left alone when it %s', (_, damage) => {
    const world = provisioned();
    damage(world);
    const { steps, problems } = plan(d, world, start);
    expect([steps, problems.map((p) => p.reason)]).toEqual([[], expect.arrayContaining(['MountNotOwned'])]);
    expect(problems[0]?.message).not.toMatch(/or remove it|spec.adopt: true to take/);
  }); // prettier-ignore

  describe.each([
    ['made', () => provisioned(), d],
    ['adopted', () => converge(desiredOf({ adopt: true }), handMadeWorld(d)).world, desiredOf({ adopt: true })],
  ] as const)('a live entry that was %s and lost its mark', (_, begin, wanted) => {
    const overwritten = (publicKey?: string) => {
      const world = begin();
      publicKey ??= live(world).publicKey;
      world.vault.live = {
        ...world.vault.live,
        entry: 'foreign',
        mark: '',
        foreign: { publicKey, generation: 0, root: '', others: [] },
      };
      return world;
    };

    it('is written again when it holds the same key', () => {
      const before = overwritten();
      const { world, done } = converge(wanted, before);
      expect(kinds(done)).toEqual(['PublishLive']);
      expect(live(world).certificate?.fingerprint).toBe(state(before).intermediate?.fingerprint);
      expect([live(world).generation, ofOneSet(world)]).toEqual([1, true]);
    });

    it('is replaced by a new generation when it holds another', () => {
      const { world, last } = converge(wanted, overwritten('another'));
      expect(last.problems).toEqual([]);
      expect([live(world).generation, ofOneSet(world)]).toEqual([2, true]);
      expect(world.vault.rootPki?.issuers).toHaveLength(1);
    });
  });
});

describe('a lost root', () => {
  const lost = () => {
    const world = provisioned();
    world.vault.rootPki = { issuers: [], keys: [], defaultIssuerId: '' };
    return world;
  };

  it('is made anew only under its serial, and gives the mesh a new intermediate', () => {
    const world = lost();
    const { serial } = state(world).root!;
    for (const text of ['', 'aa:bb', 'yes'])
      expect(plan(desiredOf({}, { [annotations.allowReissue]: text }), world, start).steps).toEqual([]);
    expect(plan(d, world, start).problems[0]?.message).toContain(`${annotations.allowReissue}=${serial}`);
    const allowed = desiredOf({}, { [annotations.allowReissue]: serial! });
    const { world: end, last } = converge(allowed, world);
    expect(last.problems).toEqual([]);
    expect(derived(d, end).signer?.generation).toBe(2);
    expect(essence(d, end)).toMatchObject({ live: true, recorded: true, defaultIsLive: true });
    expect(
      state(end)
        .history.map((entry) => entry.reason)
        .slice(0, 2),
    ).toEqual(['a lost root was made anew', 'a lost root made anew']);
  });

  it('ends the same after a crash anywhere, and the permission is good for this one root only', () => {
    fc.assert(
      fc.property(crashes, (bits) => {
        const world = lost();
        const allowed = desiredOf({}, { [annotations.allowReissue]: state(world).root!.serial! });
        const { world: end } = converge(allowed, world, crashing(bits));
        expect(essence(d, end)).toMatchObject({ live: true, roots: 1, rootKeys: 1 });
        end.vault.rootPki = { issuers: [], keys: [], defaultIssuerId: '' };
        expect(plan(allowed, end, start)).toMatchObject({ steps: [], problems: [{ reason: 'RootLost' }] });
      }),
    );
  });
});

describe('adoption', () => {
  const adopting = (over: Record<string, unknown> = {}, texts: Record<string, string> = {}) =>
    desiredOf({ adopt: true, ...over }, texts);

  it('of a hand-made CA: same root, same intermediate, same key, all marked as adopted', () => {
    const before = handMadeWorld(d);
    const { world, done, last } = converge(adopting(), before);
    expect(last).toEqual({ problems: [], steps: [] });
    const { certificate } = before.vault.intermediatePki!.issuers[0]!;
    expect(live(world)).toMatchObject({ generation: 1, certificate, publicKey: certificate.publicKey });
    expect(world.vault.rootPki).toEqual(before.vault.rootPki);
    expect(world.vault.intermediatePki).toEqual(before.vault.intermediatePki);
    expect(kinds(done)).not.toEqual(expect.arrayContaining(['GenerateRoot', 'StageKey', 'SignIntermediate']));
    for (const text of [
      world.vault.rootMount?.description,
      world.vault.intermediateMount?.description,
      world.vault.policy,
    ])
      expect(parseMarker(text)).toMatchObject({ ...identity, origin: 'adopted' });
    expect(world.vault.live.mark).toContain('origin=adopted');
    expect(state(world).history.map((entry) => `${entry.kind} ${entry.reason}`)).toEqual([
      'Intermediate adopted',
      'Root adopted',
    ]);
  });

  it('what differs from the spec is no change; a later change of the spec is', () => {
    const { world } = converge(adopting({ intermediate: { commonName: 'Other', ttl: '30000h' } }), handMadeWorld(d));
    expect(live(world).generation).toBe(1);
    const { world: end } = converge(adopting({ intermediate: { commonName: 'Another' } }), world);
    expect([live(end).generation, live(end).certificate?.subject.commonName]).toEqual([2, 'Another']);
  });

  it('ends the same after a crash anywhere', () => {
    const whole = converge(adopting(), handMadeWorld(d)).world;
    fc.assert(
      fc.property(crashes, (bits) => {
        const { world } = converge(adopting(), handMadeWorld(d), crashing(bits));
        expect(essence(d, world)).toEqual(essence(d, whole));
      }),
    );
  });

  it('what was taken over is rotated and collected like what we made', () => {
    let { world } = converge(adopting(), handMadeWorld(d));
    for (const text of ['a', 'b'])
      world = converge(adopting({}, { [annotations.rotateIntermediate]: text }), world).world;
    expect(live(world).generation).toBe(3);
    expect(world.vault.intermediatePki?.keys.map((key) => key.id)).not.toContain('key-intermediate');
    expect(world.vault.intermediatePki?.issuers).toHaveLength(2);
    expect(world.vault.live.mark).toContain('origin=adopted');
  });

  it('survives the loss of the state', () => {
    const { world } = converge(adopting(), handMadeWorld(d));
    world.vault.state = { casVersion: 5, entry: undefined };
    const { world: end, done } = converge(adopting(), world);
    expect(kinds(done)).toEqual(['WriteState']);
    expect(live(end).certificate).toEqual(live(world).certificate);
  });

  it('is remembered when the state is lost: what was taken over is not deleted then', () => {
    const leaving = { deletionPolicy: 'Delete' };
    const taken = converge(adopting(leaving), handMadeWorld(d)).world;
    taken.vault.state = { casVersion: 5, entry: undefined };
    const rebuilt = converge(desiredOf(leaving), taken).world;
    expect([...state(rebuilt).adopted].sort()).toEqual(
      [...state(converge(adopting(), handMadeWorld(d)).world).adopted].sort(),
    );
    rebuilt.vault.remains = { otherEntries: [], otherRoles: [], rootMountRoles: [], signed: [] };
    const away = converge(desiredOf(leaving), rebuilt, { next: (desired, o) => cleanup(desired, o, start) });
    expect(away.world.vault.role).toEqual(taken.vault.role);
  });

  it('without adopt nothing is planned', () => {
    const { steps, problems } = plan(d, handMadeWorld(d), start);
    expect(steps).toEqual([]);
    expect(new Set(problems.map((p) => p.reason))).toEqual(new Set(['MountNotOwned']));
    expect(problems[0]?.message).toContain('spec.adopt: true');
  });

  it.each<[string, (w: Observed) => void]>([
    ['a key of another certificate', (w) => (w.vault.live.foreign!.publicKey = 'another')],
    ['no key', (w) => (w.vault.live.foreign!.publicKey = undefined)],
    ['no entry', (w) => (w.vault.live = { casVersion: 0, entry: undefined })],
    ['no issuer', (w) => (w.vault.intermediatePki = { issuers: [], keys: [], defaultIssuerId: '' })],
    ['another root', (w) => (w.vault.rootPki!.issuers[0]!.certificate = someCa('other', undefined))],
    ['no root', (w) => (w.vault.rootPki = { issuers: [], keys: [], defaultIssuerId: '' })],
    ['a root without its key', (w) => (w.vault.rootPki!.issuers[0]!.keyId = '')],
    ['an intermediate without its key', (w) => (w.vault.intermediatePki!.issuers[0]!.keyId = '')],
  ])('%s does not fit together and is refused', (_, damage) => {
    const world = handMadeWorld(d);
    damage(world);
    const { steps, problems } = plan(adopting(), world, start);
    expect(steps).toEqual([]);
    expect(problems.map((p) => p.reason)).toContain('AdoptionMismatch');
  });

  it('of an entry that holds more is refused, and names the fields: they would be lost', () => {
    const world = handMadeWorld(d);
    world.vault.live.foreign!.others = ['a', 'b', 'c', 'd', 'e', 'f', 'g'];
    const { steps, problems } = plan(adopting(), world, start);
    expect([steps, problems.map((p) => p.reason)]).toEqual([[], ['AdoptionMismatch']]);
    expect(problems[0]?.message).toContain('kv/istioca also holds "a", "b", "c", "d", "e" and 2 more');
  });

  it('of an entry of KV 1 sets its ttl, which is how often agents look', () => {
    const first = { keyStore: { version: 1 } };
    const world = handMadeWorld(desiredOf(first));
    world.vault.live.foreign!.others = ['ttl'];
    expect(plan(adopting(first), world, start).problems).toEqual([]);
    const second = handMadeWorld(d);
    second.vault.live.foreign!.others = ['ttl'];
    expect(plan(adopting(), second, start).problems[0]?.message).toContain('"ttl"');
  });

  describe('with several roots in root-cert.pem', () => {
    const theirs = someCa('theirs', undefined);
    const withRoots = (choose: (signer: CertificateFacts, other: CertificateFacts) => CertificateFacts[], keyId = 'key-other') => {
      const world = handMadeWorld(d);
      const other = someCa('other root', undefined);
      const issuers = world.vault.rootPki!.issuers;
      const signer = issuers[0]!.certificate;
      issuers.push({ id: 'issuer-other', keyId, keyName: '', certificate: other });
      world.vault.live.foreign!.root = choose(signer, other).map(({ pem }) => pem).join('');
      return { world, signer, other };
    };

    it('two of the root mount are a rotation, which goes on with the one that signed', () => {
      for (const meshKnows of [0, 1]) {
        const { world, signer, other } = withRoots((s, o) => [s, o]);
        world.kubernetes.meshRoots = [[signer, other][meshKnows]!];
        const { world: end, last } = converge(adopting(), world);
        expect(last.problems).toEqual([]);
        expect(live(end).root).toBe(signer.pem + other.pem);
        expect(derived(d, end).signer?.certificate).toEqual(signer);
        expect(state(end)).toMatchObject({ root: { fingerprint: other.fingerprint }, rotation: { phase: 'Switching', to: { fingerprint: signer.fingerprint } } });
      }
    });

    it.each<[string, ReturnType<typeof withRoots>, RegExp, 'Bundle' | 'PKI']>([
      ['one of somewhere else', withRoots((s) => [s, theirs]), new RegExp(`"theirs" .*SHA-256 ${theirs.fingerprint}.*whose key is not in pki`), 'Bundle'],
      ['one whose key is not in the mount', withRoots((s, o) => [s, o], ''), /"other root" .*whose key is not in pki/, 'Bundle'],
      ['three', withRoots((s, o) => [s, o, theirs]), /3 roots.*"other root".*"theirs"/, 'Bundle'],
      ['only another one', withRoots((_, o) => [o]), /does not hold the root/, 'Bundle'],
      ['one that cannot be read', withRoots((s) => [s, { ...s, pem: '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n' }]), /cannot be read/, 'Bundle'],
      ['two for one file of the PKI mount', withRoots((s, o) => [s, o]), /spec.delivery.source: Bundle/, 'PKI'],
    ])('%s: nothing is written, and it says which and what to do', (_, { world }, message, source) => {
      const { steps, problems } = plan(adopting({ delivery: { source } }), world, start);
      expect([steps, problems.map((p) => p.reason)]).toEqual([[], ['AdoptionMismatch']]);
      expect(problems[0]?.message).toMatch(message);
      expect(problems[0]?.message).toMatch(/nothing was changed\. /);
    });
  }); // prettier-ignore

  it('a role of a living resource is not taken over', () => {
    for (const change of [{ policies: ['theirs'] }, { serviceAccountNamespaces: ['elsewhere'] }]) {
      const world = handMadeWorld(d);
      Object.assign(world.vault.role!, change);
      const { steps, problems } = plan(adopting(), world, start);
      expect([steps, problems.map((p) => p.reason)]).toEqual([[], ['MountNotOwned']]);
      expect(problems[0]?.message).toContain('somebody else');
    }
  });

  it('fields that a resource before it has left do not silence WouldReplaceRoot', () => {
    const world = handMadeWorld(d);
    world.kubernetes.meshRoots = [someCa('of the resource before', undefined)];
    world.kubernetes.controlPlane!.writtenBefore = true;
    expect(plan(adopting(), world, start)).toMatchObject({ steps: [], problems: [{ reason: 'WouldReplaceRoot' }] });
  });

  it('of a CA whose memory was written over: it is rebuilt, and nothing else changes', () => {
    const world = provisioned();
    world.vault.state = { casVersion: 7, entry: 'foreign', mark: '' };
    expect(plan(d, world, start).problems.map((p) => p.reason)).toEqual(['MountNotOwned']);
    const { world: end, done, last } = converge(adopting(), world);
    expect([kinds(done), last.problems]).toEqual([['WriteState'], []]);
    expect(live(end)).toEqual(live(world));
  });

  it('a mesh with another root is left alone', () => {
    const world = handMadeWorld(d);
    world.kubernetes.meshRoots = [someCa('other', undefined)];
    expect(plan(adopting(), world, start)).toMatchObject({ steps: [], problems: [{ reason: 'WouldReplaceRoot' }] });
  });

  describe('of what a resource left', () => {
    const theirs = { ...identity, name: 'gone', uid: 'u-9' };
    const left = (owner = theirs) => {
      const other = { ...d, identity: owner, mark: markerOf(owner) };
      return converge(other, emptyWorld()).world;
    };
    const asForeign = (owner = theirs): Observed => {
      const world = left(owner);
      const { publicKey, generation, root } = live(world);
      world.vault.live = {
        ...world.vault.live,
        entry: 'foreign',
        foreign: { publicKey, generation, root, others: [] },
      };
      world.vault.state = { ...world.vault.state, entry: 'foreign' };
      world.kubernetes.controlPlane!.owner = undefined;
      return world;
    };

    it('in this cluster: only when it is gone', () => {
      const world = asForeign();
      expect(plan(adopting(), world, start).steps).toEqual([]);
      expect(plan(adopting(), world, start).problems[0]?.message).toContain('belongs to IstioVaultCA');
      world.kubernetes.goneOwners = ['istio-system/gone'];
      const { world: end, last } = converge(adopting(), world);
      expect(last.problems).toEqual([]);
      expect(live(end).certificate?.fingerprint).toBe(
        left().vault.live.entry === 'foreign' ? '' : live(end).certificate?.fingerprint,
      );
      expect(derived(d, end).signer?.certificate).toEqual(world.vault.rootPki!.issuers[0]!.certificate);
    });

    describe('with a key that it had staged and not published', () => {
      const renewing = desiredOf({}, { [annotations.rotateIntermediate]: 'theirs' });
      const stagedBehind = (...rounds: StepKind[]) => {
        let world = provisioned();
        for (const kind of rounds) {
          const [step] = plan(renewing, world, start).steps;
          expect(step?.kind).toBe(kind);
          world = simulateStep(renewing, world, step!, start);
        }
        return leftBehind(world);
      };

      it.each<[string, StepKind[]]>([
        ['stored only', ['StageKey']],
        ['imported', ['StageKey', 'ImportKey']],
        ['signed', ['StageKey', 'ImportKey', 'SignIntermediate']],
        ['published, but not recorded', ['StageKey', 'ImportKey', 'SignIntermediate', 'PublishLive']],
      ])('be it %s: it is destroyed, and the CA goes on as it was published', (_, rounds) => {
        const world = stagedBehind(...rounds);
        const { world: end, done, last } = converge(adopting(), world);
        expect(last).toEqual({ problems: [], steps: [] });
        expect(kinds(done)).toContain('RemoveStaging');
        expect(kinds(done)).not.toContain('StageKey');
        expect(live(end).publicKey).toBe(world.vault.live.foreign!.publicKey);
        expect(essence(d, end)).toMatchObject({ live: true, recorded: true, defaultIsLive: true, staging: undefined });
        const { world: next } = converge(adopting({}, { [annotations.rotateIntermediate]: 'ours' }), end);
        expect(live(next).generation).toBe(live(end).generation + 1);
      });

      it('ends the same after a crash anywhere', () => {
        const world = stagedBehind('StageKey');
        const whole = converge(adopting(), world).world;
        fc.assert(
          fc.property(crashes, (bits) => {
            expect(essence(d, converge(adopting(), world, crashing(bits)).world)).toEqual(essence(d, whole));
          }),
        );
      });

      it('while it lives, or in another cluster, stays, and says what would help', () => {
        const said = (desired: Desired, world: Observed) => {
          const { steps, problems } = plan(desired, world, start);
          expect(steps).toEqual([]);
          return problems.find((p) => p.message.includes('kv/istioca-staging'))?.message;
        };
        const world = stagedBehind('StageKey');
        const nothing = { casVersion: 0, entry: undefined };
        const only = { ...world, vault: { ...world.vault, live: nothing, state: nothing } };
        expect(said(d, only)).toMatch(/gone: set spec.adopt: true, and it is destroyed; or remove it: `vault kv metadata delete -mount=kv istioca-staging`$/);
        const living = { ...only, kubernetes: { ...world.kubernetes, goneOwners: [] } };
        expect(said(adopting(), living)).toMatch(/never published: choose another path$/);
        const staging = { ...world.vault.staging, mark: world.vault.staging.mark!.replace('c-1', 'c-2') };
        expect(said(adopting(), { ...only, vault: { ...only.vault, staging } })).toContain(`${annotations.takeOver}=c-2/istio-system/gone`);
        const named = adopting({}, { [annotations.takeOver]: 'c-2/istio-system/gone' });
        expect(converge(named, { ...world, vault: { ...world.vault, staging } }).last.problems).toEqual([]);
      });

      it('without a mark is a person’s, and stays', () => {
        const world = stagedBehind('StageKey');
        world.vault.staging.mark = '';
        const { steps, problems } = plan(adopting(), world, start);
        expect([steps, problems.map((p) => p.reason)]).toEqual([[], ['MountNotOwned']]);
        expect(problems[0]?.message).toContain('; choose another path, or remove it if nobody needs it: `vault kv');
      });
    }); // prettier-ignore

    it('in another cluster: only when the annotation names it', () => {
      const owner = { ...theirs, cluster: 'c-2' };
      const world = asForeign(owner);
      world.kubernetes.goneOwners = ['istio-system/gone'];
      expect(plan(adopting(), world, start).steps).toEqual([]);
      const named = adopting({}, { [annotations.takeOver]: 'c-2/istio-system/gone' });
      expect(converge(named, world).last.problems).toEqual([]);
      expect(plan(desiredOf({}, named.annotations), world, start).steps).toEqual([]);
    });
  });
});

describe('deletion', () => {
  const away = { next: (desired: Desired, o: Observed) => cleanup(desired, o, start) };
  const leaving = (over: Record<string, unknown> = {}, texts: Record<string, string> = {}) =>
    desiredOf({ deletionPolicy: 'Delete', ...over }, texts);
  const withRemains = (world: Observed, signed: { serial: string; publicKey: string; selfIssued: boolean }[] = []) => {
    world.vault.remains = { otherEntries: [], otherRoles: [], rootMountRoles: [], signed };
    return world;
  };
  const confirmed = (world: Observed) =>
    leaving({}, { [annotations.confirmDeleteRoot]: derived(d, world).signer!.certificate.serial.toUpperCase() });

  it('gives the fields back, then takes role, policy, entries and mount, in this order; the root stays', () => {
    const { world, done, last } = converge(leaving(), withRemains(provisioned()), away);
    expect(last).toEqual({ problems: [], steps: [] });
    expect(done.map((s) => ('entry' in s ? `${s.kind} ${s.entry}` : 'mount' in s && s.kind === 'Unmount' ? `${s.kind} ${s.mount}` : s.kind))).toEqual([
      'ReleaseControlPlane',
      'DeleteRole',
      'DeletePolicy',
      'DeleteEntry staging',
      'DeleteEntry live',
      'Unmount istioca',
      'WriteState',
    ]); // prettier-ignore
    expect(world.vault.rootPki?.issuers).toHaveLength(1);
    expect(rootStays(derived(leaving(), world))).toContain(annotations.confirmDeleteRoot);
  });

  it('leaves the versions of the live entry that a person wrote, also in a mount of ours', () => {
    const before = emptyWorld();
    before.vault.kvMount = { type: 'kv', description: '', maxLeaseTtl: 0, kvVersion: 2 };
    before.vault.live = { casVersion: 3, entry: undefined };
    const world = withRemains(converge(d, before).world);
    world.vault.kvMount!.description = d.mark;
    const { world: end, done } = converge(confirmed(world), world, away);
    expect(done.filter((s) => s.kind === 'DeleteEntry' && s.entry === 'live')).toEqual([{ kind: 'DeleteEntry', entry: 'live', after: 3 }]);
    expect(end.vault.kvMount).toBeDefined();
  }); // prettier-ignore

  const unfit = { reason: 'ControlPlaneUnfit', message: 'it is for another namespace' } as const;
  it.each<[string, Partial<Observed['kubernetes']>, boolean]>([
    ['its own', {}, true],
    ['its own, which became unfit', { controlPlane: undefined, controlPlaneUnfit: { ...unfit, owner: identity.name } }, true],
    ["somebody else's", { controlPlane: { ...emptyWorld().kubernetes.controlPlane!, owner: 'other', carriesFields: true } }, false],
    ["somebody else's, which is unfit", { controlPlane: undefined, controlPlaneUnfit: { ...unfit, owner: 'other' } }, false],
    ['one whose owner bears its name in another namespace', { controlPlane: undefined, controlPlaneUnfit: unfit }, false],
    ['one that is not there', { controlPlane: undefined }, false],
  ])('gives back the fields of a control plane that is its own, and of no other: %s', (_, controlPlane, gives) => {
    const world = withRemains(provisioned());
    Object.assign(world.kubernetes, controlPlane);
    const { done, last } = converge(leaving(), world, away);
    expect(last).toEqual({ problems: [], steps: [] });
    expect(kinds(done).slice(0, 2)).toEqual(gives ? ['ReleaseControlPlane', 'DeleteRole'] : ['DeleteRole', 'DeletePolicy']);
    expect(kinds(done)).toContain('Unmount');
  }); // prettier-ignore

  it('waits for istiod before anything in Vault goes', () => {
    const world = withRemains(provisioned());
    world.kubernetes.controlPlane = undefined;
    world.kubernetes.istiodUses = ['pod istiod-1'];
    expect(cleanup(leaving(), world, start)).toMatchObject({ steps: [], problems: [{ reason: 'Deleting' }] });
  });

  it('names who else has set the fields that istiod still has', () => {
    const world = withRemains(provisioned());
    Object.assign(world.kubernetes.controlPlane!, { owner: undefined, sharedWith: { name: 'kubectl' } });
    world.kubernetes.istiodUses = ['pod istiod-1'];
    const [problem] = cleanup(leaving(), world, start).problems;
    expect(problem?.message).toMatch(/^fields are given back, but field manager kubectl has set some in .* too/);
  });

  it('ends the same after a crash anywhere', () => {
    fc.assert(
      fc.property(crashes, fc.boolean(), (bits, root) => {
        const world = withRemains(provisioned());
        const { vault } = converge(root ? confirmed(world) : leaving(), world, { ...away, ...crashing(bits) }).world;
        expect([vault.role, vault.policy, vault.intermediateMount]).toEqual(Array(3).fill(undefined));
        expect([vault.live.entry, vault.staging.entry]).toEqual(Array(2).fill(undefined));
        expect([vault.rootMount, vault.state.entry, vault.kvMount].map((x) => x === undefined)).toEqual(
          Array(3).fill(root),
        );
      }),
    );
  });

  it.each<[string, (w: Observed) => void]>([
    ['another issuer', (w) => w.vault.rootPki!.issuers.push({ id: 'x', keyId: 'k', keyName: 't', certificate: someCa('t', undefined) })],
    ['another key', (w) => w.vault.rootPki!.keys.push({ id: 'k', name: 'theirs' })],
    ['a certificate for somebody else', (w) => (w.vault.remains!.signed = [{ serial: 'aa', publicKey: 'theirs', selfIssued: false }])],
    ['a role', (w) => (w.vault.remains!.rootMountRoles = ['web'])],
    ['too many certificates', (w) => (w.vault.remains!.signed = undefined)],
  ])('a confirmed root that has %s stays', (_, put) => {
    const world = withRemains(provisioned());
    put(world);
    const { world: end, done } = converge(confirmed(world), world, away);
    expect(done.filter((s) => s.kind === 'Unmount').map((s) => s.mount)).toEqual(['istioca']);
    expect(end.vault.rootMount).toBeDefined();
  }); // prettier-ignore

  it('a confirmed root goes although it has signed many generations of ours', () => {
    let world = provisioned();
    for (const text of ['a', 'b', 'c', 'd'])
      world = converge(desiredOf({}, { [annotations.rotateIntermediate]: text }), world).world;
    const keys = state(world).publicKeys;
    expect(keys).toHaveLength(5);
    withRemains(
      world,
      keys.map((publicKey) => ({ serial: publicKey, publicKey, selfIssued: false })),
    );
    expect(converge(confirmed(world), world, away).world.vault.rootMount).toBeUndefined();
  });

  it('made anew, it takes its root up, and the confirmed root goes later although it has signed before', () => {
    const world = withRemains(provisioned());
    const first = live(world).publicKey!;
    const without = converge(leaving(), world, away).world;
    const { world: again } = converge(leaving(), without);
    expect(state(again).history[0]?.reason).toBe('first issue');
    withRemains(
      again,
      [first, live(again).publicKey!].map((key) => ({ serial: key, publicKey: key, selfIssued: false })),
    );
    const { world: end } = converge(confirmed(again), again, away);
    expect([end.vault.rootMount, end.vault.kvMount]).toEqual([undefined, undefined]);
  });

  it('an intermediate mount in which somebody else has a key stays', () => {
    const world = withRemains(provisioned());
    world.vault.intermediatePki!.keys.push({ id: 'k', name: 'theirs' });
    const { world: end, done } = converge(leaving(), world, away);
    expect(kinds(done)).not.toContain('Unmount');
    expect(mountsThatStay(derived(leaving(), end)).intermediate).toContain('theirs');
  });

  it('the KV mount stays while the memory of another resource lies in it', () => {
    const world = withRemains(provisioned());
    const gone = confirmed(world);
    const next = (desired: Desired, o: Observed) => {
      const seen = ownEntry(o.vault.live) === undefined && ownEntry(o.vault.state) === undefined;
      return cleanup(
        desired,
        seen ? { ...o, vault: { ...o.vault, state: { casVersion: 1, entry: 'foreign' } } } : o,
        start,
      );
    };
    expect(converge(gone, world, { next }).world.vault.kvMount).toBeDefined();
  });

  it('what the spec says not to manage stays', () => {
    const unmanaged = leaving({ policy: { manage: false }, root: { manage: false }, intermediate: { manage: false } });
    const { done } = converge(unmanaged, withRemains(provisioned()), away);
    expect(kinds(done)).not.toEqual(expect.arrayContaining(['DeletePolicy']));
    expect(kinds(done)).not.toEqual(expect.arrayContaining(['Unmount']));
  });

  it('who made nothing waits for nobody', () => {
    const world = withRemains(emptyWorld());
    world.kubernetes.istiodUses = ['pod istiod-1'];
    expect(cleanup(leaving(), world, start)).toEqual({ problems: [], steps: [] });
  });

  it('shared mounts that others use stay', () => {
    const world = withRemains(provisioned());
    world.vault.remains!.otherEntries = ['theirs'];
    const { world: end } = converge(leaving(), world, away);
    expect(end.vault.kvMount).toBeDefined();
    expect(end.vault.authMount).toBeDefined();
  });

  it('what was taken over stays, whatever else goes', () => {
    const taken = converge(leaving({ adopt: true }), handMadeWorld(d)).world;
    const { world, done } = converge(confirmed(taken), withRemains(taken), away);
    expect(kinds(done)).toEqual(['ReleaseControlPlane', 'DeleteEntry']);
    expect(world.vault.rootPki).toEqual(taken.vault.rootPki);
    expect(live(world)).toEqual(live(taken));
    expect(world.vault.role).toEqual(taken.vault.role);
    expect(world.vault.policy).toEqual(taken.vault.policy);
  });

  describe('while istiod goes on reading, as it does by patches that were made by hand', () => {
    const reading = (o: Observed): Observed => ({
      ...o,
      kubernetes: { ...o.kubernetes, istiodUses: ['Deployment istiod', 'pod istiod-1'] },
    });
    const used = { next: (desired: Desired, o: Observed) => cleanup(desired, reading(o), start) };
    const taken = () => withRemains(converge(leaving({ adopt: true }), handMadeWorld(d)).world);

    it('nobody is waited for when everything was taken over', () => {
      const before = taken();
      const { world, done, last } = converge(leaving(), before, used);
      expect(last).toEqual({ problems: [], steps: [] });
      expect(kinds(done)).toEqual(['ReleaseControlPlane', 'DeleteEntry']);
      expect([world.vault.state.entry, live(world)]).toEqual([undefined, live(before)]);
    });

    it('a staged key that was never published goes too', () => {
      const asked = desiredOf({ adopt: true }, { [annotations.rotateIntermediate]: 'x' });
      const staged = plan(asked, taken(), start).steps.reduce(
        (w, step) => simulateStep(asked, w, step, start),
        taken(),
      );
      const { world, done } = converge(leaving(), staged, used);
      expect(kinds(done)).toEqual(['ReleaseControlPlane', 'DeleteEntry', 'DeleteEntry']);
      expect([world.vault.staging.entry, world.vault.state.entry]).toEqual([undefined, undefined]);
    });

    it('it loses nothing that was made, and the memory stays as long as it tells of something that is to go', () => {
      const names = state(taken()).adopted;
      fc.assert(
        fc.property(fc.subarray(names), crashes, fc.boolean(), (made, bits, root) => {
          const before = taken();
          const { vault } = before;
          state(before).adopted = names.filter((name) => !made.includes(name));
          const mark = markerOf(identity);
          if (made.includes('mount:pki')) vault.rootMount!.description = mark;
          if (made.includes('mount:istioca')) vault.intermediateMount!.description = mark;
          if (made.includes('entry:istioca')) vault.live.mark = mark;
          if (made.includes('policy:istioca')) vault.policy = `# ${mark}`;
          const desired = root ? confirmed(before) : leaving();
          const { world, last } = converge(desired, before, { ...used, ...crashing(bits) });
          const { live: entry, role, policy, rootMount, intermediateMount } = world.vault;
          expect([entry, role, policy, rootMount, intermediateMount]).toEqual([
            vault.live,
            vault.role,
            vault.policy,
            vault.rootMount,
            vault.intermediateMount,
          ]);
          const further = converge(desired, world, away).done.filter(({ kind }) => kind !== 'ReleaseControlPlane');
          if (last.problems.length === 0) expect(further).toEqual([]);
          else expect([last.problems[0]?.reason, ownEntry(world.vault.state)]).toEqual(['Deleting', state(before)]);
        }),
      );
    });
  });

  it('nothing of somebody else is touched, whatever stands in our places', () => {
    const world = withRemains(provisioned({ ...d, identity: { ...identity, name: 'other' }, mark: markerOf({ ...identity, name: 'other' }) }));
    for (const slot of [world.vault.live, world.vault.state]) slot.entry = 'foreign';
    expect(cleanup(leaving({ adopt: true }), world, start)).toEqual({ problems: [], steps: [] });
  }); // prettier-ignore

  it('a missing right is Forbidden and stops it', () => {
    const world = withRemains(provisioned());
    world.vault.missingCapabilities = [{ path: 'sys/mounts/istioca', missing: ['delete'] }];
    expect(cleanup(leaving(), world, start)).toMatchObject({ steps: [], problems: [{ reason: 'Forbidden' }] });
  });
});
