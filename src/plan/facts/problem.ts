/** What stands in the way, as data: found by a check or by a failed call, shown in a condition, never thrown away. */
import { reasons, type Reason, type ReasonKind, type ReasonRow, type StageCondition } from '../../api/conditions.ts';

export interface Problem {
  /** The condition it shows in. */
  condition: StageCondition;
  reason: Reason;
  /** Field, value and remedy, for a person. No secrets. */
  message: string;
  /** What must not be done while it lasts: `all` nothing is written anywhere; `controlPlane` its fields are not written. */
  blocks: 'all' | 'controlPlane' | 'nothing';
  /** When to reconcile again, in milliseconds from now, where that depends on what was observed; else the row of the reason in `src/api/conditions.ts` decides. */
  retryAfterMs?: number;
}

export const kindOf = (problem: Problem): ReasonKind => reasons[problem.reason].kind;

/** When the resource is reconciled again because of a problem, in milliseconds from now; undefined: not before an event, or by back-off. */
export function recheckAfterMs({ reason, retryAfterMs }: Problem): number | undefined {
  const row: ReasonRow = reasons[reason];
  return retryAfterMs ?? row.recheckMs;
}

/** A failed observation or step, carrying its problem through the async code. */
export class ProblemError extends Error {
  override readonly name = 'ProblemError';
  readonly problem: Problem;
  constructor(problem: Problem) {
    super(`${problem.reason}: ${problem.message}`);
    this.problem = problem;
  }
}

/** A bug of the operator's own. */
export const internalError: Problem = {
  condition: 'VaultReady',
  reason: 'InternalError',
  message: 'something unexpected; the operator’s log says what, and it tries again',
  blocks: 'all',
};
