/** What a reconcile needs, and how it ends. */
import type { EventRecorder } from '../kube/events.ts';
import type { Problem } from '../plan/facts/problem.ts';
import type { ReconcileLoopOptions } from './reconcile-loop.ts';
import type { SpecPolicy } from './dry-run.ts';
import type { Sessions } from '../vault/sessions.ts';

/** When to look again: after a time, or with growing delays because something failed that may pass. */
export type Outcome = { requeueAfterMs: number } | { backoff: true; problem: Problem };

export interface ReconcilerOptions extends ReconcileLoopOptions, SpecPolicy {
  sessions: Sessions;
  events: Pick<EventRecorder, 'record'>;
  /** UID of the kube-system namespace. */
  clusterUid: string;
  /** How long a settled resource is left alone, milliseconds. */
  resyncMs: number;
  /** How long a deletion may take before it gives up, milliseconds. */
  deletionDeadlineMs: number;
}
