/**
 * docs/disaster-recovery.md, walked through: a backup, an older snapshot of Vault, and a Vault that is lost, with a backup and without one. On an OpenBao of
 * this file's own with integrated storage, behind an address that stays when the server is replaced.
 */
import { execFile } from 'node:child_process';
import { readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, it } from '@jest/globals';
import { Decrypter, generateX25519Identity, identityToRecipient } from 'age-encryption';
import { dumpYaml } from '../../src/runtime/yaml.ts';
import { makeTemporaryDir, sharedStack, startVault, waitFor, type VaultServer } from '../stack/index.ts';
import { startRaft, type RaftCluster } from '../stack/raft.ts';
import { vaultClient } from '../stack/vault.ts';
import { vaultWrites } from '../support/audit.ts';
import { leaks, secretsOf } from '../support/canary.ts';
import { defects } from '../support/certificates.ts';
import { applyOk, conditionOf, requestReconcile, resourcePath, waitForCondition, type Json, type Resource } from '../support/cluster.ts'; // prettier-ignore
import { useOperator } from '../support/harness.ts';
import { podTemplateOf } from '../support/istiod-pod.ts';
import { issueLeaf, playIstiod, Replicas, wellAt, writeMeshRoot, type PlayedIstiod } from '../support/istiod-replicas.ts'; // prettier-ignore
import { entry, servedBy } from '../support/look.ts';
import { renderFiles } from '../support/render.ts';
import { runProgram, type Said } from '../support/operator.ts';
import { grantLongTokens, grantOperator, makeScene, merge, prepareVault, type Scene, type Vault } from '../support/scene.ts'; // prettier-ignore
import { startService, type Service } from '../support/service.ts';

const { kube } = sharedStack();
useOperator();

const dir = makeTemporaryDir('disaster');
const namespace = 'disaster';
/** A mesh of which there is no backup. */
const unsaved = 'disaster-unsaved';
const saved = join(dir, 'backup.age');
const keys = join(dir, 'keys');
let raft: RaftCluster;
let service: Service;
let fresh: VaultServer | undefined;
const playedIstiods: PlayedIstiod[] = [];
let scene: Scene;
let other: Scene;
let recipient: string;
/** Everything that the commands printed. */
const printed: string[] = [];

let looks = 0;
const look = (name = namespace): Promise<Resource> => requestReconcile(kube, name, 'istioca', String((looks += 1)));
const annotate = (name: string, texts: Record<string, string | null>) =>
  kube.request('PATCH', resourcePath(name, 'istioca'), { metadata: { annotations: texts } });

async function run(command: string, resource: Json, ...flags: string[]): Promise<Said> {
  const file = join(makeTemporaryDir('manifest'), 'ca.yaml');
  await writeFile(file, dumpYaml(resource));
  const said = await runProgram([command, '-f', file, `--kubeconfig=${kube.adminKubeconfig}`, ...flags]);
  printed.push(said.stdout, said.stderr);
  return said;
}
const backup = (path: string, of = scene) => run('backup', of.resource, `--recipient=${recipient}`, `--output=${path}`);
const restore = (path: string, resource = scene.resource, ...flags: string[]) =>
  run('restore', resource, `--identity=${keys}`, ...flags, path);

/** The command line of OpenBao itself. */
const bao = (...args: string[]) => {
  const { agentBinary, address, rootToken } = raft.facts(service.address);
  const env = { BAO_ADDR: address, BAO_TOKEN: rootToken, BAO_CACERT: join(dir, 'ca.pem') };
  return promisify(execFile)(agentBinary, args, { env, cwd: dir });
};

/** Has the resources reach another server at the same address. */
async function replaceServer(next: Vault, port: number, scenes: readonly Scene[]): Promise<void> {
  service.route([port]);
  await prepareVault(kube, next);
  for (const one of scenes) {
    const role = `operator-${one.namespace}`;
    Object.assign(one, { vault: next });
    await grantOperator(next, role, one.namespace, one.resource['spec'] as Json);
    await applyOk(kube, {
      apiVersion: 'v1',
      kind: 'Secret',
      metadata: { name: 'istio-vault-ca-tls', namespace: one.namespace },
      data: { 'ca.crt': Buffer.from(next.caPem ?? '').toString('base64') },
    });
  }
}

