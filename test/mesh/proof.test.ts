/** `Ready` means proven, with the real agent and the real istiod on the stand-in for a node: what the operator says of what happens to them. */
import { expect, it } from '@jest/globals';
import { readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createNamespace, sharedStack, waitFor } from '../stack/index.ts';
import { kubeWrites, vaultWrites, waitForReads } from '../support/audit.ts';
import { applyOk, getResource, waitForCondition } from '../support/cluster.ts';
import { makeSelfSigned } from '../support/foreign-root.ts';
import { useMeshes } from '../support/mesh.ts';
import { startRevision } from '../support/revision.ts';
import { secretWith } from '../support/samples.ts';
import { Workloads } from '../support/workloads.ts';

const { kube, vaults } = sharedStack();
const vault = vaults.OpenBao;
const meshes = useMeshes(['--resync=2s']);

async function proven(namespace: string): Promise<string | undefined> {
  const { status } = (await getResource(kube, namespace, 'istioca')) as { status?: { istiodProven?: string } };
  return status?.istiodProven;
}

const three = 'proof-three';

it('three replicas are proven, and then nothing is written', async () => {
  await meshes.start(three, { replicas: 3 });
  await waitForCondition(kube, three, 'istioca', { type: 'Ready', status: 'True' }, 120_000);
  const phases = (await meshes.replicas(three)).map(({ phase }) => phase);
  expect([await proven(three), phases]).toEqual(['3/3', ['Proven', 'Proven', 'Proven']]);
  const writes = async () => [await vaultWrites(vault), await kubeWrites(kube)];
  // the Event of `Ready` follows its status, and an audit log may lag behind both
  await waitFor('the Event of Ready', async () => {
    const { body } = await kube.request('GET', `/apis/events.k8s.io/v1/namespaces/${three}/events`);
    const { items } = body as { items: { reason: string; regarding: { kind: string } }[] };
    return items.some(({ reason, regarding }) => reason === 'Ready' && regarding.kind === 'IstioVaultCA');
  });
  await waitForReads(vault, `sys/mounts/${three}-kv`, 2);
  const before = await writes();
  await waitForReads(vault, `sys/mounts/${three}-kv`, 5);
  expect(await writes()).toEqual(before);
});

it('an istiod that lacks a file says which, and is proven again when it is back', async () => {
  const [first] = await meshes.replicas(three);
  const running = meshes.node.pod(three, first!.pod);
  const file = join(running.folder('/vault/secrets'), 'cert-chain.pem');
  const content = await readFile(file);
  await rm(file);
  running.kill('discovery', 'SIGTERM');
  const crashed = await meshes.replica(three, 'IstiodCrash', 'IncompleteBundle');
  expect(crashed).toMatchObject({ pod: first!.pod, container: 'discovery' });
  expect(crashed.message).toContain('incomplete signing CA bundle detected');
  await writeFile(file, content);
  await meshes.proven(three);
});

it('an agent that may not log in says so, in the words of Vault', async () => {
  const namespace = 'proof-refused';
  await meshes.start(namespace, { spec: { kubernetesAuth: { serviceAccountNames: ['nobody'] } } });
  const refused = await meshes.replica(namespace, 'VaultInitFailed', 'LoginRefused');
  expect(refused.container).toBe('vault-agent-init');
  expect(refused.message).toMatch(/Code: 403.*service account name not authorized/);
  expect(refused.message).toContain('ServiceAccount istiod');
  await meshes.istiodReady(namespace, 'False', 'VaultInitFailed');
});

it('an istiod that the injector has missed signs by itself, and that is said; made anew it is proven', async () => {
  const namespace = 'proof-missed';
  await meshes.node.injector.stop();
  await meshes.start(namespace);
  const fallen = await meshes.replica(namespace, 'SelfSignedFallback', 'NotInjected');
  expect(fallen.message).toContain('Use self-signed certificate as the CA certificate');
  expect(fallen.message).toContain('failurePolicy');
  await meshes.istiodReady(namespace, 'False', 'SelfSignedFallback');
  await meshes.node.injector.start();
  await meshes.remake(namespace, fallen.pod);
  await meshes.proven(namespace);
});

