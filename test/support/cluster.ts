/** Actions of tests and the demo as cluster administrator: install the operator's manifests, apply and read objects. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { loadAllYaml, loadYaml } from '../../src/runtime/yaml.ts';
import { createNamespace, requestToken, waitFor, type KubeServer } from '../stack/index.ts';
import { injectorConfiguration, injectorName } from '../stack/node/injector.ts';
import { tetrateControlPlaneCrd } from './tetrate-crd.ts';

export type Json = Record<string, unknown>;
export type Kube = Omit<KubeServer, 'stop'>;

const top = join(import.meta.dirname, '..', '..');

/** The path of an object of a manifest on the API server. */
function collectionOf(object: Json): string {
  const apiVersion = String(object['apiVersion']);
  const kind = String(object['kind']).toLowerCase();
  const plural = kind.endsWith('y') ? `${kind.slice(0, -1)}ies` : `${kind}s`;
  const namespace = (object['metadata'] as { namespace?: string }).namespace;
  const base = apiVersion === 'v1' ? '/api/v1' : `/apis/${apiVersion}`;
  return namespace === undefined ? `${base}/${plural}` : `${base}/namespaces/${namespace}/${plural}`;
}

const pathOf = (object: Json): string => `${collectionOf(object)}/${String((object['metadata'] as Json)['name'])}`;

/** Server-side apply as `kubectl apply --server-side` sends it. Returns the response of the API server. */
export async function apply(kube: Kube, object: Json, manager = 'kubectl'): Promise<{ status: number; body: Json }> {
  const path = `${pathOf(object)}?fieldManager=${manager}&force=true`;
  const answer = await kube.request('PATCH', path, JSON.stringify(object), 'application/apply-patch+yaml');
  return { status: answer.status, body: answer.body as Json };
}

/** Writes the status of an object, like its controller. */
export async function setStatus(kube: Kube, path: string, status: Json): Promise<void> {
  const answer = await kube.request(
    'PATCH',
    `${path}/status`,
    JSON.stringify({ status }),
    'application/merge-patch+json',
  );
  if (answer.status >= 300) throw new Error(`status of ${path}: ${answer.status} ${JSON.stringify(answer.body)}`);
}

/** Applies an object. @throws if the API server refuses it */
export async function applyOk(kube: Kube, object: Json): Promise<Json> {
  const { status, body } = await apply(kube, object);
  if (status >= 300) throw new Error(`apply ${pathOf(object)}: ${status} ${JSON.stringify(body['message'] ?? body)}`);
  return body;
}

/** All objects of a kustomization: its resources, and those of the folders that it names. Patches and generators are not applied. */
async function kustomization(folder: string): Promise<Json[]> {
  const { resources = [], components = [] } = loadYaml(
    await readFile(join(top, folder, 'kustomization.yaml'), 'utf8'),
  ) as { resources?: string[]; components?: string[] };
  const parts = await Promise.all(
    [...resources, ...components].map(async (resource) =>
      resource.endsWith('.yaml')
        ? (loadAllYaml(await readFile(join(top, folder, resource), 'utf8')) as Json[])
        : await kustomization(join(folder, resource)),
    ),
  );
  return parts.flat();
}

/** Objects of a manifest file. */
export async function manifest(file: string): Promise<Json[]> {
  return loadAllYaml(await readFile(join(top, file), 'utf8')) as Json[];
}

/** Components that `deploy/default` lacks, for resources of every kind of control plane, and for Secrets. */
const everyKind = ['secrets', 'configmaps', 'istio-operator', 'sail'];

/** Installs a component of the deployment. */
export async function installComponent(kube: Kube, component: string): Promise<void> {
  for (const object of await kustomization(join('deploy', 'components', component))) await applyOk(kube, object);
}

/**
 * Installs CRDs and the operator's RBAC exactly as `deploy/default` and components have them (but for the Deployment, since no kubelet runs),
 * and returns a kubeconfig of its service account.
 */
