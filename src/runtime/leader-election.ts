/**
 * Leader election with a Lease, modelled on client-go. A candidate takes the Lease if it has no holder, or if the candidate saw no change for
 * the duration of the Lease. The candidate measures this with its own timer: clocks of different machines are never compared. The leader gives
 * up after a shorter time, counted from before it sent its last successful renewal.
 */
import type { Random } from './backoff.ts';
import { microTime, sleep, type Clock, type Timer } from './clock.ts';
import { abortable, Deadline } from './deadline.ts';
import type { Logger } from './logger.ts';

/** The content of a Lease; the fields of `coordination.k8s.io/v1` LeaseSpec. */
export interface LeaseRecord {
  /** Empty: the Lease was released. */
  holderIdentity: string;
  leaseDurationSeconds: number;
  /** RFC 3339 with microseconds; informational, never compared with a clock. */
  acquireTime: string;
  /** RFC 3339 with microseconds; informational, never compared with a clock. */
  renewTime: string;
  leaseTransitions: number;
}

/** A Lease as read, with the resourceVersion that an update must name. */
export interface LeaseSnapshot {
  record: LeaseRecord;
  resourceVersion: string;
}

/** Operations on the Lease. All throw if the API server rejects the request or is unreachable. */
export interface LeaseStore {
  /** @returns undefined if the Lease does not exist */
  get(signal: AbortSignal): Promise<LeaseSnapshot | undefined>;
  /** Throws if the Lease exists. */
  create(record: LeaseRecord, signal: AbortSignal): Promise<LeaseSnapshot>;
  /** Throws if the Lease has another resourceVersion. */
  update(record: LeaseRecord, resourceVersion: string, signal: AbortSignal): Promise<LeaseSnapshot>;
}

export interface LeaderElectionOptions {
  lease: LeaseStore;
  /** The holder identity, unique to this process. */
  identity: string;
  clock: Clock;
  random: Random;
  logger: Logger;
  /** How long candidates wait for a leader that does not renew, in milliseconds; default 15 s. */
  leaseDurationMs?: number;
  /** After which time a leader that cannot renew gives up, in milliseconds; default 10 s, less than the Lease duration. */
  renewDeadlineMs?: number;
  /** The time between two attempts, in milliseconds; default 2 s. */
  retryPeriodMs?: number;
  /**
   * The work of the leader. Its signal aborts when leadership ends, by loss or by the stop. After a stop, the Lease is held until the returned
   * promise has settled.
   */
  onStartedLeading: (signal: AbortSignal) => Promise<void>;
  /** The Lease was lost: all running work must end now. Called at most once, immediately after the signal aborted. */
  onStoppedLeading: () => void;
  /** Called when the Lease has a new holder, which can be this process. */
  onNewLeader?: (identity: string) => void;
  /** Stops the candidate. A leader releases the Lease. */
  signal: AbortSignal;
}

/**
 * How the election ended. `lost`: this process led, and another process possibly leads now. `released`: this process led and released the
 * Lease. `stopped`: this process never led.
 */
export type ElectionEnd = 'lost' | 'released' | 'stopped';

/**
 * Waits for leadership, leads, and returns when leadership ends. It leads at most once: after `lost`, the process must end. Rejects only if
 * `onStartedLeading` rejects; the Lease is then released.
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
  /** Whether the observed record has not changed for the Lease duration. */
  #expired = false;
  #expiry: Timer | undefined;
  /** The end of the certain leadership, counted from before the last successful request was sent. */
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

  /** Waits until this process holds the Lease. @returns false if it was stopped before */
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

  /** Runs the work and renews the Lease in parallel. */
  async lead(): Promise<ElectionEnd> {
    const { signal, logger, onStartedLeading, onStoppedLeading } = this.#options;
    const leading = new AbortController();
    const ended = new AbortController();
    const stop = (): void => leading.abort();
    signal.addEventListener('abort', stop, { once: true });
    if (signal.aborted) stop();

    const work = onStartedLeading(leading.signal).finally(() => ended.abort());
    const kept = this.#keepRenewing(ended.signal).then((stillHeld) => {
      if (stillHeld) return true;
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

  /** Renews the Lease. @returns true when `ended` aborts; false when another process holds the Lease or the deadline has passed */
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
   * Attempts once to take or renew the Lease, at most for the duration of the renew deadline. The attempt ends when the signal aborts, even if
   * the store ignores the signal.
   * @returns whether this process holds the Lease
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

  /** Logs an error: the first time as a warning, repetitions at level debug. */
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
    const isHolder = holderIdentity === this.#options.identity;
    if (!isHolder && holderIdentity !== '' && !this.#expired) return false;
    this.#observe(await lease.update(this.#record(current.record), current.resourceVersion, signal));
    return true;
  }

  /** Stores the read Lease. If its record changed, the Lease duration starts again. */
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

  /** The record with this process as the holder. */
  #record(current: LeaseRecord | undefined): LeaseRecord {
    const now = microTime(this.#options.clock.now());
    const { identity } = this.#options;
    const isHolder = current?.holderIdentity === identity;
    return {
      holderIdentity: identity,
      leaseDurationSeconds: Math.ceil(this.#leaseDurationMs / 1000),
      acquireTime: isHolder ? current.acquireTime : now,
      renewTime: now,
      leaseTransitions: (current?.leaseTransitions ?? 0) + (current === undefined || isHolder ? 0 : 1),
    };
  }

  /** Releases the Lease, so that the next candidate can take it immediately. After a failure, candidates wait for the Lease duration. */
  async #release(): Promise<void> {
    const { clock, logger } = this.#options;
    const deadline = new Deadline(clock, this.#retryPeriodMs);
    try {
      await abortable(this.#clearHolder(deadline.signal), deadline.signal);
    } catch (error) {
      logger.warn('could not release the leader Lease', { err: error });
    } finally {
      deadline.dispose();
    }
  }

  /** Removes this process as the holder. Reads the Lease first, because an aborted renewal can have been executed by the API server. */
  async #clearHolder(signal: AbortSignal): Promise<void> {
    const { lease, identity, clock, logger } = this.#options;
    const held = await lease.get(signal);
    if (held?.record.holderIdentity !== identity) return;
    const released = { holderIdentity: '', leaseDurationSeconds: 1, renewTime: microTime(clock.now()) };
    await lease.update({ ...held.record, ...released }, held.resourceVersion, signal);
    logger.info('released the leader Lease', { identity });
  }
}
