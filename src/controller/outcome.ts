/** Options and outcome of a reconcile. */
import type { EventRecorder } from '../kube/events.ts';
import type { Problem } from '../plan/facts/problem.ts';
import type { ReconcileLoopOptions } from './reconcile-loop.ts';
import type { SpecPolicy } from './dry-run.ts';
import type { Sessions } from '../vault/sessions.ts';

/** When to reconcile again: after a time in milliseconds, or with increasing delays after a transient problem. */
export type Outcome = { requeueAfterMs: number } | { backoff: true; problem: Problem };

export interface ReconcilerOptions extends ReconcileLoopOptions, SpecPolicy {
  sessions: Sessions;
  events: Pick<EventRecorder, 'record'>;
  /** UID of namespace kube-system, which identifies the cluster. */
  clusterUid: string;
  /** Time between two reconciles of a resource without changes, milliseconds. */
  resyncMs: number;
  /** Time after which a deletion gives up its cleanup, milliseconds. */
  deletionDeadlineMs: number;
}
