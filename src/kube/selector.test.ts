import { describe, expect, it } from '@jest/globals';
import { selects } from './selector.ts';

const labels = { 'kubernetes.io/metadata.name': 'istio-system', team: 'mesh', empty: '' };
const expression = (key: string, operator: string, values?: string[]) => ({
  matchExpressions: [{ key, operator, ...(values ? { values } : {}) }],
});

/** https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#resources-that-support-set-based-requirements */
describe('a label selector', () => {
  it.each<{ reason: string; selector: unknown; selected: boolean }>([
    { reason: 'absent: everything', selector: undefined, selected: true },
    { reason: 'null: everything', selector: null, selected: true },
    { reason: 'empty: everything', selector: {}, selected: true },
    { reason: 'empty parts: everything', selector: { matchLabels: {}, matchExpressions: [] }, selected: true },
    { reason: 'an equal label', selector: { matchLabels: { team: 'mesh' } }, selected: true },
    { reason: 'another value', selector: { matchLabels: { team: 'other' } }, selected: false },
    { reason: 'a label that is not there', selector: { matchLabels: { vault: 'enabled' } }, selected: false },
    { reason: 'an empty value is a value', selector: { matchLabels: { empty: '' } }, selected: true },
    { reason: 'an empty value is not absence', selector: { matchLabels: { vault: '' } }, selected: false },
    { reason: 'every label must match', selector: { matchLabels: { team: 'mesh', empty: 'x' } }, selected: false },
    { reason: 'In', selector: expression('team', 'In', ['a', 'mesh']), selected: true },
    { reason: 'In, another value', selector: expression('team', 'In', ['a']), selected: false },
    { reason: 'In, no such label', selector: expression('vault', 'In', ['a']), selected: false },
    { reason: 'NotIn', selector: expression('team', 'NotIn', ['a']), selected: true },
    { reason: 'NotIn, the value', selector: expression('team', 'NotIn', ['mesh']), selected: false },
    { reason: 'NotIn, no such label', selector: expression('vault', 'NotIn', ['a']), selected: true },
    {
      reason: "the injector's usual one: not in these namespaces",
      selector: expression('kubernetes.io/metadata.name', 'NotIn', ['kube-system', 'vault']),
      selected: true,
    },
    { reason: 'Exists', selector: expression('empty', 'Exists'), selected: true },
    { reason: 'Exists, no such label', selector: expression('vault', 'Exists'), selected: false },
    { reason: 'DoesNotExist', selector: expression('vault', 'DoesNotExist'), selected: true },
    { reason: 'DoesNotExist, the label is there', selector: expression('team', 'DoesNotExist'), selected: false },
    { reason: 'an operator nobody knows selects nothing', selector: expression('team', 'Gt', ['1']), selected: false },
    { reason: 'an expression without an operator', selector: { matchExpressions: [{ key: 'team' }] }, selected: false },
    {
      reason: 'labels and expressions must both match',
      selector: { matchLabels: { team: 'mesh' }, ...expression('vault', 'Exists') },
      selected: false,
    },
    {
      reason: 'every expression must match',
      selector: {
        matchExpressions: [
          { key: 'team', operator: 'Exists' },
          { key: 'team', operator: 'DoesNotExist' },
        ],
      },
      selected: false,
    },
  ])('$reason', ({ selector, selected }) => {
    expect(selects(selector, labels)).toBe(selected);
  });

  it('a namespace without labels', () => {
    expect(selects({ matchLabels: { a: 'b' } }, {})).toBe(false);
    expect(selects({}, {})).toBe(true);
  });
});
