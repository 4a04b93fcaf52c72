/**
 * Reads the DaemonSets of ztunnel, the node proxy of an ambient mesh. Component `ambient` of the deployment grants the rights.
 * Source: https://github.com/istio/istio, manifests/charts/ztunnel
 */
import { dig, items, str, type JsonObject } from '../api/json.ts';
import { permissionOn } from '../api/permissions.ts';
import { unless } from '../kube/errors.ts';
import type { KubeClient } from '../kube/client.ts';
import type { ObservedIstiod, Ztunnel } from '../plan/facts/observed-istiod.ts';
import { olderThan } from '../plan/proof/replica.ts';
import { hasEnded, num, ownedBy, time, versionsOf } from './discover.ts';

const daemonSets = { group: 'apps', version: 'v1', plural: 'daemonsets' };
const pods = { group: '', version: 'v1', plural: 'pods' };

/** Label of ztunnel's Pods, by which its DaemonSet selects them. The DaemonSet itself has no label that all versions of the chart set. */
const [label, value] = ['app', 'ztunnel'];

/** The variables with the address of istiod; the first counts for what ztunnel is told, the second for its certificates. */
const addressNames = ['XDS_ADDRESS', 'CA_ADDRESS'];

/** Items of `env` of its containers. */
const environmentOf = (daemonSet: unknown): unknown[] =>
  items(dig(daemonSet, 'spec', 'template', 'spec', 'containers')).flatMap((container) => items(dig(container, 'env')));

/**
 * Returns the namespace of the istiod that a DaemonSet connects to; undefined: its address is not that of a Service in a namespace, or not
 * known.
 */
function namespaceOfIstiod(daemonSet: unknown): string | undefined {
  const variables = environmentOf(daemonSet);
  const addresses = addressNames.map((name) =>
    str(
      dig(
        variables.findLast((one) => dig(one, 'name') === name),
        'value',
      ),
    ),
  );
  const [namespace] = addresses.flatMap((text) => /^(?:https?:\/\/)?[^.:/]+\.([^.:/]+)\.svc\b/.exec(text)?.[1] ?? []);
  return namespace;
}

/** What tells the ztunnels of a mesh from DaemonSets of others. */
export interface ZtunnelsOfMesh {
  /** Of istiod. */
  namespace: string;
  /** `namespace/name` of the service accounts that istiod trusts to request certificates for others; undefined: not known, so any can be. */
  accounts: readonly string[] | undefined;
}

/**
 * Whether a DaemonSet is a ztunnel of a mesh: istiod trusts its service account, which nobody can choose outside of the namespace of that account,
 * and its address is that of this istiod, or one that does not tell.
 */
function isOfMesh(daemonSet: JsonObject, { namespace, accounts }: ZtunnelsOfMesh): boolean {
  const template = dig(daemonSet, 'spec', 'template');
  const name = str(dig(template, 'spec', 'serviceAccountName')) || 'default';
  const isTrusted = accounts?.includes(`${str(dig(daemonSet, 'metadata', 'namespace'))}/${name}`) ?? true;
  if (dig(template, 'metadata', 'labels', label) !== value || !isTrusted) return false;
  return (namespaceOfIstiod(daemonSet) ?? namespace) === namespace;
}

/** Source: https://github.com/istio/ztunnel/pull/1801 */
function watchesNoRoots(daemonSet: JsonObject): boolean {
  const watcher = environmentOf(daemonSet).findLast((one) => dig(one, 'name') === 'CA_CERT_WATCHER');
  return watcher !== undefined && dig(watcher, 'value') !== 'true';
}

/** Pods of an older template can be there: the controller has not seen the newest one, or has not replaced all. */
function isOutdated(daemonSet: JsonObject): boolean {
  const status = (name: string) => num(dig(daemonSet, 'status', name));
  return (
    status('observedGeneration') < num(dig(daemonSet, 'metadata', 'generation')) ||
    status('updatedNumberScheduled') < status('currentNumberScheduled') ||
    status('updatedNumberScheduled') < status('desiredNumberScheduled')
  );
}

/** Returns what a rollout still waits for. Source: https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/daemon-set-v1/ */
function unfinishedOf(daemonSet: JsonObject): string | undefined {
  const status = (name: string) => num(dig(daemonSet, 'status', name));
  if (status('observedGeneration') < num(dig(daemonSet, 'metadata', 'generation')))
    return 'its controller has not seen the newest template yet';
  const desired = status('desiredNumberScheduled');
  if (status('updatedNumberScheduled') < desired) return 'pods of an older template are still there';
  if (status('numberAvailable') < desired) return 'not every pod is available';
  return undefined;
}

/** The lowest of some versions of Istio 1; empty: there is none. */
function lowest(versions: readonly string[]): string {
  const isLower = (one: string, other: string) => {
    const [minor = 0, patch = 0] = other.split('.').slice(1).map(Number);
    return olderThan(one, minor, patch);
  };
  return versions.reduce((low, version) => (low === '' || isLower(version, low) ? version : low), '');
}

function factsOf(daemonSet: JsonObject, candidates: readonly JsonObject[]): Ztunnel {
  const [oldestPod] = candidates
    .filter((pod) => ownedBy(pod, daemonSet) && !hasEnded(pod))
    .map((pod) => ({
      name: str(dig(pod, 'metadata', 'name')),
      createdMs: time(dig(pod, 'metadata', 'creationTimestamp')),
    }))
    .sort((a, b) => a.createdMs - b.createdMs || (a.name < b.name ? -1 : 1));
  return {
    namespace: str(dig(daemonSet, 'metadata', 'namespace')),
    name: str(dig(daemonSet, 'metadata', 'name')),
    version: lowest(versionsOf(daemonSet)),
    outdated: isOutdated(daemonSet),
    watchesNoRoots: watchesNoRoots(daemonSet),
    unfinished: unfinishedOf(daemonSet),
    oldestPod,
  };
}

/** At most this many DaemonSets are read; a mesh has one, or one for each kind of node. */
const mostZtunnels = 20;

/**
 * Returns the ztunnels of a mesh, or the permission that the operator lacks.
 * @throws KubeError, except for a missing right
 */
export async function readZtunnels(
  kube: Pick<KubeClient, 'listObjects'>,
  mesh: ZtunnelsOfMesh,
  signal: AbortSignal,
): Promise<NonNullable<ObservedIstiod['ztunnels']>> {
  const all = await unless('Forbidden', kube.listObjects(daemonSets, undefined, undefined, { signal }));
  if (!all) return { lacking: permissionOn('list', daemonSets, undefined) };
  const own = all.filter((daemonSet) => isOfMesh(daemonSet, mesh)).slice(0, mostZtunnels);
  const found: Ztunnel[] = [];
  for (const daemonSet of own) {
    const where = str(dig(daemonSet, 'metadata', 'namespace'));
    const candidates = await unless('Forbidden', kube.listObjects(pods, where, `${label}=${value}`, { signal }));
    if (!candidates) return { lacking: permissionOn('list', pods, where) };
    found.push(factsOf(daemonSet, candidates));
  }
  return found;
}
