/** GitOps tools apply things in waves, in whatever order: target, its CRD, our own CRD, Vault and the namespace may each come last. */
import { afterAll, describe, expect, it } from '@jest/globals';
import { connect, createServer, type Server } from 'node:net';
import { dig } from '../../src/api/json.ts';
import { sharedStack, waitFor } from '../stack/index.ts';
import { freePort } from '../stack/ports.ts';
import {
  applyOk,
  conditionOf,
  getResource,
  installOperator,
  resourcePath,
  setStatus,
  waitForCondition,
  type Json,
} from '../support/cluster.ts';
import { sailCrds, sailStatus } from '../support/control-plane-crds.ts';
import { useOperator } from '../support/harness.ts';
import { controlPlane, makeScene, type Scene } from '../support/scene.ts';

const { kube, vaults } = sharedStack();
const { restart } = useOperator();

const isAs = ({ namespace, name }: Scene, type: string, status: string, reason?: string) =>
  waitForCondition(kube, namespace, name, { type, status, ...(reason === undefined ? {} : { reason }) });
const patched = (of: Scene) => isAs(of, 'ControlPlanePatched', 'True');

const crdPath = (name: string) => `/apis/apiextensions.k8s.io/v1/customresourcedefinitions/${name}`;
async function withoutCrd(name: string, collection: string): Promise<void> {
  await kube.request('DELETE', crdPath(name));
  await waitFor(
    `${name} to be gone`,
    async () =>
      (await kube.request('GET', crdPath(name))).status === 404 &&
      (await kube.request('GET', collection)).status === 404,
  );
}

