/** Which ztunnels belong to a mesh, and whether they were restarted: DaemonSets and Pods as the API server has them. */
import { beforeAll, describe, expect, it } from '@jest/globals';
import { readZtunnels } from '../../src/istiod/ztunnel.ts';
import { createKubeClient, type KubeClient } from '../../src/kube/client.ts';
import { loadKubeConfig } from '../../src/kube/pooled-kube-config.ts';
import { createNamespace, requestToken, sharedStack } from '../stack/index.ts';
import { applyOk, type Json } from '../support/cluster.ts';

const { kube } = sharedStack();
const home = 'ztunnel-istiod';
const elsewhere = 'ztunnel-proxies';
let client: KubeClient;

const mesh = { namespace: home, accounts: [`${home}/ztunnel`, `${elsewhere}/ztunnel`] };
const read = async (reader = client) => await readZtunnels(reader, mesh, AbortSignal.timeout(10_000));
const names = async () => {
  const found = await read();
  return Array.isArray(found) ? found.map(({ name }) => name).sort() : found;
};

interface DaemonSetOptions {
  namespace?: string;
  image?: string;
  env?: Json[];
  podLabels?: Json;
  serviceAccountName?: string;
  labels?: Json;
}

/** A DaemonSet with what the chart gives it that matters here. @returns its uid */
async function daemonSet(name: string, options: DaemonSetOptions = {}): Promise<string> {
  const {
    namespace = elsewhere,
    image = 'istio/ztunnel:1.29.1-distroless',
    env,
    podLabels = { app: 'ztunnel' },
    serviceAccountName = 'ztunnel',
    labels = {},
  } = options;
  const containers = [
    { name: 'istio-proxy', image, env: env ?? [{ name: 'CA_ADDRESS', value: `istiod.${home}.svc:15012` }] },
  ];
  const template = {
    metadata: { labels: { ...podLabels, of: name } },
    spec: { ...(serviceAccountName === '' ? {} : { serviceAccountName }), containers },
  };
  const created = await kube.request('POST', `/apis/apps/v1/namespaces/${namespace}/daemonsets`, {
    metadata: { name, labels },
    spec: { selector: { matchLabels: { of: name } }, template },
  });
  expect(created.status).toBe(201);
  return (created.body as { metadata: { uid: string } }).metadata.uid;
}

const setStatus = async (name: string, status: Json) => {
  const path = `/apis/apps/v1/namespaces/${elsewhere}/daemonsets/${name}/status`;
  expect((await kube.request('PATCH', path, { status: { currentNumberScheduled: 0, numberMisscheduled: 0, numberReady: 0, ...status } })).status).toBe(200); // prettier-ignore
};

/** A Pod. @returns its creation, milliseconds since the epoch */
async function pod(name: string, uid: string, phase = 'Running'): Promise<number> {
  const path = `/api/v1/namespaces/${elsewhere}/pods`;
  const ownerReferences = [{ apiVersion: 'apps/v1', kind: 'DaemonSet', name: 'any', uid, controller: true }];
  const { status, body } = await kube.request('POST', path, {
    metadata: { name, labels: { app: 'ztunnel' }, ownerReferences },
    spec: { containers: [{ name: 'istio-proxy', image: 'istio/ztunnel' }] },
  });
  expect(status).toBe(201);
  await kube.request('PATCH', `${path}/${name}/status`, { status: { phase } });
  return Date.parse((body as { metadata: { creationTimestamp: string } }).metadata.creationTimestamp);
}

beforeAll(async () => {
  await createNamespace(kube, home);
  await createNamespace(kube, elsewhere);
  for (const namespace of [home, elsewhere])
    await kube.request('POST', `/api/v1/namespaces/${namespace}/serviceaccounts`, { metadata: { name: 'default' } });
  client = createKubeClient(loadKubeConfig({ path: kube.adminKubeconfig, env: {} }).kubeConfig);
});

describe('a ztunnel of the mesh', () => {
  it('is one that connects to its istiod, of any revision, wherever it runs', async () => {
    await daemonSet('same', { namespace: home });
    await daemonSet('revision', { env: [{ name: 'XDS_ADDRESS', value: `https://istiod-canary.${home}.svc.cluster.local:15012` }] });
    await daemonSet('other-mesh', { env: [{ name: 'CA_ADDRESS', value: `istiod.istio-system.svc:15012` }] });
    await daemonSet('similar-name', { env: [{ name: 'CA_ADDRESS', value: `istiod.${home}-2.svc:15012` }] });
    await daemonSet('other-program', { podLabels: { app: 'fluent-bit' } });
    await daemonSet('other-account', { serviceAccountName: 'fluent-bit' });
    await createNamespace(kube, 'ztunnel-tenant');
    await daemonSet('of-a-tenant', { namespace: 'ztunnel-tenant' });
    expect(await names()).toEqual(['revision', 'same']);
  }); // prettier-ignore

  it('can be one whose address does not tell', async () => {
    await daemonSet('gateway-address', { env: [{ name: 'XDS_ADDRESS', value: 'mesh.example.com:15012' }] });
    await daemonSet('from-elsewhere', { env: [{ name: 'XDS_ADDRESS', valueFrom: { configMapKeyRef: { name: 'a', key: 'b' } } }] });
    await daemonSet('no-address', { env: [] });
    expect(await names()).toEqual(['from-elsewhere', 'gateway-address', 'no-address', 'revision', 'same']);
  }); // prettier-ignore
});

