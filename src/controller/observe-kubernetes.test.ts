/** Evaluation of istiod's Deployments. Tests with a real API server verify the reads. */
import { expect, it } from '@jest/globals';
import { identity, minimalSpec } from '../../test/unit/model.ts';
import { group, kind, resourceSchema, version } from '../api/schema.ts';
import { adapters } from '../control-planes/index.ts';
import { istiodDeployments } from '../istiod/discover.ts';
import { istiodFields } from '../plan/control-plane/istiod-fields.ts';
import { defaultIstiodValues } from '../plan/facts/trust-places.ts';
import { evaluateKubernetes, type Surroundings } from './observe-kubernetes.ts';

const spec = minimalSpec();
const resource = resourceSchema.parse({ apiVersion: `${group}/${version}`, kind, metadata: identity, spec });
const hour = 3_600_000;

/** The Deployment of istiod of a revision. @param ttl its `MAX_WORKLOAD_CERT_TTL`; `undefined`: not set */
function istiod(ttl?: string | object, revision = 'default') {
  const name = 'MAX_WORKLOAD_CERT_TTL';
  const env = ttl === undefined ? [] : [typeof ttl === 'string' ? { name, value: ttl } : { name, valueFrom: ttl }];
  return {
    metadata: { name: `istiod-${revision}`, labels: { 'istio.io/rev': revision } },
    spec: {
      template: { spec: { serviceAccountName: `istiod-${revision}`, containers: [{ name: 'discovery', env }] } },
    },
  };
}
const reference = { configMapKeyRef: { name: 'limits', key: 'ttl' } };

function judge(deployments: Surroundings['deployments']) {
  const gates = {
    controlPlane: undefined,
    controlPlaneServed: true,
    istiodValues: defaultIstiodValues,
    meshRoots: undefined,
    meshRootsPlace: undefined,
    meshLists: undefined,
  };
  const adapter = adapters[spec.controlPlane.kind];
  const surroundings = { others: [], deployments, relatives: [], injectors: [] };
  const seen = evaluateKubernetes(surroundings, gates, undefined, resource, adapter, istiodFields(spec, undefined));
  return [seen.maxWorkloadCertTtlMs, seen.istiodServiceAccounts];
}

it.each<[string, ReturnType<typeof istiod>[], number]>([
  ['24h where it is set', [istiod('24h')], 24 * hour],
  ["Istio's 2160h where it is not", [istiod()], 2160 * hour],
  ['the longest of several', [istiod('24h'), istiod('48h')], 48 * hour],
  ['the longest also where one does not set it', [istiod('24h'), istiod()], 2160 * hour],
  ['that of its own revision', [istiod('24h'), istiod('48h', 'canary')], 24 * hour],
  ["Istio's 2160h where one only refers to it", [istiod('24h'), istiod(reference)], 2160 * hour],
])('istiod allows %s', (_, deployments, limit) => {
  expect(judge(istiodDeployments(deployments))).toEqual([limit, ['istiod-default']]);
});

it('of an istiod that is not there, or may not be read, it is not known', () => {
  expect(judge([])).toEqual(['unknown', []]);
  expect(judge(istiodDeployments([istiod('24h', 'canary')]))).toEqual(['unknown', []]);
  expect(judge('unreadable')).toEqual(['unknown', 'unreadable']);
});
