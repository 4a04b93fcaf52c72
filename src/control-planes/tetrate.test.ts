import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { dig, type JsonObject } from '../api/json.ts';
import { minimalSpec } from '../../test/unit/model.ts';
import { mergePatch, written } from '../../test/unit/written.ts';
import { istiodFields, type IstiodFields } from '../plan/control-plane/istiod-fields.ts';
import type { ControlPlaneFacts } from '../plan/facts/observed.ts';
import { type Target } from './adapter.ts';
import { overlayPatches } from './overlay.ts';
import { tetrate } from './tetrate.ts';

const operator = 'tsb-istiocontrolplane';
const annotations = 'spec.components.pilot.k8s.podAnnotations';
const envList = 'spec.components.pilot.k8s.env';
const rootCaDir = 'spec.values.pilot.env.ROOT_CA_DIR';
const fields = (over: Record<string, unknown> = {}, digest?: string) => istiodFields(minimalSpec(over), digest);
const noFields: IstiodFields = { env: {}, podAnnotations: {}, holdApplicationUntilProxyStarts: false };
const target = (object: JsonObject, revision?: string, over: Partial<Target> = {}): Target => ({
  object,
  namespace: 'istio-system',
  spec: minimalSpec({
    controlPlane: {
      kind: 'TetrateControlPlane',
      name: 'controlplane',
      ...(revision === undefined ? {} : { revision }),
    },
  }).controlPlane,
  relatives: [],
  deployments: [],
  ...over,
});
const facts = (object: JsonObject, wanted: IstiodFields, revision?: string): ControlPlaneFacts => {
  const seen = tetrate.look(target(object, revision), wanted);
  if ('unfit' in seen) throw new Error(seen.unfit.message);
  return seen;
};

const apply = (object: JsonObject, wanted: IstiodFields, revision?: string): JsonObject =>
  written(object, tetrate.write(target(object, revision), wanted));

const controlPlane = (overlays?: unknown[]): JsonObject => ({
  metadata: { name: 'controlplane', resourceVersion: '7', annotations: { other: 'kept' } },
  spec: {
    hub: 'registry.example',
    components: { xcp: { centralAuthMode: 'JWT' }, istio: { traceSamplingRate: 5, ...kubeSpec(overlays) } },
  },
});
const kubeSpec = (overlays?: unknown[]) => (overlays ? { kubeSpec: { overlays } } : {});

interface Entry {
  kind: string;
  name: string;
  patches: { path: string; value: unknown }[];
}
const overlaysOf = (object: JsonObject) =>
  (dig(object, 'spec', 'components', 'istio', 'kubeSpec', 'overlays') ?? []) as Entry[];
const isOurs = (entry: Entry, name = operator) => entry.kind === 'IstioOperator' && entry.name === name;
const patchesOf = (object: JsonObject) => overlaysOf(object).find((entry) => isOurs(entry))?.patches ?? [];
const entry = (...patches: { path: string; value: unknown }[]) => ({
  apiVersion: 'install.istio.io/v1alpha1',
  kind: 'IstioOperator',
  name: operator,
  patches,
});

const prefixes = [
  annotations,
  'spec.components.pilot.k8s',
  'spec.components',
  'spec.values.pilot.env',
  'spec.values.pilot',
  'spec.values',
  'spec',
];
const someObject = fc.dictionary(fc.string(), fc.string());
const value = fc.oneof(fc.string(), fc.boolean(), fc.integer(), someObject);
const prefixPatch = fc.record({ path: fc.constantFrom(...prefixes), value: someObject });
const siblingPatch = fc.record({
  path: fc.constantFrom(
    `${annotations}.prometheus\\.io/scrape`,
    `${annotations}Other`,
    'spec.values.pilot.env.PILOT_X',
    'spec.values.global.proxy.logLevel',
    `${envList}[-1]`,
    'spec.components.pilot.k8s.resources',
  ),
  value,
});
const foreignPatch = fc.oneof(prefixPatch, siblingPatch);
const otherEntry = fc.record({
  apiVersion: fc.constantFrom('v1', 'install.istio.io/v1alpha1'),
  kind: fc.constantFrom('IstioOperator', 'Deployment', 'ConfigMap'),
  name: fc.constantFrom('xcp-iop-canary', 'istiod', 'tsb-istiocontrolplane-2'),
  patches: fc.array(foreignPatch, { maxLength: 4 }),
});
const ourEntry = fc.record({
  apiVersion: fc.constant('install.istio.io/v1alpha1'),
  kind: fc.constant('IstioOperator'),
  name: fc.constant(operator),
  patches: fc.array(foreignPatch, { maxLength: 6 }),
});
/** Overlay entries of others, with or without one for the IstioOperator of the operator. */
const foreignOverlays = fc
  .tuple(
    fc.array(otherEntry, { maxLength: 4 }),
    fc.option(ourEntry, { nil: undefined }),
    fc.array(otherEntry, { maxLength: 4 }),
  )
  .map(([before, ours, after]): Entry[] => [...before, ...(ours ? [ours] : []), ...after]);
