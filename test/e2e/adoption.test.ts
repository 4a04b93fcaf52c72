/** Taking over a CA that is there already: made by hand with the procedure, or left by a resource that is gone. */
import { describe, expect, it } from '@jest/globals';
import { createPrivateKey, createPublicKey, generateKeyPairSync } from 'node:crypto';
import { products, removeTemporaryDir, sharedStack, waitFor, type Product } from '../stack/index.ts';
import { vaultWrites } from '../support/audit.ts';
import { makeCaByApi, type ByApi } from '../support/by-api.ts';
import { makeByHand, overlayByHand } from '../support/by-hand.ts';
import { blocks, defects, readCaFiles } from '../support/certificates.ts';
import {
  applyOk,
  conditionOf,
  getResource,
  resourcePath,
  requestReconcile,
  waitForCondition,
  type Json,
} from '../support/cluster.ts';
import { makeForeignRoot } from '../support/foreign-root.ts';
import { useOperator } from '../support/harness.ts';
import { overlaysOf } from '../support/istiod-pod.ts';
import { entry, inventory, servedBy, writeEntry } from '../support/look.ts';
import { renderFiles } from '../support/render.ts';
import { controlPlane, makeScene, merge, type Scene } from '../support/scene.ts';

const { kube, vaults } = sharedStack();
useOperator();

const longRoot = { ROOT_TTL: '87600h' };
const controlPlaneOf = async (namespace: string) =>
  (await kube.request('GET', `/apis/install.tetrate.io/v1alpha1/namespaces/${namespace}/controlplanes/controlplane`))
    .body as Json;
const withSpec = (scene: Scene, spec: Json): Json => merge(scene.resource, { spec });

/** A scene whose CA was made by hand. */
async function handMade(
  product: Product,
  namespace: string,
  spec: Json = {},
  variables: Record<string, string> = longRoot,
): Promise<Scene> {
  const scene = await makeScene(kube, vaults[product], { namespace, spec });
  await makeByHand(scene, variables);
  await applyOk(kube, controlPlane(namespace, overlayByHand(scene)));
  return scene;
}

const caOf = async (scene: Scene) => ({
  root: await servedBy(scene, 'pki'),
  intermediate: await servedBy(scene, 'ca'),
  key: (await entry(scene))?.['ca-key.pem']?.trim(),
  inventory: await inventory(scene),
});

const cases: { product: Product; version: 1 | 2; source: 'Bundle' | 'PKI' }[] = [
  { product: 'OpenBao', version: 2, source: 'Bundle' },
  { product: 'Vault', version: 1, source: 'PKI' },
  { product: 'Vault', version: 1, source: 'Bundle' },
];

