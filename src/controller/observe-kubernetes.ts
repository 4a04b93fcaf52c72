/** Reads what a plan needs from the cluster: the control plane, its rivals, istiod's Deployments, the mesh's root, the injector. */
import { dig, isObject, items, str, type JsonObject } from '../api/json.ts';
import type { IstioVaultCA } from '../api/schema.ts';
import { group, plural, version } from '../api/schema.ts';
import { type ControlPlaneAdapter, type Target } from '../control-planes/adapter.ts';
import { KubeError, unless } from '../kube/errors.ts';
import type { KubeClient } from '../kube/client.ts';
import { dumpYaml } from '../runtime/yaml.ts';
import { bundleFacts } from '../plan/facts/certificate.ts';
import type { IstiodFields } from '../plan/control-plane/istiod-fields.ts';
import { kvDataPath } from '../plan/facts/ca-files.ts';
import type { ObservedKubernetes, Unfit } from '../plan/facts/observed.ts';
import type { IstiodDeployment } from '../plan/facts/observed-istiod.ts';
import { istiodDeployments, istiodLabel } from '../istiod/discover.ts';
import { selects } from '../kube/selector.ts';

const namespaces = { group: '', version: 'v1', plural: 'namespaces' };
export const configMaps = { group: '', version: 'v1', plural: 'configmaps' };
const deployments = { group: 'apps', version: 'v1', plural: 'deployments' };
const pods = { group: '', version: 'v1', plural: 'pods' };
const webhooks = { group: 'admissionregistration.k8s.io', version: 'v1', plural: 'mutatingwebhookconfigurations' };
export const resources = { group, version, plural };

export type ClusterReader = Pick<KubeClient, 'getObject' | 'listObjects' | 'isServed'>;

/** What is read once a reconcile. */
export interface Surroundings {
  others: JsonObject[];
  /** istiod's Deployments, of whatever revision. */
  deployments: IstiodDeployment[] | 'unreadable';
  relatives: JsonObject[] | undefined;
  injector: ObservedKubernetes['injector'];
}

/** What decides whether may be written: read anew in every round. */
export interface Gates {
  controlPlane: JsonObject | undefined;
  controlPlaneServed: boolean;
  meshRoots: ObservedKubernetes['meshRoots'];
  /** The ConfigMap that shows what to commit. */
  render: JsonObject | undefined;
}

/** @throws KubeError of the first read that failed */
export async function readSurroundings(
  kube: ClusterReader,
  { metadata }: IstioVaultCA,
  adapter: ControlPlaneAdapter,
): Promise<Surroundings> {
  const { namespace } = metadata;
  const [others, deployed, relatives, injector] = await Promise.all([
    kube.listObjects(resources, namespace),
    unless('Forbidden', kube.listObjects(deployments, namespace, istiodLabel)),
    readRelatives(kube, adapter, namespace),
    readInjector(kube, namespace),
  ]);
  return { others: others, deployments: deployed ? istiodDeployments(deployed) : 'unreadable', relatives, injector };
}

/** None when their type is not served. */
async function readRelatives(
  kube: ClusterReader,
  { relatives, clusterScoped }: ControlPlaneAdapter,
  namespace: string,
): Promise<JsonObject[] | undefined> {
  if (!relatives) return [];
  try {
    return await unless('Forbidden', kube.listObjects(relatives, clusterScoped ? undefined : namespace));
  } catch (error) {
    if (error instanceof KubeError && error.kind === 'NotFound') return [];
    throw error;
  }
}

/** @throws KubeError of the first read that failed */
export async function readGates(
  kube: ClusterReader,
  { metadata, spec }: IstioVaultCA,
  adapter: ControlPlaneAdapter,
  render: string,
): Promise<Gates> {
  const { namespace } = metadata;
  const [controlPlane, rootConfigMap, rendered] = await Promise.all([
    kube.getObject(adapter.gvr, adapter.clusterScoped ? undefined : namespace, spec.controlPlane.name),
    kube.getObject(configMaps, namespace, 'istio-ca-root-cert'),
    kube.getObject(configMaps, namespace, render),
  ]);
  return {
    controlPlane,
    controlPlaneServed: controlPlane !== undefined || (await kube.isServed(adapter.gvr)),
    meshRoots: rootConfigMap && bundleFacts(str(dig(rootConfigMap, 'data', 'root-cert.pem'))),
    render: rendered,
  };
}

/** What the adapter of a resource's control plane is given. */
export function targetOf(
  { metadata, spec }: IstioVaultCA,
  { deployments: deployed, relatives }: Surroundings,
  { controlPlane }: Gates,
): Target {
  return {
    object: controlPlane,
    namespace: metadata.namespace,
    spec: spec.controlPlane,
    relatives,
    deployments: deployed === 'unreadable' ? undefined : deployed,
  };
}

