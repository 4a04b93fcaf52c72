import { describe, expect, jest, test } from '@jest/globals';
import fc from 'fast-check';
import { FakeClock } from './fake-clock.ts';
import { WorkQueue, type WorkQueueOptions } from './work-queue.ts';

const forever = new AbortController().signal;

function setup(random = () => 0.5, pace?: WorkQueueOptions['pace']) {
  const clock = new FakeClock(0);
  const hooks = { onAdd: jest.fn(), onRetry: jest.fn(), onDepth: jest.fn() };
  const queue = new WorkQueue({
    clock,
    random,
    backoff: { baseMs: 1000, capMs: 60_000 },
    hooks,
    ...(pace && { pace }),
  });
  return { clock, hooks, queue };
}

describe('pace', () => {
  const pace = { usual: { burst: 3, perSecond: 2 }, failing: { burst: 2, perSecond: 0.5 } };

  test.each([
    { fails: false, atOnce: 3, later: 23 },
    { fails: true, atOnce: 3, later: 8 },
  ])('a key that is added all the time has a burst, then a steady rate; fails: $fails', async (example) => {
    const { queue, clock } = setup(undefined, pace);
    let processed = 0;
    const work = async () => {
      for (let key = await queue.get(forever); key !== undefined; key = await queue.get(forever)) {
        processed += 1;
        queue.add('busy'); // while it is processed, like a tenant who answers each status with a change
        if (example.fails) queue.addRateLimited(key);
        queue.done(key);
      }
    };
    const working = work();
    queue.add('busy');
    await clock.advance(0);
    expect(processed).toBe(example.atOnce);
    await clock.advance(10_000);
    expect(processed).toBe(example.later);
    queue.shutDown();
    await working;
  });
});

describe('a wall clock that is set', () => {
  const pace = { usual: { burst: 1, perSecond: 2 }, failing: { burst: 1, perSecond: 2 } };
  const hour = 3_600_000;

  test.each([
    ['an event beyond the pace', hour, (queue: WorkQueue) => queue.add('a')],
    ['a retry', hour, (queue: WorkQueue) => queue.addRateLimited('a')],
    ['an earlier recheck', hour, (queue: WorkQueue) => queue.addAfter('a', 500)],
    ['an event beyond the pace, and the clock is set back', -hour, (queue: WorkQueue) => queue.add('a')],
  ])('does not have %s wait for a later recheck', async (_what, by, add) => {
    const { queue, clock } = setup(undefined, pace);
    queue.add('a');
    queue.done((await queue.get(forever)) ?? '');
    queue.addAfter('a', 600_000);
    clock.set(by);
    add(queue);
    await clock.advance(1000);
    expect(queue.depth).toBe(1);
  });

  test('does not replace an earlier recheck by a later one', async () => {
    const { queue, clock } = setup();
    queue.addAfter('a', 1000);
    clock.set(-hour);
    queue.addAfter('a', 600_000);
    await clock.advance(1000);
    expect(queue.depth).toBe(1);
  });
});

describe('groups', () => {
  const groups = (mostOfGroup?: number) =>
    new WorkQueue({
      clock: new FakeClock(0),
      random: () => 0.5,
      backoff: { baseMs: 1000, capMs: 60_000 },
      groupOf: (key) => key.slice(0, 1),
      ...(mostOfGroup === undefined ? {} : { mostOfGroup }),
    });

  test('the group with the fewest keys in process comes first, and of its keys the oldest', async () => {
    const queue = groups();
    for (const key of ['a1', 'a2', 'a3', 'b1', 'b2', 'c1']) queue.add(key);
    const taken: unknown[] = [];
    for (let i = 0; i < 6; i += 1) taken.push(await queue.get(forever));
    expect(taken).toEqual(['a1', 'b1', 'c1', 'a2', 'b2', 'a3']);
  });

  test('a group has no more keys in process than it may, and the next one follows when one is done', async () => {
    const queue = groups(2);
    for (const key of ['a1', 'a2', 'a3']) queue.add(key);
    expect([await queue.get(forever), await queue.get(forever)]).toEqual(['a1', 'a2']);
    const third = queue.get(forever);
    const fourth = queue.get(forever);
    queue.add('b1');
    expect(await third).toBe('b1');
    queue.done('a2');
    expect(await fourth).toBe('a3');
  });
});

