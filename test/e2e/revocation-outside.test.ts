/**
 * Revocation lists of CAs outside of this resource: in a mount of others, and handed along beside certificates. OpenSSL judges what is published.
 * @servers kubectl
 */
import { readFileSync } from 'node:fs';
import { beforeAll, describe, expect, it } from '@jest/globals';
import { products, sharedStack, waitFor } from '../stack/index.ts';
import { vaultEntries, vaultWrites } from '../support/audit.ts';
import { opensslVerifyWithLists } from '../support/certificates.ts';
import { applyOk, conditionOf, getResource, requestReconcile, waitForCondition, type Json, type Resource } from '../support/cluster.ts'; // prettier-ignore
import { expectDescribed } from '../support/described.ts';
import { eventsOf } from '../support/events.ts';
import { useOperator } from '../support/harness.ts';
import { entry } from '../support/look.ts';
import { OfflineCa } from '../support/offline-ca.ts';
import { makeScene, merge, type Scene } from '../support/scene.ts';

const { kube, vaults } = sharedStack();
useOperator(['--crl-lead-time=1s']);

const spec = { delivery: { crl: true }, intermediate: { maxWorkloadCertTTL: '24h' } };
const provisioned = (namespace: string) =>
  waitForCondition(kube, namespace, 'istioca', { type: 'Provisioned', status: 'True' });
const intermediate = (resource: Resource) => conditionOf(resource, 'IntermediateReady');

/** The published lists, and whether a proxy that has them takes a workload certificate. */
async function published(scene: Scene): Promise<string[]> {
  const { 'ca-cert.pem': cert = '', 'ca-key.pem': key = '', 'cert-chain.pem': chain = '', 'root-cert.pem': root = '', 'ca-crl.pem': lists = '' } = (await entry(scene)) ?? {}; // prettier-ignore
  await opensslVerifyWithLists({ cert, key, chain, root }, lists);
  return lists.match(/-----BEGIN[^-]+-----[^-]+-----END[^-]+-----\n/g) ?? [];
}

let looks = 0;
const reconciled = (namespace: string): Promise<Resource> =>
  requestReconcile(kube, namespace, 'istioca', String((looks += 1)));

/** Puts texts into an object. */
const put = (
  kind: 'ConfigMap' | 'Secret',
  namespace: string,
  name: string,
  data: Record<string, string>,
): Promise<Json> => {
  const encoded = Object.entries(data).map(([key, text]) => [key, kind === 'Secret' ? Buffer.from(text).toString('base64') : text]); // prettier-ignore
  return applyOk(kube, {
    apiVersion: 'v1',
    kind,
    metadata: { name, namespace },
    data: Object.fromEntries(encoded) as Json,
  });
};

