import { describe, expect, it } from '@jest/globals';
import type { JsonObject } from '../api/json.ts';
import { minimalSpec } from '../../test/unit/model.ts';
import { mergePatch } from '../../test/unit/written.ts';
import { istiodFields } from '../plan/control-plane/istiod-fields.ts';
import { istioOperator } from './istio-operator.ts';

const fields = istiodFields(minimalSpec(), undefined);
const object = (over: JsonObject = {}): JsonObject =>
  mergePatch({ metadata: { name: 'istio', annotations: { 'istiovaultca.io/owner-default': 'istioca' } } }, over);
const look = (over: JsonObject, spec: JsonObject = {}) =>
  istioOperator.look(
    {
      object: object(over),
      namespace: 'istio-system',
      spec: minimalSpec({ controlPlane: { kind: 'IstioOperator', name: 'istio', ...spec } }).controlPlane,
      relatives: [],
      deployments: [],
    },
    fields,
  );

describe('an IstioOperator that is none to write to', () => {
  const byTetrate = /is rendered by Tetrate Service Bridge.*name its ControlPlane instead/;
  it.each<[string, JsonObject, JsonObject, RegExp]>([
    ["Tetrate's, by its name", {}, { name: 'tsb-istiocontrolplane' }, byTetrate],
    ["Tetrate's of a revision, by its name", {}, { name: 'xcp-iop-canary' }, byTetrate],
    ["Tetrate's, by its owner", { metadata: { ownerReferences: [{ kind: 'ControlPlane' }] } }, {}, byTetrate],
    ['that of a revision', { spec: { revision: 'old' } }, {}, /is for revision old, and this resource for default;/],
    ['the one without a revision', {}, { revision: 'new' }, /is for revision default, and this resource for new;/],
  ])('%s is said to be so, with who wrote to it before', (_, over, spec, message) => {
    expect(look(over, spec)).toEqual({
      unfit: {
        reason: 'ControlPlaneUnfit',
        message: expect.stringMatching(message),
        // The owner is still known, so that its fields can be released. The annotation is that of revision default.
        owner: spec['revision'] === undefined ? 'istioca' : undefined,
      },
    });
  });

  it.each<[string, JsonObject, JsonObject]>([
    ['of the same revision', { spec: { revision: 'new' } }, { revision: 'new' }],
    ['of the revision that has no name', { spec: { revision: '' } }, {}],
    ['that something else owns', { metadata: { ownerReferences: [{ kind: 'Application' }] } }, {}],
  ])('one %s is', (_, over, spec) => expect(look(over, spec)).not.toHaveProperty('unfit'));
});

describe('who carries an IstioOperator out', () => {
  const ignored = { metadata: { annotations: { 'install.istio.io/ignoreReconcile': 'true' } } };
  it.each<[string, JsonObject, RegExp | undefined]>([
    ['nobody', {}, /^IstioOperator istio has no status: nothing reconciles it/],
    ['an operator that fails', { status: { status: 'ERROR' } }, /^the operator of IstioOperator istio cannot carry it out/],
    ['an operator', { status: { status: 'HEALTHY' } }, undefined],
    ['an operator that is to leave it alone', { status: { status: 'HEALTHY' }, ...ignored }, /ignoreReconcile=true/],
  ])('%s', (_, over, expected) => {
    const why = expected && (expect.stringMatching(expected) as unknown);
    expect(look(over)).toEqual(expect.objectContaining({ owner: 'istioca', ...(why ? { unreconciled: why } : {}) }));
    if (!why) expect(look(over)).not.toHaveProperty('unreconciled');
  }); // prettier-ignore
});

describe.each(['Patch', 'Render'])('what Istio lets win over a field, with write: %s', (write) => {
  const right = { name: 'ROOT_CA_DIR', value: '/vault/secrets' };
  const wrong = { name: 'ROOT_CA_DIR', value: '/x' };
  const listed = (...env: unknown[]) => ({ components: { pilot: { k8s: { env } } } });
  const place = 'spec.components.pilot.k8s.env[name:ROOT_CA_DIR]';
  const unvalidated = (value: string) => ({ unvalidatedValues: { pilot: { env: { ROOT_CA_DIR: value } } } });
  const committed = istioOperator.render(
    {
      object: undefined,
      namespace: 'istio-system',
      spec: minimalSpec({ controlPlane: { kind: 'IstioOperator', name: 'istio', write } }).controlPlane,
      relatives: [],
    },
    fields,
  );

  it.each<[string, JsonObject, { place: string; value: string }[]]>([
    ['the same in the list', listed(right), []],
    ['another variable in the list', listed({ name: 'OTHER', value: '/x' }), []],
    ['another value in the list', listed(wrong), [{ place, value: '"/x"' }]],
    ['twice in the list, the last as it should be', listed(wrong, right), []],
    ['twice in the list, the last wins', listed(right, wrong), [{ place, value: '"/x"' }]],
    [
      'a value from elsewhere in the list',
      listed({ name: 'ROOT_CA_DIR', valueFrom: { fieldRef: { fieldPath: 'x' } } }),
      [{ place, value: '{"name":"ROOT_CA_DIR","valueFrom":{"fieldRef":{"fieldPath":"x"}}}' }],
    ],
    ['the same in unvalidatedValues', unvalidated('/vault/secrets'), []],
    [
      'another value in unvalidatedValues',
      unvalidated('/x'),
      [{ place: 'spec.unvalidatedValues.pilot.env.ROOT_CA_DIR', value: '"/x"' }],
    ],
  ])('%s', (_, spec, conflicts) => {
    // all wanted fields exist, set by another field manager
    const over = mergePatch(committed, { spec });
    expect(look(over, { write })).toMatchObject({
      conflicts,
      ...(write === 'Render' ? { missing: [], carriesFields: conflicts.length === 0, superfluous: conflicts.length === 0 } : {}),
    });
  }); // prettier-ignore
});
