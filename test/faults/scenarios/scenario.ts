/** A sequence of actions that is run once undisturbed, and then repeatedly with one failure. */
import type { ToMake } from '../../../src/plan/vault/capabilities.ts';
import type { Json } from '../../support/cluster.ts';
import type { Configuration, Stage } from '../stage.ts';

export interface Scenario {
  readonly name: string;
  /** The end state of a run is the start state of the next one: the stage is kept. */
  readonly reusable: boolean;
  /** Fields merged over the smallest spec. */
  readonly spec?: (configuration: Configuration) => Json;
  /** Additional permissions of the operator in Vault. */
  readonly rights?: Partial<ToMake>;
  /** The required result of the undisturbed run, so that the other runs are not compared with a broken one. */
  readonly expected: Json;
  /** The minimum number of writes to Vault. */
  readonly leastWrites: number;
  /** Creates the start state; nothing fails yet. */
  prepare(stage: Stage): Promise<void>;
  /** Starts the action; from here on a request can fail. */
  act(stage: Stage): Promise<void>;
  /** Waits for the end of the action. */
  settled(stage: Stage): Promise<void>;
  /** Triggers another reconcile of the result, if there is one: a fault can hit this reconcile too. */
  look(stage: Stage): Promise<void>;
  /** The state that must equal the end of the undisturbed run. */
  essence(stage: Stage): Promise<Json>;
}
