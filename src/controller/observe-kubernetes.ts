/** Reads what a plan needs from the cluster: the control plane, its rivals, istiod's Deployments, the mesh's root, the injector. */
import type { IstioVaultCA } from '../api/schema.ts';
import { group, plural, version } from '../api/schema.ts';
import { parseGoDuration } from '../api/duration.ts';
import { dig, isObject, type ControlPlaneAdapter, type JsonObject } from '../control-planes/adapter.ts';
import { KubeError } from '../kube/errors.ts';
import type { KubeClient } from '../kube/client.ts';
import { bundleFacts } from '../plan/certificate.ts';
import { kvDataPath, type IstiodFields } from '../plan/desired.ts';
import type { ObservedKubernetes } from '../plan/observed.ts';
import { isIstiod, istiodLabel } from '../istiod/discover.ts';
import { selects } from '../kube/selector.ts';

const namespaces = { group: '', version: 'v1', plural: 'namespaces' };
const configMaps = { group: '', version: 'v1', plural: 'configmaps' };
const deployments = { group: 'apps', version: 'v1', plural: 'deployments' };
const pods = { group: '', version: 'v1', plural: 'pods' };
const webhooks = { group: 'admissionregistration.k8s.io', version: 'v1', plural: 'mutatingwebhookconfigurations' };
export const resources = { group, version, plural };

export type ClusterReader = Pick<KubeClient, 'getObject' | 'listObjects' | 'isServed'>;

const str = (value: unknown): string => (typeof value === 'string' ? value : '');
const list = (value: unknown): unknown[] => (Array.isArray(value) ? value : []);

/** What is read once a reconcile. */
export interface Surroundings {
  siblings: JsonObject[];
  istiod: Pick<ObservedKubernetes, 'istiodServiceAccounts' | 'maxWorkloadCertTtlMs'>;
  injector: ObservedKubernetes['injector'];
}

/** What decides whether may be written: read anew in every round. */
export interface Gates {
  controlPlane: JsonObject | undefined;
  controlPlaneServed: boolean;
  meshRoots: ObservedKubernetes['meshRoots'];
}

/** @throws KubeError of the first read that failed */
export async function readSurroundings(kube: ClusterReader, { metadata, spec }: IstioVaultCA): Promise<Surroundings> {
  const [siblings, istiod, injector] = await Promise.all([
    kube.listObjects(resources, metadata.namespace),
    readIstiod(kube, metadata.namespace, spec.controlPlane.revision),
    readInjector(kube, metadata.namespace),
  ]);
  return { siblings, istiod, injector };
}

/** @throws KubeError of the first read that failed */
export async function readGates(
  kube: ClusterReader,
  { metadata, spec }: IstioVaultCA,
  adapter: ControlPlaneAdapter,
): Promise<Gates> {
  const [controlPlane, rootConfigMap] = await Promise.all([
    kube.getObject(adapter.gvr, metadata.namespace, spec.controlPlane.name),
    kube.getObject(configMaps, metadata.namespace, 'istio-ca-root-cert'),
  ]);
  return {
    controlPlane,
    controlPlaneServed: controlPlane !== undefined || (await kube.isServed(adapter.gvr)),
    meshRoots: rootConfigMap && bundleFacts(str(dig(rootConfigMap, 'data', 'root-cert.pem'))),
  };
}

/** The observation for the fields that are wanted. */
export function judgeKubernetes(
  { siblings, istiod, injector }: Surroundings,
  { controlPlane, controlPlaneServed, meshRoots }: Gates,
  resource: IstioVaultCA,
  adapter: ControlPlaneAdapter,
  fields: IstiodFields,
): Omit<ObservedKubernetes, 'kubernetesCa' | 'goneOwners' | 'istiodUses' | 'istiod'> {
  const { revision } = resource.spec.controlPlane;
  const facts = controlPlane && adapter.facts({ object: controlPlane, revision, fields });
  return {
    controlPlane: facts,
    controlPlaneServed,
    ownerIs: ownerOf(resource, siblings, facts?.owner),
    ...istiod,
    meshRoots,
    injector,
  };
}

/** Resources that name the same control plane and revision, oldest first. */
function rivals(resource: IstioVaultCA, siblings: JsonObject[]): string[] {
  const target = (object: unknown) =>
    ['kind', 'name', 'revision'].map((key) => str(dig(object, 'spec', 'controlPlane', key)) || 'default').join('/');
  const ours = target(resource);
  return (
    siblings
      // one that is being deleted owns its control plane until it is gone
      .filter((sibling) => target(sibling) === ours)
      .map((sibling) => [
        str(dig(sibling, 'metadata', 'creationTimestamp')),
        str(dig(sibling, 'metadata', 'uid')),
        str(dig(sibling, 'metadata', 'name')),
      ])
      .sort((a, b) => (a.join() < b.join() ? -1 : 1))
      .map(([, , name = '']) => name)
  );
}

/** The annotation decides while the resource it names lives and names this control plane; else the oldest. */
function ownerOf(
  resource: IstioVaultCA,
  siblings: JsonObject[],
  claimed: string | undefined,
): ObservedKubernetes['ownerIs'] {
  const names = rivals(resource, siblings);
  const { name } = resource.metadata;
  const owner = claimed !== undefined && names.includes(claimed) ? claimed : (names[0] ?? name);
  return owner === name ? 'us' : { name: owner };
}

