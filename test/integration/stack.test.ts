/**
 * Proves the test stack itself: what every other test of this project stands on.
 * @servers istiod
 */
import { afterAll, beforeAll, describe, expect, jest, test } from '@jest/globals';
import { readFileSync, writeFileSync } from 'node:fs';
import { X509Certificate } from 'node:crypto';
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import {
  createNamespace,
  enableKubernetesAuth,
  makeTemporaryDir,
  products,
  removeTemporaryDir,
  renderWithAgent,
  requestToken,
  sharedStack,
  startIstiod,
  startVault,
  waitFor,
} from '../stack/index.ts';

jest.setTimeout(90_000);

const { kube, vaults } = sharedStack();
const namespace = 'stack-test';
const mount = 'kubernetes-stack-test';
const files = ['ca-key.pem', 'ca-cert.pem', 'cert-chain.pem', 'root-cert.pem'];
let dir: string;

interface AuditEvent {
  readonly stage: string;
  readonly verb: string;
  readonly level: string;
  readonly objectRef?: { readonly resource: string; readonly namespace?: string };
}

const lines = (path: string): unknown[] =>
  readFileSync(path, 'utf8')
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line) as unknown);

/** Audited writes to ConfigMaps of this test's namespace. */
const writes = (): AuditEvent[] =>
  (lines(kube.auditLog) as AuditEvent[]).filter(
    (event) =>
      event.objectRef?.resource === 'configmaps' && event.objectRef.namespace === namespace && event.verb !== 'get',
  );

beforeAll(async () => {
  dir = makeTemporaryDir('stack-test');
  await createNamespace(kube, namespace);
});

afterAll(() => removeTemporaryDir(dir));

describe('the API server', () => {
  test('serves version 1.34.4 and knows RBAC', async () => {
    expect((await kube.request('GET', '/version')).body).toMatchObject({ gitVersion: 'v1.34.4' });
    const token = await requestToken(kube, namespace, 'nobody');
    const path = await kube.kubeconfigWithToken(token, 'nobody');
    expect(readFileSync(path, 'utf8')).toContain(token);
    const review = {
      spec: {
        user: `system:serviceaccount:${namespace}:nobody`,
        resourceAttributes: { namespace, resource: 'secrets', verb: 'get' },
      },
    };
    const answer = await kube.request('POST', '/apis/authorization.k8s.io/v1/subjectaccessreviews', review);
    expect(answer.body).toMatchObject({ status: { allowed: false } });
  });

  test('has the default ServiceAccount and the CA in a new namespace', async () => {
    expect((await kube.request('GET', `/api/v1/namespaces/${namespace}/serviceaccounts/default`)).status).toBe(200);
    const map = await kube.request('GET', `/api/v1/namespaces/${namespace}/configmaps/kube-root-ca.crt`);
    expect(map.body).toMatchObject({ data: { 'ca.crt': kube.caPem } });
  });

  test('writes each request to its audit log once, without bodies', async () => {
    const before = writes().length;
    const path = `/api/v1/namespaces/${namespace}/configmaps`;
    await kube.request('POST', path, { metadata: { name: 'counted' } });
    await kube.request('PATCH', `${path}/counted`, { data: { a: 'not-in-the-log' } });
    await kube.request('GET', `${path}/counted`);
    await waitFor('both writes in the audit log', () => writes().length === before + 2);
    expect(writes().at(-1)).toMatchObject({ verb: 'patch', level: 'Metadata', stage: 'ResponseComplete' });
    expect(readFileSync(kube.auditLog, 'utf8')).not.toContain('not-in-the-log');
  });

  test('keeps its objects and its port over a restart', async () => {
    await kube.restart();
    expect((await kube.request('GET', `/api/v1/namespaces/${namespace}`)).status).toBe(200);
  });
});

