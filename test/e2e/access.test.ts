/** Who may do what with what the operator made: tried against the real servers, path by path. */
import { beforeAll, describe, expect, it } from '@jest/globals';
import { products, requestToken, sharedStack, waitFor, type Product } from '../stack/index.ts';
import { applyOk, conditionOf, getResource, requestReconcile, waitForCondition } from '../support/cluster.ts';
import { eventsOf } from '../support/events.ts';
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

  it('what only narrows the role stays and is named, and AccessRestricted says with what the agent cannot work', async () => {
    const path = `auth/kubernetes/role/${role}`;
    const look = async (text: string) => {
      const resource = await requestReconcile(kube, namespace, 'istioca', text);
      return conditionOf(resource, 'AccessReady');
    };
    await scene.vault.request('POST', path, { token_bound_cidrs: ['127.0.0.0/8'], token_no_default_policy: true });
    const narrowed = await look('narrowed');
    expect(narrowed).toMatchObject({ status: 'True' });
    expect(narrowed?.message).toContain('somebody else set token_bound_cidrs, token_no_default_policy of the role');

    await scene.vault.request('POST', path, { token_num_uses: 3 });
    const restricted = await look('restricted');
    expect(restricted).toMatchObject({ status: 'False', reason: 'AccessRestricted' });
    expect(restricted?.message).toContain(`vault write ${path} token_num_uses=0`);
    const kept = (await scene.vault.request('GET', path)).body as { data: Record<string, unknown> };
    expect(kept.data).toMatchObject({ token_num_uses: 3, token_no_default_policy: true });

    await scene.vault.request('POST', path, {
      token_num_uses: 0,
      token_bound_cidrs: [],
      token_no_default_policy: false,
    });
    expect(await look('open again')).toMatchObject({
      status: 'True',
      message: expect.not.stringContaining('else set'),
    });
  });

  it('a role of somebody else in the PKI mount is never deleted, and is said', async () => {
    const path = `${namespace}-ca/roles/others`;
    await scene.vault.request('POST', path, { allow_any_name: true });
    const resource = await requestReconcile(kube, namespace, 'istioca', 'a role');
    expect(conditionOf(resource, 'IntermediateReady')).toMatchObject({
      status: 'True',
      message: expect.stringContaining(`${path} is not of this resource`),
    });
    const events = await waitFor('the Event', async () => {
      const found = (await eventsOf(kube, namespace)).filter(({ reason }) => reason === 'ForeignRole');
      return found.length > 0 && found;
    });
    expect(events[0]).toMatchObject({ type: 'Warning', note: expect.stringContaining(path) });
    expect((await scene.vault.request('GET', path)).status).toBe(200);
    await scene.vault.request('DELETE', path);
  });

  it('without the rights for these looks it goes on, and says what it could not see', async () => {
    const name = `operator-${namespace}`;
    const rules = ((await scene.vault.request('GET', `sys/policies/acl/${name}`)).body as { data: { policy: string } })
      .data.policy;
    const least = rules
      .split('\n\n')
      .filter((rule) => !rule.includes('/roles"') && !rule.includes('auth/kubernetes/config"'))
      .join('\n\n')
      .replaceAll(', "patch"', '');
    await scene.vault.request('PUT', `sys/policies/acl/${name}`, { policy: least });
    const resource = await requestReconcile(kube, namespace, 'istioca', 'fewer rights');
    expect(conditionOf(resource, 'VaultReady')).toMatchObject({
      status: 'True',
      message: expect.stringContaining(
        `not verified, because the token lacks the right: list ${namespace}-pki/roles, list ${namespace}-ca/roles, read auth/kubernetes/config`,
      ),
    });
    expect(conditionOf(resource, 'Provisioned')?.status).toBe('True');

    const { issuerId } = resource.status?.intermediate as unknown as { issuerId: string };
    const issuer = `${namespace}-ca/issuer/${issuerId}`;
    await scene.vault.request('POST', issuer, { usage: 'read-only' });
    const unused = await requestReconcile(kube, namespace, 'istioca', 'usage');
    expect(conditionOf(unused, 'IntermediateReady')).toMatchObject({
      status: 'True',
      message: expect.stringContaining(`vault patch ${issuer} usage=read-only,issuing-certificates`),
    });
    await scene.vault.request('PUT', `sys/policies/acl/${name}`, { policy: rules });
    const again = await requestReconcile(kube, namespace, 'istioca', 'all rights');
    expect(conditionOf(again, 'IntermediateReady')?.message).not.toContain('usage');
    const { data } = (await scene.vault.request('GET', issuer)).body as { data: { usage: string } };
    expect(data.usage).toBe('issuing-certificates,read-only');
  });

  it('a revoked root is IssuerRevoked for a person to act, and the CA in use goes on', async () => {
    const before = await getResource(kube, namespace, 'istioca');
    const { issuerId, serial } = before.status?.root as unknown as { issuerId: string; serial: string };
    await scene.vault.request('POST', `${namespace}-pki/issuer/${issuerId}/revoke`, {});
    const resource = await requestReconcile(kube, namespace, 'istioca', 'a revoked root');
    expect(conditionOf(resource, 'RootReady')).toMatchObject({ status: 'False', reason: 'IssuerRevoked' });
    expect(conditionOf(resource, 'RootReady')?.message).toContain(serial);
    expect(conditionOf(resource, 'Stalled')).toMatchObject({ status: 'True', reason: 'IssuerRevoked' });
    expect(conditionOf(resource, 'IntermediateReady')?.status).toBe('True');
    expect(resource.status?.intermediate).toEqual(before.status?.intermediate);
  });
});
