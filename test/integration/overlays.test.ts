/**
 * What the control plane's overlay comes to, judged by Istio's own path library.
 * @servers istio-overlay
 */
import { readFileSync } from 'node:fs';
import { isDeepStrictEqual } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { stringify } from 'yaml';
import { digestAnnotation } from '../../src/api/annotations.ts';
import { dig, isObject } from '../../src/api/json.ts';
import { type Target } from '../../src/control-planes/adapter.ts';
import { adapters } from '../../src/control-planes/index.ts';
import { istiodFields, type IstiodFields } from '../../src/plan/control-plane/istiod-fields.ts';
import type { ControlPlaneFacts } from '../../src/plan/facts/observed.ts';
import type { Json } from '../support/cluster.ts';
import { startIstioOverlay, type IstioOverlay, type Outcome, type Patch } from '../support/istio-overlay.ts';
import { minimalSpec } from '../unit/model.ts';
import { written } from '../unit/written.ts';

let istio: IstioOverlay;
beforeAll(async () => {
  istio = await startIstioOverlay();
});
afterAll(() => istio.stop());

const k8s = 'spec.components.pilot.k8s';
const env = `${k8s}.env`;
const annotations = `${k8s}.podAnnotations`;
const a = { name: 'A', value: '1' };
const dir = (value: string) => ({ name: 'ROOT_CA_DIR', value });
const withK8s = (fields: Json): Json => ({ spec: { components: { pilot: { k8s: fields } } } });
const k8sOf = (outcome: Outcome) =>
  (outcome.object as { spec: { components: { pilot: { k8s: Json } } } }).spec.components.pilot.k8s;

