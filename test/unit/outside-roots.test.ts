/**
 * A root outside of Vault: rotations begin only when asked for, no workload is left without a root, and every interruption ends like an undisturbed run.
 * A signer outside is played by certificates that do not exist; test/e2e/external-root.test.ts has real ones.
 */
import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { annotations, digestAnnotation } from '../../src/api/annotations.ts';
import { bundleFacts, plannedCertificate, type CertificateFacts } from '../../src/plan/facts/certificate.ts';
import { leadsTo } from '../../src/plan/facts/certificate-path.ts';
import { caEntryDefect } from '../../src/plan/facts/derived.ts';
import type { Desired } from '../../src/plan/facts/desired.ts';
import { ownEntry, type Observed } from '../../src/plan/facts/observed.ts';
import { signatureOf } from '../../src/plan/facts/outside-roots.ts';
import { plan } from '../../src/plan/plan.ts';
import type { RotationPhase } from '../../src/plan/facts/state-entry.ts';
import { outsideNote } from '../../src/plan/vault/outside-root-checks.ts';
import { leafOf, meshBundle, podOf, settingsOf, withIstiod } from './istiod-world.ts';
import { converge, derived, desiredOf, emptyWorld, someCa, start } from './model.ts';

const hour = 3_600_000;
const spec = {
  root: { source: 'External', external: { signed: { configMapRef: { name: 'signed' } } } },
  intermediate: { maxWorkloadCertTTL: '24h' },
};
const wanted = (texts: Record<string, string> = {}): Desired => desiredOf(spec, texts);
const d = wanted();

const rootA = someCa('root A', undefined);
const rootB = someCa('root B', undefined);
const tierA = someCa('issuing CA of A', rootA, 3000);
const tierB = someCa('issuing CA of B', rootB, 3000);

const staged = (world: Observed) => ownEntry(world.vault.staging);
const live = (world: Observed) => ownEntry(world.vault.live)!;
const state = (world: Observed) => ownEntry(world.vault.state)!;
const phase = (world: Observed): RotationPhase | undefined => state(world).rotation?.phase;
const rootsOf = (world: Observed): string[] => bundleFacts(live(world).root).map(({ fingerprint }) => fingerprint);

/** What a CA outside makes of the request that waits. @param above the issuing CA, then what is above it */
function answer(world: Observed, now: number, ...above: CertificateFacts[]): CertificateFacts[] {
  const facts = {
    publicKey: staged(world)?.publicKey ?? '',
    notBefore: now,
    notAfter: now + 1825 * 24 * hour,
    subject: { commonName: 'Istio Intermediate CA', organization: '' },
    selfIssued: false,
    isCa: true,
    maxPathLength: 0,
    canSignCertificates: true,
    keyType: 'rsa' as const,
    keyBits: 2048,
  };
  return [plannedCertificate(facts, above[0]?.fingerprint), ...above];
}

/** The world with these certificates in the ConfigMap. */
const given = (world: Observed, certificates: CertificateFacts[]): Observed => ({
  ...world,
  kubernetes: { ...world.kubernetes, signed: { place: 'ConfigMap istio-system/signed, key tls.crt', certificates } },
});

/** All replicas and namespaces take over the current CA. */
function follow(world: Observed, desired: Desired): Observed {
  const certificate = live(world).certificate!;
  const chain = bundleFacts(live(world).chain);
  const served = { leaf: leafOf(certificate), chain, issuer: 'CN=Istio Intermediate CA' };
  const settings = settingsOf(world, desired);
  const pod = (name: string) =>
    podOf(
      world,
      name,
      {
        settings: { ...settings, annotations: { ...settings.annotations, [digestAnnotation]: 'unknown' } },
        served,
        signed: { ...served, roots: rootsOf(world) },
      },
      desired,
    );
  const bundles = [meshBundle(desired.identity.namespace, rootsOf(world))];
  return withIstiod(world, [pod('istiod-0'), pod('istiod-1')], { bundles }, desired);
}

/** A provisioned world under root A, and the certificates that were handed in. */
function provisioned(): Observed {
  const waiting = converge(d, emptyWorld()).world;
  return follow(converge(d, given(waiting, answer(waiting, start, tierA, rootA))).world, d);
}

/** Asks for root B and hands in a certificate under it. @returns the world, and what is desired from then on */
function askedForB(texts: Record<string, string> = {}): { world: Observed; desired: Desired } {
  const desired = wanted({ [annotations.rotateRoot]: rootB.fingerprint, ...texts });
  const requested = converge(desired, provisioned()).world;
  return { world: given(requested, answer(requested, start, tierB, rootB)), desired };
}

/** Lets time pass until a phase, or until the rotation is over. @param seen each settled world on the way */
function runTo(wantedPhase: RotationPhase | undefined, from: Observed, desired: Desired, seen: Observed[] = []) {
  let world = from;
  for (let now = start; now < start + 300 * hour; now += 25 * hour) {
    world = converge(desired, world, { now }).world;
    seen.push(world);
    if (phase(world) === wantedPhase && (wantedPhase !== undefined || seen.length > 1)) return { world, now, seen };
    world = follow(world, desired);
  }
  throw new Error(`never in ${wantedPhase ?? 'the end'}, but in ${phase(world) ?? 'none'}`);
}

