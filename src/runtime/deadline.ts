/** Time limits for operations that possibly ignore abort signals. */
import type { Clock, Timer } from './clock.ts';

/** A signal that aborts after a time. The owner must call `dispose`. */
export class Deadline {
  readonly #controller = new AbortController();
  readonly #timer: Timer;

  constructor(clock: Clock, ms: number) {
    this.#timer = clock.setTimeout(() => this.#controller.abort(new Error('deadline exceeded')), ms);
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** Cancels the timer. */
  dispose(): void {
    this.#timer.cancel();
  }
}

/** Settles with the promise, or rejects if the signal aborts first. The operation behind the promise continues. */
export function abortable<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const onAbort = (): void => reject(signal.reason instanceof Error ? signal.reason : new Error('aborted'));
    if (signal.aborted) onAbort();
    else signal.addEventListener('abort', onAbort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort));
  });
}
