/**
 * Leader election on a Lease, after client-go. A candidate takes the Lease when nobody holds it, or when it has not
 * seen it change for the Lease's duration on its own timer: clocks of different machines are never compared. The
 * leader gives up before that time, counted from before it sent its last successful renewal.
 */
import type { Random } from './backoff.ts';
import { microTime, sleep, type Clock, type Timer } from './clock.ts';
import { abortable, Deadline } from './deadline.ts';
import type { Logger } from './logger.ts';

/** What the Lease says; the fields of `coordination.k8s.io/v1` LeaseSpec. */
export interface LeaseRecord {
  /** Empty when released. */
  holderIdentity: string;
  leaseDurationSeconds: number;
  /** RFC 3339 with microseconds; for people, never compared with a clock. */
  acquireTime: string;
  /** RFC 3339 with microseconds; for people, never compared with a clock. */
  renewTime: string;
  leaseTransitions: number;
}

/** A Lease as read, with the version an update must name. */
export interface LeaseSnapshot {
  record: LeaseRecord;
  resourceVersion: string;
}

/** Operations on the one Lease. All throw when the server refuses or cannot be reached. */
export interface LeaseStore {
  /** @returns undefined when there is no Lease */
  get(signal: AbortSignal): Promise<LeaseSnapshot | undefined>;
  /** Throws when the Lease exists. */
  create(record: LeaseRecord, signal: AbortSignal): Promise<LeaseSnapshot>;
  /** Throws when the Lease has another resourceVersion. */
  update(record: LeaseRecord, resourceVersion: string, signal: AbortSignal): Promise<LeaseSnapshot>;
}

export interface LeaderElectionOptions {
  lease: LeaseStore;
  /** Unique to this process. */
  identity: string;
  clock: Clock;
  random: Random;
  logger: Logger;
  /** How long a silent leader is waited for, in milliseconds; 15 s unless given. */
  leaseDurationMs?: number;
  /** When a leader that cannot renew gives up, in milliseconds; 10 s unless given, less than the lease's duration. */
  renewDeadlineMs?: number;
  /** Between two attempts, in milliseconds; 2 s unless given. */
  retryPeriodMs?: number;
  /**
   * The leader's work. Its signal aborts when leadership ends, by loss or by the stop; after a stop the Lease is kept
   * until the returned promise has settled.
   */
  onStartedLeading: (signal: AbortSignal) => Promise<void>;
  /** The Lease was lost: whatever still runs must end now. Called at most once, right after the signal aborted. */
  onStoppedLeading: () => void;
  /** Another holder was seen, or ourselves. */
  onNewLeader?: (identity: string) => void;
  /** Stops the candidate; a leader releases the Lease. */
  signal: AbortSignal;
}

/** How it ended: another may lead now · we led and gave the Lease back · we never led. */
export type ElectionEnd = 'lost' | 'released' | 'stopped';

/**
 * Waits to become leader, leads, and ends with leadership. It never leads twice: after `lost` the process ends.
 * Rejects only when `onStartedLeading` rejects; the Lease is released then.
 */
export async function runLeaderElection(options: LeaderElectionOptions): Promise<ElectionEnd> {
  const candidate = new Candidate(options);
  try {
    if (!(await candidate.acquire())) return 'stopped';
    return await candidate.lead();
  } finally {
    candidate.dispose();
  }
}

class Candidate {
  readonly #options: LeaderElectionOptions;
  readonly #leaseDurationMs: number;
  readonly #renewDeadlineMs: number;
  readonly #retryPeriodMs: number;
  #observed: LeaseSnapshot | undefined;
  /** The observed record has not changed for its duration. */
  #expired = false;
  #expiry: Timer | undefined;
  /** Until when leadership may be relied on; counted from before the last successful request was sent. */
  #deadline: Deadline | undefined;
  #lastWarning = '';

  constructor(options: LeaderElectionOptions) {
    this.#options = options;
    this.#leaseDurationMs = options.leaseDurationMs ?? 15_000;
    this.#renewDeadlineMs = options.renewDeadlineMs ?? 10_000;
    this.#retryPeriodMs = options.retryPeriodMs ?? 2_000;
    if (this.#renewDeadlineMs >= this.#leaseDurationMs || this.#retryPeriodMs >= this.#renewDeadlineMs) {
      throw new RangeError('leader election needs retry period < renew deadline < lease duration');
    }
  }

  dispose(): void {
    this.#expiry?.cancel();
    this.#deadline?.dispose();
  }

