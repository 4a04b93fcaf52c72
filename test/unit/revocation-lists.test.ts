/** Revocation lists in the CA entry: at no time may a proxy that has the published lists meet a CA of which it has none. */
import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { annotations } from '../../src/api/annotations.ts';
import type { Desired } from '../../src/plan/facts/desired.ts';
import { ownEntry, type Observed } from '../../src/plan/facts/observed.ts';
import { plannedAgain, plannedList, type RevocationList } from '../../src/plan/facts/revocation-list.ts';
import { plan } from '../../src/plan/plan.ts';
import { simulateStep } from '../../src/plan/simulate.ts';
import type { Step, StepKind } from '../../src/plan/steps.ts';
import { crlMissing, crlNearEnd } from '../../src/plan/vault/revocation-list-checks.ts';
import { listsDueAt } from '../../src/plan/vault/revocation-lists.ts';
import { meshBundle, podOf, rootOf, withIstiod } from './istiod-world.ts';
import { converge, derived, desiredOf, emptyWorld, handMadeWorld, start } from './model.ts';

const minute = 60_000;
const hour = 60 * minute;
const day = 24 * hour;
const spec = { delivery: { crl: true }, intermediate: { maxWorkloadCertTTL: '24h' } };
const wanted = (text?: string, over: Record<string, unknown> = spec): Desired =>
  desiredOf(over, text === undefined ? {} : { [annotations.rotateIntermediate]: text });
const d = wanted();
const { crlLeadMs } = d;

const kinds = (steps: Step[]): StepKind[] => steps.map(({ kind }) => kind);
const published = (steps: Step[]) =>
  steps.flatMap((step) => (step.kind === 'PublishLive' ? (step.same ?? step.from) : []));
const live = (world: Observed) => ownEntry(world.vault.live)!;
const listed = (world: Observed): string[] => (live(world).lists ?? []).map(({ ca }) => ca).sort();
const rootFingerprint = (world: Observed) => rootOf(world).fingerprint;

const revokedIn = (world: Observed): string[] =>
  (live(world).lists ?? []).flatMap(({ revoked }) => Object.keys(revoked));

/** Runs until nothing is left to do at a time, which is Vault's time too. */
const at = (now: number, world: Observed, desired = d) => {
  world.vault.time = now;
  return converge(desired, world, { now });
};

/** A replica of istiod that serves the current CA, and what it publishes. */
function seen(world: Observed, desired = d): Observed {
  const bundles = [meshBundle(desired.identity.namespace, [rootOf(world)])];
  return withIstiod(world, [podOf(world, 'istiod-1', {}, desired)], { bundles }, desired);
}

/** Has Vault sign the list of a CA with other content, revoked at the same time. @param thisUpdate milliseconds since the epoch */
function sign(world: Observed, fingerprint: string, serials: string[], thisUpdate: number): void {
  const list = plannedAgain(world.vault.lists[fingerprint]!, thisUpdate);
  const revoked = Object.fromEntries(serials.map((serial) => [serial, thisUpdate]));
  world.vault.lists = {
    ...world.vault.lists,
    [fingerprint]: { ...list, revoked, pem: `${list.pem}${serials.join()}\n` },
  };
}

/** A mesh that runs, whose replica was seen. */
const running = (desired = d) => at(start, seen(at(start, emptyWorld(), desired).world, desired), desired).world;

