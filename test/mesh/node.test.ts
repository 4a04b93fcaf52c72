/**
 * Pods of istiod on the stand-in for a node: rendered by Istio's own chart from the ControlPlane that the operator patched,
 * made by the real kube-controller-manager, with the real agent and the real istiod in them.
 */
import { afterAll, beforeAll, describe, expect, it, jest } from '@jest/globals';
import { X509Certificate } from 'node:crypto';
import { readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import {
  createCertificate,
  createNamespace,
  peerCertificates,
  requestToken,
  sharedStack,
  startNode,
  waitFor,
  type StandInNode,
} from '../stack/index.ts';
import { podsCome } from '../support/admission.ts';
import { blocks, defects, makeCsr, opensslVerify, readCaFiles } from '../support/certificates.ts';
import { applyOk, waitForCondition, type Json } from '../support/cluster.ts';
import { useOperator } from '../support/harness.ts';
import { overlaysOf } from '../support/istiod-pod.ts';
import { controlPlane, makeScene, type Scene } from '../support/scene.ts';
import { startTetrateOperator, type TetrateOperator } from '../support/tetrate-operator.ts';

const { kube, vaults } = sharedStack();
const vault = vaults.OpenBao;

interface ContainerStatus {
  name: string;
  ready: boolean;
  restartCount: number;
  state: { waiting?: { reason: string }; running?: object; terminated?: { exitCode: number } };
  lastState: { terminated?: { exitCode: number } };
}

interface Pod {
  metadata: { name: string; annotations: Record<string, string>; deletionTimestamp?: string };
  spec: { containers: { name: string }[]; initContainers?: { name: string }[] };
  status: {
    phase: string;
    podIP?: string;
    conditions: { type: string; status: string; reason?: string }[];
    initContainerStatuses?: ContainerStatus[];
    containerStatuses?: ContainerStatus[];
  };
}

// more than the waits of one test together: a wait that is in vain says what it waited for
jest.setTimeout(600_000);

useOperator();
let node: StandInNode;
const operators: TetrateOperator[] = [];

beforeAll(async () => {
  node = await startNode({ kube, vault });
  await podsCome(kube, 'default', 'injected');
});

afterAll(async () => {
  await Promise.all(operators.map((operator) => operator.stop()));
  await node.stop();
  expect(operators.map((operator) => operator.log()).join('')).toBe('');
});

const controlPlanePath = (namespace: string) =>
  `/apis/install.tetrate.io/v1alpha1/namespaces/${namespace}/controlplanes/controlplane`;
const overlays = async (namespace: string) =>
  overlaysOf((await kube.request('GET', controlPlanePath(namespace))).body as Json);

async function pods(namespace: string): Promise<Pod[]> {
  const { body } = await kube.request('GET', `/api/v1/namespaces/${namespace}/pods?labelSelector=app%3Distiod`);
  return (body as { items: Pod[] }).items.filter(({ metadata }) => metadata.deletionTimestamp === undefined);
}

const containerOf = (pod: Pod | undefined, name: string): ContainerStatus | undefined =>
  [...(pod?.status.initContainerStatuses ?? []), ...(pod?.status.containerStatuses ?? [])].find((c) => c.name === name);

const isReady = (pod: Pod) => pod.status.conditions.some((c) => c.type === 'Ready' && c.status === 'True');

/** Waits until a rollout is complete, as `kubectl rollout status` judges it, and gives its pods. */
async function rolledOut(namespace: string, replicas: number): Promise<Pod[]> {
  return await waitFor(
    `istiod of ${namespace} to be rolled out`,
    async () => {
      const { body } = await kube.request('GET', `/apis/apps/v1/namespaces/${namespace}/deployments/istiod`);
      const { metadata, status } = body as { metadata: { generation: number }; status?: Record<string, number> };
      if (status?.['observedGeneration'] !== metadata.generation) return undefined;
      const counts = ['replicas', 'updatedReplicas', 'availableReplicas'].map((name) => status[name] ?? 0);
      return counts.every((count) => count === replicas) ? await pods(namespace) : undefined;
    },
    { timeoutMs: 120_000, intervalMs: 200, log: () => [node.log(), ...operators.map((o) => o.log())].join('\n') },
  );
}

const at = (namespace: string, pod: Pod) => ({ host: pod.status.podIP ?? '', port: 15012, namespace });
const fingerprint = (pem: string) => new X509Certificate(pem).fingerprint256.replaceAll(':', '').toLowerCase();

/** A ControlPlane like another one, in a namespace without the operator, with one patch changed. */
async function copyControlPlane(from: string, to: string, change?: { path: string; value: string }): Promise<void> {
  await createNamespace(kube, to);
  const secret = (await kube.request('GET', `/api/v1/namespaces/${from}/secrets/istio-vault-ca-tls`)).body as Json;
  await applyOk(kube, {
    apiVersion: 'v1',
    kind: 'Secret',
    metadata: { name: 'istio-vault-ca-tls', namespace: to },
    data: secret['data'],
  });
  const copy = (await overlays(from)).map((entry) => ({
    ...entry,
    patches: entry.patches?.map((patch) => (patch.path === change?.path ? change : patch)),
  }));
  await applyOk(kube, controlPlane(to, copy));
}

describe('an istiod of three replicas', () => {
  const namespace = 'mesh-three';
  let scene: Scene;
  let intermediate: string | undefined;
  let first: Pod[];

  beforeAll(async () => {
    scene = await makeScene(kube, vault, { namespace });
    await applyOk(kube, scene.resource);
    const resource = await waitForCondition(kube, namespace, 'istioca', { type: 'Provisioned', status: 'True' });
    intermediate = resource.status?.intermediate?.fingerprint;
    operators.push(startTetrateOperator({ kube, namespace, replicas: 3 }));
    first = await rolledOut(namespace, 3);
  });

  it('becomes Ready, injected, with addresses of its own', () => {
    expect(new Set(first.map(({ status }) => status.podIP)).size).toBe(3);
    for (const pod of first) {
      expect(pod.metadata.annotations['vault.hashicorp.com/agent-inject-status']).toBe('injected');
      expect(pod.status.phase).toBe('Running');
      expect(pod.status.conditions.filter(({ status }) => status !== 'True')).toEqual([]);
      expect(containerOf(pod, 'vault-agent-init')?.state.terminated?.exitCode).toBe(0);
      for (const name of ['discovery', 'vault-agent'])
        expect(containerOf(pod, name)).toMatchObject({ ready: true, restartCount: 0 });
    }
  });

  it('serves and signs with the intermediate from Vault, every replica', async () => {
    const token = await requestToken(kube, namespace, 'workload', ['istio-ca']);
    for (const pod of first) {
      const [, issuer = ''] = await peerCertificates(at(namespace, pod));
      expect(fingerprint(issuer)).toBe(intermediate);
      const files = await readCaFiles(node.pod(namespace, pod.metadata.name).folder('/vault/secrets'));
      expect(defects(files)).toEqual([]);
      const request = { csrPem: await makeCsr(), token, validitySeconds: 3600 };
      const [leaf = '', ...rest] = await createCertificate(at(namespace, pod), Buffer.from(files.root), request);
      const root = rest.pop() ?? '';
      await opensslVerify(leaf, rest.join('\n'), root);
      expect(blocks(root)[0]?.fingerprint256).toBe(blocks(files.root)[0]?.fingerprint256);
    }
  });

  it('counts a restart of an agent that was killed', async () => {
    const name = first[0]!.metadata.name;
    node.pod(namespace, name).kill('vault-agent');
    const pod = await waitFor('vault-agent to run again', async () => {
      const now = (await pods(namespace)).find(({ metadata }) => metadata.name === name);
      const agent = containerOf(now, 'vault-agent');
      return agent?.restartCount === 1 && agent.state.running !== undefined ? now : undefined;
    });
    expect(containerOf(pod, 'vault-agent')?.lastState.terminated?.exitCode).toBe(137);
    expect(containerOf(pod, 'discovery')).toMatchObject({ ready: true, restartCount: 0 });
    const log = await kube.request(
      'GET',
      `/api/v1/namespaces/${namespace}/pods/${name}/log?container=vault-agent&previous=true&tailLines=5`,
    );
    expect(log.status).toBe(200);
  });

  it('keeps ending, with CrashLoopBackOff, while a file of its CA is missing, and recovers', async () => {
    const name = first[1]!.metadata.name;
    const running = node.pod(namespace, name);
    const file = join(running.folder('/vault/secrets'), 'cert-chain.pem');
    const discovery = async () =>
      containerOf(
        (await pods(namespace)).find(({ metadata }) => metadata.name === name),
        'discovery',
      );
    const content = await readFile(file);
    await rm(file);
    running.kill('discovery', 'SIGTERM');
    const status = await waitFor('discovery to be in CrashLoopBackOff', async () => {
      const now = await discovery();
      return now?.state.waiting?.reason === 'CrashLoopBackOff' ? now : undefined;
    });
    expect(status).toMatchObject({ ready: false, lastState: { terminated: { exitCode: 255 } } });
    // the next instance may run by now, and has nothing to say yet
    await waitFor('discovery to say why it ends', () =>
      [false, true].some((previous) =>
        running.log('discovery', previous).includes('incomplete signing CA bundle detected'),
      ),
    );
    await writeFile(file, content);
    await waitFor('discovery to be ready again', async () => (await discovery())?.ready);
    const [, issuer = ''] = await peerCertificates({ host: running.ip, port: 15012, namespace });
    expect(fingerprint(issuer)).toBe(intermediate);
  });

  it('is replaced when its template changes', async () => {
    const [entry] = await overlays(namespace);
    const patch = { path: 'spec.components.pilot.k8s.podAnnotations.example\\.org/rollout', value: 'again' };
    const changed = [{ ...entry, patches: [...(entry?.patches ?? []), patch] }];
    const spec = { components: { istio: { kubeSpec: { overlays: changed } } } };
    expect((await kube.request('PATCH', controlPlanePath(namespace), { spec })).status).toBe(200);
    await waitFor('the new template', async () => {
      const { body } = await kube.request('GET', `/apis/apps/v1/namespaces/${namespace}/deployments/istiod`);
      return (body as { metadata: { generation: number } }).metadata.generation > 1;
    });
    const second = await rolledOut(namespace, 3);
    expect(second.map(({ metadata }) => metadata.annotations['example.org/rollout'])).toEqual(Array(3).fill('again'));
    expect(second.every(isReady)).toBe(true);
    const old = new Set(first.map(({ metadata }) => metadata.name));
    expect(second.filter(({ metadata }) => old.has(metadata.name))).toEqual([]);
    await waitFor('the old pods to be gone', () => node.pods(namespace).length === 3);
  });
});

it('an agent can log in with istiod’s own token', async () => {
  const namespace = 'mesh-audience';
  const scene = await makeScene(kube, vault, { namespace, spec: { kubernetesAuth: { audience: 'istio-ca' } } });
  await applyOk(kube, scene.resource);
  await waitForCondition(kube, namespace, 'istioca', { type: 'Provisioned', status: 'True' });
  operators.push(startTetrateOperator({ kube, namespace }));
  const [pod] = await rolledOut(namespace, 1);
  const files = await readCaFiles(node.pod(namespace, pod!.metadata.name).folder('/vault/secrets'));
  expect(defects(files)).toEqual([]);
});

it('an agent with a wrong role keeps trying, and the status and the log of its pod say so', async () => {
  const namespace = 'mesh-wrong-role';
  await copyControlPlane('mesh-three', namespace, {
    path: 'spec.components.pilot.k8s.podAnnotations.vault\\.hashicorp\\.com/role',
    value: 'nobody',
  });
  operators.push(startTetrateOperator({ kube, namespace }));
  const log = await waitFor(
    'the log of vault-agent-init to show its error',
    async () => {
      const [found] = await pods(namespace);
      if (found === undefined) return undefined;
      const path = `/api/v1/namespaces/${namespace}/pods/${found.metadata.name}/log?container=vault-agent-init`;
      const { status, body } = await kube.request('GET', path);
      return status === 200 && /invalid role name/.test(String(body)) ? String(body) : undefined;
    },
    { timeoutMs: 120_000 },
  );
  expect(log).toContain('"nobody"');
  const [pod] = await pods(namespace);
  expect(pod?.status.phase).toBe('Pending');
  expect(pod?.status.conditions).toContainEqual(
    expect.objectContaining({ type: 'Initialized', status: 'False', reason: 'ContainersNotInitialized' }),
  );
  expect(containerOf(pod, 'vault-agent-init')).toMatchObject({ ready: false, restartCount: 0 });
  expect(containerOf(pod, 'vault-agent-init')?.state.running).toBeDefined();
  expect(containerOf(pod, 'discovery')?.state.waiting?.reason).toBe('PodInitializing');
  const { status, body } = await kube.request(
    'GET',
    `/api/v1/namespaces/${namespace}/pods/${pod!.metadata.name}/log?container=discovery`,
  );
  expect(status).toBe(400);
  expect(JSON.stringify(body)).toContain('waiting to start: PodInitializing');
});

it('without the injector pods come as they are, and istiod signs by itself', async () => {
  const namespace = 'mesh-not-injected';
  await node.injector.stop();
  try {
    await copyControlPlane('mesh-three', namespace);
    operators.push(startTetrateOperator({ kube, namespace }));
    const [pod] = await rolledOut(namespace, 1);
    expect(pod?.metadata.annotations['vault.hashicorp.com/agent-inject']).toBe('true');
    expect(pod?.metadata.annotations).not.toHaveProperty(['vault.hashicorp.com/agent-inject-status']);
    expect(pod?.spec.containers.map(({ name }) => name)).toEqual(['discovery']);
    const [, issuer = ''] = await peerCertificates(at(namespace, pod!));
    expect(issuer).toBe('');
    expect(node.pod(namespace, pod!.metadata.name).log('discovery')).toContain(
      'Use self-signed certificate as the CA certificate',
    );
  } finally {
    await node.injector.start();
  }
});