const someFields = fc
  .record({
    hold: fc.boolean(),
    digest: fc.option(fc.constantFrom('aa', 'bb', 'cc'), { nil: undefined }),
    cpu: fc.option(fc.constantFrom('250m', '1'), { nil: undefined }),
  })
  .map(({ hold, digest, cpu }) => {
    const made = fields(
      { delivery: { annotations: cpu === undefined ? {} : { 'vault.hashicorp.com/agent-limits-cpu': cpu } } },
      digest,
    );
    return { ...made, holdApplicationUntilProxyStarts: hold };
  });

function expectCarried(object: JsonObject, wanted: IstiodFields, foreign: Entry[]): void {
  expect(facts(object, wanted)).toMatchObject({
    carriesFields: true,
    writtenBefore: true,
    conflicts: [],
  });
  const ourPatches = overlayPatches(wanted);
  const list = overlaysOf(object);
  expect(list.filter((e) => isOurs(e))).toHaveLength(1);
  expect(list.filter((e) => !isOurs(e))).toEqual(foreign.filter((e) => !isOurs(e)));
  const foreignPatches = foreign.find((e) => isOurs(e))?.patches ?? [];
  // The patches of others are unchanged and in order, and those of the operator follow: no patch above a path comes later.
  expect(patchesOf(object)).toEqual([...foreignPatches, ...ourPatches]);
  if (foreign.some((e) => isOurs(e)))
    expect(list.map((e) => [e.kind, e.name])).toEqual(foreign.map((e) => [e.kind, e.name]));
}

