/** The adapters by `spec.controlPlane.kind`. */
import type { Spec } from '../api/schema.ts';
import type { ControlPlaneAdapter } from './adapter.ts';
import { helmValues } from './helm-values.ts';
import { istioOperator } from './istio-operator.ts';
import { sail } from './sail.ts';
import { tetrate } from './tetrate.ts';

type Kind = Spec['controlPlane']['kind'];

export const adapters: Readonly<Record<Kind, ControlPlaneAdapter>> = {
  TetrateControlPlane: tetrate,
  IstioOperator: istioOperator,
  Sail: sail,
  HelmValues: helmValues,
};
