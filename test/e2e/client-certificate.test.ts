/**
 * Vault behind a listener that requires client certificates: what the operator says without one and with a wrong one, the files that istiod's
 * real agent renders with it, and changes of client certificate, CA and server certificate while the operator runs.
 */
import { X509Certificate } from 'node:crypto';
import { copyFile, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import {
  makeTemporaryDir,
  peerCertificates,
  products,
  sharedStack,
  startVault,
  waitFor,
  type StartedVault,
} from '../stack/index.ts';
import { makeAuthority, type Authority } from '../stack/certificates.ts';
import { freePort } from '../stack/ports.ts';
import { defects, readCaFiles } from '../support/certificates.ts';
import { applyOk, conditionOf, requestReconcile, resourcePath, waitForCondition } from '../support/cluster.ts';
import { useOperator } from '../support/harness.ts';
import { logins } from '../support/outage.ts';
import { renderFiles } from '../support/render.ts';
import { secretWith } from '../support/samples.ts';
import { grantLongTokens, makeScene, prepareVault, type Scene } from '../support/scene.ts';

const { kube } = sharedStack();
const { operator } = useOperator();

const secretName = 'istio-vault-ca-tls';
const field = 'spec.vault.tls.clientCertSecretRef';

/** CAs in folders of their own. */
const authority = async (name: string): Promise<Authority> => await makeAuthority(makeTemporaryDir('authority'), name);

describe.each(products)('%s', (product) => {
  const namespace = `mutual-${product.toLowerCase()}`;
  let server: StartedVault;
  let scene: Scene;
  let address: string;
  let port: number;
  let ofServers: Authority;
  let ofClients: Authority;
  let dir: string;

  /** Has the listener serve a certificate that a CA signed: from the start, or from its next reload on. */
  async function serve(signer: Authority): Promise<void> {
    const { certFile, keyFile } = await signer.issue('server', { for: { servers: ['127.0.0.1'] } });
    await Promise.all([copyFile(certFile, join(dir, 'server.pem')), copyFile(keyFile, join(dir, 'server.key'))]);
  }
  /** The contents of a Secret with a client certificate. */
  async function client(signer: Authority, days = 30, ca = ofServers): Promise<Record<string, string>> {
    const { certFile, keyFile } = await signer.issue('client', { for: 'clients', days });
    const [cert, key] = await Promise.all([readFile(certFile, 'utf8'), readFile(keyFile, 'utf8')]);
    return { 'ca.crt': ca.caPem, 'tls.crt': cert, 'tls.key': key };
  }
  const give = async (texts: Record<string, string>) => await applyOk(kube, secretWith(namespace, secretName, texts));

  let asked = 0;
  const look = async () =>
    conditionOf(await requestReconcile(kube, namespace, 'istioca', String((asked += 1))), 'VaultReady');
  const loginsDuring = async (work: () => Promise<unknown>): Promise<number> => {
    const before = await logins(operator());
    await work();
    return (await logins(operator())) - before;
  };

  beforeAll(async () => {
    dir = makeTemporaryDir('listener');
    [ofServers, ofClients] = await Promise.all([authority('servers'), authority('clients')]);
    await serve(ofServers);
    const { certFile } = await ofClients.issue('first', { for: 'clients' });
    await copyFile(join(certFile, '..', 'ca.pem'), join(dir, 'clients.pem'));
    port = await freePort(2);
    const files = Object.entries({ cert: 'server.pem', key: 'server.key', client_ca: 'clients.pem' });
    server = await startVault(product, {
      config: `listener "tcp" {
        address = "127.0.0.1:${port}"
        cluster_address = "127.0.0.1:${port + 1}"
        ${files.map(([name, file]) => `tls_${name}_file = ${JSON.stringify(join(dir, file))}`).join('\n')}
        tls_require_and_verify_client_cert = true
      }`,
    });
    address = `https://127.0.0.1:${port}`;
    await prepareVault(kube, server);
    const tls = { caSecretRef: { name: secretName } };
    scene = await makeScene(kube, server, { namespace, spec: { vault: { address, tls } } });
    await grantLongTokens(scene);
    await give({ 'ca.crt': ofServers.caPem });
  });
  afterAll(() => server.stop());

  it('without a client certificate is TLSFailed, and names the field to set', async () => {
    await applyOk(kube, scene.resource);
    const resource = await waitForCondition(kube, namespace, 'istioca', { type: 'VaultReady', reason: 'TLSFailed' });
    expect(conditionOf(resource, 'VaultReady')?.message).toContain(
      `Vault asks for a client certificate: name its Secret in ${field}`,
    );
  });

  it('with one of another CA, or an expired one, or half of one, is TLSFailed and names the Secret', async () => {
    await give(await client(await authority('others')));
    const tls = { caSecretRef: null, clientCertSecretRef: { name: secretName } };
    await kube.request('PATCH', resourcePath(namespace, 'istioca'), { spec: { vault: { tls } } });
    const named = `Vault refused the client certificate in Secret ${secretName} (${field})`;
    const other = await waitForCondition(kube, namespace, 'istioca', { type: 'VaultReady', status: 'False' });
    expect(conditionOf(other, 'VaultReady')).toMatchObject({
      reason: 'TLSFailed',
      message: expect.stringContaining(named),
    });

    await give(await client(ofClients, -1));
    expect(await look()).toMatchObject({ reason: 'TLSFailed', message: expect.stringContaining(named) });

    const [one, another] = [await client(ofClients), await client(ofClients)];
    await give({ ...one, 'tls.key': another['tls.key'] ?? '' });
    expect((await look())?.message).toContain('tls.key is not the key of the certificate in tls.crt');
    await give({ ...one, 'tls.crt': 'none' });
    expect((await look())?.message).toContain('tls.crt is not a certificate in PEM');
    await give({ 'tls.crt': one['tls.crt'] ?? '', 'tls.key': one['tls.key'] ?? '', 'ca.crt': '' });
    expect(await look()).toMatchObject({
      reason: 'ReferenceNotFound',
      message: expect.stringContaining('no key ca.crt'),
    });
    await give({ ...one, 'ca.crt': ofClients.caPem });
    expect((await look())?.message).toContain(`The CA given is that of Secret ${secretName} (${field}, key ca.crt)`);
  });

  it("with a good one provides istiod's agent with it too, which renders the files", async () => {
    const good = await client(ofClients);
    await give(good);
    await look();
    await waitForCondition(kube, namespace, 'istioca', { type: 'Provisioned', status: 'True' });
    const { dir: rendered, template } = await renderFiles(scene, 'istiod', good);
    expect(defects(await readCaFiles(rendered))).toEqual([]);
    expect(template.annotations).toMatchObject({
      'vault.hashicorp.com/service': address,
      'vault.hashicorp.com/tls-secret': secretName,
      'vault.hashicorp.com/client-cert': '/vault/tls/tls.crt',
    });
  });

  it('takes another client certificate with one login', async () => {
    const count = await loginsDuring(async () => {
      await give(await client(ofClients));
      for (let i = 0; i < 3; i += 1) expect(await look()).toMatchObject({ status: 'True' });
    });
    expect(count).toBe(1);
  });

  it('takes another CA from a ConfigMap, and names it while the server is not of that CA', async () => {
    const configMap = async (ca: string) =>
      await applyOk(kube, {
        apiVersion: 'v1',
        kind: 'ConfigMap',
        metadata: { name: 'vault-ca', namespace },
        data: { 'ca.crt': ca },
      });
    const verifyBy = async (ref: object | null) =>
      await kube.request('PATCH', resourcePath(namespace, 'istioca'), {
        spec: { vault: { tls: { caConfigMapRef: ref } } },
      });
    await configMap(ofServers.caPem);
    await verifyBy({ name: 'vault-ca' });
    expect(await look()).toMatchObject({ status: 'True' });
    await configMap(ofClients.caPem);
    const named = 'ConfigMap vault-ca (spec.vault.tls.caConfigMapRef, key ca.crt)';
    expect(await look()).toMatchObject({ reason: 'TLSFailed', message: expect.stringContaining(named) });
    await configMap(ofServers.caPem);
    expect(await look()).toMatchObject({ status: 'True' });
    await verifyBy(null);
  });

  // Vault in dev mode ends when it is told to read its certificates again
  if (product === 'OpenBao') {
    it('goes on when Vault renews its certificate, also with another CA once the Secret has it', async () => {
      const next = await authority('next servers');
      await serve(next);
      server.reload();
      await waitFor('the new certificate to be served', async () => {
        const [served = ''] = await peerCertificates({ host: '127.0.0.1', port, namespace });
        return new X509Certificate(served).verify(new X509Certificate(next.caPem).publicKey);
      });
      // a change of the client certificate has the operator open new connections
      await give(await client(ofClients));
      expect(await look()).toMatchObject({
        reason: 'TLSFailed',
        message: expect.stringContaining(`Secret ${secretName}`),
      });
      await give(await client(ofClients, 30, next));
      expect(await look()).toMatchObject({ status: 'True' });
    });
  }
});