/** Waits until a CA generation is published, recorded, and nothing of it is staged any more. */
const settledAt = (number: number) =>
  waitFor(`CA generation ${number}`, async () => {
    const state = JSON.parse((await entry(scene, '-state'))?.['state'] ?? '{}') as {
      intermediate?: { generation: number };
    };
    const published = (await entry(scene))?.['generation'] === String(number);
    return published && state.intermediate?.generation === number && (await entry(scene, '-staging')) === undefined;
  });

/** What the message of `RootLost` says that annotation `allow-reissue` must be. */
const allowed = async (name: string): Promise<string> => {
  const message = conditionOf(await look(name), 'RootReady')?.message ?? '';
  return /istiovaultca\.io\/allow-reissue=([0-9a-f:]*[0-9a-f])/.exec(message)?.[1] ?? '';
};

/** Acts as an istiod with a certificate of the intermediate that is in use. */
async function play(of: Scene): Promise<PlayedIstiod> {
  const played = await playIstiod(await issueLeaf(of));
  playedIstiods.push(played);
  return played;
}

/** Has the next CA generation issued. */
async function generation(number: number, text: string): Promise<void> {
  await annotate(namespace, { 'istiovaultca.io/rotate-intermediate': text });
  await settledAt(number);
}

const exists = async (path: string) => (await scene.vault.request('GET', path)).status === 200;
const filesOf = async (of: Scene) => {
  const found = (await entry(of)) ?? {};
  const { 'ca-cert.pem': cert = '', 'ca-key.pem': key = '', 'cert-chain.pem': chain = '', 'root-cert.pem': root = '' } = found; // prettier-ignore
  return { cert, key, chain, root };
};
const files = () => filesOf(scene);

beforeAll(async () => {
  const identity = await generateX25519Identity();
  recipient = await identityToRecipient(identity);
  await writeFile(keys, `# public key: ${recipient}\n${identity}\n`);
  raft = await startRaft('OpenBao', 1);
  await raft.initialize();
  service = await startService([raft.nodes[0]?.port ?? 0]);
  await writeFile(join(dir, 'ca.pem'), raft.caPem);
  const vault = vaultClient(raft.facts(service.address));
  await prepareVault(kube, vault);
  const spec = { vault: { address: service.address }, intermediate: { maxWorkloadCertTTL: '24h' } };
  scene = await makeScene(kube, vault, { namespace, spec });
  // KV 1: without versions
  other = await makeScene(kube, vault, { namespace: unsaved, spec: merge(spec, { keyStore: { version: 1 } }) });
  for (const one of [scene, other]) {
    await grantLongTokens(one);
    await applyOk(kube, one.resource);
    await waitForCondition(kube, one.namespace, 'istioca', { type: 'Provisioned', status: 'True' });
  }
});
afterAll(async () => {
  for (const { server } of playedIstiods) server.close();
  await service.stop();
  await fresh?.stop();
  await raft.stop();
});

it('backup reads the CA with the rights of the resource, writes nothing to Vault, and one file that shows nothing', async () => {
  const writes = await vaultWrites(scene.vault);
  const said = await backup(saved);
  expect(said).toMatchObject({ code: 0, stdout: '' });
  expect(said.stderr).toMatch(
    /^Backed up IstioVaultCA disaster\/istioca, CA generation 1: .*\nEncrypted for 1 recipient\./,
  );
  expect(await vaultWrites(scene.vault)).toEqual(writes);
  expect((await stat(saved)).mode & 0o777).toBe(0o600);
  const bytes = await readFile(saved);
  const secrets = await secretsOf(scene);
  expect(secrets.length).toBeGreaterThan(1);
  expect(leaks({ file: bytes.toString('latin1'), said: said.stderr }, secrets)).toEqual([]);
  // what the canary looks for is what is inside
  const decrypter = new Decrypter();
  decrypter.addIdentity((await readFile(keys, 'utf8')).split('\n')[1] ?? '');
  const plain = (JSON.parse(await decrypter.decrypt(bytes, 'text')) as { ca: Record<string, string> }).ca;
  expect(leaks({ plain: plain['ca-key.pem'] ?? '' }, secrets)).not.toEqual([]);
  expect(plain).toEqual(await entry(scene));
});

