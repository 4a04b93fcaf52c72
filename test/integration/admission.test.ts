/** The sample of an admission policy, on the real API server: what is kept for mesh administrators, and what is not. */
import { afterAll, beforeAll, expect, it } from '@jest/globals';
import { createNamespace, requestToken, sharedStack, waitFor } from '../stack/index.ts';
import { call } from '../stack/http.ts';
import { applyOk, installOperator, manifest, resourcePath, type Json } from '../support/cluster.ts';
import { merge } from '../support/json.ts';
import { smallestSpec } from '../support/specs.ts';

const { kube } = sharedStack();
const namespace = 'admission';
const file = 'deploy/admission/mesh-administrators.yaml';
const resource = {
  apiVersion: 'istiovaultca.io/v1alpha1',
  kind: 'IstioVaultCA',
  metadata: { name: 'istioca', namespace, annotations: { 'istiovaultca.io/pause-rotation': 'true', team: 'a' } },
  spec: smallestSpec,
};

/** Sends a request as a service account of the namespace. */
async function as(account: 'tenant' | 'administrator', method: string, path: string, body: Json) {
  const token = await requestToken(kube, namespace, account);
  const type = method === 'PATCH' ? 'application/merge-patch+json' : 'application/json';
  const headers = { authorization: `Bearer ${token}`, 'content-type': type };
  const { status, body: answer } = await call(`${kube.url}${path}`, { method, ca: kube.caPem, headers, body });
  return { status, message: (answer as { message?: string }).message ?? '' };
}
const change = (account: 'tenant' | 'administrator', body: Json) =>
  as(account, 'PATCH', resourcePath(namespace, 'istioca'), body);

/** Binds a service account to a ClusterRole within the namespace. */
const bind = (account: string, role: string) =>
  applyOk(kube, {
    apiVersion: 'rbac.authorization.k8s.io/v1',
    kind: 'RoleBinding',
    metadata: { name: account, namespace },
    roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: role },
    subjects: [{ kind: 'ServiceAccount', name: account, namespace }],
  });

beforeAll(async () => {
  await installOperator(kube);
  await createNamespace(kube, namespace);
  for (const object of await manifest(file)) await applyOk(kube, object);
  await bind('tenant', 'istio-vault-ca-edit');
  await bind('administrator', 'istio-vault-ca-administer');
  const collection = resourcePath(namespace, '').replace(/\/$/, '');
  // the policy counts a moment after it was made
  await waitFor('the policy to count', async () => {
    const { status, message } = await as('tenant', 'POST', `${collection}?dryRun=All`, resource);
    return status === 422 && message.includes('a mesh administrator creates');
  });
  await waitFor('the administrator to be known', async () => {
    return (await as('administrator', 'POST', collection, resource)).status === 201;
  });
});
afterAll(async () => {
  for (const object of await manifest(file)) {
    const { kind, metadata } = object as { kind: string; metadata: { name: string } };
    const group = kind === 'ClusterRole' ? 'rbac.authorization.k8s.io' : 'admissionregistration.k8s.io';
    const plural = `${kind.toLowerCase().replace(/y$/, 'ie')}s`;
    await kube.request('DELETE', `/apis/${group}/v1/${plural}/${metadata.name}`);
  }
  await kube.request('DELETE', resourcePath(namespace, 'istioca'));
});

const annotation = (name: string, text: string | null): Json => ({
  metadata: { annotations: { [`istiovaultca.io/${name}`]: text } },
});

it.each<[string, Json, string]>([
  ['the address', { spec: { vault: { address: 'https://other.vault.svc:8200' } } }, 'spec.vault'],
  ['the address of the agent', { spec: { vault: { injectorAddress: 'https://other.vault.svc:8200' } } }, 'spec.vault'],
  ['adoption', { spec: { adopt: true } }, 'spec.adopt'],
  ['an audit device', { spec: { audit: { path: 'file' } } }, 'spec.audit'],
  ['the auth configuration', { spec: { kubernetesAuth: { config: { manage: true } } } }, 'spec.kubernetesAuth'],
  ['who gets the key', { spec: { kubernetesAuth: { serviceAccountNames: ['mine'] } } }, 'spec.kubernetesAuth'],
  ['the end of the CA', { spec: { deletionPolicy: 'Delete' } }, 'spec.deletionPolicy'],
  [
    'the agent of istiod',
    { spec: { delivery: { annotations: { 'vault.hashicorp.com/log-level': 'debug' } } } },
    'spec.delivery',
  ],
  ['a pause of everything', { spec: { suspend: true } }, 'spec.suspend'],
  ['a mode without repair', { spec: { mode: 'Plan' } }, 'spec.mode'],
  ['a rotation of the root', annotation('rotate-root', 'now'), 'annotations of istiovaultca.io'],
  ['another text', annotation('pause-rotation', 'false'), 'annotations of istiovaultca.io'],
  ['an annotation taken away', annotation('pause-rotation', null), 'annotations of istiovaultca.io'],
])('%s is for administrators', async (_, body, field) => {
  const refused = await change('tenant', body);
  expect(refused.status).toBe(422);
  expect(refused.message).toContain(field);
  expect((await change('administrator', body)).status).toBe(200);
  expect((await change('administrator', { ...merge(resource, {}), spec: { ...smallestSpec, vault: { ...(smallestSpec['vault'] as Json), injectorAddress: null }, adopt: null, audit: null, kubernetesAuth: null, deletionPolicy: null, delivery: null, suspend: null, mode: null }, metadata: { annotations: { 'istiovaultca.io/rotate-root': null, 'istiovaultca.io/pause-rotation': 'true' } } })).status).toBe(200); // prettier-ignore
});

it.each<[string, Json]>([
  ['a lifetime', { spec: { intermediate: { ttl: '40000h' } } }],
  ['a request to reconcile', annotation('reconcile-requested-at', 'now')],
  ['an annotation of its own', { metadata: { annotations: { team: 'b' } } }],
  ['when istiod is rolled', { spec: { rollout: 'Never' } }],
])('%s is not', async (_, body) => {
  expect(await change('tenant', body)).toMatchObject({ status: 200 });
});
