/** Time limits of work that may not heed them. */
import type { Clock, Timer } from './clock.ts';

/** A signal that aborts after some milliseconds of the clock. */
export class Deadline {
  readonly #controller = new AbortController();
  readonly #timer: Timer;

  constructor(clock: Clock, ms: number) {
    this.#timer = clock.setTimeout(() => this.#controller.abort(new Error('deadline exceeded')), ms);
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  dispose(): void {
    this.#timer.cancel();
  }
}

/** Settles with the promise, or rejects when the signal aborts first. */
export function abortable<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const onAbort = (): void => reject(signal.reason instanceof Error ? signal.reason : new Error('aborted'));
    if (signal.aborted) onAbort();
    else signal.addEventListener('abort', onAbort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort));
  });
}