describe('the path library', () => {
  interface Case {
    name: string;
    base: Json;
    patches: Patch[];
    /** The IstioOperator's `spec.components.pilot.k8s` afterwards. */
    yaml: Json;
    /** With a base from JSON, if that is not the same. */
    json?: Json;
    error?: RegExp;
  }
  const key = `${annotations}.vault\\.hashicorp\\.com/role`;
  const role = 'vault.hashicorp.com/role';
  const template = '{{- with secret "a" -}}{{ .Data.b }}{{- end -}}';
  const cases: Case[] = [
    {
      name: 'a whole list replaces one, or is nested in it',
      base: withK8s({ env: [a] }),
      patches: [{ path: env, value: [dir('/x')] }],
      yaml: { env: [dir('/x')] },
      json: { env: [a, [dir('/x')]] },
    },
    {
      name: 'a whole list where none is',
      base: withK8s({}),
      patches: [{ path: env, value: [dir('/x')] }],
      yaml: { env: [dir('/x')] },
    },
    {
      name: 'an item is appended to a list',
      base: withK8s({ env: [a] }),
      patches: [{ path: `${env}[-1]`, value: dir('/x') }],
      yaml: { env: [a, dir('/x')] },
    },
    {
      name: 'an item appended to no list makes a map of it',
      base: withK8s({}),
      patches: [{ path: `${env}[-1]`, value: dir('/x') }],
      yaml: { env: { '[-1]': dir('/x') } },
      json: { env: [dir('/x')] },
    },
    {
      name: 'an index behind the end appends',
      base: withK8s({ env: [a] }),
      patches: [{ path: `${env}[7]`, value: dir('/x') }],
      yaml: { env: [a, dir('/x')] },
    },
    {
      name: 'an item that is not there is not made',
      base: withK8s({ env: [a] }),
      patches: [{ path: `${env}[name:ROOT_CA_DIR].value`, value: '/x' }],
      yaml: { env: [a] },
      error: /not found/,
    },
    {
      name: 'the value of an item, with either bracket form',
      base: withK8s({ env: [a, dir('/y')] }),
      patches: [
        { path: `${env}[name:A].value`, value: '2' },
        { path: `${env}.[name:ROOT_CA_DIR].value`, value: '/x' },
      ],
      yaml: { env: [{ name: 'A', value: '2' }, dir('/x')] },
    },
    {
      name: 'an item selected by its value',
      base: withK8s({ env: [a, dir('/y')] }),
      patches: [{ path: `${env}[value:/y].name`, value: 'B' }],
      yaml: { env: [a, { name: 'B', value: '/y' }] },
    },
    {
      name: 'a whole map replaces one',
      base: withK8s({ podAnnotations: { a: 'b' } }),
      patches: [{ path: annotations, value: { c: 'd' } }],
      yaml: { podAnnotations: { c: 'd' } },
    },
    {
      name: 'one key of a map, dots escaped',
      base: withK8s({ podAnnotations: { a: 'b' } }),
      patches: [{ path: key, value: 'istiod' }],
      yaml: { podAnnotations: { a: 'b', [role]: 'istiod' } },
    },
    {
      name: 'one key of a map that is not there, or null',
      base: withK8s({ podAnnotations: null }),
      patches: [
        { path: key, value: 'istiod' },
        { path: `${k8s}.serviceAnnotations.x`, value: 'y' },
      ],
      yaml: { podAnnotations: { [role]: 'istiod' }, serviceAnnotations: { x: 'y' } },
    },
    {
      name: 'a template stays text',
      base: withK8s({}),
      patches: [{ path: key, value: template }],
      yaml: { podAnnotations: { [role]: template } },
    },
    {
      name: 'so does JSON, and several lines that are no YAML',
      base: withK8s({}),
      patches: [
        { path: `${annotations}.a`, value: '{"b": "c"}' },
        { path: `${annotations}.d`, value: `${template}\n: e` },
      ],
      yaml: { podAnnotations: { a: '{"b": "c"}', d: `${template}\n: e` } },
    },
    {
      name: 'a line that is YAML becomes an object, or replaces the key',
      base: withK8s({ podAnnotations: {} }),
      patches: [{ path: key, value: 'b: c' }],
      yaml: { podAnnotations: { [role]: { b: 'c' } } },
      json: { podAnnotations: { b: 'c' } },
    },
    {
      name: 'nothing for a value deletes',
      base: withK8s({ env: [a, dir('/x')], podAnnotations: { a: 'b' } }),
      patches: [{ path: `${env}[name:A]`, value: null }, { path: `${annotations}.a` }],
      yaml: { env: [dir('/x')], podAnnotations: {} },
    },
    {
      name: 'other spellings of one path',
      base: withK8s({}),
      patches: [
        { path: `.${annotations}..vault\\.hashicorp\\.com//role.`, value: '1' },
        { path: `./x/../${annotations}.vault\\.hashicorp\\.com/./b`, value: '2' },
      ],
      yaml: { podAnnotations: { [role]: '1', 'vault.hashicorp.com/b': '2' } },
    },
    {
      name: 'a slash does not separate, and brackets are a key of a map',
      base: withK8s({}),
      patches: [
        { path: 'spec/components/pilot', value: 1 },
        { path: `${annotations}.[a]`, value: '1' },
      ],
      yaml: { podAnnotations: { '[a]': '1' } },
    },
    {
      name: 'nothing goes below a text, or below a list without a selector',
      base: withK8s({ env: [a], podAnnotations: 'text' }),
      patches: [
        { path: key, value: 'istiod' },
        { path: `${env}.B`, value: 'x' },
      ],
      yaml: { env: [a], podAnnotations: 'text' },
      error: /leaf type|not a valid/,
    },
    {
      name: 'a list below what a patch has set is added to, not replaced',
      base: withK8s({}),
      patches: [
        { path: k8s, value: { env: [a] } },
        { path: env, value: [dir('/x')] },
      ],
      yaml: { env: [a, [dir('/x')]] },
    },
    {
      name: 'an item with a colon in its value is not found, escaped or not',
      base: withK8s({ env: [{ name: 'A', value: 'b:c' }] }),
      patches: [
        { path: `${env}[value:b\\:c].value`, value: '1' },
        { path: `${env}[value:b:c].value`, value: '2' },
      ],
      yaml: { env: [{ name: 'A', value: 'b:c' }] },
      error: /not found|not a valid/,
    },
    { name: 'no path, no effect', base: withK8s({}), patches: [{ path: '', value: { a: 'b' } }], yaml: {} },
  ];

  it('is of the version that istiod is built from', () => {
    const [asked, built] = ['istio-overlay', 'istio'].map(
      (module) => /istio\.io\/istio (\S+)/.exec(readFileSync(`test/stack/modules/${module}/go.mod`, 'utf8'))?.[1],
    );
    expect(asked).toBe(built);
  });

  it.each(cases)('$name', async ({ base, patches, yaml, json, error }) => {
    const answer = await istio.apply(base, patches);
    expect([k8sOf(answer.yaml), k8sOf(answer.json)]).toEqual([yaml, json ?? yaml]);
    for (const said of [...answer.yaml.errors, ...answer.json.errors])
      if (error) expect(said).toMatch(error);
      else expect(said).toBe('');
  });
});

