/**
 * An operator that may write neither policies nor roles (`manage: false`): with the shipped policy, script and sample, on servers of its own with
 * default names.
 */
import { execFile } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import {
  makeTemporaryDir,
  products,
  requestToken,
  sharedStack,
  startVault,
  type Product,
  type VaultServer,
} from '../stack/index.ts';
import { agentEnv } from '../stack/agent.ts';
import { vaultWrites } from '../support/audit.ts';
import { defects, readCaFiles } from '../support/certificates.ts';
import { conditionOf, requestReconcile, waitForCondition } from '../support/cluster.ts';
import { useOperator } from '../support/harness.ts';
import { renderFiles } from '../support/render.ts';
import { applySample, shippedFile, shippedPolicy } from '../support/samples.ts';
import { prepareVault } from '../support/scene.ts';

const { kube } = sharedStack();
useOperator();

/** Runs the script for administrators as its comment says, with the command line client of the product. */
async function runScript(server: VaultServer, namespace: string): Promise<void> {
  const caFile = join(makeTemporaryDir('ca'), 'ca.crt');
  writeFileSync(caFile, server.caPem ?? '');
  const client = { VAULT_ADDR: server.address, VAULT_TOKEN: server.rootToken, VAULT_CACERT: caFile };
  const env = { ...process.env, ...agentEnv(client), VAULT_CLI: server.agentBinary, NAMESPACE: namespace };
  await promisify(execFile)('sh', [shippedFile('access.sh')], { env });
}

