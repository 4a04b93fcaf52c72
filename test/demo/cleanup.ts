/** Servers and processes that the demo stops at its end, whatever the cause of the end. */
import { setTimeout as pause } from 'node:timers/promises';
import { stopAll } from '../stack/index.ts';

interface Stoppable {
  stop(): Promise<void>;
}

/** Longer than any server takes to stop. */
const patienceMs = 30_000;

export class Cleanup {
  readonly #stops: (() => Promise<void>)[] = [];

  /** Registers something to stop at the end, before everything registered earlier. Processes that have not started by then end with `run`. */
  add<T extends Stoppable>(server: T): T {
    this.#stops.push(() => server.stop());
    return server;
  }

  /** The same for containers that are starting: nothing else stops them if the demo ends meanwhile. */
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