  /** @returns false when stopped before the Lease was ours */
  async acquire(): Promise<boolean> {
    const { clock, random, signal, logger } = this.#options;
    while (!signal.aborted) {
      if (await this.#attempt(signal)) {
        logger.info('became leader', { identity: this.#options.identity });
        return true;
      }
      await sleep(clock, this.#retryPeriodMs * (1 + 1.2 * random()), signal);
    }
    return false;
  }

  /** Works while renewing. */
  async lead(): Promise<ElectionEnd> {
    const { signal, logger, onStartedLeading, onStoppedLeading } = this.#options;
    const leading = new AbortController();
    const ended = new AbortController();
    const stop = (): void => leading.abort();
    signal.addEventListener('abort', stop, { once: true });
    if (signal.aborted) stop();

    const work = onStartedLeading(leading.signal).finally(() => ended.abort());
    const kept = this.#keepRenewing(ended.signal).then((stillOurs) => {
      if (stillOurs) return true;
      logger.error('lost the leader Lease', { identity: this.#options.identity });
      leading.abort();
      onStoppedLeading();
      return false;
    });
    try {
      await Promise.race([work, kept]);
      if (!(await kept)) {
        work.catch(() => undefined);
        return 'lost';
      }
      await work;
      return 'released';
    } finally {
      signal.removeEventListener('abort', stop);
      if (ended.signal.aborted && (await kept)) await this.#release();
    }
  }

  /** Renews until `ended` aborts (true), or until another holds the Lease or the deadline passes (false). */
  async #keepRenewing(ended: AbortSignal): Promise<boolean> {
    const { clock, identity } = this.#options;
    while (!ended.aborted) {
      const deadline = this.#deadline?.signal ?? AbortSignal.abort();
      const until = AbortSignal.any([ended, deadline]);
      if ((await sleep(clock, this.#retryPeriodMs, until)) && !(await this.#attempt(until))) {
        const holder = this.#observed?.record.holderIdentity ?? '';
        if (holder !== '' && holder !== identity) return false;
      }
      if (this.#deadline?.signal.aborted !== false) return false;
    }
    return true;
  }

  /**
   * One try to take or renew the Lease, no longer than the renew deadline. It ends when the signal aborts, even if the
   * store does not heed it.
   * @returns whether the Lease is ours
   */
  async #attempt(signal: AbortSignal): Promise<boolean> {
    const deadline = new Deadline(this.#options.clock, this.#renewDeadlineMs);
    const all = AbortSignal.any([signal, deadline.signal]);
    try {
      if (!(await abortable(this.#takeOrRenew(all), all))) {
        deadline.dispose();
        return false;
      }
      this.#deadline?.dispose();
      this.#deadline = deadline;
      this.#lastWarning = '';
      return true;
    } catch (error) {
      deadline.dispose();
      if (!signal.aborted) this.#warn('could not take or renew the leader Lease', error);
      return false;
    }
  }

  /** Once at the level of a warning, then quietly until something else happens. */
  #warn(message: string, error: unknown): void {
    const text = String(error);
    this.#options.logger[text === this.#lastWarning ? 'debug' : 'warn'](message, { err: error });
    this.#lastWarning = text;
  }

  async #takeOrRenew(signal: AbortSignal): Promise<boolean> {
    const { lease } = this.#options;
    const current = await lease.get(signal);
    if (signal.aborted) return false;
    if (current === undefined) {
      this.#observe(await lease.create(this.#record(undefined), signal));
      return true;
    }
    this.#observe(current);
    const { holderIdentity } = current.record;
    const ours = holderIdentity === this.#options.identity;
    if (!ours && holderIdentity !== '' && !this.#expired) return false;
    this.#observe(await lease.update(this.#record(current.record), current.resourceVersion, signal));
    return true;
  }

  /** Remembers what was seen; a changed record starts its time anew. */
  #observe(snapshot: LeaseSnapshot): void {
    const before = this.#observed?.record;
    this.#observed = snapshot;
    const { record } = snapshot;
    if (before !== undefined && JSON.stringify(before) === JSON.stringify(record)) return;
    this.#expired = false;
    this.#expiry?.cancel();
    const durationMs = Math.max(this.#leaseDurationMs, record.leaseDurationSeconds * 1000);
    this.#expiry = this.#options.clock.setTimeout(() => {
      this.#expired = true;
    }, durationMs);
    if (record.holderIdentity !== '' && record.holderIdentity !== before?.holderIdentity) {
      this.#options.onNewLeader?.(record.holderIdentity);
    }
  }

  /** The record that makes us the holder. */
  #record(current: LeaseRecord | undefined): LeaseRecord {
    const now = microTime(this.#options.clock.now());
    const { identity } = this.#options;
    const ours = current?.holderIdentity === identity;
    return {
      holderIdentity: identity,
      leaseDurationSeconds: Math.ceil(this.#leaseDurationMs / 1000),
      acquireTime: ours ? current.acquireTime : now,
      renewTime: now,
      leaseTransitions: (current?.leaseTransitions ?? 0) + (current === undefined || ours ? 0 : 1),
    };
  }

  /** Lets the next candidate take over at once. Its failure only costs them the Lease's duration. */
  async #release(): Promise<void> {
    const { clock, logger } = this.#options;
    const deadline = new Deadline(clock, this.#retryPeriodMs);
    try {
      await abortable(this.#giveBack(deadline.signal), deadline.signal);
    } catch (error) {
      logger.warn('could not release the leader Lease', { err: error });
    } finally {
      deadline.dispose();
    }
  }

  /** Reads first: a renewal that was cut off may have arrived all the same. */
  async #giveBack(signal: AbortSignal): Promise<void> {
    const { lease, identity, clock, logger } = this.#options;
    const held = await lease.get(signal);
    if (held?.record.holderIdentity !== identity) return;
    const released = { holderIdentity: '', leaseDurationSeconds: 1, renewTime: microTime(clock.now()) };
    await lease.update({ ...held.record, ...released }, held.resourceVersion, signal);
    logger.info('released the leader Lease', { identity });
  }
}