describe.each(products)('an issuer of others, %s', (product) => {
  const namespace = `crl-existing-${product}`.toLowerCase();
  const pki = `${namespace}-pki`;
  const vault = vaults[product];
  let scene: Scene;
  let made = 0;
  const request = async (method: string, path: string, body?: Json): Promise<Json> => {
    const reply = await vault.request(method, path, body);
    if (reply.status >= 300) throw new Error(`${method} ${path}: ${reply.status} ${JSON.stringify(reply.body)}`);
    return ((reply.body ?? {}) as { data?: Json }).data ?? {};
  };
  const writesToPki = async () => (await vaultWrites(vault)).filter((line) => line.includes(` ${pki}/`));

  beforeAll(async () => {
    await request('POST', `sys/mounts/${pki}`, { type: 'pki', config: { max_lease_ttl: '87600h' } });
    const about = { key_type: 'ec', key_bits: 256 };
    await request('POST', `${pki}/root/generate/internal`, { ...about, common_name: 'Corporate Root', ttl: '80000h' });
    const { csr } = await request('POST', `${pki}/intermediate/generate/internal`, { ...about, common_name: 'Issuing CA' }); // prettier-ignore
    const { certificate } = await request('POST', `${pki}/root/sign-intermediate`, { csr: csr as string, common_name: 'Issuing CA', ttl: '70000h' }); // prettier-ignore
    const installed = await request('POST', `${pki}/intermediate/set-signed`, { certificate: certificate as string });
    const [id] = installed['imported_issuers'] as string[];
    await request('POST', `${pki}/issuer/${id ?? ''}`, { issuer_name: 'issuing' });
    const root = { source: 'Existing', existing: { issuerRef: 'issuing' } };
    scene = await makeScene(kube, vault, { namespace, spec: merge(spec, { root }) });
    made = (await writesToPki()).length;
    await applyOk(kube, scene.resource);
  });

  it('the lists of all three tiers are published, with the right to sign in that mount and no other', async () => {
    await provisioned(namespace);
    expect(await published(scene)).toHaveLength(3);
    const policy = String((await request('GET', `sys/policies/acl/operator-${namespace}`))['policy']);
    expect(policy.match(new RegExp(`path "(sys/mounts/)?${pki}.*`, 'g'))).toEqual([`path "${pki}/issuer/+/sign-intermediate" {`]); // prettier-ignore
    expect((await writesToPki()).slice(made)).toEqual([expect.stringMatching(/^update \S+\/sign-intermediate$/)]);
    const asked = (await vaultEntries(vault.auditLog)).filter(({ operation, path }) => /^(read|list)$/.test(operation) && path.startsWith(`${pki}/`)); // prettier-ignore
    const others = asked.filter(({ path }) => !/\/issuer\/[\w-]+(\/json|\/crl)?$|\/issuers\/?$|\/cert\/[0-9a-f:]+$/.test(path)); // prettier-ignore
    expect(others).toEqual([]);
  });

  it('what the owner revokes is published, without a write to the mount', async () => {
    const { serial_number: serial } = await request('POST', `${pki}/issuer/issuing/sign-intermediate`, { csr: (await request('POST', `${pki}/intermediate/generate/internal`, { common_name: 'x', key_type: 'ec' }))['csr'] as string, common_name: 'x' }); // prettier-ignore
    await request('POST', `${pki}/revoke`, { serial_number: serial as string });
    const before = (await writesToPki()).length;
    await reconciled(namespace);
    expect(await eventsOf(kube, namespace)).toContainEqual(expect.objectContaining({ reason: 'CRLPublished' }));
    expect(await published(scene)).toHaveLength(3);
    expect((await writesToPki()).slice(before)).toEqual([]);
  });

  it('the list of a root whose key is elsewhere is handed along beside the root', async () => {
    const other = `${namespace}-2`;
    const { certificate: top } = await request('GET', `${pki}/cert/ca`);
    await request('POST', `sys/mounts/${other}-pki`, { type: 'pki', config: { max_lease_ttl: '87600h' } });
    const { csr } = await request('POST', `${other}-pki/intermediate/generate/internal`, { common_name: 'Far CA', key_type: 'ec' }); // prettier-ignore
    const { certificate } = await request('POST', `${pki}/root/sign-intermediate`, { csr: csr as string, common_name: 'Far CA', ttl: '60000h' }); // prettier-ignore
    const imported = await request('POST', `${other}-pki/intermediate/set-signed`, { certificate: `${String(certificate)}\n${String(top)}` }); // prettier-ignore
    expect(imported['imported_issuers']).toHaveLength(2);
    const far = await makeScene(kube, vault, { namespace: other, spec: merge(spec, { root: { source: 'Existing' } }) });
    await applyOk(kube, far.resource);
    const waiting = await waitForCondition(kube, other, 'istioca', { type: 'IntermediateReady', reason: 'CRLMissing' });
    expect(intermediate(waiting)?.message).toMatch(/revocation list of Corporate Root .*named in spec.root.existing.rootCertRef, with the root in key ca.crt/s); // prettier-ignore
    expect(await entry(far)).toBeUndefined();
    // the settings of Vault, three days, are too short for a list that people hand along
    await request('POST', `${pki}/config/crl`, { expiry: '720h' });
    await request('GET', `${pki}/crl/rotate`);
    const { crl } = await request('GET', `${pki}/issuer/default/crl`);
    await put('ConfigMap', other, 'corporate', { 'ca.crt': `${String(top)}\n`, 'ca-crl.pem': String(crl) });
    await applyOk(kube, merge(far.resource, { spec: { root: { existing: { rootCertRef: { configMapRef: { name: 'corporate' } } } } } })); // prettier-ignore
    await provisioned(other);
    expect(await published(far)).toHaveLength(3);
  });

  it('the list of a root that others generate is read in its mount too (root.manage: false)', async () => {
    const other = `${namespace}-3`;
    const root = { manage: false, mount: pki, commonName: 'Corporate Root' };
    const theirs = await makeScene(kube, vault, { namespace: other, spec: merge(spec, { root }) });
    const before = (await writesToPki()).length;
    await applyOk(kube, theirs.resource);
    await provisioned(other);
    expect(await published(theirs)).toHaveLength(2);
    expect((await writesToPki()).slice(before)).toEqual([expect.stringMatching(/^update \S+\/sign-intermediate$/)]);
  });
});

