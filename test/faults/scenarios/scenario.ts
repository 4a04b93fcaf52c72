/** A story that is told undisturbed once, and then again and again with something failing in it. */
import type { ToMake } from '../../../src/plan/vault/capabilities.ts';
import type { Json } from '../../support/cluster.ts';
import type { Configuration, Stage } from '../stage.ts';

export interface Scenario {
  readonly name: string;
  /** A run ends where the next one may begin: the stage is kept. */
  readonly reusable: boolean;
  /** Merged over the smallest spec. */
  readonly spec?: (configuration: Configuration) => Json;
  /** Rights of the operator in Vault beyond the usual ones. */
  readonly rights?: Partial<ToMake>;
  /** What the undisturbed run must show, so that the others are not compared with something broken. */
  readonly expected: Json;
  /** So many writes to Vault it makes at least. */
  readonly leastWrites: number;
  /** Makes the start state; nothing fails yet. */
  prepare(stage: Stage): Promise<void>;
  /** What sets it going; from here on something may fail. */
  act(stage: Stage): Promise<void>;
  /** Waits for its end. */
  settled(stage: Stage): Promise<void>;
  /** Looks once more at what was reached, where there is something to look at: a fault may fall into that look, too. */
  look(stage: Stage): Promise<void>;
  /** What must be the same as at the end of the undisturbed run. */
  essence(stage: Stage): Promise<Json>;
}
