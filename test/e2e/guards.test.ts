/** What the operator does not do until it is safe: replace a mesh's root, or tell istiod to look for files nobody injects. */
import { afterEach, expect, it } from '@jest/globals';
import { sharedStack } from '../stack/index.ts';
import { vaultWrites } from '../support/audit.ts';
import {
  applyOk,
  conditionOf,
  installComponent,
  registerInjector,
  requestReconcile,
  resourcePath,
  unregisterInjector,
  waitForCondition,
  type Json,
} from '../support/cluster.ts';
import { trustForeignRoot } from '../support/foreign-root.ts';
import { useOperator } from '../support/harness.ts';
import { overlaysOf } from '../support/istiod-pod.ts';
import { controlPlane, makeScene } from '../support/scene.ts';

const { kube, vaults } = sharedStack();
useOperator();

afterEach(async () => {
  await registerInjector(kube);
});

const overlays = async (namespace: string) =>
  overlaysOf(
    (await kube.request('GET', `/apis/install.tetrate.io/v1alpha1/namespaces/${namespace}/controlplanes/controlplane`))
      .body as Json,
  );

it('a mesh with another root is left alone until a person confirms', async () => {
  const namespace = 'guard-root';
  const scene = await makeScene(kube, vaults.Vault, { namespace });
  const root = await trustForeignRoot(kube, namespace);
  const before = await vaultWrites(vaults.Vault);
  await applyOk(kube, scene.resource);
  const held = await waitForCondition(kube, namespace, 'istioca', {
    type: 'Ready',
    status: 'False',
    reason: 'WouldReplaceRoot',
  });
  expect(conditionOf(held, 'Stalled')).toMatchObject({ status: 'True', reason: 'WouldReplaceRoot' });
  expect(conditionOf(held, 'Ready')?.message).toContain(`istiovaultca.io/confirm-root-change=${root.fingerprint}`);
  expect(await vaultWrites(vaults.Vault)).toEqual(before);
  expect(await overlays(namespace)).toEqual([]);

  await kube.request('PATCH', resourcePath(namespace, 'istioca'), {
    metadata: { annotations: { 'istiovaultca.io/confirm-root-change': root.fingerprint } },
  });
  await waitForCondition(kube, namespace, 'istioca', { type: 'Provisioned', status: 'True' });
  expect(await overlays(namespace)).toHaveLength(1);
});

it("without the injector's webhook nothing of the control plane is patched; with it, it is", async () => {
  const namespace = 'guard-injector';
  await registerInjector(kube, { matchLabels: { injection: 'wanted' } });
  const scene = await makeScene(kube, vaults.OpenBao, { namespace });
  await applyOk(kube, scene.resource);
  const excluded = await waitForCondition(kube, namespace, 'istioca', {
    type: 'ControlPlanePatched',
    status: 'False',
    reason: 'InjectorNotFound',
  });
  expect(conditionOf(excluded, 'KeyStored')?.status).toBe('True');
  expect(conditionOf(excluded, 'ControlPlanePatched')?.message).toContain('does not select namespace guard-injector');
  expect(await overlays(namespace)).toEqual([]);

  await unregisterInjector(kube);
  const without = await requestReconcile(kube, namespace, 'istioca', '1');
  expect(conditionOf(without, 'ControlPlanePatched')).toMatchObject({ status: 'False', reason: 'InjectorNotFound' });
  expect(await overlays(namespace)).toEqual([]);

  await registerInjector(kube);
  const done = await requestReconcile(kube, namespace, 'istioca', '2');
  expect(conditionOf(done, 'Provisioned')?.status).toBe('True');
  expect(await overlays(namespace)).toHaveLength(1);
});

it("a webhook that does not take istiod's pods, or that nobody answers, is as good as none", async () => {
  const namespace = 'guard-pods';
  await installComponent(kube, 'injector');
  // as charts render it, but for a label that istiod does not have
  const service = { name: 'vault-agent-injector-svc', namespace, path: '/mutate' };
  const clientConfig = { service };
  await unregisterInjector(kube);
  await registerInjector(kube, {}, { clientConfig, objectSelector: { matchLabels: { app: 'web' } } });
  const scene = await makeScene(kube, vaults.OpenBao, { namespace });
  await applyOk(kube, scene.resource);
  const left = await waitForCondition(kube, namespace, 'istioca', { type: 'Ready', reason: 'InjectorNotFound' });
  expect(conditionOf(left, 'Ready')?.message).toContain('does not select the Pods of istiod (objectSelector or rules)');

  const matchConditions = [{ name: 'not-the-injector', expression: "request.namespace != 'vault'" }];
  const chart = { matchExpressions: [{ key: 'app.kubernetes.io/name', operator: 'NotIn', values: ['vault-agent-injector'] }] }; // prettier-ignore
  await registerInjector(kube, {}, { clientConfig, objectSelector: chart, matchConditions });
  const silent = await requestReconcile(kube, namespace, 'istioca', '1');
  expect(conditionOf(silent, 'Ready')?.message).toContain(
    'No ready endpoint stands behind Service guard-pods/vault-agent-injector-svc',
  );
  expect(await overlays(namespace)).toEqual([]);

  await applyOk(kube, {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: { name: 'injector', namespace, labels: { 'kubernetes.io/service-name': service.name } },
    addressType: 'IPv4',
    ports: [{ name: 'https', port: 8080 }],
    endpoints: [{ addresses: ['10.0.0.1'], conditions: { ready: true } }],
  });
  const done = await requestReconcile(kube, namespace, 'istioca', '2');
  expect(conditionOf(done, 'ControlPlanePatched')).toMatchObject({
    status: 'True',
    message: expect.stringContaining('matchConditions that the operator does not evaluate: not-the-injector'),
  });
  expect(await overlays(namespace)).toHaveLength(1);
  await kube.request('DELETE', '/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/istio-vault-ca-injector');
  await unregisterInjector(kube);
});

it('a control plane that comes later is configured when it comes', async () => {
  const namespace = 'guard-late';
  const scene = await makeScene(kube, vaults.OpenBao, { namespace, overlays: null });
  await applyOk(kube, scene.resource);
  const waiting = await waitForCondition(kube, namespace, 'istioca', { type: 'Provisioned', status: 'True' });
  expect(conditionOf(waiting, 'Ready')).toMatchObject({ status: 'False', reason: 'ControlPlaneNotFound' });
  expect(conditionOf(waiting, 'Reconciling')).toMatchObject({ status: 'True' });
  await applyOk(kube, controlPlane(namespace, []));
  await waitForCondition(kube, namespace, 'istioca', { type: 'ControlPlanePatched', status: 'True' });
  expect(await overlays(namespace)).toHaveLength(1);
});