describe.each(products)('%s', (product) => {
  const vault = vaults[product];
  const role = 'stack-test';

  beforeAll(async () => {
    await enableKubernetesAuth(vault, kube, mount);
    await vault.request('PUT', 'sys/policies/acl/stack-test', {
      policy: 'path "secret/data/stack-test" { capabilities = ["read"] }',
    });
    const bound = { bound_service_account_names: ['istiod'], bound_service_account_namespaces: [namespace] };
    await vault.request('POST', `auth/${mount}/role/${role}`, { ...bound, token_policies: ['stack-test'] });
    const data = Object.fromEntries(files.map((name) => [name, `content of ${name}\n`]));
    expect((await vault.request('POST', 'secret/data/stack-test', { data })).status).toBe(200);
  });

  const login = async (serviceAccount: string) =>
    vault.request(
      'POST',
      `auth/${mount}/login`,
      { role, jwt: await requestToken(kube, namespace, serviceAccount) },
      '',
    );

  test('logs in the bound service account by TokenReview, and no other', async () => {
    expect(await login('istiod')).toMatchObject({
      status: 200,
      body: { auth: { policies: ['default', 'stack-test'] } },
    });
    expect((await login('someone')).status).toBe(403);
  });

  test('writes each request to its audit log', async () => {
    const requests = () =>
      (lines(vault.auditLog) as { type: string; request?: { path?: string } }[]).filter(
        (entry) => entry.type === 'request' && entry.request?.path === 'secret/data/counted',
      ).length;
    const before = requests();
    await vault.request('POST', 'secret/data/counted', { data: { a: 'b' } });
    await vault.request('GET', 'secret/data/counted');
    expect(requests()).toBe(before + 2);
  });

  test('can be sealed and unsealed', async () => {
    await vault.seal();
    expect((await vault.request('GET', 'secret/data/stack-test')).status).toBe(503);
    await vault.unseal();
    expect((await vault.request('GET', 'secret/data/stack-test')).status).toBe(200);
    expect((await login('istiod')).status).toBe(200);
  });

  const annotations = (): Record<string, string> => ({
    'vault.hashicorp.com/agent-inject': 'true',
    'vault.hashicorp.com/role': role,
    'vault.hashicorp.com/auth-path': `auth/${mount}`,
    'vault.hashicorp.com/service': vault.address,
    'vault.hashicorp.com/tls-secret': 'vault-ca',
    'vault.hashicorp.com/ca-cert': '/vault/tls/ca.crt',
    'vault.hashicorp.com/secret-volume-path': '/etc/cacerts',
    'vault.hashicorp.com/template-static-secret-render-interval': '1s',
    ...Object.fromEntries(
      files.flatMap((name) => [
        [`vault.hashicorp.com/agent-inject-secret-${name}`, 'secret/data/stack-test'],
        [
          `vault.hashicorp.com/agent-inject-template-${name}`,
          `{{- with secret "secret/data/stack-test" }}{{ index .Data.data "${name}" }}{{ end }}`,
        ],
      ]),
    ),
  });
  const agent = async (mode: 'init' | 'sidecar', over: Record<string, string> = {}, deadlineMs = 30_000) =>
    renderWithAgent({
      annotations: { ...annotations(), ...over },
      vault,
      token: await requestToken(kube, namespace, 'istiod'),
      dir: join(dir, product),
      mode,
      tlsSecret: { 'ca.crt': vault.caPem ?? '' },
      deadlineMs,
    });
  const rendered = (name: string): string => readFileSync(join(dir, product, name), 'utf8');

  test('has its own agent render what annotations ask for, and follow changes', async () => {
    const init = await agent('init');
    expect(init.files).toEqual(files.map((name) => join(dir, product, name)));
    for (const name of files) expect(rendered(name)).toBe(`content of ${name}\n`);

    const sidecar = await agent('sidecar');
    for (const generation of ['second', 'third']) {
      const data = Object.fromEntries(files.map((name) => [name, `${generation} ${name}\n`]));
      await vault.request('POST', 'secret/data/stack-test', { data });
      const followed = (): boolean => files.every((name) => rendered(name) === `${generation} ${name}\n`);
      await waitFor(`the sidecar to render the ${generation} version`, followed, { log: sidecar.log });
    }
    await sidecar.stop();
  });

  test('fails for a wrong role as it does in a pod, and leaves no agent behind', async () => {
    const sidecar = await agent('sidecar', { 'vault.hashicorp.com/role': 'other' });
    await waitFor('the agent to be refused', () => /invalid role/.test(sidecar.log()), { log: sidecar.log });
    await sidecar.stop();
    await expect(agent('init', { 'vault.hashicorp.com/role': 'other' }, 500)).rejects.toThrow(/has not rendered/);
  });

  test('is not asked when injection is not wanted', async () => {
    expect(await agent('init', { 'vault.hashicorp.com/agent-inject': 'false' })).toMatchObject({
      injected: false,
      files: [],
    });
  });
});

