/** The clock as an argument: everything that waits or reads the time takes a `Clock`, so that tests can replace it. */

export interface Timer {
  /** Cancels the timer. No effect if the timer has fired or was cancelled. */
  cancel(): void;
}

export interface Clock {
  /** Milliseconds since the epoch. The value jumps when the system clock is set: measure periods with `elapsed` or `setTimeout`. */
  now(): number;
  /** Monotonic time in milliseconds since an arbitrary moment of this process. Only differences are meaningful. */
  elapsed(): number;
  /** Runs `fn` once after `ms` milliseconds of monotonic time. There is no upper limit. */
  setTimeout(fn: () => void, ms: number): Timer;
}

/** The longest timer of Node, in milliseconds: 31 bits. A longer one fires immediately. */
const longestTimerMs = 2 ** 31 - 1;

/** The clock of the system. */
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
 * @returns true after the time; false immediately if the signal aborts first
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

/**
 * Formats a time as type `MicroTime` of Kubernetes, for Leases and Events: RFC 3339, in UTC, with microseconds.
 * @param ms milliseconds since the epoch
 */
export const microTime = (ms: number): string => new Date(ms).toISOString().replace('Z', '000Z');
