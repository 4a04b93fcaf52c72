/**
 * A root outside of Vault (`root.source: External`): what is asked for, what is taken for an answer, and what is refused.
 * @servers kubectl
 */
import { execFileSync } from 'node:child_process';
import { beforeAll, describe, expect, it } from '@jest/globals';
import { products, sharedStack, waitFor } from '../stack/index.ts';
import { vaultWrites } from '../support/audit.ts';
import { defects } from '../support/certificates.ts';
import { apply, applyOk, conditionOf, getResource, requestReconcile, waitForCondition, type Json, type Resource } from '../support/cluster.ts'; // prettier-ignore
import { expectDescribed } from '../support/described.ts';
import { eventsOf } from '../support/events.ts';
import { useOperator } from '../support/harness.ts';
import { entry, heldVersions } from '../support/look.ts';
import { OfflineCa, type Signing } from '../support/offline-ca.ts';
import { makeScene, merge, type Scene } from '../support/scene.ts';

const { kube, vaults } = sharedStack();
const harness = useOperator();

const external = { source: 'External', external: { signed: { configMapRef: { name: 'signed' } } } };

/** What OpenSSL says of a request. */
const requestText = (csr: string): string =>
  execFileSync('openssl', ['req', '-noout', '-verify', '-text'], { input: csr, stdio: 'pipe' }).toString();