describe.each(cases)('made by hand in $product, KV $version, to be delivered as $source', ({ product, version, source }) => {
  const namespace = `adopt-${product}-${version}-${source}`.toLowerCase();
  const spec = { keyStore: { version }, delivery: { source }, intermediate: { key: { type: 'rsa' } } };
  let scene: Scene;
  let before: Awaited<ReturnType<typeof caOf>>;

  it('is MountNotOwned without adopt, and nothing is written', async () => {
    scene = await handMade(product, namespace, spec);
    before = await caOf(scene);
    const writes = await vaultWrites(scene.vault);
    await applyOk(kube, scene.resource);
    const refused = await waitForCondition(kube, namespace, 'istioca', { type: 'Stalled', reason: 'MountNotOwned' });
    expect(refused.status?.conditions?.find((c) => c.type === 'Stalled')?.message).toContain('spec.adopt: true');
    expect(await vaultWrites(scene.vault)).toEqual(writes);
  });

  it('shows in Plan what would be done, and nothing is written', async () => {
    const writes = await vaultWrites(scene.vault);
    const specBefore = (await controlPlaneOf(namespace))['spec'];
    await applyOk(kube, withSpec(scene, { adopt: true, mode: 'Plan' }));
    const planned = await waitForCondition(kube, namespace, 'istioca', { type: 'Ready', reason: 'ChangesPending' });
    const targets = (planned.status as { plan?: { target: string }[] }).plan?.map((step) => step.target);
    expect(targets).toEqual(
      expect.arrayContaining(['vault:state', 'vault:live', `vault:sys/mounts/${namespace}-pki/tune`, 'controlPlane:fields']),
    );
    expect(await vaultWrites(scene.vault)).toEqual(writes);
    expect((await controlPlaneOf(namespace))['spec']).toEqual(specBefore);
  });

  it('is taken over with adopt: same root, same intermediate, same key, and nothing issued', async () => {
    await applyOk(kube, withSpec(scene, { adopt: true }));
    const adopted = await waitForCondition(kube, namespace, 'istioca', { type: 'Provisioned', status: 'True' });
    expect(await caOf(scene)).toEqual(before);
    expect(adopted.status?.history?.map((e) => (e as { reason: string }).reason)).toEqual(['adopted', 'adopted']);
    const live = await entry(scene);
    expect(defects({ cert: live?.['ca-cert.pem'] ?? '', key: live?.['ca-key.pem'] ?? '', chain: live?.['cert-chain.pem'] ?? '', root: live?.['root-cert.pem'] ?? '' })).toEqual([]); // prettier-ignore
  });

  it('leaves the hand-made patches as they were, and adds its own behind them', async () => {
    const [mine] = overlaysOf(await controlPlaneOf(namespace));
    const [theirs] = overlayByHand(scene) as { patches: unknown[] }[];
    expect(mine?.patches?.slice(0, 3)).toEqual(theirs?.patches);
    const last = new Map(mine?.patches?.map((patch) => [patch.path, patch.value]));
    const paths = [...last].filter(([path]) => path.includes('agent-inject-secret')).map(([, path]) => path);
    expect(new Set(paths).size).toBe(source === 'Bundle' ? 1 : 4);
  });

  it("gives istiod's agent four files that belong together", async () => {
    const { dir } = await renderFiles(scene);
    expect(defects(await readCaFiles(dir))).toEqual([]);
    removeTemporaryDir(dir);
  });

  it('is rotated like any other afterwards, under the same root', async () => {
    const annotations = { 'istiovaultca.io/rotate-intermediate': 'now' };
    await kube.request('PATCH', resourcePath(namespace, 'istioca'), { metadata: { annotations } });
    const rotated = await waitFor('a second generation', async () => {
      const found = await getResource(kube, namespace, 'istioca');
      return found.status?.intermediate?.generation === 2 && found;
    });
    expect(rotated.status?.history).toHaveLength(3);
    expect(await servedBy(scene, 'pki')).toBe(before.root);
    const { key } = await caOf(scene);
    // Always with Bundle, Never with PKI
    expect(key === before.key).toBe(source === 'PKI');
  });
}); // prettier-ignore

describe('what was made by hand', () => {
  it('with the published root of one year and intermediate of five is taken over, and told what is wrong', async () => {
    const scene = await handMade('OpenBao', 'adopt-literal', {}, {});
    const before = await caOf(scene);
    await applyOk(kube, withSpec(scene, { adopt: true }));
    await waitForCondition(kube, scene.namespace, 'istioca', { type: 'RootReady', reason: 'RootNearEnd' });
    await waitForCondition(kube, scene.namespace, 'istioca', { type: 'ControlPlanePatched', status: 'True' });
    expect(await caOf(scene)).toEqual(before);
  });

  const byApi = async (namespace: string, key: ByApi['key'], form?: (pem: string) => string): Promise<Scene> => {
    const scene = await makeScene(kube, vaults.OpenBao, { namespace });
    const mounts = { root: `${namespace}-pki`, intermediate: `${namespace}-ca`, keyStore: `${namespace}-kv` };
    const entry = `${namespace}-kv/data/istioca`;
    await makeCaByApi({ vault: scene.vault, mounts, entry, version: 2, key, ...(form ? { form } : {}) });
    return scene;
  };

  it.each<[string, ByApi['key'], (pem: string) => string, RegExp]>([
    [
      'with the parameters of the curve before the key',
      { key_type: 'ec', key_bits: 256 },
      // as OpenSSL writes it: the object identifier of prime256v1
      (pem) => `-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n${pem}`,
      /^-----BEGIN EC PRIVATE KEY-----\n[^-]+-----END EC PRIVATE KEY-----\n$/,
    ],
    [
      'as PKCS #8',
      { key_type: 'rsa', key_bits: 2048 },
      (pem) => createPrivateKey(pem).export({ type: 'pkcs8', format: 'pem' }).toString(),
      /^-----BEGIN RSA PRIVATE KEY-----\n[^-]+-----END RSA PRIVATE KEY-----\n$/,
    ],
  ])('a key %s is published in the form that istiod reads, and stays the same', async (what, key, form, published) => {
    const namespace = `adopt-form-${key.key_type}`;
    const scene = await byApi(namespace, key, form);
    const before = createPublicKey((await entry(scene))?.['ca-key.pem'] ?? what);
    await applyOk(kube, withSpec(scene, { adopt: true }));
    await waitForCondition(kube, namespace, 'istioca', { type: 'Provisioned', status: 'True' });
    const after = (await entry(scene))?.['ca-key.pem'] ?? '';
    expect(published.test(after)).toBe(true);
    expect(createPublicKey(after).equals(before)).toBe(true);

    // as a version before published it
    const { root, intermediate, inventory: objects } = await caOf(scene);
    await writeEntry(scene, { ...(await entry(scene)), 'ca-key.pem': form(after) });
    await requestReconcile(kube, namespace, 'istioca', 'the form of before');
    const again = (await entry(scene))?.['ca-key.pem'] ?? '';
    // istiod reads PKCS #8 too, so that stays as it is
    expect(published.test(again)).toBe(key.key_type === 'ec');
    expect(createPublicKey(again).equals(before)).toBe(true);
    expect(await caOf(scene)).toMatchObject({ root, intermediate, inventory: objects });
  });

  it('with a key that istiod does not take is KeyUnsupported, and nothing is written', async () => {
    const scene = await byApi('adopt-ed25519', { key_type: 'ed25519' });
    const writes = await vaultWrites(scene.vault);
    await applyOk(kube, withSpec(scene, { adopt: true }));
    const refused = await waitForCondition(kube, scene.namespace, 'istioca', { type: 'Stalled', reason: 'KeyUnsupported' }); // prettier-ignore
    expect(conditionOf(refused, 'Stalled')?.message).toContain('istiod takes RSA of 2048 bits and more');
    expect(await vaultWrites(scene.vault)).toEqual(writes);
  });

  it('and does not fit together is AdoptionMismatch, and nothing is written', async () => {
    const scene = await handMade('Vault', 'adopt-mismatch');
    const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
    await writeEntry(scene, { 'ca-key.pem': privateKey.export({ type: 'pkcs8', format: 'pem' }).toString() });
    const writes = await vaultWrites(scene.vault);
    await applyOk(kube, withSpec(scene, { adopt: true }));
    const refused = await waitForCondition(kube, scene.namespace, 'istioca', { type: 'Stalled', reason: 'AdoptionMismatch' }); // prettier-ignore
    expect(refused.status?.conditions?.find((c) => c.type === 'Stalled')?.message).toContain('is not the key of');
    expect(await vaultWrites(scene.vault)).toEqual(writes);
  });
});