describe('a root outside of Vault', () => {
  const namespace = 'crl-external';
  const root = new OfflineCa('Corporate Root');
  const issuing = new OfflineCa('Corporate Issuing CA', root);
  let scene: Scene;
  let signed = '';
  const give = async (lists?: string): Promise<Resource> => {
    await put('ConfigMap', namespace, 'signed', { 'tls.crt': signed, ...(lists === undefined ? {} : { 'ca-crl.pem': lists }) }); // prettier-ignore
    return await reconciled(namespace);
  };

  beforeAll(async () => {
    const external = { root: { source: 'External', external: { signed: { configMapRef: { name: 'signed' } } } } };
    scene = await makeScene(kube, vaults.OpenBao, { namespace, spec: merge(spec, external) });
    await applyOk(kube, scene.resource);
    const { status } = await waitForCondition(kube, namespace, 'istioca', { type: 'IntermediateReady', reason: 'AwaitingSignature' }); // prettier-ignore
    signed = issuing.sign(status?.csr ?? '') + issuing.certificate + root.certificate;
  });

  it.each<[string, () => string | undefined, RegExp]>([
    ['no list', () => undefined, /Corporate Root.*Put it, PEM, into ConfigMap crl-external\/signed, key ca-crl.pem/s],
    ['the list of another CA of the same name', () => new OfflineCa('Corporate Root').list(), /no revocation list of Corporate Root/], // prettier-ignore
    ['a list that has ended', () => root.list({ signedInDays: -3, days: 2 }), /Corporate Root: its list in ConfigMap \S+ key ca-crl.pem has ended on 20/], // prettier-ignore
    ['a list from the future', () => root.list({ signedInDays: 1 }), /is not valid before 20/],
    ['a list of version 1', () => root.list({ plain: true }), /is of version 1, which istiod does not read/],
    ['a list of more than 128 KiB', () => root.list({ more: 2600 }), /at most 128 KiB/],
    ['no list of the issuing CA', () => root.list(), /revocation list of Corporate Issuing CA/],
  ])('with %s nothing is published, and it is said why', async (name, lists, why) => {
    const waiting = await give(lists());
    expect(intermediate(waiting)).toMatchObject({ status: 'False', reason: 'CRLMissing' });
    expect(intermediate(waiting)?.message).toMatch(why);
    expect(await entry(scene)).toBeUndefined();
    if (name === 'a list of version 1') await expectDescribed(kube, namespace, 'CRLMissing-external');
  });

  it('with both in one text the CA is published with the lists of all three', async () => {
    await give(`root\n${root.list()}\nissuing\r\n${issuing.list({ more: 2000 }).replaceAll('\n', '\r\n')}`);
    await provisioned(namespace);
    expect(await published(scene)).toHaveLength(3);
  });

  it('an older list changes nothing, a newer one with a revocation is published', async () => {
    const before = await published(scene);
    await give(root.list({ signedInDays: -2, revoked: ['4A'] }) + issuing.list());
    expect(await published(scene)).toEqual(before);
    await give(root.list({ revoked: ['4A'], signedInDays: -0.001 }));
    expect((await published(scene)).filter((list) => !before.includes(list))).toHaveLength(1);
    expect(await published(scene)).toHaveLength(3);
  });

  it('the intermediate on the list of the CA above it has another one requested', async () => {
    const { status } = await getResource(kube, namespace, 'istioca');
    const serial = status?.intermediate?.serial ?? '';
    const asked = await give(issuing.list({ revoked: [serial.replaceAll(':', '').toUpperCase()], signedInDays: 0 }));
    expect(asked.status?.csr).toMatch(/^-----BEGIN CERTIFICATE REQUEST/);
    expect(intermediate(asked)).toMatchObject({ status: 'False' });
  });
});