describe('what istiod gets', () => {
  const values = (pilot: Json): Json => ({ spec: { values: { pilot } } });
  const podOf = async (base: Json) => (await istio.apply(base, [])).yaml.pod;
  const both = (pilot: Json, fields: Json): Json => {
    const { spec } = withK8s(fields) as { spec: Json };
    return { spec: { ...spec, values: { pilot } } };
  };

  it('of the values, as from the list and the map', async () => {
    expect(await podOf(values({ env: { A: '1' }, podAnnotations: { b: 'c' } }))).toEqual({
      env: [a],
      annotations: { b: 'c' },
    });
  });

  it('of both: the list and the map win by name, the rest stays', async () => {
    const base = both(
      { env: { A: '1', ROOT_CA_DIR: '/x' }, podAnnotations: { b: 'c', d: 'e' } },
      { env: [dir('/y'), dir('/z')], podAnnotations: { b: 'f' } },
    );
    const pod = await podOf(base);
    expect(new Map(pod.env.map((v) => [v.name, v.value]))).toEqual(
      new Map([
        ['A', '1'],
        ['ROOT_CA_DIR', '/z'],
      ]),
    );
    expect(pod.annotations).toEqual({ b: 'f', d: 'e' });
  });

  it('of an item without a value: that of the values', async () => {
    const pod = await podOf(both({ env: { ROOT_CA_DIR: '/x' } }, { env: [{ name: 'ROOT_CA_DIR' }] }));
    expect(pod.env).toEqual([dir('/x')]);
  });

  it.each([
    ['null for a list', null],
    ['an item with null for its value', [{ name: 'ROOT_CA_DIR', value: null }]],
    ['an item that deletes', [{ name: 'ROOT_CA_DIR', $patch: 'delete' }]],
    ['a list that replaces', [{ $patch: 'replace' }, a]],
  ])('of %s: nothing', async (_, list) => {
    const pod = await podOf(both({ env: { ROOT_CA_DIR: '/x' } }, { env: list }));
    expect(pod.env.filter((v) => v.name === 'ROOT_CA_DIR' && v.value !== undefined)).toEqual([]);
  });

  it('of a list of something else: nothing can be rendered', async () => {
    for (const list of [[[a]], [{ value: '1' }], { '[-1]': a }])
      expect((await podOf(both({ env: { A: '2' } }, { env: list }))).error).toBeTruthy();
  });
});

// Properties: whatever else stands in the list.

const operator = 'tsb-istiocontrolplane';

interface Entry {
  apiVersion: string;
  kind: string;
  name: string;
  patches: Patch[];
}

/** The control plane as the operator sees and changes it; the only use of the adapter here. */
const adapter = adapters.TetrateControlPlane;
const target = (object: Json): Target => ({
  object,
  namespace: 'istio-system',
  spec: minimalSpec().controlPlane,
  relatives: [],
  deployments: [],
});
function factsOf(object: Json, fields: IstiodFields): ControlPlaneFacts {
  const facts = adapter.look(target(object), fields);
  if ('unfit' in facts) throw new Error(facts.unfit.message);
  return facts;
}
const patched = (object: Json, fields: IstiodFields): Json => written(object, adapter.write(target(object), fields));
const released = (object: Json): Json => written(object, adapter.release(target(object)));

const listPath = ['spec', 'components', 'istio', 'kubeSpec', 'overlays'];
const controlPlane = (overlays: Entry[]): Json => ({
  metadata: { name: 'controlplane', resourceVersion: '7', annotations: { other: 'kept' } },
  spec: { hub: 'registry.example', components: { istio: { kubeSpec: { overlays } } } },
});
const overlaysOf = (object: Json) => dig(object, ...listPath) as Entry[];
const isOurs = (entry: Entry) => entry.kind === 'IstioOperator' && entry.name === operator;
const patchesOf = (object: Json): Patch[] => overlaysOf(object).find(isOurs)?.patches ?? [];
const entryOf = (patches: Patch[]): Entry => ({
  apiVersion: 'install.istio.io/v1alpha1',
  kind: 'IstioOperator',
  name: operator,
  patches,
});

/** A field of ours as the IstioOperator has it. */
interface Leaf {
  at: string[];
  value: unknown;
}