it('is any of the mesh with this label, if the accounts that istiod trusts are not known', async () => {
  await daemonSet('no-account', { serviceAccountName: '' });
  const found = await readZtunnels(client, { ...mesh, accounts: undefined }, AbortSignal.timeout(10_000));
  expect(Array.isArray(found) && found.map(({ name }) => name)).toEqual(expect.arrayContaining(['of-a-tenant', 'other-account', 'no-account', 'same'])); // prettier-ignore
  const byDefault = { ...mesh, accounts: [`${elsewhere}/default`] };
  expect(await readZtunnels(client, byDefault, AbortSignal.timeout(10_000))).toMatchObject([{ name: 'no-account' }]);
});

it.each<[string, Json[], boolean]>([
  ['watcher-off', [{ name: 'CA_CERT_WATCHER', value: 'false' }], true],
  ['watcher-on', [{ name: 'CA_CERT_WATCHER', value: 'true' }], false],
  ['watcher-elsewhere', [{ name: 'CA_CERT_WATCHER', valueFrom: { configMapKeyRef: { name: 'a', key: 'b' } } }], true],
])('can be told not to take up other roots: %s', async (name, env, watchesNoRoots) => {
  await daemonSet(name, { env });
  const found = await read();
  expect(Array.isArray(found) && found.find((one) => one.name === name)).toMatchObject({ watchesNoRoots });
});

it.each([
  ['image-older', '1.30.0', 'istio/ztunnel:1.28.3', '1.28.3'],
  ['label-older', '1.29.0', 'istio/ztunnel:1.30.1', '1.29.0'],
  ['label-alone', '1.30.0', 'registry/ztunnel@sha256:0', '1.30.0'],
  ['unknown', 'latest', 'registry/ztunnel:edge', ''],
])('the version is the lower one of label and image: %s', async (name, version, image, expected) => {
  await daemonSet(name, { image, labels: { 'app.kubernetes.io/version': version } });
  const found = await read();
  expect(Array.isArray(found) && found.find((one) => one.name === name)).toMatchObject({ version: expected });
});

describe('a rollout', () => {
  const one = async () => {
    const found = await read();
    return Array.isArray(found) ? found.find(({ name }) => name === 'rolled') : found;
  };
  let uid: string;

  it('waits for its controller, for pods of the newest template, and for all to be available', async () => {
    uid = await daemonSet('rolled');
    expect(await one()).toMatchObject({
      namespace: elsewhere,
      version: '1.29.1',
      outdated: true,
      unfinished: 'its controller has not seen the newest template yet',
      oldestPod: undefined,
    });
    await setStatus('rolled', { observedGeneration: 1, desiredNumberScheduled: 2, updatedNumberScheduled: 1 });
    expect(await one()).toMatchObject({ outdated: true, unfinished: 'pods of an older template are still there' });
    await setStatus('rolled', { observedGeneration: 1, desiredNumberScheduled: 2, updatedNumberScheduled: 2, numberAvailable: 1 }); // prettier-ignore
    expect(await one()).toMatchObject({ outdated: false, unfinished: 'not every pod is available' });
    await setStatus('rolled', { observedGeneration: 1, desiredNumberScheduled: 2, updatedNumberScheduled: 2, numberAvailable: 2 }); // prettier-ignore
    expect(await one()).toMatchObject({ unfinished: undefined });
  });

  it('is as old as its oldest pod that runs; pods of others and ended ones do not count', async () => {
    await pod('rolled-ended', uid, 'Failed');
    await pod('rolled-of-another', '00000000-0000-0000-0000-000000000000');
    expect(await one()).toMatchObject({ oldestPod: undefined });
    const oldest = await pod('rolled-1', uid);
    await pod('rolled-2', uid);
    expect(await one()).toMatchObject({ oldestPod: { name: 'rolled-1', createdMs: oldest } });
  });
});

it('is unknown without a right, which is named', async () => {
  const token = await requestToken(kube, home, 'default', undefined, 3600);
  const reader = createKubeClient(
    loadKubeConfig({ path: await kube.kubeconfigWithToken(token, 'ztunnel-reader'), env: {} }).kubeConfig,
  );
  expect(await read(reader)).toEqual({ lacking: { verb: 'list', group: 'apps', resource: 'daemonsets', namespace: undefined } }); // prettier-ignore
  const role = 'ztunnel-reader';
  await applyOk(kube, {
    apiVersion: 'rbac.authorization.k8s.io/v1',
    kind: 'ClusterRole',
    metadata: { name: role },
    rules: [{ apiGroups: ['apps'], resources: ['daemonsets'], verbs: ['list'] }],
  });
  await applyOk(kube, {
    apiVersion: 'rbac.authorization.k8s.io/v1',
    kind: 'ClusterRoleBinding',
    metadata: { name: role },
    roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: role },
    subjects: [{ kind: 'ServiceAccount', name: 'default', namespace: home }],
  });
  expect(await read(reader)).toMatchObject({ lacking: { verb: 'list', group: '', resource: 'pods' } });
});
