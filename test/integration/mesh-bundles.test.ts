/**
 * Where a real istiod publishes its roots, as the operator reads it, on an API server that does not serve ClusterTrustBundles, as by default.
 * @servers istiod
 */
import { afterAll, beforeAll, expect, it, jest } from '@jest/globals';
import { join } from 'node:path';
import { createKubeClient } from '../../src/kube/client.ts';
import { loadKubeConfig, type PooledKubeConfig } from '../../src/kube/pooled-kube-config.ts';
import { MeshBundleReader } from '../../src/istiod/mesh-bundles.ts';
import { defaultIstiodValues, type TrustPlace } from '../../src/plan/facts/trust-places.ts';
import { systemClock } from '../../src/runtime/clock.ts';
import {
  createNamespace,
  makeTemporaryDir,
  removeTemporaryDir,
  startIstiod,
  startKube,
  waitFor,
} from '../stack/index.ts';

jest.setTimeout(120_000);

const namespace = 'publishing';
let kube: Awaited<ReturnType<typeof startKube>>;
let config: PooledKubeConfig;
let dir: string;

beforeAll(async () => {
  dir = makeTemporaryDir('publishing');
  const off = 'ClusterTrustBundle=false,ClusterTrustBundleProjection=false';
  const runtime = 'certificates.k8s.io/v1beta1/clustertrustbundles=false';
  kube = await startKube({ extraArgs: [`--feature-gates=${off}`, `--runtime-config=${runtime}`] });
  await createNamespace(kube, namespace);
  config = loadKubeConfig({ path: kube.adminKubeconfig, env: {} }).kubeConfig;
});
afterAll(async () => {
  await kube.stop();
  removeTemporaryDir(dir);
});

it('nowhere, if it is told to use the ClusterTrustBundle: it is ready, and only its log says so', async () => {
  const extraEnv = { ENABLE_CLUSTER_TRUST_BUNDLE_API: 'true' };
  const istiod = await startIstiod({ kube, rootCaDir: join(dir, 'none'), namespace, extraEnv });
  try {
    await istiod.ready();
    expect(await istiod.peerCertificates()).toHaveLength(1);
    await waitFor('a line of its log', () => /ClusterTrustBundle/.test(istiod.log()), { log: istiod.log });
    const read = async (place: TrustPlace) => {
      const reader = new MeshBundleReader(createKubeClient(config), systemClock);
      const request = { namespace, revisions: ['default'], settings: defaultIstiodValues };
      return (await reader.read(request, [place], 0, new AbortController().signal)).bundles;
    };
    expect(await read({ kind: 'ClusterTrustBundle' })).toEqual([]);
    expect(await read({ kind: 'ConfigMap', name: 'istio-ca-root-cert' })).toEqual([]);
  } finally {
    await istiod.stop();
  }
});