const podAnnotations = ['spec', 'components', 'pilot', 'k8s', 'podAnnotations'];
const envMap = ['spec', 'values', 'pilot', 'env'];
const envList = ['spec', 'components', 'pilot', 'k8s', 'env'];
const hold = ['spec', 'meshConfig', 'defaultConfig', 'holdApplicationUntilProxyStarts'];
const leavesOf = (fields: IstiodFields): Leaf[] => [
  ...Object.entries(fields.env).map(([name, value]) => ({ at: [...envMap, name], value })),
  ...Object.entries(fields.podAnnotations).map(([name, value]) => ({ at: [...podAnnotations, name], value })),
  ...(fields.holdApplicationUntilProxyStarts ? [{ at: hold, value: true }] : []),
];
const pathOf = (at: string[]) => at.map((element) => element.replaceAll('.', '\\.')).join('.');

/** An object with leaves set, and objects made where nothing is on the way; undefined when something else is there. */
function withLeaves(object: Json, leaves: Leaf[]): Json | undefined {
  const set = (into: unknown, at: string[], value: unknown): unknown => {
    const [first, ...rest] = at;
    if (first === undefined) return value;
    if (into !== undefined && into !== null && !isObject(into)) throw new Error('something else is there');
    return { ...into, [first]: set(isObject(into) ? into[first] : undefined, rest, value) };
  };
  try {
    return leaves.reduce((made, { at, value }) => set(made, at, value) as Json, object);
  } catch {
    return undefined;
  }
}

/** What the pod has of a leaf: null when nothing, undefined when no pod can be rendered. */
function effect({ object, pod }: Outcome, { at }: Leaf): unknown {
  const name = at.at(-1) ?? '';
  if (at === hold) return dig(object, ...at) ?? null;
  if (pod.error !== undefined) return undefined;
  const variable = pod.env.findLast((v) => v.name === name);
  // with both, the API server refuses the pod
  if (at.length === envMap.length + 1) return variable?.valueFrom ?? variable?.value ?? null;
  return pod.annotations[name] ?? null;
}

const directory = '/vault/secrets';
const ourRole = 'vault.hashicorp.com/role';
const someFields = fc
  .record({
    hold: fc.boolean(),
    digest: fc.option(fc.constantFrom('aa', 'bb'), { nil: undefined }),
    cpu: fc.boolean(),
  })
  .map(({ hold, digest, cpu }): IstiodFields => {
    const fields = istiodFields(
      minimalSpec({
        controlPlane: {
          kind: 'TetrateControlPlane',
          name: 'controlplane',
          holdApplicationUntilProxyStarts: hold,
        },
        delivery: { directory, annotations: cpu ? { 'vault.hashicorp.com/agent-limits-cpu': '1' } : {} },
      }),
      digest,
    );
    // a few of them: counterexamples are to be read
    const few = Object.entries(fields.podAnnotations).filter(([name]) => /role|ca-key|cpu|digest/.test(name));
    return { ...fields, podAnnotations: Object.fromEntries(few) };
  });
const aLeaf = fc.constantFrom<Leaf>(
  { at: [...envMap, 'ROOT_CA_DIR'], value: directory },
  { at: [...podAnnotations, ourRole], value: 'istiod' },
  { at: [...podAnnotations, digestAnnotation], value: 'aa' },
  { at: hold, value: true },
);
const leafValue = (leaf: Leaf) =>
  fc.oneof(fc.constant(leaf.value), fc.constant(leaf.value), fc.constant('other'), fc.constant(false));

/** An item of the env list. */
const variable = fc.oneof(
  fc.record({ name: fc.constantFrom('A', 'B'), value: fc.constantFrom('1', '2', directory) }),
  fc.record(
    {
      name: fc.constantFrom('ROOT_CA_DIR', 'A'),
      value: fc.constantFrom<unknown>(directory, directory, '/x', null, 5),
      valueFrom: fc.constant({ fieldRef: { fieldPath: 'x' } }),
      $patch: fc.constant('delete'),
    },
    { requiredKeys: ['name'] },
  ),
  fc.constant({ name: 'ROOT_CA_DIR', value: directory }),
  fc.constant({ $patch: 'replace' }),
);

