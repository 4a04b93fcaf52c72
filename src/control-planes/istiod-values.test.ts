/** What control plane objects say of the roots' place, before there is an istiod. */
import { describe, expect, it } from '@jest/globals';
import type { JsonObject } from '../api/json.ts';
import { minimalSpec } from '../../test/unit/model.ts';
import type { Spec } from '../api/schema.ts';
import { placeOf, type TrustPlace } from '../plan/facts/trust-places.ts';
import { adapters } from './index.ts';

const byDefault: TrustPlace = { kind: 'ConfigMap', name: 'istio-ca-root-cert' };
const named: TrustPlace = { kind: 'ConfigMap', name: 'team-a' };
const bundle: TrustPlace = { kind: 'ClusterTrustBundle' };
const api = 'ENABLE_CLUSTER_TRUST_BUNDLE_API';
const variable = 'PILOT_CA_CERT_CONFIGMAP';

describe('an environment', () => {
  it.each<[Record<string, string | null>, TrustPlace | undefined]>([
    [{}, byDefault],
    [{ [variable]: 'team-a' }, named],
    [{ [variable]: '' }, undefined],
    [{ [variable]: null }, undefined],
    [{ [variable]: 'team-$(NAME)' }, undefined],
    [{ [api]: 'true' }, bundle],
    [{ [api]: 'T', [variable]: 'team-a' }, bundle],
    [{ [api]: '1', [variable]: null }, bundle],
    [{ [api]: 'false', [variable]: 'team-a' }, named],
    [{ [api]: 'yes' }, byDefault],
    [{ [api]: '' }, byDefault],
    [{ [api]: null }, undefined],
  ])('%j', (env, expected) => {
    expect(placeOf((name) => env[name])).toEqual(expected);
  });
});

/** What the adapter of a kind reads. */
function read(kind: Spec['controlPlane']['kind'], object: JsonObject | undefined, relatives: JsonObject[] = []) {
  const spec = minimalSpec({ controlPlane: { kind, name: 'default' } }).controlPlane;
  return adapters[kind].istiodValues({ object, spec, relatives });
}

describe('an Istio of Sail', () => {
  const istio = (values: JsonObject) => ({ spec: { values } });
  it.each<[string, JsonObject, TrustPlace | undefined]>([
    ['says nothing', {}, byDefault],
    ['names a trust bundle', { global: { trustBundleName: 'team-a' } }, named],
    ['has the variable', { pilot: { env: { [variable]: 'team-a' } } }, named],
    ['has both, of which the chart puts the name last', { global: { trustBundleName: 'team-a' }, pilot: { env: { [variable]: 'b' } } }, named],
    ['has the API, as text', { pilot: { env: { [api]: 'true' } } }, bundle],
    ['has the variable from a Secret', { pilot: { envVarFrom: [{ name: variable, valueFrom: {} }] } }, undefined],
    ['has it in the other list', { pilot: { envVarFrom: [{ name: variable, value: 'team-a' }] } }, named],
  ])('%s', (_, values, expected) => {
    expect(read('Sail', istio(values)).place).toEqual(expected);
  }); // prettier-ignore

  it('says which namespaces it discovers', () => {
    const discoverySelectors = [{ matchLabels: { mesh: 'a' } }];
    expect(read('Sail', istio({ meshConfig: { discoverySelectors } })).discoverySelectors).toEqual(discoverySelectors);
    expect(read('Sail', undefined)).toEqual({
      place: byDefault,
      discoverySelectors: [],
      signsNothing: undefined,
      podLabels: {},
    });
    expect(read('Sail', istio({ pilot: { podLabels: { team: 'a', injected: true } } })).podLabels).toEqual({
      team: 'a',
      injected: 'true',
    });
  });
});