/** Values of istiod's chart by which it serves a certificate from Secret `own`. */
const withOwnCertificate = {
  extraContainerArgs: ['--tlsCertFile=/etc/own/tls.crt', '--tlsKeyFile=/etc/own/tls.key', '--caCertFile=/etc/own/ca.crt'],
  volumes: [{ name: 'own', secret: { secretName: 'own' } }],
  volumeMounts: [{ name: 'own', mountPath: '/etc/own' }],
}; // prettier-ignore

it('an istiod that serves the certificate of somebody else is not said to sign by itself', async () => {
  const namespace = 'proof-other';
  const own = await makeSelfSigned('istiod');
  await createNamespace(kube, namespace);
  await applyOk(kube, secretWith(namespace, 'own', { 'tls.crt': own.pem, 'tls.key': own.key, 'ca.crt': own.pem }));
  await meshes.start(namespace, { tetrate: { values: withOwnCertificate } });
  const other = await meshes.replica(namespace, 'Pending', 'OtherCertificate');
  expect(other.message).toContain('--tlsCertFile, and its log says that it signs with the CA in its files');
  await meshes.istiodReady(namespace, 'Unknown', 'IstiodNotProven');
});

it('an istiod that serves a certificate of somebody else under the root is asked to sign one, and proven by it', async () => {
  const namespace = 'proof-signature';
  const mount = `${namespace}-pki`;
  const before = async () => {
    const names = { allow_any_name: true, enforce_hostnames: false, key_type: 'ec', key_bits: 256 };
    await vault.request('POST', `${mount}/roles/serving`, names);
    const { body } = await vault.request('POST', `${mount}/issue/serving`, { common_name: `istiod.${namespace}.svc` });
    const { data } = body as { data: { certificate: string; private_key: string; issuing_ca: string } };
    const files = { 'tls.crt': data.certificate, 'tls.key': data.private_key, 'ca.crt': data.issuing_ca };
    await applyOk(kube, secretWith(namespace, 'own', files));
  };
  await meshes.start(namespace, { tetrate: { values: withOwnCertificate }, before });
  await meshes.proven(namespace);
  const replica = await meshes.replica(namespace, 'Proven', 'Signature');
  expect(replica.message).toContain('signed one of generation 1');
});

it('after a renewal all replicas are proven on the new intermediate', async () => {
  await meshes.patch(three, { metadata: { annotations: { 'istiovaultca.io/rotate-intermediate': 'now' } } });
  await waitFor('generation 2, proven', async () => {
    const { status } = await getResource(kube, three, 'istioca');
    const istiod = await meshes.replicas(three);
    const all = istiod.length === 3 && istiod.every(({ phase, message }) => phase === 'Proven' && message.includes('generation 2')); // prettier-ignore
    return status?.intermediate?.generation === 2 && all;
  }, { timeoutMs: 120_000 }); // prettier-ignore
  await waitForCondition(kube, three, 'istioca', { type: 'Ready', status: 'True' }, 120_000);
});

it('two revisions under one root are proven, each on its own intermediate, and their workloads verify each other', async () => {
  const namespace = 'proof-revisions';
  await meshes.start(namespace, { spec: { root: { shared: true } } });
  await meshes.proven(namespace);
  await startRevision(kube, vault, namespace, 'canary');
  const second = { kube, namespace, revision: 'canary' };
  const workloads = new Workloads({ kube, namespace, second, certificateSeconds: 20 });
  await workloads.start();
  await workloads.renewed();
  await workloads.stop();
  expect(workloads.failures).toEqual([]);
  const [stable, canary] = await Promise.all(['istioca', 'canary'].map((name) => getResource(kube, namespace, name)));
  expect(canary?.status?.root?.fingerprint).toBe(stable?.status?.root?.fingerprint);
  expect(canary?.status?.intermediate?.fingerprint).not.toBe(stable?.status?.intermediate?.fingerprint);
});
