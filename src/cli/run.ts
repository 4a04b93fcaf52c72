/** `run`: runs the operator, with or without leader election. */
import { hostname } from 'node:os';
import { randomBytes } from 'node:crypto';
import { leaseName, parseRunConfig, type RunConfig } from '../config.ts';
import { Operator } from '../controller/operator.ts';
import { createKubeClient, type KubeClient } from '../kube/client.ts';
import { createEventRecorder } from '../kube/events.ts';
import { createInformerFactory } from '../kube/informers.ts';
import { createLeaseStore } from '../kube/lease.ts';
import { loadKubeConfig } from '../kube/pooled-kube-config.ts';
import { startHealthServers } from '../observability/health.ts';
import { createLogger, type Logger } from '../observability/logger.ts';
import { createMetrics, type Metrics } from '../observability/metrics.ts';
import { systemClock } from '../runtime/clock.ts';
import { runLeaderElection } from '../runtime/leader-election.ts';

interface Process {
  config: RunConfig;
  logger: Logger;
  metrics: Metrics;
  kube: KubeClient;
  identity: string;
}

/** Returns a signal that aborts at SIGTERM or SIGINT. A second SIGTERM or SIGINT ends the process immediately. */
function stopSignal(logger: Logger): AbortSignal {
  const controller = new AbortController();
  for (const name of ['SIGTERM', 'SIGINT'] as const) {
    process.on(name, () => {
      if (controller.signal.aborted) process.exit(1);
      logger.info(`${name}: finishing`);
      controller.abort();
    });
  }
  return controller.signal;
}

/** Runs the operator as the leader, or without leader election. @returns false if the Lease was lost */
async function lead(p: Process, operator: Operator, signal: AbortSignal): Promise<boolean> {
  const work = async (leading: AbortSignal) => {
    p.metrics.setLeader(true);
    await operator.run(leading);
    p.metrics.setLeader(false);
  };
  if (!p.config.leaderElect) {
    await work(signal);
    return true;
  }
  const end = await runLeaderElection({
    lease: createLeaseStore(p.kube, p.config.leaderElectionNamespace, leaseName(p.config.namespaces)),
    identity: p.identity,
    clock: systemClock,
    random: Math.random,
    logger: p.logger,
    leaseDurationMs: p.config.lease.durationMs,
    renewDeadlineMs: p.config.lease.renewDeadlineMs,
    retryPeriodMs: p.config.lease.retryPeriodMs,
    onStartedLeading: work,
    // Another process possibly leads now, so all running work must end.
    onStoppedLeading: () => {
      p.logger.error('leadership lost');
      process.exit(1);
    },
    onNewLeader: (identity) => p.logger.info('leader', { identity }),
    signal,
  });
  return end !== 'lost';
}

/** Runs the command until SIGTERM or SIGINT. @returns the exit code */
export async function run(argv: readonly string[]): Promise<number> {
  const config = parseRunConfig(argv, { env: process.env });
  const logger = createLogger({ level: config.logLevel });
  const metrics = createMetrics();
  const { kubeConfig, source } = loadKubeConfig({
    path: config.kubeconfig,
    env: process.env,
    proxyFor: config.proxyFor,
  });
  const kube = createKubeClient(kubeConfig);
  const identity = `${hostname()}_${randomBytes(4).toString('hex')}`;
  const events = createEventRecorder({
    client: kube,
    clock: systemClock,
    logger,
    reportingInstance: identity,
    onDropped: () => metrics.eventDropped(),
  });
  const startInformer = createInformerFactory({
    kubeConfig,
    client: kube,
    clock: systemClock,
    random: Math.random,
    logger,
  });
  const operator = new Operator({
    config,
    kube,
    startInformer,
    events,
    metrics,
    logger,
    clock: systemClock,
    random: Math.random,
  });
  const signal = stopSignal(logger);
  const health = await startHealthServers({
    metricsAddress: config.metricsAddress,
    healthAddress: config.healthAddress,
    metrics: () => metrics.expose(),
    livez: [],
    readyz: [
      { name: 'caches', check: () => (operator.started() && !operator.synced() ? 'not filled yet' : undefined) },
    ],
  });
  logger.info('started', {
    credentials: source,
    kubernetes: await kube.version(),
    namespaces: config.namespaces,
    metrics: health.metrics,
    health: health.health,
  });
  try {
    return (await lead({ config, logger, metrics, kube, identity }, operator, signal)) ? 0 : 1;
  } finally {
    await health.close();
    logger.info('ended');
  }
}
