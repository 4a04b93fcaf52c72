/**
 * Istiods that serve an older CA than the live one, or a CA of their own, as the change does not reach them. Made for real on the
 * stand-in for a node; see `failures-start.test.ts`.
 */
import { beforeAll, describe, expect, it } from '@jest/globals';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { sharedStack, waitFor } from '../stack/index.ts';
import { podsCome } from '../support/admission.ts';
import { blocks, readCaFiles } from '../support/certificates.ts';
import { applyOk } from '../support/cluster.ts';
import { notThis } from '../support/failing-mesh.ts';
import { useMeshes } from '../support/mesh.ts';
import { makeScene, merge } from '../support/scene.ts';

const { kube, vaults } = sharedStack();
const vault = vaults.OpenBao;
const meshes = useMeshes(['--resync=5s']);

beforeAll(() =>
  meshes.start('fail-stale', { replicas: 2, spec: { rollout: 'Never', delivery: { refreshInterval: '1s' } } }),
);

describe('an older CA', () => {
  const namespace = 'fail-stale';
  /** Its istiod has run since long. */
  let untouched: string;

  it('a replica whose agent hangs keeps the intermediate of before', async () => {
    await meshes.proven(namespace);
    const [hung, other] = await meshes.replicas(namespace);
    untouched = other!.pod;
    const running = meshes.node.pod(namespace, hung!.pod);
    const folder = running.folder('/vault/secrets');
    const { chain } = await readCaFiles(folder);
    running.kill('vault-agent', 'SIGSTOP');
    await meshes.patch(namespace, { metadata: { annotations: { 'istiovaultca.io/rotate-intermediate': 'now' } } });
    const stale = await meshes.replica(namespace, 'StaleCA', 'OlderIntermediate');
    expect(stale).toMatchObject({ pod: hung!.pod, container: 'discovery' });
    expect(stale.message).toContain(
      'it serves a certificate of the intermediate of generation 1, live is generation 2',
    );
    expect(stale.message).toContain('kubectl rollout restart -n fail-stale deployment/istiod');
    await meshes.istiodReady(namespace, 'False', 'StaleCA');
    await waitFor('the other replica to be proven', async () =>
      (await meshes.replicas(namespace)).some(({ pod, phase }) => pod === untouched && phase === 'Proven'),
      { timeoutMs: 120_000 },
    ); // prettier-ignore
    running.kill('vault-agent', 'SIGCONT');
    await meshes.proven(namespace);

    const { chain: newChain } = await readCaFiles(folder);
    running.kill('vault-agent', 'SIGSTOP');
    await writeFile(join(folder, 'cert-chain.pem'), chain);
    running.kill('discovery', 'SIGTERM');
    const mixed = await meshes.replica(namespace, 'StaleCA', 'ChainMismatch');
    expect(mixed.message).toContain('cert-chain.pem is of another generation');
    await writeFile(join(folder, 'cert-chain.pem'), newChain);
    running.kill('vault-agent', 'SIGCONT');
    running.kill('discovery', 'SIGTERM');
    await meshes.proven(namespace);
  });

  it('an istiod that hangs', async () => {
    const running = meshes.node.pod(namespace, untouched);
    running.kill('discovery', 'SIGSTOP');
    const { message } = await meshes.replica(namespace, 'IstiodCrash', 'NotReady');
    expect(message).toContain('it has not become ready within a minute');
    running.kill('discovery', 'SIGCONT');
    await meshes.proven(namespace);
  });
});

describe('a control plane that is not acted on', () => {
  const namespace = 'fail-unpropagated';

  it('in a mesh of today, and at a renewal', async () => {
    const scene = await makeScene(kube, vault, { namespace });
    await meshes.allowLogs(namespace);
    meshes.runTetrate(namespace);
    const path = `/api/v1/namespaces/${namespace}/configmaps/istio-ca-root-cert`;
    const root = await waitFor(
      'istiod of today to have written its root',
      async () => ((await kube.request('GET', path)).body as { data?: Record<string, string> }).data?.['root-cert.pem'],
      { timeoutMs: 60_000 },
    );
    const [today] = blocks(root);
    const sha256 = today!.fingerprint256.replaceAll(':', '').toLowerCase();
    await meshes.node.injector.register(notThis(namespace));
    const annotations = { 'istiovaultca.io/confirm-root-change': sha256 };
    await applyOk(kube, merge(scene.resource, { metadata: { annotations } }));
    const { message: not } = await meshes.replica(namespace, 'Pending', 'NotConfigured');
    expect(not).toContain('the control plane does not carry the fields for istiod yet: ControlPlanePatched says why');
    await meshes.stopTetrate(namespace);
    await meshes.node.injector.register();
    await podsCome(kube, namespace, 'injected');
    const { message } = await meshes.replica(namespace, 'SelfSignedFallback', 'NotPropagated');
    expect(message).toContain('the pod does not carry the fields that the control plane has: see IstiodReady');
    const ready = await meshes.istiodReady(namespace, 'False', 'NotPropagated');
    expect(ready.message).toContain('look at that operator');
    meshes.runTetrate(namespace);
    await meshes.proven(namespace);

    await meshes.stopTetrate(namespace);
    await meshes.patch(namespace, { metadata: { annotations: { 'istiovaultca.io/rotate-intermediate': 'now' } } });
    const again = await meshes.istiodReady(namespace, 'False', 'NotPropagated');
    expect(again.message).toContain('Deployment istiod does not have istiovaultca.io/ca-digest');
    const stale = await meshes.replica(namespace, 'StaleCA', 'OlderIntermediate');
    expect(stale.message).toContain('its pod template is of before the change');
    meshes.runTetrate(namespace);
    await meshes.proven(namespace);
  });
});
