/**
 * An issuer of others signs (`root.source: Existing`): a root, or an issuing CA below one, in a mount that this resource never touches.
 * @servers kubectl
 */
import { beforeAll, describe, expect, it } from '@jest/globals';
import { products, sharedStack, waitFor, type Product } from '../stack/index.ts';
import { vaultEntries, vaultWrites } from '../support/audit.ts';
import { blocks, defects } from '../support/certificates.ts';
import { applyOk, conditionOf, getResource, requestReconcile, waitForCondition, type Json, type Resource } from '../support/cluster.ts'; // prettier-ignore
import { expectDescribed } from '../support/described.ts';
import { useOperator } from '../support/harness.ts';
import { entry } from '../support/look.ts';
import { limitMesh, makeScene, merge, type Scene } from '../support/scene.ts';

const { kube, vaults } = sharedStack();
useOperator();

type Request = (method: string, path: string, body?: Json) => Promise<Json>;

const requester =
  (product: Product): Request =>
  async (method, path, body) => {
    const reply = await vaults[product].request(method, path, body);
    if (reply.status >= 300) throw new Error(`${method} ${path}: ${reply.status} ${JSON.stringify(reply.body)}`);
    return ((reply.body ?? {}) as { data?: Json }).data ?? {};
  };

/** A corporate PKI: a root in one mount, and issuing CAs under it in another, which others own. */
class Corporation {
  readonly #request: Request;
  readonly name: string;
  constructor(product: Product, name: string) {
    this.#request = requester(product);
    this.name = name;
  }

  async mount(path: string, maxLeaseTtl = '87600h'): Promise<void> {
    await this.#request('POST', `sys/mounts/${path}`, { type: 'pki', config: { max_lease_ttl: maxLeaseTtl } });
  }

  /** @returns PEM */
  async makeRoot(): Promise<string> {
    await this.mount(`${this.name}-corp`);
    const made = await this.#request('POST', `${this.name}-corp/root/generate/internal`, { common_name: 'Corporate Root', ttl: '80000h', key_type: 'ec', key_bits: 256 }); // prettier-ignore
    return `${String(made['certificate']).trim()}\n`;
  }

