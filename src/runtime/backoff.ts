/** Exponential back-off with full jitter: a uniformly random fraction of a limit that doubles up to a cap. */

export interface BackoffOptions {
  /** Upper bound of the first delay, in milliseconds. */
  baseMs: number;
  /** Upper bound of any delay, in milliseconds. */
  capMs: number;
}

/** Returns a uniform random number in [0, 1), like `Math.random`. */
export type Random = () => number;

/**
 * Computes the delay before the next attempt.
 * @param failures the number of earlier delays since the last success; 0 for the first delay
 * @returns milliseconds
 */
export function backoffMs(options: BackoffOptions, failures: number, random: Random): number {
  const bound = Math.min(options.capMs, options.baseMs * 2 ** Math.min(failures, 60));
  return Math.floor(random() * bound);
}

/** The back-off of one repeated operation. */
export interface Backoff {
  /** Returns the next delay in milliseconds. Each call counts as one failure. */
  next(): number;
  /** Resets the number of failures to 0. */
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
