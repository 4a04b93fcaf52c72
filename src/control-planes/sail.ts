/**
 * An `Istio` of the Sail operator (OpenShift Service Mesh 3). It is cluster-scoped and configures istiod in one namespace.
 * https://github.com/istio-ecosystem/sail-operator, docs/api-reference/sailoperator.io.md
 */
import { dig, items, str, type JsonObject } from '../api/json.ts';
import { controlPlaneKinds } from '../plan/control-plane/kinds.ts';
import { type Target } from './adapter.ts';
import { appliedAdapter, leavesUnder } from './applied.ts';

const pilot = ['spec', 'values', 'pilot'];

/** Rejects an Istio of another namespace: a resource configures only the control plane of its own namespace. */
function unfit({ object, spec, namespace }: Target): string | undefined {
  const actual = str(dig(object, 'spec', 'namespace')) || 'istio-system';
  if (actual === namespace) return undefined;
  return `spec.controlPlane: Istio ${spec.name} is for namespace ${actual} (its spec.namespace), and a resource configures the control plane of its own namespace only, which is ${namespace}; create this resource in ${actual}`;
}

/**
 * The revisions of istiod: the names of the IstioRevisions that the Istio owns, and of the active one. The IstioRevision `default` is an istiod
 * without a revision, whose label has the value `default` too. With update strategy `InPlace` there is one IstioRevision, with the name of the
 * Istio.
 */
function revisions({ object, spec, relatives }: Target): string[] {
  const uid = dig(object, 'metadata', 'uid');
  const owned = (relatives ?? [])
    .filter((revision) =>
      items(dig(revision, 'metadata', 'ownerReferences')).some(
        (owner) => uid !== undefined && dig(owner, 'uid') === uid,
      ),
    )
    .map((revision) => str(dig(revision, 'metadata', 'name')));
  const active = str(dig(object, 'status', 'activeRevisionName'));
  return [...new Set([...owned, active === '' ? spec.name : active])].sort();
}

/**
 * The revisions that are not active. With update strategy `RevisionBased`, the Sail operator updates only the active revision; older ones keep
 * their values until they are deleted.
 */
function leftBehind(target: Target): string[] {
  const active = str(dig(target.object, 'status', 'activeRevisionName'));
  return active === '' ? [] : revisions(target).filter((revision) => revision !== active);
}

function unreconciled(object: JsonObject): string | undefined {
  const name = str(dig(object, 'metadata', 'name'));
  const conditions = items(dig(object, 'status', 'conditions'));
  if (conditions.length === 0)
    return `Istio ${name} has no status: nothing reconciles it, so what it says does not reach istiod; see whether the Sail operator runs`;
  const reconciled = conditions.find((condition) => dig(condition, 'type') === 'Reconciled');
  if (dig(reconciled, 'status') !== 'False') return undefined;
  return `the Sail operator cannot reconcile Istio ${name} (${str(dig(reconciled, 'reason'))}): \`kubectl describe istio ${name}\` says why`;
}

export const sail = appliedAdapter({
  row: controlPlaneKinds.Sail,
  type: { version: 'v1', plural: 'istios' },
  makesIt: false,
  relatives: { group: controlPlaneKinds.Sail.group, version: 'v1', plural: 'istiorevisions' },
  revisions,
  settings: {
    values: ['spec', 'values'],
    envList: undefined,
    meshConfig: ['spec', 'values', 'meshConfig'],
  },
  leaves: (fields) =>
    leavesUnder(fields, [...pilot, 'env'], [...pilot, 'podAnnotations'], ['spec', 'values', 'meshConfig']),
  unfit,
  unreconciled,
  leftBehind,
});
