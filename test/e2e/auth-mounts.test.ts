/**
 * The configuration of the Kubernetes auth mount: written again where the operator made the mount, and named where somebody else did. Each claim
 * about a login is checked by a login.
 */
import { beforeAll, describe, expect, it } from '@jest/globals';
import { enableKubernetesAuth, products, requestToken, sharedStack, waitFor } from '../stack/index.ts';
import { vaultWrites } from '../support/audit.ts';
import { applyOk, conditionOf, requestReconcile, waitForCondition } from '../support/cluster.ts';
import { useOperator } from '../support/harness.ts';
import { secretOf } from '../support/samples.ts';
import { makeScene, type Scene } from '../support/scene.ts';

const { kube, vaults } = sharedStack();
useOperator();

const look = async ({ namespace }: Scene, text: string) =>
  conditionOf(await requestReconcile(kube, namespace, 'istioca', text), 'AccessReady');

/** The status of a login as istiod. */
async function login({ vault, namespace }: Scene, mount: string, audiences?: string[]): Promise<number> {
  const jwt = await requestToken(kube, namespace, 'istiod', audiences);
  const role = `${namespace}-istiod`;
  return (await vault.request('POST', `auth/${mount}/login`, { role, jwt }, '')).status;
}

/** What the API server says is the issuer of its tokens. */
const issuer = async () =>
  ((await kube.request('GET', '/.well-known/openid-configuration')).body as { issuer: string }).issuer;

describe.each(products)('%s: a mount that the operator made', (product) => {
  const namespace = `made-auth-${product.toLowerCase()}`;
  const mount = `${namespace}-mount`;
  const path = `auth/${mount}/config`;
  const reviewer = async () => await requestToken(kube, 'vault', 'vault-reviewer', undefined, 86_400);
  const give = async (token: string) =>
    await applyOk(kube, secretOf(namespace, 'istio-vault-ca-reviewer', 'token', token));
  let scene: Scene;
  const written = async () => (await vaultWrites(scene.vault)).filter((write) => write.endsWith(` ${path}`)).length;

  beforeAll(async () => {
    const tokenReviewer = { mode: 'Secret', secretRef: { name: 'istio-vault-ca-reviewer', key: 'token' } };
    scene = await makeScene(kube, vaults[product], {
      namespace,
      spec: { kubernetesAuth: { mount, config: { kubernetesHost: kube.url, tokenReviewer } } },
      make: { authMount: true, authConfig: true },
    });
    await give(await reviewer());
    await applyOk(kube, scene.resource);
    await waitForCondition(kube, namespace, 'istioca', { type: 'Provisioned', status: 'True' });
  });

  it('has a configuration by which istiod can log in', async () => {
    expect(await login(scene, mount)).toBe(200);
    expect(await written()).toBe(1);
  });

  it('gets it again when somebody has it check another issuer', async () => {
    const { data } = (await scene.vault.request('GET', path)).body as { data: Record<string, unknown> };
    const changed = { ...data, issuer: 'https://elsewhere.example', disable_iss_validation: false };
    await scene.vault.request('POST', path, { ...changed, token_reviewer_jwt: await reviewer() });
    expect(await login(scene, mount)).not.toBe(200);
    expect(await look(scene, 'issuer')).toMatchObject({ status: 'True', reason: 'AccessConfigured' });
    expect(await login(scene, mount)).toBe(200);
  });

  it('gets a changed token of the reviewer, once', async () => {
    const before = await written();
    await give(await reviewer());
    await look(scene, 'another token');
    const after = await written();
    // a reconcile that the annotation of `look` ends between the write and its record leaves the next one to write again
    expect(after - before).toBeGreaterThanOrEqual(1);
    expect(after - before).toBeLessThanOrEqual(2);
    await look(scene, 'the same token');
    expect(await written()).toBe(after);
    expect(await login(scene, mount)).toBe(200);
  });

  it('keeps what it has while the Secret is gone', async () => {
    const before = await written();
    await kube.request('DELETE', `/api/v1/namespaces/${namespace}/secrets/istio-vault-ca-reviewer`);
    expect(await look(scene, 'no Secret')).toMatchObject({ status: 'True' });
    expect(await written()).toBe(before);
    expect(await login(scene, mount)).toBe(200);
  });
});

describe.each(products)('%s: a mount of somebody else', (product) => {
  const namespace = `other-auth-${product.toLowerCase()}`;
  const mount = `${namespace}-mount`;
  const path = `auth/${mount}/config`;
  let scene: Scene;

  /** Changes fields of the configuration, as its owner does. */
  async function configure(fields: object): Promise<void> {
    const { data } = (await scene.vault.request('GET', path)).body as { data: Record<string, unknown> };
    const token_reviewer_jwt = await requestToken(kube, 'vault', 'vault-reviewer', undefined, 86_400);
    await scene.vault.request('POST', path, { ...data, token_reviewer_jwt, ...fields });
  }

  beforeAll(async () => {
    await enableKubernetesAuth(vaults[product], kube, mount);
    scene = await makeScene(kube, vaults[product], { namespace, spec: { kubernetesAuth: { mount } } });
  });

  it('keeps the fields of the control plane away while no login can work, and is named', async () => {
    await configure({ issuer: 'https://elsewhere.example', disable_iss_validation: false });
    await applyOk(kube, scene.resource);
    await waitForCondition(kube, namespace, 'istioca', { type: 'KeyStored', status: 'True' });
    const resource = await waitForCondition(kube, namespace, 'istioca', {
      type: 'AccessReady',
      status: 'False',
      reason: 'AuthConfigUnfit',
    });
    const { message } = conditionOf(resource, 'AccessReady') ?? {};
    expect(message).toContain(`"https://elsewhere.example"`);
    expect(message).toContain(JSON.stringify(await issuer()));
    expect(conditionOf(resource, 'ControlPlanePatched')?.status).not.toBe('True');
    await waitFor('the role', async () => {
      const role = await scene.vault.request('GET', `auth/${mount}/role/${namespace}-istiod`);
      return role.status === 200;
    });
    expect(await login(scene, mount)).not.toBe(200);
  });

  it('goes on when the issuer is this cluster’s', async () => {
    await configure({ issuer: await issuer(), disable_iss_validation: false });
    expect(await look(scene, 'issuer')).toMatchObject({ status: 'True', reason: 'AccessConfigured' });
    expect(await login(scene, mount)).toBe(200);
    await waitForCondition(kube, namespace, 'istioca', { type: 'Provisioned', status: 'True' });
  });

  it('goes on when the issuer is to be checked and none is named, with which logins succeed', async () => {
    await configure({ issuer: '', disable_iss_validation: false });
    expect(await login(scene, mount)).toBe(200);
    expect(await look(scene, 'no issuer')).toMatchObject({ status: 'True', reason: 'AccessConfigured' });
  });

  it('is never written', async () => {
    const ofThisTest = 3;
    const writes = (await vaultWrites(scene.vault)).filter((write) => write.endsWith(` ${path}`));
    // the first one is the stack's, which made the mount
    expect(writes).toHaveLength(1 + ofThisTest);
  });
});
