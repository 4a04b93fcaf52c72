/**
 * A request that cert-manager signs (`root.external.certManagerIssuerRef`), with cert-manager's own CRDs: first a stand-in answers in the status of the
 * CertificateRequest, for what its controllers do not bring about, then cert-manager's own controllers sign with a CA issuer.
 * @servers kubectl, cert-manager
 */
import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { dig } from '../../src/api/json.ts';
import { startCertManager } from '../stack/cert-manager.ts';
import { createNamespace, sharedStack, waitFor, type RunningServer } from '../stack/index.ts';
import { kubeWrites, vaultWrites } from '../support/audit.ts';
import { answerRequest, certCondition, csrIn, grantRequests, nameOf, pathOfRequest, removeCertManager, requestsOf, serveCertManager } from '../support/cert-manager.ts'; // prettier-ignore
import { defects } from '../support/certificates.ts';
import { applyOk, conditionOf, getResource, installComponent, requestReconcile, resourcePath, setStatus, waitForCondition, type Json, type Resource } from '../support/cluster.ts'; // prettier-ignore
import { expectDescribed } from '../support/described.ts';
import { sectionsOf } from '../support/documented.ts';
import { useOperator } from '../support/harness.ts';
import { entry } from '../support/look.ts';
import { OfflineCa } from '../support/offline-ca.ts';
import { makeScene, merge, type Scene } from '../support/scene.ts';

const { kube, vaults } = sharedStack();
const harness = useOperator();
const namespace = 'cert-manager-mesh';
const account = `system:serviceaccount:${namespace}:istio-vault-ca`;
const mapPath = `/api/v1/namespaces/${namespace}/configmaps/istioca-csr`;
const bindings = '/apis/rbac.authorization.k8s.io/v1/clusterrolebindings';
const spec = {
  root: { source: 'External', external: { certManagerIssuerRef: { name: 'corporate' } } },
  intermediate: { maxWorkloadCertTTL: '24h' },
};

let scene: Scene;
let controllers: RunningServer | undefined;
const root = new OfflineCa('Corporate Root');
const issuing = new OfflineCa('Corporate Issuing CA', root);

let looks = 0;
const reconciled = (): Promise<Resource> => requestReconcile(kube, namespace, 'istioca', String((looks += 1)));
const csrOf = async (): Promise<string> => (await getResource(kube, namespace, 'istioca')).status?.csr ?? '';
const intermediate = (resource: Resource) => conditionOf(resource, 'IntermediateReady');
const requests = () => requestsOf(kube, namespace);
const newest = async () => nameOf((await requests()).at(-1));
const shown = async () => (await kube.request('GET', mapPath)).body as { data?: Json; metadata?: Json };
/** Has the reason of `IntermediateReady` after a reconcile. */
const awaits = async (reason: string, message: RegExp): Promise<Resource> => {
  const resource = await reconciled();
  expect(intermediate(resource)).toMatchObject({ reason, message: expect.stringMatching(message) as unknown });
  return resource;
};
const waiting = (status: 'True' | 'False') =>
  waitForCondition(kube, namespace, 'istioca', { type: 'IntermediateReady', status, reason: 'AwaitingSignature' });
const change = async (over: Json): Promise<void> => {
  scene.resource = merge(scene.resource, over);
  await applyOk(kube, scene.resource);
};
const files = async () => {
  const { 'ca-cert.pem': cert = '', 'ca-key.pem': key = '', 'cert-chain.pem': chain = '', 'root-cert.pem': top = '' } = (await entry(scene)) ?? {}; // prettier-ignore
  return { cert, key, chain, root: top };
};

/** A Secret of a CA issuer. */
function secretOf(metadata: Json, ca: OfflineCa): Json {
  const texts = { 'tls.crt': ca.certificate, 'tls.key': readFileSync(ca.keyFile, 'utf8'), 'ca.crt': root.certificate };
  const data = Object.fromEntries(Object.entries(texts).map(([key, text]) => [key, Buffer.from(text).toString('base64')])); // prettier-ignore
  return { apiVersion: 'v1', kind: 'Secret', metadata, data };
}

beforeAll(async () => {
  await removeCertManager(kube);
  scene = await makeScene(kube, vaults.OpenBao, { namespace, spec });
});

afterAll(async () => {
  await controllers?.stop();
  await kube.request('DELETE', `${bindings}/everything`);
  await removeCertManager(kube);
});

