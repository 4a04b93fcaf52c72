/**
 * Rotations in a mesh that works: istiod of three replicas, workloads whose certificates live for 30 seconds and who make connections with
 * each other all the while. None of them may notice. A stack of its own, so that a whole cluster trusts one root.
 */
import { afterAll, afterEach, beforeAll, describe, expect, it, jest } from '@jest/globals';
import {
  startKube,
  startNode,
  startVault,
  waitFor,
  type KubeServer,
  type StandInNode,
  type VaultServer,
} from '../stack/index.ts';
import { blocks } from '../support/certificates.ts';
import {
  applyOk,
  getResource,
  installOperator,
  resourcePath,
  waitForCondition,
  type Resource,
} from '../support/cluster.ts';
import { startOperator, type RunningOperator } from '../support/operator.ts';
import { makeScene, prepareVault } from '../support/scene.ts';
import { startTetrateOperator, type TetrateOperator } from '../support/tetrate-operator.ts';
import { Workloads } from '../support/workloads.ts';

jest.setTimeout(600_000);

const certificateSeconds = 30;
const flags = ['--resync=1m'];
let kube: KubeServer;
let vault: VaultServer;
let node: StandInNode;
let kubeconfig: string;
let operator: RunningOperator;
let workloads: Workloads | undefined;
const tetrate: TetrateOperator[] = [];

beforeAll(async () => {
  [kube, vault] = await Promise.all([startKube(), startVault('OpenBao')]);
  node = await startNode({ kube, vault });
  kubeconfig = await installOperator(kube);
  await prepareVault(kube, vault);
  operator = await startOperator(kubeconfig, flags);
});

afterEach(async () => {
  await workloads?.stop();
  workloads = undefined;
});

afterAll(async () => {
  await operator.stop();
  await Promise.all(tetrate.map((one) => one.stop()));
  await node.stop();
  await Promise.all([kube.stop(), vault.stop()]);
});

const multiRoot = [
  {
    apiVersion: 'install.istio.io/v1alpha1',
    kind: 'IstioOperator',
    name: 'tsb-istiocontrolplane',
    patches: [{ path: 'spec.values.pilot.env.ISTIO_MULTIROOT_MESH', value: 'true' }],
  },
];

interface Rotation {
  phase?: string;
  waitingFor?: string;
}
const rotationOf = (resource: Resource): Rotation | undefined =>
  (resource.status as { rotation?: Rotation } | undefined)?.rotation;

/** A mesh with istiod of three replicas, all proven. */
async function mesh(namespace: string, spec: Record<string, unknown>): Promise<void> {
  const scene = await makeScene(kube, vault, {
    namespace,
    overlays: multiRoot,
    spec: {
      intermediate: {
        mount: `${namespace}-ca`,
        key: { type: 'ec' },
        ttl: '24h',
        maxWorkloadCertTTL: `${certificateSeconds}s`,
      },
      delivery: { refreshInterval: '1s' },
      ...spec,
    },
  });
  await applyOk(kube, scene.resource);
  tetrate.push(startTetrateOperator({ kube, namespace, replicas: 3 }));
  const { status } = await ready(namespace);
  await waitFor('the root in the mesh', async () => {
    const roots = await meshRoots(namespace);
    return roots.length === 1 && roots[0] === status?.root?.fingerprint;
  });
}

const ready = async (namespace: string) =>
  await waitForCondition(kube, namespace, 'istioca', { type: 'Ready', status: 'True' }, 180_000);

const annotate = async (namespace: string, annotations: Record<string, string | null>) => {
  const { status } = await kube.request('PATCH', resourcePath(namespace, 'istioca'), { metadata: { annotations } });
  expect(status).toBe(200);
};

/** Waits until a rotation is in a phase, or over. */
const inPhase = async (namespace: string, phase: string | undefined) =>
  await waitFor(
    `the rotation of ${namespace} to be ${phase ?? 'over'}`,
    async () => {
      const resource = await getResource(kube, namespace, 'istioca');
      return rotationOf(resource)?.phase === phase && resource;
    },
    { timeoutMs: 120_000, intervalMs: 200, log: () => operator.log().slice(-3000) },
  );

