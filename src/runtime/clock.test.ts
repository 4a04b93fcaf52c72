import { describe, expect, jest, test } from '@jest/globals';
import { sleep, systemClock } from './clock.ts';
import { FakeClock } from './fake-clock.ts';

describe('the fake clock', () => {
  test('runs timers at their time and in order, also those set meanwhile', async () => {
    const clock = new FakeClock(0);
    const seen: string[] = [];
    const note = (name: string) => () => seen.push(`${name}@${clock.now()}`);
    clock.setTimeout(note('b'), 20);
    clock.setTimeout(() => {
      note('a')();
      clock.setTimeout(note('a+5'), 5);
    }, 10);
    clock.setTimeout(note('late'), 31);
    clock.setTimeout(note('never'), 12).cancel();
    await clock.advance(30);
    expect(seen).toEqual(['a@10', 'a+5@15', 'b@20']);
    expect(clock.now()).toBe(30);
    expect(clock.pending).toBe(1);
  });

  test('set by somebody, runs its timers when they are due all the same', async () => {
    const clock = new FakeClock(1000);
    const fn = jest.fn();
    clock.setTimeout(fn, 10);
    const before = clock.elapsed();
    clock.set(3_600_000);
    await clock.advance(9);
    expect([clock.now(), clock.elapsed() - before]).toEqual([3_601_009, 9]);
    expect(fn).not.toHaveBeenCalled();
    await clock.advance(1);
    expect(fn).toHaveBeenCalledTimes(1);
  });

  test('lets promises run between two timers', async () => {
    const clock = new FakeClock(0);
    const seen: number[] = [];
    void (async () => {
      for (let i = 0; i < 3; i++) {
        await sleep(clock, 10);
        seen.push(clock.now());
      }
    })();
    await clock.advance(100);
    expect(seen).toEqual([10, 20, 30]);
  });
});

describe('sleep', () => {
  test('ends at once when the signal aborts, and leaves no timer', async () => {
    const clock = new FakeClock();
    const stop = new AbortController();
    const slept = sleep(clock, 1000, stop.signal);
    stop.abort();
    expect(await slept).toBe(false);
    expect(await sleep(clock, 1000, stop.signal)).toBe(false);
    expect(clock.pending).toBe(0);
  });
});

describe('the system clock', () => {
  test('keeps timers longer than Node can hold', () => {
    jest.useFakeTimers();
    try {
      const fn = jest.fn();
      const fiveYears = 5 * 365 * 86_400_000;
      systemClock.setTimeout(fn, fiveYears);
      jest.advanceTimersByTime(fiveYears - 1);
      expect(fn).not.toHaveBeenCalled();
      jest.advanceTimersByTime(1);
      expect(fn).toHaveBeenCalledTimes(1);
      systemClock.setTimeout(fn, fiveYears).cancel();
      expect(jest.getTimerCount()).toBe(0);
    } finally {
      jest.useRealTimers();
    }
  });
});
