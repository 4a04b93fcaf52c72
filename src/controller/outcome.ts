/** What the parts of the controller take and give: options of a reconcile, its result, and when the next one is due. */
import type { IstiodObserver } from '../istiod/observe.ts';
import type { KubeClient } from '../kube/client.ts';
import type { EventRecorder } from '../kube/events.ts';
import type { Logger } from '../observability/logger.ts';
import type { Metrics } from '../observability/metrics.ts';
import type { Observed } from '../plan/facts/observed.ts';
import type { Problem } from '../plan/facts/problem.ts';
import type { Clock } from '../runtime/clock.ts';
import type { Sessions } from '../vault/sessions.ts';
import type { ConflictTracker } from './conflict-tracker.ts';

/** Whether a spec is accepted, as far as flags of the operator decide it. */
export interface SpecPolicy {
  /** The operator may connect to the address. */
  addressAllowed: (address: string) => boolean;
  /** istiod's agent may be given the address. */
  injectorAddressAllowed: (address: string) => boolean;
  leaderElection: boolean;
}

/** What the reconcile loop works with. */
export interface ReconcileLoopOptions {
  kube: KubeClient;
  sessions: Pick<Sessions, 'open' | 'dropRefusedSession'>;
  /** Observes istiod's replicas. */
  istiod: Pick<IstiodObserver, 'observe' | 'meshEvidence' | 'forget'>;
  metrics: Metrics;
  logger: Logger;
  clock: Clock;
  conflicts: ConflictTracker;
  /** How often a resource, by `namespace/name`, was enqueued since its reconcile began: by an informer for a change, or by a timer. */
  changesMeanwhile: (key: string) => number;
}

/** What a loop reads besides the usual. */
export interface LoopContext {
  /** The resource is being deleted: also what decides which shared objects may go with it. */
  deleting: boolean;
}

/** What cuts a reconcile short. */
export interface Bounds {
  /** The operator stops, or the resource is being deleted: what the reconcile has found does not count any more. */
  stop: AbortSignal;
  /** Aborts with `stop`, and when the time of the reconcile is over: what was found counts. */
  signal: AbortSignal;
}

/** How a loop ended. */
export interface LoopResult {
  /** The last observation; undefined: nothing could be read. */
  observed: Observed | undefined;
  problems: Problem[];
  /** Steps are left although nothing failed for good. */
  unfinished: boolean;
}

/** When the next reconcile is due: after a time, or, after a failure that can pass, with back-off. */
export type Outcome = { requeueAfterMs: number } | { backoff: true; problem: Problem };

/** What the reconciler works with. */
export interface ReconcilerOptions extends ReconcileLoopOptions, SpecPolicy {
  sessions: Sessions;
  events: Pick<EventRecorder, 'record'>;
  /** UID of namespace kube-system, which identifies the cluster. */
  clusterUid: string;
  /** The longest time between two reconciles of a resource, milliseconds. */
  resyncMs: number;
  /** With `delivery.crl`: how long the list of a new intermediate is in the mesh before istiod signs with it, milliseconds. */
  crlLeadMs: number;
  /** The longest time that a reconcile takes, milliseconds. */
  reconcileTimeoutMs: number;
  /** Time after which a deletion gives up its cleanup, milliseconds. */
  deletionDeadlineMs: number;
}
