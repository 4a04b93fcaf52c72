/**
 * `spec.vault.namespace`: a CA inside a namespace of OpenBao, read by istiod's real agent, and a namespace that does not exist, is sealed by itself, is
 * locked or is deleted. Vault's Community edition has none and ignores the header.
 */
import { beforeAll, describe, expect, it } from '@jest/globals';
import { enableKubernetesAuth, sharedStack, waitFor } from '../stack/index.ts';
import { call } from '../stack/http.ts';
import { vaultEntries, vaultWrites } from '../support/audit.ts';
import { defects, readCaFiles } from '../support/certificates.ts';
import { applyOk, conditionOf, requestReconcile, resourcePath, waitForCondition } from '../support/cluster.ts';
import { useOperator } from '../support/harness.ts';
import { logins } from '../support/outage.ts';
import { renderFiles } from '../support/render.ts';
import { secretOf } from '../support/samples.ts';
import { grantOperator, makeScene, type Scene, type Vault } from '../support/scene.ts';

const { kube, vaults } = sharedStack();
const { operator } = useOperator();
const root = vaults.OpenBao;

/** A server as a client in one of its namespaces sees it. */
const within = (namespace: string): Vault => ({
  ...root,
  request: (method, path, body, token) => root.request(method, `${namespace}/${path}`, body, token),
});

const ok = async (answer: Promise<{ status: number; body: unknown }>): Promise<unknown> => {
  const { status, body } = await answer;
  if (status >= 300) throw new Error(`${status} ${JSON.stringify(body)}`);
  return body;
};

/** Keys of its own for a namespace: one share. */
const seal = 'seal "shamir" {\n  shares = 1\n  threshold = 1\n}';

const mounts = async (vault: Vault): Promise<string[]> =>
  Object.keys(((await ok(vault.request('GET', 'sys/mounts'))) as { data: object }).data).sort();

let asked = 0;
const look = async (namespace: string) =>
  conditionOf(await requestReconcile(kube, namespace, 'istioca', String((asked += 1))), 'VaultReady');