/** An IstioOperator's spec, in part. `ours` says what stands at places of ours. */
const someTree = (items: fc.Arbitrary<unknown>) =>
  fc
    .tuple(
      fc.record(
        {
          hub: fc.constant('registry.example'),
          components: fc.record(
            {
              pilot: fc.record(
                {
                  enabled: fc.constant(true),
                  k8s: fc.record(
                    {
                      env: fc.array(items, { maxLength: 3 }),
                      podAnnotations: fc.oneof(
                        fc.constant({}),
                        fc.constant(null),
                        fc.constant({ 'prometheus.io/scrape': 'true' }),
                      ),
                      resources: fc.constant({ limits: { cpu: '1' } }),
                    },
                    { requiredKeys: [] },
                  ),
                },
                { requiredKeys: [] },
              ),
              cni: fc.constant({ enabled: false }),
            },
            { requiredKeys: [] },
          ),
          values: fc.record(
            {
              global: fc.constant({ proxy: { logLevel: 'warn' } }),
              pilot: fc.record(
                {
                  env: fc.constantFrom({}, { PILOT_X: '1' }, null),
                  autoscaleEnabled: fc.constant(false),
                  podAnnotations: fc.constant({ x: 'z' }),
                },
                { requiredKeys: [] },
              ),
            },
            { requiredKeys: [] },
          ),
          meshConfig: fc.constantFrom({}, { defaultConfig: {} }, { defaultConfig: { concurrency: 2 } }, null),
        },
        { requiredKeys: ['hub'] },
      ),
      fc.array(
        aLeaf.chain((leaf) => fc.record({ at: fc.constant(leaf.at), value: leafValue(leaf) })),
        { maxLength: 2 },
      ),
    )
    .map(([spec, ours]) => withLeaves({ spec }, ours) ?? { spec });

/** What TSB may render: it knows nothing of ROOT_CA_DIR in the list, where the operator could not see it. */
const someBase = someTree(fc.record({ name: fc.constantFrom('A', 'B'), value: fc.constantFrom('1', directory) }));

/** A path in any of its spellings. */
const spelled = (at: string[]): fc.Arbitrary<string> => {
  const plain = pathOf(at).replaceAll('.[', '[');
  return fc.oneof(
    { weight: 6, arbitrary: fc.constant(plain) },
    {
      weight: 1,
      arbitrary: fc.constantFrom(
        pathOf(at),
        plain.replaceAll(/(?<!\\)[.]/g, '..'),
        plain.replaceAll('/', '//'),
        plain.replaceAll('/', '/./'),
        `x/../${plain}`,
        `./${plain}`,
        `.${plain}.`,
        `${plain}/`,
      ),
    },
  );
};

const nonsense = fc.constantFrom(
  '',
  '.',
  '[',
  '[-1]',
  'spec.[',
  '/spec.values',
  'spec/values/pilot',
  '../spec.values',
  'spec[0]',
  'spec.values[-1].pilot',
  'spec.values.pilot.env[ROOT_CA_DIR]',
  'spec.values.pilot.envs',
  'spec.components.pilot.k8s.env.ROOT_CA_DIR',
  'spec.components.pilot.k8s.podAnnotations[name:a]',
);
const selector = fc.constantFrom(
  '[-1]',
  '[0]',
  '[1]',
  '[5]',
  '[name:ROOT_CA_DIR]',
  '[name:ROOT_CA_DIR]',
  '[name:A]',
  '[value:/vault/secrets]',
  '[:A]',
  '[x]',
);
const aTree = someTree(variable);
const nothing = fc.constantFrom<unknown>(null, undefined);
const scalar = fc.constantFrom<unknown>('text', '{"a": "b"}', 5, true, []);
const at = (where: string[], value: fc.Arbitrary<unknown>): fc.Arbitrary<Patch> =>
  fc.record({ path: spelled(where), value });

