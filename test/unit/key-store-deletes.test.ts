/** A key store with `delete_version_after`: the operator stores no first key there, and keeps a CA that is already published. */
import { describe, expect, it } from '@jest/globals';
import { annotations } from '../../src/api/annotations.ts';
import { rfc3339 } from '../../src/api/time.ts';
import { caDigest } from '../../src/plan/facts/ca-entry.ts';
import { ownEntry, type Lifetime, type Observed, type Slot } from '../../src/plan/facts/observed.ts';
import { plan } from '../../src/plan/plan.ts';
import { simulateStep } from '../../src/plan/simulate.ts';
import type { Step } from '../../src/plan/steps.ts';
import { converge, desiredOf, emptyWorld, handMadeWorld, start } from './model.ts';

const hour = 3_600_000;
const d = desiredOf();
const lifetime = (from = start): Lifetime => ({ from, to: from + 24 * hour });
const kinds = (steps: Step[]) => steps.map((step) => step.kind);

/** A world at a time of Vault's clock, milliseconds since the epoch. */
const at = ({ vault, kubernetes }: Observed, time: number): Observed => ({ vault: { ...vault, time }, kubernetes });

/** A world in which Vault deletes each entry a day after it is written. @param from when entries without a lifetime were written */
function ending({ vault, kubernetes }: Observed, from = start): Observed {
  const slot = <T>(s: Slot<T>): Slot<T> => (s.entry ? { ...s, lifetime: s.lifetime ?? lifetime(from) } : s);
  const { live, staging, state } = vault;
  return { vault: { ...vault, live: slot(live), staging: slot(staging), state: slot(state) }, kubernetes };
}

/** Options of `converge` for a key store whose setting stays, at a time of Vault's clock. */
const standing = (now = start) => ({
  now,
  next: (desired: typeof d, o: Observed, ours: number) => plan(desired, at(ending(o, now), now), ours),
});

const provisioned = () => converge(d, emptyWorld()).world;

describe('a key store that deletes what it is given', () => {
  it('is found before a key is stored there, by the state; and is used once it keeps it', () => {
    const { world, done, last } = converge(d, emptyWorld(), standing());
    expect(kinds(done)).toEqual(['ClaimControlPlane', 'MountKV', 'WriteState']);
    expect(last.problems).toMatchObject([{ condition: 'KeyStored', reason: 'TTLTruncated', blocks: 'all' }]);
    const message = last.problems[0]!.message;
    for (const said of [
      `kv/istioca-state on ${rfc3339(start + 24 * hour)}`,
      'No key is stored there',
      '`vault write kv/config delete_version_after=0s`',
      '`vault kv metadata put -mount=kv -delete-version-after=0s istioca-state`',
      '`vault kv undelete -mount=kv -versions=1 istioca-state`',
    ])
      expect(message).toContain(said);
    expect(ownEntry(converge(d, world).world.vault.live)).toBeDefined();
  });

  it('is told when what is taken over lies in it, and nothing is written; nor is it published when only the state tells', () => {
    const adopting = desiredOf({ adopt: true });
    const { steps, problems } = plan(adopting, ending(handMadeWorld(d)), start);
    expect([steps, problems.map((p) => p.reason)]).toEqual([[], ['TTLTruncated']]);
    const next = (desired: typeof d, o: Observed, at: number) => {
      const { vault, kubernetes } = ending(o);
      return plan(desired, { vault: { ...vault, live: o.vault.live }, kubernetes }, at);
    };
    expect(kinds(converge(adopting, handMadeWorld(d), { next }).done)).toEqual(['ClaimControlPlane', 'WriteState']);
  });

  it('does not hinder a renewal of what is published', () => {
    const renewing = desiredOf({}, { [annotations.rotateIntermediate]: 'a' });
    const { world, last } = converge(renewing, provisioned(), standing());
    expect(ownEntry(world.vault.live)?.generation).toBe(2);
    expect(last.problems).toMatchObject([{ reason: 'TTLTruncated', blocks: 'nothing' }]);
    expect(last.problems[0]?.message).toContain('is lost when this operator is away for longer');
  });

  it('gets what istiod needs again when that has vanished', () => {
    const world = provisioned();
    for (const slot of ['live', 'state'] as const)
      world.vault[slot] = { casVersion: world.vault[slot].casVersion, entry: undefined };
    const { world: end } = converge(d, world, standing());
    expect(ownEntry(end.vault.live)?.generation).toBe(2);
  });

  it('is written to again at half time, with what stands there; and no more once the setting is gone', () => {
    const world = ending(provisioned());
    const before = plan(d, at(world, start + 12 * hour - 1), start);
    expect([before.steps, before.problems[0]?.retryAfterMs]).toEqual([[], 1000]);
    const { world: end, done, last } = converge(d, at(world, start + 12 * hour));
    expect(kinds(done)).toEqual(['WriteState', 'PublishLive']);
    expect(ownEntry(end.vault.live)).toEqual(ownEntry(world.vault.live));
    expect(caDigest(ownEntry(end.vault.live)!)).toBe(caDigest(ownEntry(world.vault.live)!));
    expect(ownEntry(end.vault.state)).toEqual(ownEntry(world.vault.state));
    expect(last).toEqual({ problems: [], steps: [] });
    const later = start + 12 * hour;
    expect(kinds(converge(d, world, standing(later)).done)).toEqual(['WriteState', 'PublishLive']);
  });

  it('is not written to again and again by an operator whose clock is ahead', () => {
    const { done } = converge(d, provisioned(), { ...standing(), now: start + 23 * hour });
    expect(done).toEqual([]);
  });

  it('keeps what is published while a renewal is stuck, and is not asked every second of what is only staged', () => {
    const renewing = desiredOf({}, { [annotations.rotateIntermediate]: 'a' });
    let world = provisioned();
    for (let next = plan(renewing, world, start).steps; kinds(next)[0] !== 'ImportKey'; next = plan(renewing, world, start).steps)
      for (const step of next) world = simulateStep(renewing, world, step, start);
    const stuck = at(ending(world), start + 13 * hour);
    expect(kinds(plan(renewing, stuck, start).steps)).toEqual(['WriteState']);
    delete stuck.vault.state.lifetime;
    expect(kinds(plan(renewing, stuck, start).steps)).toEqual(['PublishLive']);
    delete stuck.vault.live.lifetime;
    expect(plan(renewing, stuck, start).problems[0]?.retryAfterMs).toBe(60_000);
  }); // prettier-ignore

  it('does not hinder the repair of what somebody has written over', () => {
    const world = provisioned();
    const { publicKey, root } = ownEntry(world.vault.live)!;
    world.vault.live = { ...world.vault.live, entry: 'foreign', mark: '', foreign: { publicKey, generation: 0, root, others: [] } };
    const { problems, steps } = plan(d, ending(world), start);
    expect(problems).toMatchObject([{ reason: 'TTLTruncated', blocks: 'nothing' }]);
    expect(kinds(steps)).toEqual(['PublishLive']);
  }); // prettier-ignore
});
