import { describe, expect, it } from '@jest/globals';
import { dumpYaml } from '../runtime/yaml.ts';
import { ManifestError, parseManifest } from './manifest.ts';

const smallest = {
  apiVersion: 'istiovaultca.io/v1alpha1',
  kind: 'IstioVaultCA',
  metadata: { name: 'istioca', namespace: 'istio-system' },
  spec: {
    vault: { address: 'https://vault.vault.svc:8200', auth: { kubernetes: { role: 'istio-vault-ca' } } },
    controlPlane: { kind: 'Sail', name: 'default' },
  },
};
const account = { apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name: 'istio-vault-ca' } };

const parse = (documents: object[], namespace?: string) =>
  parseManifest(documents.map(dumpYaml).join('---\n'), 'ca.yaml', namespace);
const withSpec = (over: object) => ({ ...smallest, spec: { ...smallest.spec, ...over } });
const withMetadata = (metadata: object) => ({ ...smallest, metadata });

describe('a manifest', () => {
  it('is the one IstioVaultCA among the documents, with every default', () => {
    const manifest = parse([account, smallest]);
    expect(manifest).toMatchObject({ name: 'istioca', namespace: 'istio-system', annotations: {} });
    expect(manifest.spec.root.mount).toBe('pki');
  });

  it('may be JSON, carry a status, and leave fields empty', () => {
    const text = JSON.stringify({ ...withSpec({ audit: null, root: { ttl: null } }), status: { seen: true } });
    expect(parseManifest(text, 'ca.json', undefined).spec.root.ttl).toBe('87600h');
  });

  it('takes its namespace from the flag when it names none', () => {
    expect(parse([withMetadata({ name: 'istioca' })], 'mesh').namespace).toBe('mesh');
    expect(parse([withMetadata({ name: 'istioca' })]).namespace).toBeUndefined();
    expect(parse([smallest], 'istio-system').namespace).toBe('istio-system');
  });

  it.each<[string, object[], string]>([
    ['no resource', [account], 'ca.yaml: no document is an IstioVaultCA of istiovaultca.io; give the file that holds it'], // prettier-ignore
    ['two', [smallest, withMetadata({ name: 'other' })], 'ca.yaml: 2 documents are an IstioVaultCA ("istioca", "other"); give one at a time'], // prettier-ignore
    ['another version', [{ ...smallest, apiVersion: 'istiovaultca.io/v9' }], 'ca.yaml: apiVersion "istiovaultca.io/v9": '], // prettier-ignore
    ['no name', [withMetadata({ namespace: 'a' })], 'ca.yaml: metadata.name is missing; add it'],
    ['a number as annotation', [withMetadata({ name: 'a', annotations: { 'istiovaultca.io/rotate-root': 1 } })], 'ca.yaml: metadata.annotations[istiovaultca.io/rotate-root] 1: must be a string; put it in quotes'], // prettier-ignore
    ['a missing field', [withSpec({ controlPlane: { kind: 'Sail' } })], 'ca.yaml: spec.controlPlane.name is missing; add it; docs/api.md'], // prettier-ignore
    ['a bad value', [withSpec({ root: { ttl: '10y' } })], 'ca.yaml: spec.root.ttl "10y": Invalid string: must match pattern'], // prettier-ignore
    ['a word that is none', [withSpec({ mode: 'Dry' })], 'ca.yaml: spec.mode "Dry": Invalid option: expected one of "Enforce"|"Plan"'], // prettier-ignore
    ['an unknown field', [withSpec({ root: { life: 's.secret' } })], 'ca.yaml: spec.root.life: no such field; correct or remove it'], // prettier-ignore
    ['an unknown field at the top', [{ ...smallest, data: {} }], 'ca.yaml: data: no such field'],
    [
      'what CEL refuses',
      [withSpec({ root: { ttl: '1h' } })],
      'ca.yaml: spec.intermediate.ttl: IntermediateOutlivesRoot',
    ],
    ['a reserved name', [withSpec({ policy: { name: 'root' } })], 'ca.yaml: spec.policy.name "root": policy.name may not be root or default'], // prettier-ignore
  ])('is refused: %s', (_, documents, says) => {
    expect(() => parse(documents)).toThrow(ManifestError);
    expect(() => parse(documents)).toThrow(says);
    expect(() => parse(documents)).not.toThrow('s.secret');
    expect(() => parse(documents)).not.toThrow('\n');
  });

  it('is refused when the flag names another namespace, or when it is no YAML', () => {
    expect(() => parse([smallest], 'mesh')).toThrow(
      'ca.yaml: metadata.namespace "istio-system": --namespace mesh is another; leave one of them out',
    );
    const broken = () => parseManifest('a: [1\nb: 2', 'ca.yaml', undefined);
    expect(broken).toThrow(/^ca\.yaml: not YAML: .* at line /);
    expect(broken).not.toThrow('\n');
  });
});