describe('writing the fields into an overlay list', () => {
  it('carries every field, keeps all that is foreign, and is idempotent', () => {
    fc.assert(
      fc.property(foreignOverlays, someFields, someFields, (foreign, first, second) => {
        const once = apply(controlPlane(foreign), first);
        expectCarried(once, first, foreign);
        expect(apply(once, first)).toEqual(once);
        const changed = apply(once, second);
        expectCarried(changed, second, foreign);
        expect(apply(changed, noFields)).toEqual(apply(once, noFields));
      }),
    );
  });

  it('repairs whatever somebody does to the list afterwards', () => {
    fc.assert(
      fc.property(foreignOverlays, someFields, fc.nat(30), foreignPatch, (foreign, wanted, cut, late) => {
        const once = apply(controlPlane(foreign), wanted);
        const edited = overlaysOf(once).map((e) =>
          isOurs(e) ? { ...e, patches: [...e.patches.filter((_, i) => i !== cut), late] } : e,
        );
        const damaged = mergePatch(once, { spec: { components: { istio: kubeSpec(edited) } } });
        const repaired = apply(damaged, wanted);
        expect(facts(repaired, wanted).carriesFields).toBe(true);
        expect(apply(repaired, wanted)).toEqual(repaired);
      }),
    );
  });

  it('leaves what stands at its places, and takes only its own away', () => {
    const prior = fc.uniqueArray(
      fc.record({ path: fc.constantFrom(...overlayPatches(fields()).map((p) => p.path)), value: fc.string() }),
      { selector: (p) => p.path, maxLength: 4 },
    );
    fc.assert(
      fc.property(prior, fc.array(foreignPatch, { maxLength: 3 }), someFields, (before, foreign, wanted) => {
        const written = apply(controlPlane([entry(...before, ...foreign)]), wanted);
        expect(facts(written, wanted).carriesFields).toBe(true);
        expect(patchesOf(apply(written, noFields))).toEqual([...before, ...foreign]);
      }),
    );
  });

  it.each(prefixes)('moves its patches behind a later %s, which would replace them', (path) => {
    const wanted = fields({ controlPlane: { kind: 'TetrateControlPlane', name: 'controlplane' } }, 'd1');
    const once = apply(controlPlane(), wanted);
    const shadowed = controlPlane([entry(...patchesOf(once), { path, value: {} })]);
    shadowed['metadata'] = once['metadata'];
    expect(facts(shadowed, wanted).carriesFields).toBe(false);
    expect(patchesOf(apply(shadowed, wanted))).toEqual([{ path, value: {} }, ...overlayPatches(wanted)]);
  });

  it('moves its patches behind a later one of the same place with another path', () => {
    const once = apply(controlPlane(), fields());
    const other = { path: 'spec.values..pilot.env.ROOT_CA_DIR', value: '/vault/secrets' };
    const none = { ...other, value: null };
    const edited = (...late: unknown[]) => {
      const overlays = [{ ...entry(), patches: [...patchesOf(once), ...late] }];
      return { ...once, spec: controlPlane(overlays)['spec'] };
    };
    expect(facts(edited(other), fields()).carriesFields).toBe(true);
    expect(facts(edited(none), fields()).carriesFields).toBe(false);
    expect(facts(edited(none, other), fields()).carriesFields).toBe(true);
    expect(patchesOf(apply(edited(none), fields()))).toEqual([none, ...overlayPatches(fields())]);
  });

  it('changes only its own annotation and the overlays, under the resourceVersion it has read', () => {
    const before = controlPlane([entry()]);
    expect(tetrate.write(target(before), fields()).map(({ kind }) => kind)).toEqual(['merge']);
    const after = apply(before, fields());
    expect(dig(after, 'metadata', 'annotations', 'other')).toBe('kept');
    expect(dig(after, 'spec', 'components', 'xcp')).toEqual({ centralAuthMode: 'JWT' });
    expect(dig(after, 'spec', 'components', 'istio', 'traceSamplingRate')).toBe(5);
  });

  it('makes the entry where nothing is', () => {
    expect(overlaysOf(apply(controlPlane(), fields()))).toEqual([entry(...overlayPatches(fields()))]);
  });

  it('a new digest replaces the old one, and a dropped annotation goes', () => {
    const limits = { delivery: { annotations: { 'vault.hashicorp.com/agent-limits-cpu': '1' } } };
    const paths = (object: JsonObject) => patchesOf(object).map((p) => `${p.path}=${String(p.value)}`);
    const first = apply(controlPlane(), fields(limits, 'aaa'));
    const second = apply(first, fields({}, 'bbb'));
    const gone = paths(first).filter((p) => !paths(second).includes(p));
    const come = paths(second).filter((p) => !paths(first).includes(p));
    expect(gone).toEqual([
      `${annotations}.istiovaultca\\.io/ca-digest=aaa`,
      `${annotations}.vault\\.hashicorp\\.com/agent-limits-cpu=1`,
    ]);
    expect(come).toEqual([`${annotations}.istiovaultca\\.io/ca-digest=bbb`]);
  });
});

describe('giving the fields back', () => {
  const released = (object: JsonObject) => written(object, tetrate.release(target(object)));
  const specs: [string, JsonObject][] = [
    ['no overlays', { components: { istio: { kubeSpec: { other: 1 } } } }],
    ['an empty list', { components: { istio: { kubeSpec: { overlays: [] } } } }],
    ['an empty kubeSpec', { components: { istio: { kubeSpec: {} } } }],
    ['no kubeSpec', { components: { istio: { traceSamplingRate: 5 } } }],
    ['an empty istio', { components: { istio: {} } }],
    ['no istio', { components: { xcp: {} } }],
    ['no components', { hub: 'x' }],
    ['an empty spec', {}],
    ['an entry without patches', { components: { istio: { kubeSpec: { overlays: [entry()] } } } }],
  ];

  it.each(specs)('leaves a spec with %s as it was, also after a change of ours', (_, spec) => {
    const before = { metadata: { resourceVersion: '7', annotations: { other: 'kept' } }, spec };
    const written = apply(apply(before, fields({}, 'aa')), fields({}, 'bb'));
    expect(released(written)).toEqual(before);
  });

  it('leaves every foreign list as it was, whatever stood at our places', () => {
    fc.assert(
      fc.property(foreignOverlays, someFields, someFields, (foreign, first, second) => {
        const before = controlPlane(foreign);
        expect(released(apply(apply(before, first), second))).toEqual(before);
      }),
    );
  });

  it.each([null, undefined, 5, 'x'])('leaves what stood at a place of ours with the value %p', (before) => {
    const foreign = [before, 'istiod', 'istiod'].map((v) => ({
      path: `${annotations}.vault\\.hashicorp\\.com/role`,
      value: v,
    }));
    const object = controlPlane([entry(...foreign)]);
    const written = apply(apply(object, fields()), fields({}, 'aa'));
    expect(patchesOf(written).slice(0, 3)).toEqual(foreign);
    expect(released(written)).toEqual(object);
  });

  it('keeps what others have added meanwhile', () => {
    const written = apply(controlPlane(), fields());
    const late = { path: 'spec.hub', value: 'x' };
    const edited = mergePatch(written, {
      spec: { components: { istio: kubeSpec([entry(...patchesOf(written), late)]) } },
    });
    expect(overlaysOf(released(edited))).toEqual([entry(late)]);
  });

  it('changes nothing of a control plane that was only claimed', () => {
    const before = controlPlane([entry()]);
    expect(released(before)).toEqual(before);
  });
});

