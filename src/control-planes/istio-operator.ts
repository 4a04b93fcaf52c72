/**
 * An IstioOperator that an operator in the cluster reconciles: that of Istio up to 1.23, or a fork. Istio 1.24 and later has no such operator,
 * and `istioctl install` reads an IstioOperator only from a file.
 * https://istio.io/latest/blog/2024/in-cluster-operator-deprecation-announcement/
 */
import { dig, items, str, type JsonObject } from '../api/json.ts';
import type { IstiodFields } from '../plan/control-plane/istiod-fields.ts';
import { controlPlaneKinds } from '../plan/control-plane/kinds.ts';
import { annotationOf, formatValue, type Target } from './adapter.ts';
import { appliedAdapter, leavesUnder } from './applied.ts';
import { istioOperatorPaths } from './istiod-values.ts';

const env = ['spec', 'values', 'pilot', 'env'];

/** The fields that Istio prefers to `spec.values.pilot.env`, with another value. If a list has a name twice, the last item applies. */
function shadows(object: JsonObject, fields: IstiodFields): { place: string; value: string }[] {
  const listed = ['spec', 'components', 'pilot', 'k8s', 'env'];
  const unvalidated = ['spec', 'unvalidatedValues', 'pilot', 'env'];
  return Object.entries(fields.env).flatMap(([name, value]) => {
    const item = items(dig(object, ...listed)).findLast((variable) => dig(variable, 'name') === name);
    const other = dig(object, ...unvalidated, name);
    return [
      ...(item !== undefined && dig(item, 'value') !== value
        ? [{ place: `${listed.join('.')}[name:${name}]`, value: formatValue(dig(item, 'value') ?? item) }]
        : []),
      ...(other !== undefined && other !== value
        ? [{ place: `${unvalidated.join('.')}.${name}`, value: formatValue(other) }]
        : []),
    ];
  });
}

/**
 * Rejects IstioOperators of Tetrate Service Bridge (TSB), which TSB restores from its ControlPlane. Rejects other revisions, because their
 * istiod has another service account.
 */
function unfit({ object, spec }: Target): string | undefined {
  const owners = items(dig(object, 'metadata', 'ownerReferences')).map((owner) => dig(owner, 'kind'));
  if (owners.includes('ControlPlane') || /^(tsb-istiocontrolplane|xcp-iop-.*)$/.test(spec.name))
    return `spec.controlPlane: IstioOperator ${spec.name} is rendered by Tetrate Service Bridge, which would take the fields back; name its ControlPlane instead (kind: TetrateControlPlane)`;
  const actual = str(dig(object, 'spec', 'revision')) || 'default';
  const wanted = spec.revision ?? 'default';
  if (actual === wanted) return undefined;
  return `spec.controlPlane.revision: IstioOperator ${spec.name} is for revision ${actual}, and this resource for ${wanted}; create it anew with the same revision`;
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
  row: controlPlaneKinds.IstioOperator,
  type: { version: 'v1alpha1', plural: 'istiooperators' },
  makesIt: false,
  relatives: undefined,
  revisions: ({ spec }) => [spec.revision ?? 'default'],
  settings: istioOperatorPaths,
  leaves: (fields) =>
    leavesUnder(fields, env, ['spec', 'components', 'pilot', 'k8s', 'podAnnotations'], ['spec', 'meshConfig']),
  unfit,
  shadows,
  unreconciled,
});