describe('the first issue', () => {
  it('configures both mounts before the first issuer, and publishes the lists with the CA', () => {
    const { world, done } = at(start, emptyWorld());
    const order = kinds(done);
    expect(order.filter((kind) => kind === 'ConfigureCRL')).toHaveLength(2);
    expect(order.lastIndexOf('ConfigureCRL')).toBeLessThan(order.indexOf('GenerateRoot'));
    expect(published(done)).toEqual(['staging']);
    expect(listed(world)).toEqual([rootFingerprint(world), live(world).certificate!.fingerprint].sort());
    expect(live(world).lists?.map((list) => (list.nextUpdate - list.thisUpdate) / day)).toEqual([30, 30]);
  });

  it('ends the same after a crash anywhere', () => {
    fc.assert(
      fc.property(fc.array(fc.nat(31), { maxLength: 20 }), (bits) => {
        const pick = (steps: Step[], round: number) => steps.filter((_, i) => ((bits[round] ?? 31) >> i) & 1);
        const { world } = converge(d, emptyWorld(), { pick });
        expect(listed(world)).toHaveLength(2);
        expect(plan(d, world, start)).toEqual({ problems: [], steps: [] });
      }),
      { numRuns: 40 },
    );
  });

  it('without crl has no lists, and asks for none', () => {
    const { world, done } = at(start, emptyWorld(), desiredOf());
    expect([live(world).lists, kinds(done).filter((kind) => kind.includes('CRL'))]).toEqual([undefined, []]);
  });
});

describe('a renewal', () => {
  const again = wanted('a');

  it('publishes the list first, the intermediate when proxies have it, and drops the old one when its certificates have run out', () => {
    const before = running();
    const first = at(start + hour, before, again);
    expect(published(first.done)).toEqual(['lists']);
    expect([live(first.world).generation, listed(first.world).length]).toEqual([1, 3]);
    const early = at(start + hour + crlLeadMs - 1, first.world, again);
    expect(early.done).toEqual([]);
    const second = at(start + hour + crlLeadMs, early.world, again);
    expect([published(second.done), live(second.world).generation]).toEqual([['staging'], 2]);
    const third = at(start + 2 * hour, seen(second.world, again), again);
    expect([kinds(third.done), listed(third.world).length]).toEqual([['WriteState', 'DestroyVersions'], 3]);
    const fourth = at(start + 26 * hour - 1, third.world, again);
    expect(fourth.done).toEqual([]);
    const fifth = at(start + 26 * hour, fourth.world, again);
    expect([kinds(fifth.done), listed(fifth.world).length]).toEqual([['Collect', 'PublishLive', 'DestroyVersions'], 2]);
  });

  it('waits for ConfigMap istio-ca-crl where there is one', () => {
    const first = at(start + hour, running(), again).world;
    first.kubernetes.meshLists = { name: 'istio-ca-crl', lists: live(running()).lists! };
    expect(at(start + day, first, again).done).toEqual([]);
    expect(crlMissing(derived(again, first, start + day))?.message).toContain('not in ConfigMap istio-ca-crl');
    first.kubernetes.meshLists.lists = live(first).lists!;
    expect(published(at(start + day, first, again).done)).toEqual(['staging']);
  });

  it('has its lists go on while it waits for istiod', () => {
    const first = at(start + hour, running(), again).world;
    first.kubernetes.meshLists = { name: 'istio-ca-crl', lists: [] };
    const asked = at(start + 16 * day, first, again);
    expect(kinds(asked.done)).toEqual(['RotateCRL', 'RotateCRL']);
    const next = at(start + 16 * day + 5 * minute, at(start + 16 * day, asked.world, again).world, again);
    expect([published(next.done), live(next.world).generation]).toEqual([['listsDue'], 1]);
  });

  it('waits as long when the control plane differs from what it should be', () => {
    const world = running();
    Object.assign(world.kubernetes.controlPlane!, { carriesFields: false, conflicts: [{ place: 'a', value: 'b' }] });
    expect(published(at(start + hour, world, again).done)).toEqual(['lists']);
  });

  it('that was interrupted has its list signed again, so that its age is that in the mesh', () => {
    let last = running();
    last.vault.time = start + hour;
    for (;;) {
      const step = plan(again, last, start + hour).steps.find(({ kind }) => kind !== 'PublishLive');
      if (!step) break;
      last = simulateStep(again, last, step, start + hour);
    }
    expect(last.vault.intermediatePki?.issuers).toHaveLength(2);
    const resumed = at(start + 5 * hour, last, again);
    expect(kinds(resumed.done)).toEqual(['RotateCRL', 'PublishLive']);
    expect(at(start + 5 * hour + crlLeadMs - 1, resumed.world, again).done).toEqual([]);
  });

  it('with the same key waits for nothing: both generations share a list', () => {
    const same = { ...spec, intermediate: { ...spec.intermediate, key: { rotationPolicy: 'Never' } } };
    const world = running(wanted(undefined, same));
    const ca = live(world).lists!.map((list) => list.ca);
    const { done } = converge(wanted('a', same), world, {
      next: (one, o, now) => {
        // Vault has one list for certificates with one key and name
        const lists = Object.entries(o.vault.lists).map(
          ([fingerprint, list]) =>
          fingerprint === rootFingerprint(o) ? [fingerprint, list] : [fingerprint, { ...list, ca: ca.find((one) => one !== rootFingerprint(o))! }], // prettier-ignore
        );
        o.vault.lists = Object.fromEntries(lists) as Record<string, RevocationList>;
        return plan(one, o, now);
      },
    });
    expect(published(done)).toEqual(['staging']);
  });
});

