/**
 * A CA that is brought along in a Secret (`intermediate.source: Import`), and what follows when the spec asks for one from Vault.
 * @servers kubectl
 */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { beforeAll, describe, expect, it } from '@jest/globals';
import { products, sharedStack, waitFor } from '../stack/index.ts';
import { vaultWrites } from '../support/audit.ts';
import { defects } from '../support/certificates.ts';
import { apply, applyOk, conditionOf, getResource, requestReconcile, waitForCondition, type Json, type Resource } from '../support/cluster.ts'; // prettier-ignore
import { expectDescribed } from '../support/described.ts';
import { eventsOf } from '../support/events.ts';
import { useOperator } from '../support/harness.ts';
import { entry } from '../support/look.ts';
import { OfflineCa } from '../support/offline-ca.ts';
import { makeScene, merge, type Scene } from '../support/scene.ts';

const { kube, vaults } = sharedStack();
useOperator();

const rsa = ['-algorithm', 'RSA', '-pkeyopt', 'rsa_keygen_bits:2048'];
/** The key of a CA in another form. @param args of `openssl` */
const keyAs = (ca: OfflineCa, ...args: string[]): string =>
  execFileSync('openssl', [...args, '-in', ca.keyFile], { stdio: 'pipe' }).toString();

const imports = { source: 'Import', importRef: { secretRef: { name: 'ca' } } };

/** Puts a CA into the Secret of a namespace. */
const give = (namespace: string, data: Record<string, string>): Promise<Json> =>
  applyOk(kube, {
    apiVersion: 'v1',
    kind: 'Secret',
    metadata: { name: 'ca', namespace },
    data: Object.fromEntries(Object.entries(data).map(([key, text]) => [key, Buffer.from(text).toString('base64')])),
  });

/** The operator may read Secrets named `ca`, as an administrator grants it. */
async function grantSecret(): Promise<void> {
  const rbac = 'rbac.authorization.k8s.io';
  await applyOk(kube, { apiVersion: `${rbac}/v1`, kind: 'ClusterRole', metadata: { name: 'import' }, rules: [{ apiGroups: [''], resources: ['secrets'], resourceNames: ['ca'], verbs: ['get'] }] }); // prettier-ignore
  await applyOk(kube, { apiVersion: `${rbac}/v1`, kind: 'ClusterRoleBinding', metadata: { name: 'import' }, roleRef: { apiGroup: rbac, kind: 'ClusterRole', name: 'import' }, subjects: [{ kind: 'ServiceAccount', name: 'istio-vault-ca-operator', namespace: 'istio-vault-ca' }] }); // prettier-ignore
}

const filesOf = async (scene: Scene) => {
  const { 'ca-cert.pem': cert = '', 'ca-key.pem': key = '', 'cert-chain.pem': chain = '', 'root-cert.pem': root = '' } = (await entry(scene)) ?? {}; // prettier-ignore
  return { cert, key, chain, root };
};
const intermediate = (resource: Resource) => conditionOf(resource, 'IntermediateReady');

