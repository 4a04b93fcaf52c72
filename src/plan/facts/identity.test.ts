import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import {
  generationName,
  generationOf,
  identityHash,
  isOwnMarker,
  markerOf,
  parseMarker,
  type Identity,
} from './identity.ts';

const part = fc.stringMatching(/^[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?$/);
/** Object names are DNS subdomains: labels joined by dots. https://kubernetes.io/docs/concepts/overview/working-with-objects/names/ */
const name = fc.array(part, { minLength: 1, maxLength: 3 }).map((labels) => labels.join('.'));
const identity: fc.Arbitrary<Identity> = fc.record({ cluster: fc.uuid(), namespace: part, name, uid: fc.uuid() });
const origin = fc.constantFrom('made' as const, 'adopted' as const);
const same = (a: Identity, b: Identity) => a.cluster === b.cluster && a.namespace === b.namespace && a.name === b.name;
const id: Identity = { cluster: 'c', namespace: 'istio-system', name: 'istioca', uid: 'u' };

describe('marks', () => {
  it('round-trip for any valid names, also inside other text', () => {
    fc.assert(
      fc.property(identity, origin, (who, how) => {
        const mark = markerOf(who, how);
        expect(parseMarker(mark)).toEqual({ ...who, origin: how });
        expect(parseMarker(`# ${mark}\npath "x" {}`)).toEqual({ ...who, origin: how });
        expect(isOwnMarker(who, mark)).toBe(true);
      }),
    );
  });

  it('of another resource are never own', () => {
    fc.assert(
      fc.property(identity, identity, origin, (a, b, how) => {
        fc.pre(!same(a, b));
        expect(isOwnMarker(a, markerOf(b, how))).toBe(false);
      }),
    );
  });

  it.each<[string, Partial<Identity>]>([
    ['another cluster', { cluster: 'c2' }],
    ['another namespace', { namespace: 'istio-system2' }],
    ['another name', { name: 'istioca2' }],
    ['a name that begins like ours', { name: 'istioc' }],
  ])('%s is not ours', (_, other) => {
    expect(isOwnMarker(id, markerOf({ ...id, ...other }))).toBe(false);
    expect(isOwnMarker({ ...id, ...other }, markerOf(id))).toBe(false);
  });

  it('a re-created resource, with another uid, is the same owner', () => {
    expect(isOwnMarker(id, markerOf({ ...id, uid: 'another' }))).toBe(true);
  });

  it.each([undefined, '', 'istio-vault-ca', 'made by hand', 'istio-vault-ca cluster=c ns=istio-system name=istioca'])(
    '%j carries none',
    (text) => {
      expect(parseMarker(text)).toBeUndefined();
      expect(isOwnMarker(id, text)).toBe(false);
    },
  );
});

describe('names of generations', () => {
  const tier = fc.constantFrom('root' as const, 'intermediate' as const);
  const generation = fc.integer({ min: 1, max: 999_999_999 });

  it('round-trip, and never read as the other tier', () => {
    fc.assert(
      fc.property(identity, tier, generation, (who, which, number) => {
        const text = generationName(who, which, number);
        expect(generationOf(who, which, text)).toBe(number);
        expect(generationOf(who, which === 'root' ? 'intermediate' : 'root', text)).toBeUndefined();
        expect(text).toMatch(/^[a-z0-9-]+$/);
      }),
    );
  });

  it('those of another resource are not ours', () => {
    fc.assert(
      fc.property(identity, identity, tier, generation, (a, b, which, number) => {
        fc.pre(identityHash(a) !== identityHash(b));
        expect(generationOf(a, which, generationName(b, which, number))).toBeUndefined();
      }),
    );
  });

  it('do not change with the uid', () => {
    expect(generationName({ ...id, uid: 'x' }, 'root', 1)).toBe(generationName(id, 'root', 1));
  });

  it.each(['', '0', '01', '1 ', '1a', '-1', '1.0', '1000000000000'])('%j is no generation', (text) => {
    expect(generationOf(id, 'intermediate', `ivca-${identityHash(id)}-${text}`)).toBeUndefined();
  });
});
