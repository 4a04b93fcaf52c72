import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { backoffMs, createBackoff } from './backoff.ts';

const options = { baseMs: 1000, capMs: 15_000 };

describe('back-off', () => {
  test('is a part of a bound that doubles up to the cap', () => {
    const almostOne = (): number => 1 - Number.EPSILON;
    const bounds = [0, 1, 2, 3, 4, 5, 5000].map((failures) => backoffMs(options, failures, almostOne));
    expect(bounds).toEqual([999, 1999, 3999, 7999, 14_999, 14_999, 14_999]);
    expect(backoffMs(options, 3, () => 0)).toBe(0);
  });

  test('is never negative, never above the cap', () => {
    fc.assert(
      fc.property(
        fc.nat(10_000_000),
        fc.nat(10_000_000),
        fc.nat(2000),
        fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
        (baseMs, capMs, failures, random) => {
          const ms = backoffMs({ baseMs, capMs }, failures, () => random);
          expect(ms).toBeGreaterThanOrEqual(0);
          expect(ms).toBeLessThanOrEqual(capMs);
        },
      ),
    );
  });

  test('grows with each failure and starts anew after a reset', () => {
    const backoff = createBackoff(options, () => 0.5);
    expect([backoff.next(), backoff.next(), backoff.next()]).toEqual([500, 1000, 2000]);
    backoff.reset();
    expect(backoff.next()).toBe(500);
  });
});