const plainPatch = fc.oneof(
  at([...podAnnotations, 'prometheus.io/scrape'], fc.constant('true')),
  at([...envMap, 'PILOT_X'], fc.constant('1')),
  at(['spec', 'values', 'global', 'proxy', 'logLevel'], fc.constant('warn')),
  at(['spec', 'components', 'pilot', 'k8s', 'resources'], nothing),
);
const foreignPatch: fc.Arbitrary<Patch> = fc.oneof(
  { weight: 4, arbitrary: plainPatch },
  // an object above, whole
  {
    weight: 3,
    arbitrary: aLeaf
      .chain((leaf) => fc.integer({ min: 1, max: leaf.at.length - 1 }).map((end) => leaf.at.slice(0, end)))
      .chain((where) =>
        at(
          where,
          fc.oneof(
            aTree.map((tree) => dig(tree, ...where) ?? {}),
            aTree.map((tree) => dig(tree, ...where) ?? {}),
            nothing,
          ),
        ),
      ),
  },
  {
    weight: 1,
    arbitrary: aLeaf
      .chain((leaf) => fc.integer({ min: 1, max: leaf.at.length - 1 }).map((end) => leaf.at.slice(0, end)))
      .chain((where) => at(where, scalar)),
  },
  // a place of ours, or one below
  {
    weight: 2,
    arbitrary: aLeaf.chain((leaf) =>
      at(leaf.at, fc.oneof(leafValue(leaf), leafValue(leaf), nothing, fc.constant({ x: 'y' }), fc.constant(['x']))),
    ),
  },
  {
    weight: 1,
    arbitrary: fc
      .tuple(aLeaf, fc.constantFrom('x', '[-1]', '[0]', '[name:x]'))
      .chain(([leaf, below]) => at([...leaf.at, below], fc.oneof(fc.constant('y'), nothing))),
  },
  // the list of variables
  { weight: 1, arbitrary: at(envList, fc.oneof(fc.array(variable, { maxLength: 3 }), nothing)) },
  {
    weight: 2,
    arbitrary: selector.chain((item) => at([...envList, item], fc.oneof(variable, variable, nothing))),
  },
  {
    weight: 2,
    arbitrary: fc
      .tuple(
        selector,
        fc.constantFrom(['value'], ['value'], ['name'], ['valueFrom'], ['valueFrom', 'fieldRef'], ['value', 'x']),
      )
      .chain(([item, field]) =>
        at(
          [...envList, item, ...field],
          fc.constantFrom<unknown>(directory, directory, '/x', 'ROOT_CA_DIR', 'B', null),
        ),
      ),
  },
  { weight: 1, arbitrary: fc.record({ path: nonsense, value: fc.constantFrom<unknown>('x', {}, null, directory) }) },
);

const otherEntry: fc.Arbitrary<Entry> = fc.record({
  apiVersion: fc.constantFrom('v1', 'install.istio.io/v1alpha1'),
  kind: fc.constantFrom('IstioOperator', 'Deployment'),
  name: fc.constantFrom('xcp-iop-canary', 'istiod'),
  patches: fc.array(foreignPatch, { maxLength: 2 }),
});

type Encoding = 'yaml' | 'json';
/** `OVERLAY_RUNS` asks for more. */
const runs = { numRuns: Number(process.env['OVERLAY_RUNS'] ?? 500) };

/**
 * Whether the library puts one list into the other on the way, as it does where it should replace it. Istio can render
 * nothing of that; a selector that then fits the text of the whole inner list replaces it all.
 */
async function nests(base: Json, patches: Patch[], encoding: Encoding): Promise<boolean> {
  const states = await Promise.all(patches.map((_, i) => istio.apply(base, patches.slice(0, i + 1))));
  return states.some((state) => {
    const list = dig(state[encoding].object, ...envList);
    return Array.isArray(list) && list.some((item) => Array.isArray(item));
  });
}

/** The pod has our leaves, if one can be rendered. */
async function expectInPod(
  base: Json,
  patches: Patch[],
  leaves: Leaf[],
  encoding: Encoding,
  outcome: Outcome,
): Promise<void> {
  if (outcome.pod.error !== undefined) return;
  const lacks = leaves.filter((leaf) => effect(outcome, leaf) !== leaf.value);
  if (lacks.some(({ at }) => at[1] !== 'values') || (lacks.length > 0 && !(await nests(base, patches, encoding))))
    expect(lacks).toEqual([]);
}

/**
 * Ours are the last patches: the object is the one that the others make, with our leaves, and the pod has them.
 * @returns whether a pod could be rendered: of what some patches leave Istio makes none, with or without ours
 */
async function expectEffect(
  base: Json,
  patches: Patch[],
  leaves: Leaf[],
  encodings: Encoding[] = ['yaml', 'json'],
): Promise<boolean> {
  const foreign = patches.slice(0, patches.length - leaves.length);
  const [alone, all] = await Promise.all([istio.apply(base, foreign), istio.apply(base, patches)]);
  for (const encoding of encodings) {
    const [without, withOurs] = [alone[encoding], all[encoding]];
    expect(withOurs.errors).toEqual([...without.errors, ...leaves.map(() => '')]);
    expect(withOurs.object).toEqual(withLeaves(without.object, leaves));
    if (without.pod.error !== undefined) continue;
    expect(withOurs.pod.error).toBeUndefined();
    await expectInPod(base, patches, leaves, encoding, withOurs);
  }
  return alone.yaml.pod.error === undefined;
}

