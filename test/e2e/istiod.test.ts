/** `Ready` means proven: on a real API server and Vault, under the shipped RBAC, with replicas that the test writes by hand. */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from '@jest/globals';
import { createNamespace, makeTemporaryDir, sharedStack, waitFor } from '../stack/index.ts';
import { kubeWrites, vaultWrites, waitForReads } from '../support/audit.ts';
import { applyOk, conditionOf, getResource, requestReconcile, waitForCondition, type Json } from '../support/cluster.ts'; // prettier-ignore
import { eventsOf } from '../support/events.ts';
import { useOperator } from '../support/harness.ts';
import { podTemplateOf } from '../support/istiod-pod.ts';
import { hangingInit, issueLeaf, playIstiod, Replicas, wellAt, writeMeshRoot, type Identity, type PlayedIstiod } from '../support/istiod-replicas.ts'; // prettier-ignore
import { servedBy } from '../support/look.ts';
import { makeScene, type Scene } from '../support/scene.ts';

const { kube, vaults } = sharedStack();
const { operator } = useOperator(['--resync=2s']);
const namespace = 'replicas';
let scene: Scene;
let replicas: Replicas;
let istiods: [PlayedIstiod, PlayedIstiod] | undefined;
/** The status of the second replica's Pod. */
const second = () => wellAt(istiods?.[1].address ?? '');
let leaf: Identity;
let root: string;

/** What istiod would make for itself. */
function selfSigned(): Identity {
  const dir = makeTemporaryDir('self-signed');
  execFileSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-subj', '/O=cluster.local', '-keyout', 'key.pem', '-out', 'cert.pem'], { cwd: dir, stdio: 'pipe' }); // prettier-ignore
  const read = (name: string) => readFileSync(join(dir, name), 'utf8');
  return { key: read('key.pem'), chain: read('cert.pem') };
}

interface Shown {
  istiodProven?: string;
  istiod?: { pod: string; phase: string; reason: string; message: string }[];
}
const shown = async () => (await getResource(kube, namespace, 'istioca')).status as Shown;
const istiodReady = (what: { status: string; reason: string }) =>
  waitForCondition(kube, namespace, 'istioca', { type: 'IstiodReady', ...what });

beforeAll(async () => {
  scene = await makeScene(kube, vaults.OpenBao, { namespace });
  // other tests leave roots of other meshes on this API server: these two namespaces are this one's
  const expression = { key: 'kubernetes.io/metadata.name', operator: 'In', values: [namespace, `${namespace}-shop`] };
  await applyOk(kube, {
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: { name: 'istio', namespace },
    data: { mesh: JSON.stringify({ discoverySelectors: [{ matchExpressions: [expression] }] }) },
  });
  await applyOk(kube, scene.resource);
  await waitForCondition(kube, namespace, 'istioca', { type: 'Provisioned', status: 'True' });
  [leaf, root] = await Promise.all([issueLeaf(scene), servedBy(scene, 'pki')]);
  istiods = await Promise.all([playIstiod(leaf), playIstiod(leaf)]);
});
afterAll(() => istiods?.forEach(({ server }) => server.close()));

/** Metrics follow the status. */
const measured = (line: RegExp) => waitFor(String(line), async () => line.test(await operator().metrics()));

it('no istiod yet is Unknown, and nothing else is missing', async () => {
  const resource = await istiodReady({ status: 'Unknown', reason: 'IstiodNotFound' });
  expect(conditionOf(resource, 'Ready')).toMatchObject({ status: 'Unknown', reason: 'IstiodNotFound' });
});