it('backup says which right is missing, and which recipient is none', async () => {
  const { vault, resource } = scene;
  const policy = { policy: 'path "sys/capabilities-self" { capabilities = ["update"] }\n' };
  await vault.request('PUT', 'sys/policies/acl/poor', policy);
  const bound = { bound_service_account_names: ['istio-vault-ca'], bound_service_account_namespaces: [namespace], audience: 'vault', token_policies: ['poor'] }; // prettier-ignore
  await vault.request('POST', 'auth/kubernetes/role/poor', bound);
  const poor = merge(resource, { spec: { vault: { auth: { kubernetes: { role: 'poor' } } } } });
  const said = await run('backup', poor, `--recipient=${recipient}`, `--output=${join(dir, 'poor.age')}`);
  expect(said).toMatchObject({ code: 1, stdout: '' });
  expect(said.stderr).toContain(
    `lacks read on sys/mounts/${namespace}-kv; read on ${namespace}-kv/data/istioca; read on ${namespace}-kv/data/istioca-state; add it`,
  );
  const [, identity = ''] = (await readFile(keys, 'utf8')).split('\n');
  const swapped = await run('backup', resource, `--recipient=${identity}`, `--output=${join(dir, 'none.age')}`);
  expect(swapped.code).toBe(1);
  expect(swapped.stderr).toMatch(/^istio-vault-ca: --recipient "\[redacted age key\]": must be public keys/);
});

it('restore leaves what is there already, overwrites nothing, and takes only what is of this resource', async () => {
  const writes = await vaultWrites(scene.vault);
  const again = await restore(saved);
  expect(again).toMatchObject({ code: 0, stderr: '' });
  expect(again.stdout).toContain(
    `Mount ${namespace}-kv/: present. KV entry ${namespace}-kv/istioca: present. KV entry ${namespace}-kv/istioca-state: present.`,
  );
  const foreign = await restore(saved, other.resource);
  expect(foreign.stderr).toContain(
    'is of IstioVaultCA disaster/istioca, and the manifest is of disaster-unsaved/istioca',
  );
  expect(await vaultWrites(scene.vault)).toEqual(writes);
  await bao('operator', 'raft', 'snapshot', 'save', 'older.snap');
  await generation(2, 'first');
  const refused = await restore(saved);
  expect(refused).toMatchObject({ code: 1, stdout: '' });
  expect(refused.stderr).toContain(`KV entry ${namespace}-kv/istioca exists at ${service.address} and is not what`);
  expect((await entry(scene))?.['generation']).toBe('2');
});

it('an older snapshot of Vault: requests since then are carried out again, under the same root', async () => {
  const before = { ...(await files()), root: await servedBy(scene, 'pki') };
  await bao('operator', 'raft', 'snapshot', 'restore', '-force', 'older.snap');
  await look();
  await settledAt(2);
  const after = await files();
  expect(defects(after)).toEqual([]);
  expect(after.root.trim()).toBe(before.root);
  expect(after.cert).not.toBe(before.cert);
  await waitForCondition(kube, namespace, 'istioca', { type: 'Provisioned', status: 'True' });
});

it('an older snapshot and a newer backup: the CA goes on exactly as it was', async () => {
  const newest = join(dir, 'newest.age');
  await generation(3, 'second');
  expect((await backup(newest)).code).toBe(0);
  const before = await files();
  await applyOk(kube, merge(scene.resource, { spec: { suspend: true } }));
  await waitForCondition(kube, namespace, 'istioca', { type: 'Ready', reason: 'Suspended' });
  await bao('operator', 'raft', 'snapshot', 'restore', '-force', 'older.snap');
  expect((await restore(newest)).stderr).toContain(`vault kv metadata delete -mount=${namespace}-kv istioca`);
  for (const name of ['istioca', 'istioca-state'])
    await bao('kv', 'metadata', 'delete', `-mount=${namespace}-kv`, name);
  expect(await restore(newest)).toMatchObject({ code: 0, stderr: '' });
  await applyOk(kube, scene.resource);
  await look();
  await waitForCondition(kube, namespace, 'istioca', { type: 'Provisioned', status: 'True' });
  expect(await files()).toEqual(before);
  expect(await servedBy(scene, 'ca')).toBe(before.cert.trim());
  await writeFile(saved, await readFile(newest));
});

