/** Properties of replacing the root: no two workloads ever fail to verify each other, and it ends as it should from everywhere. */
import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { annotations, digestAnnotation } from '../../src/api/annotations.ts';
import { rfc3339 } from '../../src/api/time.ts';
import { bundleFacts, isSignedBy } from '../../src/plan/certificate.ts';
import { cannotReload } from '../../src/plan/checks/rotation.ts';
import { currentRoot, soundLive } from '../../src/plan/facts.ts';
import { own, type Observed, type RotationPhase } from '../../src/plan/observed.ts';
import type { ObservedIstiod, Served } from '../../src/plan/observed-istiod.ts';
import { plan } from '../../src/plan/plan.ts';
import { rehearseStep } from '../../src/plan/rehearse.ts';
import { rotationView } from '../../src/plan/rotation.ts';
import { deploymentOf, podOf, servesItself, servesLive, settingsOf, withIstiod } from './istiod-world.ts';
import { converge, desiredOf, emptyWorld, essence, start } from './model.ts';

const hour = 3_600_000;
/** Clocks differ, and so do kubelets. */
const slack = 60_000;
const spec = { intermediate: { maxWorkloadCertTTL: '24h' } };
const wanted = (texts: Record<string, string> = {}) => desiredOf(spec, texts);
const d = wanted();
const rotating = wanted({ [annotations.rotateRoot]: 'a' });
const state = (world: Observed) => own(world.vault.state)!;
const phase = (world: Observed): RotationPhase | undefined => state(world).rotation?.phase;

/** What one istiod holds: the set that stood in the key store when it looked. */
interface Held {
  served: Served;
  /** Fingerprint of the root that its intermediate is signed by. */
  signer: string;
  /** Fingerprints. */
  roots: string[];
}

function heldBy(world: Observed): Held {
  const live = soundLive(d, world)!;
  const signer = world.vault.rootPki!.issuers.find((i) => isSignedBy(live.certificate, i.certificate))!;
  return {
    served: servesLive(world, d),
    signer: signer.certificate.fingerprint,
    roots: bundleFacts(live.root).map((root) => root.fingerprint),
  };
}

/** istiod as it is seen; a replica that is undefined does not answer. */
function see(
  world: Observed,
  replicas: (Held | undefined)[],
  namespaceRoots: string[],
  over: Partial<ObservedIstiod> = {},
) {
  // no digest tells what these pods hold: each is asked
  const settings = settingsOf(world, d);
  const pods = replicas.map((held, i) =>
    podOf(world, `istiod-${i}`, {
      settings: { ...settings, annotations: { ...settings.annotations, [digestAnnotation]: 'unknown' } },
      served: held?.served,
      ...(held ? { handedOut: held.roots } : {}),
    }),
  );
  const bundles = [{ namespace: d.identity.namespace, roots: namespaceRoots }];
  world.kubernetes.istiod = withIstiod(world, pods, { bundles, ...over }, d).kubernetes.istiod;
}

/** Everybody has what is published now. */
function follow(world: Observed): void {
  const held = heldBy(world);
  see(world, [held, held], held.roots);
}

/** A rollout is going on. */
function rollingOut(world: Observed): void {
  const held = heldBy(world);
  see(world, [held, held], held.roots, { deployments: [deploymentOf(world, 3, {}, d)] });
}

/** Provisioned, with istiod on what was published. */
function provisioned(): Observed {
  const { world } = converge(d, emptyWorld());
  follow(world);
  return world;
}

/** From a provisioned world to a phase. */
function until(wantedPhase: RotationPhase, desired = rotating) {
  const passed: Partial<Record<RotationPhase, Observed>> = {};
  let world = provisioned();
  let now = start;
  if (wantedPhase === 'Issuing') rollingOut(world);
  for (let i = 0; i < 20; i += 1) {
    world = converge(desired, world, { now }).world;
    if (phase(world) === wantedPhase) return { world, now, passed };
    if (phase(world)) passed[phase(world)!] = world;
    follow(world);
    now += 25 * hour;
  }
  throw new Error(`never in ${wantedPhase}`);
}

