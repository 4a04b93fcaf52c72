/** Who may do what with what the operator made: tried against the real servers, path by path. */
import { beforeAll, describe, expect, it } from '@jest/globals';
import { products, requestToken, sharedStack, type Product } from '../stack/index.ts';
import { applyOk, waitForCondition } from '../support/cluster.ts';
import { useOperator } from '../support/harness.ts';
import { makeScene, type Scene } from '../support/scene.ts';

const { kube, vaults } = sharedStack();
useOperator();

const cases = products.flatMap((product) => [
  { product, source: 'Bundle', version: 2 },
  { product, source: 'PKI', version: 1 },
]);

async function login(product: Product, role: string, jwt: string) {
  const answer = await vaults[product].request('POST', 'auth/kubernetes/login', { role, jwt }, '');
  return {
    status: answer.status,
    token: (answer.body as { auth?: { client_token: string } }).auth?.client_token ?? '',
  };
}

describe.each(cases)('$product, $source delivery, KV $version', ({ product, source, version }) => {
  const namespace = `access-${product}-${source}`.toLowerCase();
  let scene: Scene;
  const role = `${namespace}-istiod`;

  beforeAll(async () => {
    scene = await makeScene(kube, vaults[product], {
      namespace,
      spec: { keyStore: { version }, delivery: { source } },
    });
    await applyOk(kube, scene.resource);
    await waitForCondition(kube, namespace, 'istioca', { type: 'Provisioned', status: 'True' });
  });

  it('another service account cannot log in with the role, nor istiod of another namespace', async () => {
    const other = await requestToken(kube, namespace, 'workload');
    const elsewhere = await requestToken(kube, 'default', 'istiod');
    expect((await login(product, role, other)).status).toBe(403);
    expect((await login(product, role, elsewhere)).status).toBe(403);
    expect((await login(product, role, await requestToken(kube, namespace, 'istiod'))).status).toBe(200);
  });

  it("istiod's token reads what the templates read, and nothing else", async () => {
    const { token } = await login(product, role, await requestToken(kube, namespace, 'istiod'));
    const kv = `${namespace}-kv`;
    const live = version === 2 ? `${kv}/data/istioca` : `${kv}/istioca`;
    const templates =
      source === 'PKI'
        ? [live, `${namespace}-ca/cert/ca`, `${namespace}-ca/cert/ca_chain`, `${namespace}-pki/cert/ca`]
        : [live];
    for (const path of templates)
      expect({ path, status: (await scene.vault.request('GET', path, undefined, token)).status }).toEqual({
        path,
        status: 200,
      });

    const denied: [string, string][] = [
      ['GET', `${live}-staging`],
      ['GET', `${live}-state`],
      ['POST', live],
      ['DELETE', live],
      ['LIST', version === 2 ? `${kv}/metadata` : kv],
      ['GET', `${kv}/metadata/istioca`],
      ['GET', `${kv}/config`],
      ['LIST', `${namespace}-pki/keys`],
      ['LIST', `${namespace}-ca/keys`],
      ['LIST', `${namespace}-ca/certs`],
      ['GET', `${namespace}-ca/config/issuers`],
      ['POST', `${namespace}-ca/config/issuers`],
      ['POST', `${namespace}-ca/root/sign-intermediate`],
      ['POST', `${namespace}-pki/root/sign-intermediate`],
      ['POST', `${namespace}-ca/keys/import`],
      ['POST', `${namespace}-ca/sign-verbatim`],
      ['DELETE', `${namespace}-pki/root`],
      ['GET', `sys/policies/acl/${namespace}-istioca`],
      ['GET', `auth/kubernetes/role/${role}`],
      ['GET', 'auth/kubernetes/config'],
      ['GET', 'sys/mounts'],
      ['GET', 'sys/auth'],
      ['GET', 'secret/data/anything'],
      ['POST', 'auth/token/create'],
    ];
    for (const [method, path] of denied) {
      const body = method === 'POST' ? {} : undefined;
      expect({ method, path, status: (await scene.vault.request(method, path, body, token)).status }).toEqual({
        method,
        path,
        status: 403,
      });
    }
  });
});