test('a server without TLS can be started beside the shared ones', async () => {
  const vault = await startVault('OpenBao', { tls: false });
  expect(vault.address).toMatch(/^http:/);
  expect((await vault.request('GET', 'sys/health')).status).toBe(200);
  await vault.stop();
  await expect(vault.request('GET', 'sys/health')).rejects.toThrow();
});

test('istiod signs with the CA whose files it is given', async () => {
  const vault = vaults.OpenBao;
  const post = async (path: string, body: unknown): Promise<Record<string, string>> => {
    const answer = await vault.request('POST', path, body);
    expect([200, 204]).toContain(answer.status);
    return (answer.body as { data?: Record<string, string> } | undefined)?.data ?? {};
  };
  await post('sys/mounts/stack-test-pki', { type: 'pki' });
  const ca = await post('stack-test-pki/root/generate/exported', {
    common_name: 'stack test root',
    key_type: 'ec',
    key_bits: 256,
    ttl: '24h',
  });
  const caDir = makeTemporaryDir('stack-test-ca');
  const pem = `${ca['certificate'] ?? ''}\n`;
  for (const name of ['ca-cert.pem', 'cert-chain.pem', 'root-cert.pem']) writeFileSync(join(caDir, name), pem);
  writeFileSync(join(caDir, 'ca-key.pem'), `${ca['private_key'] ?? ''}\n`);

  const istiod = await startIstiod({ kube, rootCaDir: caDir, namespace });
  await istiod.ready();
  expect(istiod.log()).toContain('Use local CA certificate');
  const chain = (await istiod.peerCertificates()).map((text) => new X509Certificate(text));
  expect(chain[0]?.issuer).toBe('CN=stack test root');

  const csrPem = execFileSync('openssl', [
    ...[
      'req',
      '-new',
      '-newkey',
      'ec',
      '-pkeyopt',
      'ec_paramgen_curve:P-256',
      '-nodes',
      '-keyout',
      join(caDir, 'workload.key'),
    ],
    ...['-subj', '/O=test'],
  ]).toString();
  const token = await requestToken(kube, namespace, 'workload', ['istio-ca']);
  const issued = await istiod.createCertificate({ csrPem, token, validitySeconds: 3600 });
  expect(issued.at(-1)).toBe(pem);
  const leaf = new X509Certificate(issued[0] ?? '');
  expect(leaf.subjectAltName).toContain(`spiffe://cluster.local/ns/${namespace}/sa/workload`);
  expect(leaf.verify(new X509Certificate(pem).publicKey)).toBe(true);
  await expect(istiod.createCertificate({ csrPem, token: 'wrong', validitySeconds: 3600 })).rejects.toThrow(
    /UNAUTHENTICATED/,
  );

  const rootIn = async (where: string) =>
    (await kube.request('GET', `/api/v1/namespaces/${where}/configmaps/istio-ca-root-cert`)).status;
  await waitFor('istiod to write its root into its own namespace', async () => (await rootIn(namespace)) === 200);
  expect(await rootIn('default')).toBe(404);

  await istiod.stop();
  removeTemporaryDir(caDir);
});