it('a snapshot older than the root that workloads trust, and a newer backup: istiod never gets the older root', async () => {
  const first = await filesOf(other);
  await bao('operator', 'raft', 'snapshot', 'save', 'older-root.snap');
  await other.vault.request('DELETE', `${unsaved}-pki/issuer/default`);
  await annotate(unsaved, { 'istiovaultca.io/allow-reissue': await allowed(unsaved) });
  await waitFor('another root', async () => (await filesOf(other)).root !== first.root);
  await annotate(unsaved, { 'istiovaultca.io/allow-reissue': null });
  await waitForCondition(kube, unsaved, 'istioca', { type: 'Provisioned', status: 'True' });
  const second = await filesOf(other);
  const newer = join(dir, 'newer-root.age');
  expect((await backup(newer, other)).code).toBe(0);
  const played = await play(other);
  await writeMeshRoot(kube, unsaved, second.root);
  const path = `/apis/install.tetrate.io/v1alpha1/namespaces/${unsaved}/controlplanes/controlplane`;
  const replicas = new Replicas(other, podTemplateOf((await kube.request('GET', path)).body as Json));
  await replicas.deploy(1);
  await replicas.pod('istiod-1', wellAt(played.address));
  await waitForCondition(kube, unsaved, 'istioca', { type: 'Ready', status: 'True' });

  await applyOk(kube, merge(other.resource, { spec: { suspend: true } }));
  await waitForCondition(kube, unsaved, 'istioca', { type: 'Ready', reason: 'Suspended' });
  await bao('operator', 'raft', 'snapshot', 'restore', '-force', 'older-root.snap');
  expect((await filesOf(other)).root).toBe(first.root);
  for (const name of ['istioca', 'istioca-state']) await bao('kv', 'delete', `-mount=${unsaved}-kv`, name);
  expect(await restore(newer, other.resource)).toMatchObject({ code: 0, stderr: '' });
  await applyOk(kube, other.resource);
  await look(unsaved);
  // the key of the newer root is in no backup: the intermediate under it goes on
  const kept = await waitForCondition(kube, unsaved, 'istioca', { type: 'IstiodReady', status: 'True' });
  expect(conditionOf(kept, 'RootReady')).toMatchObject({ status: 'False', reason: 'RootLost' });
  expect(await filesOf(other)).toEqual(second);
  await replicas.remove('istiod-1');
});

it('the whole Vault is lost: RootLost, and nothing is made in the new one, until a restore brings the CA back', async () => {
  const istiod = await play(scene);
  const path = `/apis/install.tetrate.io/v1alpha1/namespaces/${namespace}/controlplanes/controlplane`;
  const replicas = new Replicas(scene, podTemplateOf((await kube.request('GET', path)).body as Json));
  await writeMeshRoot(kube, namespace, await servedBy(scene, 'pki'));
  await replicas.deploy(1);
  await replicas.pod('istiod-1', wellAt(istiod.address));
  const { status } = await waitForCondition(kube, namespace, 'istioca', { type: 'Ready', status: 'True' });
  const before = await files();
  await raft.stop();
  fresh = await startVault('OpenBao');
  await replaceServer(fresh, Number(new URL(fresh.address).port), [scene, other]);
  for (const one of [namespace, unsaved]) {
    await look(one);
    const lost = await waitForCondition(kube, one, 'istioca', {
      type: 'RootReady',
      status: 'False',
      reason: 'RootLost',
    });
    expect(conditionOf(lost, 'RootReady')?.message).toContain('contains no root certificate of this resource');
    expect(await exists(`sys/mounts/${one}-kv`)).toBe(false);
  }
  await fresh.request('POST', `sys/mounts/${namespace}-kv`, { type: 'kv', options: { version: '1' } });
  const refused = await restore(saved);
  expect(refused.stderr).toContain(`spec.keyStore.version is 2, but ${namespace}-kv/ is KV version 1; set version: 1,`);
  await fresh.request('DELETE', `sys/mounts/${namespace}-kv`);

  const done = await restore(saved);
  expect(done).toMatchObject({ code: 0, stderr: '' });
  const end = (status?.intermediate as unknown as { notAfter: string }).notAfter;
  expect(done.stdout).toContain(`Mount ${namespace}-kv/: created. KV entry ${namespace}-kv/istioca: written.`);
  expect(done.stdout).toContain(`istiod signs on until ${end}. The key of the root is in no backup`);
  await look();
  const kept = await waitForCondition(kube, namespace, 'istioca', { type: 'AccessReady', status: 'True' });
  for (const type of ['KeyStored', 'IntermediateReady', 'ControlPlanePatched', 'IstiodReady'])
    await waitForCondition(kube, namespace, 'istioca', { type, status: 'True' });
  const message = conditionOf(kept, 'RootReady')?.message ?? '';
  expect(conditionOf(kept, 'RootReady')).toMatchObject({ status: 'False', reason: 'RootLost' });
  expect(conditionOf(kept, 'Stalled')).toMatchObject({ status: 'True', reason: 'RootLost' });
  expect(message).toContain(`goes on until it ends on ${end}; it cannot be renewed`);
  expect(message).toMatch(
    /set annotation istiovaultca\.io\/rotate-root to a new text.*istiovaultca\.io\/allow-reissue=/,
  );
  // a new Pod of istiod gets its files again, and nothing has replaced the CA
  expect(await files()).toEqual(before);
  expect(await servedBy(scene, 'ca')).toBe(before.cert.trim());
  expect(await exists(`sys/mounts/${namespace}-pki`)).toBe(false);
  const { dir: rendered } = await renderFiles(scene);
  expect(await readFile(join(rendered, 'ca-key.pem'), 'utf8')).toBe(before.key);
  expect((await restore(saved)).code).toBe(1);
});

