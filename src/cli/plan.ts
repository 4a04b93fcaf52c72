/**
 * `plan`: prints what would change if a manifest were applied with `mode: Enforce`. It reads the cluster with the permissions of the user, and
 * logs in to Vault as the operator would for the resource. It writes nothing except what the login needs (TokenRequest, Vault token).
 */
import { parsePlanConfig, type PlanConfig } from '../config.ts';
import { asApplied } from '../controller/as-applied.ts';
import { ConflictTracker } from '../controller/conflict-tracker.ts';
import { dryRun, type DryRun } from '../controller/dry-run.ts';
import { clusterUid } from '../controller/observe-kubernetes.ts';
import { Reporter } from '../controller/report.ts';
import { ReconcileLoop } from '../controller/reconcile-loop.ts';
import { askToSign } from '../istiod/certificate-request.ts';
import { IstiodObserver } from '../istiod/observe.ts';
import { probe } from '../istiod/probe.ts';
import { createLogger, type Logger } from '../observability/logger.ts';
import { createMetrics } from '../observability/metrics.ts';
import { desire } from '../plan/facts/desired.ts';
import { systemClock } from '../runtime/clock.ts';
import type { Sessions } from '../vault/sessions.ts';
import { exitCode, planJson, planText } from './print-plan.ts';
import { readTarget, withSessions, type Target } from './target.ts';

/** The probe interval of the `ConflictTracker`. It has no effect here: the command writes nothing, so no write can be reverted. */
const unusedProbeMs = 1;

/** Observes Vault and the cluster, and simulates the steps. */
async function dryRunOnce(
  { kube, resource, policy }: Target,
  logger: Logger,
  sessions: Sessions,
  stop: AbortSignal,
): Promise<DryRun> {
  const clock = systemClock;
  const readOnlyKube = asApplied(kube, resource);
  const loop = new ReconcileLoop(
    {
      kube: readOnlyKube,
      // Sessions are not dropped: one login is enough, and its token is revoked at the end.
      sessions: { open: (request, signal) => sessions.open(request, signal), dropRefusedSession: () => false },
      istiod: new IstiodObserver({
        kube: readOnlyKube,
        clock,
        probe,
        askToSign,
        namespaces: [],
        rootsOfOthers: () => [],
      }),
      metrics: createMetrics({ processMetrics: false }),
      logger,
      clock,
      conflicts: new ConflictTracker(unusedProbeMs),
      // A dry run observes once.
      changesMeanwhile: () => 0,
    },
    new Reporter(readOnlyKube, { record: () => undefined }, logger),
  );
  const { namespace, name, uid, annotations } = resource.metadata;
  const identity = { cluster: await clusterUid(kube), namespace, name, uid };
  const desired = desire(identity, resource.spec, annotations);
  return await dryRun({ loop, policy, now: () => clock.now() }, resource, desired, stop);
}

const suspended: DryRun & { suspended: true } = { steps: [], problems: [], suspended: true };

/** Runs the command. @returns the exit code; see `exitCode` */
export async function plan(argv: readonly string[]): Promise<number> {
  const config: PlanConfig = parsePlanConfig(argv, process.env);
  const target = await readTarget(config);
  // Standard output contains only the plan.
  const logger = createLogger({ level: config.logLevel, destination: process.stderr });
  // The operator ignores a suspended resource.
  const result = target.resource.spec.suspend
    ? suspended
    : await withSessions(config, logger, (sessions, stop) => dryRunOnce(target, logger, sessions, stop));
  process.stdout.write(config.output === 'json' ? planJson(result) : planText(result));
  return exitCode(result);
}
