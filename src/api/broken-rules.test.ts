import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { merge, type Json } from '../../test/support/json.ts';
import { breaking, changing, obeying, smallestSpec, specs } from '../../test/support/specs.ts';
import { brokenRules, immutableChanges } from './broken-rules.ts';
import { brokenRulesOf, brokenTransitionsOf } from './cel.ts';
import { resourceStructure, type Structural } from './crd.ts';
import type { CelRule } from './fields.ts';
import { celName, immutableFields } from './rules.ts';
import { specSchema } from './schema.ts';

const specWith = (over: Json) => specSchema.parse(merge(smallestSpec, over));
const text = ({ path, message }: { path: string; message: string }) => `${path}: ${message}`;

/** Every rule of the CRD, with the path of the node that has it. */
function rulesBelow(schema: Structural, place = ''): { place: string; rule: CelRule }[] {
  const { properties = {}, additionalProperties, items } = schema;
  return [
    ...(schema['x-kubernetes-validations'] ?? []).map((rule) => ({ place, rule })),
    ...Object.entries(properties).flatMap(([key, sub]) => rulesBelow(sub, place === '' ? key : `${place}.${key}`)),
    ...[additionalProperties, items].flatMap((sub) => (sub ? rulesBelow(sub, `${place}[]`) : [])),
  ];
}
const ofCrd = rulesBelow(resourceStructure());

it('the rules are those of the CRD', () => {
  const broken = [
    ...breaking.flatMap(([, over]) => brokenRules(specWith(over))),
    ...changing.flatMap(([, over]) => immutableChanges(specWith({}), specWith(over))),
  ];
  const ofRule = ({ place, rule: { fieldPath = '', message } }: (typeof ofCrd)[number]) => text({ path: place + fieldPath, message }); // prettier-ignore
  const evaluated = broken.filter(({ message }) => !message.includes('evaluating rule'));
  expect([...new Set(evaluated.map(text))].sort()).toEqual(ofCrd.map(ofRule).sort());
});

it('the rules of the CRD say no more than is evaluated', () => {
  const known = ['rule', 'message', 'reason', 'fieldPath'];
  expect(ofCrd.flatMap(({ rule }) => Object.keys(rule)).filter((keyword) => !known.includes(keyword))).toEqual([]);
});

it('the smallest spec breaks none', () => {
  expect(brokenRules(specWith({}))).toEqual([]);
});

describe('a spec that breaks one', () => {
  it.each(breaking)('%s: %j', (path, over) => {
    expect(brokenRules(specWith(over)).map((rule) => rule.path)).toEqual([path]);
  });
});

it('a rule that cannot be evaluated is broken, and says why', () => {
  expect(brokenRules(specWith({ delivery: { refreshInterval: '2562048h' } })).map(text)).toEqual([
    'spec.delivery: "2562048h" is no duration that Go can hold (at most 2562047h), evaluating rule: delivery.refreshInterval must be at least 1s',
  ]);
});

