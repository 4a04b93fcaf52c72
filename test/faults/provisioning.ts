/** Runs of provisioning in which one request to Vault fails, and what each run leaves behind. */
import { products, type Product, type SharedStack } from '../stack/index.ts';
import {
  applyOk,
  installOperator,
  registerInjector,
  requestReconcile,
  resourcePath,
  waitForCondition,
  type Json,
} from '../support/cluster.ts';
import { leaks } from '../support/canary.ts';
import { startOperator, type RunningOperator } from '../support/operator.ts';
import { makeScene, prepareVault } from '../support/scene.ts';
import { essence } from './essence.ts';
import { startFaultProxy, type Counted, type Fault, type FaultProxy } from './proxy.ts';

export interface Configuration {
  product: Product;
  source: 'Bundle' | 'PKI';
  version: 1 | 2;
}

export interface Run {
  /** What was left at the end. */
  end: Json;
  /** The requests that were counted, in their order. */
  requests: Counted[];
  injected: boolean;
  /** Logins that the run cost, of all operators it took. */
  logins: number;
}

const flags = ['--vault-addresses=http://127.0.0.1:*', '--allow-http', '--backoff-base=50ms'];
const lease = '/apis/coordination.k8s.io/v1/namespaces/istio-vault-ca/leases/istio-vault-ca';
const loginsIn = (metrics: string) => Number(/istio_vault_ca_vault_logins_total (\d+)/.exec(metrics)?.[1] ?? 0);

export class Provisioning {
  readonly #stack: Pick<SharedStack, 'kube' | 'vaults'>;
  readonly #proxies = new Map<Product, FaultProxy>();
  #kubeconfig = '';
  #operator: RunningOperator | undefined;
  #runs = 0;
  readonly #logs: string[] = [];

  constructor(stack: Pick<SharedStack, 'kube' | 'vaults'>) {
    this.#stack = stack;
  }

  async start(): Promise<void> {
    const { kube, vaults } = this.#stack;
    this.#kubeconfig = await installOperator(kube);
    await registerInjector(kube);
    for (const product of products) {
      await prepareVault(kube, vaults[product]);
      this.#proxies.set(product, await startFaultProxy(vaults[product].address, vaults[product].caPem));
    }
    this.#operator = await startOperator(this.#kubeconfig, flags);
  }

  async stop(): Promise<void> {
    await this.#operator?.stop();
    this.#logs.push(this.#operator?.log() ?? '');
    const found = leaks({ 'the operators’ logs': this.#logs.join('\n') }, []);
    if (found.length > 0) throw new Error(`key or token material is visible in: ${found.join('; ')}`);
    for (const proxy of this.#proxies.values()) await proxy.stop();
  }

  /** SIGKILL, as a node does it to a pod. */
  async #kill(): Promise<void> {
    if (!this.#operator) return;
    process.kill(this.#operator.pid, 'SIGKILL');
    await this.#operator.exited;
    this.#logs.push(this.#operator.log());
  }

  /** Another operator takes over; that the dead one's Lease runs out is not waited for. */
  async #restart(): Promise<void> {
    await this.#stack.kube.request('DELETE', lease);
    this.#operator = await startOperator(this.#kubeconfig, flags);
  }

  /**
   * One run on fresh names.
   * @param counts which requests are counted
   * @param failing the number of the counted request that fails, and how; undefined: none does
   */
  async run(
    { product, source, version }: Configuration,
    counts: (request: Counted) => boolean,
    failing?: { at: number; fault: Fault },
  ): Promise<Run> {
    const { kube, vaults } = this.#stack;
    const proxy = this.#proxies.get(product);
    if (!proxy || !this.#operator) throw new Error('not started');
    this.#runs += 1;
    const spec = {
      vault: { address: proxy.address, injectorAddress: vaults[product].address },
      keyStore: { version },
      delivery: { source },
    };
    const scene = await makeScene(kube, vaults[product], { namespace: `fault-${this.#runs}`, spec });
    const before = loginsIn(await this.#operator.metrics());
    proxy.arm(counts, failing && { ...failing, kill: () => this.#kill() });
    await applyOk(kube, scene.resource);
    const killed = typeof failing?.fault === 'string' && failing.fault.startsWith('killed');
    if (killed) {
      await this.#operator.exited;
      await this.#restart();
    }
    await waitForCondition(kube, scene.namespace, scene.name, { type: 'Provisioned', status: 'True' });
    // the fault may come in a later look at what was provisioned: one more look shows how it ends
    await requestReconcile(kube, scene.namespace, scene.name, 'settle');
    await waitForCondition(kube, scene.namespace, scene.name, { type: 'Provisioned', status: 'True' });
    const end = await essence(scene);
    const logins = loginsIn(await this.#operator.metrics()) - (killed ? 0 : before);
    await kube.request('DELETE', resourcePath(scene.namespace, scene.name));
    return { end, requests: proxy.counted, injected: proxy.injected(), logins };
  }
}
