/** Properties of a root rotation: any two workloads verify each other at any time, and the rotation ends correctly from every state. */
import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { annotations, digestAnnotation } from '../../src/api/annotations.ts';
import { defaultMaxWorkloadCertTtlMs } from '../../src/api/istiod.ts';
import { rfc3339 } from '../../src/api/time.ts';
import { bundleFacts, isSignedBy } from '../../src/plan/facts/certificate.ts';
import { cannotReload } from '../../src/plan/rotation/checks.ts';
import { ownEntry, type Observed } from '../../src/plan/facts/observed.ts';
import type { RotationPhase } from '../../src/plan/facts/state-entry.ts';
import type { ObservedIstiod, Served, Ztunnel } from '../../src/plan/facts/observed-istiod.ts';
import { plan } from '../../src/plan/plan.ts';
import { simulateStep } from '../../src/plan/simulate.ts';
import { asksForZtunnels, rotationDue } from '../../src/plan/rotation/rotation.ts';
import { rotationView } from '../../src/plan/rotation/view.ts';
import type { Step } from '../../src/plan/steps.ts';
import {
  deploymentOf,
  leafOf,
  meshBundle,
  podOf,
  servesItself,
  servesLive,
  settingsOf,
  withIstiod,
} from './istiod-world.ts';
import { converge, desiredOf, emptyWorld, essence, handMadeWorld, leftBehind, start, derived } from './model.ts';

const hour = 3_600_000;
/** Allowance of the rotation for clock skew and slow kubelets, milliseconds. */
const slack = 60_000;
const spec = { intermediate: { maxWorkloadCertTTL: '24h' } };
const wanted = (texts: Record<string, string> = {}) => desiredOf(spec, texts);
const d = wanted();
const rotating = wanted({ [annotations.rotateRoot]: 'a' });
const state = (world: Observed) => ownEntry(world.vault.state)!;
const phase = (world: Observed): RotationPhase | undefined => state(world).rotation?.phase;

/** What one istiod replica holds: the CA that was current when it last loaded its files. */
interface Held {
  served: Served;
  /** Fingerprint of the root that signed its intermediate. */
  signer: string;
  /** Fingerprints of the roots that it distributes. */
  roots: string[];
}

function heldBy(world: Observed): Held {
  const live = derived(d, world).currentCa!;
  // a root that is lost is in the CA entry only
  const roots = [...world.vault.rootPki!.issuers.map(({ certificate }) => certificate), ...bundleFacts(live.root)];
  const signer = roots.find((root) => isSignedBy(live.certificate, root))!;
  return {
    served: servesLive(world, d),
    signer: signer.fingerprint,
    roots: bundleFacts(live.root).map((root) => root.fingerprint),
  };
}

/** Sets the observed istiod of the world. A replica that is `undefined` does not answer. */
function see(
  world: Observed,
  replicas: (Held | undefined)[],
  namespaceRoots: string[],
  over: Partial<ObservedIstiod> = {},
) {
  // the digest of these Pods is unknown, so each replica is asked for its distributed roots
  const settings = settingsOf(world, d);
  const pods = replicas.map((held, i) =>
    podOf(world, `istiod-${i}`, {
      settings: { ...settings, annotations: { ...settings.annotations, [digestAnnotation]: 'unknown' } },
      served: held?.served,
      ...(held ? { signed: { ...held.served, roots: held.roots } } : {}),
    }),
  );
  const bundles = [meshBundle(d.identity.namespace, namespaceRoots)];
  world.kubernetes.istiod = withIstiod(world, pods, { bundles, ...over }, d).kubernetes.istiod;
}

/** All replicas and namespaces take over the current CA. */
function follow(world: Observed): void {
  const held = heldBy(world);
  see(world, [held, held], held.roots);
}

/** The same during a rollout that is not complete. */
function rollingOut(world: Observed): void {
  const held = heldBy(world);
  see(world, [held, held], held.roots, { deployments: [deploymentOf(world, 3, {}, d)] });
}

type Limit = Observed['kubernetes']['maxWorkloadCertTtlMs'];

/**
 * Returns a provisioned world whose istiod serves the current CA.
 * @param limit the longest workload certificate lifetime that istiod allows, milliseconds
 */
function provisioned(limit: Limit = defaultMaxWorkloadCertTtlMs): Observed {
  const { world } = converge(d, emptyWorld());
  world.kubernetes.maxWorkloadCertTtlMs = limit;
  follow(world);
  return world;
}