describe('a list whose time is half over', () => {
  it('is signed again by Vault if Vault has not, and replaces the published one when it is five minutes old', () => {
    const world = running();
    expect(at(start + 15 * day - 1, world).done).toEqual([]);
    const asked = at(start + 15 * day, world);
    expect(kinds(asked.done)).toEqual(['RotateCRL', 'RotateCRL']);
    const aged = at(start + 15 * day + 5 * minute, asked.world);
    expect([published(aged.done), crlNearEnd(derived(d, aged.world))]).toEqual([['listsDue'], undefined]);
    expect(at(start + 16 * day, aged.world).done).toEqual([]);
  });

  it('is looked at in time', () => {
    const world = running();
    expect(listsDueAt(derived(d, world))).toContain(start + 15 * day);
    world.vault.time = start + 10 * minute;
    expect(listsDueAt(derived(d, world))).toContain(start + 15 * day - 10 * minute);
  });

  it('near its end is a problem, first of the entry and also of what istiod publishes', () => {
    const world = running();
    const problemAt = (now: number) => {
      world.vault.time = now;
      return crlNearEnd(derived(d, world, now));
    };
    expect(problemAt(start + 22 * day)).toBeUndefined();
    expect(problemAt(start + 23 * day)?.message).toContain('in the CA entry ends on 2030-01-31T00:00:00Z');
    expect(problemAt(start + 31 * day)?.message).toContain('ended on 2030-01-31T00:00:00Z');
    world.kubernetes.meshLists = { name: 'istio-ca-crl', lists: live(world).lists! };
    live(world).lists = live(world).lists!.map((list) => ({
      ...list,
      thisUpdate: start + 22 * day,
      nextUpdate: start + 52 * day,
    }));
    expect(problemAt(start + 23 * day)?.message).toContain('in ConfigMap istio-ca-crl ends on');
  });
});

