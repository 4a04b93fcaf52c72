import { expect, it } from '@jest/globals';
import { TokenBuckets } from './token-buckets.ts';

it('gives a burst, then one token at a time, to each key by itself', () => {
  const buckets = new TokenBuckets({ burst: 3, perSecond: 2 });
  expect([0, 0, 0, 0].map((now) => buckets.take('a', now))).toEqual([0, 0, 0, 500]);
  expect(buckets.take('a', 250)).toBe(250);
  expect(buckets.take('a', 500)).toBe(0);
  expect(buckets.take('a', 500)).toBe(500);
  expect(buckets.take('b', 500)).toBe(0);
});

it('a key that rests has its burst again, and no more', () => {
  const buckets = new TokenBuckets({ burst: 2, perSecond: 1 });
  buckets.take('a', 0);
  buckets.take('a', 0);
  expect([60_000, 60_000, 60_000].map((now) => buckets.take('a', now))).toEqual([0, 0, 1000]);
});

it('forgets keys that rest', () => {
  const buckets = new TokenBuckets({ burst: 2, perSecond: 1 });
  for (let i = 0; i < 10_000; i += 1) buckets.take(`key ${i}`, i * 100);
  expect(buckets.size).toBeLessThan(1100);
});
