/** What a scenario of `npm run bench` is. */
import type { Cleanup } from '../support/cleanup.ts';

/** What a measured value must not exceed, or must be. */
export interface Target {
  /** Such as `at most 1.5`. */
  readonly text: string;
  readonly met: boolean;
}

/** A row of the table of a scenario. */
export interface Row {
  readonly measure: string;
  /** One for each of the scenario's columns, with its unit; empty: nothing is measured there. */
  readonly cells: readonly string[];
  readonly target?: Target;
}

export interface RunOptions {
  /** How long the state that the scenario is about lasts, minutes. */
  readonly minutes: number;
  /** Stops what is registered here after the scenario, also after a failure or Ctrl-C. */
  readonly cleanup: Cleanup;
  /** Shows what is being done. */
  readonly progress: (line: string) => void;
}

export interface Scenario {
  /** Its name on the command line, and the heading of its section in docs/performance.md. */
  readonly name: string;
  /** What is measured and how, for `--help` and docs/performance.md. */
  readonly description: string;
  /** The heads of the columns between the measure and the target. */
  readonly columns: readonly string[];
  /**
   * Starts servers of its own and measures. A missed target is no failure.
   * @throws Error if nothing can be measured: a server does not start, the operator ends
   */
  run(options: RunOptions): Promise<Row[]>;
}