/** What an IstioOperator may also be: which one it is the operator does not see. */
function otherBases(base: Json, leaves: Leaf[]): Json[] {
  const b = { name: 'B', value: directory };
  const lists = [[], [a], [a, b], [a, dir(directory)], [a, b, dir(directory)]];
  const made = [base, { spec: {} }, ...lists.map((value) => withLeaves(base, [{ at: envList, value }]) ?? base)];
  return [...made, ...made.map((object) => withLeaves(object, leaves) ?? object)];
}

/** The leaves that patches of others make something else of, or keep ours from having effect on. */
async function disturbed(base: Json, foreign: Patch[], leaves: Leaf[]): Promise<Leaf[]> {
  const ours = leaves.map(({ at, value }) => ({ path: pathOf(at), value }));
  const [before, alone, all] = await Promise.all(
    [[], foreign, [...foreign, ...ours]].map((patches) => istio.apply(base, patches)),
  );
  return leaves.filter((leaf) =>
    (['yaml', 'json'] as const).some((encoding) => {
      const [was, is, willBe] = [before, alone, all].map((answer) => dig(answer?.[encoding].object, ...leaf.at));
      if (!isDeepStrictEqual(is, leaf.value) && !isDeepStrictEqual(is, was)) return true;
      if (!isDeepStrictEqual(willBe, leaf.value)) return true;
      const rendered = before?.[encoding].pod.error === undefined;
      return rendered && leaf.at[1] === 'values' && all && effect(all[encoding], leaf) !== leaf.value;
    }),
  );
}

/** The leaves on which the last patch that sets or deletes them is one of exactly this leaf, and says something else. */
async function overruled(base: Json, foreign: Patch[], leaves: Leaf[]): Promise<string[][]> {
  // with something beside a leaf on every level, it shows whether a patch is of an object above
  const marksOf = ({ at }: Leaf) => [
    ...at.map((_, i) => ({ at: [...at.slice(0, i), 'beside'], value: 'x' })),
    { at, value: 'mark' },
  ];
  const last = new Map<Leaf, unknown>();
  for (const [i, patch] of foreign.entries()) {
    const state = (await istio.apply(base, foreign.slice(0, i))).yaml.object;
    // nothing reaches a leaf below what is no object
    const reached = leaves.filter((leaf) => withLeaves(state, marksOf(leaf)));
    const marked = withLeaves(state, reached.flatMap(marksOf)) ?? state;
    const after = (await istio.apply(marked, [patch])).yaml.object;
    for (const leaf of leaves) {
      const value = dig(after, ...leaf.at);
      if (isDeepStrictEqual(value, dig(marked, ...leaf.at))) continue;
      const only = isDeepStrictEqual(withLeaves(after, [{ at: leaf.at, value: 'mark' }]), marked);
      last.set(leaf, only ? value : leaf.value);
    }
  }
  return [...last].flatMap(([leaf, value]) => (isDeepStrictEqual(value, leaf.value) ? [] : [leaf.at]));
}

