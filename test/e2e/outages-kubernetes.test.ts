/**
 * The API server goes away, forgets, and comes back: restarted, cut off, its history compacted in etcd. Changes made meanwhile are
 * found, and an outage alone causes no write. Servers of this file's own; the operator reaches the API server through a Service.
 */
import { afterAll, beforeAll, expect, it } from '@jest/globals';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { checkRecorded, recordStates } from '../stack/gitops-health.ts';
import { makeTemporaryDir, products, startKube, startVault, waitFor, type VaultServer } from '../stack/index.ts';
import type { OwnKubeServer } from '../stack/kube.ts';
import type { Watch } from '../stack/watch.ts';
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
import { kubeEntries } from '../support/audit.ts';
import { everythingVisible, leaks, secretsOf } from '../support/canary.ts';
import { overlaysOf } from '../support/istiod-pod.ts';
import { startOperator, type RunningOperator } from '../support/operator.ts';
import { lastGood, logins, writesFor } from '../support/outage.ts';
import { controlPlane, makeScene, prepareVault, scenes, type Scene } from '../support/scene.ts';
import { startService, type Service } from '../support/service.ts';

let kube: OwnKubeServer;
let vault: VaultServer;
let service: Service;
let kubeconfig: string;
let operator: RunningOperator;
let scene: Scene;
let recording: Watch;
const states = join(makeTemporaryDir('states'), 'istiovaultcas.jsonl');
const logs: string[] = [];
const namespace = 'kube-outage';

beforeAll(async () => {
  // watches that last seconds instead of an hour, from etcd itself: their ends, and what etcd has forgotten, are seen here
  kube = await startKube({ extraArgs: ['--watch-cache=false', '--min-request-timeout=4'] });
  recording = recordStates(kube, states);
  vault = await startVault(products[0] ?? 'OpenBao');
  service = await startService([Number(new URL(kube.url).port)]);
  const direct = await installOperator(kube);
  kubeconfig = `${direct}-through-service`;
  await writeFile(kubeconfig, (await readFile(direct, 'utf8')).replace(kube.url, service.address), { mode: 0o600 });
  await registerInjector(kube);
  await prepareVault(kube, vault);
  operator = await startOperator(kubeconfig);
  scene = await makeScene(kube, vault, { namespace });
  await vault.request('POST', `auth/kubernetes/role/operator-${namespace}`, { token_ttl: '1h' });
  await applyOk(kube, scene.resource);
  await provisioned(namespace);
});

afterAll(async () => {
  await stopOperator();
  const secrets = (await Promise.all(scenes.map(secretsOf))).flat();
  const shown = { ...(await everythingVisible(kube)), operator: logs.join('\n') };
  await recording.stop();
  await service.stop();
  await vault.stop();
  await kube.stop();
  expect(leaks(shown, secrets)).toEqual([]);
  expect(await checkRecorded(states)).toBeGreaterThan(0);
});

const metric = async (name: string): Promise<number> =>
  Number(
    (await operator.metrics())
      .split('\n')
      .find((line) => line.startsWith(`istio_vault_ca_${name} `))
      ?.split(' ')[1] ?? 0,
  );

async function stopOperator(): Promise<void> {
  await operator.stop();
  logs.push(operator.log());
}

/** As the kubelet does it: a leader that cannot renew its Lease ends, and is started again. */
async function keepRunning(): Promise<void> {
  if (operator.ended() === undefined) return;
  await stopOperator();
  operator = await startOperator(kubeconfig);
}

/** Does so for as long as something is waited for. */
async function keptRunning(work: () => Promise<void>): Promise<void> {
  const done = work().then(() => 'done' as const);
  while ((await Promise.race([done, operator.exited.then(() => 'ended' as const)])) === 'ended') await keepRunning();
}

const provisioned = (where: string) =>
  waitForCondition(kube, where, 'istioca', { type: 'Provisioned', status: 'True' }, 90_000);

const controlPlanePath = `/apis/install.tetrate.io/v1alpha1/namespaces/${namespace}/controlplanes/controlplane`;
const overlays = async () => overlaysOf((await kube.request('GET', controlPlanePath)).body as Json);

/** Takes our fields out of the control plane, as somebody who applies an old manifest. */
async function editByHand(): Promise<void> {
  const { spec } = controlPlane(namespace, []);
  const answer = await kube.request('PATCH', controlPlanePath, { spec });
  expect([answer.status, await overlays()]).toEqual([200, []]);
}

const repaired = () =>
  waitFor('the control plane to be repaired', async () => (await overlays()).length === 1, { timeoutMs: 60_000 });

/** How often the operator has listed a collection: after its start and between resyncs only because a watch could not go on. */
async function lists(resource: string): Promise<number> {
  return (await kubeEntries(kube.auditLog)).filter(
    (entry) =>
      entry.verb === 'list' &&
      entry.user.endsWith(':istio-vault-ca-operator') &&
      entry.resource === resource &&
      entry.namespace === '',
  ).length;
}