it('without cert-manager the message says so, and the request stands in the status and in a ConfigMap', async () => {
  await applyOk(kube, scene.resource);
  const resource = await waiting('False');
  expect(intermediate(resource)?.message).toContain('The API server serves no CertificateRequests');
  expect(resource.status?.csr).toContain('BEGIN CERTIFICATE REQUEST');
  expect((await shown()).data).toEqual({ 'tls.csr': resource.status?.csr });
  await expectDescribed(kube, namespace, 'AwaitingSignature-no-cert-manager');
});

it('what somebody writes into the ConfigMap is replaced by the request, and with the status there is no other one', async () => {
  await kube.request('PATCH', mapPath, { data: { 'tls.csr': 'another request' } });
  const resource = await reconciled();
  expect((await shown()).data).toEqual({ 'tls.csr': resource.status?.csr });
});

it('only the rights of the ServiceAccount of the namespace count, not those of the operator', async () => {
  await serveCertManager(kube);
  const roleRef = { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: 'cluster-admin' };
  const subjects = [{ kind: 'ServiceAccount', name: 'istio-vault-ca-operator', namespace: 'istio-vault-ca' }];
  const metadata = { name: 'everything' };
  await applyOk(kube, { apiVersion: 'rbac.authorization.k8s.io/v1', kind: 'ClusterRoleBinding', metadata, roleRef, subjects }); // prettier-ignore
  await awaits('Forbidden', new RegExp(`ServiceAccount ${namespace}/istio-vault-ca lacks permission to get certificaterequests.cert-manager.io`)); // prettier-ignore
  expect(await requests()).toEqual([]);
  expect(await csrOf()).toContain('BEGIN CERTIFICATE REQUEST');
  await expectDescribed(kube, namespace, 'Forbidden-cert-manager');
  await kube.request('DELETE', `${bindings}/everything`);
});

it('asks once, for a CA, as that account, and goes on with the same CertificateRequest after a restart', async () => {
  await grantRequests(kube, namespace, 'get', 'create');
  await awaits('AwaitingSignature', /waits for approval/);
  const [request] = await requests();
  const csr = await csrOf();
  expect(request).toMatchObject({
    metadata: {
      name: expect.stringMatching(/^istioca-1-[0-9a-f]{8}$/) as unknown,
      ownerReferences: [{ kind: 'IstioVaultCA', name: 'istioca' }],
    },
    spec: {
      isCA: true,
      usages: ['cert sign', 'crl sign', 'digital signature'],
      duration: '43800h',
      issuerRef: { name: 'corporate', kind: 'Issuer', group: 'cert-manager.io' },
    },
  });
  expect(csrIn(request ?? {})).toBe(csr);
  await expectDescribed(kube, namespace, 'AwaitingSignature-approval');
  const before = (await vaultWrites(scene.vault)).length;
  await harness.restart();
  await reconciled();
  expect(await csrOf()).toBe(csr);
  expect((await requests()).map(nameOf)).toEqual([nameOf(request)]);
  expect((await vaultWrites(scene.vault)).slice(before)).toEqual([]);
  const asked = (writes: string[]) => writes.filter((write) => write.includes('certificaterequests'));
  expect(asked(await kubeWrites(kube, account))).toEqual([
    `create certificaterequests/ ${namespace}/${nameOf(request)}`,
  ]);
  expect(asked(await kubeWrites(kube))).toEqual([]);
});