  /**
   * Makes an issuing CA under the root.
   * @param above what else its mount gets of the chain, PEM
   * @returns id of the issuer
   */
  async makeIssuing(mount: string, name: string, above = '', ttl = '70000h'): Promise<string> {
    const { csr } = await this.#request('POST', `${mount}/intermediate/generate/internal`, { common_name: name, key_type: 'ec', key_bits: 256 }); // prettier-ignore
    const { certificate } = await this.#request('POST', `${this.name}-corp/root/sign-intermediate`, { csr: csr as string, common_name: name, ttl }); // prettier-ignore
    const { imported_issuers: ids } = await this.#request('POST', `${mount}/intermediate/set-signed`, { certificate: `${String(certificate).trim()}\n${above}` }); // prettier-ignore
    const found = await Promise.all((ids as string[]).map(async (id) => [id, await this.#request('GET', `${mount}/issuer/${id}`)] as const)); // prettier-ignore
    const [id = ''] = found.find(([, issuer]) => issuer['key_id'] !== '') ?? [];
    await this.#request('POST', `${mount}/issuer/${id}`, { issuer_name: name });
    return id;
  }
}

const filesOf = async (scene: Scene) => {
  const { 'ca-cert.pem': cert = '', 'ca-key.pem': key = '', 'cert-chain.pem': chain = '', 'root-cert.pem': root = '' } = (await entry(scene)) ?? {}; // prettier-ignore
  return { cert, key, chain, root };
};
const namesIn = (pem: string): string[] => blocks(pem).map(({ subject }) => /CN=(.*)/.exec(subject)?.[1] ?? '');
const provisioned = (namespace: string) =>
  waitForCondition(kube, namespace, 'istioca', { type: 'Provisioned', status: 'True' });

describe.each(products)('an issuing CA below a root, %s', (product) => {
  const namespace = `tiers-${product}`.toLowerCase();
  const corporation = new Corporation(product, namespace);
  const request = requester(product);
  let scene: Scene;
  let root = '';
  let ids: string[] = [];
  /** Writes to the mount of others by the operator. */
  const writesToPki = async () =>
    (await vaultWrites(scene.vault)).filter((line) => line.includes(` ${namespace}-pki/`));
  let made = 0;

  beforeAll(async () => {
    root = await corporation.makeRoot();
    await corporation.mount(`${namespace}-pki`);
    ids = [
      await corporation.makeIssuing(`${namespace}-pki`, 'one', root),
      await corporation.makeIssuing(`${namespace}-pki`, 'two', root),
    ];
    const spec = { root: { source: 'Existing', existing: { issuerRef: 'one' } } };
    scene = await makeScene(kube, vaults[product], { namespace, spec });
    made = (await writesToPki()).length;
    await applyOk(kube, scene.resource);
  });

  it('signs; the CAs between are in the chain, and the self-signed one alone is in root-cert.pem', async () => {
    const ready = await provisioned(namespace);
    const files = await filesOf(scene);
    expect(namesIn(files.chain)).toEqual(['Istio Intermediate CA', 'one']);
    expect(files.root).toBe(root);
    expect(defects(files)).toEqual([]);
    expect(ready.status?.root?.issuerId).toBe(ids[0]);
    expect(conditionOf(ready, 'RootReady')?.message).toContain(`above issuer ${ids[0] ?? ''} of ${namespace}-pki`);
  });

  it('nothing but sign-intermediate is ever asked of that mount besides what Vault shows to everybody', async () => {
    expect((await writesToPki()).slice(made)).toEqual([`update ${namespace}-pki/issuer/${ids[0] ?? ''}/sign-intermediate`]); // prettier-ignore
    const reads = (await vaultEntries(scene.vault.auditLog))
      .filter(({ operation, path }) => /^(read|list)$/.test(operation) && path.startsWith(`${namespace}-pki/`))
      .map(({ path }) => path.slice(namespace.length + 5));
    expect(new Set(reads.filter((path) => !/^issuer\/[\w-]+(\/json)?$|^cert\/[0-9a-f:]+$/.test(path)))).toEqual(new Set()); // prettier-ignore
    const policy = String((await request('GET', `sys/policies/acl/operator-${namespace}`))['policy']);
    expect(policy.match(new RegExp(`path "(sys/mounts/)?${namespace}-pki.*`, 'g'))).toEqual([`path "${namespace}-pki/issuer/+/sign-intermediate" {`]); // prettier-ignore
  });

  it('nothing is written when nothing is due, and a renewal is signed by the same issuer', async () => {
    const before = (await vaultWrites(scene.vault)).length;
    await requestReconcile(kube, namespace, 'istioca', 'again');
    expect((await vaultWrites(scene.vault)).slice(before)).toEqual([]);
    // what the default is, or becomes, does not matter
    await request('POST', `${namespace}-pki/config/issuers`, { default: 'two' });
    await applyOk(kube, merge(scene.resource, { metadata: { annotations: { 'istiovaultca.io/rotate-intermediate': 'one' } } })); // prettier-ignore
    await waitFor('the second generation', async () => (await getResource(kube, namespace, 'istioca')).status?.intermediate?.generation === 2); // prettier-ignore
    expect(namesIn((await filesOf(scene)).chain)).toEqual(['Istio Intermediate CA', 'one']);
  });

  it('another issuer under the same root signs after rotate-root, without a rotation of the root', async () => {
    const other = merge(scene.resource, { spec: { root: { existing: { issuerRef: 'two' } } } });
    await applyOk(kube, other);
    const changed = await waitForCondition(kube, namespace, 'istioca', {
      type: 'RootReady',
      reason: 'RootSpecChanged',
    });
    expect(conditionOf(changed, 'RootReady')?.message).toContain('issuerRef: one → two');
    expect(namesIn((await filesOf(scene)).chain)[1]).toBe('one');
    await applyOk(kube, merge(other, { metadata: { annotations: { 'istiovaultca.io/rotate-root': 'now' } } }));
    const now = await waitFor('the other issuer', async () => {
      const resource = await getResource(kube, namespace, 'istioca');
      return namesIn((await filesOf(scene)).chain)[1] === 'two' && resource.status?.root?.issuerId === ids[1] && resource; // prettier-ignore
    });
    expect(now.status?.rotation).toBeUndefined();
    expect((await filesOf(scene)).root).toBe(root);
    expect(defects(await filesOf(scene))).toEqual([]);
  });

  it('an issuer that is gone is said, the CA in use goes on, and the remedy works', async () => {
    await request('DELETE', `${namespace}-pki/issuer/two`);
    const gone = await requestReconcile(kube, namespace, 'istioca', 'gone');
    expect(conditionOf(gone, 'RootReady')).toMatchObject({ status: 'False', reason: 'IssuerNotFound' });
    expect(conditionOf(gone, 'IntermediateReady')).toMatchObject({ status: 'True' });
    await expectDescribed(kube, namespace, 'IssuerNotFound-in-use');
    const back = { metadata: { annotations: { 'istiovaultca.io/rotate-root': 'to the other' } }, spec: { root: { existing: { issuerRef: 'one' } } } }; // prettier-ignore
    await applyOk(kube, merge(scene.resource, back));
    await waitFor('the first issuer', async () => namesIn((await filesOf(scene)).chain)[1] === 'one');
    await provisioned(namespace);
  });
});

describe('what stands in the way is said before anything is written', () => {
  const product = 'OpenBao';
  const request = requester(product);
  const applied = async (
    namespace: string,
    existing: Json,
    spec: Json = {},
    over: Json = {},
  ): Promise<[Scene, Resource]> => {
    // prettier-ignore
    const scene = await makeScene(kube, vaults[product], { namespace, spec: merge({ root: { source: 'Existing', existing } }, spec) }); // prettier-ignore
    await applyOk(kube, merge(scene.resource, over));
    return [scene, await requestReconcile(kube, namespace, 'istioca', 'applied')];
  };
  const writes = async ({ namespace, vault }: Scene) =>
    (await vaultWrites(vault)).filter((line) => line.includes(`${namespace}-kv`) || line.includes(`${namespace}-ca`));

  it('an issuer that does not exist yet', async () => {
    const corporation = new Corporation(product, 'tiers-absent');
    const [scene, resource] = await applied('tiers-absent', { issuerRef: 'mine' });
    expect(conditionOf(resource, 'RootReady')).toMatchObject({ reason: 'IssuerNotFound' });
    expect(conditionOf(resource, 'RootReady')?.message).toContain('mount tiers-absent-pki/ has not an issuer mine');
    expect(await writes(scene)).toEqual([]);
    await expectDescribed(kube, 'tiers-absent', 'IssuerNotFound');
    const root = await corporation.makeRoot();
    await corporation.mount('tiers-absent-pki');
    await corporation.makeIssuing('tiers-absent-pki', 'mine', root);
    await requestReconcile(kube, 'tiers-absent', 'istioca', 'made');
    await provisioned('tiers-absent');
  });

  it('a root that the mount does not have: rootCertRef names it', async () => {
    const corporation = new Corporation(product, 'tiers-top');
    const root = await corporation.makeRoot();
    await corporation.mount('tiers-top-pki');
    await corporation.makeIssuing('tiers-top-pki', 'issuing');
    const [scene, resource] = await applied('tiers-top', {});
    expect(conditionOf(resource, 'RootReady')).toMatchObject({ reason: 'RootNotServed' });
    expect(conditionOf(resource, 'RootReady')?.message).toContain('"issuing"');
    expect(await writes(scene)).toEqual([]);
    await expectDescribed(kube, 'tiers-top', 'RootNotServed');
    await applyOk(kube, { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'corporate', namespace: 'tiers-top' }, data: { 'ca.crt': root } }); // prettier-ignore
    const named = { root: { existing: { rootCertRef: { configMapRef: { name: 'corporate' } } } } };
    await applyOk(kube, merge(scene.resource, { spec: named }));
    await provisioned('tiers-top');
    expect((await filesOf(scene)).root).toBe(root);
    expect(defects(await filesOf(scene))).toEqual([]);
  });

  it('a mount that would cut the life short', async () => {
    const corporation = new Corporation(product, 'tiers-short');
    const root = await corporation.makeRoot();
    await corporation.mount('tiers-short-pki', '1000h');
    await corporation.makeIssuing('tiers-short-pki', 'issuing', root);
    await applied('tiers-short', {});
    const short = await waitForCondition(kube, 'tiers-short', 'istioca', { type: 'IntermediateReady', reason: 'TTLTruncated' }); // prettier-ignore
    expect(conditionOf(short, 'IntermediateReady')?.message).toContain('Nothing was signed');
    expect(await request('LIST', 'tiers-short-pki/certs').catch(() => ({ keys: [] }))).toEqual({ keys: [] });
  });

  it('a token that may not sign', async () => {
    const corporation = new Corporation(product, 'tiers-denied');
    const root = await corporation.makeRoot();
    await corporation.mount('tiers-denied-pki');
    const id = await corporation.makeIssuing('tiers-denied-pki', 'issuing', root);
    const path = 'sys/policies/acl/operator-tiers-denied';
    const scene = await makeScene(kube, vaults[product], { namespace: 'tiers-denied', spec: { root: { source: 'Existing' } } }); // prettier-ignore
    const policy = String((await request('GET', path))['policy']);
    await request('PUT', path, { policy: policy.replace('tiers-denied-pki/issuer/+/sign', 'tiers-denied-pki/issuer/x/sign') }); // prettier-ignore
    await applyOk(kube, scene.resource);
    const denied = await waitForCondition(kube, 'tiers-denied', 'istioca', { type: 'VaultReady', reason: 'Forbidden' });
    expect(conditionOf(denied, 'VaultReady')?.message).toContain(`tiers-denied-pki/issuer/${id}/sign-intermediate`);
    // the owner can permit this one issuer and no other
    await request('PUT', path, { policy: policy.replace('tiers-denied-pki/issuer/+/sign', `tiers-denied-pki/issuer/${id}/sign`) }); // prettier-ignore
    await requestReconcile(kube, 'tiers-denied', 'istioca', 'permitted');
    await provisioned('tiers-denied');
  });

  it('PKI delivery of an issuer that is no root; of one that is, it works', async () => {
    const corporation = new Corporation(product, 'tiers-pki');
    await corporation.makeRoot();
    const [, resource] = await applied('tiers-pki', {}, { root: { mount: 'tiers-pki-corp' }, delivery: { source: 'PKI' } }); // prettier-ignore
    expect(conditionOf(resource, 'RootReady')?.reason).not.toBe('RootNotServed');
    await provisioned('tiers-pki');
    await corporation.mount('tiers-pki-issuing');
    await corporation.makeIssuing('tiers-pki-issuing', 'issuing', await corporation.makeRoot().catch(() => ''));
    const [, refused] = await applied('tiers-pki2', {}, { root: { mount: 'tiers-pki-issuing', existing: { rootCertRef: { configMapRef: { name: 'none' } } } }, delivery: { source: 'PKI' } }); // prettier-ignore
    expect(conditionOf(refused, 'RootReady')).toMatchObject({ reason: 'RootNotServed' });
  });
});

describe('a CA by hand whose intermediate an issuing CA signed', () => {
  const namespace = 'tiers-adopted';
  const request = requester('OpenBao');
  const corporation = new Corporation('OpenBao', namespace);
  const adopt = { adopt: true, root: { source: 'Existing' } };
  let root = '';
  let certificate = '';
  let key = '';

  beforeAll(async () => {
    root = await corporation.makeRoot();
    await corporation.mount(`${namespace}-pki`);
    await corporation.makeIssuing(`${namespace}-pki`, 'one', root);
    await corporation.mount(`${namespace}-ca`);
    const made = await request('POST', `${namespace}-ca/intermediate/generate/exported`, { common_name: 'By Hand', key_type: 'ec', key_bits: 256 }); // prettier-ignore
    const body = { csr: made['csr'] as string, common_name: 'By Hand', ttl: '40000h' };
    const signed = await request('POST', `${namespace}-pki/root/sign-intermediate`, body);
    certificate = `${String(signed['certificate']).trim()}\n`;
    key = String(made['private_key']);
    await request('POST', `${namespace}-ca/intermediate/set-signed`, { certificate: [certificate, ...(signed['ca_chain'] as string[])].join('\n') }); // prettier-ignore
    await request('POST', `sys/mounts/${namespace}-kv`, { type: 'kv', options: { version: '2' } });
    await request('POST', `${namespace}-kv/data/istioca`, { data: { 'ca-key.pem': key, 'root-cert.pem': root } });
  });

  it('as Generate is refused: the issuer is no root, and the remedy is named', async () => {
    const scene = await makeScene(kube, vaults.OpenBao, { namespace, spec: { adopt: true } });
    await applyOk(kube, scene.resource);
    const refused = await waitForCondition(kube, namespace, 'istioca', { type: 'KeyStored', reason: 'AdoptionMismatch' }); // prettier-ignore
    expect(conditionOf(refused, 'KeyStored')?.message).toMatch(
      /the issuer "one".* is no root: set spec.root.source: Existing/,
    );
    await kube.request('DELETE', `/apis/istiovaultca.io/v1alpha1/namespaces/${namespace}/istiovaultcas/istioca`);
    await waitFor('the resource to be gone', async () => (await getResource(kube, namespace, 'istioca')).metadata.uid === undefined); // prettier-ignore
  });

  it('as Existing is adopted with its three tiers: same certificate, same key', async () => {
    const scene = await makeScene(kube, vaults.OpenBao, { namespace, spec: adopt });
    await applyOk(kube, scene.resource);
    await provisioned(namespace);
    const files = await filesOf(scene);
    expect([files.cert, files.key.trim(), files.root]).toEqual([certificate, key.trim(), root]);
    expect(namesIn(files.chain)).toEqual(['By Hand', 'one']);
    expect(defects(files)).toEqual([]);
  });
});

it('two revisions of one mesh: the refusal shows the lines, and with them both have CAs under one root', async () => {
  const namespace = 'tiers-canary';
  const scene = await makeScene(kube, vaults.OpenBao, { namespace, overlays: null });
  await limitMesh(kube, namespace, 'canary');
  await applyOk(kube, merge(scene.resource, { spec: { controlPlane: { kind: 'HelmValues', name: 'stable' } } }));
  await provisioned(namespace);
  const canary = merge(scene.resource, { metadata: { name: 'canary' }, spec: { controlPlane: { kind: 'HelmValues', name: 'canary', revision: 'canary' } } }); // prettier-ignore
  await applyOk(kube, canary);
  const refused = await waitForCondition(kube, namespace, 'canary', { type: 'RootReady', reason: 'MountNotOwned' });
  expect(conditionOf(refused, 'RootReady')?.message).toContain('belongs to IstioVaultCA tiers-canary/istioca');
  expect(conditionOf(refused, 'RootReady')?.message).toContain('`root: {source: Existing, mount: <spec.root.mount of istioca>}`'); // prettier-ignore
  await kube.request('DELETE', `/apis/istiovaultca.io/v1alpha1/namespaces/${namespace}/istiovaultcas/canary`);
  await waitFor('the canary to be gone', async () => (await getResource(kube, namespace, 'canary')).metadata.uid === undefined); // prettier-ignore
  const names = {
    root: { source: 'Existing' },
    intermediate: { mount: `${namespace}-ca2` },
    keyStore: { path: 'canary' },
    policy: { name: `${namespace}-canary` },
    kubernetesAuth: { role: `${namespace}-canary` },
  };
  const canaryScene = { ...scene, name: 'canary', resource: merge(canary, { spec: names }) };
  const { vault } = scene;
  const policy = async (role: string) => ((await vault.request('GET', `sys/policies/acl/${role}`)).body as { data: { policy: string } }).data.policy; // prettier-ignore
  const both = `${await policy(`operator-${namespace}`)}\n${(await policy(`operator-${namespace}`)).replaceAll(`${namespace}-ca"`, `${namespace}-ca2"`).replaceAll(`${namespace}-ca/`, `${namespace}-ca2/`).replaceAll('istioca', 'canary').replaceAll(`${namespace}-istiod`, `${namespace}-canary`)}`; // prettier-ignore
  await vault.request('PUT', `sys/policies/acl/operator-${namespace}`, { policy: both });
  await applyOk(kube, canaryScene.resource);
  await waitForCondition(kube, namespace, 'canary', { type: 'Provisioned', status: 'True' });
  const [stable, second] = [await filesOf(scene), await filesOf(canaryScene)];
  expect(second.root).toBe(stable.root);
  expect(second.cert).not.toBe(stable.cert);
  expect(defects(second)).toEqual([]);
});