it('restarted: it goes on watching, and nothing is written', async () => {
  const before = { good: await lastGood(scene), writes: await writesFor(scene), logins: await logins(operator) };
  await kube.restart();
  await keptRunning(async () => {
    await editByHand();
    await repaired();
    await provisioned(namespace);
  });
  const { status } = await getResource(kube, namespace, 'istioca');
  expect(before.good).toMatchObject({ shown: [status?.root, status?.intermediate, status?.history] });
  expect((await writesFor(scene)).slice(before.writes.length)).toEqual([
    `patch controlplanes/ ${namespace}/controlplane`,
  ]);
  expect(await logins(operator)).toBe(before.logins);
});

it('etcd compacted while it watches: expired watches are begun anew, and later changes are seen', async () => {
  const writes = await writesFor(scene);
  const good = await lastGood(scene);
  const { resourceVersion } = (
    (await kube.request('GET', '/apis/install.tetrate.io/v1alpha1/controlplanes')).body as {
      metadata: { resourceVersion: string };
    }
  ).metadata;
  // a quiet collection: its watch stays at an old version while others move on
  for (const text of ['1', '2', '3'])
    await applyOk(kube, {
      apiVersion: 'v1',
      kind: 'ConfigMap',
      metadata: { name: 'elsewhere', namespace: 'default' },
      data: { text },
    });
  const listed = await lists('controlplanes');
  await kube.compactEtcd();
  const expired = await kube.request(
    'GET',
    `/apis/install.tetrate.io/v1alpha1/controlplanes?watch=true&timeoutSeconds=5&resourceVersion=${resourceVersion}`,
  );
  expect(JSON.stringify(expired.body)).toContain('"code":410');
  await waitFor(
    'the operator to list again, as its watch has expired',
    async () => (await lists('controlplanes')) > listed,
    { timeoutMs: 90_000 },
  );
  expect(await lastGood(scene)).toEqual(good);
  expect(await writesFor(scene)).toEqual(writes);
  await editByHand();
  await repaired();
});

it('cut off, with changes, a deletion and a compaction meanwhile: all of them are found', async () => {
  const more = await makeScene(kube, vault, { namespace: `${namespace}-later` });
  const gone = await makeScene(kube, vault, { namespace: `${namespace}-gone` });
  await applyOk(kube, gone.resource);
  await provisioned(gone.namespace);
  await service.refuse();
  await applyOk(kube, more.resource);
  await editByHand();
  await kube.request('DELETE', `/apis/istiovaultca.io/v1alpha1/namespaces/${gone.namespace}/istiovaultcas/istioca`);
  await kube.request('PATCH', `/apis/istiovaultca.io/v1alpha1/namespaces/${namespace}/istiovaultcas/istioca`, {
    spec: { delivery: { refreshInterval: '2m' } },
  });
  await kube.compactEtcd();
  await kube.restart();
  await service.restore();
  // on a slow machine it may have been away for longer than its Lease lasts: it can start again only now
  await keptRunning(async () => {
    await repaired();
    await provisioned(more.namespace);
    await provisioned(namespace);
  });
  await waitFor('the changed field to arrive', async () => JSON.stringify(await overlays()).includes('2m'));
  await waitFor(
    'the token of the one that is gone to be revoked',
    async () => !(await operator.metrics()).includes(`namespace="${gone.namespace}"`),
  );
});

it('away for longer than the Lease lasts: it ends, and its successor writes nothing', async () => {
  const good = await lastGood(scene);
  const writes = await writesFor(scene);
  await service.refuse();
  expect(await operator.exited).toBe(1);
  expect(operator.log()).toContain('lost the leader Lease');
  await service.restore();
  await keepRunning();
  await waitFor('the successor to lead', async () => (await metric('leader')) === 1, { timeoutMs: 60_000 });
  expect(conditionOf(await getResource(kube, namespace, 'istioca'), 'Provisioned')).toMatchObject({ status: 'True' });
  expect(await lastGood(scene)).toEqual(good);
  expect(await writesFor(scene)).toEqual(writes);
});

it('away while Vault is sealed too: it goes on soon after both are back, though nothing has changed', async () => {
  await stopOperator();
  // a first delay so long that only the cap keeps it short
  operator = await startOperator(kubeconfig, ['--leader-elect=false', '--backoff-base=5m']);
  const good = await lastGood(scene);
  const writes = await writesFor(scene);
  await vault.seal();
  await requestReconcile(kube, namespace, 'istioca', 'sealed');
  await waitForCondition(kube, namespace, 'istioca', { type: 'VaultReady', status: 'False', reason: 'Sealed' });
  await service.refuse();
  // the retry that was due, not a reconcile that was still under way: from here on only its back-off wakes it up
  const missed = new RegExp(`get istiovaultcas\\S* ${namespace}/istioca: cannot reach the API server`);
  await waitFor('a retry without the API server', () => missed.test(operator.log()), { timeoutMs: 60_000 });
  await vault.unseal();
  await service.restore();
  await waitForCondition(kube, namespace, 'istioca', { type: 'Provisioned', status: 'True' }, 45_000);
  expect(await lastGood(scene)).toEqual(good);
  expect(await writesFor(scene)).toEqual(writes);
  expect(operator.log()).not.toContain('reconcile failed');
});
