/**
 * Observes the cluster: the control plane, competing IstioVaultCAs, istiod's Deployments, the distributed roots, and Vault Agent Injector.
 */
import { agentAnnotations } from '../api/injectors.ts';
import { dig, isObject, items, str, type JsonObject } from '../api/json.ts';
import type { IstioVaultCA } from '../api/schema.ts';
import { group, plural, version } from '../api/schema.ts';
import { type ControlPlaneAdapter, type Target } from '../control-planes/adapter.ts';
import { KubeError, unless } from '../kube/errors.ts';
import type { KubeClient } from '../kube/client.ts';
import { dumpYaml } from '../runtime/yaml.ts';
import { bundleFacts, type CertificateFacts } from '../plan/facts/certificate.ts';
import type { IstiodFields } from '../plan/control-plane/istiod-fields.ts';
import { crlFile, kvDataPath } from '../plan/facts/ca-files.ts';
import { listsIn } from '../plan/facts/revocation-list.ts';
import type { ObservedKubernetes, Unfit } from '../plan/facts/observed.ts';
import type { IstiodDeployment } from '../plan/facts/observed-istiod.ts';
import { hasEnded, istiodDeployments, istiodLabel, ownedBy } from '../istiod/discover.ts';
import { placesOf, readTrustBundle } from '../istiod/mesh-bundles.ts';
import type { IstiodValues, TrustPlace } from '../plan/facts/trust-places.ts';
import { evaluateInjectors, readInjectors, type InjectorWebhook, type PodLabels } from './observe-injector.ts';
import { kindOfControlPlane } from '../plan/control-plane/kinds.ts';

const namespaces = { group: '', version: 'v1', plural: 'namespaces' };
export const configMaps = { group: '', version: 'v1', plural: 'configmaps' };
export const deployments = { group: 'apps', version: 'v1', plural: 'deployments' };
export const pods = { group: '', version: 'v1', plural: 'pods' };
const replicaSets = { group: 'apps', version: 'v1', plural: 'replicasets' };
export const resources = { group, version, plural };

export type ClusterReader = Pick<KubeClient, 'getObject' | 'listObjects' | 'isServed'>;

/** Objects that are read once per reconcile. */
export interface Surroundings {
  /** All IstioVaultCAs of the namespace, including this one. */
  others: JsonObject[];
  /** istiod's Deployments of all revisions; `unreadable`: the operator cannot list Deployments. */
  deployments: IstiodDeployment[] | 'unreadable';
  /** Objects that the adapter reads besides the control plane object; `undefined`: the operator cannot list them. */
  relatives: JsonObject[] | undefined;
  /** Webhooks of agent injectors. */
  injectors: InjectorWebhook[];
}

/** Objects that decide whether the operator writes. */
export interface Gates {
  controlPlane: JsonObject | undefined;
  /** The API server serves the type of the control plane object. */
  controlPlaneServed: boolean;
  /** What the control plane object says of its istiod. */
  istiodValues: IstiodValues;
  meshRoots: ObservedKubernetes['meshRoots'];
  /** Where they were read; undefined: the place is not known. */
  meshRootsPlace: TrustPlace | undefined;
  meshLists: ObservedKubernetes['meshLists'];
}

/** Reads the objects that are read once per reconcile. @throws KubeError of the first read that failed */
export async function readSurroundings(
  kube: ClusterReader,
  { metadata }: IstioVaultCA,
  adapter: ControlPlaneAdapter,
): Promise<Surroundings> {
  const { namespace } = metadata;
  const [others, deployed, relatives, injectors] = await Promise.all([
    kube.listObjects(resources, namespace),
    unless('Forbidden', kube.listObjects(deployments, namespace, istiodLabel)),
    readRelatives(kube, adapter, namespace),
    readInjectors(kube, namespace),
  ]);
  return { others: others, deployments: deployed ? istiodDeployments(deployed) : 'unreadable', relatives, injectors };
}

/**
 * Reads the objects that the adapter reads besides the control plane object; empty if the API server does not serve their type.
 * @throws KubeError
 */
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

