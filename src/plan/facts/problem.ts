/** What stands in the way, as data: found by a check or by a failed call, shown in a condition, never thrown away. */
import { reasonKinds, type Reason, type ReasonKind, type StageCondition } from '../../api/conditions.ts';

export interface Problem {
  /** The condition it shows in. */
  condition: StageCondition;
  reason: Reason;
  /** Field, value and remedy, for a person. No secrets. */
  message: string;
  /** What must not be done while it lasts: `all` nothing is written anywhere; `controlPlane` its fields are not written. */
  blocks: 'all' | 'controlPlane' | 'nothing';
  /** When to look again, in milliseconds; waiting reasons have a default. */
  retryAfterMs?: number;
}

export const kindOf = (problem: Problem): ReasonKind => reasonKinds[problem.reason];

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