describe('a CA that Tetrate issues for istiod', () => {
  it.each(['xcp', 'istio'])('by centralProvidedCaCert of %s is named', (name) => {
    const withValue = (value: unknown) => ({ spec: { components: { [name]: { centralProvidedCaCert: value } } } });
    expect(facts(withValue(true), fields()).rivalCa).toBe(`spec.components.${name}.centralProvidedCaCert`);
    expect(facts(withValue(false), fields()).rivalCa).toBeUndefined();
  });

  const withIssuer = (certIssuer: unknown) => {
    const object = controlPlane();
    return { ...object, spec: { ...(object['spec'] as JsonObject), certIssuer } };
  };
  it.each([
    [{ defaultIssuer: { selfSigned: {} } }, 'spec.certIssuer.defaultIssuer'],
    [{ selfSigned: {}, tsbCerts: {}, clusterIntermediateCAs: {} }, 'spec.certIssuer.clusterIntermediateCAs'],
    [{ selfSigned: {}, tsbCerts: {} }, undefined],
    [{ defaultIssuer: null }, undefined],
    ['text', undefined],
    [undefined, undefined],
  ])('%j is named as %s', (certIssuer, field) => {
    expect(facts(withIssuer(certIssuer), fields()).rivalCa).toBe(field);
  });
});

