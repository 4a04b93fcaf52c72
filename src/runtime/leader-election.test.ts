import { describe, expect, jest, test } from '@jest/globals';
import fc from 'fast-check';
import { silentLogger } from './logger.ts';
import { sleep, type Clock } from './clock.ts';
import { FakeClock } from './fake-clock.ts';
import {
  runLeaderElection,
  type ElectionEnd,
  type LeaseRecord,
  type LeaseSnapshot,
  type LeaseStore,
} from './leader-election.ts';

/** A Lease in memory, with optimistic locking as in the API server. */
class Server {
  lease: LeaseSnapshot | undefined;
  #version = 0;

  write(record: LeaseRecord): LeaseSnapshot {
    this.lease = { record, resourceVersion: String(++this.#version) };
    return this.lease;
  }
}

/** The connection of a candidate to the server: delays before and after the server acts, lost responses, ignored abort signals. */
interface Link {
  delayMs: () => number;
  /** An additional delay of responses to writes, after the server has acted; in milliseconds. */
  writeAnswerMs: number;
  broken: boolean;
}

function storeOn(server: Server, clock: Clock, link: Link): LeaseStore {
  const call = async <T>(act: () => T, answerMs = 0): Promise<T> => {
    await sleep(clock, link.delayMs());
    if (link.broken) throw new Error('unreachable');
    const result = act();
    await sleep(clock, link.delayMs() + answerMs);
    if (link.broken as boolean) throw new Error('answer lost');
    return result;
  };
  return {
    get: () => call(() => server.lease),
    create: (record) =>
      call(() => {
        if (server.lease !== undefined) throw new Error('exists');
        return server.write(record);
      }, link.writeAnswerMs),
    update: (record, resourceVersion) =>
      call(() => {
        if (server.lease?.resourceVersion !== resourceVersion) throw new Error('conflict');
        return server.write(record);
      }, link.writeAnswerMs),
  };
}

/** A candidate with a wall clock that is wrong and jumps, and with timers that run at the speed of all candidates. */
class Contender {
  readonly link: Link;
  readonly stop = new AbortController();
  readonly end: Promise<ElectionEnd>;
  leading = false;
  offsetMs = 0;
  dead = false;
  readonly onStopped = jest.fn(() => {
    this.leading = false;
  });
  ended: ElectionEnd | undefined;

  constructor(
    server: Server,
    clock: FakeClock,
    identity: string,
    onLead: () => void,
    delayMs = (): number => 0,
    drainMs = 0,
  ) {
    this.link = { delayMs, writeAnswerMs: 0, broken: false };
    const own: Clock = {
      now: () => clock.now() + this.offsetMs,
      elapsed: () => clock.elapsed(),
      // Timers of a killed process have no effect.
      setTimeout: (fn, ms) => clock.setTimeout(() => (this.dead ? undefined : fn()), ms),
    };
    this.end = runLeaderElection({
      lease: storeOn(server, own, this.link),
      identity,
      clock: own,
      random: () => 0.5,
      logger: silentLogger,
      signal: this.stop.signal,
      onStartedLeading: async (signal) => {
        this.leading = !signal.aborted;
        onLead();
        // After a stop, the candidate still works until it has drained. After the loss of the Lease it does not.
        signal.addEventListener('abort', () => (this.leading &&= this.stop.signal.aborted));
        if (!signal.aborted) await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }));
        if (this.stop.signal.aborted) await sleep(own, drainMs);
        this.leading = false;
      },
      onStoppedLeading: this.onStopped,
    });
    void this.end.then((ended) => (this.ended = ended));
  }

  die(): void {
    this.dead = true;
    this.leading = false;
    this.link.broken = true;
  }
}

const none = (): void => undefined;

