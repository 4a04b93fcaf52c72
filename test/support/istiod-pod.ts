/**
 * A stand-in for TSB's operator and Istio's rendering: from a ControlPlane's overlay to what istiod's pod template would carry.
 * It follows Istio's documented path grammar for the map-shaped paths that the operator writes and for the whole list and map
 * that the manual procedure writes, and knows no others.
 */
import type { Json } from './cluster.ts';

export interface PodTemplate {
  env: Record<string, string>;
  annotations: Record<string, string>;
}

interface Overlay {
  kind: string;
  name: string;
  patches?: { path: string; value: unknown }[];
}

export function overlaysOf(controlPlane: Json): Overlay[] {
  const spec = controlPlane['spec'] as { components?: { istio?: { kubeSpec?: { overlays?: Overlay[] } } } };
  return spec.components?.istio?.kubeSpec?.overlays ?? [];
}

/** Environment variables and annotations that the overlay for one IstioOperator sets, in the order of its patches. */
export function podTemplateOf(controlPlane: Json, istioOperator = 'tsb-istiocontrolplane'): PodTemplate {
  const out: PodTemplate = { env: {}, annotations: {} };
  let envList: { name: string; value: string }[] = [];
  const entry = overlaysOf(controlPlane).find((o) => o.kind === 'IstioOperator' && o.name === istioOperator);
  for (const { path, value } of entry?.patches ?? []) {
    const env = /^spec\.values\.pilot\.env\.([A-Z_]+)$/.exec(path)?.[1];
    const annotation = /^spec\.components\.pilot\.k8s\.podAnnotations\.(.+)$/.exec(path)?.[1];
    if (env !== undefined && typeof value === 'string') out.env[env] = value;
    if (annotation !== undefined && typeof value === 'string')
      out.annotations[annotation.replaceAll('\\.', '.')] = value;
    if (path === 'spec.components.pilot.k8s.podAnnotations') out.annotations = { ...(value as Record<string, string>) };
    if (path === 'spec.components.pilot.k8s.env') envList = value as typeof envList;
  }
  // Istio merges the list over the values by name, independently of the order of the patches
  for (const { name, value } of envList) out.env[name] = value;
  return out;
}
