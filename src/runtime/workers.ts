/** Workers that take keys off a queue, reconcile them and decide when to look again. */
import type { Clock } from './clock.ts';
import type { WorkQueue } from './work-queue.ts';

/** What a failure means for the key. */
export interface Verdict {
  /** Look again after this many milliseconds; with `backoff` the least delay. */
  retryAfterMs?: number;
  /** Put the key back with growing delays. Without it and without `retryAfterMs` the key waits for an event. */
  backoff: boolean;
  /** Upper bound of the back-off for this failure, in milliseconds. */
  capMs?: number;
}

export interface ReconcileResult {
  /** Look again after this many milliseconds, whatever happens meanwhile. */
  requeueAfterMs?: number;
}

export interface WorkerOptions {
  queue: WorkQueue;
  /** How many keys are worked on at once; at least 1. */
  concurrency: number;
  reconcile: (key: string, signal: AbortSignal) => Promise<ReconcileResult>;
  /** Decides about a failure. Must not throw. */
  classify: (error: unknown) => Verdict;
  /** Told about each failure, for log and metrics. Not about failures after the stop. */
  onError: (key: string, error: unknown) => void;
  /** Told about each end of a reconcile. */
  onFinished?: (key: string, durationMs: number, succeeded: boolean) => void;
  clock: Clock;
  /** Ends the taking of keys. */
  signal: AbortSignal;
  /** Handed to `reconcile`; the same as `signal` unless given, so that running work may end in peace. */
  workSignal?: AbortSignal;
  /** How long running work may go on after the stop, in milliseconds; 20 s unless given. */
  graceMs?: number;
}

export interface WorkersEnd {
  /** All work had ended before the grace was over. */
  drained: boolean;
  /** Keys whose work was still running. */
  unfinished: string[];
}

/** Runs until the signal aborts and the work in flight has ended or its grace is over. Never rejects. */
export async function runWorkers(options: WorkerOptions): Promise<WorkersEnd> {
  const { queue, clock, signal, graceMs = 20_000 } = options;
  const workers = Array.from({ length: Math.max(1, options.concurrency) }, () => work(options));
  const ended = Promise.all(workers).then(() => true);

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

async function work(options: WorkerOptions): Promise<void> {
  const { queue, signal } = options;
  for (;;) {
    const key = await queue.get(signal);
    if (key === undefined) return;
    // A callback that throws is a fault of ours: the key is tried again, and the worker lives on.
    await reconcileOne(options, key).catch(() => queue.addRateLimited(key));
    queue.done(key);
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
