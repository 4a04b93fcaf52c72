/**
 * `plan`: what would change if a manifest were applied with `mode: Enforce`. Looks with the rights of whoever runs it, logs in to Vault as
 * the resource would, and writes nothing but what that takes.
 */
import { immutableChanges } from '../api/broken-rules.ts';
import { dig, type JsonObject } from '../api/json.ts';
import { specSchema, type IstioVaultCA } from '../api/schema.ts';
import { addressAllowed, parsePlanConfig, type PlanConfig } from '../config.ts';
import { applied, asApplied } from '../controller/as-applied.ts';
import { ConflictTracker } from '../controller/conflict-tracker.ts';
import { dryRun, type DryRun } from '../controller/dry-run.ts';
import { clusterUid, resources } from '../controller/observe-kubernetes.ts';
import { Reporter } from '../controller/report.ts';
import { ReconcileLoop } from '../controller/reconcile-loop.ts';
import { rootsHandedOut } from '../istiod/handed-out-roots.ts';
import { IstiodObserver } from '../istiod/observe.ts';
import { probe } from '../istiod/probe.ts';
import { createKubeClient, type KubeClient } from '../kube/client.ts';
import { loadKubeConfig } from '../kube/pooled-kube-config.ts';
import { createLogger, type Logger } from '../observability/logger.ts';
import { createMetrics } from '../observability/metrics.ts';
import { desire } from '../plan/facts/desired.ts';
import { systemClock } from '../runtime/clock.ts';
import { Sessions } from '../vault/sessions.ts';
import { ManifestError, readManifest, type Manifest } from './manifest.ts';
import { exitCode, planJson, planText } from './print-plan.ts';

/** Nothing is tried twice here, so nothing is left alone after a while either. */
const noContestMs = 1;

/** What the API server would refuse of the change. @throws ManifestError */
function refuseChange({ spec }: Manifest, existing: JsonObject | undefined, file: string): void {
  if (dig(existing, 'metadata', 'deletionTimestamp') !== undefined)
    throw new ManifestError(`${file}: the resource of this name is being deleted; wait until it is gone`);
  const before = specSchema.safeParse(dig(existing, 'spec'));
  const [change] = before.success ? immutableChanges(before.data, spec) : [];
  if (change) throw new ManifestError(`${file}: ${change.message}`);
}

/** A person has written the address; what is not encrypted is still asked for by a flag. */
function refuseHttp({ spec }: Manifest, { allowHttp, filename }: PlanConfig): void {
  const { address } = spec.vault;
  if (!address.startsWith('http:') || allowHttp) return;
  throw new ManifestError(
    `${filename}: spec.vault.address ${address}: not encrypted; write https://, or add --allow-http`,
  );
}

/** Looks, and logs out again. */
async function look(kube: KubeClient, resource: IstioVaultCA, config: PlanConfig, logger: Logger): Promise<DryRun> {
  const clock = systemClock;
  const sessions = new Sessions({ clock, logger, onLogin: () => undefined });
  const stop = new AbortController();
  const onSignal = () => {
    stop.abort();
    void sessions.close().finally(() => process.exit(1));
  };
  process.once('SIGINT', onSignal).once('SIGTERM', onSignal);
  const seen = asApplied(kube, resource);
  const rounds = new ReconcileLoop(
    {
      kube: seen,
      // a session that is dropped would be revoked behind our back; one login is enough, and close() revokes it
      sessions: { open: (request) => sessions.open(request), dropRefusedSession: () => false },
      istiod: new IstiodObserver({
        kube: seen,
        clock,
        probe,
        roots: rootsHandedOut,
        namespaces: [],
        rootsOfOthers: () => [],
      }),
      metrics: createMetrics({ processMetrics: false }),
      logger,
      clock,
      conflicts: new ConflictTracker(noContestMs),
    },
    new Reporter(seen, { record: () => undefined }, logger),
  );
  const { namespace, name, uid, annotations } = resource.metadata;
  try {
    const identity = { cluster: await clusterUid(kube), namespace, name, uid };
    const desired = desire(identity, resource.spec, annotations);
    const judge = { addressAllowed: (address: string) => addressAllowed(config, address), leaderElection: true };
    return await dryRun({ rounds, judge, now: () => clock.now() }, resource, desired, stop.signal);
  } finally {
    await sessions.close();
  }
}

/** @returns the exit code */
export async function plan(argv: readonly string[]): Promise<number> {
  const config = parsePlanConfig(argv, process.env);
  const manifest = await readManifest(config);
  refuseHttp(manifest, config);
  // standard output is for the plan alone
  const logger = createLogger({ level: config.logLevel, destination: process.stderr });
  const credentials = loadKubeConfig({ path: config.kubeconfig, env: process.env });
  const kube = createKubeClient(credentials.kubeConfig);
  const namespace = manifest.namespace ?? credentials.namespace ?? 'default';
  const existing = await kube.getObject(resources, namespace, manifest.name);
  refuseChange(manifest, existing, config.filename);
  const spec = { ...manifest.spec, mode: 'Enforce' as const };
  const resource = applied({ ...manifest, namespace, spec }, existing, systemClock.now());
  // what is suspended is left alone, whatever else it says
  const result = spec.suspend
    ? { steps: [], problems: [], suspended: true }
    : await look(kube, resource, config, logger);
  process.stdout.write(config.output === 'json' ? planJson(result) : planText(result));
  return exitCode(result);
}