describe('what is refused', () => {
  const status = (name: string, ...conditions: Json[]) =>
    setStatus(kube, pathOfRequest(namespace, name), { conditions });
  const signed =
    (how: Parameters<OfflineCa['sign']>[1], ca = root.certificate) =>
    async (name: string) =>
      answerRequest(kube, namespace, name, issuing.sign(await csrOf(), how) + issuing.certificate, ca);
  it.each<[string, (name: string) => Promise<unknown>, RegExp]>([
    ['denied by an approver', (name) => status(name, certCondition('Denied', 'True', 'policy.cert-manager.io', 'No policy approved this request'), certCondition('Ready', 'False', 'Denied', 'The CertificateRequest was denied by an approval controller')), /it was denied\..*cert-manager reports: "policy.cert-manager.io: No policy approved this request"\.$/], // prettier-ignore
    ['failed', (name) => status(name, certCondition('Approved', 'True', 'test', ''), certCondition('Ready', 'False', 'Failed', 'the signer\nis sealed')), /it has failed\..*cert-manager reports: "Failed: the signer is sealed"\.$/], // prettier-ignore
    ['invalid', (name) => status(name, certCondition('InvalidRequest', 'True', 'Forbidden', 'user may not')), /it is invalid\..*cert-manager reports: "Forbidden: user may not"\.$/], // prettier-ignore
    ['signed as no CA', signed({ constraints: 'critical,CA:FALSE' }), /The certificate in CertificateRequest .* was not used: it is no CA certificate/], // prettier-ignore
    ['signed for too long', signed({ days: 3000 }), /longer than spec.intermediate.ttl/],
    ['without a root', signed({}, ''), /no chain of signatures leads from .* to a self-signed root.*spec.root.external.rootCertRef/], // prettier-ignore
    ['another request under its name', (name) => kube.request('PATCH', pathOfRequest(namespace, name), { spec: { issuerRef: { name: 'other' } } }), /its spec.issuerRef is not what this resource asks for/], // prettier-ignore
  ])('%s: the message has the way on, which is to have it made again', async (what, bringAbout, message) => {
    const csr = await csrOf();
    const name = await newest();
    await bringAbout(name);
    const resource = await awaits('SignedCertificateRefused', message);
    expect(intermediate(resource)?.message).toContain(`kubectl delete certificaterequest -n ${namespace} ${name}`);
    expect(await entry(scene)).toBeUndefined();
    if (what === 'denied by an approver') await expectDescribed(kube, namespace, 'SignedCertificateRefused-denied');
    await kube.request('DELETE', pathOfRequest(namespace, name));
    await awaits('AwaitingSignature', /waits for approval/);
    expect([await newest(), await csrOf()]).toEqual([name, csr]);
    expect(csrIn((await requests()).at(-1) ?? {})).toBe(csr);
  });
});

it('one that is being deleted is not used, and waited for', async () => {
  const name = await newest();
  await kube.request('PATCH', pathOfRequest(namespace, name), { metadata: { finalizers: ['example.com/wait'] } });
  await kube.request('DELETE', pathOfRequest(namespace, name));
  await awaits('AwaitingSignature', /is being deleted/);
  await kube.request('PATCH', pathOfRequest(namespace, name), { metadata: { finalizers: null } });
  await awaits('AwaitingSignature', /waits for approval/);
});

it('another issuer in the spec is asked at once; its answer is used, and the ConfigMap goes', async () => {
  const before = await newest();
  await change({ spec: { root: { external: { certManagerIssuerRef: { name: 'corporate-2' } } } } });
  const name = await waitFor('another CertificateRequest', async () => {
    const found = (await requests()).find((one) => dig(one, 'spec', 'issuerRef', 'name') === 'corporate-2');
    return found && nameOf(found);
  });
  expect(name).not.toBe(before);
  await answerRequest(kube, namespace, name, issuing.sign(await csrOf()) + issuing.certificate, root.certificate);
  await reconciled();
  const ready = await waitForCondition(kube, namespace, 'istioca', { type: 'Provisioned', status: 'True' });
  expect(ready.status?.csr).toBeUndefined();
  expect(ready.status?.root).toMatchObject({ fingerprint: root.fingerprint, generation: 1 });
  const { cert, key, chain, root: top } = await files();
  expect([chain, top]).toEqual([cert + issuing.certificate, root.certificate]);
  expect(defects({ cert, key, chain, root: top })).toEqual([]);
  await waitFor('the ConfigMap to be gone', async () => (await kube.request('GET', mapPath)).status === 404);
});

it("cert-manager's own controllers sign a renewal as soon as there is an issuer; a ConfigMap of somebody else is left alone", async () => {
  const theirs = { 'tls.csr': 'of somebody else' };
  await applyOk(kube, { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'istioca-csr', namespace }, data: theirs }); // prettier-ignore
  controllers = await startCertManager(kube);
  await change({ metadata: { annotations: { 'istiovaultca.io/rotate-intermediate': 'one' } } });
  await waiting('True');
  const asked = await waitFor('cert-manager to miss the issuer', async () => {
    const message = intermediate(await reconciled())?.message ?? '';
    return message.includes('cert-manager reports: "Pending') && message;
  });
  expect(asked).toMatch(/waits for Issuer corporate-2 to sign it.*ConfigMap cert-manager-mesh\/istioca-csr is not owned by this resource/); // prettier-ignore
  await expectDescribed(kube, namespace, 'AwaitingSignature-issuer');
  const metadata = { name: 'corporate-2', namespace };
  await applyOk(kube, secretOf(metadata, issuing));
  await applyOk(kube, { apiVersion: 'cert-manager.io/v1', kind: 'Issuer', metadata, spec: { ca: { secretName: 'corporate-2' } } }); // prettier-ignore
  const renewed = await waitFor(
    'the second generation',
    async () => {
      const resource = await reconciled();
      return resource.status?.intermediate?.generation === 2 && resource;
    },
    { log: () => controllers?.log() ?? '' },
  );
  expect(conditionOf(renewed, 'Provisioned')).toMatchObject({ status: 'True' });
  const { cert, key, chain, root: top } = await files();
  expect([chain, top]).toEqual([cert + issuing.certificate, root.certificate]);
  expect(defects({ cert, key, chain, root: top })).toEqual([]);
  expect((await shown()).data).toEqual(theirs);
});

