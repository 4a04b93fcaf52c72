import { describe, expect, it } from '@jest/globals';
import { expectGolden } from '../../test/support/golden.ts';
import { specSchema, type Spec } from '../api/schema.ts';
import { loadYaml } from '../runtime/yaml.ts';
import type { Manifest } from './manifest.ts';
import { rendered } from './render.ts';

const controlPlanes: Record<Spec['controlPlane']['kind'], Partial<Spec['controlPlane']>> = {
  TetrateControlPlane: { name: 'controlplane', revision: 'canary' },
  IstioOperator: { name: 'installed-state' },
  Sail: { name: 'default' },
  HelmValues: { name: 'istiod-values' },
};

function manifest(kind: Spec['controlPlane']['kind'], over: object = {}, namespace = 'istio-system'): Manifest {
  const spec = specSchema.parse({
    vault: {
      address: 'https://vault.vault.svc:8200',
      tls: { caSecretRef: { name: 'istio-vault-ca-tls' } },
      auth: { kubernetes: { role: 'istio-vault-ca' } },
    },
    controlPlane: { kind, holdApplicationUntilProxyStarts: true, ...controlPlanes[kind] },
    ...over,
  });
  return { name: 'istioca', namespace, annotations: {}, spec };
}

describe('what is printed', () => {
  it.each(Object.keys(controlPlanes) as Spec['controlPlane']['kind'][])('for %s', (kind) => {
    const text = rendered(manifest(kind), 'ca.yaml');
    expectGolden(`render/${kind}`, {
      comments: text.split('\n').filter((line) => line.startsWith('#')),
      committed: loadYaml(text),
    });
  });

  it('has no digest, whoever writes it', () => {
    const { spec, ...rest } = manifest('HelmValues');
    const committed = { ...rest, spec: { ...spec, controlPlane: { ...spec.controlPlane, write: 'Render' as const } } };
    expect(rendered({ ...rest, spec }, 'ca.yaml')).toBe(rendered(committed, 'ca.yaml'));
    expect(rendered(committed, 'ca.yaml')).not.toContain('digest');
  });

  it('says which IstioOperator is meant where only the cluster could tell', () => {
    const of = (revision?: string) =>
      rendered(
        manifest('TetrateControlPlane', {
          controlPlane: { kind: 'TetrateControlPlane', name: 'c', ...(revision === undefined ? {} : { revision }) },
        }),
        'ca.yaml',
      );
    expect(of()).toContain('name: tsb-istiocontrolplane');
    expect(of()).toContain('# With isolation boundaries');
    expect(of('canary')).toContain('name: xcp-iop-canary');
    expect(of('canary')).not.toContain('# With isolation boundaries');
  });
});

describe('nothing is printed', () => {
  it('of a spec that no operator would carry out', () => {
    expect(() =>
      rendered(manifest('Sail', { intermediate: { manage: false }, delivery: { crl: true } }), 'ca.yaml'),
    ).toThrow(
      'ca.yaml: spec.delivery.crl with spec.intermediate.manage: false: not supported by this version; remove or change it',
    );
  });

  it('without a namespace', () => {
    expect(() => rendered({ ...manifest('Sail'), namespace: undefined }, 'ca.yaml')).toThrow(
      'ca.yaml: metadata.namespace is missing; add it, or give -n',
    );
  });
});
