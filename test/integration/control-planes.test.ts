/** Each kind of control plane against a real API server: what is written where, who holds which field, and that all of it is given back. */
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { isDeepStrictEqual } from 'node:util';
import { previousAnnotation } from '../../src/api/annotations.ts';
import { dig, type JsonObject } from '../../src/api/json.ts';
import { adapters } from '../../src/control-planes/index.ts';
import { nest, type ControlPlaneAdapter, type Target } from '../../src/control-planes/adapter.ts';
import { applyWrites } from '../../src/controller/apply-writes.ts';
import {
  evaluateKubernetes,
  readGates,
  readSurroundings,
  resources,
  targetOf,
} from '../../src/controller/observe-kubernetes.ts';
import { resourceSchema, type IstioVaultCA, type Spec } from '../../src/api/schema.ts';
import { createKubeClient, type KubeClient } from '../../src/kube/client.ts';
import { KubeError } from '../../src/kube/errors.ts';
import { loadKubeConfig, type PooledKubeConfig } from '../../src/kube/pooled-kube-config.ts';
import { desire, type Desired } from '../../src/plan/facts/desired.ts';
import { istiodFields, type IstiodFields } from '../../src/plan/control-plane/istiod-fields.ts';
import type { ControlPlaneFacts, Observed } from '../../src/plan/facts/observed.ts';
import { plan } from '../../src/plan/plan.ts';
import { createNamespace, sharedStack, waitFor } from '../stack/index.ts';
import { applyOk, manifest, type Json } from '../support/cluster.ts';
import { istioOperatorCrd, sailCrds } from '../support/control-plane-crds.ts';
import { expectGolden } from '../support/golden.ts';
import { tetrateControlPlaneCrd } from '../support/tetrate-crd.ts';
import { converge, emptyWorld, identity, start } from '../unit/model.ts';

const { kube } = sharedStack();
const namespace = 'planes';
let client: KubeClient;
let config: PooledKubeConfig;

beforeAll(async () => {
  config = loadKubeConfig({ path: kube.adminKubeconfig, env: {} }).kubeConfig;
  client = createKubeClient(config);
  await createNamespace(kube, namespace);
  const own = await manifest('crds/istiovaultcas.yaml');
  for (const crd of [istioOperatorCrd, ...sailCrds, tetrateControlPlaneCrd as unknown as Json, ...own])
    await applyOk(kube, crd);
  const gvrs = Object.values(adapters).flatMap(({ gvr, relatives }) => [gvr, ...(relatives ? [relatives] : [])]);
  for (const gvr of [...gvrs, resources]) await waitFor(`${gvr.plural} to be served`, () => client.isServed(gvr));
});

afterAll(() => client.deleteObject(adapters.Sail.gvr, undefined, 'planes'));

type Kind = Spec['controlPlane']['kind'];

interface Case {
  kind: Kind;
  name: string;
  revision?: string;
  /** What a user has there already, with foreign content beside our places; undefined: the operator makes the object. */
  foreign: Json | undefined;
  /** Where one field of ours stands. */
  place: string[];
  /** An edit of one field of ours to something else, and its removal, as merge patches. */
  edited: Json;
  removed: Json;
  /** What is edited is written again: no manager holds a single field of a list. */
  repairs: boolean;
}

const pilotEnv = (value: unknown): Json => ({ spec: { values: { pilot: { env: { ROOT_CA_DIR: value } } } } });
const entryFor = (name: string, ...patches: Json[]): Json => ({
  apiVersion: 'install.istio.io/v1alpha1',
  kind: 'IstioOperator',
  name,
  patches,
});
const operatorEntry = (...patches: Json[]): Json => entryFor('tsb-istiocontrolplane', ...patches);
const overlays = (...entries: Json[]): Json => ({
  spec: { components: { istio: { kubeSpec: { overlays: entries } } } },
});
const hostAliases = { path: 'spec.components.pilot.k8s.hostAliases', value: [] };
const elsewhere = { path: 'spec.values.pilot.env.ROOT_CA_DIR', value: '/x' };
/** The same of another revision, which is not this resource's. */
const stable = entryFor('xcp-iop-stable', hostAliases, elsewhere);

