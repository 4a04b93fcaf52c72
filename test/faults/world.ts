/** The common environment of all fault runs: the operator, which can be killed and restarted, its proxies, and the namespaces. */
import { readFile, stat, writeFile } from 'node:fs/promises';
import type { ToMake } from '../../src/plan/vault/capabilities.ts';
import { products, type Product, type SharedStack } from '../stack/index.ts';
import { Board } from '../support/board.ts';
import { leaks } from '../support/canary.ts';
import { installOperator, registerInjector, type Json, type Kube } from '../support/cluster.ts';
import { startOperator, type RunningOperator } from '../support/operator.ts';
import { prepareVault, type Vault } from '../support/scene.ts';
import type { FaultPoint } from './point.ts';
import { startKubernetesProxy, upstreamOf, type Upstream } from './proxy.ts';
import { Stage, type Configuration } from './stage.ts';

// Every resource under test may be held at its fault at the same time: each needs a worker. The Lease lasts long: on a machine that is busy for
// longer than the Lease may wait, the operator would end, and no kubelet starts it again here.
const flags = [
  '--leader-election-lease-duration=10m',
  '--leader-election-renew-deadline=5m',
  '--vault-addresses=http://127.0.0.1:*',
  '--allow-http',
  '--backoff-base=50ms',
  '--concurrency=200',
  '--log-level=info',
];

const lease = '/apis/coordination.k8s.io/v1/namespaces/istio-vault-ca/leases/istio-vault-ca';

/** An operator that has logged so many bytes is replaced between two parts. */
const mostLog = 64 * 1024 * 1024;

export class World {
  readonly kube: Kube;
  readonly vaults: Record<Product, Vault>;
  readonly board: Board;
  /** The number of times the operator was killed. */
  kills = 0;
  readonly #points = new Map<string, FaultPoint>();
  readonly #upstreams: Record<Product, Upstream>;
  #proxy: { stop(): Promise<void> } | undefined;
  #kubeconfig = '';
  #operator: RunningOperator | undefined;
  #stages = 0;
  readonly #found = new Set<string>();

  constructor(stack: Pick<SharedStack, 'kube' | 'vaults'>) {
    this.kube = stack.kube;
    this.vaults = stack.vaults;
    const upstream = ({ address, caPem }: Vault) => upstreamOf(address, caPem);
    this.#upstreams = { OpenBao: upstream(stack.vaults.OpenBao), Vault: upstream(stack.vaults.Vault) };
    this.board = new Board(this.kube);
  }

  async start(): Promise<void> {
    const direct = await installOperator(this.kube);
    await registerInjector(this.kube);
    for (const product of products) await prepareVault(this.kube, this.vaults[product]);
    const proxy = await startKubernetesProxy(upstreamOf(this.kube.url, this.kube.caPem), this.#points);
    this.#proxy = proxy;
    this.#kubeconfig = await through(proxy.address, direct);
    await this.board.start();
    this.#operator = await startOperator(this.#kubeconfig, flags);
  }

  /** @throws if the operators' logs contain key or token material */
  async stop(): Promise<void> {
    this.board.stop();
    await this.#operator?.stop();
    // whatever became of the operator, the next one on this stack must not wait for a Lease this long
    await this.kube.request('DELETE', lease);
    this.#search();
    await this.#proxy?.stop();
    for (const { agent } of Object.values(this.#upstreams)) agent.destroy();
    if (this.#found.size > 0)
      throw new Error(`key or token material is visible in: ${[...this.#found].sort().join('; ')}`);
  }

  /** Between two parts of a long run: searches the operator's log for secrets, and discards it. */
  async tidy(): Promise<void> {
    if (!this.#operator || (await stat(this.#operator.logPath)).size < mostLog) return;
    await this.#operator.stop();
    this.#search();
    this.#operator = await startOperator(this.#kubeconfig, flags);
  }

  #search(): void {
    for (const leak of leaks({ 'the operators’ logs': this.#operator?.log() ?? '' }, [])) this.#found.add(leak);
  }

  /** SIGKILL, as a node does it to a pod; another operator takes over. The Lease of the killed one is deleted rather than waited for. */
  async killOperator(): Promise<void> {
    if (!this.#operator) throw new Error('not started');
    process.kill(this.#operator.pid, 'SIGKILL');
    await this.#operator.exited;
    this.kills += 1;
    for (const point of this.#points.values()) point.thaw();
    this.#search();
    await this.kube.request('DELETE', lease);
    this.#operator = await startOperator(this.#kubeconfig, flags);
  }

  /**
   * Creates a stage with new names.
   * @param place the number of the namespace; one stage at a time uses it
   * @param over merged over the spec
   * @param rights additional permissions of the operator in Vault
   */
  async makeStage(
    place: number,
    configuration: Configuration,
    over: Json = {},
    rights: Partial<ToMake> = {},
  ): Promise<Stage> {
    this.#stages += 1;
    const { kube, board } = this;
    const points = this.#points;
    const vault = this.vaults[configuration.product];
    const upstream = this.#upstreams[configuration.product];
    const ground = { kube, vault, upstream, board, points };
    return await Stage.make(ground, `fault-${place}`, `f${this.#stages}`, configuration, over, rights);
  }
}

/** Writes a kubeconfig with the same token for another address. */
async function through(address: string, kubeconfig: string): Promise<string> {
  const config = JSON.parse(await readFile(kubeconfig, 'utf8')) as { clusters: { name: string }[] };
  // client-node refuses plain HTTP unless this is set
  const cluster = { server: address, 'insecure-skip-tls-verify': true };
  const clusters = config.clusters.map(({ name }) => ({ name, cluster }));
  const path = `${kubeconfig}.proxied`;
  await writeFile(path, JSON.stringify({ ...config, clusters }), { mode: 0o600 });
  return path;
}
