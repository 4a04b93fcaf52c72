/** A CA that others make in Vault (`manage: false`): with the shipped policy and sample, on servers of its own with default names. */
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { products, sharedStack, startVault, waitFor, type Product, type VaultServer } from '../stack/index.ts';
import { vaultWrites } from '../support/audit.ts';
import { makeByHand } from '../support/by-hand.ts';
import { defects, readCaFiles } from '../support/certificates.ts';
import { applyOk, conditionOf, getResource, requestReconcile, resourcePath, waitForCondition, type Json } from '../support/cluster.ts'; // prettier-ignore
import { useOperator } from '../support/harness.ts';
import { entry, servedBy, writeEntry } from '../support/look.ts';
import { administer, makeRoot, plainSerial, renewIntermediate, serialOf } from '../support/others-ca.ts';
import { renderFiles } from '../support/render.ts';
import { applySample, shippedPolicy } from '../support/samples.ts';
import { grantOperator, makeScene, merge, prepareVault, type Scene } from '../support/scene.ts';

const { kube, vaults } = sharedStack();
useOperator();

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
    expect(plainSerial(resource.status?.intermediate?.serial)).toBe(serialOf(await served('istioca')));
    expect(plainSerial(resource.status?.root?.serial)).toBe(serialOf(await served('pki')));
    expect(defects(await readCaFiles((await renderFiles(scene)).dir))).toEqual([]);
  });
  const served = async (mount: string) => String((await administer(server, 'GET', `${mount}/cert/ca`))['certificate']);

  it('follows a renewal by others, and not a half of it', async () => {
    const first = await digest();
    const files = await asAdministrator(() => renewIntermediate(server, { root: 'pki', intermediate: 'istioca' }, 'Tetrate Intermediate Authority')); // prettier-ignore
    expect(await condition('KeyStored', 'half')).toMatchObject({ status: 'False', reason: 'CADiffers', message: expect.stringContaining('is not the key of the default issuer of mount istioca/') }); // prettier-ignore
    const path = `/apis/install.tetrate.io/v1alpha1/namespaces/${namespace}/controlplanes/controlplane`;
    expect(JSON.stringify((await kube.request('GET', path)).body)).toContain(first);
    await asAdministrator(() => writeEntry(scene, { 'ca-key.pem': files['ca-key.pem'] }));
    await reconciled('whole');
    const resource = await provisioned();
    expect(plainSerial(resource.status?.intermediate?.serial)).toBe(serialOf(files['ca-cert.pem']));
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
    const files = await renewIntermediate(
      scene.vault,
      { root: `${namespace}-pki`, intermediate: `${namespace}-ca` },
      'Istio Intermediate CA',
    );
    await writeEntry(scene, files);
    certificate = files['ca-cert.pem'];
    const resource = await requestReconcile(kube, namespace, 'istioca', 'renewed by others');
    expect(plainSerial(resource.status?.intermediate?.serial)).toBe(serialOf(certificate));
    await waitForCondition(kube, namespace, 'istioca', { type: 'Provisioned', status: 'True' });
  });

  it('is not taken from them without spec.adopt, and with it goes on', async () => {
    const writes = await vaultWrites(scene.vault);
    await manage(true);
    await waitForCondition(kube, namespace, 'istioca', { type: 'KeyStored', status: 'False', reason: 'MountNotOwned' });
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

describe('a root of others, under which the operator issues', () => {
  const namespace = 'checks-root';
  const pki = `${namespace}-pki`;
  let scene: Scene;
  const ofPki = async () => (await vaultWrites(scene.vault)).filter((line) => line.includes(` ${pki}/`));
  const rootReady = async (text: string) => conditionOf(await requestReconcile(kube, namespace, 'istioca', text), 'RootReady'); // prettier-ignore

  it('nothing is made before they make it; then it signs, and is compared with the spec', async () => {
    const spec = { root: { manage: false, commonName: 'Root of others' }, delivery: { source: 'PKI' } };
    scene = await makeScene(kube, vaults.Vault, { namespace, spec });
    const writes = (await vaultWrites(scene.vault)).length;
    await applyOk(kube, scene.resource);
    expect(await rootReady('absent')).toMatchObject({ reason: 'CADiffers', message: expect.stringContaining(`mount ${pki}/ has no default issuer, or does not exist`) }); // prettier-ignore
    expect((await vaultWrites(scene.vault)).slice(writes)).toEqual([]);
    await makeRoot(scene.vault, pki, 'Root of others');
    const before = (await ofPki()).length;
    await requestReconcile(kube, namespace, 'istioca', 'made');
    await waitForCondition(kube, namespace, 'istioca', { type: 'Provisioned', status: 'True' });
    expect((await ofPki()).slice(before)).toEqual([expect.stringMatching(/^update .*\/issuer\/[\w-]+\/sign-intermediate$/)]); // prettier-ignore
    expect(defects(await readCaFiles((await renderFiles(scene)).dir))).toEqual([]);
    await applyOk(kube, merge(scene.resource, { spec: { root: { commonName: 'Mine' } } }));
    expect(await rootReady('other name')).toMatchObject({ status: 'False', reason: 'CADiffers', message: expect.stringContaining('spec.root.commonName is "Mine", and the certificate has "Root of others"') }); // prettier-ignore
    await applyOk(kube, scene.resource);
  });

  it('another default issuer is named, and the one that signed goes on', async () => {
    await makeRoot(scene.vault, pki, 'Root of others');
    await applyOk(kube, merge(scene.resource, { spec: { delivery: { source: 'Bundle' } } }));
    const before = (await ofPki()).length;
    const signer = (await getResource(kube, namespace, 'istioca')).status?.root?.issuerId;
    expect(await rootReady('another')).toMatchObject({ status: 'True', message: expect.stringContaining('istiovaultca.io/rotate-root moves the mesh to it') }); // prettier-ignore
    await kube.request('PATCH', resourcePath(namespace, 'istioca'), { metadata: { annotations: { 'istiovaultca.io/rotate-intermediate': 'now' } } }); // prettier-ignore
    const renewed = await waitFor('the next generation', async () => {
      const { status } = await getResource(kube, namespace, 'istioca');
      return status?.intermediate?.generation === 2 && status;
    });
    expect(renewed.root?.issuerId).toBe(signer);
    expect((await ofPki()).slice(before)).toEqual([`update ${pki}/issuer/${signer ?? ''}/sign-intermediate`]);
  });

  it('is not taken from them without spec.adopt, and with it is generated and repaired by the operator', async () => {
    await kube.request('PATCH', resourcePath(namespace, 'istioca'), { spec: { root: { manage: true } } });
    const role = `operator-${namespace}`;
    await grantOperator(scene.vault, role, namespace, merge(scene.resource, { spec: { root: { manage: true } } })['spec'] as Json); // prettier-ignore
    await waitForCondition(kube, namespace, 'istioca', { type: 'RootReady', status: 'False', reason: 'MountNotOwned' });
    await kube.request('PATCH', resourcePath(namespace, 'istioca'), { spec: { adopt: true } });
    await waitForCondition(kube, namespace, 'istioca', { type: 'Provisioned', status: 'True' });
    const { description } = await administer(scene.vault, 'GET', `sys/mounts/${pki}`);
    expect(description).toContain('origin=adopted');
  });
});

describe('a CA of others, with policy and role of the operator', () => {
  const namespace = 'checks-access';
  let scene: Scene;

  it('writes these two alone, and takes only them with it', async () => {
    const spec = { root: { manage: false }, intermediate: { manage: false, key: { type: 'rsa' } }, keyStore: { manage: false }, deletionPolicy: 'Delete' }; // prettier-ignore
    scene = await makeScene(kube, vaults.OpenBao, { namespace, spec });
    const { vault } = scene;
    const mounts = { root: `${namespace}-pki`, intermediate: `${namespace}-ca` };
    await makeRoot(vault, mounts.root, 'Istio Root CA');
    await administer(vault, 'POST', `sys/mounts/${mounts.intermediate}`, { type: 'pki', config: { max_lease_ttl: '43800h' } }); // prettier-ignore
    await administer(vault, 'POST', `sys/mounts/${namespace}-kv`, { type: 'kv', options: { version: '2' } });
    await writeEntry(scene, await renewIntermediate(vault, mounts, 'Istio Intermediate CA'));
    const before = (await vaultWrites(vault)).length;
    await applyOk(kube, scene.resource);
    await waitForCondition(kube, namespace, 'istioca', { type: 'Provisioned', status: 'True' });
    await requestReconcile(kube, namespace, 'istioca', 'again');
    const policy = `sys/policies/acl/${namespace}-istioca`;
    const role = `auth/kubernetes/role/${namespace}-istiod`;
    const written = async () => (await vaultWrites(vault)).slice(before).map((line) => line.replace(/^\w+ /, ''));
    expect(await written()).toEqual([policy, role]);
    expect(defects(await readCaFiles((await renderFiles(scene)).dir))).toEqual([]);
    const ca = await entry(scene);
    await kube.request('DELETE', resourcePath(namespace, 'istioca'));
    await waitFor('the resource to be gone', async () => (await getResource(kube, namespace, 'istioca')).metadata.uid === undefined); // prettier-ignore
    expect(await written()).toEqual([policy, role, role, policy]);
    expect(await entry(scene)).toEqual(ca);
  });
});
