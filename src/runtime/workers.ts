/** Workers that take keys from a queue, reconcile them and schedule the next reconcile. */
import type { Clock } from './clock.ts';
import type { WorkQueue } from './work-queue.ts';

/** When a key is retried after a failure. */
export interface Verdict {
  /** The delay in milliseconds; with `backoff`, the lower bound of the delay. */
  retryAfterMs?: number;
  /** Retries with increasing delays. Without `backoff` and `retryAfterMs`, the key waits for an event. */
  backoff: boolean;
  /** Upper bound of the back-off for this failure, in milliseconds. */
  capMs?: number;
}

export interface ReconcileResult {
  /** Delay of the next reconcile in milliseconds; events before it do not cancel it. undefined: the key waits for an event. */
  requeueAfterMs?: number;
}

export interface WorkerOptions {
  queue: WorkQueue;
  /** The number of keys that are reconciled in parallel, besides slow ones; at least 1. */
  concurrency: number;
  /**
   * A reconcile that takes longer is slow: it waits for a server, and gives its place to another key. Milliseconds; default: no reconcile is
   * slow.
   */
  slowMs?: number;
  /** The number of keys that are reconciled in parallel with slow ones, at most; default: `concurrency`. */
  mostInParallel?: number;
  reconcile: (key: string, signal: AbortSignal) => Promise<ReconcileResult>;
  /** Decides when a failed key is retried. Should not throw; if it does, the key is retried with back-off. */
  classify: (error: unknown) => Verdict;
  /** Called for each failure before the stop, for log and metrics. */
  onError: (key: string, error: unknown) => void;
  /** Called at the end of each reconcile. */
  onFinished?: (key: string, durationMs: number, succeeded: boolean) => void;
  clock: Clock;
  /** Stops the workers: they take no more keys. */
  signal: AbortSignal;
  /** The signal for `reconcile`; default: `signal`. A signal that aborts later lets running reconciles finish after the stop. */
  workSignal?: AbortSignal;
  /** How long running reconciles can continue after the stop, in milliseconds; default 20 s. */
  graceMs?: number;
}

export interface WorkersEnd {
  /** Whether all reconciles ended within the grace period. */
  drained: boolean;
  /** Keys whose reconcile was still running. */
  unfinished: string[];
}

/** Runs until the signal aborts and all running reconciles have ended or the grace period is over. Never rejects. */
export async function runWorkers(options: WorkerOptions): Promise<WorkersEnd> {
  const { queue, clock, signal, graceMs = 20_000 } = options;
  const ended = new Pool(options).ended().then(() => true);

  const grace = new Promise<boolean>((resolve) => {
    const start = (): void => {
      const timer = clock.setTimeout(() => resolve(false), graceMs);
      void ended.then(() => timer.cancel());
    };
    if (signal.aborted) start();
    else signal.addEventListener('abort', start, { once: true });
  });
  const drained = await Promise.race([ended, grace]);
  return { drained, unfinished: drained ? [] : queue.inFlight };
}

/** Workers, with a substitute for each that has a slow key. */
class Pool {
  readonly #options: WorkerOptions;
  /** Running workers, those with a slow key included. */
  readonly #workers = new Set<Promise<void>>();
  /** Workers without a slow key. */
  #places = 0;

  constructor(options: WorkerOptions) {
    this.#options = options;
    this.#fill();
  }

  /** Resolves when every worker has ended. */
  async ended(): Promise<void> {
    while (this.#workers.size > 0) await Promise.all(this.#workers);
  }

  /** Starts workers until each place is taken. */
  #fill(): void {
    const { concurrency, mostInParallel = concurrency, signal } = this.#options;
    while (this.#places < Math.max(1, concurrency) && this.#workers.size < Math.max(1, mostInParallel)) {
      if (signal.aborted) return;
      this.#places += 1;
      const worker = this.#work();
      this.#workers.add(worker);
      void worker.finally(() => {
        this.#workers.delete(worker);
        this.#fill();
      });
    }
  }

  /** Takes keys until the stop, or until its key was slow: a substitute has its place then. */
  async #work(): Promise<void> {
    const { queue, signal, clock, slowMs } = this.#options;
    const own = { place: true };
    const giveUpPlace = (): void => {
      own.place = false;
      this.#places -= 1;
    };
    const onSlow = (): void => {
      giveUpPlace();
      this.#fill();
    };
    while (own.place) {
      const key = await queue.get(signal);
      if (key === undefined) {
        giveUpPlace();
        return;
      }
      const timer = slowMs === undefined ? undefined : clock.setTimeout(onSlow, slowMs);
      // A callback that throws is a bug of this program. The key is retried, and the worker continues.
      await reconcileOne(this.#options, key).catch(() => queue.addRateLimited(key));
      timer?.cancel();
      queue.done(key);
    }
  }
}

async function reconcileOne(options: WorkerOptions, key: string): Promise<void> {
  const { queue, clock, signal } = options;
  const startMs = clock.now();
  try {
    const result = await options.reconcile(key, options.workSignal ?? signal);
    queue.forget(key);
    if (result.requeueAfterMs !== undefined) queue.addAfter(key, result.requeueAfterMs);
    options.onFinished?.(key, clock.now() - startMs, true);
  } catch (error) {
    options.onFinished?.(key, clock.now() - startMs, false);
    if (signal.aborted) return;
    options.onError(key, error);
    retry(queue, key, options.classify(error));
  }
}

function retry(queue: WorkQueue, key: string, verdict: Verdict): void {
  if (verdict.backoff) {
    queue.addRateLimited(key, verdict.capMs, verdict.retryAfterMs);
    return;
  }
  queue.forget(key);
  if (verdict.retryAfterMs !== undefined) queue.addAfter(key, verdict.retryAfterMs);
}
