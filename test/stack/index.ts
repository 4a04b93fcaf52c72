/**
 * The test stack: a real Kubernetes API server, OpenBao and Vault, and on demand istiod and Vault agents, also in pods of
 * a stand-in for a node, without a cluster. `startStack` starts one of each; a Jest run does it once for each worker (`pool.ts`, `sharedStack`).
 */
import { containersAvailable, startContainerStack } from './containers.ts';
import { startKube } from './kube.ts';
import { makeTemporaryDir, removeTemporaryDir } from './processes.ts';
import { ensureServers, type EnsureOptions } from './servers.ts';
import type { OwnedStack } from './shared.ts';
import type { StackMode } from './types.ts';
import { startVault } from './vault.ts';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';

export type { Agent, AgentOptions } from './agent.ts';
export { renderWithAgent } from './agent.ts';
export type { Availability, AvailabilityOptions } from './containers.ts';
export { containersAvailable } from './containers.ts';
export type { Istiod, IstiodOptions } from './istiod.ts';
export type { CertificateRequest, IstiodAt } from './istiod-client.ts';
export { createCertificate, peerCertificates } from './istiod-client.ts';
export { startIstiod } from './istiod.ts';
export type { KubeOptions } from './kube.ts';
export { createNamespace, requestToken, startKube } from './kube.ts';
export type { NodeOptions, StandInNode } from './node/index.ts';
export { startNode } from './node/index.ts';
export type { RunningPod } from './node/pod.ts';
export { makeTemporaryDir, removeTemporaryDir, stopAll } from './processes.ts';
export type { SharedStack } from './shared.ts';
export { sharedStack } from './shared.ts';
export type { Answer, KubeServer, Product, RunningServer, Stack, StackMode, VaultServer } from './types.ts';
export { products } from './types.ts';
export type { StartedVault, VaultOptions } from './vault.ts';
export { enableKubernetesAuth, startVault } from './vault.ts';
export { ensureServers } from './servers.ts';
export { waitFor } from './wait.ts';

export interface StackOptions extends EnsureOptions {
  /** Default: the value of TEST_STACK; if it is unset, containers if a Docker daemon has or gets the images. */
  readonly mode?: StackMode;
  /** For very many requests, as processes only: no audit logs, and memory rather than garbage collection. */
  readonly lean?: boolean;
}

/** The parts of a stack of processes. */
export const stackServers = ['etcd', 'kube-apiserver', 'openbao', 'vault'] as const;

/**
 * Where the servers of a stack run: see `StackOptions.mode`.
 * @throws if containers are requested explicitly and are not available
 */
export async function chooseMode(options: StackOptions = {}): Promise<StackMode> {
  const say = options.onProgress ?? ((line: string): void => console.error(line));
  const wanted = options.mode ?? process.env['TEST_STACK'];
  if (wanted === 'processes') return wanted;
  if (wanted !== undefined && wanted !== 'containers')
    throw new Error(`TEST_STACK is processes or containers, not ${wanted}`);
  const { available, reason } = await containersAvailable({ prepare: wanted !== undefined, onProgress: say });
  if (wanted !== undefined && !available) throw new Error(`the test stack cannot run in containers: ${reason}`);
  say(available ? `test stack: containers (${reason})` : `test stack: processes (${reason})`);
  return available ? 'containers' : 'processes';
}

/**
 * Starts an API server and one server of each product, in parallel.
 * @throws if one of them does not start, or containers are requested explicitly and are not available
 */
export async function startStack(options: StackOptions = {}): Promise<OwnedStack> {
  const mode = await chooseMode(options);
  return mode === 'containers' ? startContainerStack() : startProcessStack(options);
}

async function startProcessStack(options: StackOptions): Promise<OwnedStack> {
  await ensureServers(stackServers, options);
  const dir = makeTemporaryDir('stack');
  const { lean = false } = options;
  const sub = (name: string): string => {
    const path = join(dir, name);
    mkdirSync(path, { mode: 0o700 });
    return path;
  };
  const started = await Promise.allSettled([
    startKube({ dir: sub('kube'), lean }),
    startVault('OpenBao', { dir: sub('openbao'), lean }),
    startVault('Vault', { dir: sub('vault'), lean }),
  ]);
  const stop = async (): Promise<void> => {
    await Promise.all(started.map(async (one) => (one.status === 'fulfilled' ? one.value.stop() : undefined)));
    removeTemporaryDir(dir);
  };
  const [kube, bao, vault] = started;
  if (kube.status === 'rejected' || bao.status === 'rejected' || vault.status === 'rejected') {
    await stop();
    throw started.find((one) => one.status === 'rejected')?.reason;
  }
  return {
    mode: 'processes',
    kube: kube.value,
    vaults: { OpenBao: bao.value, Vault: vault.value },
    dir,
    stop,
    kubeFacts: kube.value.facts,
    vaultFacts: { OpenBao: bao.value.facts, Vault: vault.value.facts },
  };
}