describe('conflicts', () => {
  const role = `${annotations}.vault\\.hashicorp\\.com/role`;
  const cases: { name: string; patches: { path: string; value: unknown }[]; place?: string; value?: string }[] = [
    {
      name: 'another annotation value',
      patches: [{ path: role, value: 'mine' }],
      place: `${operator}: ${role}`,
      value: '"mine"',
    },
    {
      name: 'another ROOT_CA_DIR',
      patches: [{ path: rootCaDir, value: '/x' }],
      place: `${operator}: ${rootCaDir}`,
      value: '"/x"',
    },
    {
      name: 'the whole env list',
      patches: [{ path: envList, value: [{ name: 'A' }, { name: 'ROOT_CA_DIR', value: '/x' }] }],
      place: `${operator}: ${rootCaDir}`,
      value: '"/x"',
    },
    {
      name: 'an item appended to the env list',
      patches: [{ path: `${envList}[-1]`, value: { name: 'ROOT_CA_DIR', value: '/x' } }],
      place: `${operator}: ${rootCaDir}`,
      value: '"/x"',
    },
    {
      name: 'the value of an item',
      patches: [{ path: `${envList}[name:ROOT_CA_DIR].value`, value: '/x' }],
      place: `${operator}: ${rootCaDir}`,
      value: '"/x"',
    },
    {
      name: 'the value of an item, with the other bracket form',
      patches: [{ path: `${envList}.[name:ROOT_CA_DIR].value`, value: '/x' }],
      place: `${operator}: ${rootCaDir}`,
      value: '"/x"',
    },
    {
      name: 'an object above the env list',
      patches: [{ path: 'spec.components.pilot', value: { k8s: { env: [{ name: 'ROOT_CA_DIR', value: '/x' }] } } }],
      place: `${operator}: ${rootCaDir}`,
      value: '"/x"',
    },
    {
      name: 'an item with valueFrom',
      patches: [{ path: `${envList}[-1]`, value: { name: 'ROOT_CA_DIR', valueFrom: { fieldRef: {} } } }],
      place: `${operator}: ${rootCaDir}`,
      value: JSON.stringify('{"name":"ROOT_CA_DIR","valueFrom":{"fieldRef":{}}}'),
    },
    { name: 'the same value at our place', patches: [{ path: role, value: 'istiod' }] },
    {
      name: 'the same ROOT_CA_DIR in the env list',
      patches: [{ path: `${envList}[-1]`, value: { name: 'ROOT_CA_DIR', value: '/vault/secrets' } }],
    },
    {
      name: 'other variables in the env list',
      patches: [
        { path: envList, value: [{ name: 'A', value: '/x' }] },
        { path: `${envList}[name:B].value`, value: '/x' },
      ],
    },
    { name: 'a prefix', patches: [{ path: annotations, value: { a: 'b' } }] },
    {
      name: 'a prefix with another value, which ours replaces',
      patches: [{ path: annotations, value: { 'vault.hashicorp.com/role': 'mine' } }],
    },
    ...[
      ['double dots', 'spec..values.pilot.env.ROOT_CA_DIR'],
      ['a way up and down', `x/../${rootCaDir}`],
      ['dots round it', `.${rootCaDir}.`],
    ].map(([name, path]) => ({
      name: `another ROOT_CA_DIR, its path with ${name ?? ''}`,
      patches: [{ path: path ?? '', value: '/x' }],
      place: `${operator}: ${rootCaDir}`,
      value: '"/x"',
    })),
    {
      name: 'another role, its path with a slash more',
      patches: [{ path: role.replace('/', '//'), value: 'mine' }],
      place: `${operator}: ${role}`,
      value: '"mine"',
    },
    {
      name: 'something below a place of ours',
      patches: [{ path: `${role}.x`, value: 'y' }],
      place: `${operator}: ${role}`,
      value: '{"x":"y"}',
    },
    {
      name: 'text above our places',
      patches: [{ path: 'spec.values.pilot', value: 'text' }],
      place: `${operator}: spec.values.pilot`,
      value: '"text"',
    },
    {
      name: 'a list above our places',
      patches: [{ path: annotations, value: ['a'] }],
      place: `${operator}: ${annotations}`,
      value: '["a"]',
    },
    {
      name: 'what may make a list above our places',
      patches: [{ path: 'spec.values.pilot.env[-1]', value: 'a' }],
      place: `${operator}: spec.values.pilot.env`,
      value: '["a"]',
    },
    { name: 'YAML above our places', patches: [{ path: annotations, value: 'a: b' }] },
    { name: 'text that an object replaces', patches: ['text', {}].map((value) => ({ path: 'spec.values', value })) },
    {
      name: 'YAML of a variable',
      patches: [{ path: `${envList}[-1]`, value: 'name: ROOT_CA_DIR\nvalue: /x' }],
      place: `${operator}: ${rootCaDir}`,
      value: '"/x"',
    },
    {
      name: 'a value that a later one replaces',
      patches: ['mine', 'istiod'].map((value) => ({ path: role, value })),
    },
    {
      name: 'the second item of the name',
      patches: [{ path: envList, value: ['/vault/secrets', '/x'].map((v) => ({ name: 'ROOT_CA_DIR', value: v })) }],
      place: `${operator}: ${rootCaDir}`,
      value: '"/x"',
    },
    {
      name: 'an item by its index',
      patches: [
        { path: envList, value: [{ name: 'A' }, { name: 'ROOT_CA_DIR', value: '/vault/secrets' }] },
        { path: `${envList}[1].value`, value: '/x' },
      ],
      place: `${operator}: ${rootCaDir}`,
      value: '"/x"',
    },
    {
      name: 'a new name for an item',
      patches: [{ path: `${envList}[name:A].name`, value: 'ROOT_CA_DIR' }],
      place: `${operator}: ${rootCaDir}`,
      value: '"that of [name:A]"',
    },
    {
      name: 'an item that is renamed away',
      patches: [
        { path: envList, value: [{ name: 'ROOT_CA_DIR', value: '/x' }] },
        { path: `${envList}[name:ROOT_CA_DIR].name`, value: 'A' },
      ],
    },
    { name: 'an item without a value', patches: [{ path: `${envList}[-1]`, value: { name: 'ROOT_CA_DIR' } }] },
    {
      name: 'a list that deletes',
      patches: [{ path: envList, value: [{ name: 'ROOT_CA_DIR', $patch: 'delete' }] }],
      place: `${operator}: ${rootCaDir}`,
      value: 'null',
    },
    {
      name: 'null for the list',
      patches: [{ path: 'spec.components.pilot', value: { k8s: { env: null } } }],
      place: `${operator}: ${rootCaDir}`,
      value: 'null',
    },
  ];

  it.each(cases)('$name', ({ patches, place, value: shown }) => {
    const { conflicts } = facts(controlPlane([entry(...patches)]), fields());
    expect(conflicts).toEqual(place === undefined ? [] : [{ place, value: shown }]);
  });

  it('two entries for one object, of which only the last would take effect', () => {
    const { conflicts } = facts(controlPlane([entry(), entry()]), fields());
    expect(conflicts.map((c) => c.place)).toEqual([`overlays: 2 entries for IstioOperator ${operator}`]);
  });

  it('never ours: what was written before and then edited is repaired, not refused', () => {
    const once = apply(controlPlane(), fields());
    const edited = controlPlane([entry(...patchesOf(once).map((p) => ({ ...p, value: 'edited' })))]);
    edited['metadata'] = once['metadata'];
    expect(facts(edited, fields())).toMatchObject({ carriesFields: false, conflicts: [] });
    expect(patchesOf(apply(edited, fields()))).toEqual(overlayPatches(fields()));
  });
});

