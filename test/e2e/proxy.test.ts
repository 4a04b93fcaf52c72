/** An operator that reaches Vault and the API server only through a forward proxy, which alone knows their names. */
import { readFile, writeFile } from 'node:fs/promises';
import { afterAll, beforeAll, expect, it } from '@jest/globals';
import { sharedStack, waitFor } from '../stack/index.ts';
import {
  applyOk,
  conditionOf,
  getResource,
  installOperator,
  registerInjector,
  requestReconcile,
  waitForCondition,
  type Json,
} from '../support/cluster.ts';
import { eventsOf } from '../support/events.ts';
import { startForwardProxy, type ForwardProxy } from '../support/forward-proxy.ts';
import { startOperator, type RunningOperator } from '../support/operator.ts';
import { makeScene, prepareVault } from '../support/scene.ts';

const { kube, vaults } = sharedStack();
const vault = vaults.OpenBao;
const namespace = 'behind-proxy';
const names = { vault: 'vault.example.invalid', kube: 'kubernetes.example.invalid' };
const portOf = (url: string): number => Number(new URL(url).port);

let proxy: ForwardProxy;
let operator: RunningOperator;

/** A kubeconfig for the name that only the proxy knows. The certificate of the server has another one. */
async function behindProxy(path: string): Promise<string> {
  const config = JSON.parse(await readFile(path, 'utf8')) as { clusters: [{ cluster: Json }] };
  Object.assign(config.clusters[0].cluster, { server: `https://${names.kube}`, 'tls-server-name': 'localhost' });
  await writeFile(`${path}.proxy`, JSON.stringify(config), { mode: 0o600 });
  return `${path}.proxy`;
}

beforeAll(async () => {
  proxy = await startForwardProxy({ [names.vault]: portOf(vault.address), [names.kube]: portOf(kube.url) });
  const kubeconfig = await installOperator(kube);
  await registerInjector(kube);
  await prepareVault(kube, vault);
  operator = await startOperator(await behindProxy(kubeconfig), [`--vault-addresses=https://${names.vault}:*`], {
    env: { HTTPS_PROXY: proxy.url, NO_PROXY: '10.0.0.0/8, .svc' },
  });
});
afterAll(async () => {
  await operator.stop();
  await proxy.stop();
});

it('provisions, and watches', async () => {
  const tls = { serverName: 'localhost' };
  const scene = await makeScene(kube, vault, {
    namespace,
    spec: { vault: { address: `https://${names.vault}:8200`, tls } },
  });
  await applyOk(kube, scene.resource);
  await waitForCondition(kube, namespace, 'istioca', { type: 'Provisioned', status: 'True' });
  expect(proxy.opened(names.kube)).toBeGreaterThan(0);
  for (const text of ['one', 'two', 'three']) await requestReconcile(kube, namespace, 'istioca', text);
  const lines = (await operator.metrics()).matchAll(/^istio_vault_ca_vault_requests_total\{[^}]*\} (\d+)/gm);
  const requests = [...lines].reduce((sum, [, count]) => sum + Number(count), 0);
  expect(requests).toBeGreaterThan(100);
  const opened = proxy.opened(names.vault);
  expect(opened).toBeGreaterThan(0);
  // connections stay open, so that the proxy is not asked for each request
  expect(opened).toBeLessThan(requests / 3);
});

it('names the proxy that refuses, without its password, and goes on afterwards', async () => {
  proxy.refuse(names.vault);
  const shown = conditionOf(await requestReconcile(kube, namespace, 'istioca', 'refused'), 'VaultReady');
  expect(shown).toMatchObject({ status: 'False', reason: 'Unreachable' });
  expect(shown?.message).toContain(`(through the proxy ${proxy.host} of HTTPS_PROXY;`);
  proxy.refuse(undefined);
  await waitFor(
    'Vault to be reached again',
    async () => conditionOf(await getResource(kube, namespace, 'istioca'), 'VaultReady')?.status === 'True',
    { timeoutMs: 60_000 },
  );
  for (const said of [operator.log(), JSON.stringify(await eventsOf(kube, namespace)), await operator.metrics()])
    expect(said).not.toContain(proxy.password);
});