describe.each(products)('what was made by hand in %s and holds more than the CA', (product) => {
  it('is refused, and names the fields but not what they hold; taken out, it is taken over', async () => {
    const namespace = `adopt-more-${product}`.toLowerCase();
    const scene = await handMade(product, namespace);
    const kept = await entry(scene);
    await writeEntry(scene, { ...kept, 'db-password': 'in-confidence' });
    const writes = await vaultWrites(scene.vault);
    await applyOk(kube, withSpec(scene, { adopt: true }));
    const refused = await waitForCondition(kube, namespace, 'istioca', { type: 'Stalled', reason: 'AdoptionMismatch' });
    expect(refused.status?.conditions?.find((c) => c.type === 'Stalled')?.message).toContain('"db-password"');
    expect(JSON.stringify(refused)).not.toContain('in-confidence');
    expect(await vaultWrites(scene.vault)).toEqual(writes);
    await writeEntry(scene, { ...kept });
    const annotations = { 'istiovaultca.io/reconcile-requested-at': 'it is taken out' };
    await kube.request('PATCH', resourcePath(namespace, 'istioca'), { metadata: { annotations } });
    await waitForCondition(kube, namespace, 'istioca', { type: 'Provisioned', status: 'True' });
  });
});

describe.each(products)('versions that a person wrote in %s', (product) => {
  it('stay, whatever the operator writes and destroys of its own', async () => {
    const namespace = `adopt-versions-${product}`.toLowerCase();
    const scene = await handMade(product, namespace);
    const kept = await entry(scene);
    for (const note of ['first', 'second']) await writeEntry(scene, { ...kept, note });
    await writeEntry(scene, { ...kept });
    await applyOk(kube, withSpec(scene, { adopt: true }));
    await waitForCondition(kube, namespace, 'istioca', { type: 'Provisioned', status: 'True' });
    for (const generation of [2, 3]) {
      const annotations = { 'istiovaultca.io/rotate-intermediate': String(generation) };
      await kube.request('PATCH', resourcePath(namespace, 'istioca'), { metadata: { annotations } });
      await waitFor(
        `generation ${generation}`,
        async () => (await getResource(kube, namespace, 'istioca')).status?.intermediate?.generation === generation,
      );
    }
    const gone = await waitFor('the first version of the operator to go', async () => {
      const { body } = await scene.vault.request('GET', `${namespace}-kv/metadata/istioca`);
      const { versions } = (body as { data: { versions: Record<string, { destroyed: boolean }> } }).data;
      const destroyed = Object.entries(versions).flatMap(([version, v]) => (v.destroyed ? [version] : []));
      return destroyed.length > 0 && { destroyed, all: Object.keys(versions) };
    });
    expect(gone).toEqual({ destroyed: ['5'], all: ['1', '2', '3', '4', '5', '6', '7'] });
  });
});