describe('the work queue', () => {
  test('hands out keys in order, each once', async () => {
    const { queue, hooks } = setup();
    for (const key of ['a', 'b', 'a', 'c', 'b']) queue.add(key);
    expect(queue.depth).toBe(3);
    expect([await queue.get(forever), await queue.get(forever), await queue.get(forever)]).toEqual(['a', 'b', 'c']);
    expect(hooks.onAdd).toHaveBeenCalledTimes(3);
    expect(hooks.onDepth).toHaveBeenLastCalledWith(0);
    expect(queue.inFlight).toEqual(['a', 'b', 'c']);
  });

  test('hands a key out again only after done, and only when it was added meanwhile', async () => {
    const { queue } = setup();
    queue.add('a');
    await queue.get(forever);
    expect(queue.addedMeanwhile('a')).toBe(0);
    queue.add('a');
    queue.add('a');
    expect(queue.depth).toBe(0);
    expect(queue.addedMeanwhile('a')).toBe(2);
    queue.done('a');
    expect(queue.depth).toBe(1);
    expect(queue.addedMeanwhile('a')).toBe(0);
    await queue.get(forever);
    queue.done('a');
    expect(queue.depth).toBe(0);
  });

  test('hands a key out again only if an addition is still needed after done', async () => {
    const { queue } = setup();
    let seen = false;
    queue.add('a', () => !seen);
    await queue.get(forever);
    queue.add('a', () => !seen);
    seen = true;
    queue.done('a');
    queue.add('a', () => !seen);
    expect(queue.depth).toBe(0);
    queue.add('a');
    await queue.get(forever);
    queue.add('a', () => !seen);
    queue.add('a');
    queue.done('a');
    expect(queue.depth).toBe(1);
  });

  test('gives waiting takers keys in the order they came', async () => {
    const { queue } = setup();
    const taken = [queue.get(forever), queue.get(forever)];
    queue.add('a');
    queue.add('b');
    expect(await Promise.all(taken)).toEqual(['a', 'b']);
  });

  test('of two delays the earlier wins', async () => {
    const { queue, clock } = setup();
    queue.addAfter('a', 1000);
    queue.addAfter('a', 5000);
    await clock.advance(1000);
    expect(queue.depth).toBe(1);
    queue.addAfter('b', 5000);
    queue.addAfter('b', 1000);
    await clock.advance(1000);
    expect(queue.depth).toBe(2);
    await clock.advance(10_000);
    expect(queue.depth).toBe(2);
    expect(clock.pending).toBe(0);
  });

  test('a delay of nothing is now', () => {
    const { queue } = setup();
    queue.addAfter('a', 0);
    expect(queue.depth).toBe(1);
  });

  test('back-off grows until forgotten, within its bounds', async () => {
    const { queue, clock, hooks } = setup();
    const delay = async (capMs?: number, minMs?: number): Promise<number> => {
      const startMs = clock.now();
      queue.addRateLimited('a', capMs, minMs);
      while (queue.depth === 0) await clock.advance(500);
      const key = await queue.get(forever);
      queue.done(key ?? '');
      return clock.now() - startMs;
    };
    expect([await delay(), await delay(), await delay()]).toEqual([500, 1000, 2000]);
    expect(await delay(3000)).toBe(1500);
    expect(await delay(3000, 9000)).toBe(9000);
    expect(queue.failures('a')).toBe(5);
    queue.forget('a');
    expect(await delay()).toBe(500);
    expect(hooks.onRetry).toHaveBeenCalledTimes(6);
  });

  test('a taker that gives up loses no key', async () => {
    const { queue } = setup();
    const stop = new AbortController();
    const first = queue.get(stop.signal);
    stop.abort();
    queue.add('a');
    expect(await first).toBeUndefined();
    expect(await queue.get(stop.signal)).toBeUndefined();
    expect(await queue.get(forever)).toBe('a');
  });

  test('shut down, it wakes its takers and leaves no timer', async () => {
    const { queue, clock } = setup();
    const taken = queue.get(forever);
    queue.addAfter('a', 1000);
    queue.shutDown();
    expect(await taken).toBeUndefined();
    queue.add('b');
    queue.addAfter('c', 1);
    expect(queue.depth).toBe(0);
    expect(clock.pending).toBe(0);
    expect(await queue.get(forever)).toBeUndefined();
  });
});

