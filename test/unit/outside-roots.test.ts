/**
 * Roots outside, of Vault or in a mount of others: rotations begin only when asked for, no workload is left without a root, and every interruption ends like an undisturbed run.
 * A signer outside is played by certificates that do not exist; test/e2e/external-root.test.ts has real ones.
 */
import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { annotations } from '../../src/api/annotations.ts';
import { bundleFacts, plannedCertificate, type CertificateFacts } from '../../src/plan/facts/certificate.ts';
import { leadsTo } from '../../src/plan/facts/certificate-path.ts';
import { caEntryDefect } from '../../src/plan/facts/ca-entry.ts';
import type { Desired } from '../../src/plan/facts/desired.ts';
import { ownEntry, type Observed } from '../../src/plan/facts/observed.ts';
import { signatureOf } from '../../src/plan/facts/outside-roots.ts';
import type { RotationPhase } from '../../src/plan/facts/state-entry.ts';
import { plan } from '../../src/plan/plan.ts';
import { cleanup } from '../../src/plan/vault/cleanup.ts';
import { expiry } from '../../src/plan/status/expiry.ts';
import { holdingMessage } from '../../src/plan/status/holding.ts';
import { issuerNotFound, outsideNote } from '../../src/plan/vault/outside-root-checks.ts';
import { signerIdOf } from '../../src/vault/existing-issuers.ts';
import { converge, derived, desiredOf, emptyWorld, someCa, start } from './model.ts';
import { follow, live, phase, rootsOf, runTo, state, takes } from './rotating-world.ts';

const hour = 3_600_000;
const spec = {
  root: { source: 'External', external: { signed: { configMapRef: { name: 'signed' } } } },
  intermediate: { maxWorkloadCertTTL: '24h' },
};
const wanted = (texts: Record<string, string> = {}, intermediate = {}): Desired =>
  desiredOf({ ...spec, intermediate: { ...spec.intermediate, ...intermediate } }, texts);
const d = wanted();

const rootA = someCa('root A', undefined);
const rootB = someCa('root B', undefined);
const tierA = someCa('issuing CA of A', rootA, 3000);
const tierB = someCa('issuing CA of B', rootB, 3000);

const staged = (world: Observed) => ownEntry(world.vault.staging);
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

/** A provisioned world under root A, and the certificates that were handed in. */
function provisioned(desired = d): Observed {
  const waiting = converge(desired, emptyWorld()).world;
  return follow(converge(desired, given(waiting, answer(waiting, start, tierA, rootA))).world, desired);
}

