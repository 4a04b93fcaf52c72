/**
 * Reads the DaemonSets of ztunnel, the node proxy of an ambient mesh. Component `ambient` of the deployment grants the rights.
 * Source: https://github.com/istio/istio, manifests/charts/ztunnel
 */
import { dig, items, str, type JsonObject } from '../api/json.ts';
import { permissionOn } from '../api/permissions.ts';
import { unless } from '../kube/errors.ts';
import type { KubeClient } from '../kube/client.ts';
import type { ObservedIstiod, Ztunnel } from '../plan/facts/observed-istiod.ts';
import { hasEnded, num, ownedBy, time, variableIn, versionsOf } from './discover.ts';

const daemonSets = { group: 'apps', version: 'v1', plural: 'daemonsets' };
const pods = { group: '', version: 'v1', plural: 'pods' };

/** Label of ztunnel's Pods, by which its DaemonSet selects them. The DaemonSet itself has no label that all versions of the chart set. */
const [label, value] = ['app', 'ztunnel'];

/** The variables with the address of istiod; the first counts for what ztunnel is told, the second for its certificates. */
const addressNames = ['XDS_ADDRESS', 'CA_ADDRESS'];

const namespaceOf = (daemonSet: JsonObject): string => str(dig(daemonSet, 'metadata', 'namespace'));

/** Items of `env` of its containers. */
const environmentOf = (daemonSet: unknown): unknown[] =>
  items(dig(daemonSet, 'spec', 'template', 'spec', 'containers')).flatMap((container) => items(dig(container, 'env')));

/**
 * Returns the namespace of the istiod that a DaemonSet connects to; undefined: its address is not that of a Service in a namespace, or not
 * known.
 */
function namespaceOfIstiod(daemonSet: unknown): string | undefined {
  const addresses = addressNames.map((name) => variableIn(environmentOf(daemonSet), name) ?? '');
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
  const isTrusted = accounts?.includes(`${namespaceOf(daemonSet)}/${name}`) ?? true;
  if (dig(template, 'metadata', 'labels', label) !== value || !isTrusted) return false;
  return (namespaceOfIstiod(daemonSet) ?? namespace) === namespace;
}

/** Source: https://github.com/istio/ztunnel/pull/1801 */
function watchesNoRoots(daemonSet: JsonObject): boolean {
  const watcher = variableIn(environmentOf(daemonSet), 'CA_CERT_WATCHER');
  return watcher !== undefined && watcher !== 'true';
}

/** Returns how far a rollout is. Source: https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/daemon-set-v1/ */
function rolloutOf(daemonSet: JsonObject): Pick<Ztunnel, 'outdated' | 'unfinished'> {
  const status = (name: string) => num(dig(daemonSet, 'status', name));
  const [desired, updated] = [status('desiredNumberScheduled'), status('updatedNumberScheduled')];
  if (status('observedGeneration') < num(dig(daemonSet, 'metadata', 'generation')))
    return { outdated: true, unfinished: 'its controller has not seen the newest template yet' };
  if (updated < desired) return { outdated: true, unfinished: 'pods of an older template are still there' };
  return {
    outdated: updated < status('currentNumberScheduled'),
    unfinished: status('numberAvailable') < desired ? 'not every pod is available' : undefined,
  };
}

/** Orders versions, whose numbers count as numbers. */
const byVersion = new Intl.Collator('en', { numeric: true });

function factsOf(daemonSet: JsonObject, candidates: readonly JsonObject[]): Ztunnel {
  const [oldestPod] = candidates
    .filter((pod) => ownedBy(pod, daemonSet) && !hasEnded(pod))
    .map((pod) => ({
      name: str(dig(pod, 'metadata', 'name')),
      createdMs: time(dig(pod, 'metadata', 'creationTimestamp')),
    }))
    .sort((a, b) => a.createdMs - b.createdMs || (a.name < b.name ? -1 : 1));
  return {
    namespace: namespaceOf(daemonSet),
    name: str(dig(daemonSet, 'metadata', 'name')),
    version: versionsOf(daemonSet).sort(byVersion.compare)[0] ?? '',
    ...rolloutOf(daemonSet),
    watchesNoRoots: watchesNoRoots(daemonSet),
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
  for (const where of new Set(own.map(namespaceOf))) {
    const candidates = await unless('Forbidden', kube.listObjects(pods, where, `${label}=${value}`, { signal }));
    if (!candidates) return { lacking: permissionOn('list', pods, where) };
    const here = own.filter((daemonSet) => namespaceOf(daemonSet) === where);
    found.push(...here.map((daemonSet) => factsOf(daemonSet, candidates)));
  }
  return found;
}
