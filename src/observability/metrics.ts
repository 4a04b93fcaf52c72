/** Prometheus metrics of the operator. Each call of `createMetrics` has its own registry. */
import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from 'prom-client';

const prefix = 'istio_vault_ca_';
const resource = ['namespace', 'name'] as const;

interface ResourceMetrics {
  /** Sets when the root expires, in seconds since the epoch; undefined removes the series. */
  setRootNotAfter(namespace: string, name: string, seconds: number | undefined): void;
  /** Sets when the intermediate expires, in seconds since the epoch; undefined removes the series. */
  setIntermediateNotAfter(namespace: string, name: string, seconds: number | undefined): void;
  /** Sets when a signature outside of Vault was asked for, in seconds since the epoch; undefined, because none is awaited, removes the series. */
  setSignatureRequested(namespace: string, name: string, seconds: number | undefined): void;
  /** Sets whether a replica of istiod uses its self-signed CA. */
  setSelfSignedFallback(namespace: string, name: string, found: boolean): void;
  /** Sets the number of istiod replicas by phase. Phases of earlier calls that `counts` does not name become 0. */
  setIstiodReplicas(namespace: string, name: string, counts: Readonly<Record<string, number>>): void;
  /**
   * Sets when the first certificate that a replica serves expires, in seconds since the epoch, by Pod. Series of Pods that `byPod` does not
   * name are removed.
   */
  setIstiodNotAfter(namespace: string, name: string, byPod: ReadonlyMap<string, number>): void;
  /** Removes all series of a deleted resource. */
  forgetResource(namespace: string, name: string): void;
}

interface WorkMetrics {
  /** Counts a request to Vault. `operation` and `code` are labels, so they must have few values: no paths, no messages. */
  vaultRequest(operation: string, code: string | number): void;
  vaultLogin(): void;

  /** Counts a reconcile. `result` is a label with few values, such as success, problem, error. */
  reconcileFinished(result: string, durationSeconds: number): void;
  reconcileError(): void;
  setLeader(leading: boolean): void;
  /** Counts an Event that could not be delivered. */
  eventDropped(): void;
  /** Callbacks for the work queue. */
  readonly queueHooks: { onAdd(): void; onRetry(): void; onDepth(depth: number): void };
}

export interface Metrics extends ResourceMetrics, WorkMetrics {
  /** Returns the metrics in the text format of Prometheus, and the content type. */
  expose(): Promise<{ contentType: string; body: string }>;
}

export interface MetricsOptions {
  /** Whether to include metrics of the Node process; default true. */
  processMetrics?: boolean;
}

export function createMetrics(options: MetricsOptions = {}): Metrics {
  const registry = new Registry();
  if (options.processMetrics !== false) collectDefaultMetrics({ register: registry });
  return {
    ...resourceMetrics(registry),
    ...workMetrics(registry),
    expose: async () => ({ contentType: registry.contentType, body: await registry.metrics() }),
  };
}