/** Reads the objects that decide whether the operator writes. @throws KubeError of the first read that failed */
export async function readGates(
  kube: ClusterReader,
  resource: IstioVaultCA,
  surroundings: Surroundings,
  adapter: ControlPlaneAdapter,
): Promise<Gates> {
  const { metadata, spec } = resource;
  const { namespace } = metadata;
  const of = adapter.clusterScoped ? undefined : namespace;
  const controlPlane = await kube.getObject(adapter.gvr, of, spec.controlPlane.name);
  const target = targetOf(resource, surroundings, { controlPlane });
  const istiodValues = adapter.istiodValues(target);
  const [meshRootsPlace] = placesOfMesh(target, adapter, istiodValues);
  const [controlPlaneServed, meshRoots, meshLists] = await Promise.all([
    controlPlane !== undefined || kube.isServed(adapter.gvr),
    readMeshRoots(kube, namespace, meshRootsPlace),
    spec.delivery.crl ? readMeshLists(kube, namespace) : undefined,
  ]);
  return { controlPlane, controlPlaneServed, istiodValues, meshRoots, meshRootsPlace, meshLists };
}

/** Returns where istiod of this control plane publishes, or will publish, the roots that workloads trust. */
function placesOfMesh(target: Target, adapter: ControlPlaneAdapter, values: IstiodValues): TrustPlace[] {
  const revisions = adapter.revisions(target);
  const own = (target.deployments ?? []).filter(({ revision }) => revisions.includes(revision));
  return placesOf(own, values).known;
}

/** Returns the roots that istiod publishes for a namespace; undefined: none, or they may not be read, which the check of the mesh reports. */
async function readMeshRoots(
  kube: ClusterReader,
  namespace: string,
  place: TrustPlace | undefined,
): Promise<CertificateFacts[] | undefined> {
  if (!place) return undefined;
  if (place.kind === 'ClusterTrustBundle') {
    const bundle = await unless('Forbidden', readTrustBundle(kube));
    return bundle && bundleFacts(str(dig(bundle, 'spec', 'trustBundle')));
  }
  const configMap = await kube.getObject(configMaps, namespace, place.name);
  return configMap && bundleFacts(str(dig(configMap, 'data', 'root-cert.pem')));
}

/** The name of the ConfigMap with revocation lists, unless istiod (1.31 and later) has another in `PILOT_CRL_CONFIGMAP`. */
const listsConfigMap = 'istio-ca-crl';

/** Returns the revocation lists that istiod publishes for a namespace; undefined: the ConfigMap does not exist. */
async function readMeshLists(kube: ClusterReader, namespace: string): Promise<ObservedKubernetes['meshLists']> {
  const configMap = await kube.getObject(configMaps, namespace, listsConfigMap);
  return configMap && { name: listsConfigMap, lists: listsIn(str(dig(configMap, 'data', crlFile))) };
}

/** Returns the input of the control plane adapter. */
export function targetOf(
  { metadata, spec }: IstioVaultCA,
  { deployments: deployed, relatives }: Surroundings,
  { controlPlane }: Pick<Gates, 'controlPlane'>,
): Target {
  return {
    object: controlPlane,
    namespace: metadata.namespace,
    spec: spec.controlPlane,
    relatives,
    deployments: deployed === 'unreadable' ? undefined : deployed,
  };
}

/**
 * Evaluates what was read against the desired fields.
 * @param render the ConfigMap that shows the fields to commit; undefined: there is none
 */
export function evaluateKubernetes(
  surroundings: Surroundings,
  { controlPlane, controlPlaneServed, istiodValues, meshRoots, meshRootsPlace, meshLists }: Gates,
  render: JsonObject | undefined,
  resource: IstioVaultCA,
  adapter: ControlPlaneAdapter,
  fields: IstiodFields,
): Omit<
  ObservedKubernetes,
  'kubernetesCa' | 'reviewerHash' | 'tokenIssuer' | 'goneOwners' | 'istiodUses' | 'istiod' | 'mesh'
> {
  const target = targetOf(resource, surroundings, { controlPlane });
  const evaluated = isBeingDeleted(controlPlane)
    ? beingDeleted(resource)
    : controlPlane || adapter.makesIt
      ? adapter.look(target, fields)
      : undefined;
  const revisions = adapter.revisions(target);
  const [facts, unfit] = evaluated && 'unfit' in evaluated ? [undefined, evaluated.unfit] : [evaluated, undefined];
  const matching =
    surroundings.deployments === 'unreadable' || surroundings.relatives === undefined
      ? 'unreadable'
      : surroundings.deployments.filter(({ revision }) => revisions.includes(revision));
  return {
    controlPlane: facts,
    ...(unfit ? { controlPlaneUnfit: unfit } : {}),
    controlPlaneServed,
    rendered: renderedOf(render, resource, () => adapter.render(target, fields)),
    ownerIs: ownerOf(resource, surroundings.others, facts?.owner ?? unfit?.owner),
    ...evaluateIstiod(matching, istiodValues),
    otherRevisions: otherRevisions(surroundings.deployments, revisions),
    meshRoots,
    meshRootsPlace,
    ...(meshLists ? { meshLists } : {}),
    injector: evaluateInjectors(surroundings.injectors, podLabels(matching, revisions, istiodValues)),
  };
}

