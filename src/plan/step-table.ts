/**
 * What each kind of step means, one row a kind: the condition that shows its failure, its words, what must be read again after it, and its
 * effect in a dry run. How a step is executed: `src/vault/execute.ts`, one row a kind too, and `src/controller/execute.ts` for the cluster.
 */
import type { StageCondition } from '../api/conditions.ts';
import type { SimulatedWorld } from './simulated-effects.ts';
import type { StepDescription, StepRow, StepRows, VaultPart } from './step-row.ts';
import { controlPlaneRows } from './step-rows-control-plane.ts';
import { issuingRows } from './step-rows-issuing.ts';
import { requestRows } from './step-rows-requests.ts';
import { vaultRows } from './step-rows-vault.ts';
import type { Step, StepKind } from './steps.ts';

const rows: StepRows<StepKind> = { ...vaultRows, ...issuingRows, ...controlPlaneRows, ...requestRows };

/** The row of a step. The type checker does not see that it belongs to this kind of step and no other. */
const rowOf = (step: Step): StepRow<StepKind> => rows[step.kind] as unknown as StepRow<StepKind>;

const valueOf = <T extends string>(value: T | ((step: Step) => T), step: Step): T =>
  typeof value === 'function' ? value(step) : value;

/** The condition in which a failed step shows. */
export const conditionOfStep = (step: Step): StageCondition => rowOf(step).condition;

/** Whether a step writes to the cluster; all others write to Vault. */
export const writesToCluster = ({ kind }: Step): boolean => kind in controlPlaneRows || kind in requestRows;

/** What must be read of Vault again after a step. */
export const rereadsOf = (step: Step): readonly VaultPart[] => rowOf(step).rereads;

/** A step that is still to be taken, as `status.plan` and the command `plan` show it. */
export function describePlanned(step: Step): StepDescription {
  const row = rowOf(step);
  return { action: valueOf(row.action, step), target: valueOf(row.target, step), message: row.planned(step) };
}

/**
 * A step that was taken, as its Event and the log show it.
 * @param again the object was written before: it was missing, or differed from the desired state
 */
export function describeDone(step: Step, again = false): StepDescription & { event: string } {
  const row = rowOf(step);
  const restored = again && row.restores?.(step);
  const message = restored ? `Updated ${restored}: it was missing or differed from the desired state` : row.done(step);
  return {
    action: valueOf(row.action, step),
    target: valueOf(row.target, step),
    event: valueOf(row.event, step),
    message,
  };
}

/**
 * Changes a simulated world as the step would change the real one.
 * @throws Refused where the real server would refuse
 */
export const applyTo = (world: SimulatedWorld, step: Step): void => rowOf(step).simulate(world, step);