describe('a revocation', () => {
  const revoked = (world: Observed, now: number): string => {
    const { serial } = live(world).certificate!;
    sign(world, rootFingerprint(world), [serial], now);
    Object.assign(world.vault, { liveRevoked: true, revokedIntermediates: [serial] });
    return serial;
  };

  it('of the current intermediate is published when every replica has its successor', () => {
    const world = running();
    const serial = revoked(world, start + hour);
    const first = at(start + hour, world);
    expect(published(first.done)).toEqual(['lists']);
    expect(crlMissing(derived(d, first.world, start + hour))?.message).toContain(serial);
    const second = at(start + hour + crlLeadMs, first.world);
    expect(published(second.done)).toEqual(['staging']);
    expect(revokedIn(second.world)).toEqual([]);
    const third = at(start + hour + 2 * crlLeadMs, seen(second.world));
    expect(published(third.done)).toEqual(['revoked']);
    expect(revokedIn(third.world)).toEqual([serial]);
    expect(crlMissing(derived(d, third.world))).toBeUndefined();
  });

  it('is published after an hour all the same', () => {
    const world = running();
    const serial = revoked(world, start + hour);
    const waiting = at(start + hour + crlLeadMs, at(start + hour, world).world).world;
    expect(at(start + 2 * hour - 1, waiting).done).toEqual([]);
    const { world: end, done } = at(start + 2 * hour, waiting);
    expect([published(done), revokedIn(end)]).toEqual([['revoked'], [serial]]);
  });

  it('is published after an hour also if Vault signs the list again and again', () => {
    const world = running();
    const serial = revoked(world, start + hour);
    const waiting = at(start + hour, world).world;
    for (const now of [start + hour + 20 * minute, start + hour + 40 * minute]) {
      const list = waiting.vault.lists[rootFingerprint(waiting)]!;
      waiting.vault.lists = { ...waiting.vault.lists, [rootFingerprint(waiting)]: plannedAgain(list, now) };
    }
    expect(revokedIn(at(start + 2 * hour, waiting).world)).toEqual([serial]);
  });

  it('of an intermediate that was replaced long ago is published at once', () => {
    const world = running();
    sign(world, rootFingerprint(world), ['0a:01'], start + 1);
    expect(published(at(start + minute, world).done)).toEqual(['revoked']);
  });

  it('that is on no list has the lists signed again, and says so when that does not help', () => {
    const world = running();
    world.vault.revokedIntermediates = ['0a:01'];
    const { done, world: after } = at(start + hour, world);
    expect(done).toEqual([{ kind: 'RotateCRL', mount: 'pki' }]);
    expect(crlMissing(derived(d, after))?.message).toContain('0a:01');
  });

  it('that a restored Vault does not know any more is not undone by an older list', () => {
    const world = running();
    sign(world, rootFingerprint(world), ['0a:01'], start + 1);
    const after = at(start + minute, world).world;
    sign(after, rootFingerprint(after), [], start);
    expect(at(start + hour, after).done).toEqual([]);
  });
});

describe('a list that Vault does not have', () => {
  it('stops a renewal, names the CA, and nothing is published without it', () => {
    const world = running();
    const { fingerprint } = live(world).certificate!;
    world.vault.lists = { [fingerprint]: world.vault.lists[fingerprint]! };
    live(world).lists = live(world).lists!.map((list) =>
      list.ca === fingerprint ? list : { ...list, nextUpdate: start },
    );
    const { done, last } = at(start + hour, world, wanted('a'));
    expect(published(done)).toEqual([]);
    expect(last.problems).toContainEqual(
      expect.objectContaining({
        reason: 'CRLMissing',
        condition: 'IntermediateReady',
        message: expect.stringContaining(rootOf(world).serial) as unknown,
      }),
    );
  });
});

