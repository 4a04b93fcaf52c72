/** Exponential back-off with full jitter: a uniformly random part of a delay that doubles up to a cap. */

export interface BackoffOptions {
  /** Upper bound of the first delay, in milliseconds. */
  baseMs: number;
  /** Upper bound of any delay, in milliseconds. */
  capMs: number;
}

/** Uniform in [0, 1), as `Math.random`. */
export type Random = () => number;

/**
 * The delay before one more attempt.
 * @param failures how many attempts have failed since the last success, before this one: 0 for the first delay
 * @returns milliseconds
 */
export function backoffMs(options: BackoffOptions, failures: number, random: Random): number {
  const bound = Math.min(options.capMs, options.baseMs * 2 ** Math.min(failures, 60));
  return Math.floor(random() * bound);
}

/** Back-off of one thing that is tried again and again. */
export interface Backoff {
  /** The next delay in milliseconds; each call counts as one more failure. */
  next(): number;
  /** Forgets the failures. */
  reset(): void;
}

export function createBackoff(options: BackoffOptions, random: Random = Math.random): Backoff {
  let failures = 0;
  return {
    next: () => backoffMs(options, failures++, random),
    reset: () => {
      failures = 0;
    },
  };
}
