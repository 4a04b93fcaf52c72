/**
 * Provisioning, with every single write to Vault failing once: its answer lost, or the operator killed right after it. What is
 * left at the end must be what an undisturbed run leaves. The servers are real; only the connection between is made to fail.
 */
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { isDeepStrictEqual } from 'node:util';
import { essence } from '../faults/essence.ts';
import { isVaultWrite, startFaultProxy, type Fault, type FaultProxy } from '../faults/proxy.ts';
import { products, sharedStack } from '../stack/index.ts';
import {
  applyOk,
  installOperator,
  registerInjector,
  resourcePath,
  waitForCondition,
  type Json,
} from '../support/cluster.ts';
import { startOperator, type RunningOperator } from '../support/operator.ts';
import { makeScene, prepareVault, type Scene } from '../support/scene.ts';

const { kube, vaults } = sharedStack();
const cases = [
  { product: 'OpenBao', source: 'Bundle', version: 2 },
  { product: 'Vault', source: 'PKI', version: 1 },
] as const;
const flags = ['--vault-addresses=http://127.0.0.1:*', '--allow-http', '--backoff-base=50ms'];

let kubeconfig: string;
let operator: RunningOperator;

beforeAll(async () => {
  kubeconfig = await installOperator(kube);
  await registerInjector(kube);
  for (const product of products) await prepareVault(kube, vaults[product]);
  operator = await startOperator(kubeconfig, flags);
});

afterAll(async () => {
  await operator.stop();
});

/** SIGKILL, as a node does it to a pod. */
async function kill(): Promise<void> {
  process.kill(operator.pid, 'SIGKILL');
  await operator.exited;
}

/** Another operator takes over; that the dead one's Lease runs out is not waited for. */
async function restart(): Promise<void> {
  await kube.request('DELETE', '/apis/coordination.k8s.io/v1/namespaces/istio-vault-ca/leases/istio-vault-ca');
  operator = await startOperator(kubeconfig, flags);
}

describe.each(cases)('$product, $source delivery, KV $version', ({ product, source, version }) => {
  const vault = vaults[product];
  let proxy: FaultProxy;
  let runs = 0;

  beforeAll(async () => {
    proxy = await startFaultProxy(vault.address, vault.caPem);
  });
  afterAll(async () => {
    await proxy.stop();
  });

  const scene = async (): Promise<Scene> => {
    runs += 1;
    const spec = {
      vault: { address: proxy.address, injectorAddress: vault.address },
      keyStore: { version },
      delivery: { source },
    };
    return await makeScene(kube, vault, { namespace: `fault-${product}-${runs}`.toLowerCase(), spec });
  };

  /** One run: provisions with a fault at the write of that number, or with none. */
  async function provision(at?: number, fault?: Fault): Promise<{ end: Json; writes: number; injected: boolean }> {
    const stage = await scene();
    proxy.arm(isVaultWrite, at === undefined || fault === undefined ? undefined : { at, fault, kill });
    await applyOk(kube, stage.resource);
    if (fault === 'killed after') {
      await operator.exited;
      await restart();
    }
    await waitForCondition(kube, stage.namespace, stage.name, { type: 'Provisioned', status: 'True' });
    const end = await essence(stage);
    await kube.request('DELETE', resourcePath(stage.namespace, stage.name));
    return { end, writes: proxy.counted.length, injected: proxy.injected() };
  }

  it.each(['answer lost', 'killed after'] as const)('each write %s: the end is the same', async (fault) => {
    const undisturbed = await provision();
    expect(undisturbed.end).toMatchObject({
      issuers: { root: 1, intermediate: 1 },
      keys: { root: 1, intermediate: 1 },
      liveDefects: [],
      liveIsDefault: true,
    });
    expect(undisturbed.writes).toBeGreaterThanOrEqual(13);
    const different: unknown[] = [];
    for (let at = 1; at <= undisturbed.writes; at += 1) {
      const { end, injected } = await provision(at, fault);
      if (!injected || !isDeepStrictEqual(end, undisturbed.end))
        different.push({ at, request: proxy.counted[at - 1], injected, end });
    }
    expect(different).toEqual([]);
  });
});
