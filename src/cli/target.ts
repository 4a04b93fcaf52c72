/** What the commands `plan`, `backup` and `restore` work on: the resource of a manifest as if it were applied, and its Vault. */
import { immutableChanges } from '../api/broken-rules.ts';
import { dig, type JsonObject } from '../api/json.ts';
import { specSchema, type IstioVaultCA } from '../api/schema.ts';
import { addressAllowed, injectorAddressAllowed, type TargetConfig } from '../config.ts';
import { applied } from '../controller/as-applied.ts';
import { resources } from '../controller/observe-kubernetes.ts';
import type { SpecPolicy } from '../controller/outcome.ts';
import { createKubeClient, type KubeClient } from '../kube/client.ts';
import { loadKubeConfig } from '../kube/pooled-kube-config.ts';
import type { Logger } from '../observability/logger.ts';
import { systemClock } from '../runtime/clock.ts';
import { Sessions } from '../vault/sessions.ts';
import { ManifestError, readManifest, type Manifest } from './manifest.ts';

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
function refuseHttp({ spec }: Manifest, { allowHttp, filename }: TargetConfig): void {
  const { address } = spec.vault;
  if (!address.startsWith('http:') || allowHttp) return;
  throw new ManifestError(
    `${filename}: spec.vault.address ${address}: not encrypted; write https://, or add --allow-http`,
  );
}

/** The resource of a manifest, as the API server would store it with `mode: Enforce`, and the cluster. */
export interface Target {
  kube: KubeClient;
  resource: IstioVaultCA;
  /** The addresses that the flags permit. */
  policy: SpecPolicy;
}

/** Reads the manifest, and the resource of its name if that exists. @throws ManifestError, ConfigError, KubeError */
export async function readTarget(config: TargetConfig): Promise<Target> {
  const manifest = await readManifest(config);
  refuseHttp(manifest, config);
  const credentials = loadKubeConfig({ path: config.kubeconfig, env: process.env, proxyFor: config.proxyFor });
  const kube = createKubeClient(credentials.kubeConfig);
  const namespace = manifest.namespace ?? credentials.namespace ?? 'default';
  const existing = await kube.getObject(resources, namespace, manifest.name);
  refuseChange(manifest, existing, config.filename);
  const spec = { ...manifest.spec, mode: 'Enforce' as const };
  return {
    kube,
    resource: applied({ ...manifest, namespace, spec }, existing, systemClock.now()),
    policy: {
      addressAllowed: (address) => addressAllowed(config, address),
      injectorAddressAllowed: (address) => injectorAddressAllowed(config, address),
      leaderElection: true,
    },
  };
}

/**
 * Runs something that logs in to Vault, and revokes the token at its end. A signal revokes it too, and ends the process.
 * @param run gets a signal that aborts when the process is to end
 */
export async function withSessions<T>(
  { proxyFor }: Pick<TargetConfig, 'proxyFor'>,
  logger: Logger,
  run: (sessions: Sessions, stop: AbortSignal) => Promise<T>,
): Promise<T> {
  const sessions = new Sessions({
    ...{ clock: systemClock, logger, onLogin: () => undefined, retirementMs: 0, proxyFor },
    // a wrapping token is the operator's to unwrap
    unwraps: false,
  });
  const stop = new AbortController();
  const onSignal = () => {
    stop.abort();
    void sessions.close().finally(() => process.exit(1));
  };
  process.once('SIGINT', onSignal).once('SIGTERM', onSignal);
  try {
    return await run(sessions, stop.signal);
  } finally {
    await sessions.close();
  }
}
