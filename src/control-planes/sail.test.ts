import { describe, expect, it } from '@jest/globals';
import type { JsonObject } from '../api/json.ts';
import { minimalSpec } from '../../test/unit/model.ts';
import { istiodFields } from '../plan/control-plane/istiod-fields.ts';
import type { Target } from './adapter.ts';
import { sail } from './sail.ts';

const fields = istiodFields(minimalSpec(), undefined);
const target = (object: JsonObject, over: Partial<Target> = {}): Target => ({
  object: {
    metadata: { name: 'mesh', uid: 'u-7', annotations: { 'istiovaultca.io/owner-default': 'istioca' } },
    ...object,
  },
  namespace: 'istio-system',
  spec: minimalSpec({ controlPlane: { kind: 'Sail', name: 'mesh' } }).controlPlane,
  relatives: [],
  deployments: [],
  ...over,
});

describe('an Istio for another namespace', () => {
  it.each<[string, JsonObject, string, string]>([
    ['that it names', { spec: { namespace: 'elsewhere' } }, 'istio-system', 'elsewhere'],
    ["that it does not name, which is Sail's default", { spec: {} }, 'mesh-a', 'istio-system'],
  ])('%s is left alone, and who owns it is not told: that is a resource there', (_, object, namespace, found) => {
    expect(sail.look(target(object, { namespace }), fields)).toEqual({
      unfit: {
        reason: 'ControlPlaneUnfit',
        message: expect.stringMatching(
          `Istio mesh is for namespace ${found} .* which is ${namespace}; create this resource in ${found}$`,
        ),
      },
    });
  });

  it.each<[JsonObject, string]>([
    [{ spec: { namespace: 'mesh-a' } }, 'mesh-a'],
    [{ spec: {} }, 'istio-system'],
  ])('%j for %s is for its own', (object, namespace) =>
    expect(sail.look(target(object, { namespace }), fields)).toMatchObject({ owner: 'istioca', carriesFields: false }),
  );
});

describe('who carries an Istio out', () => {
  const conditions = (status: string) => ({
    status: { conditions: [{ type: 'Ready', status: 'False' }, { type: 'Reconciled', status, reason: 'ReconcileError' }] },
  }); // prettier-ignore
  it.each<[string, JsonObject, unknown]>([
    ['nobody', {}, expect.stringMatching(/^Istio mesh has no status: nothing reconciles it/)],
    [
      'an operator that fails',
      conditions('False'),
      expect.stringMatching(/^the Sail operator cannot reconcile Istio mesh \(ReconcileError\)/),
    ],
    ['an operator', conditions('True'), undefined],
    ['an operator that has not come so far', conditions('Unknown'), undefined],
  ])('%s', (_, object, expected) => {
    const seen = sail.look(target(object), fields);
    expect('unfit' in seen ? seen : seen.unreconciled).toEqual(expected);
  });
});

describe('the revisions of an Istio', () => {
  const revision = (name: string, ...owners: string[]) => ({
    metadata: { name, ownerReferences: owners.map((uid) => ({ kind: 'Istio', name: 'mesh', uid })) },
  });
  const active = (name: string) => ({ status: { activeRevisionName: name } });

  it.each<[string, JsonObject, JsonObject[], string[], string[]]>([
    ['its own name, before it has any', {}, [], ['mesh'], []],
    ['the active one', active('mesh-v2'), [], ['mesh-v2'], []],
    [
      'older ones, which the Istio does not reach any more',
      active('mesh-v2'),
      [revision('mesh-v2', 'u-7'), revision('mesh-v1', 'u-7')],
      ['mesh-v1', 'mesh-v2'],
      ['mesh-v1'],
    ],
    [
      "not those of another Istio, nor of one that bore its name before, nor nobody's",
      active('mesh'),
      [revision('mesh', 'u-7'), revision('mesh-v1', 'u-8'), revision('mesh-v0')],
      ['mesh'],
      [],
    ],
    ['with one more owner', active('mesh'), [revision('mesh-v1', 'u-8', 'u-7')], ['mesh', 'mesh-v1'], ['mesh-v1']],
    ['none left behind before one is active', {}, [revision('mesh-v1', 'u-7')], ['mesh', 'mesh-v1'], []],
  ])('%s', (_, object, relatives, revisions, leftBehind) => {
    const at = target(object, { relatives });
    expect(sail.revisions(at)).toEqual(revisions);
    const seen = sail.look(at, fields);
    expect('unfit' in seen ? seen : (seen.leftBehind ?? [])).toEqual(leftBehind);
  });

  it('are unknown while they may not be listed, and then nothing is written', () => {
    const at = target(active('mesh-v2'), { relatives: undefined });
    expect(sail.revisions(at)).toEqual(['mesh-v2']);
    expect(sail.look(at, fields)).toMatchObject({
      unfit: {
        reason: 'Forbidden',
        message: expect.stringMatching(
          /lacks permission to list istiorevisions\.sailoperator\.io\. .*components\/sail /,
        ),
      },
    });
  });
});