describe('whatever else stands in the list', () => {
  const seen = { free: 0, rendered: 0, carried: 0, conflicts: 0 };

  it('without a conflict our fields have effect, and nothing else changes until they are given back', async () => {
    await fc.assert(
      fc.asyncProperty(
        someBase,
        fc.array(otherEntry, { maxLength: 2 }),
        fc.option(fc.array(foreignPatch, { maxLength: 6 }), { nil: undefined }),
        fc.array(otherEntry, { maxLength: 2 }),
        someFields,
        async (base, before, foreign, after, fields) => {
          const object = controlPlane([...before, ...(foreign ? [entryOf(foreign)] : []), ...after]);
          const written = patched(object, fields);
          expect(released(written)).toEqual(object);
          if (factsOf(object, fields).conflicts.length > 0) return;
          seen.free += 1;
          const leaves = leavesOf(fields);
          const patches = patchesOf(written);
          expect(patches.slice(0, patches.length - leaves.length)).toEqual(foreign ?? []);
          expect(overlaysOf(written).filter((entry) => !isOurs(entry))).toEqual([...before, ...after]);
          expect(factsOf(written, fields)).toMatchObject({ carriesFields: true, conflicts: [] });
          expect(patched(written, fields)).toEqual(written);
          if (await expectEffect(base, patches, leaves)) seen.rendered += 1;
        },
      ),
      runs,
    );
    // else the property would say little
    expect(seen.free).toBeGreaterThan(runs.numRuns / 3);
    expect(seen.rendered).toBeGreaterThan(runs.numRuns / 4);
  });

  it('fields that are said to be carried have effect, also between patches that came later', async () => {
    const late = fc.array(fc.tuple(fc.nat(40), foreignPatch), { minLength: 1, maxLength: 3 });
    await fc.assert(
      fc.asyncProperty(
        someBase,
        fc.array(foreignPatch, { maxLength: 2 }),
        late,
        someFields,
        async (base, foreign, later, fields) => {
          const written = patched(controlPlane([entryOf(foreign)]), fields);
          const patches = later.reduce((list, [where, patch]) => list.toSpliced(where, 0, patch), patchesOf(written));
          const edited = { ...written, spec: controlPlane([entryOf(patches)])['spec'] };
          const { carriesFields, conflicts } = factsOf(edited, fields);
          if (conflicts.length > 0) return;
          const leaves = leavesOf(fields);
          if (carriesFields) {
            const answer = await istio.apply(base, patches);
            for (const encoding of ['yaml', 'json'] as const) {
              const outcome = answer[encoding];
              expect(outcome.object).toEqual(withLeaves(outcome.object, leaves));
              await expectInPod(base, patches, leaves, encoding, outcome);
            }
            seen.carried += 1;
          }
          const repaired = patched(edited, fields);
          expect(factsOf(repaired, fields)).toMatchObject({ carriesFields: true, conflicts: [] });
          await expectEffect(base, patchesOf(repaired), leaves);
        },
      ),
      runs,
    );
    expect(seen.carried).toBeGreaterThan(runs.numRuns / 10);
  });

  it('text that reads as YAML is an object to Istio, and to us', async () => {
    const text = aLeaf
      .chain((leaf) => fc.integer({ min: 1, max: leaf.at.length - 1 }).map((end) => leaf.at.slice(0, end)))
      .chain((where) =>
        at(
          where,
          aTree.map((tree) => stringify(dig(tree, ...where) ?? {})),
        ),
      );
    const item = selector.chain((select) =>
      at(
        [...envList, select],
        variable.map((value) => stringify(value)),
      ),
    );
    const line = aLeaf.chain(({ at: where }) =>
      at(where.slice(0, -1), fc.constantFrom('a: b', 'a: {', 'a:b', '{"a": "b"}', '- a: b')),
    );
    await fc.assert(
      fc.asyncProperty(
        someBase,
        fc.oneof(text, item, line),
        fc.array(plainPatch, { maxLength: 2 }),
        someFields,
        async (base, first, more, fields) => {
          const object = controlPlane([entryOf([first, ...more])]);
          if (factsOf(object, fields).conflicts.length > 0) return;
          // a second text, or one below what a patch has set, replaces its own key: so only one, and first
          await expectEffect(base, patchesOf(patched(object, fields)), leavesOf(fields), ['yaml']);
        },
      ),
      runs,
    );
  });
});

describe('a conflict', () => {
  const conflictsOf = (foreign: Patch[], fields: IstiodFields) =>
    factsOf(controlPlane([entryOf(foreign)]), fields).conflicts.map(({ place }) => place.replace(`${operator}: `, ''));
  const foreignPatches = fc.array(foreignPatch, { maxLength: 6 });

  it('that is said is one, with some object that may be rendered', async () => {
    let said = 0;
    await fc.assert(
      fc.asyncProperty(someBase, foreignPatches, someFields, async (base, foreign, fields) => {
        const leaves = leavesOf(fields);
        const places = conflictsOf(foreign, fields);
        if (places.length === 0) return;
        const found = await Promise.all(otherBases(base, leaves).map((object) => disturbed(object, foreign, leaves)));
        const paths = found.flat().map(({ at }) => `${pathOf(at)}.`);
        for (const place of places) expect(paths.some((path) => path.startsWith(`${place}.`)) || place).toBe(true);
        said += places.length;
      }),
      runs,
    );
    expect(said).toBeGreaterThan(runs.numRuns / 5);
  });

  it('is said wherever the last word on a place of ours is a patch of just this place', async () => {
    let found = 0;
    await fc.assert(
      fc.asyncProperty(someBase, foreignPatches, someFields, async (base, foreign, fields) => {
        const paths = (await overruled(base, foreign, leavesOf(fields))).map(pathOf);
        const places = conflictsOf(foreign, fields);
        for (const path of paths) expect(places.some((place) => `${path}.`.startsWith(`${place}.`)) || path).toBe(true);
        found += paths.length;
      }),
      runs,
    );
    expect(found).toBeGreaterThan(runs.numRuns / 20);
  });
});
