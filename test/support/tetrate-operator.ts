/**
 * A stand-in for Tetrate's operator, which is not public: it renders Istio's own chart from what a ControlPlane's overlay
 * sets (`istiod-pod.ts`), and applies it whenever the ControlPlane changes. It knows one IstioOperator without a revision.
 */
import { renderIstiod } from '../stack/istiod-chart.ts';
import { watchObjects } from '../stack/watch.ts';
import { applyOk, type Json, type Kube } from './cluster.ts';
import { podTemplateOf, type PodTemplate } from './istiod-pod.ts';
import { merge } from './scene.ts';

export interface TetrateOperatorOptions {
  kube: Kube;
  namespace: string;
  /** Replicas of istiod; default 1. */
  replicas?: number;
  /** Additional values of the chart. */
  values?: Json;
  /** Values of istiod's Pod template that replace those of the ControlPlane, as if another client had changed the Deployment. */
  over?: Partial<PodTemplate>;
}

export interface TetrateOperator {
  /** The errors so far; empty: none. */
  log(): string;
  stop(): Promise<void>;
}

type ControlPlane = Json & { metadata: { uid: string; resourceVersion: string; namespace: string } };

/** The values of Istio's chart, in its flattened form. */
function valuesOf(
  controlPlane: Json,
  { namespace, replicas = 1, values = {}, over = {} }: TetrateOperatorOptions,
): Json {
  const { env, annotations } = podTemplateOf(controlPlane);
  const base: Json = {
    global: { istioNamespace: namespace },
    // several meshes on one API server: each is limited to its own namespace, otherwise they would overwrite each other's istio-ca-root-cert
    meshConfig: { discoverySelectors: [{ matchLabels: { 'kubernetes.io/metadata.name': namespace } }] },
    autoscaleEnabled: false,
    replicaCount: replicas,
  };
  return merge(merge(base, values), {
    env: { ...env, ...over.env },
    podAnnotations: { ...annotations, ...over.annotations },
  });
}

/** Starts the stand-in for the ControlPlane of one namespace. It prints each error once, and retries at the next change. */
export function startTetrateOperator(options: TetrateOperatorOptions): TetrateOperator {
  const { kube, namespace } = options;
  const lines: string[] = [];
  const failed = (error: unknown): void => {
    const line = error instanceof Error ? error.message : String(error);
    // a test that waits for istiod would otherwise say only that there is no Deployment
    if (!lines.includes(line)) console.error(`stand-in for Tetrate's operator in ${namespace}: ${line}`);
    lines.push(line);
  };
  let applied = '';
  let work: Promise<void> = Promise.resolve();
  const reconcile = async (controlPlane: ControlPlane): Promise<void> => {
    const values = valuesOf(controlPlane, options);
    const text = JSON.stringify(values);
    if (text === applied) return;
    for (const object of await renderIstiod({ namespace, values })) await applyOk(kube, object);
    applied = text;
  };
  const path = `/apis/install.tetrate.io/v1alpha1/namespaces/${namespace}/controlplanes`;
  const watch = watchObjects<ControlPlane>(kube, path, {
    seen: (controlPlane) => {
      work = work.then(() => reconcile(controlPlane)).catch(failed);
    },
    gone: () => undefined,
    failed,
  });
  return {
    log: () => lines.join('\n'),
    stop: async () => {
      await watch.stop();
      await work;
    },
  };
}