/** Asks for root B and hands in a certificate under it. @returns the world, and what is desired from then on */
function askedForB(texts: Record<string, string> = {}): { world: Observed; desired: Desired } {
  const desired = wanted({ [annotations.rotateRoot]: rootB.fingerprint, ...texts });
  const requested = converge(desired, provisioned()).world;
  return { world: given(requested, answer(requested, start, tierB, rootB)), desired };
}

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

  it('asked for at a renewal: nothing is amiss while both are distributed', () => {
    const due = start + 1300 * 24 * hour;
    const next = someCa('root C', undefined, 5000);
    const requested = converge(d, provisioned(), { now: due }).world;
    const desired = wanted({ [annotations.rotateRoot]: next.fingerprint });
    const offered = follow(given(requested, answer(requested, due, next)), desired);
    const { world, now } = runTo('Distributing', offered, desired, due);
    const s = derived(desired, follow(world, desired), now);
    expect([expiry('IntermediateReady', s), holdingMessage('IntermediateReady', s)]).toEqual([undefined, expect.stringContaining('generation 1')]); // prettier-ignore
  });

  it('a request is made when the root in use has expired', () => {
    const desired = wanted({ [annotations.rotateRoot]: 'now' });
    expect(staged(converge(desired, provisioned(), { now: start + 3700 * 24 * hour }).world)?.csr).toBeDefined();
  });

  it('a tier that somebody takes out of the mount while the next CA waits is put back', () => {
    const { world, desired } = askedForB();
    const { world: distributing } = runTo('Distributing', world, desired);
    const pki = distributing.vault.intermediatePki!;
    pki.issuers = pki.issuers.filter(({ certificate }) => certificate.fingerprint !== tierB.fingerprint);
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

describe('with rotationPolicy: Never', () => {
  it('the certificate of any earlier request is none', () => {
    const never = (text: string) => wanted({ [annotations.rotateIntermediate]: text }, { key: { rotationPolicy: 'Never' } }); // prettier-ignore
    let world = provisioned(never('1'));
    const { signed } = world.kubernetes;
    world = converge(never('2'), world).world;
    world = follow(converge(never('2'), given(world, answer(world, start, tierA, rootA))).world, never('2'));
    world = converge(never('2'), world).world;
    world = { ...world, kubernetes: { ...world.kubernetes, signed: signed! } };
    world = converge(never('3'), world).world;
    expect([live(world).generation, outsideNote(derived(never('3'), world))?.reason]).toEqual([2, 'AwaitingSignature']);
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

  it('before the switch needs no signature, whatever request is waiting', () => {
    const { world, desired } = askedForB();
    const { world: distributing } = runTo('Distributing', world, desired);
    const changed = wanted(desired.annotations, { organization: 'changed' });
    const again = converge(changed, follow(distributing, changed)).world;
    expect(staged(again)?.csr).toBeDefined();
    const back = wanted({ ...changed.annotations, [annotations.rollbackRotation]: 'back' }, { organization: 'changed' }); // prettier-ignore
    expect(rootsOf(runTo(undefined, follow(again, back), back).world)).toEqual([rootA.fingerprint]);
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

/** What the message about a refused certificate says that `rotate-root` must be. */
function textAskedFor(desired: Desired, world: Observed, now = start): Record<string, string> {
  const message = outsideNote(derived(desired, world, now))?.message ?? '';
  return { [annotations.rotateRoot]: new RegExp(`${annotations.rotateRoot}=([^ ,]+)`).exec(message)?.[1] ?? '' };
}

describe('a root that was asked for before', () => {
  it('can be asked for again after a rollback', () => {
    const { world, desired } = askedForB();
    const { world: distributing } = runTo('Distributing', world, desired);
    const back = wanted({ ...desired.annotations, [annotations.rollbackRotation]: 'back' });
    const { world: end, now } = runTo(undefined, follow(distributing, back), back);
    const anew = wanted({ ...back.annotations, [annotations.rotateIntermediate]: 'again' });
    const requested = converge(anew, end, { now }).world;
    const offered = given(requested, answer(requested, now, tierB, rootB));
    const asked = wanted({ ...anew.annotations, ...textAskedFor(anew, offered, now) });
    expect(phase(converge(asked, follow(offered, asked), { now }).world)).toBe('Distributing');
  });

  it('can be asked for again when the state entry was lost with the request', () => {
    const { world, desired } = askedForB();
    world.vault.state = { casVersion: world.vault.state.casVersion, entry: undefined };
    const settled = converge(desired, world).world;
    const asked = wanted({ ...desired.annotations, ...textAskedFor(desired, settled) });
    expect(phase(converge(asked, follow(settled, asked)).world)).toBe('Distributing');
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

it('deletion removes the intermediate mount with the tiers that came along', () => {
  const goes = desiredOf({ ...spec, deletionPolicy: 'Delete' });
  const world = provisioned(goes);
  world.vault.remains = { otherEntries: [], otherRoles: [], rootMountRoles: undefined, signed: undefined };
  expect(world.vault.intermediatePki?.issuers.map(({ keyId }) => keyId)).toContain('');
  expect(converge(goes, world, { next: cleanup }).world.vault.intermediateMount).toBeUndefined();
});

it('both entries that name the root are lost: the message says which, and no mount', () => {
  const world = provisioned();
  const gone = { casVersion: 5, entry: undefined };
  Object.assign(world.vault, { live: { ...gone }, state: { ...gone } });
  const [problem] = plan(d, world, start).problems;
  expect(problem).toMatchObject({
    reason: 'RootLost',
    message: expect.stringContaining('kv/istioca-state') as unknown,
  });
  expect(problem?.message).not.toContain('pki/');
  // the user goes on, and the roots of the mesh are looked at all the same
  world.kubernetes.meshRoots = [rootA];
  const allowed = wanted({ [annotations.allowReissue]: rootA.serial });
  const asked = converge(allowed, given(world, [])).world;
  const { last } = converge(allowed, given(asked, answer(asked, start, tierB, rootB)));
  expect(last.problems[0]).toMatchObject({ reason: 'WouldReplaceRoot', blocks: 'all' });
  const same = converge(allowed, given(asked, answer(asked, start, tierA, rootA))).world;
  expect(rootsOf(same)).toEqual([rootA.fingerprint]);
});

describe('an issuer of others', () => {
  const due = start + 1300 * 24 * hour;
  const above: Record<string, CertificateFacts[]> = { a: [tierA, rootA], b: [tierB, rootB] };
  /** The resource with this issuer in its spec. */
  const by = (issuerRef: string, texts: Record<string, string> = {}): Desired =>
    desiredOf({ root: { source: 'Existing', mount: 'corp', existing: { issuerRef } }, intermediate: spec.intermediate }, texts); // prettier-ignore
  /** The mount of others has these issuers, and the spec names one. */
  const mountHas = (world: Observed, wantedId: string | undefined, ...ids: string[]): Observed => {
    const found = ids.map((id) => ({ id, name: id, certificate: above[id]![0]!, above: above[id]!.slice(1) }));
    return { ...world, vault: { ...world.vault, existing: { found, wantedId, defaultId: undefined } } };
  };
  const underA = (): Observed => follow(converge(by('a'), mountHas(emptyWorld(), 'a', 'a')).world, by('a'));
  const toB = by('b', { [annotations.rotateRoot]: 'now' });
  const back = by('b', { ...toB.annotations, [annotations.rollbackRotation]: 'back' });
  const rotating = (at: RotationPhase, begin = start) => runTo(at, mountHas(underA(), 'b', 'a', 'b'), toB, begin);
  const issuerProblem = (desired: Desired, world: Observed): string => issuerNotFound(derived(desired, world))?.message ?? ''; // prettier-ignore

  it('signs, and goes through a rotation to another one', () => {
    expect(plan(by('a'), underA(), start)).toEqual({ steps: [], problems: [] });
    expect(rootsOf(runTo(undefined, mountHas(underA(), 'b', 'a', 'b'), toB).world)).toEqual([rootB.fingerprint]);
  });

  it('that is gone when a renewal is due does not keep another one from being rotated to', () => {
    const waiting = converge(by('a'), mountHas(underA(), undefined), { now: due }).world;
    expect(staged(waiting)).toBeUndefined();
    const { world } = runTo(undefined, mountHas(follow(waiting, toB), 'b', 'b'), toB, due);
    expect(rootsOf(world)).toEqual([rootB.fingerprint]);
  });

  it('that goes while both roots are distributed, and a renewal is due, does not stop the rotation', () => {
    const { world, now } = rotating('Distributing', start + 1215 * 24 * hour);
    const gone = mountHas(follow(world, toB), 'b', 'b');
    expect(rootsOf(runTo(undefined, gone, toB, now + 240 * hour).world)).toEqual([rootB.fingerprint]);
  });

  it('that is gone is not gone back to after the switch', () => {
    const { world, now } = rotating('Switching');
    expect(rootsOf(runTo(undefined, mountHas(follow(world, back), 'b', 'b'), back, now).world)).toEqual([rootB.fingerprint]); // prettier-ignore
  });

  it('that is gone before the switch needs not exist to go back', () => {
    const { world, now } = rotating('Distributing');
    expect(rootsOf(runTo(undefined, mountHas(follow(world, back), 'b', 'b'), back, now).world)).toEqual([rootA.fingerprint]); // prettier-ignore
  });

  it('to which a rotation leads, and that is gone, does not begin to sign; the message names the way back', () => {
    const { world, now } = rotating('Distributing');
    const gone = mountHas(follow(world, toB), undefined, 'a');
    const reached = follow(converge(toB, gone, { now: now + hour }).world, toB);
    expect(phase(converge(toB, reached, { now: now + 30 * hour }).world)).toBe('Distributing');
    expect(issuerProblem(toB, gone)).toContain(annotations.rollbackRotation);
    const switched = rotating('Switching').world;
    expect(issuerProblem(toB, mountHas(follow(switched, toB), undefined, 'a'))).toContain(annotations.rollbackRotation);
  });

  it('needs the right to sign from the phase on in which it signs', async () => {
    const signerIn = ({ vault }: Observed) => signerIdOf(Promise.resolve(vault.existing), vault.state);
    expect(await signerIn(rotating('Distributing').world)).toBe('a');
    expect(await signerIn(rotating('Switching').world)).toBe('b');
  });

  it('that is only named in the spec does not make its root one that istiod distributes', () => {
    const without = emptyWorld();
    without.kubernetes.controlPlane = undefined;
    const published = converge(by('a'), mountHas(without, 'a', 'a')).world;
    const { controlPlane } = emptyWorld().kubernetes;
    const mesh = { ...published, kubernetes: { ...published.kubernetes, controlPlane, meshRoots: [rootB] } };
    const { last } = converge(by('b'), mountHas(mesh, 'b', 'a', 'b'));
    expect(last.problems[0]).toMatchObject({ reason: 'WouldReplaceRoot', blocks: 'all' });
  });

  it.each(['Distributing', 'Switching', 'Retiring'] as const)(
    'the state entry is lost in %s: no root is taken away at once, and the message has no gap',
    (at) => {
      const { world, now } = rotating(at);
      const lost = mountHas(follow(world, toB), 'b', 'b');
      lost.vault.state = { casVersion: lost.vault.state.casVersion, entry: undefined };
      const settled = converge(toB, lost, { now: now + 1 }).world;
      expect(new Set(rootsOf(settled))).toEqual(new Set(rootsOf(world)));
      expect(issuerProblem(toB, settled)).not.toMatch(/ {2}/);
    },
  );
});
