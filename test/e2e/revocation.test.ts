/** Revocation lists in Vault and in the CA entry, with both products. What a mesh makes of them: test/mesh/revocation.test.ts. */
import { beforeAll, describe, expect, it } from '@jest/globals';
import { execFileSync } from 'node:child_process';
import { products, sharedStack, waitFor } from '../stack/index.ts';
import { vaultWrites } from '../support/audit.ts';
import { apply, applyOk, conditionOf, getResource, requestReconcile, waitForCondition, type Json } from '../support/cluster.ts'; // prettier-ignore
import { eventsOf } from '../support/events.ts';
import { useOperator } from '../support/harness.ts';
import { entry } from '../support/look.ts';
import { makeScene, merge, type Scene } from '../support/scene.ts';

const { kube, vaults } = sharedStack();
useOperator(['--crl-lead-time=1s']);

interface Shown {
  issuer: string;
  /** Serial numbers, upper-case hex. */
  serials: string[];
  days: number;
}

/** What OpenSSL reads in a list. */
function show(pem: string): Shown {
  const text = execFileSync('openssl', ['crl', '-noout', '-text', '-nameopt', 'RFC2253'], { input: pem }).toString();
  const time = (name: string) => Date.parse(new RegExp(`${name} Update: (.*)`).exec(text)?.[1] ?? '');
  return {
    issuer: /Issuer: CN=(.*)/.exec(text)?.[1] ?? '',
    serials: [...text.matchAll(/Serial Number: (\w+)/g)].map(([, serial]) => serial ?? ''),
    days: (time('Next') - time('Last')) / 86_400_000,
  };
}

/** The lists in the CA entry. */
async function listsOf(scene: Scene): Promise<Shown[] | undefined> {
  const text = (await entry(scene))?.['ca-crl.pem'];
  return text?.match(/-----BEGIN[^-]+-----[^-]+-----END[^-]+-----/g)?.map(show);
}

describe.each(products)('%s', (product) => {
  const namespace = `crl-${product}`.toLowerCase();
  let scene: Scene;
  const names = ['Istio Root CA', 'Istio Intermediate CA'];
  const request = async (method: string, path: string, body?: Json): Promise<Json> =>
    ((await scene.vault.request(method, `${namespace}-${path}`, body)).body as { data?: Json }).data ?? {};
  const applied = async (over: Json = {}) => {
    await applyOk(kube, merge(scene.resource, { spec: over }));
    await requestReconcile(kube, namespace, 'istioca', JSON.stringify(over));
  };

  beforeAll(async () => {
    scene = await makeScene(kube, vaults[product], { namespace, spec: { delivery: { crl: true } } });
    await applyOk(kube, scene.resource);
    await waitForCondition(kube, namespace, 'istioca', { type: 'Provisioned', status: 'True' });
  });

  it('a list of each CA that lives for 30 days is in the entry, with the right it needs and no more', async () => {
    expect(await listsOf(scene)).toEqual(names.map((issuer) => ({ issuer, serials: [], days: 30 })));
  });

  it('nothing is written when nothing is due', async () => {
    const before = (await vaultWrites(scene.vault)).length;
    await requestReconcile(kube, namespace, 'istioca', 'again');
    expect((await vaultWrites(scene.vault)).slice(before)).toEqual([]);
  });

  it('the settings of a mount that somebody changed are restored', async () => {
    await request('POST', 'pki/config/crl', { disable: true, auto_rebuild: false });
    await requestReconcile(kube, namespace, 'istioca', 'disabled');
    expect(await request('GET', 'pki/config/crl')).toMatchObject({
      disable: false,
      auto_rebuild: true,
      expiry: '2592000s',
    });
  });

  it('a certificate on Vault’s list is on the published one', async () => {
    const csr = execFileSync('openssl', ['req', '-new', '-newkey', 'rsa:2048', '-nodes', '-keyout', '/dev/null', '-subj', '/CN=other'], { stdio: 'pipe' }); // prettier-ignore
    const { serial_number: serial } = await request('POST', 'pki/root/sign-intermediate', {
      csr: csr.toString(),
      common_name: 'other',
    });
    await request('POST', 'pki/revoke', { serial_number: serial as string });
    await request('GET', 'pki/crl/rotate');
    await requestReconcile(kube, namespace, 'istioca', 'revoked');
    const hex = String(serial).replaceAll(':', '').toUpperCase();
    expect((await listsOf(scene))?.map(({ serials }) => serials)).toEqual([[hex], []]);
    expect(await eventsOf(kube, namespace)).toContainEqual(expect.objectContaining({ reason: 'CRLPublished' }));
  });

  it('a revoked intermediate, which Vault leaves off its list, is found; what holds its publication up is said', async () => {
    const serial = (await getResource(kube, namespace, 'istioca')).status?.intermediate?.serial;
    await request('POST', 'pki/revoke', { serial_number: serial ?? '' });
    await requestReconcile(kube, namespace, 'istioca', 'leaked');
    const found = await waitFor('another intermediate', async () => {
      const resource = await getResource(kube, namespace, 'istioca');
      return resource.status?.intermediate?.generation === 2 && resource;
    });
    expect(conditionOf(found, 'IntermediateReady')).toMatchObject({ status: 'False', reason: 'CRLMissing' });
    expect(conditionOf(found, 'IntermediateReady')?.message).toContain(serial);
    const hex = String(serial).replaceAll(':', '').toUpperCase();
    await waitFor('Vault to sign its list again', async () => {
      await requestReconcile(kube, namespace, 'istioca', `look ${Date.now()}`);
      return show(String((await request('GET', 'pki/cert/crl'))['certificate'])).serials.includes(hex);
    });
    expect((await listsOf(scene))?.map(({ issuer }) => issuer)).toEqual([names[0], names[1], names[1]]);
  });

  it('taken out of the spec, the file goes, and a Warning says what stays', async () => {
    await applied({ delivery: { crl: false } });
    await waitFor('the file to go', async () => (await listsOf(scene)) === undefined);
    const warning = expect.objectContaining({ type: 'Warning', reason: 'CRLWithdrawn', note: expect.stringMatching(/istio-ca-crl.*ends on 20/s) as unknown }) as unknown; // prettier-ignore
    await waitFor('the Event', async () => (await eventsOf(kube, namespace)).some(({ reason }) => reason === 'CRLWithdrawn')); // prettier-ignore
    expect(await eventsOf(kube, namespace)).toContainEqual(warning);
  });
});

it('with PKI delivery it is refused by the API server', async () => {
  const { resource } = await makeScene(kube, vaults.OpenBao, { namespace: 'crl-pki', spec: { delivery: { crl: true, source: 'PKI' } }, withoutRole: true }); // prettier-ignore
  const { status, body } = await apply(kube, resource);
  expect([status, JSON.stringify(body)]).toEqual([422, expect.stringContaining('delivery.crl cannot be used with')]);
});
