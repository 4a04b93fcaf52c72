/** A CA that others make in Vault (`manage: false`): with the shipped policy and sample, on servers of its own with default names. */
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { products, sharedStack, startVault, type Product, type VaultServer } from '../stack/index.ts';
import { vaultWrites } from '../support/audit.ts';
import { makeByHand } from '../support/by-hand.ts';
import { blocks, defects, readCaFiles } from '../support/certificates.ts';
import { applyOk, conditionOf, getResource, requestReconcile, resourcePath, waitForCondition, type Json } from '../support/cluster.ts'; // prettier-ignore
import { useOperator } from '../support/harness.ts';
import { entry, servedBy, writeEntry } from '../support/look.ts';
import { renderFiles } from '../support/render.ts';
import { applySample, shippedPolicy } from '../support/samples.ts';
import { makeScene, prepareVault, type Scene, type Vault } from '../support/scene.ts';

const { kube, vaults } = sharedStack();
useOperator();

/** What an administrator does in Vault. @throws if Vault refuses */
async function administer(vault: Vault, method: string, path: string, body: Json = {}): Promise<Json> {
  const reply = await vault.request(method, path, body);
  if (reply.status >= 300) throw new Error(`${method} ${path}: ${reply.status}`);
  return ((reply.body ?? {}) as { data?: Json }).data ?? {};
}

/** Has another intermediate signed in a mount of others, and made the default. @returns its files, PEM */
async function renewIntermediate(vault: Vault, root: string, mount: string, commonName: string) {
  const key = { common_name: commonName, key_type: 'rsa', key_bits: 2048 };
  const { csr, private_key: privateKey } = await administer(vault, 'POST', `${mount}/intermediate/generate/exported`, key); // prettier-ignore
  const request = { csr: csr as string, common_name: commonName, ttl: '40000h', use_csr_values: false };
  const { certificate, issuing_ca: issuer } = await administer(vault, 'POST', `${root}/root/sign-intermediate`, request); // prettier-ignore
  const { imported_issuers: [id] } = await administer(vault, 'POST', `${mount}/intermediate/set-signed`, { certificate: certificate as string }) as { imported_issuers: string[] }; // prettier-ignore
  await administer(vault, 'POST', `${mount}/config/issuers`, { default: id ?? '' });
  const line = (pem: unknown) => `${String(pem).trim()}\n`;
  const files = { 'ca-cert.pem': line(certificate), 'ca-key.pem': line(privateKey), 'cert-chain.pem': line(certificate), 'root-cert.pem': line(issuer) }; // prettier-ignore
  return files;
}

const serialOf = (pem: string): string => (blocks(pem)[0]?.serialNumber ?? '').toLowerCase();
/** The serial number in the form of the status. */
const plain = (serial: string | undefined): string => (serial ?? '').replaceAll(':', '');

