/** Time as an argument: everything that waits or reads the time takes a `Clock`. */

/** A timer that has not fired yet. */
export interface Timer {
  /** Stops it; does nothing when it has fired or was stopped before. */
  cancel(): void;
}

export interface Clock {
  /** Milliseconds since the epoch. May jump when the machine's clock is set: measure spans with `elapsed` or `setTimeout`. */
  now(): number;
  /** Milliseconds since some moment of this process (monotonic): only differences mean something. */
  elapsed(): number;
  /**
   * Runs `fn` once, after `ms` milliseconds of elapsed (monotonic) time. Any length is allowed, also years.
   */
  setTimeout(fn: () => void, ms: number): Timer;
}

/** Node's timers hold 31 bits of milliseconds; a longer one would fire at once. */
const longestTimerMs = 2 ** 31 - 1;

/** The machine's clock. */
export const systemClock: Clock = {
  now: () => Date.now(),
  elapsed: () => performance.now(),
  setTimeout(fn, ms) {
    let restMs = Math.max(0, ms);
    let handle: NodeJS.Timeout;
    const arm = (): void => {
      const step = Math.min(restMs, longestTimerMs);
      restMs -= step;
      handle = setTimeout(() => {
        if (restMs > 0) arm();
        else fn();
      }, step);
    };
    arm();
    return { cancel: () => clearTimeout(handle) };
  },
};

/**
 * Waits.
 * @param ms milliseconds
 * @returns true after the time, false at once when the signal aborts first
 */
export function sleep(clock: Clock, ms: number, signal?: AbortSignal): Promise<boolean> {
  return new Promise((resolve) => {
    if (signal?.aborted === true) {
      resolve(false);
      return;
    }
    const onAbort = (): void => {
      timer.cancel();
      resolve(false);
    };
    const timer = clock.setTimeout(() => {
      signal?.removeEventListener('abort', onAbort);
      resolve(true);
    }, ms);
    signal?.addEventListener('abort', onAbort, { once: true });
  });
}

/** RFC 3339 in UTC with microseconds: type `MicroTime` of Kubernetes, which Leases and Events carry. @param ms milliseconds since the epoch */
export const microTime = (ms: number): string => new Date(ms).toISOString().replace('Z', '000Z');