describe.each(products)('%s', (product) => {
  const namespace = `import-${product}`.toLowerCase();
  const root = new OfflineCa('Old Root');
  const tier = new OfflineCa('Old Issuing CA', root);
  const ca = new OfflineCa('Old Istio CA', tier, { constraints: 'critical,CA:TRUE,pathlen:0', days: 1000 }, rsa);
  const asTls = { 'tls.crt': ca.certificate + tier.certificate, 'tls.key': readFileSync(ca.keyFile, 'utf8'), 'ca.crt': root.certificate }; // prettier-ignore
  let scene: Scene;
  let looks = 0;
  const reconciled = () => requestReconcile(kube, namespace, 'istioca', String((looks += 1)));

  beforeAll(async () => {
    scene = await makeScene(kube, vaults[product], { namespace, spec: { intermediate: { ...imports, maxWorkloadCertTTL: '24h' } } }); // prettier-ignore
    await applyOk(kube, scene.resource);
  });

  if (product === products[0])
    it('without the right to read the Secret it says which, and who may grant it', async () => {
      const denied = await waitForCondition(kube, namespace, 'istioca', { type: 'IntermediateReady', reason: 'Forbidden' }); // prettier-ignore
      expect(intermediate(denied)?.message).toMatch(/importRef.secretRef: .*Grant get on Secret ca of that namespace/);
      await grantSecret();
      const absent = await reconciled();
      expect(intermediate(absent)).toMatchObject({ status: 'False', reason: 'AwaitingImport' });
      await expectDescribed(kube, namespace, 'AwaitingImport');
    });

  it.each<[string, Record<string, string>, RegExp]>([
    ['an encrypted key', { ...asTls, 'tls.key': keyAs(ca, 'pkcs8', '-topk8', '-passout', 'pass:secret') }, /holds no private key that can be read/], // prettier-ignore
    ['a key of another CA', { ...asTls, 'tls.key': readFileSync(tier.keyFile, 'utf8') }, /its key is not that of its certificate/], // prettier-ignore
    ['no root', { ...asTls, 'ca.crt': '' }, /no chain of signatures leads from "Old Issuing CA".*, which signed it, to a self-signed root/], // prettier-ignore
    ['no certificate', { 'tls.key': asTls['tls.key'] }, /holds no certificate that can be read/],
  ])('%s is refused, and nothing is written', async (name, data, why) => {
    await kube.request('DELETE', `/api/v1/namespaces/${namespace}/secrets/ca`);
    await give(namespace, data);
    const refused = await reconciled();
    expect(intermediate(refused)).toMatchObject({ status: 'False', reason: 'ImportRefused' });
    expect(intermediate(refused)?.message).toMatch(why);
    expect(await entry(scene)).toBeUndefined();
    if (name === 'no root') await expectDescribed(kube, namespace, 'ImportRefused');
  });

  it.each([
    ['PKCS #1', ['rsa', '-traditional']],
    ['PKCS #8', ['pkcs8', '-topk8', '-nocrypt']],
  ])('a key as %s: all four files, without any PKI mount; then the Secret may go', async (form, args) => {
    await give(namespace, { ...asTls, 'tls.key': keyAs(ca, ...args) });
    await reconciled();
    const ready = await waitForCondition(kube, namespace, 'istioca', { type: 'Provisioned', status: 'True' });
    const files = await filesOf(scene);
    expect([files.cert, files.chain, files.root]).toEqual([ca.certificate, ca.certificate + tier.certificate, root.certificate]); // prettier-ignore
    expect(files.key).toMatch(/^-----BEGIN RSA PRIVATE KEY-----/);
    expect(defects(files)).toEqual([]);
    expect(ready.status?.intermediate?.generation).toBe(1);
    for (const mount of ['pki', 'ca'])
      expect((await scene.vault.request('GET', `sys/mounts/${namespace}-${mount}`)).status).not.toBe(200);
    const imported = (await eventsOf(kube, namespace)).filter(({ reason }) => reason === 'Imported');
    expect(imported).toHaveLength(1);
    expect(form).toBeDefined();
  });

  it('nothing is written without the Secret, nor after a restart of the loop', async () => {
    await kube.request('DELETE', `/api/v1/namespaces/${namespace}/secrets/ca`);
    const before = (await vaultWrites(scene.vault)).length;
    const resource = await reconciled();
    expect(conditionOf(resource, 'Provisioned')).toMatchObject({ status: 'True' });
    expect((await vaultWrites(scene.vault)).slice(before)).toEqual([]);
  });

  it('a published key that somebody destroys is imported again when the Secret is there', async () => {
    await scene.vault.request('DELETE', `${namespace}-kv/data/istioca`);
    const lost = await reconciled();
    expect(intermediate(lost)).toMatchObject({ status: 'False', reason: 'AwaitingImport' });
    await give(namespace, asTls);
    await reconciled();
    await waitForCondition(kube, namespace, 'istioca', { type: 'Provisioned', status: 'True' });
    expect(defects(await filesOf(scene))).toEqual([]);
  });

  it('another CA under the same root is the next generation', async () => {
    const next = new OfflineCa('New Istio CA', root, { constraints: 'critical,CA:TRUE,pathlen:0' });
    await give(namespace, { 'ca-cert.pem': next.certificate, 'ca-key.pem': keyAs(next, 'ec'), 'root-cert.pem': root.certificate, 'tls.crt': '' }); // prettier-ignore
    await reconciled();
    await waitFor('the next generation', async () => (await getResource(kube, namespace, 'istioca')).status?.intermediate?.generation === 3); // prettier-ignore
    expect((await filesOf(scene)).key).toMatch(/^-----BEGIN EC PRIVATE KEY-----/);
    expect(defects(await filesOf(scene))).toEqual([]);
  });

  it('to be issued by Vault it waits for rotate-root, and makes no PKI mount before', async () => {
    const spec = { intermediate: { source: 'Issue', importRef: undefined, maxWorkloadCertTTL: '24h' } };
    const issue = merge(scene.resource, { spec });
    delete (issue['spec'] as { intermediate: Json }).intermediate['importRef'];
    await scene.vault.request('PUT', `sys/policies/acl/operator-${namespace}`, { policy: 'path "*" { capabilities = ["create", "read", "update", "delete", "list", "sudo"] }' }); // prettier-ignore
    await applyOk(kube, issue);
    const waiting = await waitForCondition(kube, namespace, 'istioca', {
      type: 'RootReady',
      reason: 'RootSpecChanged',
    });
    expect(conditionOf(waiting, 'RootReady')?.message).toContain('annotation istiovaultca.io/rotate-root');
    expect((await scene.vault.request('GET', `sys/mounts/${namespace}-pki`)).status).not.toBe(200);
    expect((await filesOf(scene)).root).toBe(root.certificate);
    await expectDescribed(kube, namespace, 'RootSpecChanged-import');
  });
});

it('a CA that is its own root, as an istiod makes one: chain and root may be absent or empty', async () => {
  const namespace = 'import-own';
  const own = new OfflineCa('cluster.local', undefined, {}, rsa);
  const scene = await makeScene(kube, vaults.OpenBao, { namespace, spec: { intermediate: imports } });
  await give(namespace, { 'ca-cert.pem': own.certificate, 'ca-key.pem': keyAs(own, 'rsa', '-traditional'), 'cert-chain.pem': '' }); // prettier-ignore
  await applyOk(kube, scene.resource);
  await waitForCondition(kube, namespace, 'istioca', { type: 'Provisioned', status: 'True' });
  expect(await filesOf(scene)).toMatchObject({ cert: own.certificate, chain: own.certificate, root: own.certificate });
});

it('with PKI delivery it is refused by the API server', async () => {
  const { resource } = await makeScene(kube, vaults.OpenBao, { namespace: 'import-pki', spec: { intermediate: imports, delivery: { source: 'PKI' } }, withoutRole: true }); // prettier-ignore
  const { status, body } = await apply(kube, resource);
  expect([status, JSON.stringify(body)]).toEqual([422, expect.stringContaining('delivery.source: PKI reads certificates from PKI mounts')]); // prettier-ignore
});
