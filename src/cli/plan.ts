/**
 * `plan`: prints what would change if a manifest were applied with `mode: Enforce`. It reads the cluster with the permissions of the user, and
 * logs in to Vault as the operator would for the resource. It writes nothing except what the login needs (TokenRequest, Vault token).
 */
import { immutableChanges } from '../api/broken-rules.ts';
import { dig, type JsonObject } from '../api/json.ts';
import { specSchema, type IstioVaultCA } from '../api/schema.ts';
import { addressAllowed, injectorAddressAllowed, parsePlanConfig, type PlanConfig } from '../config.ts';
import { applied, asApplied } from '../controller/as-applied.ts';
import { ConflictTracker } from '../controller/conflict-tracker.ts';
import { dryRun, type DryRun } from '../controller/dry-run.ts';
import { clusterUid, resources } from '../controller/observe-kubernetes.ts';
import { Reporter } from '../controller/report.ts';
import { ReconcileLoop } from '../controller/reconcile-loop.ts';
import { askToSign } from '../istiod/certificate-request.ts';
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

/** The probe interval of the `ConflictTracker`. It has no effect here: the command writes nothing, so no write can be reverted. */
const unusedProbeMs = 1;

/** Rejects a change that the API server would reject, and a resource that is being deleted. @throws ManifestError */
function refuseChange({ spec }: Manifest, existing: JsonObject | undefined, file: string): void {
  if (dig(existing, 'metadata', 'deletionTimestamp') !== undefined)
    throw new ManifestError(`${file}: the resource of this name is being deleted; wait until it is gone`);
  const before = specSchema.safeParse(dig(existing, 'spec'));
  const [change] = before.success ? immutableChanges(before.data, spec) : [];
  if (change) throw new ManifestError(`${file}: ${change.message}`);
}

/**
 * Rejects an unencrypted Vault address without `--allow-http`. The user wrote the address, so the allow-list is not required.
 * @throws ManifestError
 */
function refuseHttp({ spec }: Manifest, { allowHttp, filename }: PlanConfig): void {
  const { address } = spec.vault;
  if (!address.startsWith('http:') || allowHttp) return;
  throw new ManifestError(
    `${filename}: spec.vault.address ${address}: not encrypted; write https://, or add --allow-http`,
  );
}

/** Observes Vault and the cluster, simulates the steps, and revokes the Vault token. A signal revokes it too, and ends the process. */
async function dryRunOnce(
  kube: KubeClient,
  resource: IstioVaultCA,
  config: PlanConfig,
  logger: Logger,
): Promise<DryRun> {
  const clock = systemClock;
  const sessions = new Sessions({
    clock,
    logger,
    onLogin: () => undefined,
    retirementMs: 0,
    proxyFor: config.proxyFor,
    unwraps: false,
  });
  const stop = new AbortController();
  const onSignal = () => {
    stop.abort();
    void sessions.close().finally(() => process.exit(1));
  };
  process.once('SIGINT', onSignal).once('SIGTERM', onSignal);
  const readOnlyKube = asApplied(kube, resource);
  const loop = new ReconcileLoop(
    {
      kube: readOnlyKube,
      // Sessions are not dropped: one login is enough, and close() revokes its token.
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
  try {
    const identity = { cluster: await clusterUid(kube), namespace, name, uid };
    const desired = desire(identity, resource.spec, annotations);
    const policy = {
      addressAllowed: (address: string) => addressAllowed(config, address),
      injectorAddressAllowed: (address: string) => injectorAddressAllowed(config, address),
      leaderElection: true,
    };
    return await dryRun({ loop, policy, now: () => clock.now() }, resource, desired, stop.signal);
  } finally {
    await sessions.close();
  }
}

/** Runs the command. @returns the exit code; see `exitCode` */
export async function plan(argv: readonly string[]): Promise<number> {
  const config = parsePlanConfig(argv, process.env);
  const manifest = await readManifest(config);
  refuseHttp(manifest, config);
  // Standard output contains only the plan.
  const logger = createLogger({ level: config.logLevel, destination: process.stderr });
  const credentials = loadKubeConfig({ path: config.kubeconfig, env: process.env, proxyFor: config.proxyFor });
  const kube = createKubeClient(credentials.kubeConfig);
  const namespace = manifest.namespace ?? credentials.namespace ?? 'default';
  const existing = await kube.getObject(resources, namespace, manifest.name);
  refuseChange(manifest, existing, config.filename);
  const spec = { ...manifest.spec, mode: 'Enforce' as const };
  const resource = applied({ ...manifest, namespace, spec }, existing, systemClock.now());
  // The operator ignores a suspended resource.
  const result = spec.suspend
    ? { steps: [], problems: [], suspended: true }
    : await dryRunOnce(kube, resource, config, logger);
  process.stdout.write(config.output === 'json' ? planJson(result) : planText(result));
  return exitCode(result);
}
