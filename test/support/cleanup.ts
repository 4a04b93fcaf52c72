/** What programs outside Jest share, the demo and the benchmarks: they stop what they have started, whatever the cause of their end. */
import { constants } from 'node:os';
import { setTimeout as pause } from 'node:timers/promises';
import { stopAll } from '../stack/index.ts';

interface Stoppable {
  stop(): Promise<void>;
}

/** Longer than any server takes to stop. */
const patienceMs = 30_000;

/** Within this time after a first signal, a second one counts as the same Ctrl-C, which npm passes on again. Milliseconds. */
const sameSignalMs = 1000;

export class Cleanup {
  readonly #stops: (() => Promise<void>)[] = [];

  /** Registers something to stop at the end, before everything registered earlier. Processes that have not started by then end with `run`. */
  add<T extends Stoppable>(server: T): T {
    this.#stops.push(() => server.stop());
    return server;
  }

  /** The same for containers that are starting: nothing else stops them if the program ends meanwhile. */
  async addStarting<T extends Stoppable>(starting: Promise<T>): Promise<T> {
    const settled = starting.then(
      (server) => server,
      () => undefined,
    );
    this.#stops.push(async () => await (await settled)?.stop());
    return await starting;
  }

  /** Stops everything, the last registered first. Never throws. */
  async run(): Promise<void> {
    const deadline = pause(patienceMs, undefined, { ref: false });
    for (const stop of this.#stops.splice(0).reverse()) await Promise.race([stop().catch(() => undefined), deadline]);
    await stopAll();
  }
}

/**
 * Settles at the first signal, or when the output is closed. A second Ctrl-C exits without waiting.
 * @returns the exit code for this cause
 */
export function interruption(): Promise<number> {
  return new Promise((resolve) => {
    let first: number | undefined;
    const interrupt = (signal: keyof typeof constants.signals): void => {
      first ??= Date.now();
      resolve(128 + constants.signals[signal]);
      if (Date.now() - first > sameSignalMs) process.exit(128 + constants.signals[signal]);
    };
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, interrupt);
    process.stdout.on('error', () => interrupt('SIGPIPE'));
  });
}