/** The observation for the fields that are wanted. */
export function evaluateKubernetes(
  surroundings: Surroundings,
  { controlPlane, controlPlaneServed, meshRoots, render }: Gates,
  resource: IstioVaultCA,
  adapter: ControlPlaneAdapter,
  fields: IstiodFields,
): Omit<ObservedKubernetes, 'kubernetesCa' | 'goneOwners' | 'istiodUses' | 'istiod'> {
  const target = targetOf(resource, surroundings, { controlPlane, controlPlaneServed, meshRoots, render });
  const looked = isGoing(controlPlane)
    ? going(resource)
    : controlPlane || adapter.makesIt
      ? adapter.look(target, fields)
      : undefined;
  const revisions = adapter.revisions(target);
  const [facts, unfit] = looked && 'unfit' in looked ? [undefined, looked.unfit] : [looked, undefined];
  const istiods =
    surroundings.deployments === 'unreadable' || surroundings.relatives === undefined
      ? 'unreadable'
      : surroundings.deployments.filter(({ revision }) => revisions.includes(revision));
  return {
    controlPlane: facts,
    ...(unfit ? { controlPlaneUnfit: unfit } : {}),
    controlPlaneServed,
    rendered: renderedOf(render, resource, () => adapter.render(target, fields)),
    ownerIs: ownerOf(resource, surroundings.others, facts?.owner ?? unfit?.owner),
    ...evaluateIstiod(istiods),
    otherRevisions: otherRevisions(surroundings.deployments, revisions),
    meshRoots,
    injector: surroundings.injector,
  };
}

/** The ConfigMap that shows what to commit. It goes with the resource: it is no part of the control plane. */
export function renderConfigMap(
  { metadata, ...resource }: IstioVaultCA,
  name: string,
  rendered: JsonObject,
): JsonObject {
  const { apiVersion, kind } = resource;
  const owner = { apiVersion, kind, name: metadata.name, uid: metadata.uid };
  return {
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: { name, namespace: metadata.namespace, ownerReferences: [owner] },
    data: { [renderFile(resource.spec)]: dumpYaml(rendered) },
  };
}

/** Named by what it is a part of. */
const renderFile = ({ controlPlane }: IstioVaultCA['spec']): string =>
  controlPlane.kind === 'HelmValues' ? 'values.yaml' : 'manifest.yaml';

function renderedOf(
  configMap: JsonObject | undefined,
  { metadata, spec }: IstioVaultCA,
  wanted: () => JsonObject,
): ObservedKubernetes['rendered'] {
  if (!configMap) return 'none';
  const ours = items(dig(configMap, 'metadata', 'ownerReferences')).some((ref) => dig(ref, 'uid') === metadata.uid);
  if (!ours) return 'foreign';
  return dig(configMap, 'data', renderFile(spec)) === dumpYaml(wanted()) ? 'current' : 'other';
}

const isGoing = (object: JsonObject | undefined): boolean => dig(object, 'metadata', 'deletionTimestamp') !== undefined;

const going = ({ spec }: IstioVaultCA): Unfit => ({
  unfit: {
    reason: 'ControlPlaneNotFound',
    message: `spec.controlPlane: ${spec.controlPlane.name} is being deleted; it is configured as soon as it comes anew`,
  },
});

/** Only a Tetrate ControlPlane holds several revisions. */
const targetKeys = (object: unknown): string[] =>
  dig(object, 'spec', 'controlPlane', 'kind') === 'TetrateControlPlane'
    ? ['kind', 'name', 'revision']
    : ['kind', 'name'];

/** Resources that name the same control plane and revision, oldest first. */
function competitors(resource: IstioVaultCA, others: JsonObject[]): string[] {
  const target = (object: unknown) =>
    targetKeys(object)
      .map((key) => str(dig(object, 'spec', 'controlPlane', key)) || 'default')
      .join('/');
  const ours = target(resource);
  return (
    others
      // one that is being deleted owns its control plane until it is gone
      .filter((other) => target(other) === ours)
      .map((other) => [
        str(dig(other, 'metadata', 'creationTimestamp')),
        str(dig(other, 'metadata', 'uid')),
        str(dig(other, 'metadata', 'name')),
      ])
      .sort((a, b) => (a.join() < b.join() ? -1 : 1))
      .map(([, , name = '']) => name)
  );
}

/** The annotation decides while the resource it names lives and names this control plane; else the oldest. */
function ownerOf(
  resource: IstioVaultCA,
  others: JsonObject[],
  claimed: string | undefined,
): ObservedKubernetes['ownerIs'] {
  const names = competitors(resource, others);
  const { name } = resource.metadata;
  const owner = claimed !== undefined && names.includes(claimed) ? claimed : (names[0] ?? name);
  return owner === name ? 'us' : { name: owner };
}

function otherRevisions(found: Surroundings['deployments'], ours: string[]): string[] {
  const revisions = found === 'unreadable' ? [] : found.map(({ revision }) => revision);
  return [...new Set(revisions)].filter((revision) => !ours.includes(revision)).sort();
}

function evaluateIstiod(
  found: IstiodDeployment[] | 'unreadable',
): Pick<ObservedKubernetes, 'istiodServiceAccounts' | 'maxWorkloadCertTtlMs'> {
  if (found === 'unreadable') return { istiodServiceAccounts: 'unreadable', maxWorkloadCertTtlMs: 'unknown' };
  return {
    istiodServiceAccounts: [...new Set(found.map(({ serviceAccount }) => serviceAccount))],
    maxWorkloadCertTtlMs: found.length > 0 ? Math.max(...found.map((one) => one.maxWorkloadCertTtlMs)) : 'unknown',
  };
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

/** What tells clusters apart: the uid of namespace kube-system. @throws KubeError, Error */
export async function clusterUid(kube: Pick<KubeClient, 'getObject'>): Promise<string> {
  const uid = dig(await kube.getObject(namespaces, undefined, 'kube-system'), 'metadata', 'uid');
  if (typeof uid !== 'string') throw new Error('namespace kube-system cannot be read: its uid tells clusters apart');
  return uid;
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
    .flatMap((configuration) => items(configuration['webhooks']))
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