const cases: Case[] = [
  {
    kind: 'TetrateControlPlane',
    name: 'controlplane',
    foreign: {
      apiVersion: 'install.tetrate.io/v1alpha1',
      kind: 'ControlPlane',
      metadata: { name: 'controlplane', namespace, annotations: { 'example.com/kept': 'yes' } },
      ...overlays({ kind: 'Deployment', name: 'other', patches: [] }, operatorEntry(hostAliases)),
    },
    place: ['spec', 'components', 'istio', 'kubeSpec', 'overlays'],
    edited: overlays(operatorEntry(elsewhere)),
    removed: overlays({ kind: 'Deployment', name: 'other', patches: [] }, operatorEntry(hostAliases)),
    repairs: true,
  },
  {
    kind: 'TetrateControlPlane',
    name: 'bounded',
    revision: 'canary',
    foreign: {
      apiVersion: 'install.tetrate.io/v1alpha1',
      kind: 'ControlPlane',
      metadata: { name: 'bounded', namespace },
      spec: {
        hub: 'registry.example',
        components: {
          xcp: { isolationBoundaries: [{ name: 'prod', revisions: [{ name: 'stable' }, { name: 'canary' }] }] },
          istio: { kubeSpec: { overlays: [stable] } },
        },
      },
    },
    place: ['spec', 'components', 'istio', 'kubeSpec', 'overlays'],
    edited: overlays(stable, entryFor('xcp-iop-canary', elsewhere)),
    removed: overlays(stable),
    repairs: true,
  },
  {
    kind: 'IstioOperator',
    name: 'istio',
    foreign: {
      apiVersion: 'install.istio.io/v1alpha1',
      kind: 'IstioOperator',
      metadata: { name: 'istio', namespace },
      spec: {
        profile: 'default',
        meshConfig: { accessLogFile: '/dev/stdout' },
        components: {
          pilot: {
            k8s: { env: [{ name: 'PILOT_X', value: '1' }], podAnnotations: { 'prometheus.io/scrape': 'true' } },
          },
        },
      },
    },
    place: ['spec', 'values', 'pilot', 'env', 'ROOT_CA_DIR'],
    edited: pilotEnv('/x'),
    removed: pilotEnv(null),
    repairs: false,
  },
  {
    kind: 'Sail',
    name: 'planes',
    foreign: {
      apiVersion: 'sailoperator.io/v1',
      kind: 'Istio',
      metadata: { name: 'planes' },
      spec: { version: 'v1.24.3', namespace, values: { pilot: { env: { PILOT_X: '1' }, resources: {} } } },
    },
    place: ['spec', 'values', 'pilot', 'env', 'ROOT_CA_DIR'],
    edited: pilotEnv('/x'),
    removed: pilotEnv(null),
    repairs: false,
  },
  {
    kind: 'HelmValues',
    name: 'istiod-values',
    foreign: undefined,
    place: ['data', 'values.yaml'],
    edited: { data: { 'values.yaml': 'pilot: {}\n' } },
    removed: { data: { 'values.yaml': null } },
    repairs: false,
  },
];

/** What a person sees of an object, without what every write changes. */
function seen(object: JsonObject | undefined): JsonObject {
  const metadata = ['annotations', 'labels'].map((key) => [key, dig(object, 'metadata', key) ?? {}]);
  return { metadata: Object.fromEntries(metadata), spec: object?.['spec'] ?? null, data: object?.['data'] ?? null };
}

/** One control plane as the operator goes about it. */
class Plane {
  readonly #adapter: ControlPlaneAdapter;
  readonly #resource: IstioVaultCA;
  readonly #desired: Desired;
  readonly fields: IstiodFields;
  /** Where its CA is in Vault. */
  readonly #world: Observed;

