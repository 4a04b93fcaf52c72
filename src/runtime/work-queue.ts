/**
 * A queue of keys with the semantics of client-go. A key is in the queue at most once. While a key is being processed, `get` does not return
 * it again. If the key is added meanwhile, it is ready again after `done`, so no event is lost.
 */
import { backoffMs, type BackoffOptions, type Random } from './backoff.ts';
import type { Clock, Timer } from './clock.ts';
import { TokenBuckets, type TokenBucketsOptions } from './token-buckets.ts';

/** Callbacks for metrics. */
interface WorkQueueHooks {
  /** A key became ready that was not ready before. */
  onAdd?(): void;
  /** A key was added with back-off. */
  onRetry?(): void;
  /** The number of ready keys changed. */
  onDepth?(depth: number): void;
}

export interface WorkQueueOptions {
  clock: Clock;
  random: Random;
  backoff: BackoffOptions;
  /** The group of a key. A ready key of a group with fewer keys in process comes first; default: every key is a group of its own. */
  groupOf?: (key: string) => string;
  /** The number of keys of a group that are processed at the same time, at most; default: any number. */
  mostOfGroup?: number;
  /**
   * How often a key becomes ready at most, however often it is added: `failing` while its last processing failed, `usual` otherwise. Default:
   * as often as it is added.
   */
  pace?: { usual: TokenBucketsOptions; failing: TokenBucketsOptions };
  hooks?: WorkQueueHooks;
}

/** A key that becomes ready later. */
interface Waiting {
  /** As `Clock.elapsed` measures: the wall clock can be set meanwhile. */
  atMs: number;
  timer: Timer;
}

export class WorkQueue {
  readonly #options: WorkQueueOptions;
  /** Ready keys, the oldest first. */
  readonly #ready = new Set<string>();
  /** Keys that `get` returned and that are not done. */
  readonly #processing = new Set<string>();
  /** Keys that were added while they were processed. Each addition says, once the processing has ended, whether it is still needed. */
  readonly #again = new Map<string, (() => boolean)[]>();
  readonly #waiting = new Map<string, Waiting>();
  readonly #failures = new Map<string, number>();
  /** Pending calls of `get`, the oldest first. */
  readonly #takers = new Set<(key: string | undefined) => void>();
  readonly #pace: { usual: TokenBuckets; failing: TokenBuckets } | undefined;
  #stopped = false;

  constructor(options: WorkQueueOptions) {
    this.#options = options;
    const { pace } = options;
    this.#pace = pace && { usual: new TokenBuckets(pace.usual), failing: new TokenBuckets(pace.failing) };
  }

  /** The number of ready keys. */
  get depth(): number {
    return this.#ready.size;
  }

  /** The keys that are being processed. */
  get inFlight(): string[] {
    return [...this.#processing];
  }

  /** How often the key was added since `get` returned it; 0 if it is not being processed. */
  addedMeanwhile(key: string): number {
    return this.#again.get(key)?.length ?? 0;
  }

  /** How often the key was added with back-off since the last `forget`. */
  failures(key: string): number {
    return this.#failures.get(key) ?? 0;
  }

  /**
   * Makes the key ready, or as soon as its pace allows. If the key is being processed, it becomes ready after `done`.
   * @param isNeeded whether the key has to be processed for this addition: asked when it would become ready. The processing that just ended can
   * have dealt with it; default: it is needed
   */
  add(key: string, isNeeded: () => boolean = () => true): void {
    if (this.#stopped || this.#ready.has(key)) return;
    if (this.#processing.has(key)) {
      const again = this.#again.get(key) ?? [];
      again.push(isNeeded);
      this.#again.set(key, again);
      return;
    }
    if (!isNeeded()) return;
    const pace = this.failures(key) > 0 ? this.#pace?.failing : this.#pace?.usual;
    const waitMs = pace?.take(key, this.#options.clock.elapsed()) ?? 0;
    if (waitMs > 0) {
      this.addAfter(key, waitMs);
      return;
    }
    this.#ready.add(key);
    this.#options.hooks?.onAdd?.();
    this.#dispatch();
    this.#options.hooks?.onDepth?.(this.depth);
  }

  /**
   * Adds the key after a delay. If the key is waiting already, the earlier time applies.
   * @param ms milliseconds from now; 0 or less adds the key immediately
   */
  addAfter(key: string, ms: number): void {
    if (this.#stopped) return;
    if (ms <= 0) {
      this.add(key);
      return;
    }
    const atMs = this.#options.clock.elapsed() + ms;
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
   * Adds the key after a delay with jitter that grows with each call until `forget`.
   * @param capMs upper bound of the delay in milliseconds, if lower than that of the queue
   * @param minMs lower bound of the delay in milliseconds; takes precedence over the upper bound
   */
  addRateLimited(key: string, capMs?: number, minMs = 0): void {
    const { backoff, random, hooks } = this.#options;
    const failures = this.failures(key);
    this.#failures.set(key, failures + 1);
    hooks?.onRetry?.();
    const limits = { baseMs: backoff.baseMs, capMs: Math.min(backoff.capMs, capMs ?? Infinity) };
    this.addAfter(key, Math.max(minMs, backoffMs(limits, failures, random)));
  }

  /** Ends the back-off of the key: the next `addRateLimited` starts with the shortest delay. */
  forget(key: string): void {
    this.#failures.delete(key);
  }

  /**
   * Waits for a ready key and takes it. The caller must call `done` with the key.
   * @returns undefined if the signal aborts or the queue is shut down
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
      if (this.#dispatch()) this.#options.hooks?.onDepth?.(this.depth);
    });
  }

  /** Reports that the processing of the key has ended, successfully or not. */
  done(key: string): void {
    this.#processing.delete(key);
    const again = this.#again.get(key) ?? [];
    this.#again.delete(key);
    if (again.some((isNeeded) => isNeeded())) this.add(key);
    // a key of the same group may have waited for this one
    while (this.#dispatch());
    this.#options.hooks?.onDepth?.(this.depth);
  }

  /** Ends all waiting and ignores further keys. Ready keys are dropped: the next start of the program lists all objects. */
  shutDown(): void {
    this.#stopped = true;
    for (const { timer } of this.#waiting.values()) timer.cancel();
    this.#waiting.clear();
    this.#ready.clear();
    this.#again.clear();
    for (const taker of [...this.#takers]) taker(undefined);
    this.#options.hooks?.onDepth?.(0);
  }

  /** The ready key that comes next: the oldest of the groups with the fewest keys in process. undefined: there is none. */
  #next(): string | undefined {
    const { groupOf = (key: string): string => key, mostOfGroup = Infinity } = this.#options;
    const inProcess = new Map<string, number>();
    for (const key of this.#processing) inProcess.set(groupOf(key), (inProcess.get(groupOf(key)) ?? 0) + 1);
    let next: string | undefined;
    let fewest = mostOfGroup;
    for (const key of this.#ready) {
      const busy = inProcess.get(groupOf(key)) ?? 0;
      if (busy === 0) return key;
      if (busy < fewest) [next, fewest] = [key, busy];
    }
    return next;
  }

  /** Passes the next ready key to the oldest pending `get`. @returns false if there is no such key or no pending `get` */
  #dispatch(): boolean {
    const [taker] = this.#takers;
    if (taker === undefined) return false;
    const key = this.#next();
    if (key === undefined) return false;
    this.#ready.delete(key);
    this.#processing.add(key);
    taker(key);
    return true;
  }
}