describe.each(products)('%s', (product: Product) => {
  const namespace = `checks-${product.toLowerCase()}`;
  let server: VaultServer;
  let scene: Scene;
  let before: string[] = [];

  const reconciled = (text: string) => requestReconcile(kube, namespace, 'istioca', text);
  const condition = async (type: string, text: string) => conditionOf(await reconciled(text), type);
  const provisioned = () => waitForCondition(kube, namespace, 'istioca', { type: 'Provisioned', status: 'True' });
  const digest = async () => (await getResource(kube, namespace, 'istioca')).status?.controlPlane?.digest;
  const writesOfOperator = async () => (await vaultWrites(server)).slice(before.length);
  const asAdministrator = async <T>(act: () => Promise<T>): Promise<T> => {
    expect(await writesOfOperator()).toEqual([]);
    const done = await act();
    before = await vaultWrites(server);
    return done;
  };

  beforeAll(async () => {
    server = await startVault(product);
    await prepareVault(kube, server);
    const policy = await shippedPolicy('operator-policy-checks.hcl');
    await administer(server, 'PUT', 'sys/policies/acl/istio-vault-ca', { policy });
    await administer(server, 'POST', 'auth/kubernetes/role/istio-vault-ca', {
      bound_service_account_names: 'istio-vault-ca',
      bound_service_account_namespaces: namespace,
      audience: 'vault',
      token_policies: 'istio-vault-ca',
      token_no_default_policy: true,
      token_ttl: '1h',
    });
    before = await vaultWrites(server);
    const name = (commonName: string) => ({ commonName, key: { type: 'rsa', bits: 2048 } });
    await applySample(kube, 'deploy/samples/checks.yaml', namespace, server, {
      root: name('Tetrate Root Authority'),
      intermediate: name('Tetrate Intermediate Authority'),
      delivery: { source: 'PKI' },
    });
    const resource = { spec: { keyStore: { mount: 'kv', path: 'istioca' } } };
    scene = { kube, vault: server, namespace, name: 'istioca', resource };
  });
  afterAll(() => server.stop());

  it('says what others must make, and writes nothing', async () => {
    const resource = await waitForCondition(kube, namespace, 'istioca', { type: 'KeyStored', status: 'False' });
    for (const [type, text] of [
      ['RootReady', 'mount pki/ has no default issuer'],
      ['IntermediateReady', 'mount istioca/ does not exist'],
      ['KeyStored', 'mount kv/ does not exist'],
    ] as const)
      expect(conditionOf(resource, type)).toMatchObject({
        reason: 'CADiffers',
        message: expect.stringContaining(text),
      });
    expect(conditionOf(resource, 'KeyStored')?.message).toContain('have whoever manages it correct it');
    expect(await writesOfOperator()).toEqual([]);
  });

  it('gives istiod the CA of the procedure when it is there', async () => {
    const names = { PKI: 'pki', ISTIOCA: 'istioca', KV: 'kv', POLICY: 'istioca', ROLE: 'istiod', NAMESPACE: namespace };
    await asAdministrator(() => makeByHand(scene, { ...names, SERVICE_ACCOUNT: 'istiod', ROOT_TTL: '87600h' }));
    await reconciled('made by hand');
    const resource = await provisioned();
    expect(plain(resource.status?.intermediate?.serial)).toBe(serialOf(await served('istioca')));
    expect(plain(resource.status?.root?.serial)).toBe(serialOf(await served('pki')));
    expect(defects(await readCaFiles((await renderFiles(scene)).dir))).toEqual([]);
  });
  const served = async (mount: string) => String((await administer(server, 'GET', `${mount}/cert/ca`))['certificate']);

  it('follows a renewal by others, and not a half of it', async () => {
    const first = await digest();
    const files = await asAdministrator(() => renewIntermediate(server, 'pki', 'istioca', 'Tetrate Intermediate Authority')); // prettier-ignore
    expect(await condition('KeyStored', 'half')).toMatchObject({ status: 'False', reason: 'CADiffers', message: expect.stringContaining('is not the key of the default issuer of mount istioca/') }); // prettier-ignore
    const path = `/apis/install.tetrate.io/v1alpha1/namespaces/${namespace}/controlplanes/controlplane`;
    expect(JSON.stringify((await kube.request('GET', path)).body)).toContain(first);
    await asAdministrator(() => writeEntry(scene, { 'ca-key.pem': files['ca-key.pem'] }));
    await reconciled('whole');
    const resource = await provisioned();
    expect(plain(resource.status?.intermediate?.serial)).toBe(serialOf(files['ca-cert.pem']));
    expect(resource.status?.controlPlane?.digest).not.toBe(first);
    expect(JSON.stringify((await kube.request('GET', path)).body)).toContain(resource.status?.controlPlane?.digest);
    // the same as one entry with all four files
    await kube.request('PATCH', resourcePath(namespace, 'istioca'), { spec: { delivery: { source: 'Bundle' } } });
    expect((await condition('KeyStored', 'bundle'))?.message).toContain('no ca-cert.pem, no cert-chain.pem, no root-cert.pem'); // prettier-ignore
    await asAdministrator(() => writeEntry(scene, files));
    await reconciled('four files');
    await provisioned();
    expect(defects(await readCaFiles((await renderFiles(scene)).dir))).toEqual([]);
  });

  it('says what of it is changed, corrects nothing, and istiod keeps what it has', async () => {
    const kept = await digest();
    const whole = (await entry(scene)) ?? {};
    await asAdministrator(() => writeEntry(scene, { ...whole, 'root-cert.pem': whole['ca-cert.pem'] ?? '' }));
    expect(await condition('IntermediateReady', 'another root')).toMatchObject({
      status: 'False',
      reason: 'CADiffers',
    });
    await asAdministrator(() => writeEntry(scene, whole));
    await asAdministrator(() => administer(server, 'DELETE', 'sys/mounts/istioca'));
    expect((await condition('IntermediateReady', 'no mount'))?.message).toContain('mount istioca/ does not exist');
    expect(await digest()).toBe(kept);
    await asAdministrator(() => administer(server, 'DELETE', 'sys/mounts/kv'));
    expect((await condition('KeyStored', 'no store'))?.message).toContain('mount kv/ does not exist');
    expect(await writesOfOperator()).toEqual([]);
  });
});

