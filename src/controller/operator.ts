/** Wires the parts of a running operator: informers hand keys to the queue, workers hand them to the reconciler. */
import { dig, items } from '../api/json.ts';
import type { RunConfig } from '../config.ts';
import { addressAllowed } from '../config.ts';
import { adapters } from '../control-planes/index.ts';
import type { KubeClient } from '../kube/client.ts';
import { KubeError } from '../kube/errors.ts';
import type { EventRecorder } from '../kube/events.ts';
import type { ResourceInformer, StartInformer } from '../kube/informers.ts';
import { istiodLabel } from '../istiod/discover.ts';
import { rootsHandedOut } from '../istiod/handed-out-roots.ts';
import { IstiodObserver } from '../istiod/observe.ts';
import { probe } from '../istiod/probe.ts';
import type { Logger } from '../observability/logger.ts';
import type { Metrics } from '../observability/metrics.ts';
import { ProblemError } from '../plan/facts/problem.ts';
import type { Clock } from '../runtime/clock.ts';
import { WorkQueue } from '../runtime/work-queue.ts';
import { runWorkers, type Verdict } from '../runtime/workers.ts';
import { Sessions } from '../vault/sessions.ts';
import { ConflictTracker } from './conflict-tracker.ts';
import { clusterUid, resources } from './observe-kubernetes.ts';
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

/** Vault is looked at again soon after an outage; a bug is not retried in a hurry. Milliseconds. */
const vaultCapMs = 15_000;
const kubernetesCapMs = 15_000;
const bugCapMs = 300_000;

const deployments = { group: 'apps', version: 'v1', plural: 'deployments' };
const pods = { group: '', version: 'v1', plural: 'pods' };

/** A rollout changes many pods at once: they are looked at together, milliseconds after the first. */
const podsSettleMs = 250;

/** What of a pod's status says how it is; heartbeats and times do not count. */
function podMeaning(pod: unknown): unknown {
  const statuses = ['initContainerStatuses', 'containerStatuses'].flatMap((list) => items(dig(pod, 'status', list)));
  return [
    ...['phase', 'podIP'].map((field) => dig(pod, 'status', field)),
    ...statuses.map((status) => ['name', 'ready', 'restartCount', 'state'].map((field) => dig(status, field))),
    ...items(dig(pod, 'status', 'conditions')).map((c) => ['type', 'status', 'reason'].map((field) => dig(c, field))),
  ];
}

/** What of a control plane means something besides its generation: a ConfigMap has none. */
const controlPlaneMeaning = (object: unknown): unknown[] => [
  dig(object, 'status', 'status'),
  dig(object, 'status', 'activeRevisionName'),
  items(dig(object, 'status', 'conditions')).map((one) => ['type', 'status', 'reason'].map((field) => dig(one, field))),
  dig(object, 'metadata', 'labels'),
  dig(object, 'data'),
];

/** What of a Deployment's status says how far its rollout is. */
function deploymentMeaning(deployment: unknown): unknown {
  const fields = ['observedGeneration', 'replicas', 'updatedReplicas', 'availableReplicas'];
  return [
    ...fields.map((field) => dig(deployment, 'status', field)),
    ...items(dig(deployment, 'status', 'conditions')).map((c) => ['type', 'status'].map((field) => dig(c, field))),
  ];
}

/** A failed reconcile: its cause is in the status already, or the API server could not be reached. */
function classify(error: unknown): Verdict {
  if (error instanceof KubeError) return { backoff: true, capMs: kubernetesCapMs };
  if (!(error instanceof ProblemError)) return { backoff: true, capMs: bugCapMs };
  const { retryAfterMs } = error.problem;
  return { backoff: true, capMs: vaultCapMs, ...(retryAfterMs === undefined ? {} : { retryAfterMs }) };
}

/** Tells what a person or another controller changed from a mere status write: the latter asks for nothing. */
class ChangeFilter {
  readonly #seen = new Map<string, { version: string; meaning: string }>();

  /**
   * @param more what else of the object means something
   * @returns `changed`, `repeated` (handed out again by a relist), or `irrelevant`
   */
  judge(key: string, object: unknown, more?: unknown): 'changed' | 'repeated' | 'irrelevant' {
    const version = String(dig(object, 'metadata', 'resourceVersion'));
    const fields = ['uid', 'generation', 'annotations', 'deletionTimestamp'];
    const meaning = JSON.stringify([...fields.map((field) => dig(object, 'metadata', field)), more]);
    const before = this.#seen.get(key);
    if (object === undefined) this.#seen.delete(key);
    else this.#seen.set(key, { version, meaning });
    if (before?.version === version) return 'repeated';
    return before?.meaning === meaning ? 'irrelevant' : 'changed';
  }
}

export class Operator {
  readonly #o: OperatorOptions;
  readonly #queue: WorkQueue;
  readonly sessions: Sessions;
  /** Kinds of control plane that some resource names, with their scope: only these are watched. */
  readonly #watched = new Set<string>();
  #informers: ResourceInformer[] = [];
  /** Not waited for: what they would tell is found at the next look too. */
  #optional: ResourceInformer[] = [];
  #own: ResourceInformer[] = [];

