/**
 * One root for two clusters: each has an API server, a node, an operator and an istiod of its own, and one workload; the two workloads connect to each
 * other all the time. The owner rotates the root, and no connection fails. Minutes: workload certificates must run out in between.
 * @servers kubectl
 */
import { afterAll, beforeAll, expect, it, jest } from '@jest/globals';
import { startKube, startNode, startVault, waitFor, type KubeServer, type StandInNode, type StartedVault } from '../../stack/index.ts'; // prettier-ignore
import { podsCome } from '../../support/admission.ts';
import { applyOk, getResource, installOperator, requestReconcile, resourcePath, waitForCondition, type Json, type Resource } from '../../support/cluster.ts'; // prettier-ignore
import { expectRotationDescribed } from '../../support/described.ts';
import { startOperator, type RunningOperator } from '../../support/operator.ts';
import { makeScene, merge, prepareVault } from '../../support/scene.ts';
import { joinVault } from '../../support/second-cluster.ts';
import { startTetrateOperator, type TetrateOperator } from '../../support/tetrate-operator.ts';
import { Workloads } from '../../support/workloads.ts';

jest.setTimeout(1_500_000);

const certificateSeconds = 30;

/** What is stopped at the end, in this order. */
interface Cluster {
  kube: KubeServer;
  node: StandInNode;
  operator: RunningOperator;
  tetrate?: TetrateOperator;
}
const clusters: Cluster[] = [];
let vault: StartedVault;

async function startCluster(): Promise<Cluster> {
  const kube = await startKube();
  const node = await startNode({ kube, vault });
  await podsCome(kube, 'default', 'injected');
  const operator = await startOperator(await installOperator(kube), ['--resync=30s']);
  return { kube, node, operator };
}

beforeAll(async () => {
  vault = await startVault('OpenBao');
  clusters.push(await startCluster(), await startCluster());
});
afterAll(async () => {
  for (const { kube, node, operator, tetrate } of clusters) {
    await operator.stop();
    await tetrate?.stop();
    await node.stop();
    await kube.stop();
  }
  await vault.stop();
});

const namespaces = ['shared-owner', 'shared-member'] as const;
type Place = 0 | 1;
const at = (place: Place): { kube: KubeServer; namespace: string } => ({
  kube: clusters[place]!.kube,
  namespace: namespaces[place],
});
const resource = (place: Place): Promise<Resource> => getResource(at(place).kube, at(place).namespace, 'istioca');
const patience = {
  timeoutMs: 400_000,
  intervalMs: 500,
  log: () => clusters.map(({ operator }) => operator.log().slice(-2000)).join('\n---\n'),
};

async function start(place: Place, spec: Json): Promise<void> {
  const { kube, namespace } = at(place);
  const intermediate = { key: { type: 'ec' }, ttl: '24h', maxWorkloadCertTTL: `${certificateSeconds}s` };
  const scene = await makeScene(kube, vault, { namespace, spec: merge({ intermediate, delivery: { refreshInterval: '1s' } }, spec) }); // prettier-ignore
  await applyOk(kube, scene.resource);
  await waitForCondition(kube, namespace, 'istioca', { type: 'ControlPlanePatched', status: 'True' });
  clusters[place]!.tetrate = startTetrateOperator({ kube, namespace, replicas: 1 });
  await waitForCondition(kube, namespace, 'istioca', { type: 'Ready', status: 'True' }, 180_000);
}

/** Waits until `status.rotation.waitingFor` of a resource has a text, which may be that there is no rotation. */
const waits = (place: Place, text: string | undefined): Promise<Resource> =>
  waitFor(
    `${namespaces[place]} to wait for ${text ?? 'nothing'}`,
    async () => {
      const found = await resource(place);
      const rotation = found.status?.rotation;
      return (text === undefined ? rotation === undefined : rotation?.waitingFor?.includes(text) === true) && found;
    },
    patience,
  );

it('the owner rotates it and goes on when the member is ready; then it goes back in the same way', async () => {
  await prepareVault(clusters[0]!.kube, vault);
  const login = await joinVault(clusters[1]!.kube, vault);
  await start(0, { root: { shared: true } });
  await start(1, merge(login, { root: { source: 'Existing', mount: 'shared-owner-pki' } }));
  const before = (await resource(0)).status?.root?.fingerprint;
  expect((await resource(1)).status?.root?.fingerprint).toBe(before);
  const workloads = new Workloads({ ...at(0), second: at(1), certificateSeconds });
  await workloads.start();
  const annotate = (annotations: Json) =>
    at(0).kube.request('PATCH', resourcePath(namespaces[0], 'istioca'), { metadata: { annotations } });
  const follows = (round: string) => requestReconcile(at(1).kube, namespaces[1], 'istioca', round);
  try {
    await annotate({ 'istiovaultca.io/rotate-root': 'please' });
    await waits(0, 'annotation istiovaultca.io/members-ready with a new text');
    await expectRotationDescribed(at(0).kube, namespaces[0], 'members-ready-first');
    await follows('the new root is there');
    await waits(1, 'ready for members-ready: root ');
    await expectRotationDescribed(at(1).kube, namespaces[1], 'members-ready-member');
    await annotate({ 'istiovaultca.io/members-ready': 'distributed' });
    await waits(0, 'annotation istiovaultca.io/members-ready with another new text');
    await expectRotationDescribed(at(0).kube, namespaces[0], 'members-ready-second');
    await follows('the owner signs with it');
    const switched = await waits(1, undefined);
    expect(switched.status?.root?.fingerprint).toBe((await resource(0)).status?.root?.fingerprint);
    expect(switched.status?.root?.fingerprint).not.toBe(before);
    await annotate({ 'istiovaultca.io/rollback-rotation': 'no' });
    await waits(0, 'on its way back: annotation istiovaultca.io/members-ready with another new text');
    await follows('the owner goes back');
    await waits(1, 'ready for members-ready: root ');
    expect((await resource(1)).status?.root?.fingerprint).toBe(before);
    await annotate({ 'istiovaultca.io/members-ready': 'gone back' });
    const end = await waits(0, undefined);
    expect(end.status?.root?.fingerprint).toBe(before);
    await workloads.renewed();
  } finally {
    await workloads.stop();
  }
  expect(workloads.failures).toEqual([]);
  expect(workloads.verifications).toBeGreaterThan(100);
});
