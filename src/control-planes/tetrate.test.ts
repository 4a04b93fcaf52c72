import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { minimalSpec } from '../../test/unit/model.ts';
import { istiodFields, type IstiodFields } from '../plan/desired.ts';
import { dig, isObject, type JsonObject } from './adapter.ts';
import { overlayPatches } from './overlay.ts';
import { istioOperatorName, tetrate } from './tetrate.ts';

const operator = 'tsb-istiocontrolplane';
const annotations = 'spec.components.pilot.k8s.podAnnotations';
const envList = 'spec.components.pilot.k8s.env';
const rootCaDir = 'spec.values.pilot.env.ROOT_CA_DIR';
const fields = (over: Record<string, unknown> = {}, digest?: string) => istiodFields(minimalSpec(over), digest);
const noFields: IstiodFields = { env: {}, podAnnotations: {}, holdApplicationUntilProxyStarts: false };
const input = (object: JsonObject, wanted: IstiodFields, revision?: string) => ({
  object,
  owner: 'istioca',
  revision,
  fields: wanted,
});

/** What the API server makes of a JSON merge patch. https://www.rfc-editor.org/rfc/rfc7386 */
function merge(target: unknown, patch: unknown): unknown {
  if (!isObject(patch)) return patch;
  const out: JsonObject = isObject(target) ? { ...target } : {};
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) Reflect.deleteProperty(out, key);
    else out[key] = merge(out[key], value);
  }
  return out;
}
const apply = (object: JsonObject, wanted: IstiodFields, revision?: string): JsonObject =>
  merge(object, tetrate.patch(input(object, wanted, revision))) as JsonObject;

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
const value = fc.oneof(fc.string(), fc.boolean(), fc.integer(), fc.dictionary(fc.string(), fc.string()));
const foreignPatch = fc.record({
  path: fc.constantFrom(
    ...prefixes,
    `${annotations}.prometheus\\.io/scrape`,
    `${annotations}Other`,
    'spec.values.pilot.env.PILOT_X',
    'spec.values.global.proxy.logLevel',
    `${envList}[-1]`,
    'spec.components.pilot.k8s.resources',
  ),
  value,
});
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
/** Foreign entries, with or without one for our IstioOperator among them. */
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
  expect(tetrate.facts(input(object, wanted))).toMatchObject({
    carriesFields: true,
    writtenBefore: true,
    conflicts: [],
  });
  const ourPatches = overlayPatches(wanted);
  const list = overlaysOf(object);
  expect(list.filter((e) => isOurs(e))).toHaveLength(1);
  expect(list.filter((e) => !isOurs(e))).toEqual(foreign.filter((e) => !isOurs(e)));
  const foreignPatches = foreign.find((e) => isOurs(e))?.patches ?? [];
  // all that is foreign as it was and in its order, then ours: no prefix patch can follow one of ours
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
        const damaged = merge(once, { spec: { components: { istio: kubeSpec(edited) } } }) as JsonObject;
        const repaired = apply(damaged, wanted);
        expect(tetrate.facts(input(repaired, wanted)).carriesFields).toBe(true);
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
        expect(tetrate.facts(input(written, wanted)).carriesFields).toBe(true);
        expect(patchesOf(apply(written, noFields))).toEqual([...before, ...foreign]);
      }),
    );
  });

  it.each(prefixes)('moves its patches behind a later %s, which would replace them', (path) => {
    const wanted = fields({ controlPlane: { kind: 'TetrateControlPlane', name: 'controlplane' } }, 'd1');
    const once = apply(controlPlane(), wanted);
    const shadowed = controlPlane([entry(...patchesOf(once), { path, value: {} })]);
    shadowed['metadata'] = once['metadata'];
    expect(tetrate.facts(input(shadowed, wanted)).carriesFields).toBe(false);
    expect(patchesOf(apply(shadowed, wanted))).toEqual([{ path, value: {} }, ...overlayPatches(wanted)]);
  });

  it('changes only its own annotation and the overlays, under the resourceVersion it has read', () => {
    const before = controlPlane([entry()]);
    expect(tetrate.patch(input(before, fields()))).toMatchObject({ metadata: { resourceVersion: '7' } });
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
  const released = (object: JsonObject) =>
    merge(object, tetrate.release({ object, revision: undefined })) as JsonObject;
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

  it('keeps what others have added meanwhile', () => {
    const written = apply(controlPlane(), fields());
    const late = { path: 'spec.hub', value: 'x' };
    const edited = merge(written, {
      spec: { components: { istio: kubeSpec([entry(...patchesOf(written), late)]) } },
    }) as JsonObject;
    expect(overlaysOf(released(edited))).toEqual([entry(late)]);
  });

  it('changes nothing of a control plane that was only claimed', () => {
    const before = controlPlane([entry()]);
    expect(released(before)).toEqual(before);
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
  ];

  it.each(cases)('$name', ({ patches, place, value: shown }) => {
    const { conflicts } = tetrate.facts(input(controlPlane([entry(...patches)]), fields()));
    expect(conflicts).toEqual(place === undefined ? [] : [{ place, value: shown }]);
  });

  it('two entries for one object, of which only the last would take effect', () => {
    const { conflicts } = tetrate.facts(input(controlPlane([entry(), entry()]), fields()));
    expect(conflicts.map((c) => c.place)).toEqual([`overlays: 2 entries for IstioOperator ${operator}`]);
  });

  it('never ours: what was written before and then edited is repaired, not refused', () => {
    const once = apply(controlPlane(), fields());
    const edited = controlPlane([entry(...patchesOf(once).map((p) => ({ ...p, value: 'edited' })))]);
    edited['metadata'] = once['metadata'];
    expect(tetrate.facts(input(edited, fields()))).toMatchObject({ carriesFields: false, conflicts: [] });
    expect(patchesOf(apply(edited, fields()))).toEqual(overlayPatches(fields()));
  });
});

describe('paths and values', () => {
  it('the IstioOperator is named after the revision, and other revisions are left alone', () => {
    expect([istioOperatorName(undefined), istioOperatorName('stable')]).toEqual([operator, 'xcp-iop-stable']);
    const before = controlPlane([{ ...entry({ path: rootCaDir, value: '/x' }), name: 'xcp-iop-canary' }]);
    const after = apply(before, fields(), 'stable');
    expect(overlaysOf(after).map((e) => e.name)).toEqual(['xcp-iop-canary', 'xcp-iop-stable']);
    expect(overlaysOf(after)[0]).toEqual(overlaysOf(before)[0]);
    const both = apply(after, fields(), 'other');
    expect(tetrate.facts(input(both, fields(), 'stable')).carriesFields).toBe(true);
    expect(tetrate.facts(input(both, fields(), 'other')).carriesFields).toBe(true);
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
    // tree.go, tryToUnmarshalStringToYAML: one line with ": ", or several with ":", unless JSON or no YAML at all
    const risky = overlayPatches(fields(spec, 'd')).filter(
      ({ value: v }) =>
        typeof v === 'string' && !v.startsWith('{') && (v.includes('\n') ? v.includes(':') : v.includes(': ')),
    );
    expect(risky).toEqual([]);
  });
});