describe('leader election', () => {
  test('the first candidate leads at once and keeps the Lease', async () => {
    const [server, clock] = [new Server(), new FakeClock()];
    const a = new Contender(server, clock, 'a', none);
    await clock.advance(120_000);
    expect(a.leading).toBe(true);
    expect(server.lease?.record).toMatchObject({ holderIdentity: 'a', leaseDurationSeconds: 15, leaseTransitions: 0 });
    expect(server.lease?.record.renewTime).toMatch(/^2026-01-01T00:02:00\.000000Z$/);
  });

  test('a stop keeps the Lease until the work has ended, then gives it back', async () => {
    const [server, clock] = [new Server(), new FakeClock()];
    const a = new Contender(server, clock, 'a', none, () => 0, 40_000);
    await clock.advance(1000);
    const b = new Contender(server, clock, 'b', none);
    await clock.advance(10_000);
    a.stop.abort();
    await clock.advance(39_000);
    expect(b.leading).toBe(false);
    await clock.advance(1000 + 4400);
    expect(await a.end).toBe('released');
    expect(a.onStopped).not.toHaveBeenCalled();
    expect(b.leading).toBe(true);
    expect(server.lease?.record).toMatchObject({ holderIdentity: 'b', leaseTransitions: 1 });
  });

  test('after a death another leads, not before the duration it has itself observed', async () => {
    const [server, clock] = [new Server(), new FakeClock()];
    const a = new Contender(server, clock, 'a', none);
    const b = new Contender(server, clock, 'b', none);
    b.offsetMs = 3_600_000;
    await clock.advance(60_000);
    a.die();
    await clock.advance(12_000);
    expect(b.leading).toBe(false);
    await clock.advance(15_000 + 4400 - 12_000);
    expect(b.leading).toBe(true);
  });

  test('a leader that cannot renew ends after its deadline, and says so', async () => {
    const [server, clock] = [new Server(), new FakeClock()];
    const a = new Contender(server, clock, 'a', none);
    await clock.advance(3000);
    a.link.broken = true;
    await clock.advance(10_000);
    expect(a.leading).toBe(false);
    expect(await a.end).toBe('lost');
    expect(a.onStopped).toHaveBeenCalledTimes(1);
  });

  test('a hanging API server does not prolong leadership', async () => {
    const [server, clock] = [new Server(), new FakeClock()];
    let delayMs = 0;
    const a = new Contender(server, clock, 'a', none, () => delayMs);
    await clock.advance(3000);
    delayMs = 1e9;
    await clock.advance(10_000);
    expect(a.ended).toBe('lost');
  });

  test('leadership counts from before the request, however late the answer comes', async () => {
    const [server, clock] = [new Server(), new FakeClock()];
    const a = new Contender(server, clock, 'a', none);
    a.link.writeAnswerMs = 9900;
    await clock.advance(9900);
    expect(a.leading).toBe(true);
    a.link.broken = true;
    await clock.advance(100);
    expect(a.ended).toBe('lost');
  });

  test('a Lease that somebody else took ends leadership at the next renewal', async () => {
    const [server, clock] = [new Server(), new FakeClock()];
    const a = new Contender(server, clock, 'a', none);
    await clock.advance(5000);
    server.write({ ...server.lease!.record, holderIdentity: 'thief' });
    await clock.advance(2000);
    expect(a.ended).toBe('lost');
  });

  test('a candidate that is stopped before it led leaves the Lease alone and no timer', async () => {
    const [server, clock] = [new Server(), new FakeClock()];
    const a = new Contender(server, clock, 'a', none);
    await clock.advance(0);
    const b = new Contender(server, clock, 'b', none);
    await clock.advance(100);
    a.stop.abort();
    b.stop.abort();
    await clock.advance(0);
    expect([await a.end, await b.end]).toEqual(['released', 'stopped']);
    expect(clock.pending).toBe(0);
  });

  test('work that fails gives the Lease back and is passed on', async () => {
    const [server, clock] = [new Server(), new FakeClock()];
    const end = runLeaderElection({
      lease: storeOn(server, clock, { delayMs: () => 0, writeAnswerMs: 0, broken: false }),
      identity: 'a',
      clock,
      random: () => 0,
      logger: silentLogger,
      signal: new AbortController().signal,
      onStartedLeading: () => Promise.reject(new Error('wiring')),
      onStoppedLeading: none,
    });
    const failed = expect(end).rejects.toThrow('wiring');
    await clock.advance(100);
    await failed;
    expect(server.lease?.record.holderIdentity).toBe('');
  });

  test('never two leaders, and always one again: latencies, outages, deaths, clocks that are off and jump', async () => {
    const step = fc.oneof(
      fc.record({ type: fc.constant('advance' as const), ms: fc.nat(20_000) }),
      fc.record({ type: fc.constant('advance' as const), ms: fc.nat(3000) }),
      fc.record({ type: fc.constant('cut' as const), who: fc.nat(2) }),
      fc.record({ type: fc.constant('mend' as const), who: fc.nat(2) }),
      fc.record({ type: fc.constant('slow' as const), who: fc.nat(2), ms: fc.nat(30_000) }),
      fc.record({ type: fc.constant('late' as const), who: fc.nat(2), ms: fc.integer({ min: 5000, max: 10_000 }) }),
      fc.record({ type: fc.constant('jump' as const), who: fc.nat(2), ms: fc.integer({ min: -1e7, max: 1e7 }) }),
      fc.record({ type: fc.constant('die' as const), who: fc.nat(2) }),
      fc.record({ type: fc.constant('stop' as const), who: fc.nat(2) }),
    );
    let ledTwice = 0;
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 40 }), async (steps) => {
        const [server, clock] = [new Server(), new FakeClock()];
        const contenders: Contender[] = [];
        const atMostOne = (): void => {
          const leading = contenders.filter((c) => c.leading);
          if (leading.length > 1) throw new Error(`${leading.length} leaders at ${clock.now()}`);
        };
        const slow = [0, 0, 0];
        const born = (who: number): void => {
          slow[who] = 0;
          const life = contenders.length;
          contenders.push(
            new Contender(server, clock, `${who}-${life}`, atMostOne, () => slow[who] ?? 0, who * 20_000),
          );
          current[who] = contenders.at(-1)!;
        };
        const current: Contender[] = [];
        for (const who of [0, 1, 2]) born(who);
        let violation: unknown;
        const watch = (): void => {
          try {
            atMostOne();
          } catch (error) {
            violation ??= error;
          }
          clock.setTimeout(watch, 250);
        };
        watch();

        for (const s of steps) {
          const target = 'who' in s ? current[s.who]! : undefined;
          if (s.type === 'advance') await clock.advance(s.ms);
          else if (s.type === 'cut') target!.link.broken = true;
          else if (s.type === 'mend') target!.link.broken = false;
          else if (s.type === 'slow') slow[s.who] = s.ms;
          else if (s.type === 'late') target!.link.writeAnswerMs = s.ms;
          else if (s.type === 'jump') target!.offsetMs += s.ms;
          else if (s.type === 'die') target!.die();
          else target!.stop.abort();
          // As Kubernetes does, start a new process for each one that ended.
          for (const who of [0, 1, 2]) if (current[who]!.dead || current[who]!.ended !== undefined) born(who);
          expect(violation).toBeUndefined();
        }
        for (const who of [0, 1, 2]) {
          slow[who] = 0;
          current[who]!.link.writeAnswerMs = 0;
          if (!current[who]!.dead) current[who]!.link.broken = false;
          if (current[who]!.dead || current[who]!.stop.signal.aborted) born(who);
        }
        await clock.advance(150_000);
        for (const who of [0, 1, 2]) if (current[who]!.ended !== undefined) born(who);
        await clock.advance(30_000);
        expect(violation).toBeUndefined();
        expect(contenders.filter((c) => c.leading)).toHaveLength(1);
        if (contenders.filter((c) => c.ended === 'lost').length > 0) ledTwice += 1;
      }),
      { numRuns: 150 },
    );
    // A program that never leads would have the property too, so leadership must also have been lost.
    expect(ledTwice).toBeGreaterThan(5);
  });
});