describe('what comes last', () => {
  it('may be the control plane', async () => {
    const of = await makeScene(kube, vaults.OpenBao, { namespace: 'last-target', overlays: null });
    await applyOk(kube, of.resource);
    await isAs(of, 'ControlPlanePatched', 'False', 'ControlPlaneNotFound');
    await isAs(of, 'Provisioned', 'True');
    await applyOk(kube, controlPlane(of.namespace, []));
    await patched(of);
  });

  it('may be istiod, which may also go and come back: what it allows keeps no issued CA from being renewed', async () => {
    const of = await makeScene(kube, vaults.OpenBao, {
      namespace: 'last-istiod',
      spec: { intermediate: { ttl: '72h' } },
    });
    const path = `/apis/apps/v1/namespaces/${of.namespace}/deployments/istiod`;
    const install = (limit?: string) => {
      const env = limit === undefined ? [] : [{ name: 'MAX_WORKLOAD_CERT_TTL', value: limit }];
      const labels = { app: 'istiod' };
      const template = {
        metadata: { labels },
        spec: { containers: [{ name: 'discovery', image: 'example.invalid/none', env }] },
      };
      const metadata = { name: 'istiod', namespace: of.namespace, labels };
      const spec = { selector: { matchLabels: labels }, template };
      return applyOk(kube, { apiVersion: 'apps/v1', kind: 'Deployment', metadata, spec });
    };
    const renewed = async (generation: number) => {
      const annotations = { 'istiovaultca.io/rotate-intermediate': String(generation) };
      await kube.request('PATCH', resourcePath(of.namespace, of.name), { metadata: { annotations } });
      return await waitFor(`generation ${generation}`, async () => {
        const found = await getResource(kube, of.namespace, of.name);
        return found.status?.intermediate?.generation === generation && found;
      });
    };
    await applyOk(kube, of.resource);
    await isAs(of, 'IntermediateReady', 'False', 'IntermediateTTLTooShort');
    await install('24h');
    await isAs(of, 'IntermediateReady', 'True');
    await kube.request('DELETE', path);
    await isAs(of, 'IstiodReady', 'Unknown', 'IstiodNotFound');
    expect(conditionOf(await renewed(2), 'IntermediateReady')).toMatchObject({ status: 'True' });
    await install();
    const said = await isAs(of, 'IntermediateReady', 'False', 'IntermediateTTLTooShort');
    expect(conditionOf(said, 'IntermediateReady')?.message).toMatch(/\(2160h\).* It is renewed all the same/);
    await renewed(3);
    await install('24h');
    await isAs(of, 'IntermediateReady', 'True');
  });

  it("may be the control plane's CRD", async () => {
    await withoutCrd('istios.sailoperator.io', '/apis/sailoperator.io/v1/istios');
    await withoutCrd('istiorevisions.sailoperator.io', '/apis/sailoperator.io/v1/istiorevisions');
    const of = await makeScene(kube, vaults.OpenBao, {
      namespace: 'last-crd',
      overlays: null,
      spec: { controlPlane: { kind: 'Sail', name: 'last' } },
    });
    await applyOk(kube, of.resource);
    const found = await isAs(of, 'ControlPlanePatched', 'False', 'ControlPlaneNotFound');
    expect(conditionOf(found, 'ControlPlanePatched')?.message).toMatch(/serves no Istio \(its CRD is not installed\)/);
    await isAs(of, 'Provisioned', 'True');
    for (const crd of sailCrds) await applyOk(kube, crd);
    const istio = {
      apiVersion: 'sailoperator.io/v1',
      kind: 'Istio',
      metadata: { name: 'last' },
      spec: { namespace: of.namespace },
    };
    await waitFor(
      'the CRD to be served',
      async () => (await kube.request('GET', '/apis/sailoperator.io/v1/istios')).status === 200,
    );
    await applyOk(kube, istio);
    await setStatus(kube, '/apis/sailoperator.io/v1/istios/last', sailStatus('last'));
    await waitForCondition(kube, of.namespace, of.name, { type: 'ControlPlanePatched', status: 'True' }, 90_000);
    await kube.request('DELETE', '/apis/sailoperator.io/v1/istios/last');
  });

  describe('may be Vault', () => {
    let door: Server | undefined;
    afterAll(() => void door?.close());

    it('as far as the network is concerned', async () => {
      const port = await freePort();
      const real = new URL(vaults.OpenBao.address);
      const of = await makeScene(kube, vaults.OpenBao, {
        namespace: 'last-vault',
        spec: { vault: { address: `https://127.0.0.1:${port}`, injectorAddress: vaults.OpenBao.address } },
      });
      await applyOk(kube, of.resource);
      await isAs(of, 'VaultReady', 'False', 'Unreachable');
      door = createServer((socket) => {
        const beyond = connect(Number(real.port), real.hostname);
        for (const [from, to] of [
          [socket, beyond],
          [beyond, socket],
        ] as const)
          from.on('error', () => to.destroy()).pipe(to);
      });
      await new Promise<void>((resolve) => door?.listen(port, '127.0.0.1', resolve));
      await patched(of);
    });
  });

  it('may be the namespace, for an operator that is confined to it', async () => {
    // its Lease would bear another name, for which the shipped Role has no right
    await restart(['--namespaces=last-namespace', '--leader-elect=false']);
    const of = await makeScene(kube, vaults.OpenBao, { namespace: 'last-namespace' });
    await applyOk(kube, of.resource);
    await patched(of);
  });

  it('may be our own CRD', async () => {
    const name = 'istiovaultcas.istiovaultca.io';
    const all = (await kube.request('GET', '/apis/istiovaultca.io/v1alpha1/istiovaultcas')).body as { items: Json[] };
    for (const one of all.items) {
      const path = `/apis/istiovaultca.io/v1alpha1/namespaces/${String(dig(one, 'metadata', 'namespace'))}/istiovaultcas/${String(dig(one, 'metadata', 'name'))}`;
      await kube.request('PATCH', path, { metadata: { finalizers: [] } });
    }
    await withoutCrd(name, '/apis/istiovaultca.io/v1alpha1/istiovaultcas');
    await restart([]);
    await installOperator(kube);
    const of = await makeScene(kube, vaults.OpenBao, { namespace: 'last-own-crd' });
    await applyOk(kube, of.resource);
    await waitForCondition(kube, of.namespace, of.name, { type: 'ControlPlanePatched', status: 'True' }, 90_000);
    expect((await getResource(kube, of.namespace, of.name)).status?.observedGeneration).toBe(1);
  });
});
