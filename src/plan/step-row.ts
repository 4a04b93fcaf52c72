/** The shape of a row of the table of steps. */
import type { StageCondition } from '../api/conditions.ts';
import type { SimulatedWorld } from './simulated-effects.ts';
import type { StepKind, StepOf } from './steps.ts';

/** What the operator reads of Vault, by the name of the read. */
export type VaultPart =
  | 'health'
  | 'authMount'
  | 'auditDevice'
  | 'capabilities'
  | 'kvMount'
  | 'rootMount'
  | 'intermediateMount'
  | 'policy'
  | 'role'
  | 'authConfig'
  | 'live'
  | 'staging'
  | 'state'
  | 'liveVersions'
  | 'existing'
  | 'rootPki'
  | 'rootPkiRoles'
  | 'intermediatePkiRoles'
  | 'liveRevoked'
  | 'lists'
  | 'revokedIntermediates'
  | 'rootListSettings'
  | 'intermediateListSettings'
  | 'intermediatePki'
  | 'keyStoreEntries'
  | 'authRoles'
  | 'rootMountRoles'
  | 'signed';

/** How a step shows in `status.plan`, in Events and in the log. */
export interface StepDescription {
  action: 'Create' | 'Update' | 'Delete' | 'Sign' | 'Publish';
  /** The object that the step writes. */
  target: string;
  /** A full clause without a full stop: imperative in a plan, past tense in an Event. */
  message: string;
}

/** What one kind of step means. */
export interface StepRow<K extends StepKind> {
  /** The condition in which a failure shows. */
  condition: StageCondition;
  action: StepDescription['action'] | ((step: StepOf<K>) => StepDescription['action']);
  target: string | ((step: StepOf<K>) => string);
  /** Reason of the Event. */
  event: string | ((step: StepOf<K>) => string);
  /** Imperative, for a plan. */
  planned: (step: StepOf<K>) => string;
  /** Past tense, for an Event and the log. */
  done: (step: StepOf<K>) => string;
  /**
   * What the step restores when an object that it wrote before is missing or differs; absent: a renewal takes the step too, so a repetition reads
   * like the first time.
   */
  restores?: (step: StepOf<K>) => string;
  /** What must be read again after the step. */
  rereads: readonly VaultPart[];
  /** @throws Refused where the server would refuse the step */
  simulate: (world: SimulatedWorld, step: StepOf<K>) => void;
}

/** Rows of several kinds. */
export type StepRows<K extends StepKind> = { [One in K]: StepRow<One> };