/** Looks, follows and waits until nothing is left of a rotation. */
function toTheEnd(desired: typeof d, from: Observed, at: number): Observed {
  let world = from;
  let now = at;
  for (let i = 0; i < 20; i += 1) {
    world = converge(desired, world, { now }).world;
    if (phase(world) === undefined && i > 0) return world;
    follow(world);
    now += 25 * hour;
  }
  throw new Error(`no end: ${phase(world)}`);
}

describe('a root rotation', () => {
  it('trusts both roots, signs with the new one, trusts only that', () => {
    const { world: retiring, now, passed } = until('Retiring');
    const { Distributing: distributing, Switching: switching } = passed;
    const [old] = retiring.vault.rootPki!.issuers.map((issuer) => issuer.certificate);
    expect(heldBy(distributing!)).toMatchObject({ signer: old!.fingerprint });
    expect(state(distributing!).intermediate?.generation).toBe(1);
    expect(own(distributing!.vault.live)!.root.startsWith(old!.pem)).toBe(true);
    expect(heldBy(distributing!).roots).toHaveLength(2);
    expect(heldBy(switching!).signer).not.toBe(old!.fingerprint);
    expect(heldBy(switching!).roots).toEqual(heldBy(distributing!).roots);
    expect(heldBy(retiring).roots).toEqual([heldBy(switching!).signer]);
    const end = toTheEnd(rotating, retiring, now);
    expect(currentRoot(d, end)?.generation).toBe(2);
    expect(state(end)).toMatchObject({
      root: { generation: 2 },
      history: [{ kind: 'Root' }, { kind: 'Intermediate' }, {}, {}],
    });
    expect(plan(rotating, end, now + 1000 * hour).steps).toEqual([]);
    expect(essence(rotating, end)).toMatchObject({
      liveDefect: undefined,
      recorded: true,
      defaultIsLive: true,
      roots: 2,
    });
  });

  it('goes on only when all is proven, and then not before the longest workload certificate has run out', () => {
    const { world, now } = until('Distributing');
    const far = now + 10_000 * hour;
    expect(converge(rotating, world, { now: far }).done).toEqual([]);
    expect(rotationView(rotating, world, far)).toMatchObject({
      phase: 'Distributing',
      waitingFor: expect.stringContaining('istiod'),
    });
    follow(world);
    const reached = converge(rotating, world, { now }).world;
    expect(phase(reached)).toBe('Distributing');
    expect(rotationView(rotating, reached, now)?.earliestNext).toBe(rfc3339(now + 24 * hour + slack));
    expect(converge(rotating, reached, { now: now + 24 * hour + slack - 1 }).done).toEqual([]);
    expect(phase(converge(rotating, reached, { now: now + 24 * hour + slack }).world)).toBe('Switching');
  });

  it('begins its wait anew when a replica turns up with another set', () => {
    const { world, now } = until('Distributing');
    follow(world);
    const reached = converge(rotating, world, { now }).world;
    const stale = { ...heldBy(world), roots: heldBy(world).roots.slice(0, 1) };
    see(reached, [heldBy(world), stale], heldBy(world).roots);
    const again = converge(rotating, reached, { now: now + 24 * hour }).world;
    expect([phase(again), state(again).rotation?.reachedAt]).toEqual(['Distributing', undefined]);
  });

  it('goes on counting through a renewal of the intermediate, and starts anew for a replica under another root', () => {
    const { world, now } = until('Switching');
    follow(world);
    const reached = converge(rotating, world, { now }).world;
    const texts = { [annotations.rotateRoot]: 'a', [annotations.rotateIntermediate]: 'x' };
    const before = heldBy(reached);
    const renewed = converge(wanted(texts), reached, { now }).world;
    see(renewed, [before, heldBy(renewed)], before.roots);
    expect(state(converge(wanted(texts), renewed, { now: now + hour }).world).rotation?.reachedAt).toBe(rfc3339(now));
    const itself = { ...before, served: servesItself() };
    see(renewed, [undefined, itself], before.roots);
    expect(state(converge(wanted(texts), renewed, { now: now + hour }).world).rotation?.reachedAt).toBeUndefined();
  });

  it('waits for pods that are being deleted: they may sign until they are gone', () => {
    const { world, now } = until('Distributing');
    const held = heldBy(world);
    see(world, [held, held], held.roots, { ending: ['istiod-old'] });
    expect(converge(rotating, world, { now }).done).toEqual([]);
    expect(rotationView(rotating, world, now)?.waitingFor).toContain('istiod-old');
  });

  it.each<RotationPhase>(['Distributing', 'Switching', 'Retiring'])(
    'stands still in %s while it is paused',
    (where) => {
      const { world, now } = until(where);
      follow(world);
      const held = wanted({ [annotations.rotateRoot]: 'a', [annotations.pauseRotation]: 'true' });
      const end = converge(held, world, { now: now + 1000 * hour }).world;
      expect(phase(end)).toBe(where);
      expect(rotationView(held, end, now)).toMatchObject({
        phase: 'Paused',
        waitingFor: expect.stringContaining(where),
      });
      expect(currentRoot(d, toTheEnd(rotating, end, now + 1000 * hour))?.generation).toBe(2);
    },
  );

  it.each<RotationPhase>(['Issuing', 'Distributing', 'Switching'])(
    'is rolled back from %s to the root it began with',
    (where) => {
      const { world, now } = until(where);
      const first = state(world).root!.fingerprint!;
      const back = wanted({ [annotations.rotateRoot]: 'a', [annotations.rollbackRotation]: 'b' });
      const end = toTheEnd(back, world, now);
      expect(heldBy(end)).toMatchObject({ signer: first, roots: [first] });
      expect(state(end).root).toMatchObject({ generation: 1, fingerprint: first });
      expect(plan(back, end, now + 1000 * hour).steps).toEqual([]);
      const again = wanted({ [annotations.rotateRoot]: 'c', [annotations.rollbackRotation]: 'b' });
      expect(currentRoot(d, toTheEnd(again, end, now + 2000 * hour))?.generation).toBe(3);
    },
  );

  it('is not rolled back any more once the old root is being retired', () => {
    const { world, now } = until('Retiring');
    const back = wanted({ [annotations.rotateRoot]: 'a', [annotations.rollbackRotation]: 'b' });
    expect(currentRoot(d, toTheEnd(back, world, now))?.generation).toBe(2);
  });

  it('an old text of either annotation starts nothing', () => {
    const both = wanted({ [annotations.rotateRoot]: 'a', [annotations.rollbackRotation]: 'b' });
    const { world } = converge(both, emptyWorld());
    follow(world);
    expect(plan(both, world, start).steps).toEqual([]);
    const next = wanted({ [annotations.rotateRoot]: 'c', [annotations.rollbackRotation]: 'b' });
    expect(phase(converge(next, world).world)).toBe('Distributing');
  });

  it('never happens unasked, be the root past its end', () => {
    const world = provisioned();
    const { done } = converge(d, world, { now: start + 20 * 365 * 24 * hour });
    expect(done.map((step) => step.kind)).not.toContain('GenerateRoot');
  });

  it('takes the root’s new spec, and says what is changed until then', () => {
    const changed = desiredOf({ ...spec, root: { commonName: 'Next Root' } }, { [annotations.rotateRoot]: 'a' });
    const end = toTheEnd(changed, provisioned(), start);
    expect(currentRoot(d, end)?.certificate.subject.commonName).toBe('Next Root');
    expect(state(end).root?.spec.commonName).toBe('Next Root');
  });

  it('is refused with PKI delivery, and with a second root that istiod would not take up', () => {
    const pki = desiredOf({ ...spec, delivery: { source: 'PKI' } }, { [annotations.rotateRoot]: 'a' });
    const world = provisioned();
    expect(plan(pki, world, start).problems.map((p) => p.reason)).toContain('RootRotationNeedsBundle');
    expect(phase(converge(pki, world).world)).toBeUndefined();
    const never = desiredOf({ ...spec, rollout: 'Never' }, { [annotations.rotateRoot]: 'a' });
    const held = heldBy(world);
    see(world, [held, held], held.roots, { deployments: [deploymentOf(world, 2, { version: '1.28.1' }, d)] });
    expect(plan(never, world, start).problems.map((p) => p.reason)).toEqual(['MultiRootDisabled']);
    expect(phase(converge(never, world).world)).toBeUndefined();
    expect(phase(converge(rotating, world).world)).toBe('Distributing');
  });

  it('survives the loss of its memory: what is handed out stays until all is proven and has run out', () => {
    for (const where of ['Distributing', 'Switching'] as const) {
      const { world, now } = until(where);
      const before = heldBy(world);
      world.vault.state = { casVersion: world.vault.state.casVersion, entry: undefined };
      const end = converge(rotating, world, { now }).world;
      expect(heldBy(end)).toEqual({ ...before, served: expect.anything() });
      expect(own(end.vault.live)!.certificate).toEqual(own(world.vault.live)!.certificate);
      expect(phase(end)).toBe('Switching');
      expect(heldBy(toTheEnd(rotating, end, now)).roots).toEqual([before.signer]);
    }
  });

  describe('with a root that is lost', () => {
    const lose = (world: Observed, fingerprint: string) => {
      const pki = world.vault.rootPki!;
      pki.issuers = pki.issuers.filter((issuer) => issuer.certificate.fingerprint !== fingerprint);
    };

    it('says which, when it is the one that signs; rolled back or given up, it goes back to the other', () => {
      const { world, now } = until('Switching');
      const { to } = state(world).rotation!;
      const { roots } = heldBy(world);
      lose(world, to.fingerprint!);
      const { problems, steps } = plan(rotating, world, now);
      expect([steps, problems.map((p) => p.reason)]).toEqual([[], ['RootLost']]);
      expect(problems[0]?.message).toContain(`${annotations.allowReissue}=${to.serial}`);
      const ways = [{ [annotations.rollbackRotation]: 'b' }, { [annotations.allowReissue]: to.serial! }];
      for (const way of ways) {
        const texts = wanted({ [annotations.rotateRoot]: 'a', ...way });
        const back = converge(texts, world, { now }).world;
        // what was signed under it is trusted until it has run out
        expect(heldBy(back)).toMatchObject({ signer: state(world).root!.fingerprint, roots });
        expect(heldBy(toTheEnd(texts, back, now)).roots).toEqual([state(world).root!.fingerprint]);
      }
    });

    it('goes on when it is the one that only has to be trusted', () => {
      const { world, now } = until('Switching');
      lose(world, state(world).root!.fingerprint!);
      const { signer } = heldBy(world);
      const renewed = converge(
        wanted({ [annotations.rotateRoot]: 'a', [annotations.rotateIntermediate]: 'x' }),
        world,
        { now },
      );
      expect(renewed.last.problems).toEqual([]);
      expect([heldBy(renewed.world).signer, heldBy(renewed.world).roots.length]).toEqual([signer, 2]);
    });
  });

  it('does not wait for what has run out', () => {
    const { world, now } = until('Issuing');
    const from = world.vault.rootPki!.issuers.find(
      (i) => i.certificate.fingerprint === state(world).root!.fingerprint,
    )!;
    from.certificate = { ...from.certificate, notAfter: now };
    const switched = converge(rotating, world, { now }).world;
    expect(phase(switched)).toBe('Switching');
    expect(heldBy(switched).signer).toBe(state(switched).rotation?.to.fingerprint);
  });

  it('waits for what istiod allowed before, whatever it allows now', () => {
    const long = desiredOf({}, { [annotations.rotateRoot]: 'a' });
    const { world, now } = until('Distributing', long);
    follow(world);
    const reached = converge(long, world, { now }).world;
    reached.kubernetes.maxWorkloadCertTtlMs = hour;
    expect(phase(converge(long, reached, { now: now + 48 * hour }).world)).toBe('Distributing');
    const said = desiredOf(spec, { [annotations.rotateRoot]: 'a' });
    expect(phase(converge(said, reached, { now: now + 48 * hour }).world)).toBe('Switching');
  });

  it('never publishes an intermediate beside a root that did not sign it', () => {
    const before = provisioned();
    const earlier = structuredClone(own(before.vault.live)!);
    const end = toTheEnd(rotating, before, start);
    end.vault.live = { ...end.vault.live, entry: { ...earlier } };
    let world = end;
    for (let round = 0; round < 20; round += 1)
      for (const step of plan(rotating, world, start + 200 * hour).steps) {
        world = rehearseStep(rotating, world, step, start + 200 * hour);
        if (step.kind === 'PublishLive') expect(soundLive(d, world)).toBeDefined();
      }
    expect(heldBy(world).roots).toEqual([heldBy(world).signer]);
  });
});