export async function installOperator(kube: Kube, components: readonly string[] = everyKind): Promise<string> {
  const folders = ['deploy/default', ...components.map((component) => join('deploy', 'components', component))];
  const objects = (await Promise.all(folders.map(kustomization))).flat();
  for (const object of objects.filter((o) => o['kind'] === 'Namespace'))
    await createNamespace(kube, String((object['metadata'] as Json)['name']));
  for (const object of [
    ...objects.filter((o) => o['kind'] !== 'Deployment'),
    tetrateControlPlaneCrd as unknown as Json,
  ])
    await applyOk(kube, object);
  for (const name of ['istiovaultcas.istiovaultca.io', 'controlplanes.install.tetrate.io']) {
    await waitFor(`CRD ${name} to be established`, async () => {
      const crd = (await kube.request('GET', `/apis/apiextensions.k8s.io/v1/customresourcedefinitions/${name}`))
        .body as { status?: { conditions?: { type: string; status: string }[] } };
      return crd.status?.conditions?.some((c) => c.type === 'Established' && c.status === 'True') === true;
    });
  }
  const token = await requestToken(kube, 'istio-vault-ca', 'istio-vault-ca-operator', undefined, 24 * 3600);
  return await kube.kubeconfigWithToken(token, 'istio-vault-ca');
}

/** The webhook of Vault Agent Injector, as its Helm chart registers it. No server runs behind it: these tests create no Pods. */
export async function registerInjector(kube: Kube, namespaceSelector: Json = {}, over: Json = {}): Promise<void> {
  await applyOk(kube, injectorConfiguration({ url: 'https://127.0.0.1:1/mutate' }, namespaceSelector, over));
}

export async function unregisterInjector(kube: Kube): Promise<void> {
  await kube.request('DELETE', `/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/${injectorName}`);
}

export interface Condition {
  type: string;
  status: string;
  reason: string;
  message: string;
  observedGeneration?: number;
}

/** An IstioVaultCA as the API server has it. */
export interface Resource {
  metadata: { name: string; namespace: string; uid?: string; generation: number; annotations?: Record<string, string> };
  spec: Json;
  status?: {
    observedGeneration?: number;
    conditions?: Condition[];
    root?: { serial: string; fingerprint: string; notAfter: string; issuerId?: string; generation?: number };
    intermediate?: {
      serial: string;
      fingerprint: string;
      notAfter: string;
      generation: number;
      issuerId: string;
      renewAt?: string;
    };
    csr?: string;
    history?: { kind: string; reason: string; fingerprint: string }[];
    rotation?: { kind: string; phase: string; waitingFor?: string };
    controlPlane?: { digest?: string };
    lastHandledReconcileAt?: string;
  };
}

export const resourcePath = (namespace: string, name: string) =>
  `/apis/istiovaultca.io/v1alpha1/namespaces/${namespace}/istiovaultcas/${name}`;

export async function getResource(kube: Kube, namespace: string, name: string): Promise<Resource> {
  return (await kube.request('GET', resourcePath(namespace, name))).body as Resource;
}

export function conditionOf(resource: Resource, type: string): Condition | undefined {
  return resource.status?.conditions?.find((c) => c.type === type);
}

/** Waits until a condition has the given values for the current `metadata.generation`. The error contains all conditions. */
export async function waitForCondition(
  kube: Kube,
  namespace: string,
  name: string,
  what: { type: string; status?: string; reason?: string },
  timeoutMs = 60_000,
): Promise<Resource> {
  let last: Resource | undefined;
  try {
    return await waitFor(
      `${namespace}/${name}: ${JSON.stringify(what)}`,
      async () => {
        last = await getResource(kube, namespace, name);
        const found = conditionOf(last, what.type);
        const fits =
          found !== undefined &&
          found.observedGeneration === last.metadata.generation &&
          (what.status === undefined || found.status === what.status) &&
          (what.reason === undefined || found.reason === what.reason);
        return fits ? last : undefined;
      },
      { timeoutMs },
    );
  } catch (error) {
    const lines = (last?.status?.conditions ?? []).map((c) => `  ${c.type}=${c.status} ${c.reason}: ${c.message}`);
    throw new Error(`${error instanceof Error ? error.message : 'timed out'}\nconditions:\n${lines.join('\n')}`, {
      cause: error,
    });
  }
}

/**
 * Asks for a reconcile, as `reconcile-requested-at` promises it, and waits until it was done. It comes after one that is under way, and
 * each of the two may wait twenty seconds for a server that does not answer.
 */
export async function requestReconcile(kube: Kube, namespace: string, name: string, text: string): Promise<Resource> {
  const annotations = { 'istiovaultca.io/reconcile-requested-at': text };
  await kube.request('PATCH', resourcePath(namespace, name), { metadata: { annotations } });
  return await waitFor(
    `${namespace}/${name} to have been reconciled on request`,
    async () => {
      const now = await getResource(kube, namespace, name);
      return now.status?.lastHandledReconcileAt === text && now;
    },
    { timeoutMs: 90_000 },
  );
}