it('an issuer that ends before the time that it is asked for: the certificate is refused, until the time fits', async () => {
  const short = new OfflineCa('Short CA', root, { days: 400 });
  const metadata = { name: 'short', namespace };
  await applyOk(kube, secretOf(metadata, short));
  await applyOk(kube, { apiVersion: 'cert-manager.io/v1', kind: 'Issuer', metadata, spec: { ca: { secretName: 'short' } } }); // prettier-ignore
  await change({
    metadata: { annotations: { 'istiovaultca.io/rotate-intermediate': 'two' } },
    spec: { root: { external: { certManagerIssuerRef: { name: 'short' } } } },
  });
  const refused = await waitFor('the refusal', async () => {
    const found = intermediate(await reconciled());
    return found?.reason === 'SignedCertificateRefused' && found;
  });
  expect(refused).toMatchObject({
    status: 'True',
    message: expect.stringMatching(/after "Short CA".* above it, which ends on/) as unknown,
  });
  await change({ spec: { intermediate: { ttl: '8760h' } } });
  await waitFor('a generation for the new time', async () => {
    const resource = await reconciled();
    return (resource.status?.intermediate?.generation ?? 0) > 2 && resource;
  });
  expect((await files()).chain).toContain(short.certificate);
});

it('the manifests of docs/external-root.md do what they are for', async () => {
  const mesh = await makeScene(kube, vaults.Vault, { namespace: 'cert-manager-docs', spec: { root: { source: 'External', external: spec.root.external } } }); // prettier-ignore
  const page = await sectionsOf('docs/external-root.md');
  const [clusterIssuer = {}, binding = {}, resource = {}] = page.get('Signed by cert-manager')?.manifests ?? [];
  await installComponent(kube, 'cert-manager');
  await createNamespace(kube, 'cert-manager');
  await applyOk(kube, secretOf({ name: 'corporate-ca', namespace: 'cert-manager' }, issuing));
  const here = (object: Json) => JSON.parse(JSON.stringify(object).replaceAll('istio-system', mesh.namespace)) as Json;
  await applyOk(kube, clusterIssuer);
  await applyOk(kube, here(binding));
  await applyOk(kube, merge(mesh.resource, { spec: { root: dig(resource, 'spec', 'root') as Json } }));
  const request = await waitFor('a signed CertificateRequest', async () => {
    const found = (await requestsOf(kube, mesh.namespace))[0];
    return dig(found, 'status', 'certificate') !== undefined && found;
  });
  expect(dig(request, 'spec', 'issuerRef', 'kind')).toBe('ClusterIssuer');
  await requestReconcile(kube, mesh.namespace, 'istioca', 'signed');
  await waitForCondition(kube, mesh.namespace, 'istioca', { type: 'Provisioned', status: 'True' });
});

it('mode: Plan lists both, and makes neither', async () => {
  const planned = await makeScene(kube, vaults.OpenBao, { namespace: 'cert-manager-plan', spec: { ...spec, mode: 'Plan' } }); // prettier-ignore
  await applyOk(kube, planned.resource);
  await waitForCondition(kube, planned.namespace, 'istioca', { type: 'Ready', reason: 'ChangesPending' });
  const { body } = await kube.request('GET', resourcePath(planned.namespace, 'istioca'));
  expect(dig(body, 'status', 'plan')).toEqual(
    expect.arrayContaining([
      { action: 'Create', target: 'configmap:istioca-csr', message: 'Write the certificate signing request to ConfigMap istioca-csr' }, // prettier-ignore
      { action: 'Create', target: 'certificaterequest:istioca-1-<hash>', message: 'Create CertificateRequest istioca-1-<hash> for Issuer corporate' }, // prettier-ignore
    ]),
  );
  expect(await requestsOf(kube, planned.namespace)).toEqual([]);
});