/**
 * Returns the ConfigMap that shows the fields to commit. An owner reference deletes it with the resource, because it is not part of the
 * control plane.
 * @param rendered the fields, as a part of the control plane object or as Helm values
 */
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

/** Key in that ConfigMap: the name of the file that the user commits. */
const renderFile = (spec: IstioVaultCA['spec']): string => kindOfControlPlane(spec).renderFile;

/** Evaluates the ConfigMap that shows the fields to commit. */
function renderedOf(
  configMap: JsonObject | undefined,
  { metadata, spec }: IstioVaultCA,
  render: () => JsonObject,
): ObservedKubernetes['rendered'] {
  if (!configMap) return 'none';
  const owned = items(dig(configMap, 'metadata', 'ownerReferences')).some((ref) => dig(ref, 'uid') === metadata.uid);
  if (!owned) return 'foreign';
  return dig(configMap, 'data', renderFile(spec)) === dumpYaml(render()) ? 'current' : 'other';
}

/** A control plane object that is being deleted counts as missing. */
const isBeingDeleted = (object: JsonObject | undefined): boolean =>
  dig(object, 'metadata', 'deletionTimestamp') !== undefined;

const beingDeleted = ({ spec }: IstioVaultCA): Unfit => ({
  unfit: {
    reason: 'ControlPlaneNotFound',
    message: `spec.controlPlane: ${spec.controlPlane.name} is being deleted; it is configured as soon as it comes anew`,
  },
});

/** Fields of `spec.controlPlane` that identify the target. Only a Tetrate ControlPlane contains several revisions. */
const targetKeys = (object: unknown): string[] =>
  dig(object, 'spec', 'controlPlane', 'kind') === 'TetrateControlPlane'
    ? ['kind', 'name', 'revision']
    : ['kind', 'name'];

/** Returns the names of the IstioVaultCAs, including this one, that name the same control plane and revision; oldest first. */
function competitors(resource: IstioVaultCA, others: JsonObject[]): string[] {
  const target = (object: unknown) =>
    targetKeys(object)
      .map((key) => str(dig(object, 'spec', 'controlPlane', key)) || 'default')
      .join('/');
  const ownTarget = target(resource);
  return (
    others
      // an IstioVaultCA that is being deleted owns its control plane until it is removed
      .filter((other) => target(other) === ownTarget)
      .map((other) => [
        str(dig(other, 'metadata', 'creationTimestamp')),
        str(dig(other, 'metadata', 'uid')),
        str(dig(other, 'metadata', 'name')),
      ])
      .sort((a, b) => (a.join() < b.join() ? -1 : 1))
      .map(([, , name = '']) => name)
  );
}

/**
 * Returns which IstioVaultCA owns the control plane. The owner annotation decides if the resource that it names exists and names this
 * control plane. Otherwise the oldest competitor owns it.
 * @param claimed name in the owner annotation; `undefined`: none
 */
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

/** Returns the revisions of istiod in the namespace that do not belong to this control plane. */
function otherRevisions(istiods: Surroundings['deployments'], own: string[]): string[] {
  const revisions = istiods === 'unreadable' ? [] : istiods.map(({ revision }) => revision);
  return [...new Set(revisions)].filter((revision) => !own.includes(revision)).sort();
}

/**
 * Evaluates istiod by its Deployments, and by what the control plane object says: a Deployment shows its environment, and not whether workloads
 * use a remote istiod instead.
 */
function evaluateIstiod(
  istiods: IstiodDeployment[] | 'unreadable',
  values: IstiodValues,
): Pick<ObservedKubernetes, 'istiodServiceAccounts' | 'maxWorkloadCertTtlMs' | 'signsNothing'> {
  const known = istiods === 'unreadable' ? [] : istiods;
  const deployed = known.flatMap((istiod) => istiod.signsNothing ?? [])[0];
  const setting = deployed ?? values.localInjector ?? (known.length === 0 ? values.signsNothing : undefined);
  return {
    istiodServiceAccounts:
      istiods === 'unreadable' ? istiods : [...new Set(istiods.map(({ serviceAccount }) => serviceAccount))],
    maxWorkloadCertTtlMs: known.length > 0 ? Math.max(...known.map((one) => one.maxWorkloadCertTtlMs)) : 'unknown',
    ...(setting === undefined ? {} : { signsNothing: setting }),
  };
}

