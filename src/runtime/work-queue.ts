/**
 * A queue of keys with client-go's semantics. A key waits at most once; a key that is handed out is not handed out
 * again before `done`; a key added meanwhile is handed out once more afterwards, so no event is lost.
 */
import { backoffMs, type BackoffOptions, type Random } from './backoff.ts';
import type { Clock, Timer } from './clock.ts';

/** Called as things happen, for metrics. */
interface WorkQueueHooks {
  /** A key became ready that was not ready before. */
  onAdd?(): void;
  /** A key was put back with back-off. */
  onRetry?(): void;
  /** The number of ready keys changed. */
  onDepth?(depth: number): void;
}

export interface WorkQueueOptions {
  clock: Clock;
  random: Random;
  backoff: BackoffOptions;
  hooks?: WorkQueueHooks;
}

interface Waiting {
  atMs: number;
  timer: Timer;
}

export class WorkQueue {
  readonly #options: WorkQueueOptions;
  /** Ready keys, in the order they came. */
  readonly #ready = new Set<string>();
  readonly #processing = new Set<string>();
  /** Keys added while they were handed out. */
  readonly #again = new Set<string>();
  readonly #waiting = new Map<string, Waiting>();
  readonly #failures = new Map<string, number>();
  readonly #takers = new Set<(key: string | undefined) => void>();
  #stopped = false;

  constructor(options: WorkQueueOptions) {
    this.#options = options;
  }

  /** How many keys are ready to be handed out. */
  get depth(): number {
    return this.#ready.size;
  }

  /** Keys that are handed out and not done. */
  get inFlight(): string[] {
    return [...this.#processing];
  }

  /** How often the key was put back with back-off since it was last forgotten. */
  failures(key: string): number {
    return this.#failures.get(key) ?? 0;
  }

  /** Makes the key ready; once more after `done` when it is handed out now. */
  add(key: string): void {
    if (this.#stopped || this.#ready.has(key)) return;
    if (this.#processing.has(key)) {
      this.#again.add(key);
      return;
    }
    this.#ready.add(key);
    this.#options.hooks?.onAdd?.();
    this.#handOut();
    this.#options.hooks?.onDepth?.(this.depth);
  }

  /**
   * Adds the key later. Of two such calls the earlier time wins.
   * @param ms milliseconds from now; 0 or less is now
   */
  addAfter(key: string, ms: number): void {
    if (this.#stopped) return;
    if (ms <= 0) {
      this.add(key);
      return;
    }
    const atMs = this.#options.clock.now() + ms;
    const waiting = this.#waiting.get(key);
    if (waiting !== undefined) {
      if (waiting.atMs <= atMs) return;
      waiting.timer.cancel();
    }
    const timer = this.#options.clock.setTimeout(() => {
      this.#waiting.delete(key);
      this.add(key);
    }, ms);
    this.#waiting.set(key, { atMs, timer });
  }

  /**
   * Adds the key after a jittered delay that grows with each call until `forget`.
   * @param capMs upper bound of the delay in milliseconds, when lower than the queue's own
   * @param minMs lower bound of the delay in milliseconds; wins over the upper one
   */
  addRateLimited(key: string, capMs?: number, minMs = 0): void {
    const { backoff, random, hooks } = this.#options;
    const failures = this.failures(key);
    this.#failures.set(key, failures + 1);
    hooks?.onRetry?.();
    const limits = { baseMs: backoff.baseMs, capMs: Math.min(backoff.capMs, capMs ?? Infinity) };
    this.addAfter(key, Math.max(minMs, backoffMs(limits, failures, random)));
  }

  /** Ends the key's back-off: the next `addRateLimited` starts small again. */
  forget(key: string): void {
    this.#failures.delete(key);
  }

  /**
   * Takes the next ready key, waiting for one. The caller must call `done` with it.
   * @returns undefined when the signal aborts or the queue is shut down
   */
  get(signal: AbortSignal): Promise<string | undefined> {
    return new Promise((resolve) => {
      if (this.#stopped || signal.aborted) {
        resolve(undefined);
        return;
      }
      const settle = (key: string | undefined): void => {
        this.#takers.delete(settle);
        signal.removeEventListener('abort', onAbort);
        resolve(key);
      };
      const onAbort = (): void => settle(undefined);
      signal.addEventListener('abort', onAbort, { once: true });
      this.#takers.add(settle);
      if (this.#handOut()) this.#options.hooks?.onDepth?.(this.depth);
    });
  }

  /** Says that the work on the key has ended, well or not. */
  done(key: string): void {
    this.#processing.delete(key);
    if (this.#again.delete(key)) this.add(key);
  }

  /** Ends all waiting and takes no more keys. What was ready is dropped: the next start lists everything anyway. */
  shutDown(): void {
    this.#stopped = true;
    for (const { timer } of this.#waiting.values()) timer.cancel();
    this.#waiting.clear();
    this.#ready.clear();
    this.#again.clear();
    for (const taker of [...this.#takers]) taker(undefined);
    this.#options.hooks?.onDepth?.(0);
  }

  /** Gives the oldest ready key to the oldest taker, when there are both. */
  #handOut(): boolean {
    const [key] = this.#ready;
    const [taker] = this.#takers;
    if (key === undefined || taker === undefined) return false;
    this.#ready.delete(key);
    this.#processing.add(key);
    taker(key);
    return true;
  }
}
