/** Wires the parts of a running operator: informers add keys to the work queue, and workers pass the keys to the reconciler. */
import { dig, items } from '../api/json.ts';
import type { RunConfig } from '../config.ts';
import { addressAllowed, injectorAddressAllowed } from '../config.ts';
import { adapters } from '../control-planes/index.ts';
import type { KubeClient } from '../kube/client.ts';
import { KubeError } from '../kube/errors.ts';
import type { EventRecorder } from '../kube/events.ts';
import type { ResourceInformer, StartInformer } from '../kube/informers.ts';
import { istiodLabel } from '../istiod/discover.ts';
import { askToSign } from '../istiod/certificate-request.ts';
import { IstiodObserver } from '../istiod/observe.ts';
import { probe } from '../istiod/probe.ts';
import type { Logger } from '../observability/logger.ts';
import type { Metrics } from '../observability/metrics.ts';
import { controlPlaneKinds } from '../plan/control-plane/kinds.ts';
import { ProblemError } from '../plan/facts/problem.ts';
import type { Clock } from '../runtime/clock.ts';
import { WorkQueue } from '../runtime/work-queue.ts';
import { runWorkers, type Verdict } from '../runtime/workers.ts';
import { Sessions } from '../vault/sessions.ts';
import { ConflictTracker } from './conflict-tracker.ts';
import { clusterUid, deployments, pods, resources } from './observe-kubernetes.ts';
import { messageOf } from './problems.ts';
import { Reconciler } from './reconcile.ts';

export interface OperatorOptions {
  config: RunConfig;
  kube: KubeClient;
  startInformer: StartInformer;
  events: EventRecorder;
  metrics: Metrics;
  logger: Logger;
  clock: Clock;
  random: () => number;
}

/** Upper limits of the retry delay, milliseconds: short after an outage of Vault or the API server, long after a bug of the operator. */
const vaultCapMs = 15_000;
const kubernetesCapMs = 15_000;
const bugCapMs = 300_000;

/** A reconcile that takes longer waits for a server; it does not count as one of `--concurrency` any more. Milliseconds. */
const slowMs = 2_000;
/** The number of reconciles in parallel, those that wait for a server included, at most: as multiples of `--concurrency`. */
const mostOfNamespace = 4;
const mostInParallel = 32;

const kinds = Object.keys(adapters) as (keyof typeof adapters)[];

/**
 * How often a resource is reconciled at most, and one that fails. Who changes it again and again, for example its annotations, would otherwise
 * take processor time from all others. The first retries of a failing one are quicker, because the back-off is a random part of its limit: the
 * burst covers them.
 */
const mostReconciles = { usual: { burst: 20, perSecond: 2 }, failing: { burst: 10, perSecond: 0.2 } };

/** Delay after a Pod change, milliseconds. A rollout changes many Pods at once, and the delay combines these changes into one reconcile. */
const podsSettleMs = 250;

/** Returns the part of a Pod's status whose change triggers a reconcile. Heartbeats and times are not part of it. */
function relevantPodState(pod: unknown): unknown {
  const statuses = ['initContainerStatuses', 'containerStatuses'].flatMap((list) => items(dig(pod, 'status', list)));
  return [
    ...['phase', 'podIP'].map((field) => dig(pod, 'status', field)),
    ...statuses.map((status) => ['name', 'ready', 'restartCount', 'state'].map((field) => dig(status, field))),
    ...items(dig(pod, 'status', 'conditions')).map((c) => ['type', 'status', 'reason'].map((field) => dig(c, field))),
  ];
}

/**
 * Returns the parts of a control plane object whose change triggers a reconcile, besides its generation. A ConfigMap has no generation, so
 * its data counts.
 */
const relevantControlPlaneState = (object: unknown): unknown[] => [
  dig(object, 'status', 'status'),
  dig(object, 'status', 'activeRevisionName'),
  items(dig(object, 'status', 'conditions')).map((one) => ['type', 'status', 'reason'].map((field) => dig(one, field))),
  dig(object, 'metadata', 'labels'),
  dig(object, 'data'),
];