describe('switching', () => {
  const off = desiredOf({ intermediate: spec.intermediate });
  /** Adds what Vault has all the while, and the operator does not read without `crl`. */
  const giveLists = ({ vault }: Observed, since: number): void => {
    for (const { certificate } of [...vault.rootPki!.issuers, ...vault.intermediatePki!.issuers])
      vault.lists = { ...vault.lists, [certificate.fingerprint]: plannedList(certificate, since, 30 * day) };
  };

  it('on: a mesh that had one intermediate gets the lists at once', () => {
    const world = running(off);
    giveLists(world, start);
    const { done, world: after } = at(start + hour, world);
    expect([published(done), listed(after).length]).toEqual([['lists'], 2]);
  });

  it.each<[string, () => { world: Observed; since: number }]>([
    [
      'was renewed',
      () => {
        const renewed = at(
          start + hour,
          running(off),
          desiredOf({ intermediate: spec.intermediate }, { [annotations.rotateIntermediate]: 'a' }),
        ).world;
        return { world: at(start + hour, seen(renewed, off), off).world, since: start + hour };
      },
    ],
    [
      'was adopted',
      () => {
        const adopting = desiredOf({ intermediate: spec.intermediate, adopt: true });
        return {
          world: at(start, seen(at(start, handMadeWorld(adopting), adopting).world, adopting), adopting).world,
          since: start,
        };
      },
    ],
  ])('on: a mesh whose intermediate %s waits until certificates of the one before have run out', (name, make) => {
    const { world, since } = make();
    const on = name === 'was adopted' ? desiredOf({ ...spec, adopt: true }) : d;
    giveLists(world, since);
    // by the fields that go with it, the control plane differs from what it should be when crl is switched on
    world.kubernetes.controlPlane!.carriesFields = false;
    const first = at(since + hour, world, on);
    expect(published(first.done)).toEqual([]);
    const seenNow = at(since + 2 * hour, seen(first.world, on), on).world;
    const early = at(since + 26 * hour - 1, seenNow, on);
    expect(published(early.done)).toEqual([]);
    expect(crlMissing(derived(on, early.world, since + 26 * hour - 1))?.message).toContain('have run out');
    expect(published(at(since + 26 * hour, early.world, on).done)).toEqual(['lists']);
  });

  it('off: takes the file away once, and says when the lists of the mesh end', () => {
    const { done, world } = at(start + hour, running(), off);
    expect(done).toMatchObject([{ kind: 'PublishLive', same: 'withdrawn', lists: [], listsEnd: start + 30 * day }, {}]);
    expect(live(world).lists).toBeUndefined();
  });

  it('off while a new intermediate waits: it is published at once, and what stays is said', () => {
    const staged = at(start + hour, running(), wanted('a')).world;
    const { done } = at(
      start + hour,
      staged,
      desiredOf({ intermediate: spec.intermediate }, { [annotations.rotateIntermediate]: 'a' }),
    );
    expect(done[0]).toMatchObject({ kind: 'PublishLive', from: 'staging', lists: [], listsEnd: start + 30 * day });
  });

  it('on together with adopt: the adopted CA is published without lists', () => {
    const on = desiredOf({ ...spec, adopt: true });
    const world = handMadeWorld(on);
    for (const { certificate } of [...world.vault.rootPki!.issuers, ...world.vault.intermediatePki!.issuers])
      world.vault.lists = {
        ...world.vault.lists,
        [certificate.fingerprint]: plannedList(certificate, start, 30 * day),
      };
    const { done, world: after } = at(start, world, on);
    expect(published(done)).toEqual(['adopted']);
    expect(live(after).lists).toBeUndefined();
  });
});

describe('what is lost', () => {
  it('the intermediate mount, soon after a renewal: the list of the one before stays', () => {
    const again = wanted('a');
    const staged = at(start + hour, running(), again).world;
    const renewed = at(start + 2 * hour, seen(at(start + hour + crlLeadMs, staged, again).world, again), again).world;
    Object.assign(renewed.vault, { intermediateMount: undefined, intermediatePki: undefined });
    const lists = listed(renewed);
    const { world } = at(start + 3 * hour, renewed, again);
    expect([listed(world), lists.length]).toEqual([lists, 3]);
  });

  it('the list of a root in Vault: the published one stays until it ends', () => {
    const world = running();
    const { fingerprint } = live(world).certificate!;
    world.vault.lists = { [fingerprint]: world.vault.lists[fingerprint]! };
    const staged = at(start + hour, world, wanted('a')).world;
    const { done, world: after } = at(start + hour + crlLeadMs, staged, wanted('a'));
    expect([published(done), listed(after)]).toEqual([['staging'], expect.arrayContaining([rootFingerprint(after)])]);
  });

  it('the time in which the intermediate was to be renewed: the next one waits for nothing', () => {
    const world = running();
    const { done, world: after } = at(live(world).certificate!.notAfter + day, world);
    expect([published(done), live(after).generation]).toEqual([['staging'], 2]);
  });

  it('the key store’s patience: an entry that Vault would delete is written again, also while a list is missing', () => {
    const world = running();
    world.vault.lists = {};
    world.vault.live = { ...world.vault.live, lifetime: { from: start - 40 * day, to: start + 33 * day } };
    live(world).lists = live(world).lists!.map((list) => ({ ...list, nextUpdate: start }));
    const { done } = at(start + hour, world);
    expect(published(done)).toEqual(['lifetime']);
  });
});