describe('a namespace of OpenBao', () => {
  const namespace = 'team-mesh';
  /** In Vault: with a namespace above it. */
  const inVault = 'team/mesh';
  let unsealKey: string;
  let scene: Scene;

  const unseal = async () => await ok(root.request('PUT', 'team/sys/namespaces/mesh/unseal', { key: unsealKey }));
  const verdict = async () => await look(namespace);
  /** What istiod has, which nothing may change while the namespace cannot be used. */
  const untouched = async (work: () => Promise<void>) => {
    const before = [await vaultWrites(root), await controlPlane()];
    await work();
    expect([await vaultWrites(root), await controlPlane()]).toEqual(before);
  };
  const controlPlane = async () =>
    (await kube.request('GET', `/apis/install.tetrate.io/v1alpha1/namespaces/${namespace}/controlplanes/controlplane`))
      .body;

  beforeAll(async () => {
    await ok(root.request('POST', 'sys/namespaces/team', {}));
    const spec = { vault: { namespace: inVault } };
    scene = await makeScene(kube, within(inVault), { namespace, spec, withoutRole: true });
  });

  it('that does not exist is VaultNamespaceNotFound, without a login', async () => {
    const before = await logins(operator());
    await untouched(async () => {
      await applyOk(kube, scene.resource);
      const { message } = conditionOf(
        await waitForCondition(kube, namespace, 'istioca', { type: 'VaultReady', reason: 'VaultNamespaceNotFound' }),
        'VaultReady',
      )!;
      expect(message).toContain('create the Vault namespace of spec.vault.namespace');
    });
    expect(await logins(operator())).toBe(before);
  });

  it('is used by operator and agent, and nothing else is', async () => {
    const before = await mounts(root);
    const body = await ok(root.request('POST', 'team/sys/namespaces/mesh', { seal }));
    unsealKey = (body as { data: { key_shares: string[] } }).data.key_shares[0] ?? '';
    // with keys of its own, it begins sealed
    expect(await verdict()).toMatchObject({ reason: 'VaultNamespaceSealed' });
    await unseal();
    await enableKubernetesAuth(scene.vault, kube);
    await grantOperator(scene.vault, `operator-${namespace}`, namespace, scene.resource['spec'] as Scene['resource']);
    await look(namespace);
    await waitForCondition(kube, namespace, 'istioca', { type: 'Provisioned', status: 'True' });
    const { dir, template } = await renderFiles(scene);
    expect(defects(await readCaFiles(dir))).toEqual([]);
    expect(template.annotations['vault.hashicorp.com/namespace']).toBe(inVault);
    expect(await mounts(root)).toEqual(before);
    expect(await mounts(scene.vault)).toEqual(expect.arrayContaining([`${namespace}-pki/`, `${namespace}-kv/`]));
  });

  it('has an AppRole too, whose wrapped secret ID is unwrapped in it', async () => {
    await ok(scene.vault.request('POST', 'sys/auth/approle', { type: 'approle' }));
    await ok(scene.vault.request('POST', 'auth/approle/role/operator', { token_policies: `operator-${namespace}` }));
    const read = await ok(scene.vault.request('GET', 'auth/approle/role/operator/role-id'));
    const { role_id: roleId } = (read as { data: { role_id: string } }).data;
    const wrapped = await call(`${root.address}/v1/auth/approle/role/operator/secret-id`, {
      method: 'POST',
      ca: root.caPem,
      headers: { 'x-vault-token': root.rootToken, 'x-vault-namespace': inVault, 'x-vault-wrap-ttl': '600' },
    });
    const { token } = (wrapped.body as { wrap_info: { token: string } }).wrap_info;
    await applyOk(kube, secretOf(namespace, 'istio-vault-ca-approle', 'secret-id', token));
    const appRole = { roleId, secretIdRef: { name: 'istio-vault-ca-approle' } };
    const auth = { method: 'AppRole', kubernetes: null, appRole };
    await kube.request('PATCH', resourcePath(namespace, 'istioca'), { spec: { vault: { auth } } });
    await waitForCondition(kube, namespace, 'istioca', { type: 'Provisioned', status: 'True' });
    expect((await scene.vault.request('POST', 'sys/wrapping/lookup', { token })).status).toBe(400);
  });

  it('sealed by itself is VaultNamespaceSealed until it is unsealed', async () => {
    await ok(root.request('PUT', 'team/sys/namespaces/mesh/seal'));
    await untouched(async () => {
      const sealed = await verdict();
      expect(sealed).toMatchObject({ status: 'False', reason: 'VaultNamespaceSealed' });
      expect(sealed?.message).toContain('bao namespace unseal');
    });
    await unseal();
    await look(namespace);
    await waitForCondition(kube, namespace, 'istioca', { type: 'Provisioned', status: 'True' });
  });

  it('locked is VaultNamespaceLocked until it is unlocked', async () => {
    await ok(root.request('PUT', 'team/sys/namespaces/api-lock/lock/mesh'));
    await untouched(async () => {
      const locked = await verdict();
      expect(locked).toMatchObject({ status: 'False', reason: 'VaultNamespaceLocked' });
      expect(locked?.message).toContain('bao namespace unlock');
    });
    await ok(root.request('PUT', 'team/sys/namespaces/api-lock/unlock/mesh', { unlock_key: '' }));
    await look(namespace);
    await waitForCondition(kube, namespace, 'istioca', { type: 'Provisioned', status: 'True' });
  });

  it('deleted while the operator uses it is VaultNamespaceNotFound, and not a lost root', async () => {
    await ok(root.request('DELETE', 'team/sys/namespaces/mesh'));
    await waitFor(
      'the namespace to be gone',
      async () => (await scene.vault.request('GET', 'sys/mounts')).status === 404,
    );
    await untouched(async () => {
      expect(await verdict()).toMatchObject({ status: 'False', reason: 'VaultNamespaceNotFound' });
    });
  });
});

describe("Vault's Community edition", () => {
  it('is VaultNamespaceUnsupported: without a login, and without a write', async () => {
    const namespace = 'team-community';
    const vault = vaults.Vault;
    const spec = { vault: { namespace: 'team' } };
    const scene = await makeScene(kube, vault, { namespace, spec });
    const before = [await vaultWrites(vault), await logins(operator())];
    await applyOk(kube, scene.resource);
    const resource = await waitForCondition(kube, namespace, 'istioca', {
      type: 'VaultReady',
      reason: 'VaultNamespaceUnsupported',
    });
    expect(conditionOf(resource, 'VaultReady')?.message).toContain('ignores namespaces');
    expect(conditionOf(resource, 'Stalled')?.status).toBe('True');
    expect([await vaultWrites(vault), await logins(operator())]).toEqual(before);
    expect((await vaultEntries(vault.auditLog)).filter(({ path }) => path.startsWith(`${namespace}-`))).toEqual([]);
  });
});