describe('a CA that is handed over to others, and taken back', () => {
  const namespace = 'checks-handed-over';
  let scene: Scene;
  let certificate = '';
  const manage = async (manages: boolean, over: Json = {}) =>
    await kube.request('PATCH', resourcePath(namespace, 'istioca'), { spec: { root: { manage: manages }, intermediate: { manage: manages }, ...over } }); // prettier-ignore
  const waitFor = (type: string, status: string, reason: string) =>
    waitForCondition(kube, namespace, 'istioca', { type, status, reason });

  beforeAll(async () => {
    const spec = { intermediate: { key: { type: 'rsa' } } };
    scene = await makeScene(kube, vaults.OpenBao, { namespace, spec });
    await applyOk(kube, scene.resource);
    await waitForCondition(kube, namespace, 'istioca', { type: 'Provisioned', status: 'True' });
  });

  it('stays as it is, and what others make of it is followed', async () => {
    const [ca, writes] = [await entry(scene), await vaultWrites(scene.vault)];
    await manage(false);
    await waitForCondition(kube, namespace, 'istioca', { type: 'Provisioned', status: 'True' });
    await requestReconcile(kube, namespace, 'istioca', 'handed over');
    const written = (await vaultWrites(scene.vault)).slice(writes.length);
    expect(new Set(written)).toEqual(new Set([`update ${namespace}-kv/data/istioca-state`]));
    expect(await entry(scene)).toEqual(ca);
    const files = await renewIntermediate(scene.vault, `${namespace}-pki`, `${namespace}-ca`, 'Istio Intermediate CA');
    await writeEntry(scene, files);
    certificate = files['ca-cert.pem'];
    const resource = await requestReconcile(kube, namespace, 'istioca', 'renewed by others');
    expect(plain(resource.status?.intermediate?.serial)).toBe(serialOf(certificate));
    await waitForCondition(kube, namespace, 'istioca', { type: 'Provisioned', status: 'True' });
  });

  it('is not taken from them without spec.adopt, and with it goes on', async () => {
    const writes = await vaultWrites(scene.vault);
    await manage(true);
    await waitFor('KeyStored', 'False', 'MountNotOwned');
    await requestReconcile(kube, namespace, 'istioca', 'refused');
    expect((await vaultWrites(scene.vault)).slice(writes.length)).toEqual([]);
    await manage(true, { adopt: true });
    await waitForCondition(kube, namespace, 'istioca', { type: 'Provisioned', status: 'True' });
    expect((await entry(scene))?.['ca-cert.pem']?.trim()).toBe(certificate.trim());
    expect(await servedBy(scene, 'ca')).toBe(certificate.trim());
    const resource = await requestReconcile(kube, namespace, 'istioca', 'adopted');
    expect(conditionOf(resource, 'KeyStored')).toMatchObject({ status: 'True', reason: 'KeyMatches' });
    expect((await entry(scene))?.['istio-vault-ca']).toContain('origin=adopted');
  });
});