describe('a spec that breaks none', () => {
  it.each(obeying)('%j', (over) => {
    expect(brokenRules(specWith(over))).toEqual([]);
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

it('each field that cannot be changed is named alone, there and back', () => {
  expect(changing.map(([path]) => path)).toEqual(immutableFields.map((field) => `spec.${field}`));
  for (const [path, over] of changing) {
    const [before, after] = [specWith({}), specWith(over)];
    expect(immutableChanges(before, after).map((rule) => rule.path)).toEqual([path]);
    expect(immutableChanges(after, before).map((rule) => rule.path)).toEqual([path]);
  }
});

it('any spec that fits the schema can be judged, and a change back and forth is judged alike', () => {
  fc.assert(
    fc.property(specs, specs, (one, two) => {
      const [before, after] = [specSchema.parse(one), specSchema.parse(two)];
      expect(immutableChanges(before, after)).toEqual(immutableChanges(after, before));
      expect(immutableChanges(before, before)).toEqual([]);
      for (const { path } of brokenRules(before)) expect(path).toMatch(/^spec(\.\w+)*$/);
    }),
  );
});

describe('a schema', () => {
  const rule = (text: string) => ({ rule: text, message: text });
  const schema: Structural = {
    type: 'object',
    properties: {
      // In CEL, a number is an integer only if the schema says so.
      count: { type: 'integer', 'x-kubernetes-validations': [rule('2 * self < 7'), rule('self / 2 == 1')] },
      ratio: { type: 'number', 'x-kubernetes-validations': [rule('self / 2.0 == 1.5')] },
      package: { type: 'string' },
      list: {
        type: 'array',
        'x-kubernetes-validations': [rule('self.all(n, n.size() < 3)'), rule('oldSelf.size() == self.size()')],
        items: { type: 'string', 'x-kubernetes-validations': [rule("self != 'a'"), rule('self == oldSelf')] },
      },
      map: {
        type: 'object',
        additionalProperties: { type: 'string', 'x-kubernetes-validations': [rule("self != 'a'"), rule('self == oldSelf')] }, // prettier-ignore
      },
    },
    'x-kubernetes-validations': [rule("!has(self.__package__) || self.__package__ != 'a'")],
  };
  const paths = (rules: { path: string }[]) => rules.map(({ path }) => path);

  it('is walked: fields, items of lists, values of maps; what is absent is not judged', () => {
    expect(brokenRulesOf(schema, { count: 3, ratio: 3 })).toEqual([]);
    expect(brokenRulesOf(schema, { count: 4 }).map(({ message }) => message)).toEqual(['2 * self < 7', 'self / 2 == 1']); // prettier-ignore
    expect(paths(brokenRulesOf(schema, { package: 'a' }))).toEqual(['']);
    expect(paths(brokenRulesOf(schema, { list: ['b', 'a', 'ccc'] }))).toEqual(['list', 'list[1]']);
    expect(paths(brokenRulesOf(schema, { map: { b: 'b', 'x/y': 'a' } }))).toEqual(['map[x/y]']);
  });

  it('compares with the value before where there was one; items of a list have none', () => {
    const before = { list: ['b'], map: { one: 'b', two: 'b' } };
    const after = { list: ['c', 'd'], map: { one: 'c', three: 'c' } };
    expect(paths(brokenTransitionsOf(schema, before, after))).toEqual(['list', 'map[one]']);
    expect(brokenTransitionsOf(schema, {}, after)).toEqual([]);
    expect(brokenTransitionsOf(schema, before, {})).toEqual([]);
  });

  it.each(["self.find('a') == 'a'", 'self.'])('with a rule that cannot be evaluated is an error: %s', (expression) => {
    const judge = () => brokenRulesOf({ type: 'string', 'x-kubernetes-validations': [rule(expression)] }, 'x');
    expect(judge).toThrow();
  });

  it('is judged by Go’s durations', () => {
    const holds = (expression: string) =>
      brokenRulesOf({ type: 'string', 'x-kubernetes-validations': [rule(expression)] }, 'x').length === 0;
    for (const expression of [
      "duration('1.5h') == duration('90m')",
      "duration('.5h') == duration('1800s')",
      "duration('1h30m500ms').getMilliseconds() == 5400500",
      "duration('87600h').getHours() == 87600",
      "duration('0') == duration('0ms')",
      "duration('-1h') < duration('1μs')",
      "true || duration('x') == duration('y')",
    ])
      expect([expression, holds(expression)]).toEqual([expression, true]);
    for (const wrong of ['', 'h', '1', '1d', '2562048h', ' 1h'])
      expect([wrong, holds(`duration('${wrong}') != duration('7s')`)]).toEqual([wrong, false]);
  });
});

it('words that CEL reserves are escaped', () => {
  expect(['namespace', 'in', 'name'].map(celName)).toEqual(['__namespace__', '__in__', 'name']);
});
