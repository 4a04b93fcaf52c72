/** Problems as data: a check or a failed call creates a problem, and a condition shows it. */
import { reasons, type Reason, type ReasonKind, type ReasonRow, type StageCondition } from '../../api/conditions.ts';

export interface Problem {
  /** The condition that shows the problem. */
  condition: StageCondition;
  reason: Reason;
  /** Field, value and remedy, for the user. Contains no secrets. */
  message: string;
  /**
   * Writes that the problem blocks. `all`: every write to Vault and the control plane; `controlPlane`: the istiod fields of the control
   * plane; `nothing`: none.
   */
  blocks: 'all' | 'controlPlane' | 'nothing';
  /**
   * When the resource is rechecked, in milliseconds from now, if that depends on the observation. Otherwise the row of the reason in
   * `src/api/conditions.ts` applies.
   */
  retryAfterMs?: number;
}

/** Who acts on a problem. */
export const kindOf = (problem: Problem): ReasonKind => reasons[problem.reason].kind;

/** When a problem has the resource rechecked, in milliseconds from now; undefined: at the next event or `--resync`, or after the back-off. */
export function recheckAfterMs({ reason, retryAfterMs }: Problem): number | undefined {
  const row: ReasonRow = reasons[reason];
  return retryAfterMs ?? row.recheckMs;
}

/** Error of a failed observation or step, with its problem. */
export class ProblemError extends Error {
  override readonly name = 'ProblemError';
  readonly problem: Problem;
  constructor(problem: Problem) {
    super(`${problem.reason}: ${problem.message}`);
    this.problem = problem;
  }
}

/** The problem for an unexpected error, that is, a bug of the operator. */
export const internalError: Problem = {
  condition: 'VaultReady',
  reason: 'InternalError',
  message: 'something unexpected; the operator’s log says what, and it tries again',
  blocks: 'all',
};