describe('paths and values', () => {
  /** A ControlPlane with the given revisions in its isolation boundaries. */
  const bounded = (revisions: string[], overlays?: unknown[]): JsonObject =>
    mergePatch(controlPlane(overlays), {
      spec: {
        components: {
          xcp: { isolationBoundaries: [{ name: 'b', revisions: revisions.map((name) => ({ name })) }] },
        },
      },
    });

  const names: [string, string[], string[], string | undefined, string | RegExp][] = [
    ['nothing tells of revisions', [], [], undefined, operator],
    ['boundaries, and a revision of theirs', ['stable', 'canary'], [], 'canary', 'xcp-iop-canary'],
    ['boundaries with the default revision', ['default'], [], undefined, 'xcp-iop-default'],
    [
      'boundaries and none asked for',
      ['stable', 'canary'],
      [],
      undefined,
      /create .* anew with the revision .*stable, canary/,
    ],
    ['boundaries beside the old IstioOperator', ['stable'], [operator], undefined, operator],
    ['only the IstioOperator of the default revision', [], ['xcp-iop-default'], undefined, 'xcp-iop-default'],
    ['no boundary, and the IstioOperator of the revision', [], ['xcp-iop-stable'], 'stable', 'xcp-iop-stable'],
    ['no such revision', ['stable'], [operator], 'old', /no isolation boundary .* revision old .*stable/],
  ];

  it.each(names)('names the IstioOperator that TSB renders: %s', (_, revisions, operators, revision, expected) => {
    const relatives = operators.map((name) => ({ metadata: { name } }));
    const at = target(revisions.length > 0 ? bounded(revisions) : controlPlane(), revision, { relatives });
    const seen = tetrate.look(at, fields());
    if (typeof expected === 'string')
      expect(overlaysOf(written(at.object ?? {}, tetrate.write(at, fields()))).map((e) => e.name)).toEqual([expected]);
    else
      expect('unfit' in seen && seen.unfit).toMatchObject({
        reason: 'ControlPlaneNotFound',
        message: expect.stringMatching(expected),
      });
  });

  it('leaves the overlays of other revisions alone', () => {
    const before = bounded(
      ['canary', 'stable', 'other'],
      [{ ...entry({ path: rootCaDir, value: '/x' }), name: 'xcp-iop-canary' }],
    );
    const after = apply(before, fields(), 'stable');
    expect(overlaysOf(after).map((e) => e.name)).toEqual(['xcp-iop-canary', 'xcp-iop-stable']);
    expect(overlaysOf(after)[0]).toEqual(overlaysOf(before)[0]);
    const both = apply(after, fields(), 'other');
    expect(facts(both, fields(), 'stable').carriesFields).toBe(true);
    expect(facts(both, fields(), 'other').carriesFields).toBe(true);
  });

  it('moves its fields when TSB gives the IstioOperator another name, and gives them back from there', () => {
    const before = controlPlane([entry({ path: 'spec.hub', value: 'x' })]);
    const once = apply(before, fields());
    const renamed = { relatives: [{ metadata: { name: 'xcp-iop-default' } }] };
    const at = target(once, undefined, renamed);
    expect(tetrate.look(at, fields())).toMatchObject({ carriesFields: false, conflicts: [], writtenBefore: true });
    const moved = written(once, tetrate.write(at, fields()));
    expect(overlaysOf(moved).map((e) => [e.name, e.patches.length > 1])).toEqual([
      [operator, false],
      ['xcp-iop-default', true],
    ]);
    const after = target(moved, undefined, renamed);
    expect(tetrate.look(after, fields())).toMatchObject({ carriesFields: true });
    expect(written(moved, tetrate.release(after))).toEqual(before);
  });

  describe.each([undefined, 'Render' as const])(
    'while it is not seen which IstioOperator TSB renders, with write: %s',
    (write) => {
      const moved = (() => {
        const at = target(controlPlane([]), undefined, { relatives: [{ metadata: { name: 'xcp-iop-default' } }] });
        return written(at.object ?? {}, tetrate.write(at, fields()));
      })();
      const spec = { ...target({}).spec, ...(write ? { write } : {}) };

      it('what was written stays under its name', () => {
        const at = target(moved, undefined, { spec });
        expect(tetrate.look(at, fields())).toMatchObject({ writtenBefore: true, conflicts: [] });
        expect(written(moved, tetrate.write(at, fields()))).toEqual(moved);
        expect(overlaysOf(tetrate.render(at, fields()))[0]?.name).toBe('xcp-iop-default');
      });

      it('and a list of others tells the name too', () => {
        const theirs = controlPlane([{ ...entry(), name: 'xcp-iop-default' }]);
        expect(overlaysOf(tetrate.render(target(theirs, undefined, { spec }), fields()))[0]?.name).toBe(
          'xcp-iop-default',
        );
        const both = controlPlane([{ ...entry(), name: 'xcp-iop-default' }, entry()]);
        expect(overlaysOf(tetrate.render(target(both, undefined, { spec }), fields()))[0]?.name).toBe(operator);
      });

      it.each([undefined, 'canary'])(
        'it says so when it may not look (revision %s), and writes nothing',
        (revision) => {
          const at = target(moved, revision, { relatives: undefined });
          const seen = tetrate.look({ ...at, spec: { ...at.spec, ...(write ? { write } : {}) } }, fields());
          expect('unfit' in seen && seen.unfit).toMatchObject({
            reason: 'Forbidden',
            message: expect.stringMatching(
              /lacks permission to list istiooperators\.install\.istio\.io.*components\/tetrate /,
            ),
          });
          expect(tetrate.write(at, fields())).toEqual([]);
        },
      );
    },
  );

  it.each<[string, unknown]>([
    ['without patches', { kind: 'IstioOperator', name: operator, apiVersion: 'install.istio.io/v1alpha1' }],
    ['with none', entry()],
  ])('gives back an entry %s as it was', (_, before) => {
    const object = controlPlane([before]);
    const after = apply(object, fields());
    expect(written(after, tetrate.release(target(after)))).toEqual(object);
  });

  it.each<[string, JsonObject, string]>([
    [
      'patches',
      controlPlane([{ ...entry(), patches: { a: 1 } }]),
      'overlays: patches of IstioOperator tsb-istiocontrolplane',
    ],
    [
      'overlays',
      { spec: { components: { istio: { kubeSpec: { overlays: 'x' } } } } },
      'spec.components.istio.kubeSpec.overlays',
    ],
    ['kubeSpec', { spec: { components: { istio: { kubeSpec: ['x'] } } } }, 'spec.components.istio.kubeSpec'],
    ['components', { spec: { components: 7 } }, 'spec.components'],
  ])('%s of another shape than expected are a conflict, and stay', (_, object, place) => {
    expect(facts(object, fields()).conflicts).toEqual([
      { place, value: expect.stringMatching(/which is not (a list|an object)$/) },
    ]);
  });

  it.each<[string, JsonObject]>([
    ['overlays', { spec: { components: { istio: { kubeSpec: { overlays: null } } } } }],
    ['istio', { spec: { components: { istio: null } } }],
  ])('%s: null is as good as none', (_, object) => {
    expect(facts(object, fields()).conflicts).toEqual([]);
    const after = apply(object, fields());
    expect(facts(after, fields()).carriesFields).toBe(true);
    expect(
      dig(written(after, tetrate.release(target(after))), 'spec', 'components', 'istio', 'kubeSpec', 'overlays'),
    ).toBeUndefined();
  });

  it('dots inside a key are escaped, one patch a key, never a list', () => {
    const paths = overlayPatches({ ...fields({}, 'd'), holdApplicationUntilProxyStarts: true }).map((p) => p.path);
    expect(paths[0]).toBe(rootCaDir);
    expect(paths).toContain(`${annotations}.vault\\.hashicorp\\.com/agent-inject-template-ca-key\\.pem`);
    expect(paths).toContain('spec.meshConfig.defaultConfig.holdApplicationUntilProxyStarts');
    expect(new Set(paths).size).toBe(paths.length);
    const keys = paths.filter((p) => p.startsWith(annotations)).map((p) => p.slice(annotations.length + 1));
    for (const key of keys) expect(key).toMatch(/^([^.[\]:\\]|\\\.)+$/);
  });

  it.each(['Bundle', 'PKI'])("no value of %s would be read as YAML by Istio's overlay library", (source) => {
    const spec = {
      vault: {
        address: 'https://[::1]:8200',
        namespace: 'a/b',
        tls: { serverName: 'vault.example', caSecretRef: { name: 'ca' } },
        auth: { kubernetes: { role: 'r' } },
      },
      delivery: { source },
      kubernetesAuth: { audience: 'istio-ca' },
    };
    // Istio, tree.go, tryToUnmarshalStringToYAML: parses one line with ": ", or several lines with ":", unless JSON or not YAML
    const risky = overlayPatches(fields(spec, 'd')).filter(
      ({ value: v }) =>
        typeof v === 'string' && !v.startsWith('{') && (v.includes('\n') ? v.includes(':') : v.includes(': ')),
    );
    expect(risky).toEqual([]);
  });
});