/** Whether a workload with the roots of one world takes a certificate of another one. */
const takes = (verifier: Observed, prover: Observed): boolean =>
  bundleFacts(live(verifier).root).some((root) =>
    leadsTo(live(prover).certificate!, bundleFacts(live(prover).chain), root),
  );

describe('the first certificate', () => {
  it('is awaited with everything else done, and published with its tiers', () => {
    const { world, last } = converge(d, emptyWorld());
    expect(last.problems.map(({ reason }) => reason)).toEqual(['AwaitingSignature', 'AwaitingSignature']);
    expect(world.vault.rootMount).toBeUndefined();
    expect(world.vault.role).toBeDefined();
    const done = provisioned();
    expect(bundleFacts(live(done).chain).map(({ subject }) => subject.commonName)).toEqual([
      'Istio Intermediate CA',
      'issuing CA of A',
    ]);
    expect(rootsOf(done)).toEqual([rootA.fingerprint]);
    expect(caEntryDefect(live(done))).toBeUndefined();
    expect(plan(d, done, start)).toEqual({ steps: [], problems: [] });
  });

  it('may be corrected under another root as long as nothing is published', () => {
    const waiting = converge(d, emptyWorld()).world;
    const offered = given(waiting, answer(waiting, start, tierA, rootA));
    const recorded = converge(d, offered, { pick: (steps, round) => (round === 0 ? steps : []) , next: (...args) => ({ ...plan(...args), steps: plan(...args).steps.filter(({ kind }) => kind === 'WriteState') }) }).world; // prettier-ignore
    expect(state(recorded).root?.fingerprint).toBe(rootA.fingerprint);
    const corrected = converge(d, given(recorded, answer(recorded, start, tierB, rootB))).world;
    expect(rootsOf(corrected)).toEqual([rootB.fingerprint]);
  });

  it('a mesh with another root has to be asked first', () => {
    const empty = emptyWorld();
    const world = { ...empty, kubernetes: { ...empty.kubernetes, meshRoots: [rootB] } };
    const waiting = converge(d, world).world;
    const offered = given(waiting, answer(waiting, start, tierA, rootA));
    const blocked = converge(d, offered);
    expect(blocked.last.problems[0]).toMatchObject({ reason: 'WouldReplaceRoot', blocks: 'all' });
    expect(ownEntry(blocked.world.vault.live)).toBeUndefined();
    const confirmed = wanted({ [annotations.confirmRootChange]: rootB.fingerprint });
    expect(rootsOf(converge(confirmed, offered).world)).toEqual([rootA.fingerprint]);
  });
});

describe('another root', () => {
  it.each([
    ['without a request', {}, 'is not the root in use'],
    [
      'asked for by another text',
      { [annotations.rotateRoot]: 'today' },
      `${annotations.rotateRoot}=${rootB.fingerprint}`,
    ],
    ['asked for by another fingerprint', { [annotations.rotateRoot]: tierB.fingerprint }, 'is not the root in use'],
  ])('%s is refused', (_, texts, text) => {
    const desired = wanted({ [annotations.rotateIntermediate]: 'one', ...texts });
    const requested = converge(desired, provisioned()).world;
    const { world } = converge(desired, given(requested, answer(requested, start, tierB, rootB)));
    expect(rootsOf(world)).toEqual([rootA.fingerprint]);
    expect(phase(world)).toBeUndefined();
    expect(outsideNote(derived(desired, world))?.message).toContain(text);
  });

  it('a certificate under the root in use is refused while another root is asked for', () => {
    const { world, desired } = askedForB();
    const under = given(world, answer(world, start, tierA, rootA));
    expect(signatureOf(derived(desired, under))).toMatchObject({ kind: 'refused', why: expect.stringContaining('asks for another one') as unknown }); // prettier-ignore
  });

  it('goes through the four phases; any two workloads on the way accept each other', () => {
    const { world, desired } = askedForB();
    const before = provisioned();
    const { world: end, seen } = runTo(undefined, world, desired);
    expect(rootsOf(end)).toEqual([rootB.fingerprint]);
    expect(state(end).root).toMatchObject({ fingerprint: rootB.fingerprint, generation: 2 });
    expect(state(end).history[0]).toMatchObject({ kind: 'Root', fingerprint: rootB.fingerprint });
    expect(staged(end)).toBeUndefined();
    const way = [before, ...seen];
    for (const [i, one] of way.entries()) {
      const next = way[i + 1] ?? one;
      expect([takes(one, next), takes(next, one)]).toEqual([true, true]);
    }
  });

  it('the certificate may leave its object once it is accepted', () => {
    const { world, desired } = askedForB();
    const { world: distributing } = runTo('Distributing', world, desired);
    delete distributing.kubernetes.signed;
    expect(rootsOf(runTo(undefined, follow(distributing, desired), desired).world)).toEqual([rootB.fingerprint]);
  });

  it('a third root is refused while one is distributed', () => {
    const { world, desired } = askedForB();
    const { world: switching } = runTo('Switching', world, desired);
    const renewing = wanted({ ...desired.annotations, [annotations.rotateIntermediate]: 'two' });
    const requested = converge(renewing, switching).world;
    const third = someCa('root C', undefined);
    const offered = given(requested, answer(requested, start, third));
    expect(signatureOf(derived(renewing, offered))).toMatchObject({ kind: 'refused', why: expect.stringContaining('root rotation in progress') as unknown }); // prettier-ignore
  });
});