describe.each(products)('%s', (product) => {
  const namespace = `external-${product}`.toLowerCase();
  let scene: Scene;
  const root = new OfflineCa('Corporate Root');
  const issuing = new OfflineCa('Corporate Issuing CA', root);
  let looks = 0;

  const reconciled = (): Promise<Resource> => requestReconcile(kube, namespace, 'istioca', String((looks += 1)));
  const csrOf = async (): Promise<string> => (await getResource(kube, namespace, 'istioca')).status?.csr ?? '';
  /** Puts a text into the ConfigMap, and has the operator look at it. */
  const give = async (...pems: string[]): Promise<Resource> => {
    await applyOk(kube, { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'signed', namespace }, data: { 'tls.crt': pems.join('') } }); // prettier-ignore
    return await reconciled();
  };
  const intermediate = (resource: Resource) => conditionOf(resource, 'IntermediateReady');
  const files = async () => {
    const { 'ca-cert.pem': cert = '', 'ca-key.pem': key = '', 'cert-chain.pem': chain = '', 'root-cert.pem': top = '' } = (await entry(scene)) ?? {}; // prettier-ignore
    return { cert, key, chain, root: top };
  };

  beforeAll(async () => {
    scene = await makeScene(kube, vaults[product], {
      namespace,
      spec: { root: external, intermediate: { maxWorkloadCertTTL: '24h' } },
    });
    await applyOk(kube, scene.resource);
  });

  it('asks for a signature, with a request that OpenSSL verifies, and makes no root mount', async () => {
    const waiting = await waitForCondition(kube, namespace, 'istioca', { type: 'IntermediateReady', status: 'False', reason: 'AwaitingSignature' }); // prettier-ignore
    expect(conditionOf(waiting, 'Reconciling')).toMatchObject({ status: 'True', reason: 'AwaitingSignature' });
    expect(intermediate(waiting)?.message).toMatch(/into ConfigMap external-\w+\/signed, key tls.crt/);
    expect(requestText(waiting.status?.csr ?? '')).toContain('CN = Istio Intermediate CA');
    expect((await scene.vault.request('GET', `sys/mounts/${namespace}-pki`)).status).not.toBe(200);
    expect(await entry(scene)).toBeUndefined();
    await expectDescribed(kube, namespace, 'AwaitingSignature');
  });

  it('goes on asking with the same request, also after a restart, and writes nothing meanwhile', async () => {
    const csr = await csrOf();
    const before = (await vaultWrites(scene.vault)).length;
    await harness.restart();
    await reconciled();
    expect(await csrOf()).toBe(csr);
    expect((await vaultWrites(scene.vault)).slice(before)).toEqual([]);
  });

  describe('what is refused, with the reason', () => {
    const chain = () => [issuing.certificate, root.certificate];
    const signed = async (how: Signing, by = issuing) => by.sign(await csrOf(), how);
    it.each<[string, () => Promise<string[]>, RegExp]>([
      ['no certificate', () => Promise.resolve(['nothing']), /holds no certificate/],
      ['another key', () => Promise.resolve([issuing.certificate, root.certificate]), /is for another key \(SHA-256 [0-9a-f]{64}\)/], // prettier-ignore
      ['no CA', async () => [await signed({ constraints: 'critical,CA:FALSE' }), ...chain()], /it is no CA certificate/], // prettier-ignore
      ['no certificate signing', async () => [await signed({ keyUsage: 'critical,cRLSign' }), ...chain()], /key usage without certificate signing/], // prettier-ignore
      ['a longer path', async () => [await signed({ constraints: 'critical,CA:TRUE,pathlen:1' }), ...chain()], /path length is 1, and spec.intermediate.maxPathLength is 0/], // prettier-ignore
      ['too long a life', async () => [await signed({ days: 3000 }), ...chain()], /valid for 72000h, longer than spec.intermediate.ttl \(43800h\)/], // prettier-ignore
      ['too short a life', async () => [await signed({ days: 1.5 }), ...chain()], /sooner than twice the longest workload certificate/], // prettier-ignore
      ['an end in the past', async () => [await signed({ days: 5, begunDaysAgo: 10 }), ...chain()], /it has expired on 20/], // prettier-ignore
      ['a beginning in the future', async () => [await signed({ begunDaysAgo: -2 }), ...chain()], /it is not valid before 20/], // prettier-ignore
      ['SHA-1', async () => [await signed({ hash: 'sha1' }), ...chain()], /it is signed with SHA-1/],
      ['client certificates only', async () => [await signed({ extendedKeyUsage: 'clientAuth' }), ...chain()], /extended key usage without serverAuth and clientAuth/], // prettier-ignore
      ['no root', async () => [await signed({}), issuing.certificate], /no chain of signatures leads from "Corporate Issuing CA".*, which signed it, to a self-signed root/], // prettier-ignore
      ['no issuing CA', async () => [await signed({}), root.certificate], /no chain of signatures leads from it to a self-signed root/], // prettier-ignore
      ['an issuing CA without room below it', async () => {
        const narrow = new OfflineCa('Narrow CA', root, { constraints: 'critical,CA:TRUE,pathlen:0' });
        return [await signed({}, narrow), narrow.certificate, root.certificate];
      }, /"Narrow CA".* has path length 0, and 1 CAs are below it/], // prettier-ignore
      ['an issuing CA with a small key', async () => {
        const weak = new OfflineCa('Weak CA', root, {}, ['-algorithm', 'RSA', '-pkeyopt', 'rsa_keygen_bits:1024']);
        return [await signed({}, weak), weak.certificate, root.certificate];
      }, /"Weak CA".* has a key that istiod does not take/], // prettier-ignore
      ['an issuing CA that ends sooner', async () => {
        const short = new OfflineCa('Short CA', root, { days: 400 });
        return [await signed({}, short), short.certificate, root.certificate];
      }, /after "Short CA".* above it, which ends on/], // prettier-ignore
      ['more than certificates', async () => [await signed({}), '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n', ...chain()], /something beside certificates/], // prettier-ignore
    ])('%s', async (name, pems, reason) => {
      const csr = await csrOf();
      const refused = await give(...(await pems()));
      expect(intermediate(refused)).toMatchObject({ status: 'False', reason: 'SignedCertificateRefused' });
      expect(intermediate(refused)?.message).toMatch(reason);
      expect(refused.status?.csr).toBe(csr);
      expect(await entry(scene)).toBeUndefined();
      if (name === 'no issuing CA') await expectDescribed(kube, namespace, 'SignedCertificateRefused');
    });
  });

  it('takes a sound one: every tier in the chain, the root alone in root-cert.pem', async () => {
    await give(issuing.sign(await csrOf()), root.certificate, issuing.certificate);
    const ready = await waitForCondition(kube, namespace, 'istioca', { type: 'Provisioned', status: 'True' });
    expect(ready.status?.csr).toBeUndefined();
    expect(ready.status?.root).toMatchObject({ fingerprint: root.fingerprint, generation: 1 });
    expect(conditionOf(ready, 'RootReady')?.message).toContain('outside of Vault');
    const { cert, key, chain, root: top } = await files();
    expect(top).toBe(root.certificate);
    expect(chain).toBe(cert + issuing.certificate);
    expect(defects({ cert, key, chain, root: top })).toEqual([]);
    expect(ready.status?.history?.map(({ kind, reason }) => [kind, reason])).toEqual([
      ['Intermediate', 'first issue'],
      ['Root', 'first issue'],
    ]);
    // neither the version with the request nor the one before it, which has the key too
    expect(await heldVersions(scene, '-staging')).toEqual([]);
    const before = (await vaultWrites(scene.vault)).length;
    await reconciled();
    expect((await vaultWrites(scene.vault)).slice(before)).toEqual([]);
  });

  it('at a renewal the CA in use stays ready; the signed certificate from before and a wrong one change nothing', async () => {
    const before = await files();
    await applyOk(kube, merge(scene.resource, { metadata: { annotations: { 'istiovaultca.io/rotate-intermediate': 'one' } } })); // prettier-ignore
    const asked = await waitForCondition(kube, namespace, 'istioca', { type: 'IntermediateReady', status: 'True', reason: 'AwaitingSignature' }); // prettier-ignore
    expect(conditionOf(asked, 'Provisioned')).toMatchObject({ status: 'True' });
    await expectDescribed(kube, namespace, 'AwaitingSignature-renewal');
    expect(await eventsOf(kube, namespace)).toContainEqual(expect.objectContaining({ type: 'Warning', reason: 'AwaitingSignature' })); // prettier-ignore
    const refused = await give(
      issuing.sign(await csrOf(), { constraints: 'critical,CA:FALSE' }),
      issuing.certificate,
      root.certificate,
    );
    expect(intermediate(refused)).toMatchObject({ status: 'True', reason: 'SignedCertificateRefused' });
    expect(await files()).toEqual(before);
    await give(issuing.sign(await csrOf()), issuing.certificate, root.certificate);
    const renewed = await waitFor('the second generation', async () => {
      const resource = await getResource(kube, namespace, 'istioca');
      return resource.status?.intermediate?.generation === 2 && resource;
    });
    expect(renewed.status?.csr).toBeUndefined();
    expect((await files()).cert).not.toBe(before.cert);
    expect(defects(await files())).toEqual([]);
  });

  it('another root is refused until it is asked for by its fingerprint', async () => {
    const other = new OfflineCa('Other Root');
    await applyOk(kube, merge(scene.resource, { metadata: { annotations: { 'istiovaultca.io/rotate-intermediate': 'two' } } })); // prettier-ignore
    await waitForCondition(kube, namespace, 'istioca', { type: 'IntermediateReady', status: 'True', reason: 'AwaitingSignature' }); // prettier-ignore
    const refused = await give(other.sign(await csrOf()), other.certificate);
    expect(intermediate(refused)?.message).toContain(`istiovaultca.io/rotate-root=${other.fingerprint}`);
    expect((await files()).root).toBe(root.certificate);
    await expectDescribed(kube, namespace, 'SignedCertificateRefused-other-root');
  });

  it('the metric says since when a signature is awaited', async () => {
    const text = await harness.operator().metrics();
    const [, seconds = ''] = new RegExp(`signature_requested_timestamp_seconds\\{namespace="${namespace}",name="istioca"\\} (\\S+)`).exec(text) ?? []; // prettier-ignore
    expect(Math.abs(Number(seconds) * 1000 - Date.now())).toBeLessThan(3_600_000);
  });
});

it('with PKI delivery, and without a place for the certificate, it is refused by the API server', async () => {
  const { resource } = await makeScene(kube, vaults.OpenBao, { namespace: 'external-refused', withoutRole: true });
  const refusal = async (spec: Json) => {
    const { status, body } = await apply(kube, merge(resource, { spec }));
    return [status, JSON.stringify(body)];
  };
  expect(await refusal({ root: external, delivery: { source: 'PKI' } })).toEqual([422, expect.stringContaining('delivery.source: PKI reads the root')]); // prettier-ignore
  expect(await refusal({ root: { source: 'External' } })).toEqual([422, expect.stringContaining('where the signed certificate comes from')]); // prettier-ignore
});