describe('the generation before', () => {
  const renewed = () => converge(wanted({ [annotations.rotateIntermediate]: 'x' }), provisioned()).world;
  const desired = wanted({ [annotations.rotateIntermediate]: 'x' });

  it('is kept until every replica has the new one, and then goes with its key', () => {
    const world = renewed();
    expect(world.vault.intermediatePki?.keys).toHaveLength(2);
    const { world: end, done } = converge(desired, (follow(world), world));
    expect(done.map((step) => step.kind)).toEqual(['Collect', 'DestroyVersions']);
    expect([end.vault.intermediatePki?.keys.length, end.vault.intermediatePki?.issuers.length]).toEqual([1, 1]);
    expect([end.vault.liveOlder, essence(desired, end).liveDefect]).toEqual([[], undefined]);
  });

  it('stays while one replica serves it still, or is not seen', () => {
    const world = renewed();
    const held = heldBy(world);
    for (const second of [heldBy(provisioned()), undefined]) {
      see(world, [held, second], held.roots);
      expect(plan(desired, world, start).steps).toEqual([]);
    }
  });
});

describe.each([
  ['1.19.10', true, /takes up no other root/],
  ['1.20.0', false, /ISTIO_MULTIROOT_MESH/],
  ['1.20.0', true, undefined],
  ['1.29.2', true, undefined],
  ['1.31.0', false, /ISTIO_MULTIROOT_MESH/],
  ['', false, /ISTIO_MULTIROOT_MESH/],
  ['', true, undefined],
] as const)('Istio %s with ISTIO_MULTIROOT_MESH=%s', (version, multiRoot, expected) => {
  it(
    expected ? 'needs more to take up a second root without a restart' : 'takes up a second root without a restart',
    () => {
      const found = cannotReload({ name: 'istiod', multiRoot, version });
      if (expected) expect(found).toMatch(expected);
      else expect(found).toBeUndefined();
    },
  );
});