it('two replicas that serve the CA make it Ready', async () => {
  const path = `/apis/install.tetrate.io/v1alpha1/namespaces/${namespace}/controlplanes/controlplane`;
  replicas = new Replicas(scene, podTemplateOf((await kube.request('GET', path)).body as Json));
  await writeMeshRoot(kube, namespace, root);
  await replicas.deploy(2);
  for (const [i, { address }] of (istiods ?? []).entries()) await replicas.pod(`istiod-${i + 1}`, wellAt(address));
  const resource = await waitForCondition(kube, namespace, 'istioca', { type: 'Ready', status: 'True' });
  expect(conditionOf(resource, 'IstiodReady')).toMatchObject({ status: 'True', reason: 'IstiodProven' });
  expect(await shown()).toMatchObject({
    istiodProven: '2/2',
    istiod: [
      { pod: 'istiod-1', phase: 'Proven', reason: 'Handshake' },
      { pod: 'istiod-2', phase: 'Proven', reason: 'Handshake' },
    ],
  });
  await measured(/^istio_vault_ca_istiod_replicas\{namespace="replicas",name="istioca",phase="Proven"\} 2$/m);
  await measured(/^istio_vault_ca_istiod_not_after_seconds\{namespace="replicas",name="istioca",pod="istiod-2"\} \d/m);
}); // prettier-ignore

it('and then nothing is written, however often it is looked at', async () => {
  const writes = async () => [await vaultWrites(vaults.OpenBao), await kubeWrites(kube)];
  // a look that listed no Deployment may have found its pods, and then the role of a guess stands until the next one
  await requestReconcile(kube, namespace, 'istioca', 'once more');
  // what it wrote is in the audit log by then
  await waitForReads(vaults.OpenBao, `sys/mounts/${namespace}-kv`, 1);
  const before = await writes();
  await waitForReads(vaults.OpenBao, `sys/mounts/${namespace}-kv`, 5);
  expect(await writes()).toEqual(before);
});

it('a replica that signs by itself is a critical condition, an Event and a metric', async () => {
  istiods?.[1].show(selfSigned());
  const status = second() as { containerStatuses: Json[] };
  const restarted = status.containerStatuses.map((one) => ({ ...one, restartCount: 1 }));
  await replicas.status('istiod-2', { ...status, containerStatuses: restarted });
  const resource = await istiodReady({ status: 'False', reason: 'SelfSignedFallback' });
  expect(conditionOf(resource, 'Ready')).toMatchObject({ status: 'False', reason: 'SelfSignedFallback' });
  expect((await shown()).istiod?.[0]).toMatchObject({ pod: 'istiod-2', phase: 'SelfSignedFallback', reason: 'FilesMissing' }); // prettier-ignore
  await measured(/^istio_vault_ca_self_signed_fallback\{namespace="replicas",name="istioca"\} 1$/m);
  await waitFor('the Event', async () => {
    const events = await eventsOf(kube, namespace);
    return events.filter((e) => e.type === 'Warning' && e.reason === 'SelfSignedFallback').length === 1;
  });
});

it('a pod in its place that hangs in its agent is told from it, at once', async () => {
  await replicas.remove('istiod-2');
  await replicas.pod('istiod-3', hangingInit());
  await istiodReady({ status: 'False', reason: 'VaultInitFailed' });
  const { istiod, istiodProven } = await shown();
  expect([istiodProven, istiod?.map(({ pod, phase }) => `${pod} ${phase}`)]).toEqual([
    '1/2',
    ['istiod-3 VaultInitFailed', 'istiod-1 Proven'],
  ]);
  expect(istiod?.[0]?.message).toContain('kubectl logs -n replicas istiod-3 -c vault-agent-init');
});

it('a namespace without this root keeps it from being Ready, and is named', async () => {
  istiods?.[1].show(leaf);
  await replicas.status('istiod-3', second());
  await istiodReady({ status: 'True', reason: 'IstiodProven' });
  // the other one is of another mesh, and does not count
  for (const name of ['replicas-shop', 'replicas-other']) {
    await createNamespace(kube, name);
    await writeMeshRoot(kube, name, selfSigned().chain);
  }
  const resource = await istiodReady({ status: 'False', reason: 'RootNotDistributed' });
  const message = conditionOf(resource, 'IstiodReady')?.message;
  expect([message?.includes('replicas-shop'), message?.includes('replicas-other')]).toEqual([true, false]);
  await kube.request('DELETE', '/api/v1/namespaces/replicas-shop/configmaps/istio-ca-root-cert');
  await istiodReady({ status: 'True', reason: 'IstiodProven' });
});
