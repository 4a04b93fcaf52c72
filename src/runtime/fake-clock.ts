/** A clock for tests. Time stands still until the test advances it. */
import type { Clock, Timer } from './clock.ts';

interface Entry {
  atMs: number;
  order: number;
  fn: () => void;
}

/** Waits until the callbacks of all settled promises have run. */
const flush = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

export class FakeClock implements Clock {
  #nowMs: number;
  /** The sum of all changes of the wall clock, in milliseconds. */
  #setMs = 0;
  #order = 0;
  readonly #entries = new Set<Entry>();

  /** @param startMs milliseconds since the epoch */
  constructor(startMs = Date.UTC(2026, 0, 1)) {
    this.#nowMs = startMs;
  }

  now(): number {
    return this.#nowMs + this.#setMs;
  }

  elapsed(): number {
    return this.#nowMs;
  }

  /** Sets the wall clock. No time passes. @param byMs milliseconds, forward or back */
  set(byMs: number): void {
    this.#setMs += byMs;
  }

  setTimeout(fn: () => void, ms: number): Timer {
    const entry = { atMs: this.#nowMs + Math.max(0, ms), order: this.#order++, fn };
    this.#entries.add(entry);
    return { cancel: () => this.#entries.delete(entry) };
  }

  /** The number of active timers. */
  get pending(): number {
    return this.#entries.size;
  }

  /**
   * Advances the time. Each timer fires at its own time and in order, including timers that are set meanwhile. The callbacks of promises that
   * a timer settles run before the next timer.
   * @param ms milliseconds
   */
  async advance(ms: number): Promise<void> {
    const endMs = this.#nowMs + ms;
    await flush();
    for (let next = this.#next(endMs); next !== undefined; next = this.#next(endMs)) {
      this.#entries.delete(next);
      this.#nowMs = Math.max(this.#nowMs, next.atMs);
      next.fn();
      await flush();
    }
    this.#nowMs = endMs;
  }

  #next(endMs: number): Entry | undefined {
    let first: Entry | undefined;
    for (const entry of this.#entries) {
      if (entry.atMs > endMs) continue;
      if (first === undefined || entry.atMs < first.atMs || (entry.atMs === first.atMs && entry.order < first.order)) {
        first = entry;
      }
    }
    return first;
  }
}