describe.each(products)('%s', (product: Product) => {
  const namespace = `least-${product.toLowerCase()}`;
  let server: VaultServer;

  beforeAll(async () => {
    server = await startVault(product);
    await prepareVault(kube, server);
  });
  afterAll(() => server.stop());

  const access = async (text: string) =>
    conditionOf(await requestReconcile(kube, namespace, 'istioca', text), 'AccessReady');

  it('waits for what an administrator of Vault makes, and touches istiod only then', async () => {
    // the operator can log in, and nothing else is there yet
    await runScript(server, namespace);
    await server.request('DELETE', 'sys/policies/acl/istioca');
    await server.request('DELETE', 'auth/kubernetes/role/istiod');
    await applySample(kube, 'deploy/samples/least-rights.yaml', namespace, server);
    const resource = await waitForCondition(kube, namespace, 'istioca', { type: 'KeyStored', status: 'True' });
    const waiting = await waitForCondition(kube, namespace, 'istioca', { type: 'AccessReady', status: 'False' });
    expect(conditionOf(waiting, 'AccessReady')).toMatchObject({
      reason: 'AccessDiffers',
      message: expect.stringMatching(/policy istioca does not exist.*role istiod of auth\/kubernetes does not exist/),
    });
    expect(conditionOf(resource, 'ControlPlanePatched')?.status).not.toBe('True');
    await runScript(server, namespace);
    await requestReconcile(kube, namespace, 'istioca', 'now it is there');
    const done = await waitForCondition(kube, namespace, 'istioca', { type: 'Provisioned', status: 'True' });
    expect(conditionOf(done, 'AccessReady')).toMatchObject({ status: 'True', reason: 'AccessConfigured' });
  });

  it("istiod's agent renders a whole CA", async () => {
    const { dir } = await renderFiles({ kube, vault: server, namespace, name: 'istioca', resource: {} });
    expect(defects(await readCaFiles(dir))).toEqual([]);
  });

  it('with the token of the operator, no policy and no role can be written', async () => {
    const jwt = await requestToken(kube, namespace, 'istio-vault-ca', ['vault']);
    const login = await server.request('POST', 'auth/kubernetes/login', { role: 'istio-vault-ca', jwt }, '');
    const token = (login.body as { auth: { client_token: string } }).auth.client_token;
    const policy = 'path "*" { capabilities = ["sudo", "read"] }';
    const attempts: [string, string, object][] = [
      ['PUT', 'sys/policies/acl/istioca', { policy }],
      ['PUT', 'sys/policies/acl/istio-vault-ca', { policy }],
      ['PUT', 'sys/policies/acl/another', { policy }],
      ['PUT', 'sys/policy/another', { policy }],
      ['PUT', 'sys/policies/password/another', { policy }],
      ['DELETE', 'sys/policies/acl/istioca', {}],
      ['POST', 'auth/kubernetes/role/istiod', { token_policies: 'root' }],
      ['POST', 'auth/kubernetes/role/another', { token_policies: 'root' }],
      ['DELETE', 'auth/kubernetes/role/istiod', {}],
      ['POST', 'auth/kubernetes/config', { kubernetes_host: 'https://127.0.0.1:1' }],
      ['POST', 'sys/auth/another', { type: 'kubernetes' }],
      ['POST', 'auth/token/create', {}],
      ['POST', 'auth/token/roles/another', {}],
      ['POST', 'identity/entity', {}],
      ['POST', 'pki/roles/another', {}],
      ['POST', 'istioca/roles/another', {}],
    ];
    for (const [method, path, body] of attempts) {
      const { status } = await server.request(method, path, body, token);
      expect({ method, path, status }).toEqual({ method, path, status: 403 });
    }
  });

  it('what an administrator changes is said, and never written', async () => {
    const role = 'auth/kubernetes/role/istiod';
    await server.request('POST', role, { bound_service_account_names: ['istiod', 'web'], token_ttl: '1h' });
    const before = await vaultWrites(server);
    expect(await access('wider')).toMatchObject({
      status: 'False',
      reason: 'AccessDiffers',
      message: expect.stringContaining('lets in service accounts web'),
    });
    await server.request('POST', role, { bound_service_account_names: ['istiod'] });
    expect(await access('as narrow as it was')).toMatchObject({
      status: 'True',
      reason: 'AccessConfigured',
      message: expect.stringContaining('has a token_ttl of 3600s'),
    });
    const ofOperator = (await vaultWrites(server)).length - before.length;
    expect(ofOperator).toBe(1); // the second one of this test
  });

  /** The status of what istiod's agent does: a login, and with its token the read of the CA. */
  async function agentReads(): Promise<{ login: number; read: number }> {
    const jwt = await requestToken(kube, namespace, 'istiod');
    const login = await server.request('POST', 'auth/kubernetes/login', { role: 'istiod', jwt }, '');
    const token = (login.body as { auth?: { client_token: string } }).auth?.client_token ?? '';
    return { login: login.status, read: (await server.request('GET', 'kv/data/istioca', undefined, token)).status };
  }

  it.each<[string, number, RegExp]>([
    [
      'capabilities = ["read"] min_wrapping_ttl = "1m"',
      403,
      /policy istioca sets min_wrapping_ttl on kv\/data\/istioca/,
    ],
    [
      'capabilities = ["read"] max_wrapping_ttl = "1h"',
      403,
      /policy istioca sets max_wrapping_ttl on kv\/data\/istioca/,
    ],
    ['capabilities = ["read"] required_parameters = ["a"]', 403, /policy istioca sets required_parameters on kv/],
    ['capabilities = ["deny"] capabilities = ["read"]', 403, /policy istioca lacks read on kv\/data\/istioca/],
    ['capabilities = ["read"] min_wrapping_ttl = "0s"', 200, /^policy istioca, role istiod for istiod;/],
    ['capabilities = ["read"] denied_parameters = { "a" = [] }', 200, /policy istioca sets denied_parameters/],
  ])('of a policy with %s, AccessReady says whether Vault answers', async (rule, read, message) => {
    await server.request('PUT', 'sys/policies/acl/istioca', { policy: `path "kv/data/istioca" { ${rule} }` });
    expect(await agentReads()).toEqual({ login: 200, read });
    expect(await access(rule)).toMatchObject({
      status: read === 200 ? 'True' : 'False',
      reason: read === 200 ? 'AccessConfigured' : 'AccessDiffers',
      message: expect.stringMatching(message),
    });
  });

  it.each<[string, object, number, RegExp]>([
    [
      'names with wildcards',
      { bound_service_account_names: 'i*d' },
      200,
      /role istiod of auth\/kubernetes lets in service/,
    ],
    ['names that are others', { bound_service_account_names: 'i*x' }, 403, /is not bound to service account istiod/],
    ['an audience of others', { audience: 'vault' }, 403, /has audience vault, which the token of istiod's agent/],
  ])('of a role with %s, AccessReady says whether a login succeeds', async (_what, fields, login, message) => {
    await runScript(server, namespace);
    await server.request('POST', 'auth/kubernetes/role/istiod', fields);
    expect((await agentReads()).login).toBe(login);
    expect(await access(JSON.stringify(fields))).toMatchObject({
      status: 'False',
      reason: 'AccessDiffers',
      message: expect.stringMatching(message),
    });
  });

  it('of a role with the audience of the API server, a login succeeds, and AccessReady says that this is not verified', async () => {
    await runScript(server, namespace);
    const [, payload = ''] = (await requestToken(kube, namespace, 'istiod')).split('.');
    const { aud } = JSON.parse(Buffer.from(payload, 'base64url').toString()) as { aud: string[] };
    await server.request('POST', 'auth/kubernetes/role/istiod', { audience: aud[0] });
    expect((await agentReads()).login).toBe(200);
    expect(await access('audience of the API server')).toMatchObject({
      status: 'True',
      reason: 'AccessConfigured',
      message: expect.stringContaining(`has audience ${aud[0]}, and whether the API server has it too is not verified`),
    });
  });

  it.each<[string, object]>([
    ['a token that is limited', { token_num_uses: 3, token_period: '1h' }],
    ['a token of another kind', { token_type: 'batch' }],
  ])('the script corrects every field that somebody set: %s', async (_what, token) => {
    const { status } = await server.request('POST', 'auth/kubernetes/role/istiod', {
      alias_name_source: 'serviceaccount_name',
      audience: 'web',
      bound_service_account_names: ['web'],
      bound_service_account_namespaces: ['web'],
      bound_service_account_namespace_selector: '{"matchLabels":{"a":"b"}}',
      token_bound_cidrs: ['192.0.2.0/24'],
      token_explicit_max_ttl: '1m',
      token_max_ttl: '1m',
      token_no_default_policy: true,
      token_policies: ['web'],
      token_ttl: '1m',
      ...token,
    });
    expect(status).toBeLessThan(300);
    expect(await access('everything')).toMatchObject({ status: 'False', reason: 'AccessDiffers' });
    await runScript(server, namespace);
    expect(await agentReads()).toEqual({ login: 200, read: 200 });
    expect(await access('corrected')).toEqual({
      ...(await access('corrected again')),
      status: 'True',
      reason: 'AccessConfigured',
      message: 'policy istioca, role istiod for istiod',
    });
  });

  it('without the right to read them, AccessReady is True and says that it is not verified', async () => {
    const rules = (await shippedPolicy('operator-policy-least.hcl')).split('\n\n');
    const others = rules.filter((rule) => !/^path "(sys\/policies|auth\/kubernetes\/role)\//m.test(rule));
    expect(others).toHaveLength(rules.length - 2);
    await server.request('PUT', 'sys/policies/acl/istio-vault-ca', { policy: others.join('\n\n') });
    expect(await access('blind')).toMatchObject({
      status: 'True',
      reason: 'NotVerified',
      message: expect.stringMatching(/read on sys\/policies\/acl\/istioca and read on auth\/kubernetes\/role\/istiod$/),
    });
    await waitForCondition(kube, namespace, 'istioca', { type: 'Provisioned', status: 'True' });
  });
});
