/** What a combination of the matrix needs before its resource, and while it runs: logins, roots and CAs of others. */
import { readFileSync } from 'node:fs';
import { waitFor } from '../stack/index.ts';
import { applyOk, getResource, requestReconcile, resourcePath, type Json } from '../support/cluster.ts';
import { OfflineCa } from '../support/offline-ca.ts';
import type { Scene } from '../support/scene.ts';

/** Makes what a resource refers to. Returns its part of the spec. */
export type Prepare = (scene: Scene) => Json | Promise<Json>;

/** Where the root and the intermediate come from. */
export interface Source {
  /** The part of the spec; makes what it refers to. */
  readonly prepare: Prepare;
  /** Does what the resource waits for, the first time and at its renewal. Absent: it waits for nothing. */
  readonly answer?: (scene: Scene) => Promise<void>;
  /** Begins a renewal; by default with annotation `rotate-intermediate`. */
  readonly renew?: (scene: Scene) => Promise<void>;
}

const tokenFields = ({ namespace }: Scene): Json => ({
  token_policies: [`operator-${namespace}`],
  token_no_default_policy: true,
  token_ttl: '1h',
});

async function request({ vault }: Scene, method: string, path: string, body?: Json): Promise<Json> {
  const { status, body: answer } = await vault.request(method, path, body);
  if (status >= 300) throw new Error(`${method} ${path}: ${status} ${JSON.stringify(answer)}`);
  return (answer ?? {}) as Json;
}

const secret = (scene: Scene, name: string, data: Record<string, string>): Promise<Json> =>
  applyOk(scene.kube, {
    apiVersion: 'v1',
    kind: 'Secret',
    metadata: { name, namespace: scene.namespace },
    data: Object.fromEntries(Object.entries(data).map(([key, text]) => [key, Buffer.from(text).toString('base64')])),
  });

/** A token of Vault with the operator's policy, in a Secret. */
export async function byToken(scene: Scene): Promise<Json> {
  const { namespace } = scene;
  const body = { policies: [`operator-${namespace}`], no_default_policy: true, ttl: '1h' };
  const { auth } = (await request(scene, 'POST', 'auth/token/create', body)) as { auth: { client_token: string } };
  const name = 'istio-vault-ca-token';
  await secret(scene, name, { token: auth.client_token });
  return { method: 'Token', token: { secretRef: { name } } };
}

export async function byAppRole(scene: Scene): Promise<Json> {
  const role = 'auth/approle/role/operator';
  await request(scene, 'POST', 'sys/auth/approle', { type: 'approle' });
  await request(scene, 'POST', role, tokenFields(scene));
  const id = (await request(scene, 'GET', `${role}/role-id`)) as { data: { role_id: string } };
  const made = (await request(scene, 'POST', `${role}/secret-id`, {})) as { data: { secret_id: string } };
  const name = 'istio-vault-ca-approle';
  await secret(scene, name, { 'secret-id': made.data.secret_id });
  return { method: 'AppRole', appRole: { roleId: id.data.role_id, secretIdRef: { name } } };
}

/** The keys by which Vault verifies tokens are those that the API server shows to everybody. */
export async function byJwt(scene: Scene): Promise<Json> {
  const { kube, namespace } = scene;
  const group = 'rbac.authorization.k8s.io';
  await applyOk(kube, {
    apiVersion: `${group}/v1`,
    kind: 'ClusterRoleBinding',
    metadata: { name: 'matrix-service-account-keys' },
    roleRef: { apiGroup: group, kind: 'ClusterRole', name: 'system:service-account-issuer-discovery' },
    subjects: [{ apiGroup: group, kind: 'Group', name: 'system:unauthenticated' }],
  });
  await request(scene, 'POST', 'sys/auth/jwt', { type: 'jwt' });
  await request(scene, 'POST', 'auth/jwt/config', { jwks_url: `${kube.url}/openid/v1/jwks`, jwks_ca_pem: kube.caPem });
  await request(scene, 'POST', 'auth/jwt/role/operator', {
    ...tokenFields(scene),
    role_type: 'jwt',
    user_claim: 'sub',
    bound_subject: `system:serviceaccount:${namespace}:istio-vault-ca`,
    bound_audiences: ['vault'],
  });
  return { method: 'JWT', jwt: { role: 'operator' } };
}

/** A root in a mount that others own. */
export const existing: Source = {
  prepare: async (scene) => {
    const mount = `${scene.namespace}-corp`;
    await request(scene, 'POST', `sys/mounts/${mount}`, { type: 'pki', config: { max_lease_ttl: '87600h' } });
    const root = { common_name: 'Corporate Root', ttl: '80000h', key_type: 'ec', key_bits: 256 };
    await request(scene, 'POST', `${mount}/root/generate/internal`, root);
    return { root: { source: 'Existing', mount } };
  },
};

const cas = new Map<string, OfflineCa>();
/** The CA outside of Vault of a scene. */
function caOf({ namespace }: Scene): OfflineCa {
  const ca = cas.get(namespace) ?? new OfflineCa('Corporate Root');
  cas.set(namespace, ca);
  return ca;
}

let reconciles = 0;
const reconcile = ({ kube, namespace, name }: Scene) =>
  requestReconcile(kube, namespace, name, `matrix ${(reconciles += 1)}`);

/** A root outside of Vault, which signs what is requested. */
export const external: Source = {
  prepare: () => ({ root: { source: 'External', external: { signed: { configMapRef: { name: 'signed' } } } } }),
  answer: async (scene) => {
    const { kube, namespace, name } = scene;
    const csr = await waitFor('a request', async () => (await getResource(kube, namespace, name)).status?.csr);
    const ca = caOf(scene);
    const metadata = { name: 'signed', namespace };
    await applyOk(kube, { apiVersion: 'v1', kind: 'ConfigMap', metadata, data: { 'tls.crt': ca.sign(csr) + ca.certificate, 'ca-crl.pem': ca.list() } }); // prettier-ignore
    await reconcile(scene);
  },
};

/** A CA with its key in a Secret; the next one at a renewal. The Secret has a name that component `secrets` grants. */
async function bringCa(scene: Scene): Promise<void> {
  const root = caOf(scene);
  const ca = new OfflineCa('Istio CA', root, { constraints: 'critical,CA:TRUE,pathlen:0' });
  const data = {
    'tls.crt': ca.certificate,
    'tls.key': readFileSync(ca.keyFile, 'utf8'),
    'ca.crt': root.certificate,
    'ca-crl.pem': ca.list() + root.list(),
  };
  await secret(scene, 'istio-vault-ca-signed', data);
}

export const imported: Source = {
  prepare: async (scene) => {
    await bringCa(scene);
    return { intermediate: { source: 'Import', importRef: { secretRef: { name: 'istio-vault-ca-signed' } } } };
  },
  renew: async (scene) => {
    await bringCa(scene);
    await reconcile(scene);
  },
};

/** Has the intermediate of a scene renewed. */
export async function renew(scene: Scene, source: Source): Promise<void> {
  const { kube, namespace, name } = scene;
  const annotations = { 'istiovaultca.io/rotate-intermediate': 'once' };
  if (source.renew) await source.renew(scene);
  else await kube.request('PATCH', resourcePath(namespace, name), { metadata: { annotations } });
  await source.answer?.(scene);
}
