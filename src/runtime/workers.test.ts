import { describe, expect, jest, test } from '@jest/globals';
import { FakeClock } from './fake-clock.ts';
import { WorkQueue } from './work-queue.ts';
import { runWorkers, type ReconcileResult, type Verdict } from './workers.ts';

class Failure extends Error {
  readonly verdict: Verdict;
  constructor(verdict: Verdict) {
    super('failed');
    this.verdict = verdict;
  }
}

function setup(
  reconcile: (key: string, signal: AbortSignal) => Promise<ReconcileResult>,
  concurrency = 1,
  more: { slowMs?: number; mostInParallel?: number } = {},
) {
  const clock = new FakeClock(0);
  const queue = new WorkQueue({ clock, random: () => 0.5, backoff: { baseMs: 1000, capMs: 60_000 } });
  const stop = new AbortController();
  const onError = jest.fn();
  const onFinished = jest.fn();
  const end = runWorkers({
    queue,
    concurrency,
    reconcile,
    classify: (error) => (error instanceof Failure ? error.verdict : { backoff: true }),
    onError,
    onFinished,
    clock,
    signal: stop.signal,
    graceMs: 20_000,
    ...more,
  });
  return { clock, queue, stop, end, onError, onFinished };
}

describe('workers', () => {
  test('look again when a reconcile asks for it', async () => {
    const seen: number[] = [];
    const { clock, queue, stop, end, onFinished } = setup(() => {
      seen.push(clock.now());
      return Promise.resolve({ requeueAfterMs: 10_000 });
    });
    queue.add('a');
    await clock.advance(25_000);
    expect(seen).toEqual([0, 10_000, 20_000]);
    expect(onFinished).toHaveBeenCalledWith('a', 0, true);
    stop.abort();
    expect(await end).toEqual({ drained: true, unfinished: [] });
  });

  test('back off when it fails, and start small again after a success', async () => {
    const outcomes = [false, false, true, false];
    const seen: number[] = [];
    const { clock, queue, onError } = setup(() => {
      seen.push(clock.now());
      return outcomes.shift() === false ? Promise.reject(new Error('no')) : Promise.resolve({});
    });
    queue.add('a');
    await clock.advance(1600);
    expect(seen).toEqual([0, 500, 1500]);
    queue.add('a');
    await clock.advance(500);
    expect(seen).toEqual([0, 500, 1500, 1600, 2100]);
    expect(onError).toHaveBeenCalledTimes(3);
  });

  test.each<[string, Verdict, number[]]>([
    ['terminal: waits for an event', { backoff: false }, [0]],
    ['waiting: looks again after its time', { backoff: false, retryAfterMs: 30_000 }, [0, 30_000, 60_000]],
    ['capped', { backoff: true, capMs: 2000 }, [0, 500, 1500, 2500]],
    ['with a least delay', { backoff: true, retryAfterMs: 2400, capMs: 10 }, [0, 2400, 4800]],
  ])('%s', async (_, verdict, expected) => {
    const seen: number[] = [];
    const { clock, queue } = setup(() => {
      seen.push(clock.now());
      return Promise.reject(new Failure(verdict));
    });
    queue.add('a');
    await clock.advance(expected.at(-1) ?? 0);
    expect(seen).toEqual(expected);
  });

  test('a reconcile or a callback that throws at once does not end the worker', async () => {
    let calls = 0;
    const { clock, queue, onError } = setup(() => {
      calls += 1;
      throw new Error('at once');
    });
    onError.mockImplementationOnce(() => {
      throw new Error('callback');
    });
    queue.add('a');
    await clock.advance(2000);
    expect(calls).toBe(3);
  });

  test('work on different keys side by side, never on one twice', async () => {
    const running: string[] = [];
    const finish = new Map<string, () => void>();
    const { clock, queue } = setup(async (key) => {
      running.push(key);
      await new Promise<void>((resolve) => finish.set(key, resolve));
      return {};
    }, 2);
    for (const key of ['a', 'a', 'b', 'c']) queue.add(key);
    await clock.advance(0);
    expect(running).toEqual(['a', 'b']);
    queue.add('a');
    finish.get('b')?.();
    await clock.advance(0);
    expect(running).toEqual(['a', 'b', 'c']);
    finish.get('a')?.();
    await clock.advance(0);
    expect(running).toEqual(['a', 'b', 'c', 'a']);
  });

  test('after the stop running work may end, and nothing new starts', async () => {
    let finish: () => void = () => undefined;
    let calls = 0;
    const { clock, queue, stop, end, onError } = setup(async () => {
      calls += 1;
      await new Promise<void>((resolve) => {
        finish = resolve;
      });
      throw new Error('aborted');
    });
    queue.add('a');
    queue.add('b');
    await clock.advance(0);
    stop.abort();
    await clock.advance(19_999);
    finish();
    expect(await end).toEqual({ drained: true, unfinished: [] });
    expect(calls).toBe(1);
    expect(onError).not.toHaveBeenCalled();
    expect(clock.pending).toBe(0);
  });

  test('work that does not end is given up after the grace, by name', async () => {
    const { clock, queue, stop, end } = setup(() => new Promise(() => undefined));
    queue.add('a');
    await clock.advance(0);
    stop.abort();
    await clock.advance(20_000);
    expect(await end).toEqual({ drained: false, unfinished: ['a'] });
  });

  describe('with keys that hang', () => {
    /** Keys that begin with `h` hang until they are finished. */
    function hanging(mostInParallel: number) {
      const running: string[] = [];
      const finish = new Map<string, () => void>();
      const parts = setup(
        async (key) => {
          running.push(key);
          if (key.startsWith('h')) await new Promise<void>((resolve) => finish.set(key, resolve));
          return {};
        },
        2,
        { slowMs: 2000, mostInParallel },
      );
      return { ...parts, running, finish };
    }

    test('a slow key gives its place to another', async () => {
      const { clock, queue, running } = hanging(10);
      for (const key of ['h1', 'h2', 'a']) queue.add(key);
      await clock.advance(1999);
      expect(running).toEqual(['h1', 'h2']);
      await clock.advance(1);
      expect(running).toEqual(['h1', 'h2', 'a']);
      queue.add('b');
      await clock.advance(0);
      expect(running).toEqual(['h1', 'h2', 'a', 'b']);
    });

    test('not without end, and a place is free again when a slow key is done', async () => {
      const { clock, queue, running, finish, stop, end } = hanging(3);
      for (const key of ['h1', 'h2', 'h3', 'a']) queue.add(key);
      await clock.advance(10_000);
      expect(running).toEqual(['h1', 'h2', 'h3']);
      finish.get('h2')?.();
      await clock.advance(0);
      expect(running).toEqual(['h1', 'h2', 'h3', 'a']);
      stop.abort();
      finish.get('h1')?.();
      finish.get('h3')?.();
      expect(await end).toEqual({ drained: true, unfinished: [] });
      expect(clock.pending).toBe(0);
    });
  });
});