/** Runs a rotation from a provisioned world to a phase. @returns the world in that phase, its time, and the worlds of the earlier phases */
function until(wantedPhase: RotationPhase, desired = rotating, limit?: Limit) {
  const passed: Partial<Record<RotationPhase, Observed>> = {};
  let world = provisioned(limit);
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

function lose(world: Observed, fingerprint: string): void {
  const pki = world.vault.rootPki!;
  pki.issuers = pki.issuers.filter((issuer) => issuer.certificate.fingerprint !== fingerprint);
}

function revoke(world: Observed, fingerprint: string): void {
  const root = world.vault.rootPki!.issuers.find((issuer) => issuer.certificate.fingerprint === fingerprint)!;
  root.revoked = true;
}

/** Lets the old root, which the rotation replaces, expire. */
function endRoot(world: Observed, now: number): void {
  const first = world.vault.rootPki!.issuers.find((i) => i.certificate.fingerprint === state(world).root!.fingerprint)!;
  first.certificate = { ...first.certificate, notAfter: now };
}

/** Reconciles, propagates and waits until no rotation is in progress. */
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
    expect(ownEntry(distributing!.vault.live)!.root.startsWith(old!.pem)).toBe(true);
    expect(heldBy(distributing!).roots).toHaveLength(2);
    expect(heldBy(switching!).signer).not.toBe(old!.fingerprint);
    expect(heldBy(switching!).roots).toEqual(heldBy(distributing!).roots);
    expect(heldBy(retiring).roots).toEqual([heldBy(switching!).signer]);
    const end = toTheEnd(rotating, retiring, now);
    expect(derived(d, end).signer?.generation).toBe(2);
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

  it.each<[string, (roots: string[]) => Partial<ObservedIstiod>, string | undefined]>([
    ['its own namespace does not follow', () => ({ bundles: [meshBundle(d.identity.namespace, [])] }), 'ConfigMap istio-ca-root-cert of 1 namespaces to follow'],
    ['its own namespace has no ConfigMap yet', (roots) => ({ bundles: [meshBundle('shop', roots)] }), 'ConfigMap istio-ca-root-cert of namespace istio-system'],
    ['istiod does not discover its own namespace', (roots) => ({ bundles: [meshBundle('shop', roots)], homeDiscovered: false }), undefined],
    ['istiod discovers no namespace', () => ({ bundles: [], homeDiscovered: false }), 'of a namespace that istiod discovers'],
    ['the ConfigMap has another name', () => ({ bundles: [], places: [{ kind: 'ConfigMap', name: 'team-a' }] }), 'ConfigMap team-a of namespace istio-system'],
    ['there is no ClusterTrustBundle', () => ({ bundles: [], places: [{ kind: 'ClusterTrustBundle' }] }), 'ClusterTrustBundle istio.io:istiod-ca:root-cert'],
    ['the ClusterTrustBundle does not follow', () => ({ bundles: [meshBundle(undefined, [])], places: [{ kind: 'ClusterTrustBundle' }] }), 'ClusterTrustBundle istio.io:istiod-ca:root-cert to follow'],
    ['the ClusterTrustBundle has followed', (roots) => ({ bundles: [meshBundle(undefined, roots)], places: [{ kind: 'ClusterTrustBundle' }] }), undefined],
    ['a ConfigMap of another name may not be read', () => ({ bundles: 'unreadableElsewhere' }), 'component trust-bundle'],
  ])('looks where istiod publishes: %s', (_, published, waitingFor) => {
    const { world, now } = until('Distributing');
    const held = heldBy(world);
    see(world, [held], held.roots, published(held.roots));
    const view = rotationView(derived(rotating, world, now));
    expect(view?.waitingFor).toEqual(waitingFor === undefined ? undefined : expect.stringContaining(waitingFor));
  }); // prettier-ignore

  it('goes on only when all is proven, and then not before the longest workload certificate has run out', () => {
    const { world, now } = until('Distributing');
    const far = now + 10_000 * hour;
    expect(converge(rotating, world, { now: far }).done).toEqual([]);
    expect(rotationView(derived(rotating, world, far))).toMatchObject({
      phase: 'Distributing',
      waitingFor: expect.stringContaining('istiod'),
    });
    follow(world);
    const reached = converge(rotating, world, { now }).world;
    expect(phase(reached)).toBe('Distributing');
    expect(rotationView(derived(rotating, reached, now))?.earliestNext).toBe(rfc3339(now + 24 * hour + slack));
    expect(converge(rotating, reached, { now: now + 24 * hour + slack - 1 }).done).toEqual([]);
    expect(phase(converge(rotating, reached, { now: now + 24 * hour + slack }).world)).toBe('Switching');
  });

  describe('in an ambient mesh', () => {
    const createdAt = (createdMs: number) => ({ name: 'ztunnel-a', createdMs });
    const ztunnel = (over: Partial<Ztunnel> = {}): Ztunnel => ({
      namespace: 'istio-system',
      name: 'ztunnel',
      version: '1.29.2',
      outdated: false,
      watchesNoRoots: false,
      unfinished: undefined,
      oldestPod: createdAt(start),
      ...over,
    });
    const lacking = { verb: 'list', group: 'apps', resource: 'daemonsets' };
    /** After both roots were seen everywhere, milliseconds. */
    const minute = 60_000;

    it.each<[string, (reached: number) => ObservedIstiod['ztunnels'], string | undefined]>([
      ['an older pod', () => [ztunnel()], '(pod ztunnel-a is older), since its ztunnel takes up another root only when it starts'],
      ['a pod of the minute after, which clocks can differ by', (reached) => [ztunnel({ oldestPod: createdAt(reached + minute) })], 'kubectl rollout restart daemonset/ztunnel -n istio-system'],
      ['pods that are newer', (reached) => [ztunnel({ oldestPod: createdAt(reached + minute + 1000) })], undefined],
      ['pods that are newer, and a rollout that goes on', (reached) => [ztunnel({ oldestPod: createdAt(reached + 2 * minute), unfinished: 'not every pod is available' })], 'the rollout of DaemonSet istio-system/ztunnel: not every pod is available'],
      ['one of two', (reached) => [ztunnel({ oldestPod: createdAt(reached + hour) }), ztunnel({ namespace: 'edge' })], 'DaemonSet edge/ztunnel'],
      ['a version that reads the roots again', () => [ztunnel({ version: '1.30.0', unfinished: 'not every pod is available' })], undefined],
      ['such a version, while pods of an older one are there', () => [ztunnel({ version: '1.30.0', outdated: true, unfinished: 'pods of an older template are still there' })], 'a restart of DaemonSet'],
      ['such a version, told not to', () => [ztunnel({ version: '1.30.0', watchesNoRoots: true })], 'a restart of DaemonSet'],
      ['a version that nobody knows', () => [ztunnel({ version: '' })], 'a restart of DaemonSet'],
      ['a DaemonSet without a node', () => [ztunnel({ oldestPod: undefined })], undefined],
      ['none', () => [], undefined],
      ['no right to read them', () => ({ lacking }), 'component ambient'],
      ['an istiod without an ambient mesh', () => undefined, undefined],
    ])('waits for ztunnels before the new root signs: %s', (_, ztunnels, waitingFor) => {
      const { world, now } = until('Distributing');
      follow(world);
      const reached = converge(rotating, world, { now }).world;
      const { istiod } = reached.kubernetes;
      if (istiod) Object.assign(istiod, { ztunnels: ztunnels(now) });
      const due = now + 24 * hour + slack;
      const view = rotationView(derived(rotating, reached, due));
      expect(view?.waitingFor).toEqual(waitingFor === undefined ? undefined : expect.stringContaining(waitingFor));
      const next = converge(rotating, reached, { now: due }).world;
      expect(phase(next)).toBe(waitingFor === undefined ? 'Switching' : 'Distributing');
      if (waitingFor !== undefined) expect(rotationDue(derived(rotating, reached, due))).toBeGreaterThan(due);
    }); // prettier-ignore

    it.each(['Switching', 'Retiring'] as const)('needs no right to read them in %s', (late) => {
      const { world, now } = until(late);
      if (world.kubernetes.istiod) Object.assign(world.kubernetes.istiod, { ztunnels: { lacking } });
      expect(plan(rotating, world, now).problems).toEqual([]);
      expect(asksForZtunnels(derived(rotating, world, now))).toBe(false);
    });

    it('does not begin without the right to read them, and says which', () => {
      const world = provisioned();
      Object.assign(world.kubernetes.istiod!, { ztunnels: { lacking } });
      expect(phase(converge(rotating, world).world)).toBeUndefined();
      expect(plan(rotating, world, start).problems).toMatchObject([
        { condition: 'RootReady', reason: 'Forbidden', message: expect.stringContaining('Add deploy/components/ambient'), blocks: 'nothing' },
      ]); // prettier-ignore
    });
  });

  it('does not begin its wait anew because a replica whose certificate somebody else gave it did not sign one once', () => {
    const { world, now } = until('Distributing');
    follow(world);
    const reached = converge(rotating, world, { now }).world;
    const root = derived(d, reached).signer!.certificate;
    const pods = reached.kubernetes.istiod?.pods ?? [];
    for (const pod of pods) {
      pod.served = { leaf: leafOf(root), chain: [], issuer: 'CN=somebody' };
      pod.signed = { unreachable: 'asked to sign a certificate: no answer in time' };
    }
    const later = converge(rotating, reached, { now: now + hour }).world;
    expect(state(later).rotation?.reachedAt).toBe(rfc3339(now));
    expect(rotationView(derived(rotating, later, now + hour))?.waitingFor).toContain('replica istiod-0');
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
    expect(rotationView(derived(rotating, world, now))?.waitingFor).toContain('istiod-old');
  });

  it.each<RotationPhase>(['Distributing', 'Switching', 'Retiring'])(
    'stands still in %s while it is paused',
    (where) => {
      const { world, now } = until(where);
      follow(world);
      const held = wanted({ [annotations.rotateRoot]: 'a', [annotations.pauseRotation]: 'true' });
      const end = converge(held, world, { now: now + 1000 * hour }).world;
      expect(phase(end)).toBe(where);
      expect(rotationView(derived(held, end, now))).toMatchObject({
        phase: 'Paused',
        waitingFor: expect.stringContaining(where),
      });
      expect(derived(d, toTheEnd(rotating, end, now + 1000 * hour)).signer?.generation).toBe(2);
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
      expect(derived(d, toTheEnd(again, end, now + 2000 * hour)).signer?.generation).toBe(3);
    },
  );

  it('is not rolled back any more once the old root is being retired', () => {
    const { world, now } = until('Retiring');
    const back = wanted({ [annotations.rotateRoot]: 'a', [annotations.rollbackRotation]: 'b' });
    expect(derived(d, toTheEnd(back, world, now)).signer?.generation).toBe(2);
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
    expect(derived(d, end).signer?.certificate.subject.commonName).toBe('Next Root');
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
      expect(ownEntry(end.vault.live)!.certificate).toEqual(ownEntry(world.vault.live)!.certificate);
      expect(phase(end)).toBe('Switching');
      expect(heldBy(toTheEnd(rotating, end, now)).roots).toEqual([before.signer]);
    }
  });

  describe('that another resource has begun', () => {
    const heir = desiredOf({ ...spec, adopt: true });
    const bundle = (world: Observed) => ownEntry(world.vault.live)!.root;

    it.each<RotationPhase>(['Distributing', 'Switching'])(
      'goes on when its CA is taken over in %s: no root goes before what it signed has run out',
      (where) => {
        const { world, now } = until(where);
        const before = heldBy(world);
        const { world: taken, last } = converge(heir, leftBehind(world), { now });
        expect(last.problems).toEqual([]);
        expect(bundle(taken)).toBe(bundle(world));
        expect([phase(taken), heldBy(taken).signer]).toEqual(['Switching', before.signer]);
        follow(taken);
        const reached = converge(heir, taken, { now }).world;
        expect(converge(heir, reached, { now: now + 24 * hour + slack - 1 }).done).toEqual([]);
        const end = toTheEnd(heir, reached, now + 24 * hour + slack);
        expect(heldBy(end).roots).toEqual([before.signer]);
        expect(derived(heir, end).signer?.certificate.fingerprint).toBe(before.signer);
        expect(plan(heir, end, now + 1000 * hour).steps).toEqual([]);
      },
    );

    it('keeps the order of the roots: istiod may compare the bytes of what it had', () => {
      const { world, now } = until('Distributing');
      const left = leftBehind(world);
      left.vault.live.foreign!.root = bundleFacts(bundle(world)).reverse().map(({ pem }) => pem).join('');
      expect(bundle(converge(heir, left, { now }).world)).toBe(left.vault.live.foreign!.root);
    }); // prettier-ignore

    it('is not rolled back, and says so: not all may have learned the other root', () => {
      const { world, now } = until('Distributing');
      const { signer } = heldBy(world);
      const taken = converge(heir, leftBehind(world), { now }).world;
      expect(rotationView(derived(heir, taken, now))?.waitingFor).toContain('no way back');
      const back = desiredOf({ ...spec, adopt: true }, { [annotations.rollbackRotation]: 'b' });
      expect(heldBy(converge(back, taken, { now }).world).signer).toBe(signer);
      expect(heldBy(toTheEnd(back, taken, now)).roots).toEqual([signer]);
    });

    it('is none when only one root is handed out', () => {
      const { world, now } = until('Retiring');
      const { world: taken } = converge(heir, leftBehind(world), { now });
      expect([phase(taken), bundle(taken)]).toEqual([undefined, bundle(world)]);
    });

    it('is lost by no crash', () => {
      const { world, now } = until('Switching');
      const rounds = fc.array(fc.nat(31), { maxLength: 15 });
      fc.assert(
        fc.property(rounds, (bits) => {
          const pick = (steps: Step[], round: number) =>
            round < bits.length ? steps.filter((_, i) => (bits[round]! >> i) & 1) : steps;
          const { world: end } = converge(heir, leftBehind(world), { now, pick });
          expect([phase(end), bundle(end)]).toEqual(['Switching', bundle(world)]);
        }),
      );
    });
  });

  describe('with a root that is lost', () => {
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
        // workload certificates under the lost root stay trusted until they expire
        expect(heldBy(back)).toMatchObject({ signer: state(world).root!.fingerprint, roots });
        expect(heldBy(toTheEnd(texts, back, now)).roots).toEqual([state(world).root!.fingerprint]);
      }
    });

    it('goes on when its certificate is lost as well, with the mesh’s copy or, if there is none, without it', () => {
      for (const inMesh of [true, false]) {
        const { world, now } = until('Switching');
        const { to } = state(world).rotation!;
        const roots = bundleFacts(ownEntry(world.vault.live)!.root);
        lose(world, state(world).root!.fingerprint!);
        world.kubernetes.meshRoots = inMesh ? roots : undefined;
        world.vault.live = { casVersion: world.vault.live.casVersion, entry: undefined };
        const { world: end, last } = converge(rotating, world, { now });
        expect(last.problems).toEqual([]);
        expect(new Set(heldBy(end).roots)).toEqual(new Set(inMesh ? roots.map((r) => r.fingerprint) : [to.fingerprint]));
        expect(heldBy(toTheEnd(rotating, end, now)).roots).toEqual([to.fingerprint]);
      }
    }); // prettier-ignore

    it('can be replaced while workloads trust both: rotate-root, and nothing is signed before', () => {
      const world = provisioned();
      const lost = state(world).root!;
      lose(world, lost.fingerprint!);
      const { currentCa } = derived(d, world);
      const waits = converge(wanted({ [annotations.rotateIntermediate]: 'x' }), world, { now: start + 40_000 * hour });
      expect(waits.last).toMatchObject({ steps: [], problems: [{ reason: 'RootLost', blocks: 'nothing' }] });
      expect(derived(d, waits.world).currentCa).toEqual(currentCa);
      const { world: begun, last } = converge(rotating, world, { now: start + hour });
      expect([last.problems, phase(begun)]).toEqual([[], 'Distributing']);
      expect(heldBy(begun)).toMatchObject({ signer: lost.fingerprint, roots: [lost.fingerprint, expect.anything()] });
      const end = toTheEnd(rotating, begun, start + hour);
      expect(heldBy(end).roots).toEqual([state(end).root!.fingerprint]);
      expect(state(end).root!.generation).toBe(2);
    });

    it('of both roots leads to another new one, still without a workload that notices', () => {
      const { world, now } = until('Distributing');
      const { root, rotation } = state(world);
      lose(world, root!.fingerprint!);
      lose(world, rotation!.to.fingerprint!);
      const stuck = converge(rotating, world, { now: now + 100 * hour }).world;
      const { problems, steps } = plan(rotating, stuck, now + 100 * hour);
      expect([steps, problems.map((p) => p.reason), phase(stuck)]).toEqual([[], ['RootLost'], 'Distributing']);
      expect(problems[0]?.message).toContain(`${annotations.allowReissue}=${rotation!.to.serial}`);
      const allowed = wanted({ [annotations.rotateRoot]: 'a', [annotations.allowReissue]: rotation!.to.serial! });
      const begun = converge(allowed, stuck, { now: now + 100 * hour }).world;
      expect(heldBy(begun)).toMatchObject({ signer: root!.fingerprint });
      const end = toTheEnd(allowed, begun, now + 100 * hour);
      expect(heldBy(end).roots).toEqual([state(end).root!.fingerprint]);
      expect(state(end).root!.generation).toBe(3);
    });

    it('names the one that signed when the memory is lost too', () => {
      const { world, now } = until('Switching');
      const { to } = state(world).rotation!;
      lose(world, to.fingerprint!);
      world.vault.state = { casVersion: 9, entry: undefined };
      const [problem] = plan(rotating, world, now).problems;
      expect([problem?.reason, problem?.message]).toEqual(['RootLost', expect.stringContaining(`serial ${to.serial}`)]);
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

  describe('that was rolled back before', () => {
    /** A world after a rollback: the old root signs, the rolled-back root is only in the root mount. */
    const rolledBack = () => {
      const { world, now } = until('Distributing');
      const first = state(world).root!.fingerprint!;
      return { world: toTheEnd(back, world, now), first, now: now + 1000 * hour };
    };
    const back = wanted({ [annotations.rotateRoot]: 'a', [annotations.rollbackRotation]: 'b' });
    const forget = (world: Observed) => {
      for (const slot of [world.vault.state, world.vault.live])
        Object.assign(slot, { entry: undefined, mark: '', casVersion: slot.casVersion + 1 });
    };

    it('is not taken up when state and live entry are lost', () => {
      const { world, first, now } = rolledBack();
      world.kubernetes.meshRoots = world.vault.rootPki!.issuers.slice(0, 1).map((issuer) => issuer.certificate);
      forget(world);
      const { world: end, last } = converge(back, world, { now });
      expect(last.problems).toEqual([]);
      expect(heldBy(end)).toMatchObject({ signer: first, roots: [first] });
      expect(state(end).root).toMatchObject({ generation: 1, fingerprint: first });
    });

    it('is said when only it could be handed out and the mesh trusts another', () => {
      const { world, first, now } = rolledBack();
      world.kubernetes.meshRoots = world.vault.rootPki!.issuers.slice(0, 1).map((issuer) => issuer.certificate);
      world.vault.intermediatePki = { issuers: [], keys: [], defaultIssuerId: '' };
      forget(world);
      const { problems, steps } = plan(back, world, now);
      expect([steps, problems.map((p) => p.reason)]).toEqual([[], ['WouldReplaceRoot']]);
      expect(problems[0]?.message).toContain(first);
    });

    it('is not what a lost root is made anew as', () => {
      const { world, first, now } = rolledBack();
      const { serial } = state(world).root!;
      lose(world, first);
      const allowed = wanted({ ...back.annotations, [annotations.allowReissue]: serial! });
      const { world: end, last } = converge(allowed, world, { now });
      expect(last.problems).toEqual([]);
      expect(state(end).root?.generation).toBe(3);
      expect(heldBy(end).signer).toBe(state(end).root?.fingerprint);
    });
  });

  it('is rebuilt from the mesh when state and live entry are lost', () => {
    for (const where of ['Distributing', 'Switching'] as const) {
      const { world, now } = until(where);
      follow(world);
      const before = heldBy(world);
      world.kubernetes.meshRoots = bundleFacts(ownEntry(world.vault.live)!.root);
      for (const slot of [world.vault.state, world.vault.live])
        Object.assign(slot, { entry: undefined, mark: '', casVersion: slot.casVersion + 1 });
      const { world: end, last } = converge(rotating, world, { now });
      expect(last.problems).toEqual([]);
      expect(heldBy(end).signer).toBe(before.signer);
      expect(new Set(heldBy(end).roots)).toEqual(new Set(before.roots));
      expect(heldBy(toTheEnd(rotating, end, now)).roots).toEqual([before.signer]);
    }
  });

  it('comes to an end from everywhere, whatever root is lost or has run out, for who does what the messages say', () => {
    const phases = fc.constantFrom<RotationPhase>('Issuing', 'Distributing', 'Switching', 'Retiring');
    const damages = fc.subarray(['old lost', 'old ended', 'new lost']);
    const reached = new Set<string>();
    fc.assert(
      fc.property(phases, damages, fc.boolean(), fc.boolean(), (where, damaged, backBefore, backAfter) => {
        let { world, now } = until(where);
        const texts: Record<string, string> = { [annotations.rotateRoot]: 'a' };
        if (backBefore) texts[annotations.rollbackRotation] = 'b';
        world = converge(wanted(texts), world, { now }).world;
        const { root, rotation } = state(world);
        if (damaged.includes('old ended')) endRoot(world, now);
        if (damaged.includes('old lost')) lose(world, root!.fingerprint!);
        if (damaged.includes('new lost') && rotation?.to.fingerprint) lose(world, rotation.to.fingerprint);
        if (backAfter) texts[annotations.rollbackRotation] = 'c';
        for (let i = 0; i < 30; i += 1) {
          const way = converge(wanted(texts), world, { now });
          world = way.world;
          const lost = way.last.problems.find((problem) => problem.reason === 'RootLost');
          const asked = new RegExp(`${annotations.allowReissue}=([0-9a-f:]+)`).exec(lost?.message ?? '')?.[1];
          if (asked !== undefined) {
            expect(texts[annotations.allowReissue]).not.toBe(asked);
            texts[annotations.allowReissue] = asked;
            reached.add('RootLost');
            continue;
          }
          expect(way.last.problems).toEqual([]);
          if (phase(world) === undefined && i > 0 && derived(d, world).currentCa) break;
          if (derived(d, world).currentCa) follow(world);
          now += 25 * hour;
        }
        reached.add(`${where} ${damaged.join()}`);
        expect(phase(world)).toBeUndefined();
        // an expired root is only reported if no rotation away from it was requested
        const signer = derived(d, world).signer!.certificate;
        expect(heldBy(world)).toMatchObject({ signer: signer.fingerprint, roots: [signer.fingerprint] });
      }),
      { numRuns: 100 },
    );
    expect(reached.size).toBeGreaterThan(20);
  });

  it('away from a revoked root begins although a key was staged under it, and ends under the new root', () => {
    const world = provisioned();
    const renewing = wanted({ [annotations.rotateIntermediate]: 'now' });
    let staged = world;
    for (const step of plan(renewing, world, start).steps) staged = simulateStep(renewing, staged, step, start);
    expect(ownEntry(staged.vault.staging)).toBeDefined();
    revoke(staged, state(staged).root!.fingerprint!);
    const { world: waits, last } = converge(renewing, staged);
    expect(last).toEqual({ problems: [], steps: [] });
    expect(ownEntry(waits.vault.staging)).toBeUndefined();
    expect(derived(d, waits).currentCa).toEqual(derived(d, world).currentCa);
    const both = wanted({ [annotations.rotateIntermediate]: 'now', [annotations.rotateRoot]: 'a' });
    follow(waits);
    const end = toTheEnd(both, converge(both, waits).world, start + hour);
    expect(state(end).root?.generation).toBe(2);
  });

  it('to a root that was revoked meanwhile stops before it signs, and can be rolled back', () => {
    const { world, now } = until('Distributing');
    const { root, rotation } = state(world);
    revoke(world, rotation!.to.fingerprint!);
    follow(world);
    for (const later of [now + 100 * hour, now + 10_000 * hour])
      expect(phase(converge(rotating, world, { now: later }).world)).toBe('Distributing');
    const back = wanted({ [annotations.rotateRoot]: 'a', [annotations.rollbackRotation]: 'b' });
    expect(heldBy(toTheEnd(back, converge(back, world, { now }).world, now)).roots).toEqual([root!.fingerprint]);
  });

  describe('with no way back', () => {
    const back = wanted({ [annotations.rotateRoot]: 'a', [annotations.rollbackRotation]: 'b' });
    const gone: [string, (world: Observed, now: number) => void][] = [
      ['is lost', (world) => lose(world, state(world).root!.fingerprint!)],
      ['has run out', endRoot],
      ['was revoked', (world) => revoke(world, state(world).root!.fingerprint!)],
    ];

    it.each(gone)('goes on to the new root when the old one %s, and says so', (how, take) => {
      const { world, now } = until('Switching');
      const { to } = state(world).rotation!;
      take(world, now);
      const asked = converge(back, world, { now });
      expect(asked.last.problems).toEqual([]);
      expect(asked.done[0]).toMatchObject({ kind: 'WriteState', event: 'RootRotationNotRolledBack' });
      expect(rotationView(derived(back, asked.world, now))?.waitingFor).toContain(`no way back: root `);
      expect(rotationView(derived(back, asked.world, now))?.waitingFor).toContain(how);
      expect(heldBy(toTheEnd(back, asked.world, now)).roots).toEqual([to.fingerprint]);
    });

    it.each(gone)('turns forward again when the old one %s on the way to it', (_, take) => {
      const { world, now } = until('Switching');
      const { to } = state(world).rotation!;
      const onItsWay = converge(back, world, { now }).world;
      follow(onItsWay);
      expect(state(onItsWay).rotation?.back).toBe(true);
      take(onItsWay, now);
      const { world: end, last } = converge(back, onItsWay, { now });
      expect(last.problems).toEqual([]);
      expect(heldBy(toTheEnd(back, end, now)).roots).toEqual([to.fingerprint]);
    });

    it('makes another root when the old one has run out and the new one was given up', () => {
      const { world, now } = until('Switching');
      const { to } = state(world).rotation!;
      endRoot(world, now);
      lose(world, to.fingerprint!);
      expect(plan(rotating, world, now).problems.map((p) => p.reason)).toEqual(['RootLost']);
      const allowed = wanted({ ...back.annotations, [annotations.allowReissue]: to.serial! });
      const end = toTheEnd(allowed, world, now);
      expect(state(end).root?.generation).toBe(3);
      expect(heldBy(end).roots).toEqual([state(end).root?.fingerprint]);
    });
  });

  it('does not wait for what has run out', () => {
    const { world, now } = until('Issuing');
    endRoot(world, now);
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

  describe('by the limit of istiod', () => {
    const byIstiod = desiredOf({}, { [annotations.rotateRoot]: 'a' });
    const due = (world: Observed, now: number) => rotationView(derived(byIstiod, world, now))?.earliestNext;

    it('is not put off by an istiod that is gone for a moment', () => {
      const { world, now } = until('Distributing', byIstiod, 24 * hour);
      follow(world);
      const reached = converge(byIstiod, world, { now }).world;
      const soonest = rfc3339(now + 24 * hour + slack);
      expect(due(reached, now)).toBe(soonest);
      reached.kubernetes.maxWorkloadCertTtlMs = 'unknown';
      see(reached, [], heldBy(reached).roots, { deployments: [] });
      const gone = converge(byIstiod, reached, { now: now + hour });
      expect([gone.done, gone.last.problems, due(gone.world, now + hour)]).toEqual([[], [], soonest]);
      gone.world.kubernetes.maxWorkloadCertTtlMs = 24 * hour;
      follow(gone.world);
      expect(phase(converge(byIstiod, gone.world, { now: now + 24 * hour + slack - 1 }).world)).toBe('Distributing');
      expect(phase(converge(byIstiod, gone.world, { now: now + 24 * hour + slack }).world)).toBe('Switching');
    });

    it('is Istio’s default until it is seen, which is not remembered', () => {
      const { world, now } = until('Distributing', byIstiod, 'unknown');
      follow(world);
      const reached = converge(byIstiod, world, { now }).world;
      expect(state(reached).rotation?.longestMs).toBe(0);
      expect(due(reached, now)).toBe(rfc3339(now + 2160 * hour + slack));
      reached.kubernetes.maxWorkloadCertTtlMs = 24 * hour;
      const known = converge(byIstiod, reached, { now: now + hour }).world;
      expect(state(known).rotation?.longestMs).toBe(24 * hour);
      expect(due(known, now)).toBe(rfc3339(now + 24 * hour + slack));
    });
  });

  it('never publishes an intermediate beside a root that did not sign it', () => {
    const before = provisioned();
    const earlier = structuredClone(ownEntry(before.vault.live)!);
    const end = toTheEnd(rotating, before, start);
    end.vault.live = { ...end.vault.live, entry: { ...earlier } };
    let world = end;
    for (let round = 0; round < 20; round += 1)
      for (const step of plan(rotating, world, start + 200 * hour).steps) {
        world = simulateStep(rotating, world, step, start + 200 * hour);
        if (step.kind === 'PublishLive') expect(derived(d, world).currentCa).toBeDefined();
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

describe('versions of a live entry that a person wrote', () => {
  const theirs = [1, 2, 3, 4];
  const adopting = (text?: string, over: Record<string, unknown> = {}) =>
    desiredOf({ ...spec, adopt: true, ...over }, text === undefined ? {} : { [annotations.rotateIntermediate]: text });
  const byHand = () => {
    const world = handMadeWorld(d);
    Object.assign(world.vault, { liveOlder: theirs, liveVersions: 50 });
    world.vault.live.casVersion = 5;
    return world;
  };
  const served = (desired: typeof d, world: Observed) => (follow(world), converge(desired, world).world);

  it('stay; the one that was taken over goes with its key, and of ours the one before is kept at most', () => {
    const texts = fc.array(fc.tuple(fc.constantFrom('a', 'b', 'c'), fc.boolean()), { maxLength: 8 });
    fc.assert(
      fc.property(texts, (renewals) => {
        let world = converge(adopting(), byHand()).world;
        const adopted = ownEntry(world.vault.live)!.publicKey;
        expect(world.vault.liveOlder).toEqual([...theirs, 5]);
        for (const [text, seen] of renewals) {
          world = converge(adopting(text), world).world;
          if (seen) world = served(adopting(text), world);
          const { liveOlder, liveVersions } = world.vault;
          const kept = ownEntry(world.vault.live)!.publicKey === adopted || !seen ? [5] : [];
          expect(liveOlder.filter((version) => version < 5)).toEqual(theirs);
          if (seen) expect(liveOlder.filter((version) => version >= 5)).toEqual(kept);
          expect(liveOlder.filter((version) => version > 5).length).toBeLessThanOrEqual(1);
          expect(liveVersions).toBe(50);
        }
      }),
    );
  });

  it('stay while the same key is signed again', () => {
    const never = { intermediate: { ...spec.intermediate, key: { rotationPolicy: 'Never' } } };
    const { world } = converge(adopting('a', never), converge(adopting(undefined, never), byHand()).world);
    expect(served(adopting('a', never), world).vault.liveOlder).toEqual([...theirs, 5]);
  });

  it('stay when the memory is lost', () => {
    const { world } = converge(adopting('a'), converge(adopting(), byHand()).world);
    world.vault.state = { ...world.vault.state, entry: undefined };
    const end = served(adopting('a'), converge(adopting('a'), world).world);
    expect([end.vault.liveOlder.slice(0, 4), end.vault.liveVersions]).toEqual([theirs, 50]);
  });

  it('stay where they were deleted and can be restored', () => {
    const world = emptyWorld();
    world.vault.kvMount = { type: 'kv', description: '', maxLeaseTtl: 0, kvVersion: 2 };
    world.vault.live.casVersion = 5;
    world.vault.liveOlder = theirs;
    const end = served(d, converge(d, world).world);
    expect([end.vault.liveOlder, end.vault.liveVersions]).toEqual([[...theirs, 5], undefined]);
  });

  it('are none where a resource that is gone has written: its old key goes', () => {
    const made = converge(wanted({ [annotations.rotateIntermediate]: 'x' }), provisioned()).world;
    expect(made.vault.liveOlder).toHaveLength(1);
    const end = served(adopting(), converge(adopting(), leftBehind(made)).world);
    expect([end.vault.liveOlder, end.vault.liveVersions]).toEqual([[], 2]);
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
    spec: Record<string, unknown>;
    /** The limit that istiod shows. */
    limit: Limit;
    /** Whether istiod ever shows its limit. */
    shows: boolean;
  }
  const event = fc.oneof(
    { weight: 6, arbitrary: fc.record({ kind: fc.constant('step' as const), bits: fc.nat(31) }) },
    { weight: 4, arbitrary: fc.record({ kind: fc.constant('reload' as const), replica: fc.nat(1) }) },
    {
      weight: 3,
      arbitrary: fc.record({ kind: fc.constant('renew' as const), workload: fc.nat(2), replica: fc.nat(1) }),
    },
    // waits shorter than a workload certificate lifetime, to find phases that end too early, and longer ones, so that the rotation continues
    { weight: 4, arbitrary: fc.record({ kind: fc.constant('wait' as const), hours: fc.constantFrom(1, 2, 3, 30) }) },
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
    { weight: 1, arbitrary: fc.record({ kind: fc.constantFrom('takeOver' as const, 'forget' as const) }) },
    { weight: 2, arbitrary: fc.record({ kind: fc.constant('show' as const), limit: fc.boolean() }) },
  );
  type Event = typeof event extends fc.Arbitrary<infer T> ? T : never;

  const renew = (mesh: Mesh, workload: number, replica: number) => {
    const { signer, roots } = mesh.istiods[replica]!;
    mesh.workloads[workload] = { signer, trusts: roots, until: mesh.now + ttl };
  };

  function happen(mesh: Mesh, e: Event): void {
    switch (e.kind) {
      case 'step': {
        if (ownEntry(mesh.world.vault.live)) see(mesh.world, mesh.istiods, mesh.namespace);
        mesh.world.kubernetes.maxWorkloadCertTtlMs = mesh.limit;
        const desired = desiredOf({ ...mesh.spec, adopt: true }, mesh.texts);
        const { steps } = plan(desired, mesh.world, mesh.now);
        for (const [i, step] of steps.entries())
          if (i === 0 || (e.bits >> i) & 1) mesh.world = simulateStep(desired, mesh.world, step, mesh.now);
        break;
      }
      case 'reload':
        // before the adoption, the current CA does not change
        if (ownEntry(mesh.world.vault.live)) mesh.istiods[e.replica] = heldBy(mesh.world);
        break;
      case 'namespace':
        mesh.namespace = mesh.istiods[0]!.roots;
        break;
      case 'renew':
        renew(mesh, e.workload, e.replica);
        break;
      case 'wait': {
        // each workload renews its certificate at the latest when it expires
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
        break;
      case 'takeOver':
        if (ownEntry(mesh.world.vault.live) && !ownEntry(mesh.world.vault.staging)) mesh.world = leftBehind(mesh.world);
        mesh.world.kubernetes.istiod = undefined;
        break;
      case 'forget':
        if (ownEntry(mesh.world.vault.live)) mesh.world.vault.state = { ...mesh.world.vault.state, entry: undefined };
        break;
      case 'show':
        mesh.limit = e.limit && mesh.shows ? ttl : 'unknown';
    }
  }

  /** Events that bring an undisturbed mesh through every phase. */
  const whole = Array.from({ length: 5 }, (): Event[] => [
    { kind: 'show', limit: true },
    ...Array.from({ length: 14 }, (): Event => ({ kind: 'step', bits: 31 })),
    { kind: 'reload', replica: 0 },
    { kind: 'reload', replica: 1 },
    { kind: 'namespace' },
    { kind: 'step', bits: 31 },
    { kind: 'wait', hours: 30 },
    { kind: 'wait', hours: 1 },
  ]).flat();

  it.each([
    ['the spec', spec, 200],
    ['istiod, when it shows it', {}, 100],
  ])(
    'whatever lags, crashes, pauses, is rolled back, forgotten or taken over, by the limit of %s',
    (_, ofMesh, numRuns) => {
      const reachedPhases = new Set<string>();
      fc.assert(
        fc.property(
          fc.array(event, { minLength: 40, maxLength: 160 }),
          fc.boolean(),
          fc.boolean(),
          (events, shows, calm) => {
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
              spec: ofMesh,
              limit: 'unknown',
              shows,
            };
            let bundle = ownEntry(mesh.world.vault.live)!.root;
            // user requests rarely let a rotation get far, and workloads that renew often do not reveal phases that end too early
            const disturbs = (one: Event) =>
              /annotate|pause|takeOver|forget/.test(one.kind) || (one.kind === 'renew' && one.workload > 0);
            for (const one of events.filter((event_) => !calm || !disturbs(event_))) {
              happen(mesh, one);
              // istiod before 1.30 loads another bundle only if the bytes of one bundle contain the bytes of the other
              const { live } = mesh.world.vault;
              const next = ownEntry(live)?.root ?? live.foreign!.root;
              expect(next.includes(bundle) || bundle.includes(next)).toBe(true);
              bundle = next;
              reachedPhases.add(ownEntry(mesh.world.vault.state)?.rotation?.phase ?? 'none');
              for (const a of mesh.workloads) for (const b of mesh.workloads) expect(b.trusts).toContain(a.signer);
              // workloads verify istiod with the roots of their namespace
              for (const { signer } of mesh.istiods) expect(mesh.namespace).toContain(signer);
              // the CA entry is always valid
              if (ownEntry(live)) expect(derived(d, mesh.world).currentCa).toBeDefined();
            }
          },
        ),
        { numRuns, examples: [[whole, true, true]] },
      );
      expect(reachedPhases).toEqual(new Set(['none', 'Issuing', 'Distributing', 'Switching', 'Retiring']));
    },
  );
});