/** Fingerprints of the roots that the mesh's ConfigMap has. */
async function meshRoots(namespace: string): Promise<string[]> {
  const { body } = await kube.request('GET', `/api/v1/namespaces/${namespace}/configmaps/istio-ca-root-cert`);
  const bundle = (body as { data?: Record<string, string> }).data?.['root-cert.pem'] ?? '';
  return blocks(bundle).map((c) => c.fingerprint256.replaceAll(':', '').toLowerCase());
}

async function work(namespace: string): Promise<Workloads> {
  workloads = new Workloads({ kube, namespace, certificateSeconds });
  await workloads.start();
  return workloads;
}

describe('the intermediate', () => {
  const namespace = 'rotate-intermediate';

  it('changes five times in a row, and no workload notices', async () => {
    await mesh(namespace, {});
    const at = await work(namespace);
    for (let generation = 2; generation <= 6; generation += 1) {
      await annotate(namespace, { 'istiovaultca.io/rotate-intermediate': `to ${generation}` });
      await waitFor(
        `generation ${generation} to be proven`,
        async () => {
          const { status } = await getResource(kube, namespace, 'istioca');
          const isReady = status?.conditions?.find((c) => c.type === 'Ready')?.status === 'True';
          return isReady && status.intermediate?.generation === generation;
        },
        { timeoutMs: 180_000, intervalMs: 200, log: () => operator.log().slice(-3000) },
      );
    }
    await at.stop();
    expect(at.failures).toEqual([]);
    expect([at.requests, at.verifications]).toEqual([expect.any(Number), expect.any(Number)]);
    expect(at.requests).toBeGreaterThan(2);
    // with every replica proven nothing is left of the generations before
    const keys = async (what: string) =>
      ((await vault.request('LIST', `${namespace}-ca/${what}`)).body as { data: { keys: string[] } }).data.keys;
    await waitFor('the old generation to be collected', async () => (await keys('keys')).length === 1);
    expect(await keys('issuers')).toHaveLength(1);
  });
});

describe.each([
  ['by rollout', 'WhenChanged'],
  ['by reload', 'Never'],
] as const)('the root, %s', (_, rollout) => {
  const namespace = `rotate-root-${rollout}`.toLowerCase();

  it('changes from A over A and B to B, and no workload notices', async () => {
    await mesh(namespace, { rollout });
    const before = (await getResource(kube, namespace, 'istioca')).status?.root?.fingerprint;
    const [first] = await meshRoots(namespace);
    const at = await work(namespace);
    await annotate(namespace, { 'istiovaultca.io/rotate-root': 'please' });
    await inPhase(namespace, 'Distributing');
    await waitFor('both roots in the mesh', async () => (await meshRoots(namespace)).length === 2);
    expect((await meshRoots(namespace))[0]).toBe(first);
    await inPhase(namespace, 'Switching');
    await inPhase(namespace, 'Retiring');
    await inPhase(namespace, undefined);
    const end = await ready(namespace);
    expect(end.status?.root?.fingerprint).not.toBe(before);
    const roots = await meshRoots(namespace);
    expect(roots).toEqual([end.status?.root?.fingerprint]);
    await at.stop();
    expect(at.failures).toEqual([]);
  });
});

it('killed in the two phases that are the most dangerous, and rolled back from the second, it ends where it began', async () => {
  const namespace = 'rotate-back';
  await mesh(namespace, { rollout: 'Never' });
  const before = (await getResource(kube, namespace, 'istioca')).status?.root?.fingerprint;
  const at = await work(namespace);
  const kill = async () => {
    process.kill(operator.pid, 'SIGKILL');
    await operator.exited;
    await kube.request('DELETE', '/apis/coordination.k8s.io/v1/namespaces/istio-vault-ca/leases/istio-vault-ca');
    operator = await startOperator(kubeconfig, flags);
  };
  await annotate(namespace, { 'istiovaultca.io/rotate-root': 'please' });
  await inPhase(namespace, 'Distributing');
  await kill();
  await inPhase(namespace, 'Switching');
  await annotate(namespace, { 'istiovaultca.io/pause-rotation': 'true' });
  await inPhase(namespace, 'Paused');
  await kill();
  await annotate(namespace, { 'istiovaultca.io/pause-rotation': null, 'istiovaultca.io/rollback-rotation': 'no' });
  await inPhase(namespace, undefined);
  const end = await ready(namespace);
  expect(end.status?.root?.fingerprint).toBe(before);
  expect(await meshRoots(namespace)).toHaveLength(1);
  await at.stop();
  expect(at.failures).toEqual([]);
});
