/**
 * An IstioOperator that an operator in the cluster carries out (Istio up to 1.23, or a fork). Since Istio 1.24 nothing of Istio's own does:
 * `istioctl install` reads such an object from a file only. https://istio.io/latest/blog/2024/in-cluster-operator-deprecation-announcement/
 */
import { dig, items, type JsonObject } from '../api/json.ts';
import type { IstiodFields } from '../plan/control-plane/istiod-fields.ts';
import { annotationOf, show, type Target } from './adapter.ts';
import { appliedAdapter, leavesUnder } from './applied.ts';

const env = ['spec', 'values', 'pilot', 'env'];

/** Places that Istio lets win over `spec.values.pilot.env`; of a name that is listed twice the last. */
function shadows(object: JsonObject, fields: IstiodFields): { place: string; value: string }[] {
  const listed = ['spec', 'components', 'pilot', 'k8s', 'env'];
  const unvalidated = ['spec', 'unvalidatedValues', 'pilot', 'env'];
  return Object.entries(fields.env).flatMap(([name, value]) => {
    const item = items(dig(object, ...listed)).findLast((one) => dig(one, 'name') === name);
    const other = dig(object, ...unvalidated, name);
    return [
      ...(item !== undefined && dig(item, 'value') !== value
        ? [{ place: `${listed.join('.')}[name:${name}]`, value: show(dig(item, 'value') ?? item) }]
        : []),
      ...(other !== undefined && other !== value
        ? [{ place: `${unvalidated.join('.')}.${name}`, value: show(other) }]
        : []),
    ];
  });
}

/** TSB writes its IstioOperators anew from its ControlPlane; and another revision's istiod has another service account. */
function unfit({ object, spec }: Target): string | undefined {
  const owners = items(dig(object, 'metadata', 'ownerReferences')).map((owner) => dig(owner, 'kind'));
  if (owners.includes('ControlPlane') || /^(tsb-istiocontrolplane|xcp-iop-.*)$/.test(spec.name))
    return `spec.controlPlane: IstioOperator ${spec.name} is rendered by Tetrate Service Bridge, which would take the fields back; name its ControlPlane instead (kind: TetrateControlPlane)`;
  const named = dig(object, 'spec', 'revision');
  const [theirs, ours] = [typeof named === 'string' && named !== '' ? named : 'default', spec.revision ?? 'default'];
  if (theirs === ours) return undefined;
  return `spec.controlPlane.revision: IstioOperator ${spec.name} is for revision ${theirs}, and this resource for ${ours}; create it anew with the same revision`;
}

function unreconciled(object: JsonObject): string | undefined {
  const name = String(dig(object, 'metadata', 'name'));
  if (annotationOf(object, 'install.istio.io/ignoreReconcile') === 'true')
    return `IstioOperator ${name} carries the fields, and its annotation install.istio.io/ignoreReconcile=true tells its operator to leave it alone; take the annotation off`;
  const status = dig(object, 'status', 'status');
  if (status === 'ERROR')
    return `the operator of IstioOperator ${name} cannot carry it out (status ERROR): its status says why`;
  if (status !== undefined) return undefined;
  return `IstioOperator ${name} has no status: nothing reconciles it, so what it says does not reach istiod. Istio's in-cluster operator went with 1.24, and istioctl reads such an object from a file only; start that operator, or use kind: HelmValues or Sail`;
}

export const istioOperator = appliedAdapter({
  gvr: { group: 'install.istio.io', version: 'v1alpha1', plural: 'istiooperators' },
  kind: 'IstioOperator',
  clusterScoped: false,
  makesIt: false,
  relatives: undefined,
  revisions: ({ spec }) => [spec.revision ?? 'default'],
  leaves: (fields) =>
    leavesUnder(fields, env, ['spec', 'components', 'pilot', 'k8s', 'podAnnotations'], ['spec', 'meshConfig']),
  unfit,
  shadows,
  unreconciled,
});
