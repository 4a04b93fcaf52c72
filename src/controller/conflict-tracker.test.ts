import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import type { ControlPlaneFacts } from '../plan/facts/observed.ts';
import { ConflictTracker } from './conflict-tracker.ts';

const minute = 60_000;
const facts = (carriesFields: boolean): ControlPlaneFacts => ({
  owner: 'istioca',
  carriesFields,
  writtenBefore: true,
  conflicts: [],
  managedBy: { name: 'rival' },
});

/**
 * Simulates an operator that writes whenever it is allowed to, and another field manager that reverts each write at once.
 * @param times times of the observations
 */
function contest(times: readonly number[], rivalStopsAt = Infinity, asked: (at: number) => string = () => 'a') {
  const conflicts = new ConflictTracker(10 * minute);
  const writes: number[] = [];
  let carries = false;
  const seen: { at: number; stopped: boolean; by: string | undefined; carries: boolean; retried?: boolean }[] = [];
  for (const at of times) {
    if (at < rivalStopsAt) carries = false;
    const found = conflicts.evaluate('ns/ca', asked(at), 'fields', facts(carries), at);
    seen.push({
      at,
      stopped: found !== undefined,
      by: found?.by?.name,
      carries,
      ...(found ? { retried: found.retried } : {}),
    });
    if (found || carries) continue;
    writes.push(at);
    conflicts.wrote('ns/ca', 'fields', at);
    carries = true;
  }
  return { writes, seen };
}
const every = (stepMs: number, untilMs: number) => Array.from({ length: untilMs / stepMs }, (_, i) => i * stepMs);

describe('fields that are taken back', () => {
  it('three times in ten minutes are left alone, and tried after 10, 20, 40, 60 and 60 minutes', () => {
    const { writes, seen } = contest(every(1_000, 300 * minute));
    expect(writes.slice(0, 3)).toEqual([0, 1_000, 2_000]);
    const pauses = writes.slice(2).map((at, i, all) => Math.round((at - (all[i - 1] ?? 0)) / minute));
    expect(pauses.slice(1)).toEqual([10, 20, 40, 60, 60, 60]);
    expect(seen.find(({ stopped }) => stopped)).toMatchObject({ at: 3_000, by: 'rival', retried: false });
    // from then on a single revert extends the pause
    const firstRetry = writes[3] ?? 0;
    const after = seen.filter(({ at, stopped }) => stopped && at > firstRetry);
    expect(after[0]).toMatchObject({ at: firstRetry + 1_000, retried: true });
    expect(after.every(({ retried }) => retried)).toBe(true);
  });

  it('is no contest when they are taken back less often than three times in ten minutes', () => {
    const { seen } = contest(every(5 * minute, 300 * minute));
    expect(seen.every(({ stopped }) => !stopped)).toBe(true);
  });

  it('is over when the rival stops: the next probe stays, and afterwards it counts anew', () => {
    const times = every(1_000, 60 * minute);
    const { writes, seen } = contest(times, 5 * minute);
    expect(writes).toHaveLength(4);
    expect(seen.at(-1)).toMatchObject({ carries: true, stopped: false });
  });

  it('begins anew when a person asks for another reconcile', () => {
    const { writes } = contest(every(1_000, 2 * minute), Infinity, (at) => (at < minute ? 'a' : 'b'));
    expect(writes).toEqual([0, 1_000, 2_000, 60_000, 61_000, 62_000]);
  });

  it('does not count what the operator itself wants to change', () => {
    const conflicts = new ConflictTracker(10 * minute);
    for (let i = 0; i < 20; i += 1) {
      expect(conflicts.evaluate('k', 'a', `digest ${i}`, facts(false), i)).toBeUndefined();
      conflicts.wrote('k', `digest ${i}`, i);
      expect(conflicts.evaluate('k', 'a', `digest ${i}`, facts(true), i)).toBeUndefined();
    }
  });

  it('never writes more than three times in ten minutes, however often it looks', () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 4 * minute }), { minLength: 50, maxLength: 300 }), (gaps) => {
        const times = gaps.map(
          (
            (at) => (gap: number) =>
              (at += gap)
          )(0),
        );
        const { writes } = contest(times);
        for (const [i, at] of writes.entries()) {
          const third = writes[i + 3];
          if (third !== undefined) expect(third - at).toBeGreaterThanOrEqual(10 * minute);
        }
      }),
    );
  });
});
