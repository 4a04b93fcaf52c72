/**
 * CRDs of control planes, composed from their public documentation, as far as the operator's fields go: an IstioOperator's spec is open,
 * in an Istio's values the maps of env and annotations have a type, and so each key has an owner of its own.
 */
import { dig, str } from '../../src/api/json.ts';
import { waitFor } from '../stack/index.ts';
import { applyOk, type Json, type Kube } from './cluster.ts';

const open = { type: 'object', 'x-kubernetes-preserve-unknown-fields': true } as const;
const texts = { type: 'object', additionalProperties: { type: 'string' } } as const;

interface Named {
  group: string;
  version: string;
  kind: string;
  plural: string;
  scope: 'Namespaced' | 'Cluster';
}

const crd = ({ group, version, kind, plural, scope }: Named, spec: Json): Json => ({
  apiVersion: 'apiextensions.k8s.io/v1',
  kind: 'CustomResourceDefinition',
  metadata: { name: `${plural}.${group}` },
  spec: {
    group,
    scope,
    names: { plural, singular: kind.toLowerCase(), kind, listKind: `${kind}List` },
    versions: [
      {
        name: version,
        served: true,
        storage: true,
        subresources: { status: {} },
        schema: { openAPIV3Schema: { type: 'object', properties: { spec, status: open } } },
      },
    ],
  },
});

/** The status that the Sail operator writes to a reconciled Istio. */
export const sailStatus = (activeRevisionName: string): Json => ({
  activeRevisionName,
  conditions: [{ type: 'Reconciled', status: 'True', reason: 'Reconciled' }],
});

/** A resource type of a GitOps tool, with any content. */
export const openCrd = (named: Named): Json => crd(named, open);

const pilot = { ...open, properties: { env: texts, podAnnotations: texts } };

export const istioOperatorCrd = crd(
  {
    group: 'install.istio.io',
    version: 'v1alpha1',
    kind: 'IstioOperator',
    plural: 'istiooperators',
    scope: 'Namespaced',
  },
  open,
);

export const sailCrds: readonly Json[] = [
  crd(
    { group: 'sailoperator.io', version: 'v1', kind: 'Istio', plural: 'istios', scope: 'Cluster' },
    { ...open, properties: { namespace: { type: 'string' }, values: { ...open, properties: { pilot } } } },
  ),
  crd(
    { group: 'sailoperator.io', version: 'v1', kind: 'IstioRevision', plural: 'istiorevisions', scope: 'Cluster' },
    open,
  ),
];

/** Applies CRDs, and waits until the API server serves each of their types. */
export async function serveCrds(kube: Kube, crds: Json[]): Promise<void> {
  for (const crd of crds) await applyOk(kube, crd);
  for (const crd of crds) {
    const [version] = dig(crd, 'spec', 'versions') as [Json];
    const path = [dig(crd, 'spec', 'group'), version['name'], dig(crd, 'spec', 'names', 'plural')].map(str).join('/');
    await waitFor(`${path} to be served`, async () => (await kube.request('GET', `/apis/${path}`)).status === 200);
  }
}