describe('a CA that is imported', () => {
  const namespace = 'crl-import';
  const root = new OfflineCa('Old Root');
  const ca = new OfflineCa('Old Istio CA', root, { constraints: 'critical,CA:TRUE,pathlen:0', days: 1000 });
  const certificates = { 'tls.crt': ca.certificate, 'tls.key': readFileSync(ca.keyFile, 'utf8'), 'ca.crt': root.certificate }; // prettier-ignore
  const name = 'istio-vault-ca-signed';
  const imports = { intermediate: { source: 'Import', importRef: { secretRef: { name } } } };
  let scene: Scene;
  const remove = async () => {
    await kube.request('DELETE', `/apis/istiovaultca.io/v1alpha1/namespaces/${namespace}/istiovaultcas/istioca`);
    await waitFor('the resource to be gone', async () => (await getResource(kube, namespace, 'istioca')).metadata.uid === undefined); // prettier-ignore
  };

  it('without lists waits, and is published with them; the Secret may go then', async () => {
    scene = await makeScene(kube, vaults.OpenBao, { namespace, spec: merge(spec, imports) });
    await put('Secret', namespace, name, certificates);
    await applyOk(kube, scene.resource);
    const waiting = await waitForCondition(kube, namespace, 'istioca', { type: 'IntermediateReady', reason: 'CRLMissing' }); // prettier-ignore
    expect(intermediate(waiting)?.message).toContain(`into Secret ${namespace}/${name}, key ca-crl.pem`);
    expect(await entry(scene)).toBeUndefined();
    await put('Secret', namespace, name, { ...certificates, 'ca-crl.pem': root.list() + ca.list() });
    await reconciled(namespace);
    await provisioned(namespace);
    expect(await published(scene)).toHaveLength(2);
    await kube.request('DELETE', `/api/v1/namespaces/${namespace}/secrets/${name}`);
    const before = (await vaultWrites(scene.vault)).length;
    expect(intermediate(await reconciled(namespace))).toMatchObject({ status: 'True' });
    expect((await vaultWrites(scene.vault)).slice(before)).toEqual([]);
  });

  it('a list for less than three days is near its end at once, which names the object and who must act', async () => {
    const short = root.list({ days: 2, signedInDays: -0.001, revoked: ['4A'] });
    await put('Secret', namespace, name, { ...certificates, 'ca-crl.pem': short + ca.list() });
    await reconciled(namespace);
    const near = await reconciled(namespace);
    expect(intermediate(near)).toMatchObject({ status: 'False', reason: 'CRLNearEnd' });
    await expectDescribed(kube, namespace, 'CRLNearEnd-import');
  });

  it('of a resource that is gone is adopted without the Secret: the same files, and no PKI mount', async () => {
    const files = await entry(scene);
    await remove();
    await kube.request('DELETE', `/api/v1/namespaces/${namespace}/secrets/${name}`);
    const successor = merge(scene.resource, { metadata: { name: 'successor' } });
    await applyOk(kube, successor);
    await waitForCondition(kube, namespace, 'successor', { type: 'KeyStored', reason: 'MountNotOwned' });
    await applyOk(kube, merge(successor, { spec: { adopt: true } }));
    const adopting = await waitForCondition(kube, namespace, 'successor', { type: 'KeyStored', status: 'True' });
    expect(intermediate(adopting)).toMatchObject({ reason: 'CRLMissing' });
    const adopted = await entry(scene);
    for (const file of ['ca-cert.pem', 'ca-key.pem', 'cert-chain.pem', 'root-cert.pem'])
      expect(adopted?.[file]).toBe(files?.[file]);
    for (const mount of ['pki', 'ca'])
      expect((await scene.vault.request('GET', `sys/mounts/${namespace}-${mount}`)).status).not.toBe(200);
  });
});

