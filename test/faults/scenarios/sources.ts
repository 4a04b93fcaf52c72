/** From nothing to a provisioned control plane with a CA from elsewhere: an issuer of others, a root outside of Vault, a CA that is imported. */
import { readFileSync } from 'node:fs';
import { waitFor } from '../../stack/index.ts';
import { answerRequest, certificateRequestCrd, csrIn, grantRequests, nameOf, pathOfRequest, requestsOf } from '../../support/cert-manager.ts'; // prettier-ignore
import { applyOk, type Json, type Resource } from '../../support/cluster.ts';
import { serveCrds } from '../../support/control-plane-crds.ts';
import { OfflineCa } from '../../support/offline-ca.ts';
import type { Stage } from '../stage.ts';
import { provisioning } from './provisioning.ts';
import type { Scenario } from './scenario.ts';

/** Has the operator look at what was handed in. */
const handedIn = (stage: Stage): Promise<void> =>
  stage.annotate({ 'istiovaultca.io/reconcile-requested-at': 'handed in' });

/** A root in a mount that others own. */
export const existing: Scenario = {
  ...provisioning,
  name: 'provisioning under an issuer of others',
  spec: () => ({ root: { source: 'Existing' } }),
  rights: { signerId: '+' },
  leastWrites: 11,
  prepare: async ({ vault, mounts }) => {
    await vault.request('POST', `sys/mounts/${mounts.root}`, { type: 'pki', config: { max_lease_ttl: '87600h' } });
    const root = { common_name: 'Corporate Root', ttl: '80000h', key_type: 'ec', key_bits: 256 };
    const { status } = await vault.request('POST', `${mounts.root}/root/generate/internal`, root);
    if (status >= 300) throw new Error(`the root of others: ${status}`);
  },
};

/** The object that the spec names, in the namespace of a stage. Stages follow each other in a namespace, so each has its own. */
const signedName = (stage: Stage): string => `signed-${stage.name}`;
const root = new OfflineCa('Corporate Root');

/** A root outside of Vault, whose owner signs what is requested. */
export const external: Scenario = {
  ...provisioning,
  name: 'provisioning under a root outside of Vault',
  spec: () => ({ root: { source: 'External', external: { signed: { configMapRef: { name: 'overwritten' } } } } }),
  leastWrites: 12,
  expected: { ...provisioning.expected, issuers: { root: 0, intermediate: 1 }, keys: { root: 0, intermediate: 1 } },
  act: (stage) =>
    stage.apply({ spec: { root: { external: { signed: { configMapRef: { name: signedName(stage) } } } } } }),
  settled: async (stage) => {
    const { kube, namespace } = stage;
    const csrOf = (resource: Resource | undefined) => resource?.status?.csr;
    const csr = csrOf(await stage.wait('a request', (resource) => csrOf(resource) !== undefined)) ?? '';
    const metadata = { name: signedName(stage), namespace };
    await applyOk(kube, { apiVersion: 'v1', kind: 'ConfigMap', metadata, data: { 'tls.crt': root.sign(csr) + root.certificate } }); // prettier-ignore
    await handedIn(stage);
    await stage.provisioned();
  },
};

/** The same, with cert-manager asked for the signature: its CertificateRequest is answered as its signer would. */
export const certManager: Scenario = {
  ...external,
  name: 'provisioning with cert-manager',
  spec: () => ({ root: { source: 'External', external: { certManagerIssuerRef: { name: 'corporate' } } } }),
  prepare: async ({ kube, namespace }) => {
    await serveCrds(kube, [certificateRequestCrd]);
    await grantRequests(kube, namespace, 'get', 'create');
    // no controller removes what belonged to the resource of an earlier stage
    for (const request of await requestsOf(kube, namespace)) await kube.request('DELETE', pathOfRequest(namespace, nameOf(request))); // prettier-ignore
  },
  act: (stage) => stage.apply(),
  settled: async (stage) => {
    const { kube, namespace } = stage;
    const request = await waitFor('a CertificateRequest', async () => (await requestsOf(kube, namespace))[0], {
      intervalMs: 20,
    });
    await answerRequest(kube, namespace, nameOf(request), root.sign(csrIn(request)), root.certificate);
    await handedIn(stage);
    await stage.provisioned();
  },
  essence: async (stage) => {
    const { kube, namespace, name } = stage;
    const map = await kube.request('GET', `/api/v1/namespaces/${namespace}/configmaps/${name}-csr`);
    const requests = (await requestsOf(kube, namespace)).length;
    return { ...(await external.essence(stage)), requests, map: map.status };
  },
};

/** A CA with its key in a Secret of a name that component `secrets` grants. */
export const imported: Scenario = {
  ...provisioning,
  name: 'import of a CA',
  spec: () => ({ intermediate: { source: 'Import', importRef: { secretRef: { name: 'istio-vault-ca-signed' } } } }),
  leastWrites: 8,
  expected: {
    ...provisioning.expected,
    issuers: { root: 0, intermediate: 0 },
    keys: { root: 0, intermediate: 0 },
    liveIsDefault: false,
  },
  prepare: async ({ kube, namespace }) => {
    const ca = new OfflineCa('Istio CA', root, { constraints: 'critical,CA:TRUE,pathlen:0' });
    const texts = {
      'tls.crt': ca.certificate,
      'tls.key': readFileSync(ca.keyFile, 'utf8'),
      'ca.crt': root.certificate,
    };
    const data: Json = {};
    for (const [key, text] of Object.entries(texts)) data[key] = Buffer.from(text).toString('base64');
    const metadata = { name: 'istio-vault-ca-signed', namespace };
    await applyOk(kube, { apiVersion: 'v1', kind: 'Secret', metadata, data });
  },
};