  constructor({ kind, name, revision }: Case) {
    this.#adapter = adapters[kind];
    this.#resource = resourceSchema.parse({
      apiVersion: 'istiovaultca.io/v1alpha1',
      kind: 'IstioVaultCA',
      metadata: { name: identity.name, namespace },
      spec: {
        vault: { address: 'https://vault.example', auth: { kubernetes: { role: 'r' } } },
        controlPlane: { kind, name, holdApplicationUntilProxyStarts: true, ...(revision ? { revision } : {}) },
      },
    });
    this.#desired = desire({ ...identity, namespace }, this.#resource.spec, {});
    this.fields = istiodFields(this.#resource.spec, 'd1');
    this.#world = converge(this.#desired, emptyWorld()).world;
  }

  get #name(): string {
    return this.#resource.spec.controlPlane.name;
  }

  get #scope(): string | undefined {
    return this.#adapter.clusterScoped ? undefined : namespace;
  }

  async object(): Promise<JsonObject | undefined> {
    return await client.getObject(this.#adapter.gvr, this.#scope, this.#name);
  }

  async #read() {
    const surroundings = await readSurroundings(client, this.#resource, this.#adapter);
    const gates = await readGates(client, this.#resource, surroundings, this.#adapter);
    return { surroundings, gates };
  }

  async #target(): Promise<Target> {
    const { surroundings, gates } = await this.#read();
    return targetOf(this.#resource, surroundings, gates);
  }

  async #judge() {
    const { surroundings, gates } = await this.#read();
    return evaluateKubernetes(surroundings, gates, undefined, this.#resource, this.#adapter, this.fields);
  }

  async facts(): Promise<ControlPlaneFacts> {
    const { controlPlane, controlPlaneUnfit } = await this.#judge();
    if (!controlPlane) throw new Error(controlPlaneUnfit?.message ?? 'there is none');
    return controlPlane;
  }

  /** What the operator would do next to the control plane, and what it says of it. */
  async next(): Promise<{ does: string[]; says: string[] }> {
    const { vault, kubernetes } = this.#world;
    const { injector, meshRoots } = kubernetes;
    // of the cluster, what is not the control plane's own is as it should be
    const judged = { ...kubernetes, ...(await this.#judge()), injector, meshRoots };
    const { steps, problems } = plan(this.#desired, { vault, kubernetes: judged }, start);
    return {
      does: steps.map(({ kind }) => kind),
      says: problems.map(({ reason, message }) => `${reason}: ${message}`),
    };
  }

  async #do(writes: 'claim' | 'write' | 'release', meanwhile = async () => {}): Promise<void> {
    const target = await this.#target();
    await meanwhile();
    const of = {
      claim: () => this.#adapter.claim(target, 'istioca'),
      write: () => this.#adapter.write(target, this.fields),
      release: () => this.#adapter.release(target),
    };
    await applyWrites(client, this.#adapter.gvr, this.#scope, target, of[writes]());
  }

  claim = () => this.#do('claim');
  write = (meanwhile?: () => Promise<void>) => this.#do('write', meanwhile);
  release = () => this.#do('release');
  remove = async () => {
    await client.deleteObject(this.#adapter.gvr, this.#scope, this.#name);
  };

  /** All that somebody else holds of it. */
  async apply(fields: JsonObject, manager: string): Promise<void> {
    const { apiVersion, kind } = (await this.object()) ?? {};
    const body = { apiVersion, kind, metadata: { name: this.#name }, ...fields };
    const options = { type: 'apply', fieldManager: manager } as const;
    await client.patchObject(this.#adapter.gvr, this.#scope, this.#name, body, options);
  }

  /** Somebody else's change. */
  async change(patch: Json, manager = 'somebody'): Promise<void> {
    const options = { type: 'merge', fieldManager: manager } as const;
    await client.patchObject(this.#adapter.gvr, this.#scope, this.#name, patch, options);
  }
}

describe.each(cases)('$kind $name', (of) => {
  const plane = new Plane(of);
  const golden = `control-planes/${[of.kind, ...(of.revision ? [of.revision] : [])].join('-')}`;
  /** What is done and said next, by state. */
  const next: Record<string, unknown> = {};
  let before: JsonObject | undefined;

  it('leaves an object that is absent to others, or makes it', async () => {
    expect(await plane.object()).toBeUndefined();
    const { does, says } = (next['absent'] = await plane.next());
    if (of.foreign) {
      expect([does, says]).toEqual([[], [expect.stringMatching(`^ControlPlaneNotFound: .* ${of.name}`)]]);
      await applyOk(kube, of.foreign);
      next['foreign'] = await plane.next();
    } else expect([does, says]).toEqual([['ClaimControlPlane'], []]);
    before = await plane.object();
  });

  it('is written beside foreign content, and only ours is added', async () => {
    await plane.claim();
    expect(await plane.facts()).toMatchObject({ owner: 'istioca', carriesFields: false, conflicts: [] });
    await plane.write();
    expect(await plane.facts()).toMatchObject({ carriesFields: true, writtenBefore: true, conflicts: [] });
    next['ours'] = await plane.next();
    const { [previousAnnotation(of.revision)]: previous, ...annotations } = dig(
      await plane.object(),
      'metadata',
      'annotations',
    ) as Record<string, string>;
    expectGolden(golden, {
      ...seen({
        ...(await plane.object()),
        metadata: { ...(dig(await plane.object(), 'metadata') as Json), annotations },
      }),
      previous: JSON.parse(previous ?? '{}') as unknown,
    });
  });

  it('is not written again when it stands', async () => {
    const version = dig(await plane.object(), 'metadata', 'resourceVersion');
    await plane.write();
    expect(dig(await plane.object(), 'metadata', 'resourceVersion')).toBe(version);
  });

  it('repairs what was removed', async () => {
    await plane.change(of.removed);
    next['removed'] = await plane.next();
    expect(await plane.facts()).toMatchObject({ carriesFields: false, conflicts: [] });
    await plane.write();
    expect(await plane.facts()).toMatchObject({ carriesFields: true });
  });

  it('repairs what was edited, or names who holds it now', async () => {
    const own = dig(await plane.object(), ...of.place);
    await plane.change(of.edited);
    next['edited'] = await plane.next();
    const { carriesFields, conflicts } = await plane.facts();
    expect(carriesFields).toBe(false);
    if (of.repairs) {
      expect(conflicts).toEqual([]);
      await plane.write();
    } else {
      expect(conflicts).toMatchObject([{ manager: 'somebody' }]);
      const refused = await plane.write().catch((error: unknown) => error);
      expect(refused instanceof KubeError && refused.causes).toMatchObject([{ reason: 'FieldManagerConflict' }]);
      // given back by whoever took it
      await plane.change(of.removed);
      await plane.write();
    }
    expect(await plane.facts()).toMatchObject({ carriesFields: true });
    if (!of.repairs) expect(dig(await plane.object(), ...of.place)).toEqual(own);
  });

  it('gives the fields back: the object is deep-equal to what it was', async () => {
    if (of.kind === 'TetrateControlPlane') await plane.change(of.foreign ?? {});
    await plane.write();
    await plane.release();
    const after = await plane.object();
    if (before === undefined) {
      expect(after).toBeUndefined();
      return;
    }
    expect(seen(after)).toEqual(seen(before));
    const managers = dig(after, 'metadata', 'managedFields') as { manager: string }[];
    // a list that is written whole stays marked with who wrote it last
    if (!of.repairs) expect(managers.map(({ manager }) => manager)).not.toContain('istio-vault-ca');
  });

  it('says in each state what is done, or what a person must do', () => expectGolden(`${golden}-next`, next));

  it('is written anew after all that', async () => {
    await plane.claim();
    await plane.write();
    expect(await plane.facts()).toMatchObject({ carriesFields: true });
    await plane.release();
    expect(isDeepStrictEqual(seen(await plane.object()), seen(before))).toBe(true);
  });

  // a list that is written whole is nobody's in part
  if (!of.repairs)
    it('names who has set the same, which stays', async () => {
      await plane.claim();
      await plane.write();
      await plane.apply(nest(of.place, dig(await plane.object(), ...of.place)), 'kustomize-controller');
      await plane.release();
      expect(await plane.facts()).toMatchObject({ sharedWith: { name: 'kustomize-controller', tool: 'Flux' } });
    });

  it('is not made again when it goes between the look and the write', async () => {
    await plane.claim();
    await expect(plane.write(plane.remove)).rejects.toBeInstanceOf(KubeError);
    expect(await plane.object()).toBeUndefined();
  });
});