describe.each(products)('what was made by hand in %s and hands out two roots', (product) => {
  it('is refused when one is of somewhere else, and goes on as a rotation when both are of the root mount', async () => {
    const namespace = `adopt-roots-${product}`.toLowerCase();
    const scene = await handMade(product, namespace);
    const kept = await entry(scene);
    const first = await servedBy(scene, 'pki');
    const elsewhere = await makeForeignRoot();
    await writeEntry(scene, { ...kept, 'root-cert.pem': `${first}\n${elsewhere.pem}` });
    const writes = await vaultWrites(scene.vault);
    await applyOk(kube, withSpec(scene, { adopt: true }));
    const refused = await waitForCondition(kube, namespace, 'istioca', { type: 'Stalled', reason: 'AdoptionMismatch' });
    expect(refused.status?.conditions?.find((c) => c.type === 'Stalled')?.message).toContain(elsewhere.fingerprint);
    expect(await vaultWrites(scene.vault)).toEqual(writes);

    const made = await scene.vault.request('POST', `${namespace}-pki/root/generate/internal`, { common_name: 'Second Root', ttl: '87600h' }); // prettier-ignore
    const second = (made.body as { data: { certificate: string } }).data.certificate;
    const roots = blocks(`${second}\n${first}\n`).map(({ fingerprint256 }) => fingerprint256);
    await writeEntry(scene, { ...kept, 'root-cert.pem': `${second}\n${first}\n` });
    const before = await caOf(scene);
    const annotations = { 'istiovaultca.io/reconcile-requested-at': 'both are in the mount' };
    await kube.request('PATCH', resourcePath(namespace, 'istioca'), { metadata: { annotations } });
    const adopted = await waitForCondition(kube, namespace, 'istioca', { type: 'Provisioned', status: 'True' });
    expect(await caOf(scene)).toEqual(before);
    expect(blocks((await entry(scene))?.['root-cert.pem'] ?? '').map(({ fingerprint256 }) => fingerprint256)).toEqual(roots);
    expect(adopted.status?.rotation).toMatchObject({ kind: 'Root', phase: 'Switching' });
  });
}); // prettier-ignore

describe.each(products)('what a resource left in %s', (product) => {
  it('is taken over by one of another name when it is gone, and not while it lives; what it had staged is destroyed', async () => {
    const namespace = `adopt-heir-${product}`.toLowerCase();
    const version = product === 'Vault' ? 1 : 2;
    const scene = await makeScene(kube, vaults[product], { namespace, spec: { keyStore: { version } } });
    await applyOk(kube, scene.resource);
    await waitForCondition(kube, namespace, 'istioca', { type: 'Provisioned', status: 'True' });
    const before = await caOf(scene);
    const heir = merge(withSpec(scene, { adopt: true, controlPlane: { name: 'another' } }), {
      metadata: { name: 'heir' },
    });
    await applyOk(kube, heir);
    const refused = await waitForCondition(kube, namespace, 'heir', { type: 'Stalled', reason: 'MountNotOwned' });
    expect(refused.status?.conditions?.find((c) => c.type === 'Stalled')?.message).toContain(`${namespace}/istioca`);
    await applyOk(kube, merge(heir, { spec: { suspend: true } }));
    await waitForCondition(kube, namespace, 'heir', { type: 'Ready', reason: 'Suspended' });
    await kube.request('DELETE', resourcePath(namespace, 'istioca'));
    await waitFor('the resource to be gone', async () => !(await getResource(kube, namespace, 'istioca')).metadata.uid);
    const mark = (await entry(scene))?.['istio-vault-ca'] ?? '';
    await writeEntry(scene, { 'ca-key.pem': 'left', generation: '2', 'istio-vault-ca': mark }, '-staging');
    await applyOk(kube, merge(heir, { spec: { suspend: false } }));
    const adopted = await waitForCondition(kube, namespace, 'heir', { type: 'Provisioned', status: 'True' });
    expect(adopted.status?.intermediate?.generation).toBe(1);
    expect(await caOf(scene)).toEqual(before);
    expect(await entry(scene, '-staging')).toBeUndefined();
  });
}); // prettier-ignore
