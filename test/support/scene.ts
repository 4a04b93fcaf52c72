/** The environment of one resource: a namespace with a control plane, a Vault role for the operator, and the names of the objects to create. */
import { operatorPolicy, type ToMake } from '../../src/plan/vault/capabilities.ts';
import { specSchema } from '../../src/api/schema.ts';
import { createNamespace, enableKubernetesAuth, type VaultServer } from '../stack/index.ts';
import { applyOk, type Json, type Kube } from './cluster.ts';
import { merge } from './json.ts';

export type Vault = Omit<VaultServer, 'stop'>;

export interface Scene {
  kube: Kube;
  vault: Vault;
  namespace: string;
  name: string;
  /** The resource as a user writes it. */
  resource: Json;
}

export { merge };

export interface SceneOptions {
  namespace: string;
  name?: string;
  /** Fields merged over the smallest spec with the names of this scene. */
  spec?: Json;
  /** Overlays that the ControlPlane already contains; undefined: there is no ControlPlane. */
  overlays?: unknown[] | null;
  /** Creates no Vault role for the operator. */
  withoutRole?: boolean;
  /** What the operator must create besides its own mounts. */
  make?: Partial<ToMake>;
}

/** Enables Kubernetes auth for the operator and istiod, once per server. */
export async function prepareVault(kube: Kube, vault: Vault): Promise<void> {
  const found = await vault.request('GET', 'sys/auth/kubernetes');
  if (found.status !== 200) await enableKubernetesAuth(vault, kube);
}

/** The operator's permissions in Vault: exactly the policy in `deploy/vault`, with the names of this scene. */
export async function grantOperator(
  vault: Vault,
  role: string,
  namespace: string,
  spec: Json,
  make: Partial<ToMake> = {},
): Promise<void> {
  const needs = { authMount: false, authConfig: false, auditDevice: false, signerId: '+', ...make };
  const parsed = specSchema.parse(spec);
  const policy = operatorPolicy(parsed, needs);
  await vault.request('PUT', `sys/policies/acl/${role}`, { policy });
  // a second cluster logs in at a mount of its own
  const mount = parsed.vault.auth.kubernetes?.mount ?? 'kubernetes';
  await vault.request('POST', `auth/${mount}/role/${role}`, {
    bound_service_account_names: ['istio-vault-ca'],
    bound_service_account_namespaces: [namespace],
    audience: 'vault',
    token_policies: [role],
    token_no_default_policy: true,
    // a short TTL, so that every test renews the token
    token_ttl: '10s',
  });
}

/** Sets a token TTL that needs no renewal within a test. Where a test counts logins, a pause of the machine must not cause one. */
export const grantLongTokens = ({ vault, namespace }: Pick<Scene, 'vault' | 'namespace'>) =>
  vault.request('POST', `auth/kubernetes/role/operator-${namespace}`, { token_ttl: '1h' });

export const controlPlane = (namespace: string, overlays: unknown[]): Json => ({
  apiVersion: 'install.tetrate.io/v1alpha1',
  kind: 'ControlPlane',
  metadata: { name: 'controlplane', namespace },
  spec: { hub: 'hub.example.invalid/tsb', components: { istio: { traceSamplingRate: 50, kubeSpec: { overlays } } } },
});

/**
 * Limits the mesh of a namespace to it: other tests leave roots of other meshes on this API server.
 * @param revision of istiod
 */
export async function limitMesh(kube: Kube, namespace: string, revision = 'default'): Promise<void> {
  const discoverySelectors = [{ matchLabels: { 'kubernetes.io/metadata.name': namespace } }];
  await kube.request('POST', `/api/v1/namespaces/${namespace}/configmaps`, {
    metadata: { name: revision === 'default' ? 'istio' : `istio-${revision}` },
    data: { mesh: JSON.stringify({ discoverySelectors }) },
  });
}

/** Every scene of this test file. At its end, everything that the operator exposes is searched for their secrets. */
export const scenes: Scene[] = [];

/** Creates the environment. The test applies the resource itself. */
export async function makeScene(kube: Kube, vault: Vault, options: SceneOptions): Promise<Scene> {
  const { namespace, name = 'istioca' } = options;
  await createNamespace(kube, namespace);
  await kube.request('POST', `/api/v1/namespaces/${namespace}/serviceaccounts`, {
    metadata: { name: 'istio-vault-ca' },
  });
  await applyOk(kube, {
    apiVersion: 'v1',
    kind: 'Secret',
    metadata: { name: 'istio-vault-ca-tls', namespace },
    data: { 'ca.crt': Buffer.from(vault.caPem ?? '').toString('base64') },
  });
  const { kind, name: revision } = (options.spec?.['controlPlane'] ?? {}) as { kind?: string; name?: string };
  await limitMesh(kube, namespace, kind === 'Sail' ? revision : undefined);
  if (options.overlays !== null) await applyOk(kube, controlPlane(namespace, options.overlays ?? []));
  const role = `operator-${namespace}`;
  const spec = merge(
    {
      vault: {
        address: vault.address,
        tls: { caSecretRef: { name: 'istio-vault-ca-tls' } },
        auth: { method: 'Kubernetes', kubernetes: { role } },
      },
      root: { mount: `${namespace}-pki`, key: { type: 'ec' } },
      intermediate: { mount: `${namespace}-ca`, key: { type: 'ec' } },
      keyStore: { mount: `${namespace}-kv`, path: 'istioca' },
      policy: { name: `${namespace}-istioca` },
      kubernetesAuth: { role: `${namespace}-istiod` },
      controlPlane: { kind: 'TetrateControlPlane', name: 'controlplane' },
    },
    options.spec ?? {},
  );
  if (!options.withoutRole) await grantOperator(vault, role, namespace, spec, options.make);
  const scene = {
    kube,
    vault,
    namespace,
    name,
    resource: { apiVersion: 'istiovaultca.io/v1alpha1', kind: 'IstioVaultCA', metadata: { name, namespace }, spec },
  };
  scenes.push(scene);
  return scene;
}