/** Returns the part of a Deployment's status that shows the progress of its rollout. */
function relevantDeploymentState(deployment: unknown): unknown {
  const fields = ['observedGeneration', 'replicas', 'updatedReplicas', 'availableReplicas'];
  return [
    ...fields.map((field) => dig(deployment, 'status', field)),
    ...items(dig(deployment, 'status', 'conditions')).map((c) => ['type', 'status'].map((field) => dig(c, field))),
  ];
}

/** Returns the retry policy of a failed reconcile. The status already shows the cause, unless the API server was unreachable. */
function classify(error: unknown): Verdict {
  if (error instanceof KubeError) return { backoff: true, capMs: kubernetesCapMs };
  if (!(error instanceof ProblemError)) return { backoff: true, capMs: bugCapMs };
  const { retryAfterMs } = error.problem;
  return { backoff: true, capMs: vaultCapMs, ...(retryAfterMs === undefined ? {} : { retryAfterMs }) };
}

/** Distinguishes relevant changes of objects from irrelevant ones, such as a write of the operator's own status. */
class ChangeFilter {
  readonly #known = new Map<string, { version: string; meaning: string }>();

  /**
   * Compares an object with its previous version, and remembers it.
   * @param object `undefined`: it was deleted
   * @param more parts of the object, besides its metadata, whose change is relevant
   * @returns `changed`, `repeated` (the same version again, from a relist) or `irrelevant`
   */
  compare(key: string, object: unknown, more?: unknown): 'changed' | 'repeated' | 'irrelevant' {
    const version = String(dig(object, 'metadata', 'resourceVersion'));
    const fields = ['uid', 'generation', 'annotations', 'deletionTimestamp'];
    const meaning = JSON.stringify([...fields.map((field) => dig(object, 'metadata', field)), more]);
    const before = this.#known.get(key);
    if (object === undefined) this.#known.delete(key);
    else this.#known.set(key, { version, meaning });
    if (before?.version === version) return 'repeated';
    return before?.meaning === meaning ? 'irrelevant' : 'changed';
  }
}

/** What a changed object means for the IstioVaultCAs that it concerns. */
interface WatchOptions {
  /** The part of the object, besides its metadata, whose change is relevant. */
  meaning?: (object: unknown) => unknown;
  /** Delay of the reconcile, milliseconds. */
  delayMs?: number;
  /**
   * Whether the last reconcile of an IstioVaultCA, by `namespace/name`, has decided on this version of the object. A write of that reconcile itself
   * is reported while it runs, and then nothing is left to do.
   */
  wasSeen?: (key: string, object: unknown) => boolean;
}

/** Which IstioVaultCAs are enqueued, and when. */
interface EnqueueOptions {
  delayMs?: number;
  /** The one, by `namespace/name`, that is not. */
  except?: string;
  /** As of `WorkQueue.add`, by `namespace/name`; without a delay. */
  isNeeded?: (key: string) => boolean;
}

export class Operator {
  readonly #o: OperatorOptions;
  readonly #queue: WorkQueue;
  readonly sessions: Sessions;
  /** Kinds of control plane that some resource names, as `kind/namespace`. Only these are watched. */
  readonly #watched = new Set<string>();
  /** Informers that readiness depends on. */
  #informers: ResourceInformer[] = [];
  /** Informers that readiness does not depend on: without them, changes are found at the next scheduled reconcile. */
  #optional: ResourceInformer[] = [];
  /** Informers of IstioVaultCAs. */
  #own: ResourceInformer[] = [];
  #reconciler: Reconciler | undefined;