function resourceMetrics(registry: Registry): ResourceMetrics {
  const gauge = <L extends string>(name: string, help: string, labelNames: readonly L[]): Gauge<L> =>
    new Gauge({ name: prefix + name, help, labelNames, registers: [registry] });
  const root = gauge('root_not_after_seconds', 'When the root CA ends, in seconds since the epoch.', resource);
  const intermediate = gauge(
    'intermediate_not_after_seconds',
    'When the intermediate CA ends, in seconds since the epoch.',
    resource,
  );
  const requested = gauge(
    'signature_requested_timestamp_seconds',
    'When a signature outside of Vault was asked for that is still awaited, in seconds since the epoch.',
    resource,
  );
  const fallback = gauge('self_signed_fallback', '1 while an istiod replica signs with a CA of its own.', resource);
  const replicas = gauge('istiod_replicas', 'Istiod replicas by phase.', [...resource, 'phase']);
  const ends = gauge(
    'istiod_not_after_seconds',
    'When the first certificate of what an istiod replica serves ends, in seconds since the epoch.',
    [...resource, 'pod'],
  );
  const seen = new Map<string, Set<string>>();
  const podsOf = new Map<string, string[]>();

  const set = (
    metric: Gauge<'namespace' | 'name'>,
    namespace: string,
    name: string,
    value: number | undefined,
  ): void => {
    if (value === undefined) metric.remove({ namespace, name });
    else metric.set({ namespace, name }, value);
  };
  return {
    setRootNotAfter: (namespace, name, seconds) => set(root, namespace, name, seconds),
    setIntermediateNotAfter: (namespace, name, seconds) => set(intermediate, namespace, name, seconds),
    setSignatureRequested: (namespace, name, seconds) => set(requested, namespace, name, seconds),
    setSelfSignedFallback: (namespace, name, found) => set(fallback, namespace, name, found ? 1 : 0),
    setIstiodReplicas(namespace, name, counts) {
      const key = `${namespace}/${name}`;
      const phases = seen.get(key) ?? new Set();
      for (const phase of Object.keys(counts)) phases.add(phase);
      seen.set(key, phases);
      for (const phase of phases) replicas.set({ namespace, name, phase }, counts[phase] ?? 0);
    },
    setIstiodNotAfter(namespace, name, byPod) {
      const key = `${namespace}/${name}`;
      for (const pod of podsOf.get(key) ?? []) if (!byPod.has(pod)) ends.remove({ namespace, name, pod });
      for (const [pod, seconds] of byPod) ends.set({ namespace, name, pod }, seconds);
      podsOf.set(key, [...byPod.keys()]);
    },
    forgetResource(namespace, name) {
      for (const metric of [root, intermediate, requested, fallback]) metric.remove({ namespace, name });
      const key = `${namespace}/${name}`;
      for (const phase of seen.get(key) ?? []) replicas.remove({ namespace, name, phase });
      for (const pod of podsOf.get(key) ?? []) ends.remove({ namespace, name, pod });
      seen.delete(key);
      podsOf.delete(key);
    },
  };
}

function workMetrics(registry: Registry): WorkMetrics {
  const registers = [registry];
  const counter = (name: string, help: string): Counter => new Counter({ name: prefix + name, help, registers });
  const requests = new Counter({
    name: `${prefix}vault_requests_total`,
    help: 'Requests to Vault by operation and status code.',
    labelNames: ['operation', 'code'],
    registers,
  });
  const reconciles = new Counter({
    name: `${prefix}reconcile_total`,
    help: 'Reconciles that have ended, by result.',
    labelNames: ['result'],
    registers,
  });
  const duration = new Histogram({
    name: `${prefix}reconcile_duration_seconds`,
    help: 'How long reconciles take.',
    buckets: [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120],
    registers,
  });
  const depth = new Gauge({ name: `${prefix}workqueue_depth`, help: 'Keys ready to be reconciled.', registers });
  const leader = new Gauge({ name: `${prefix}leader`, help: '1 while this process leads.', registers });
  const logins = counter('vault_logins_total', 'Logins to Vault.');
  const errors = counter('reconcile_errors_total', 'Reconciles that ended with an error.');
  const adds = counter('workqueue_adds_total', 'Keys that became ready.');
  const retries = counter('workqueue_retries_total', 'Keys put back with back-off.');
  const dropped = counter('events_dropped_total', 'Kubernetes Events that could not be delivered.');
  return {
    vaultRequest: (operation, code) => requests.inc({ operation, code: String(code) }),
    vaultLogin: () => logins.inc(),
    reconcileFinished(result, durationSeconds) {
      reconciles.inc({ result });
      duration.observe(durationSeconds);
    },
    reconcileError: () => errors.inc(),
    setLeader: (leading) => leader.set(leading ? 1 : 0),
    eventDropped: () => dropped.inc(),
    queueHooks: {
      onAdd: () => adds.inc(),
      onRetry: () => retries.inc(),
      onDepth: (ready) => depth.set(ready),
    },
  };
}