/**
 * Returns the labels of istiod's Pods: those in its Deployments, else those that Istio's chart sets and those that the control plane object adds.
 * Source: https://github.com/istio/istio, manifests/charts/istio-control/istio-discovery/templates/deployment.yaml
 */
function podLabels(istiods: IstiodDeployment[] | 'unreadable', revisions: string[], values: IstiodValues): PodLabels[] {
  if (istiods !== 'unreadable' && istiods.length > 0)
    return istiods.map(({ podLabels: labels }) => ({ labels, complete: true }));
  return revisions.map((revision) => ({
    labels: { app: 'istiod', 'istio.io/rev': revision, 'sidecar.istio.io/inject': 'false', ...values.podLabels },
    complete: false,
  }));
}

/** The annotation of istiod's Pods that names the KV path of the CA key. */
const keyAnnotation = 'vault.hashicorp.com/agent-inject-secret-ca-key.pem';

/**
 * Returns Deployments and Pods of istiod that use the CA of this resource, as `Kind name`: those that carry its fields, and Pods whose
 * ReplicaSet does, because an injector can change the annotations of a Pod. Pods that have succeeded or failed do not count.
 * @throws KubeError
 */
export async function readUses(kube: ClusterReader, { metadata, spec }: IstioVaultCA): Promise<string[]> {
  const path = kvDataPath(spec);
  const uses = (meta: unknown) => {
    const all = dig(meta, 'annotations');
    const annotations = agentAnnotations(isObject(all) ? all : {});
    return annotations[keyAnnotation] === path && annotations['vault.hashicorp.com/role'] === spec.kubernetesAuth.role;
  };
  const ofTemplate = (object: JsonObject) => uses(dig(object, 'spec', 'template', 'metadata'));
  const [deployed, sets, running] = await Promise.all([
    kube.listObjects(deployments, metadata.namespace, istiodLabel),
    kube.listObjects(replicaSets, metadata.namespace, istiodLabel),
    kube.listObjects(pods, metadata.namespace, istiodLabel),
  ]);
  const named = (kind: string, object: JsonObject) => `${kind} ${str(dig(object, 'metadata', 'name'))}`;
  const using = sets.filter(ofTemplate);
  return [
    ...deployed.filter(ofTemplate).map((o) => named('Deployment', o)),
    ...running
      .filter((pod) => !hasEnded(pod))
      .filter((pod) => uses(dig(pod, 'metadata')) || using.some((set) => ownedBy(pod, set)))
      .map((pod) => named('pod', pod)),
  ];
}

/**
 * Returns which of these IstioVaultCAs, given as `namespace/name`, do not exist. A resource that the operator cannot read counts as existing.
 * @throws KubeError
 */
export async function goneResources(kube: ClusterReader, names: string[]): Promise<string[]> {
  const missing = await Promise.all(
    names.map(async (key) => {
      const [namespace = '', name = ''] = key.split('/');
      const object = await kube.getObject(resources, namespace, name).catch((error: unknown) => {
        if (error instanceof KubeError && error.kind === 'Forbidden') return 'unreadable';
        throw error;
      });
      return object === undefined ? [key] : [];
    }),
  );
  return missing.flat();
}

/** Returns the UID of namespace kube-system, which identifies the cluster. @throws KubeError, or Error if the namespace cannot be read */
export async function clusterUid(kube: Pick<KubeClient, 'getObject'>): Promise<string> {
  const uid = dig(await kube.getObject(namespaces, undefined, 'kube-system'), 'metadata', 'uid');
  if (typeof uid !== 'string') throw new Error('namespace kube-system cannot be read: its uid tells clusters apart');
  return uid;
}

/** Returns whether a namespace, and so every object in it, is being deleted. @throws KubeError */
export async function isTerminating(kube: ClusterReader, namespace: string): Promise<boolean> {
  const object = await kube.getObject(namespaces, undefined, namespace);
  return dig(object, 'metadata', 'deletionTimestamp') !== undefined;
}