describe('whatever happens in whatever order', () => {
  type Action =
    | { type: 'add' | 'addRateLimited' | 'forget'; key: string }
    | { type: 'addAfter'; key: string; ms: number }
    | { type: 'advance'; ms: number }
    | { type: 'finish'; nth: number }
    | { type: 'abortedTaker' };

  const key = fc.constantFrom('a', 'b', 'c', 'd');
  const action: fc.Arbitrary<Action> = fc.oneof(
    { weight: 4, arbitrary: fc.record({ type: fc.constantFrom('add', 'addRateLimited', 'forget'), key }) },
    { weight: 2, arbitrary: fc.record({ type: fc.constant('addAfter'), key, ms: fc.nat(5000) }) },
    { weight: 2, arbitrary: fc.record({ type: fc.constant('advance'), ms: fc.nat(3000) }) },
    { weight: 4, arbitrary: fc.record({ type: fc.constant('finish'), nth: fc.nat(10) }) },
    { weight: 1, arbitrary: fc.record({ type: fc.constant('abortedTaker') }) },
  );

  test('no event is lost, and no key is worked on twice at once', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(action, { maxLength: 60 }),
        fc.integer({ min: 1, max: 3 }),
        fc.constantFrom(undefined, { usual: { burst: 2, perSecond: 1 }, failing: { burst: 1, perSecond: 0.5 } }),
        async (actions, workers, pace) => {
          const { queue, clock } = setup(undefined, pace);
          const stop = new AbortController();
          /** Keys with an event after which no processing has started. */
          const owed = new Set<string>();
          const running = new Map<string, () => void>();
          const worker = async (): Promise<void> => {
            for (let k = await queue.get(stop.signal); k !== undefined; k = await queue.get(stop.signal)) {
              const current = k;
              expect(running.has(current)).toBe(false);
              owed.delete(current);
              await new Promise<void>((resolve) => running.set(current, resolve));
              running.delete(current);
              queue.done(current);
            }
          };
          const all = Array.from({ length: workers }, worker);

          for (const a of actions) {
            if ('key' in a && a.type !== 'forget') owed.add(a.key);
            if (a.type === 'add') queue.add(a.key);
            else if (a.type === 'addRateLimited') queue.addRateLimited(a.key);
            else if (a.type === 'forget') queue.forget(a.key);
            else if (a.type === 'addAfter') queue.addAfter(a.key, a.ms);
            else if (a.type === 'advance') await clock.advance(a.ms);
            else if (a.type === 'finish') [...running.values()][a.nth % Math.max(1, running.size)]?.();
            else {
              const gaveUp = new AbortController();
              const taken = queue.get(gaveUp.signal);
              gaveUp.abort();
              // If `get` returned a key before the abort, the worker must process it.
              const got = await taken;
              if (got !== undefined) {
                expect(running.has(got)).toBe(false);
                owed.delete(got);
                queue.done(got);
              }
            }
            await clock.advance(0);
            expect(new Set(queue.inFlight).size).toBe(queue.inFlight.length);
          }

          for (let i = 0; i < 50 && (owed.size > 0 || running.size > 0); i++) {
            for (const finish of running.values()) finish();
            await clock.advance(60_000);
          }
          expect([...owed]).toEqual([]);
          expect(queue.depth).toBe(0);
          stop.abort();
          await Promise.all(all);
        },
      ),
      { numRuns: 300 },
    );
  });
});