  constructor(options: OperatorOptions) {
    this.#o = options;
    const { clock, random, config, metrics, logger } = options;
    this.#queue = new WorkQueue({
      clock,
      random,
      backoff: { baseMs: config.backoffBaseMs, capMs: bugCapMs },
      hooks: metrics.queueHooks,
    });
    this.sessions = new Sessions({ clock, logger, onLogin: () => metrics.vaultLogin() });
  }

  /** Whether it works: a candidate that waits for the Lease has not started. */
  started(): boolean {
    return this.#informers.length > 0;
  }

  /** Whether the caches were filled once. */
  synced(): boolean {
    return this.started() && this.#informers.every((informer) => informer.hasSynced());
  }

  /** Works until the signal aborts, then finishes what is in flight and revokes its tokens. */
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
        roots: rootsHandedOut,
        namespaces: config.namespaces,
        rootsOfOthers: (namespace) => this.#rootsOfOthers(namespace),
      }),
      leaderElection: config.leaderElect,
      addressAllowed: (address) => addressAllowed(config, address),
      resyncMs: config.resyncMs,
      deletionDeadlineMs: config.deletionDeadlineMs,
      conflicts: new ConflictTracker(config.contestProbeMs),
    });
    this.#startInformers();
    const end = await runWorkers({
      queue: this.#queue,
      concurrency: config.concurrency,
      clock,
      signal,
      reconcile: async (key, workSignal) => {
        const outcome = await reconciler.reconcile(key, workSignal);
        if ('backoff' in outcome) throw new ProblemError(outcome.problem);
        // the informer hands every resource out again at each resync
        return outcome.requeueAfterMs < config.resyncMs ? outcome : {};
      },
      classify,
      onError: (key, error) => {
        metrics.reconcileError();
        if (error instanceof ProblemError || error instanceof KubeError) logger.warn(error.message, { resource: key });
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
          const verdict = filter.judge(key, object);
          if (verdict === 'irrelevant') return;
          this.#queue.add(key);
          // a rival that came, went or changed its mind concerns its neighbours
          if (verdict === 'changed') this.#enqueueNamespace(metadata.namespace);
        },
      });
      this.#own.push(own);
      this.#informers.push(own);
      this.#informers.push(
        this.#watch(
          filter,
          { gvr: deployments, namespace, relistMs, labelSelector: istiodLabel },
          { meaning: deploymentMeaning },
        ),
      );
      this.#optional.push(
        this.#watch(
          filter,
          { gvr: pods, namespace, relistMs, labelSelector: istiodLabel },
          { meaning: podMeaning, delayMs: podsSettleMs },
        ),
      );
    }
  }

  /** Watches a kind of control plane from when the first resource names it: nobody needs rights on the others. */
  #watchControlPlanes(filter: ChangeFilter, kind: unknown, namespace: string | undefined): void {
    const adapter = Object.entries(adapters).find(([name]) => name === kind)?.[1];
    const key = `${String(kind)}/${namespace ?? ''}`;
    if (!adapter || this.#watched.has(key)) return;
    this.#watched.add(key);
    const { gvr, clusterScoped, makesIt, relatives } = adapter;
    const scope = { namespace: clusterScoped ? undefined : namespace, relistMs: this.#o.config.resyncMs };
    // of objects that it makes itself, only these
    const own = makesIt ? { labelSelector: 'app.kubernetes.io/managed-by=istio-vault-ca' } : {};
    this.#optional.push(this.#watch(filter, { gvr, ...scope, ...own }, { meaning: controlPlaneMeaning }));
    if (relatives) this.#optional.push(this.#watch(filter, { gvr: relatives, ...scope }));
  }

  /** Watches what concerns the resources of its namespace; what has no namespace concerns all. */
  #watch(
    filter: ChangeFilter,
    options: Omit<Parameters<StartInformer>[0], 'onKey'>,
    { meaning, delayMs = 0 }: { meaning?: (object: unknown) => unknown; delayMs?: number } = {},
  ): ResourceInformer {
    const informer: ResourceInformer = this.#o.startInformer({
      ...options,
      onKey: (metadata) => {
        const object = informer.get(metadata.namespace, metadata.name);
        const key = `${options.gvr.plural}/${metadata.namespace ?? ''}/${metadata.name}`;
        if (filter.judge(key, object, meaning?.(object)) === 'changed')
          this.#enqueueNamespace(metadata.namespace, delayMs);
      },
    });
    return informer;
  }

  /** Fingerprints of the roots that IstioVaultCAs of other namespaces show. */
  #rootsOfOthers(namespace: string): string[] {
    return this.#own
      .flatMap((informer) => informer.list())
      .filter((object) => object.metadata?.namespace !== namespace)
      .map((object) => dig(object, 'status', 'root', 'fingerprint'))
      .filter((fingerprint) => typeof fingerprint === 'string');
  }

  #enqueueNamespace(namespace: string | undefined, delayMs = 0): void {
    for (const object of this.#own.flatMap((informer) => informer.list())) {
      const at = object.metadata?.namespace;
      if (namespace === undefined || at === namespace)
        this.#queue.addAfter(`${at ?? ''}/${object.metadata?.name ?? ''}`, delayMs);
    }
  }
}