async function readIstiod(
  kube: ClusterReader,
  namespace: string,
  revision: string | undefined,
): Promise<Surroundings['istiod']> {
  try {
    const found = (await kube.listObjects(deployments, namespace, istiodLabel)).filter((deployment) =>
      isIstiod(deployment, revision),
    );
    const accounts = found.map(
      (deployment) => str(dig(deployment, 'spec', 'template', 'spec', 'serviceAccountName')) || 'default',
    );
    // one Deployment without it allows what Istio allows
    const ttls = found.map((deployment) =>
      containers(deployment)
        .flatMap((c) => list(dig(c, 'env')))
        .flatMap((e) => (dig(e, 'name') === 'MAX_WORKLOAD_CERT_TTL' ? [durationMs(str(dig(e, 'value')))] : []))
        .at(-1),
    );
    const known = ttls.filter((ttl) => ttl !== undefined);
    return {
      istiodServiceAccounts: [...new Set(accounts)],
      maxWorkloadCertTtlMs: known.length > 0 && known.length === found.length ? Math.max(...known) : undefined,
    };
  } catch (error) {
    if (!(error instanceof KubeError && error.kind === 'Forbidden')) throw error;
    return { istiodServiceAccounts: 'unreadable', maxWorkloadCertTtlMs: undefined };
  }
}

const containers = (deployment: JsonObject): unknown[] =>
  list(dig(deployment, 'spec', 'template', 'spec', 'containers'));

/** istiod's own setting; a form that is not ours to read (fractions) counts as unset. */
function durationMs(text: string): number | undefined {
  try {
    return parseGoDuration(text);
  } catch {
    return undefined; // shown nowhere: the default of istiod is the safe reading
  }
}

/** The annotation of istiod's pods that tells where its key comes from. */
const keyAnnotation = 'vault.hashicorp.com/agent-inject-secret-ca-key.pem';

/** Deployments and living pods of istiod that carry the fields of this resource. @throws KubeError */
export async function readUses(kube: ClusterReader, { metadata, spec }: IstioVaultCA): Promise<string[]> {
  const path = kvDataPath(spec);
  const uses = (annotations: unknown) =>
    dig(annotations, keyAnnotation) === path &&
    dig(annotations, 'vault.hashicorp.com/role') === spec.kubernetesAuth.role;
  const [deployed, running] = await Promise.all([
    kube.listObjects(deployments, metadata.namespace, istiodLabel),
    kube.listObjects(pods, metadata.namespace, istiodLabel),
  ]);
  const named = (kind: string, object: JsonObject) => `${kind} ${str(dig(object, 'metadata', 'name'))}`;
  return [
    ...deployed
      .filter((o) => uses(dig(o, 'spec', 'template', 'metadata', 'annotations')))
      .map((o) => named('Deployment', o)),
    ...running
      .filter((o) => !/^(Succeeded|Failed)$/.test(str(dig(o, 'status', 'phase'))))
      .filter((o) => uses(dig(o, 'metadata', 'annotations')))
      .map((o) => named('pod', o)),
  ];
}

/**
 * Those of these resources, as `namespace/name`, that are not there; one that may not be read counts as there.
 * @throws KubeError
 */
export async function goneResources(kube: ClusterReader, names: string[]): Promise<string[]> {
  const gone = await Promise.all(
    names.map(async (full) => {
      const [namespace = '', name = ''] = full.split('/');
      const found = await kube.getObject(resources, namespace, name).catch((error: unknown) => {
        if (error instanceof KubeError && error.kind === 'Forbidden') return 'unreadable';
        throw error;
      });
      return found === undefined ? [full] : [];
    }),
  );
  return gone.flat();
}

/** Whether a namespace is being deleted with all it holds. @throws KubeError */
export async function isTerminating(kube: ClusterReader, namespace: string): Promise<boolean> {
  const object = await kube.getObject(namespaces, undefined, namespace);
  return dig(object, 'metadata', 'deletionTimestamp') !== undefined;
}

/** The Vault agent injector's webhook, by the name its installations give it. */
async function readInjector(kube: ClusterReader, namespace: string): Promise<ObservedKubernetes['injector']> {
  const [configurations, object] = await Promise.all([
    kube.listObjects(webhooks, undefined),
    kube.getObject(namespaces, undefined, namespace),
  ]);
  const labels = dig(object, 'metadata', 'labels');
  const hits = configurations
    .flatMap((configuration) => list(configuration['webhooks']))
    .filter((webhook) => isObject(webhook) && /(^|[.-])vault\.hashicorp\.com$/.test(str(webhook['name'])))
    .map((webhook) => ({
      found: true,
      name: str(dig(webhook, 'name')),
      failurePolicy: str(dig(webhook, 'failurePolicy')),
      selectsNamespace: selects(dig(webhook, 'namespaceSelector'), isObject(labels) ? labels : {}),
    }));
  const none = { found: false, selectsNamespace: false, name: '' };
  return hits.find((hit) => hit.selectsNamespace) ?? hits[0] ?? none;
}