  constructor(options: OperatorOptions) {
    this.#o = options;
    const { clock, random, config, metrics, logger } = options;
    this.#queue = new WorkQueue({
      clock,
      random,
      backoff: { baseMs: config.backoffBaseMs, capMs: bugCapMs },
      // the namespace of the resource
      groupOf: (key) => key.slice(0, key.indexOf('/')),
      mostOfGroup: config.concurrency * mostOfNamespace,
      pace: mostReconciles,
      hooks: metrics.queueHooks,
    });
    this.sessions = new Sessions({
      clock,
      logger,
      onLogin: () => metrics.vaultLogin(),
      retirementMs: config.reconcileTimeoutMs,
      proxyFor: config.proxyFor,
      unwraps: true,
    });
  }

  /** Whether the operator works. A candidate that waits for the Lease has not started. */
  started(): boolean {
    return this.#informers.length > 0;
  }

  /** Whether the initial list of every required informer is complete. */
  synced(): boolean {
    return this.started() && this.#informers.every((informer) => informer.hasSynced());
  }

  /** Runs until the signal aborts, then waits for running reconciles and revokes the Vault tokens. @throws KubeError, Error at the start */
  async run(signal: AbortSignal): Promise<void> {
    const { kube, config, logger, metrics, clock, events } = this.#o;
    const reconciler = new Reconciler({
      kube,
      sessions: this.sessions,
      events,
      metrics,
      logger,
      clock,
      clusterUid: await clusterUid(kube),
      istiod: new IstiodObserver({
        kube,
        clock,
        probe,
        askToSign,
        namespaces: config.namespaces,
        rootsOfOthers: (namespace) => this.#rootsOfOthers(namespace),
      }),
      leaderElection: config.leaderElect,
      addressAllowed: (address) => addressAllowed(config, address),
      injectorAddressAllowed: (address) => injectorAddressAllowed(config, address),
      resyncMs: config.resyncMs,
      crlLeadMs: config.crlLeadMs,
      reconcileTimeoutMs: config.reconcileTimeoutMs,
      deletionDeadlineMs: config.deletionDeadlineMs,
      conflicts: new ConflictTracker(config.contestProbeMs),
      changesMeanwhile: (key) => this.#queue.addedMeanwhile(key),
    });
    this.#reconciler = reconciler;
    this.#startInformers();
    const end = await runWorkers({
      queue: this.#queue,
      concurrency: config.concurrency,
      slowMs,
      mostInParallel: config.concurrency * mostInParallel,
      clock,
      signal,
      reconcile: async (key, workSignal) => {
        const outcome = await reconciler.reconcile(key, workSignal);
        if ('backoff' in outcome) throw new ProblemError(outcome.problem);
        // the informers report every resource again at each resync, so the queue needs no later timer
        return outcome.requeueAfterMs < config.resyncMs ? outcome : {};
      },
      classify,
      onError: (key, error) => {
        metrics.reconcileError();
        if (error instanceof KubeError) logger.warn(messageOf(error), { resource: key });
        else if (error instanceof ProblemError) logger.warn(error.message, { resource: key });
        else logger.error('reconcile failed', { resource: key, err: error });
      },
      onFinished: (_key, durationMs, succeeded) =>
        metrics.reconcileFinished(succeeded ? 'success' : 'error', durationMs / 1000),
    });
    for (const informer of [...this.#informers, ...this.#optional]) informer.stop();
    if (!end.drained) logger.warn('work was still running at the end', { resources: end.unfinished });
    await this.sessions.close();
    await events.flush();
  }

  #startInformers(): void {
    const { config, startInformer } = this.#o;
    const scopes = config.namespaces.length > 0 ? config.namespaces : [undefined];
    const filter = new ChangeFilter();
    const relistMs = config.resyncMs;
    for (const namespace of scopes) {
      const own: ResourceInformer = startInformer({
        gvr: resources,
        namespace,
        relistMs,
        onKey: (metadata) => {
          const key = `${metadata.namespace ?? ''}/${metadata.name}`;
          const object = own.get(metadata.namespace, metadata.name);
          this.#watchControlPlanes(filter, dig(object, 'spec', 'controlPlane', 'kind'), namespace);
          const change = filter.compare(key, object);
          if (change === 'irrelevant') return;
          if (dig(object, 'metadata', 'deletionTimestamp') !== undefined) this.#reconciler?.interrupt(key);
          this.#queue.add(key);
          // a competing IstioVaultCA that was created, changed or deleted affects the other resources of its namespace
          if (change === 'changed') this.#enqueueNamespace(metadata.namespace, { except: key });
        },
      });
      this.#own.push(own);
      this.#informers.push(own);
      this.#informers.push(
        this.#watch(
          filter,
          { gvr: deployments, namespace, relistMs, labelSelector: istiodLabel },
          { meaning: relevantDeploymentState },
        ),
      );
      this.#optional.push(
        this.#watch(
          filter,
          { gvr: pods, namespace, relistMs, labelSelector: istiodLabel },
          { meaning: relevantPodState, delayMs: podsSettleMs },
        ),
      );
    }
  }

  /** Watches a kind of control plane as soon as a resource names it, so that the operator needs no permissions on other kinds. */
  #watchControlPlanes(filter: ChangeFilter, named: unknown, namespace: string | undefined): void {
    const kind = kinds.find((name) => name === named);
    const key = `${String(kind)}/${namespace ?? ''}`;
    if (kind === undefined || this.#watched.has(key)) return;
    this.#watched.add(key);
    const { gvr, clusterScoped, makesIt, relatives } = adapters[kind];
    const scope = {
      namespace: clusterScoped ? undefined : namespace,
      relistMs: this.#o.config.resyncMs,
      grantedBy: controlPlaneKinds[kind].component,
    };
    // for kinds whose object the operator creates itself, it watches only objects with its label
    const ownObjects = makesIt ? { labelSelector: 'app.kubernetes.io/managed-by=istio-vault-ca' } : {};
    this.#optional.push(
      this.#watch(
        filter,
        { gvr, ...scope, ...ownObjects },
        {
          meaning: relevantControlPlaneState,
          wasSeen: (key, object) => this.#reconciler?.hasSeen(key, object) ?? false,
        },
      ),
    );
    if (relatives) this.#optional.push(this.#watch(filter, { gvr: relatives, ...scope }));
  }

  /**
   * Starts an informer. A changed object triggers a reconcile of the IstioVaultCAs in its namespace, and a cluster-scoped one of all
   * IstioVaultCAs.
   */
  #watch(
    filter: ChangeFilter,
    options: Omit<Parameters<StartInformer>[0], 'onKey'>,
    { meaning, delayMs = 0, wasSeen }: WatchOptions = {},
  ): ResourceInformer {
    const informer: ResourceInformer = this.#o.startInformer({
      ...options,
      onKey: (metadata) => {
        const object = informer.get(metadata.namespace, metadata.name);
        const key = `${options.gvr.plural}/${metadata.namespace ?? ''}/${metadata.name}`;
        if (filter.compare(key, object, meaning?.(object)) !== 'changed') return;
        const current = () => informer.get(metadata.namespace, metadata.name);
        this.#enqueueNamespace(metadata.namespace, {
          delayMs,
          ...(wasSeen ? { isNeeded: (of: string) => !wasSeen(of, current()) } : {}),
        });
      },
    });
    return informer;
  }

  /** Returns the fingerprints of the roots in the status of IstioVaultCAs of other namespaces. */
  #rootsOfOthers(namespace: string): string[] {
    return this.#own
      .flatMap((informer) => informer.list())
      .filter((object) => object.metadata?.namespace !== namespace)
      .map((object) => dig(object, 'status', 'root', 'fingerprint'))
      .filter((fingerprint) => typeof fingerprint === 'string');
  }

  /** Enqueues the IstioVaultCAs of a namespace; `undefined`: of all namespaces. */
  #enqueueNamespace(namespace: string | undefined, { delayMs = 0, except, isNeeded }: EnqueueOptions = {}): void {
    for (const object of this.#own.flatMap((informer) => informer.list())) {
      const at = object.metadata?.namespace;
      const key = `${at ?? ''}/${object.metadata?.name ?? ''}`;
      if ((namespace !== undefined && at !== namespace) || key === except) continue;
      if (delayMs > 0) this.#queue.addAfter(key, delayMs);
      else this.#queue.add(key, isNeeded && (() => isNeeded(key)));
    }
  }
}