describe('an IstioOperator', () => {
  const selectors = [{ matchLabels: { mesh: 'a' } }];
  it.each<[string, JsonObject, TrustPlace | undefined]>([
    ['has the API as a boolean', { values: { pilot: { env: { [api]: true } } } }, bundle],
    ['has a list, which takes precedence', { values: { pilot: { env: { [variable]: 'b' } } }, components: { pilot: { k8s: { env: [{ name: variable, value: 'team-a' }] } } } }, named],
    ['has the list from elsewhere', { components: { pilot: { k8s: { env: [{ name: variable, valueFrom: {} }] } } } }, undefined],
  ])('%s', (_, spec, expected) => {
    const meshConfig = { discoverySelectors: selectors };
    expect(read('IstioOperator', { spec: { ...spec, meshConfig } })).toEqual({ place: expected, discoverySelectors: selectors, signsNothing: undefined, localInjector: undefined, podLabels: {} });
  }); // prettier-ignore
});

describe('a ControlPlane of Tetrate', () => {
  const overlay = (patches: JsonObject[]) => ({
    spec: { components: { istio: { kubeSpec: { overlays: [{ kind: 'IstioOperator', name: 'tsb-istiocontrolplane', patches }] } } } },
  }); // prettier-ignore
  it.each<[string, JsonObject[], TrustPlace | undefined]>([
    ['has no patch', [], byDefault],
    ['patches the value', [{ path: `spec.values.pilot.env.${variable}`, value: 'team-a' }], named],
    ['patches all values', [{ path: 'spec.values', value: { global: { trustBundleName: 'team-a' } } }], named],
    ['patches the list', [{ path: 'spec.components.pilot.k8s.env', value: [{ name: api, value: 'true' }] }], bundle],
    ['appends to the list', [{ path: 'spec.components.pilot.k8s.env[-1]', value: { name: variable, value: 'team-a' } }], named],
  ])('%s', (_, patches, expected) => {
    expect(read('TetrateControlPlane', overlay(patches)).place).toEqual(expected);
  }); // prettier-ignore

  it('is read by the IstioOperator that was rendered from it, as soon as there is one', () => {
    const meshConfig = { discoverySelectors: [{ matchLabels: { mesh: 'a' } }] };
    const values = { global: { trustBundleName: 'team-a' } };
    const rendered = { metadata: { name: 'tsb-istiocontrolplane' }, spec: { values, meshConfig } };
    expect(read('TetrateControlPlane', overlay([]), [rendered])).toEqual({
      place: named,
      ...meshConfig,
      podLabels: {},
    });
  });
});

it('values for Helm hold only what the operator wrote: the default counts', () => {
  expect(read('HelmValues', { data: { 'values.yaml': 'global: {trustBundleName: team-a}' } }).place).toEqual(byDefault);
});

describe('an istiod signs nothing', () => {
  it.each<[JsonObject, string | undefined]>([
    [{}, undefined],
    [{ pilot: { env: { ENABLE_CA_SERVER: false } } }, 'ENABLE_CA_SERVER=false'],
    [{ pilot: { env: { ENABLE_CA_SERVER: '0' } } }, 'ENABLE_CA_SERVER=0'],
    [{ pilot: { env: { ENABLE_CA_SERVER: 'no' } } }, undefined],
    [{ pilot: { env: { EXTERNAL_CA: 'ISTIOD_RA_KUBERNETES_API' } } }, 'EXTERNAL_CA=ISTIOD_RA_KUBERNETES_API'],
    [{ pilot: { env: { EXTERNAL_CA: 'another' } } }, undefined],
  ])('with the values %j: %s', (values, expected) => {
    expect(read('Sail', { spec: { values } }).signsNothing).toBe(expected);
  });

  it('for others if it only injects, beside a remote istiod', () => {
    const of = (istiodRemote: JsonObject) => read('Sail', { spec: { values: { istiodRemote } } }).localInjector;
    expect(of({ enabled: true, enabledLocalInjectorIstiod: true })).toBe(
      'istiodRemote.enabledLocalInjectorIstiod=true',
    );
    expect([of({ enabledLocalInjectorIstiod: true }), of({ enabled: true })]).toEqual([undefined, undefined]);
  });
});
