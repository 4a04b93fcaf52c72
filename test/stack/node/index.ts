/**
 * A stand-in for a node of a cluster: a real kube-controller-manager creates Pods for Deployments, a stand-in for the webhook of
 * Vault Agent Injector injects the agent, and a stand-in for the kubelet runs the real agent and the real istiod in the Pods.
 * The heads of `kubelet.ts`, `runtime.ts`, `volumes.ts` and `injector.ts` describe what is not real.
 *
 * Works only with server processes: an API server in a container can reach neither the webhook nor the node.
 */
import { randomBytes, randomInt } from 'node:crypto';
import { mkdirSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { makeServingCertificate } from '../certificates.ts';
import { makeTemporaryDir, removeTemporaryDir } from '../processes.ts';
import { ensureServer } from '../servers.ts';
import type { KubeServer, RunningServer, VaultServer } from '../types.ts';
import { startControllerManager } from './controllers.ts';
import { startInjector, type StandInInjector } from './injector.ts';
import { Kubelet } from './kubelet.ts';
import { startKubeletServer, type KubeletServer } from './kubelet-server.ts';
import type { RunningPod } from './pod.ts';

export interface NodeOptions {
  readonly kube: Pick<KubeServer, 'request' | 'url' | 'caPem' | 'adminKubeconfig'>;
  /** The server whose agent runs in the Pods, and whose address is used if their annotations name none. */
  readonly vault: Pick<VaultServer, 'address' | 'agentBinary'>;
  /** Namespaces whose Pods it runs; default: all. */
  readonly namespaces?: readonly string[];
  /** The first back-off of a container that ends repeatedly, milliseconds; default 500 (a kubelet: 10 seconds). */
  readonly backOffMs?: number;
  /** Interval of readiness probes, milliseconds; default 250 (istiod's chart: 3 seconds). */
  readonly probeMs?: number;
}

export interface StandInNode extends RunningServer {
  readonly name: string;
  /** Its InternalIP, on which the HTTPS server of its kubelet listens. */
  readonly address: string;
  readonly injector: StandInInjector;
  /** The Pods of a namespace that run here, terminating ones included. */
  pods(namespace: string): RunningPod[];
  /** @throws if the Pod does not run here */
  pod(namespace: string, name: string): RunningPod;
}

/** A folder with the only program of the agent's image besides those of a shell. */
function agentPath(dir: string, agentBinary: string): string {
  const path = join(dir, 'agent-bin');
  mkdirSync(path);
  symlinkSync(agentBinary, join(path, 'vault'));
  return path;
}

/**
 * Starts a node: from then on, Deployments of the API server get Pods, and the Pods run.
 * @throws if a server is not available or does not become ready
 */
export async function startNode(options: NodeOptions): Promise<StandInNode> {
  const { kube, vault } = options;
  const { binary: istiod } = await ensureServer('istiod');
  await ensureServer('kube-controller-manager');
  const dir = makeTemporaryDir('node');
  const sub = (name: string): string => {
    const path = join(dir, name);
    mkdirSync(path, { mode: 0o700 });
    return path;
  };
  const lines: string[] = [];
  const subnet = `127.${randomInt(2, 255)}.${randomInt(0, 256)}`;
  const address = `${subnet}.1`;
  const name = `node-${randomBytes(3).toString('hex')}`;
  const kubelet = new Kubelet({
    kube,
    runtime: { kube, istiod, agentPath: agentPath(dir, vault.agentBinary) },
    nodeName: name,
    subnet,
    dir: sub('pods'),
    namespaces: options.namespaces,
    backOffMs: options.backOffMs ?? 500,
    probeMs: options.probeMs ?? 250,
    // a repeated error is reported once
    say: (line) => lines.includes(line) || lines.push(line),
  });
  const podOf = (namespace: string, pod: string) =>
    kubelet.pods.find((one) => one.namespace === namespace && one.name === pod);

  const started = await Promise.allSettled([
    startControllerManager(kube, sub('controllers')),
    startInjector(kube, vault.address, sub('injector')),
    makeServingCertificate(sub('kubelet'), [address]).then(async (serving) => {
      const server = await startKubeletServer(address, serving, podOf);
      await kubelet.start(server.port);
      return server;
    }),
  ] as const);
  const [controllers, injector, server] = started;
  const valueOf = <T>(one: PromiseSettledResult<T>): T | undefined =>
    one.status === 'fulfilled' ? one.value : undefined;
  let log: string | undefined;
  const logNow = (): string => log ?? [valueOf(controllers)?.log() ?? '', ...lines].join('\n');
  let stopping: Promise<void> | undefined;
  const stopAll = async (): Promise<void> => {
    // first the controllers, which would create new Pods
    await valueOf(controllers)?.stop();
    const hook: StandInInjector | undefined = valueOf(injector);
    await hook?.unregister();
    await hook?.stop();
    await kubelet.stop();
    const https: KubeletServer | undefined = valueOf(server);
    await https?.stop();
    log = logNow();
    removeTemporaryDir(dir);
  };
  const stop = (): Promise<void> => (stopping ??= stopAll());
  if (controllers.status === 'rejected' || injector.status === 'rejected' || server.status === 'rejected') {
    await stop();
    throw started.find((one) => one.status === 'rejected')?.reason;
  }
  return {
    name,
    address,
    injector: injector.value,
    log: logNow,
    pods: (namespace) => kubelet.pods.filter((pod) => pod.namespace === namespace),
    pod: (namespace, pod) => {
      const found = podOf(namespace, pod);
      if (found === undefined) throw new Error(`pod ${namespace}/${pod} does not run on ${name}`);
      return found;
    },
    stop,
  };
}
