/**
 * cert-manager on a test's API server: its own CRDs, or an open one where nobody looks at the schema; the rights to ask it; and a stand-in that answers a
 * CertificateRequest as a signer would.
 */
import { dig, items, str } from '../../src/api/json.ts';
import { certManagerCrds } from '../stack/cert-manager.ts';
import { waitFor } from '../stack/index.ts';
import { applyOk, setStatus, type Json, type Kube } from './cluster.ts';
import { openCrd, serveCrds } from './control-plane-crds.ts';

/** CertificateRequests with any content. */
export const certificateRequestCrd = openCrd({
  group: 'cert-manager.io',
  version: 'v1',
  kind: 'CertificateRequest',
  plural: 'certificaterequests',
  scope: 'Namespaced',
});

const crds = '/apis/apiextensions.k8s.io/v1/customresourcedefinitions';

/** Installs the CRDs, and waits until they are served. */
export const serveCertManager = async (kube: Kube): Promise<void> => serveCrds(kube, await certManagerCrds());

/** Removes the CRDs with all their objects, and waits until they are not served any more. */
export async function removeCertManager(kube: Kube): Promise<void> {
  for (const crd of await certManagerCrds())
    await kube.request('DELETE', `${crds}/${str(dig(crd, 'metadata', 'name'))}`);
  await waitFor('cert-manager.io not to be served', async () => (await kube.request('GET', '/apis/cert-manager.io/v1')).status === 404); // prettier-ignore
}

/** Binds these verbs on CertificateRequests to the ServiceAccount istio-vault-ca of a namespace; without any, takes them away. */
export async function grantRequests(kube: Kube, namespace: string, ...verbs: string[]): Promise<void> {
  const metadata = { name: 'istio-vault-ca-cert-manager', namespace };
  const apiGroup = 'rbac.authorization.k8s.io';
  const rules =
    verbs.length === 0 ? [] : [{ apiGroups: ['cert-manager.io'], resources: ['certificaterequests'], verbs }];
  await applyOk(kube, { apiVersion: `${apiGroup}/v1`, kind: 'Role', metadata, rules });
  await applyOk(kube, {
    apiVersion: `${apiGroup}/v1`,
    kind: 'RoleBinding',
    metadata,
    roleRef: { apiGroup, kind: 'Role', name: metadata.name },
    subjects: [{ kind: 'ServiceAccount', name: 'istio-vault-ca', namespace }],
  });
  const account = `system:serviceaccount:${namespace}:istio-vault-ca`;
  for (const verb of ['get', 'create']) {
    const resourceAttributes = { namespace, group: 'cert-manager.io', resource: 'certificaterequests', verb };
    await waitFor(`${verb} to be ${verbs.includes(verb) ? 'allowed' : 'denied'}`, async () => {
      const review = { spec: { user: account, resourceAttributes } };
      const { body } = await kube.request('POST', '/apis/authorization.k8s.io/v1/subjectaccessreviews', review);
      return dig(body, 'status', 'allowed') === verbs.includes(verb);
    });
  }
}

const collection = (namespace: string) => `/apis/cert-manager.io/v1/namespaces/${namespace}/certificaterequests`;

/** The CertificateRequests of a namespace, the newest last. */
export async function requestsOf(kube: Kube, namespace: string): Promise<Json[]> {
  const { body } = await kube.request('GET', collection(namespace));
  const time = (one: Json) => str(dig(one, 'metadata', 'creationTimestamp'));
  return (items(dig(body, 'items')) as Json[]).sort((a, b) => time(a).localeCompare(time(b)));
}

export const nameOf = (object: Json | undefined): string => str(dig(object, 'metadata', 'name'));
export const pathOfRequest = (namespace: string, name: string): string => `${collection(namespace)}/${name}`;
/** The certificate signing request in a CertificateRequest, PEM. */
export const csrIn = (request: Json): string => Buffer.from(str(dig(request, 'spec', 'request')), 'base64').toString();

/** A condition that cert-manager sets. */
export const certCondition = (type: string, status: 'True' | 'False', reason: string, message: string): Json => ({
  type,
  status,
  reason,
  message,
  lastTransitionTime: new Date().toISOString(),
});

/** Approves a CertificateRequest and puts certificates into it, as a signer of cert-manager does. @param ca status.ca, PEM; empty: none */
export async function answerRequest(
  kube: Kube,
  namespace: string,
  name: string,
  certificate: string,
  ca: string,
): Promise<void> {
  // prettier-ignore
  const base64 = (text: string) => Buffer.from(text).toString('base64');
  await setStatus(kube, pathOfRequest(namespace, name), {
    conditions: [
      certCondition('Approved', 'True', 'test', 'approved'),
      certCondition('Ready', 'True', 'Issued', 'Certificate fetched from issuer successfully'),
    ],
    certificate: base64(certificate),
    ...(ca === '' ? {} : { ca: base64(ca) }),
  });
}