describe('any two workloads verify each other at any moment', () => {
  const ttl = 24 * hour;
  interface Workload {
    signer: string;
    trusts: string[];
    until: number;
  }
  interface Mesh {
    world: Observed;
    now: number;
    istiods: Held[];
    namespace: string[];
    workloads: Workload[];
    texts: Record<string, string>;
  }
  const event = fc.oneof(
    { weight: 6, arbitrary: fc.record({ kind: fc.constant('step' as const), bits: fc.nat(31) }) },
    { weight: 4, arbitrary: fc.record({ kind: fc.constant('reload' as const), replica: fc.nat(1) }) },
    {
      weight: 3,
      arbitrary: fc.record({ kind: fc.constant('renew' as const), workload: fc.nat(2), replica: fc.nat(1) }),
    },
    { weight: 4, arbitrary: fc.record({ kind: fc.constant('wait' as const), hours: fc.integer({ min: 1, max: 30 }) }) },
    { weight: 2, arbitrary: fc.record({ kind: fc.constant('namespace' as const) }) },
    {
      weight: 1,
      arbitrary: fc.record({
        kind: fc.constant('annotate' as const),
        name: fc.constantFrom(annotations.rotateRoot, annotations.rollbackRotation, annotations.rotateIntermediate),
        text: fc.constantFrom('a', 'b', 'c', 'd'),
      }),
    },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('pause' as const), on: fc.boolean() }) },
  );
  type Event = typeof event extends fc.Arbitrary<infer T> ? T : never;

  const renew = (mesh: Mesh, workload: number, replica: number) => {
    const { signer, roots } = mesh.istiods[replica]!;
    mesh.workloads[workload] = { signer, trusts: roots, until: mesh.now + ttl };
  };

  function happen(mesh: Mesh, e: Event): void {
    switch (e.kind) {
      case 'step': {
        see(mesh.world, mesh.istiods, mesh.namespace);
        const desired = wanted(mesh.texts);
        const { steps } = plan(desired, mesh.world, mesh.now);
        for (const [i, step] of steps.entries())
          if (i === 0 || (e.bits >> i) & 1) mesh.world = rehearseStep(desired, mesh.world, step, mesh.now);
        break;
      }
      case 'reload':
        mesh.istiods[e.replica] = heldBy(mesh.world);
        break;
      case 'namespace':
        mesh.namespace = mesh.istiods[0]!.roots;
        break;
      case 'renew':
        renew(mesh, e.workload, e.replica);
        break;
      case 'wait': {
        // whoever comes to the end of its certificate gets another one in time
        const later = mesh.now + e.hours * hour;
        for (const [i, one] of mesh.workloads.entries())
          if (one.until <= later) {
            mesh.now = Math.max(mesh.now, one.until);
            renew(mesh, i, i % 2);
          }
        mesh.now = later;
        break;
      }
      case 'annotate':
        mesh.texts = { ...mesh.texts, [e.name]: e.text };
        break;
      case 'pause':
        mesh.texts = { ...mesh.texts, [annotations.pauseRotation]: String(e.on) };
    }
  }

  it('whatever lags, crashes, pauses or is rolled back', () => {
    const reachedPhases = new Set<string>();
    fc.assert(
      fc.property(fc.array(event, { minLength: 40, maxLength: 160 }), (events) => {
        const world = provisioned();
        const held = heldBy(world);
        const workload = { signer: held.signer, trusts: held.roots, until: start + ttl };
        const mesh: Mesh = {
          world,
          now: start,
          istiods: [held, held],
          namespace: held.roots,
          workloads: [workload, workload, workload],
          texts: { [annotations.rotateRoot]: 'first' },
        };
        let bundle = own(mesh.world.vault.live)!.root;
        for (const one of events) {
          happen(mesh, one);
          // istiod before 1.30 takes up another bundle only if the bytes of one contain the other's
          const next = own(mesh.world.vault.live)!.root;
          expect(next.includes(bundle) || bundle.includes(next)).toBe(true);
          bundle = next;
          reachedPhases.add(phase(mesh.world) ?? 'none');
          for (const a of mesh.workloads) for (const b of mesh.workloads) expect(b.trusts).toContain(a.signer);
          // istiod itself is trusted by what the namespaces have
          for (const { signer } of mesh.istiods) expect(mesh.namespace).toContain(signer);
          // what stands in the key store is one sound set
          expect(soundLive(d, mesh.world)).toBeDefined();
        }
      }),
      { numRuns: 200 },
    );
    expect(reachedPhases).toEqual(new Set(['none', 'Issuing', 'Distributing', 'Switching', 'Retiring']));
  });
});
