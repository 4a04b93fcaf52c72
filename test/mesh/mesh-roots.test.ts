/** A mesh that runs already, with the root of its real istiod in every place where istiod can publish one: it is not replaced unasked. */
import { beforeAll, expect, it } from '@jest/globals';
import { sharedStack, waitFor } from '../stack/index.ts';
import { vaultWrites } from '../support/audit.ts';
import { applyOk, conditionOf, waitForCondition, type Json } from '../support/cluster.ts';
import { blocks } from '../support/certificates.ts';
import { useMeshes } from '../support/mesh.ts';
import { makeScene } from '../support/scene.ts';

const { kube, vaults } = sharedStack();
const vault = vaults.OpenBao;
const meshes = useMeshes(['--resync=10s']);
const get = async (path: string) => (await kube.request('GET', path)).body as Json;
const fingerprints = (pem: string) => blocks(pem).map((one) => one.fingerprint256.replaceAll(':', '').toLowerCase());

interface Place {
  namespace: string;
  /** Values of istiod's chart. */
  values: Json;
  /** Path of the published object. */
  path: string;
}

const places: [string, Place][] = [
  [
    'ConfigMaps of another name',
    {
      namespace: 'roots-named',
      values: { global: { trustBundleName: 'team-a-root' } },
      path: '/api/v1/namespaces/roots-named/configmaps/team-a-root',
    },
  ],
  [
    'a ClusterTrustBundle',
    {
      namespace: 'roots-bundle',
      values: { env: { ENABLE_CLUSTER_TRUST_BUNDLE_API: true } },
      path: '/apis/certificates.k8s.io/v1beta1/clustertrustbundles/istio.io:istiod-ca:root-cert',
    },
  ],
];

/** The whole path of one mesh. */
async function confirmed({ namespace, values, path }: Place): Promise<void> {
  const published = async () => {
    const { data, spec } = (await get(path)) as { data?: Record<string, string>; spec?: Record<string, string> };
    return fingerprints(data?.['root-cert.pem'] ?? spec?.['trustBundle'] ?? '');
  };
  const scene = await makeScene(kube, vault, { namespace });
  await meshes.allowLogs(namespace);
  meshes.runTetrate(namespace, { values });
  const before = await waitFor('the root of istiod', async () => (await published())[0], {
    timeoutMs: 60_000,
    log: () => meshes.log(namespace),
  });
  const writes = async () => (await vaultWrites(vault)).filter((line) => line.includes(` ${namespace}-`));
  expect(await writes()).toEqual([]);

  await applyOk(kube, scene.resource);
  const held = await waitForCondition(kube, namespace, 'istioca', { type: 'Ready', reason: 'WouldReplaceRoot' });
  const message = conditionOf(held, 'Ready')?.message;
  expect(message).toContain('a running istiod has another root');
  expect(message).toContain(`istiovaultca.io/confirm-root-change=${before}`);
  expect(await writes()).toEqual([]);

  await meshes.patch(namespace, { metadata: { annotations: { 'istiovaultca.io/confirm-root-change': before } } });
  await meshes.proven(namespace);
  const resource = await waitForCondition(kube, namespace, 'istioca', { type: 'Ready', status: 'True' });
  expect(await published()).toEqual([resource.status?.root?.fingerprint]);
}

// side by side: each mesh waits most of the time
let running: Promise<void>[];
beforeAll(() => {
  running = places.map(async ([, place]) => await confirmed(place));
  // a failure is that of its test
  for (const one of running) one.catch(() => undefined);
});

it.each(places.map(([name], i) => [name, i] as const))('in %s', async (_, i) => {
  await running[i];
});
