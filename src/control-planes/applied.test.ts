import { describe, expect, it } from '@jest/globals';
import { dig, type JsonObject } from '../api/json.ts';
import { minimalSpec } from '../../test/unit/model.ts';
import { applied, mergePatch, written } from '../../test/unit/written.ts';
import { istiodFields } from '../plan/control-plane/istiod-fields.ts';
import { adapters } from './index.ts';

const fields = istiodFields(minimalSpec(), undefined);
const ours = 'istio-vault-ca';
const rootCaDir = 'spec.values.pilot.env.ROOT_CA_DIR';
const env = (value: string | null): JsonObject => ({ values: { pilot: { env: { ROOT_CA_DIR: value } } } });
const lastApplied = (object: JsonObject | string): JsonObject => ({
  'kubectl.kubernetes.io/last-applied-configuration': typeof object === 'string' ? object : JSON.stringify(object),
});

describe.each(['Sail', 'IstioOperator'] as const)('%s with write: Render', (kind) => {
  const adapter = adapters[kind];
  const spec = minimalSpec({ controlPlane: { kind, name: 'mesh', write: 'Render' } }).controlPlane;
  const at = (object: JsonObject) => ({ object, namespace: 'istio-system', spec, relatives: [], deployments: [] });
  const facts = (object: JsonObject) => {
    const seen = adapter.look(at(object), fields);
    if ('unfit' in seen) throw new Error(seen.unfit.message);
    return seen;
  };
  const bare: JsonObject = { metadata: { name: 'mesh', annotations: { other: 'kept' } }, spec: { profile: 'default' } };
  const lines = adapter.render(at(bare), fields);
  const set = lines['spec'] as JsonObject;
  const every = facts(bare).missing ?? [];
  /** The object with the rendered fields, with `managedFields`, annotations, and changes of its spec. */
  const object = (managedFields: JsonObject[], annotations: JsonObject = {}, edit: JsonObject = {}) =>
    [lines, { metadata: { managedFields, annotations } }, { spec: edit }].reduce(mergePatch, bare);

  it('every line is one of its own', () => {
    expect(every).toContain(rootCaDir);
    expect(every).toContainEqual(expect.stringMatching(/podAnnotations\[vault\.hashicorp\.com\/role\]$/));
    expect(every).toHaveLength(1 + Object.keys(fields.podAnnotations).length);
  });

  it.each<[string, JsonObject, string[]]>([
    ['committed by a tool', object([applied('argocd-controller', set)]), []],
    ['that nobody is known to have set', object([]), []],
    ['that this operator has written', object([applied(ours, set)]), every],
    ['that this operator has written, and a tool too', object([applied(ours, set), applied('flux', set)]), []],
    ['of which the tool has one', object([applied(ours, set), applied('flux', env('x'))]), every.filter((p) => p !== rootCaDir)],
    ['that were applied client-side over ours', object([applied(ours, set)], lastApplied(lines)), []],
    ['of which one was applied client-side', object([applied(ours, set)], lastApplied({ spec: env('/vault/secrets') })), every.filter((p) => p !== rootCaDir)],
    ['that were applied client-side with another value', object([applied(ours, set)], lastApplied(mergePatch(lines, { spec: env('/x') }))), [rootCaDir]],
    ['beside a mark of kubectl that cannot be read', object([applied(ours, set)], lastApplied('{')), every],
    ['of which one is something else', object([applied('flux', set)], {}, env('/x')), [rootCaDir]],
    ['of which one is gone', object([applied('flux', set)], lastApplied(lines), env(null)), [rootCaDir]],
  ])('lines %s', (_, given, missing) => {
    const there = missing.length === 0;
    expect(facts(given)).toMatchObject({ missing, carriesFields: there, superfluous: there, conflicts: [] });
  }); // prettier-ignore

  describe('gives back what it wrote before', () => {
    const claimed = written(bare, adapter.claim(at(bare), 'istioca'));
    const before = (annotations: JsonObject = {}) =>
      [claimed, object([applied(ours, set)], annotations)].reduce(mergePatch);
    const release = (given: JsonObject) => {
      const [first, ...rest] = adapter.release(at(given));
      if (first?.kind !== 'apply') throw new Error('it holds what it applied');
      // The API server deletes fields that are no longer applied and have no other field manager.
      return { holds: first.object['spec'], after: written(given, rest) };
    };

    it('and keeps what a client-side apply has set to the same', () => {
      const given = before(lastApplied(lines));
      const { holds, after } = release(given);
      expect(holds).toEqual(set);
      expect(after['spec']).toEqual(given['spec']);
      expect(dig(after, 'metadata', 'annotations')).toEqual({ other: 'kept', ...lastApplied(lines) });
    });

    it('and only that', () => {
      const { holds } = release(before(lastApplied({ spec: env('/vault/secrets') })));
      expect(holds).toEqual(env('/vault/secrets'));
    });

    it('and all of it when nobody else has set it', () => {
      const { holds, after } = release(before());
      expect(holds).toBeUndefined();
      expect(after).toMatchObject({ metadata: bare['metadata'], spec: bare['spec'] });
      expect(dig(after, 'spec', 'values')).toBeUndefined();
      expect(dig(after, 'metadata', 'annotations')).toEqual({ other: 'kept' });
    });
  });
});
