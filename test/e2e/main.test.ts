/**
 * The main job, end to end: one manifest, and Vault is the CA of the control plane. What the operator wrote is judged by others:
 * the real agent renders it with istiod's own login, node:crypto and openssl verify it, the real istiod signs with it.
 * @servers istiod
 */
import { beforeAll, describe, expect, it } from '@jest/globals';
import { X509Certificate } from 'node:crypto';
import { requestCertificate } from '../../src/istiod/certificate-request.ts';
import { Secret } from '../../src/observability/secret.ts';
import { products, requestToken, sharedStack, startIstiod, type Product } from '../stack/index.ts';
import { everythingVisible, leaks, secretsOf } from '../support/canary.ts';
import { blocks, defects, makeCsr, opensslVerify, readCaFiles } from '../support/certificates.ts';
import { applyOk, getResource, waitForCondition } from '../support/cluster.ts';
import { renderFiles } from '../support/render.ts';
import { useOperator } from '../support/harness.ts';
import { makeScene, prepareVault, type Scene } from '../support/scene.ts';

const { kube, vaults } = sharedStack();
const cases = products.flatMap((product) =>
  (['Bundle', 'PKI'] as const).flatMap((source) => ([1, 2] as const).map((version) => ({ product, source, version }))),
);
const namespaceOf = (c: (typeof cases)[number]) => `main-${c.product}-${c.source}-kv${c.version}`.toLowerCase();

/** The certificate of the root mount as Vault serves it to anybody. */
async function vaultRoot(product: Product, mount: string): Promise<X509Certificate> {
  const body = (await vaults[product].request('GET', `${mount}/cert/ca`)).body as { data: { certificate: string } };
  return new X509Certificate(body.data.certificate);
}

const { operator } = useOperator();

describe.each(cases)('$product, $source delivery, KV $version', (c) => {
  const namespace = namespaceOf(c);
  let scene: Scene;

  beforeAll(async () => {
    scene = await makeScene(kube, vaults[c.product], {
      namespace,
      spec: { keyStore: { version: c.version }, delivery: { source: c.source } },
    });
  });

  it('is provisioned by applying the manifest', async () => {
    await applyOk(kube, scene.resource);
    const resource = await waitForCondition(kube, namespace, 'istioca', { type: 'Provisioned', status: 'True' });
    expect(resource.status?.intermediate?.generation).toBe(1);
    const root = await vaultRoot(c.product, `${namespace}-pki`);
    expect(resource.status?.root?.fingerprint).toBe(root.fingerprint256.replaceAll(':', '').toLowerCase());
  });

  it("gives istiod's agent four files that belong together", async () => {
    const { template, dir } = await renderFiles(scene);
    expect(template.env['ROOT_CA_DIR']).toBe(template.annotations['vault.hashicorp.com/secret-volume-path']);
    const files = await readCaFiles(dir);
    expect(defects(files)).toEqual([]);
    await opensslVerify(files.cert, '', files.root);
    const root = await vaultRoot(c.product, `${namespace}-pki`);
    expect(blocks(files.root)[0]?.fingerprint256).toBe(root.fingerprint256);
  });

  it('makes the real istiod serve and sign with it', async () => {
    const { dir } = await renderFiles(scene);
    const istiod = await startIstiod({ kube, rootCaDir: dir, namespace });
    try {
      await istiod.ready();
      expect(istiod.log()).toContain('Use local CA certificate');
      const root = await vaultRoot(c.product, `${namespace}-pki`);
      const [intermediate] = blocks((await readCaFiles(dir)).cert);
      const [served, servedIssuer] = (await istiod.peerCertificates()).map((pem) => new X509Certificate(pem));
      expect(servedIssuer?.fingerprint256).toBe(intermediate?.fingerprint256);
      expect(served?.verify(intermediate!.publicKey)).toBe(true);

      const token = await requestToken(kube, namespace, 'workload', ['istio-ca']);
      const [leaf = '', ...rest] = await istiod.createCertificate({
        csrPem: await makeCsr(),
        token,
        validitySeconds: 3600,
      });
      const rootPem = rest.pop() ?? '';
      await opensslVerify(leaf, rest.join('\n'), root.toString());
      expect(blocks(rootPem)[0]?.fingerprint256).toBe(root.fingerprint256);
      expect(new X509Certificate(leaf).subjectAltName).toContain(`spiffe://cluster.local/ns/${namespace}/sa/workload`);

      const replica = { host: '127.0.0.1', port: istiod.securePort, servername: `istiod.${namespace}.svc` };
      const asked = (roots: string) =>
        requestCertificate(replica, roots, new Secret(token), AbortSignal.timeout(15_000));
      const [signed = '', ...chain] = await asked(root.toString());
      expect(new X509Certificate(signed).verify(intermediate!.publicKey)).toBe(true);
      expect(chain).toEqual([...rest, rootPem]);
      // the token is not shown to a server that the roots do not vouch for
      await expect(asked(kube.caPem)).rejects.toThrow();
    } finally {
      await istiod.stop();
    }
  });

  it('shows no key and no token anywhere', async () => {
    const secrets = await secretsOf(scene);
    expect(secrets.length).toBeGreaterThan(1);
    const texts = { ...(await everythingVisible(kube)), log: operator().log(), metrics: await operator().metrics() };
    expect(leaks(texts, [...secrets, scene.vault.rootToken])).toEqual([]);
    expect((await getResource(kube, namespace, 'istioca')).status?.history).toHaveLength(2);
  });
});

it('works inside a namespace of OpenBao, and istiod’s agent too', async () => {
  const server = vaults.OpenBao;
  expect((await server.request('POST', 'sys/namespaces/team', {})).status).toBe(200);
  const vault = {
    ...server,
    request: ((method, path, ...rest) => server.request(method, `team/${path}`, ...rest)) as typeof server.request,
  };
  await prepareVault(kube, vault);
  const scene = await makeScene(kube, vault, { namespace: 'main-namespaced', spec: { vault: { namespace: 'team' } } });
  await applyOk(kube, scene.resource);
  await waitForCondition(kube, scene.namespace, 'istioca', { type: 'Provisioned', status: 'True' });
  expect((await server.request('GET', 'sys/mounts/main-namespaced-pki')).status).toBe(400);
  const { dir } = await renderFiles(scene);
  expect(defects(await readCaFiles(dir))).toEqual([]);
});