describe('what was committed, with write: Render', () => {
  const at = (...patches: { path: string; value: unknown }[]) => {
    const spec = { ...target({}).spec, write: 'Render' as const };
    const seen = tetrate.look(target(controlPlane([entry(...patches)]), undefined, { spec }), fields());
    return 'unfit' in seen ? seen.unfit : seen;
  };
  const wanted = overlayPatches(fields());
  const annotationsWhole = { path: annotations, value: { ...fields().podAnnotations, 'prometheus.io/scrape': 'true' } };

  it('has arrived in every form that has the same effect', () => {
    expect(at(...wanted)).toMatchObject({ carriesFields: true, missing: [], conflicts: [] });
    expect(at(wanted[0]!, annotationsWhole)).toMatchObject({ carriesFields: true });
    const byHand = { path: envList, value: [{ name: 'ROOT_CA_DIR', value: '/vault/secrets' }] };
    expect(at(byHand, annotationsWhole)).toMatchObject({ carriesFields: true });
  });

  it('names what is missing, set to something else, or taken away by a later patch', () => {
    const [env, ...rest] = wanted;
    expect(at(...rest)).toMatchObject({ carriesFields: false, missing: [`${operator}: ${rootCaDir}`] });
    expect(at(...rest, { ...env!, value: '/x' })).toMatchObject({ missing: [`${operator}: ${rootCaDir}`] });
    expect(at(...wanted, { path: 'spec.values', value: null })).toMatchObject({
      missing: [`${operator}: ${rootCaDir}`],
    });
    expect(at()).toMatchObject({ missing: wanted.map(({ path }) => `${operator}: ${path}`) });
  });

  it('is what render shows', () => {
    const shown = tetrate.render(target(controlPlane()), fields());
    expect(shown).toMatchObject({
      kind: 'ControlPlane',
      metadata: { name: 'controlplane', namespace: 'istio-system' },
    });
    expect(at(...(overlaysOf(shown)[0]?.patches ?? []))).toMatchObject({ carriesFields: true });
  });
});
