/** The servers of the demo: an API server and one Vault or OpenBao, as processes or in containers. */
import {
  containersAvailable,
  ensureServers,
  startKube,
  startStack,
  startVault,
  type Product,
  type StackMode,
} from '../stack/index.ts';
import { chooseVersion } from '../stack/builds/versions.ts';
import { serverVersion } from '../stack/servers.ts';
import { productTraits } from '../stack/vault.ts';
import type { Cleanup } from '../support/cleanup.ts';
import type { Kube } from '../support/cluster.ts';
import type { Vault } from '../support/scene.ts';
import type { DemoOptions } from './options.ts';
import { step, title } from './terminal.ts';

export interface Servers {
  readonly kube: Kube;
  readonly vault: Vault;
}

/** The value of TEST_STACK; if it is unset, containers if a Docker daemon has or gets the images. */
async function chooseMode(): Promise<StackMode> {
  const wanted = process.env['TEST_STACK'];
  if (wanted === 'processes' || wanted === 'containers') return wanted;
  if (wanted !== undefined) throw new Error(`TEST_STACK is processes or containers, not ${wanted}`);
  const { available, reason } = await containersAvailable({ prepare: false, onProgress: step });
  step(`running the servers ${available ? 'in containers' : 'as processes'}: ${reason}`);
  return available ? 'containers' : 'processes';
}

/** As processes, only the required product is started, so that the user does not wait for a build of the other one. */
async function startProcesses(product: Product, cleanup: Cleanup): Promise<Servers> {
  const { server } = productTraits[product];
  await ensureServers(['etcd', 'kube-apiserver', server], { onProgress: step });
  step(
    `waiting for etcd ${serverVersion('etcd')}, kube-apiserver ${serverVersion('kube-apiserver')} and ${product} ${serverVersion(server)} to be ready`,
  );
  const [kube, vault] = await Promise.all([startKube(), startVault(product)]);
  return { kube: cleanup.add(kube), vault: cleanup.add(vault) };
}

async function startContainers(product: Product, cleanup: Cleanup): Promise<Servers> {
  step('waiting for containers of etcd, kube-apiserver, OpenBao and Vault to be ready');
  const stack = await cleanup.addStarting(startStack({ mode: 'containers', onProgress: step }));
  return { kube: stack.kube, vault: stack.vaults[product] };
}

/** Gets and starts the servers that the options request. istiod is only built here. */
export async function startServers(options: DemoOptions, cleanup: Cleanup): Promise<Servers> {
  title('Servers');
  if (options.version !== undefined) chooseVersion(productTraits[options.product].server, options.version);
  const mode = await chooseMode();
  if (options.istiod) await ensureServers(['istiod'], { onProgress: step });
  const start = mode === 'containers' ? startContainers : startProcesses;
  const servers = await start(options.product, cleanup);
  const version = (await servers.kube.request('GET', '/version')).body as { gitVersion: string };
  step(`Kubernetes API server ${version.gitVersion} at ${servers.kube.url}`);
  step(`${options.product} ${servers.vault.version} at ${servers.vault.address}`);
  return servers;
}