describe('a CA entry by hand, to be adopted as one that is imported', () => {
  const root = new OfflineCa('Hand Root');
  const ca = new OfflineCa('Hand CA', root, { constraints: 'critical,CA:TRUE,pathlen:0', days: 1000 });
  const entryByHand = { 'ca-cert.pem': ca.certificate, 'ca-key.pem': readFileSync(ca.keyFile, 'utf8'), 'cert-chain.pem': ca.certificate, 'root-cert.pem': root.certificate }; // prettier-ignore
  const name = 'istio-vault-ca-signed';
  const imports = { adopt: true, intermediate: { source: 'Import', importRef: { secretRef: { name } }, maxWorkloadCertTTL: '24h' } }; // prettier-ignore

  it.each(products)('%s: the entry stays what it is; incomplete, it is refused', async (product) => {
    const namespace = `import-adopted-${product}`.toLowerCase();
    const vault = vaults[product];
    const scene = await makeScene(kube, vault, { namespace, spec: imports });
    await vault.request('POST', `sys/mounts/${namespace}-kv`, { type: 'kv', options: { version: '2' } });
    const write = (data: Json) => vault.request('POST', `${namespace}-kv/data/istioca`, { data });
    await write({ ...entryByHand, 'root-cert.pem': '' });
    await applyOk(kube, scene.resource);
    const refused = await waitForCondition(kube, namespace, 'istioca', { type: 'KeyStored', reason: 'AdoptionMismatch' }); // prettier-ignore
    expect(conditionOf(refused, 'KeyStored')?.message).toContain('does not lead through cert-chain.pem to a self-signed root'); // prettier-ignore
    await write(entryByHand);
    await reconciled(namespace);
    await provisioned(namespace);
    expect(await entry(scene)).toMatchObject({ ...entryByHand, 'ca-key.pem': expect.any(String) as unknown });
    const key = (await entry(scene))?.['ca-key.pem'] ?? '';
    const { cert, chain, root: top } = { cert: ca.certificate, chain: ca.certificate, root: root.certificate };
    await opensslVerifyWithLists({ cert, key, chain, root: top }, root.list() + ca.list());
    // another CA under the same root in the Secret: as for a changed import
    const next = new OfflineCa('Next CA', root, { constraints: 'critical,CA:TRUE,pathlen:0', days: 1000 });
    await put('Secret', namespace, name, { 'tls.crt': next.certificate, 'tls.key': readFileSync(next.keyFile, 'utf8'), 'ca.crt': root.certificate }); // prettier-ignore
    await reconciled(namespace);
    await waitFor('the next generation', async () => (await entry(scene))?.['ca-cert.pem'] === next.certificate);
  });
});
