/** No write without a reason: counted in the audit logs of Vault and of the API server. */
import { beforeAll, expect, it } from '@jest/globals';
import { products, sharedStack, waitFor } from '../stack/index.ts';
import { kubeWrites, vaultEntries, vaultWrites, waitForReads } from '../support/audit.ts';
import { applyOk, getResource, requestReconcile, resourcePath, waitForCondition } from '../support/cluster.ts';
import { useOperator } from '../support/harness.ts';
import { tokensOf } from '../support/outage.ts';
import { grantLongTokens, makeScene, type Scene } from '../support/scene.ts';

const { kube, vaults } = sharedStack();
const { operator, restart } = useOperator(['--resync=1s']);
const scenes: Scene[] = [];

beforeAll(async () => {
  for (const product of products) {
    const spec = product === 'Vault' ? { keyStore: { version: 1 }, delivery: { source: 'PKI' } } : {};
    const scene = await makeScene(kube, vaults[product], { namespace: `idle-${product}`.toLowerCase(), spec });
    await grantLongTokens(scene);
    await applyOk(kube, scene.resource);
    scenes.push(scene);
  }
  for (const { namespace } of scenes)
    await waitForCondition(kube, namespace, 'istioca', { type: 'Provisioned', status: 'True' });
  await reconciles(2);
});

/** Waits until every resource was reconciled so many more times. */
async function reconciles(times: number): Promise<void> {
  await Promise.all(scenes.map(({ vault, namespace }) => waitForReads(vault, `sys/mounts/${namespace}-kv`, times)));
}

const writes = async () => ({
  OpenBao: await vaultWrites(vaults.OpenBao),
  Vault: await vaultWrites(vaults.Vault),
  kube: await kubeWrites(kube),
});

it('ten resyncs write nothing, and cost no further login', async () => {
  const logins = async () => /istio_vault_ca_vault_logins_total (\d+)/.exec(await operator().metrics())?.[1];
  const [before, loginsBefore] = [await writes(), await logins()];
  await reconciles(10);
  expect(await writes()).toEqual(before);
  expect(await logins()).toBe(loginsBefore);
  expect(loginsBefore).toBe(String(scenes.length));
});

it('a restart writes nothing, and revokes what was logged in for', async () => {
  const before = await writes();
  const tokens = () => Promise.all(scenes.map(({ vault, namespace }) => tokensOf(vault, namespace)));
  const first = (await tokens()).flat();
  expect(first).toHaveLength(scenes.length);
  await restart();
  await reconciles(2);
  expect(await writes()).toEqual(before);
  const now = await waitFor('one token of the operator in each', async () => {
    const found = await tokens();
    return found.every(({ length }) => length === 1) && found.flat();
  });
  expect(now.filter((accessor) => first.includes(accessor))).toEqual([]);
});

it('a resource that was deleted and made anew takes up its CA where it was', async () => {
  for (const { namespace, resource } of scenes) {
    const before = await getResource(kube, namespace, 'istioca');
    await kube.request('DELETE', resourcePath(namespace, 'istioca'));
    await applyOk(kube, resource);
    const after = await waitForCondition(kube, namespace, 'istioca', { type: 'Provisioned', status: 'True' });
    expect(after.metadata.uid).not.toBe(before.metadata.uid);
    expect(after.status?.root).toEqual(before.status?.root);
    expect(after.status?.intermediate).toEqual(before.status?.intermediate);
    expect(after.status?.history).toEqual(before.status?.history);
  }
});

it('a change takes one reconcile, although the operator hears of its own writes', async () => {
  await restart(['--resync=10m']);
  const namespace = 'idle-once';
  const scene = await makeScene(kube, vaults.OpenBao, { namespace });
  // what is read once in a reconcile, whatever its steps are
  const reads = async () =>
    (await vaultEntries(vaults.OpenBao.auditLog)).filter(
      ({ type, operation, path }) => type === 'request' && operation === 'list' && path === `${namespace}-pki/roles/`,
    ).length;
  await applyOk(kube, scene.resource);
  await waitForCondition(kube, namespace, 'istioca', { type: 'Provisioned', status: 'True' });
  for (const request of ['1', '2', '3']) await requestReconcile(kube, namespace, 'istioca', request);
  expect(await reads()).toBe(4);
});