describe('a rollback', () => {
  it('before the switch gives up what was signed under the new root, and does not begin again by itself', () => {
    const { world, desired } = askedForB();
    const { world: distributing } = runTo('Distributing', world, desired);
    const back = wanted({ ...desired.annotations, [annotations.rollbackRotation]: 'back' });
    const { world: end } = runTo(undefined, follow(distributing, back), back);
    expect(rootsOf(end)).toEqual([rootA.fingerprint]);
    expect(staged(end)).toBeUndefined();
    expect(converge(back, follow(end, back), { now: start + 300 * hour }).done).toEqual([]);
  });

  it('after the switch waits for a certificate under the old root, with both roots trusted', () => {
    const { world, desired } = askedForB();
    const { world: switching } = runTo('Switching', world, desired);
    const back = wanted({ ...desired.annotations, [annotations.rollbackRotation]: 'back' });
    const waiting = converge(back, follow(switching, back), { now: start + 60 * hour }).world;
    expect(outsideNote(derived(back, waiting, start + 60 * hour))?.reason).toBe('AwaitingSignature');
    expect(rootsOf(waiting)).toEqual([rootA.fingerprint, rootB.fingerprint]);
    const answered = given(waiting, answer(waiting, start + 60 * hour, tierA, rootA));
    const { world: end } = runTo(undefined, answered, back);
    expect(rootsOf(end)).toEqual([rootA.fingerprint]);
    expect(leadsTo(live(end).certificate!, [tierA], rootA)).toBe(true);
  });
});

describe('interruptions', () => {
  it('the state entry is lost in any phase: no root that signs or is trusted is taken away at once', () => {
    for (const at of ['Distributing', 'Switching'] as const) {
      const { world, desired } = askedForB();
      const { world: there, now } = runTo(at, world, desired);
      const lost = follow(there, desired);
      lost.vault.state = { casVersion: lost.vault.state.casVersion, entry: undefined };
      const settled = converge(desired, lost, { now: now + 1 }).world;
      expect([at, rootsOf(settled)]).toEqual([at, [rootA.fingerprint, rootB.fingerprint]]);
      expect(caEntryDefect(live(settled))).toBeUndefined();
    }
  });

  it('only some steps of any iteration are carried out: the end is the same', () => {
    fc.assert(
      fc.property(fc.array(fc.boolean(), { maxLength: 60 }), (luck) => {
        const pick = <T>(steps: T[], round: number): T[] => steps.filter((_, i) => luck[round + i] ?? true);
        const waiting = converge(d, emptyWorld(), { pick }).world;
        const done = converge(d, given(waiting, answer(waiting, start, tierA, rootA)), { pick }).world;
        expect(caEntryDefect(live(done))).toBeUndefined();
        expect([live(done).generation, rootsOf(done), staged(done)]).toEqual([1, [rootA.fingerprint], undefined]);
        expect(plan(d, done, start).steps).toEqual([]);
      }),
      { numRuns: 40 },
    );
  });

  it('in a Vault to which only the entries were restored, the rest is made again and nothing of the CA is lost', () => {
    const before = provisioned();
    const empty = emptyWorld().vault;
    const { kvMount, live: caEntry, state: recorded } = before.vault;
    const restored = { ...before, vault: { ...empty, kvMount, live: caEntry, state: recorded } };
    const { world, last } = converge(d, restored);
    expect(last).toEqual({ problems: [], steps: [] });
    expect(derived(d, world).currentCa).toEqual(derived(d, before).currentCa);
    expect(derived(d, world).currentIssuer).toBeDefined();
    expect(world.vault.role).toEqual(before.vault.role);
  });

  it('a lost key asks for another certificate under the same root, and takes no other', () => {
    const world = provisioned();
    const entry = live(world);
    world.vault.live = { ...world.vault.live, entry: { ...entry, publicKey: 'another key' } };
    const requested = converge(d, world).world;
    const other = given(requested, answer(requested, start, tierB, rootB));
    expect(signatureOf(derived(d, other))).toMatchObject({ kind: 'refused' });
    const same = given(requested, answer(requested, start, tierA, rootA));
    expect(rootsOf(converge(d, same).world)).toEqual([rootA.fingerprint]);
  });
});
