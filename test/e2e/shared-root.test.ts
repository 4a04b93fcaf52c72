/**
 * One root for two clusters, each with an API server of its own: the member reads the roots of the owner as Vault shows them to everybody. Whole
 * rotations, with istiod: test/mesh/long/shared-root.test.ts.
 */
import { afterAll, beforeAll, expect, it } from '@jest/globals';
import { products, sharedStack, startKube, startVault, waitFor, type KubeServer, type StartedVault } from '../stack/index.ts'; // prettier-ignore
import { call } from '../stack/http.ts';
import { vaultWrites } from '../support/audit.ts';
import { blocks, defects } from '../support/certificates.ts';
import { applyOk, conditionOf, getResource, installOperator, registerInjector, requestReconcile, resourcePath, waitForCondition, type Json } from '../support/cluster.ts'; // prettier-ignore
import { useOperator } from '../support/harness.ts';
import { entry } from '../support/look.ts';
import { startOperator, type RunningOperator } from '../support/operator.ts';
import { makeScene, merge, prepareVault, type Scene } from '../support/scene.ts';
import { joinVault } from '../support/second-cluster.ts';

const { kube } = sharedStack();
useOperator();
let second: KubeServer;
let secondOperator: RunningOperator;
const started: StartedVault[] = [];

beforeAll(async () => {
  second = await startKube({ lean: true });
  const kubeconfig = await installOperator(second);
  await registerInjector(second);
  secondOperator = await startOperator(kubeconfig);
});
afterAll(async () => {
  await secondOperator.stop();
  await Promise.all([second, ...started].map((one) => one.stop()));
});

const filesOf = async (scene: Scene) => {
  const { 'ca-cert.pem': cert = '', 'ca-key.pem': key = '', 'cert-chain.pem': chain = '', 'root-cert.pem': root = '' } = (await entry(scene)) ?? {}; // prettier-ignore
  return { cert, key, chain, root };
};
const annotate = (namespace: string, annotations: Json) =>
  kube.request('PATCH', resourcePath(namespace, 'istioca'), { metadata: { annotations } });

it.each(products)('the member hands out every root of the owner, and only what it has, %s', async (product) => {
  const vault = await startVault(product);
  started.push(vault);
  await prepareVault(kube, vault);
  const login = await joinVault(second, vault);
  const namespace = `shared-${product}`.toLowerCase();
  const mount = `${namespace}-pki`;
  const owner = await makeScene(kube, vault, { namespace, spec: { root: { shared: true } } });
  await applyOk(kube, owner.resource);
  await waitForCondition(kube, namespace, 'istioca', { type: 'Provisioned', status: 'True' });
  const spec = merge(login, { root: { source: 'Existing', mount } });
  const member = await makeScene(second, vault, { namespace: `${namespace}-member`, spec });
  const earlier = (await vaultWrites(vault)).length;
  await applyOk(second, member.resource);
  const provisioned = await waitForCondition(second, member.namespace, 'istioca', { type: 'Provisioned', status: 'True' }); // prettier-ignore
  expect(provisioned.status?.rotation).toBeUndefined();

  // what the member goes by is public
  const list = await call(`${vault.address}/v1/${mount}/issuers`, { method: 'LIST', ca: vault.caPem });
  const { data } = list.body as { data: { key_info: Record<string, { issuer_name: string }> } };
  expect(Object.values(data.key_info).map(({ issuer_name: name }) => name)).toEqual([expect.stringMatching(/^ivca-[0-9a-f]{8}-r1$/)]); // prettier-ignore

  await annotate(namespace, { 'istiovaultca.io/rotate-root': 'please' });
  const issuers = async () => ((await vault.request('LIST', `${mount}/issuers`)).body as { data: { keys: string[] } }).data.keys; // prettier-ignore
  await waitFor('the next root', async () => (await issuers()).length === 2);
  const { status } = await requestReconcile(second, member.namespace, 'istioca', 'the next root');
  const both = await filesOf(member);
  const next = blocks(both.root)[1]?.fingerprint256.replaceAll(':', '').toLowerCase() ?? 'none';
  expect(blocks(both.root)).toHaveLength(2);
  expect(status?.rotation).toMatchObject({ phase: 'Distributing', waitingFor: expect.stringContaining(next) });
  const before = await filesOf(owner);
  // a workload of either verifies one of the other
  expect([defects({ ...both, root: before.root }), defects({ ...before, root: both.root }), defects(both)]).toEqual([[], [], []]); // prettier-ignore
  const written = (await vaultWrites(vault)).slice(earlier).filter((line) => line.includes(` ${mount}/`));
  expect(written.map((line) => line.replace(/[0-9a-f-]{36}/, '<id>'))).toEqual([`update ${mount}/issuer/<id>/sign-intermediate`, `update ${mount}/root/generate/internal`]); // prettier-ignore

  // called off before anything is signed, the owner keeps the root, and a person removes it
  await annotate(namespace, { 'istiovaultca.io/rollback-rotation': 'no' });
  await waitFor('the end of the rotation', async () => (await getResource(kube, namespace, 'istioca')).status?.rotation === undefined); // prettier-ignore
  await vault.request('DELETE', `${mount}/issuer/${(await issuers()).find((id) => !(id in data.key_info)) ?? ''}`);
  const alone = await requestReconcile(second, member.namespace, 'istioca', 'removed');
  expect((await filesOf(member)).root).toBe(before.root);
  expect(alone.status?.rotation).toBeUndefined();

  // a mount that is away takes nothing from the mesh
  await vault.request('POST', 'sys/remount', { from: mount, to: `${mount}-away` });
  await waitFor('the mount to be away', async () => (await vault.request('GET', `sys/mounts/${mount}`)).status !== 200);
  const away = await requestReconcile(second, member.namespace, 'istioca', 'away');
  expect(conditionOf(away, 'RootReady')).toMatchObject({ reason: 'IssuerNotFound' });
  expect((await filesOf(member)).root).toBe(before.root);
});

it('root.shared at a member is refused, with the place where it belongs', async () => {
  const spec = { root: { source: 'Existing', shared: true } };
  const scene = await makeScene(kube, sharedStack().vaults.OpenBao, { namespace: 'shared-refused', spec });
  await applyOk(kube, scene.resource);
  const refused = await waitForCondition(kube, 'shared-refused', 'istioca', { type: 'RootReady', reason: 'InvalidSpec' }); // prettier-ignore
  expect(conditionOf(refused, 'RootReady')?.message).toContain('spec.root.source: Generate');
});