it('a lost root is replaced on request: both roots are distributed, and the old intermediate goes on', async () => {
  const before = await files();
  // neither a request for an intermediate nor a changed spec has anything signed
  await annotate(namespace, { 'istiovaultca.io/rotate-intermediate': 'third' });
  await look();
  expect(await files()).toEqual(before);
  await annotate(namespace, { 'istiovaultca.io/rotate-root': 'lost' });
  await waitFor('both roots to be distributed', async () => {
    const { root } = await files();
    return root.startsWith(before.root) && root.length > before.root.length;
  });
  const after = await files();
  expect({ ...after, root: before.root }).toEqual(before);
  expect(defects(after)).toEqual([]);
  expect(after.root.slice(before.root.length).trim()).toBe(await servedBy(scene, 'pki'));
  await look();
  const rotating = await waitForCondition(kube, namespace, 'istioca', { type: 'RootReady', status: 'True' });
  expect(rotating.status).toMatchObject({ rotation: { kind: 'Root', phase: 'Distributing' } });
  expect(conditionOf(rotating, 'Stalled')).toBeUndefined();
  expect(conditionOf(rotating, 'RootReady')?.message).toContain(`lost, no longer in ${namespace}-pki, valid until`);
});

it('the whole Vault is lost without a backup: a new root, when it is allowed', async () => {
  await annotate(unsaved, { 'istiovaultca.io/allow-reissue': await allowed(unsaved) });
  await waitForCondition(kube, unsaved, 'istioca', { type: 'Provisioned', status: 'True' });
  const before = await entry(other);
  expect(before).toMatchObject({ generation: '1', ttl: '60s' });
  // from now on there is a backup, and the entries alone can be lost
  const path = join(dir, 'unsaved.age');
  expect((await backup(path, other)).code).toBe(0);
  await applyOk(kube, merge(other.resource, { spec: { suspend: true } }));
  await waitForCondition(kube, unsaved, 'istioca', { type: 'Ready', reason: 'Suspended' });
  for (const suffix of ['', '-state']) await other.vault.request('DELETE', `${unsaved}-kv/istioca${suffix}`);
  expect(await restore(path, other.resource)).toMatchObject({ code: 0, stderr: '' });
  await applyOk(kube, other.resource);
  await look(unsaved);
  await waitForCondition(kube, unsaved, 'istioca', { type: 'Provisioned', status: 'True' });
  expect(await entry(other)).toEqual(before);
});

it('a backup of one product is restored into the other', async () => {
  const before = await entry(other);
  // as istiod does
  await writeMeshRoot(kube, unsaved, before?.['root-cert.pem'] ?? '');
  const path = join(dir, 'moved.age');
  expect((await backup(path, other)).code).toBe(0);
  await fresh?.stop();
  fresh = await startVault('Vault');
  await replaceServer(fresh, Number(new URL(fresh.address).port), [other]);
  await waitForCondition(kube, unsaved, 'istioca', { type: 'RootReady', status: 'False', reason: 'RootLost' });
  expect(await restore(path, other.resource)).toMatchObject({ code: 0, stderr: '' });
  await look(unsaved);
  const kept = await waitForCondition(kube, unsaved, 'istioca', { type: 'AccessReady', status: 'True' });
  expect(kept.status).toMatchObject({ vault: { product: 'Vault' } });
  expect(await entry(other)).toEqual(before);
  expect(await servedBy(other, 'ca')).toBe(before?.['ca-cert.pem']?.trim());
});

it('no command has printed a key', async () => {
  const secrets = [...(await secretsOf(scene)), ...(await secretsOf(other))];
  const identity = (await readFile(keys, 'utf8')).split('\n')[1] ?? '';
  expect(leaks({ printed: printed.join('\n') }, [...secrets, identity])).toEqual([]);
});
