/** `Ready` means proven, with the real agent and the real istiod on the stand-in for a node: what the operator says of what happens to them. */
import { afterAll, beforeAll, expect, it } from '@jest/globals';
import { readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { sharedStack, startNode, waitFor, type StandInNode } from '../stack/index.ts';
import { kubeWrites, vaultWrites, waitForReads } from '../support/audit.ts';
import { applyOk, getResource, manifest, waitForCondition, type Json } from '../support/cluster.ts';
import { useOperator } from '../support/harness.ts';
import { makeScene, type Scene } from '../support/scene.ts';
import { startTetrateOperator, type TetrateOperator } from '../support/tetrate-operator.ts';

const { kube, vaults } = sharedStack();
const vault = vaults.OpenBao;
useOperator(['--resync=2s']);
let node: StandInNode;
const operators: TetrateOperator[] = [];

beforeAll(async () => {
  for (const file of ['rights/clusterrole.yaml', 'clusterrolebinding.yaml'])
    for (const object of await manifest(`deploy/components/logs/${file}`)) await applyOk(kube, object);
  node = await startNode({ kube, vault });
});

afterAll(async () => {
  await Promise.all(operators.map((operator) => operator.stop()));
  await node.stop();
});

interface Replica {
  pod: string;
  phase: string;
  reason: string;
  container?: string;
  message: string;
}

async function shown(namespace: string): Promise<{ istiodProven?: string; istiod: Replica[] }> {
  const { status } = (await getResource(kube, namespace, 'istioca')) as { status?: unknown };
  return { istiod: [], ...(status as { istiodProven?: string; istiod?: Replica[] }) };
}

/** Waits until a replica is said to be in a phase, for a reason. */
const replicaWith = (namespace: string, phase: string, reason: string) =>
  waitFor(
    `a replica of ${namespace} to be ${phase}, ${reason}`,
    async () => (await shown(namespace)).istiod.find((one) => one.phase === phase && one.reason === reason),
    { timeoutMs: 120_000, log: () => operators.map((operator) => operator.log()).join('\n') },
  );
const istiodReady = (namespace: string, status: string, reason: string) =>
  waitForCondition(kube, namespace, 'istioca', { type: 'IstiodReady', status, reason }, 120_000);

/** A resource that is provisioned, and its istiod on the way. */
async function start(namespace: string, replicas: number, spec: Json = {}): Promise<Scene> {
  const scene = await makeScene(kube, vault, { namespace, spec });
  await applyOk(kube, scene.resource);
  await waitForCondition(kube, namespace, 'istioca', { type: 'Provisioned', status: 'True' });
  operators.push(startTetrateOperator({ kube, namespace, replicas }));
  return scene;
}

const three = 'proof-three';

it('three replicas are proven, and then nothing is written', async () => {
  await start(three, 3);
  await waitForCondition(kube, three, 'istioca', { type: 'Ready', status: 'True' }, 120_000);
  const { istiod, istiodProven } = await shown(three);
  expect([istiodProven, istiod.map(({ phase }) => phase)]).toEqual(['3/3', ['Proven', 'Proven', 'Proven']]);
  const writes = async () => [await vaultWrites(vault), await kubeWrites(kube)];
  const before = await writes();
  await waitForReads(vault, `sys/mounts/${three}-kv`, 5);
  expect(await writes()).toEqual(before);
});

it('an istiod that lacks a file says which, and is proven again when it is back', async () => {
  const [first] = (await shown(three)).istiod;
  const running = node.pod(three, first!.pod);
  const file = join(running.folder('/vault/secrets'), 'cert-chain.pem');
  const content = await readFile(file);
  await rm(file);
  running.kill('discovery', 'SIGTERM');
  const crashed = await replicaWith(three, 'IstiodCrash', 'IncompleteBundle');
  expect(crashed).toMatchObject({ pod: first!.pod, container: 'discovery' });
  expect(crashed.message).toContain('incomplete signing CA bundle detected');
  await writeFile(file, content);
  await istiodReady(three, 'True', 'IstiodProven');
});

it('an agent that may not log in says so, in the words of Vault', async () => {
  const namespace = 'proof-refused';
  await start(namespace, 1, { kubernetesAuth: { serviceAccountNames: ['nobody'] } });
  const refused = await replicaWith(namespace, 'VaultInitFailed', 'LoginRefused');
  expect(refused.container).toBe('vault-agent-init');
  expect(refused.message).toMatch(/Code: 403.*service account name not authorized/);
  expect(refused.message).toContain('ServiceAccount istiod');
  await istiodReady(namespace, 'False', 'VaultInitFailed');
});

it('an istiod that the injector has missed signs by itself, and that is said; made anew it is proven', async () => {
  const namespace = 'proof-missed';
  await node.injector.stop();
  await start(namespace, 1);
  const fallen = await replicaWith(namespace, 'SelfSignedFallback', 'NotInjected');
  expect(fallen.message).toContain('Use self-signed certificate as the CA certificate');
  expect(fallen.message).toContain('failurePolicy');
  await istiodReady(namespace, 'False', 'SelfSignedFallback');
  await node.injector.start();
  await kube.request('DELETE', `/api/v1/namespaces/${namespace}/pods/${fallen.pod}`);
  await istiodReady(namespace, 'True', 'IstiodProven');
});

it('after a renewal all replicas are proven on the new intermediate', async () => {
  const path = `/apis/istiovaultca.io/v1alpha1/namespaces/${three}/istiovaultcas/istioca`;
  const annotations = { 'istiovaultca.io/rotate-intermediate': 'now' };
  await kube.request('PATCH', path, { metadata: { annotations } });
  await waitFor('generation 2, proven', async () => {
    const { status } = await getResource(kube, three, 'istioca');
    const { istiod } = await shown(three);
    const all = istiod.length === 3 && istiod.every(({ phase, message }) => phase === 'Proven' && message.includes('generation 2')); // prettier-ignore
    return status?.intermediate?.generation === 2 && all;
  }, { timeoutMs: 120_000 }); // prettier-ignore
  await waitForCondition(kube, three, 'istioca', { type: 'Ready', status: 'True' }, 120_000);
});
