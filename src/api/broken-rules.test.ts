import { describe, expect, it } from '@jest/globals';
import { brokenRules, immutableChanges, rules } from './broken-rules.ts';
import { customResourceDefinition } from './crd.ts';
import { immutableFields, immutableMessage } from './rules.ts';
import { specSchema } from './schema.ts';

type Json = Record<string, unknown>;
const plain = (v: unknown): v is Json => typeof v === 'object' && v !== null && !Array.isArray(v);

function merge(base: Json, over: Json): Json {
  const out = { ...base };
  for (const [key, value] of Object.entries(over))
    out[key] = plain(value) && plain(out[key]) ? merge(out[key], value) : value;
  return out;
}

const smallest = {
  vault: {
    address: 'https://vault.vault.svc:8200',
    auth: { method: 'Kubernetes', kubernetes: { role: 'istio-vault-ca' } },
  },
  controlPlane: { kind: 'TetrateControlPlane', name: 'controlplane' },
};
const specWith = (over: Json) => specSchema.parse(merge(smallest, over));

/** Messages of all CEL rules below a schema. */
function messages(schema: unknown): string[] {
  if (Array.isArray(schema)) return schema.flatMap(messages);
  if (!plain(schema)) return [];
  return Object.entries(schema).flatMap(([key, value]) =>
    key === 'x-kubernetes-validations'
      ? (value as { message: string }[]).map(({ message }) => message)
      : messages(value),
  );
}

it('the rules are those of the CRD', () => {
  const ofCrd = new Set(messages(customResourceDefinition()));
  for (const field of immutableFields) expect(ofCrd.delete(immutableMessage(field))).toBe(true);
  expect([...new Set(rules.map(({ message }) => message))].sort()).toEqual([...ofCrd].sort());
});

it('the smallest spec breaks none', () => {
  expect(brokenRules(specWith({}))).toEqual([]);
});

describe('a spec that breaks one', () => {
  it.each<[string, Json]>([
    ['spec.vault.tls', { vault: { tls: { caSecretRef: { name: 'a' }, caConfigMapRef: { name: 'b' } } } }],
    ['spec.vault.auth', { vault: { auth: { method: 'AppRole' } } }],
    ['spec.vault.auth', { vault: { auth: { token: { secretRef: { name: 'a' } } } } }],
    ['spec.vault.auth', { vault: { auth: { kubernetes: undefined } } }],
    ['spec.root.key.bits', { root: { key: { type: 'ec', bits: 2048 } } }],
    ['spec.intermediate.key.bits', { intermediate: { key: { bits: 256 } } }],
    ['spec.root.existing', { root: { existing: {} } }],
    ['spec.root.external', { root: { external: {} } }],
    ['spec.intermediate.importRef', { intermediate: { source: 'Import' } }],
    ['spec.keyStore.path', { keyStore: { path: 'istioca-state' } }],
    ['spec.delivery.directory', { delivery: { directory: '/etc/cacerts' } }],
    ['spec.delivery.annotations', { delivery: { annotations: { 'sidecar.istio.io/inject': 'false' } } }],
    ['spec.delivery.annotations', { delivery: { annotations: { 'vault.hashicorp.com/x': 'a\nb' } } }],
    ['spec.delivery.refreshInterval', { delivery: { refreshInterval: '500ms' } }],
    ['spec.policy.name', { policy: { name: 'root' } }],
    ['spec.kubernetesAuth.config.tokenReviewer.secretRef', { kubernetesAuth: { config: { tokenReviewer: { mode: 'Secret' } } } }], // prettier-ignore
    ['spec.kubernetesAuth.config.tokenReviewer.mode', { kubernetesAuth: { audience: 'istio-ca', config: { tokenReviewer: { mode: 'ClientToken' } } } }], // prettier-ignore
    ['spec.intermediate.ttl', { root: { ttl: '8760h' } }],
    ['spec.intermediate.ttl', { intermediate: { ttl: '24h', maxWorkloadCertTTL: '12h' } }],
    ['spec.intermediate.renewBefore', { intermediate: { renewBefore: '43800h' } }],
    ['spec', { root: { mount: 'pki' }, intermediate: { mount: 'pki/below' } }],
    ['spec.keyStore.manage', { keyStore: { manage: false } }],
  ])('%s: %j', (path, over) => {
    expect(brokenRules(specWith(over)).map((rule) => rule.path)).toEqual([path]);
  });
});

it('what cannot be changed is named, also when it is set or cleared', () => {
  const before = specWith({ vault: { namespace: 'team' } });
  const after = specWith({ root: { mount: 'other' }, controlPlane: { revision: 'one' } });
  expect(immutableChanges(before, before)).toEqual([]);
  expect(immutableChanges(before, after).map(({ path }) => path)).toEqual([
    'spec.vault.namespace',
    'spec.root.mount',
    'spec.controlPlane.revision',
  ]);
});
