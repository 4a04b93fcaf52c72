/**
 * Every kind of control plane, from a manifest, by the operator as users run it: written, watched, contested, given back.
 * @servers kubectl, helm, istiod
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from '@jest/globals';
import { dig } from '../../src/api/json.ts';
import { specSchema } from '../../src/api/schema.ts';
import { adapters } from '../../src/control-planes/index.ts';
import { istiodFields } from '../../src/plan/control-plane/istiod-fields.ts';
import { dumpYaml, loadYaml } from '../../src/runtime/yaml.ts';
import { makeTemporaryDir, sharedStack, waitFor } from '../stack/index.ts';
import { renderIstiod } from '../stack/istiod-chart.ts';
import {
  apply,
  applyOk,
  conditionOf,
  getResource,
  requestReconcile,
  resourcePath,
  setStatus,
  waitForCondition,
  type Json,
} from '../support/cluster.ts';
import { istioOperatorCrd, sailCrds, sailStatus, serveCrds } from '../support/control-plane-crds.ts';
import { useOperator } from '../support/harness.ts';
import { kubectl } from '../support/kubectl.ts';
import { controlPlane, grantOperator, makeScene, merge, type Scene } from '../support/scene.ts';

const { kube, vaults } = sharedStack();
useOperator();

beforeAll(async () => {
  await serveCrds(kube, [istioOperatorCrd, ...sailCrds]);
});

type Kind = 'IstioOperator' | 'Sail' | 'HelmValues' | 'TetrateControlPlane';

const scene = (namespace: string, kind: Kind, name: string, over: Json = {}): Promise<Scene> =>
  makeScene(kube, vaults.OpenBao, {
    namespace,
    overlays: kind === 'TetrateControlPlane' ? [] : null,
    spec: merge({ controlPlane: { kind, name } }, over),
    make: { rootGoes: true },
  });

const isAs = ({ namespace, name }: Scene, type: string, status: string, reason: string) =>
  waitForCondition(kube, namespace, name, { type, status, reason });
const patched = (of: Scene) => isAs(of, 'ControlPlanePatched', 'True', 'FieldsPresent');
const messageOf = (resource: Awaited<ReturnType<typeof getResource>>, type: string) =>
  conditionOf(resource, type)?.message ?? '';

const get = async (path: string): Promise<Json> => (await kube.request('GET', path)).body as Json;
const iopPath = (namespace: string) => `/apis/install.istio.io/v1alpha1/namespaces/${namespace}/istiooperators/istio`;
const istioPath = (name: string) => `/apis/sailoperator.io/v1/istios/${name}`;
const configMapPath = (namespace: string, name: string) => `/api/v1/namespaces/${namespace}/configmaps/${name}`;

const iop = (namespace: string, spec: Json = {}): Json => ({
  apiVersion: 'install.istio.io/v1alpha1',
  kind: 'IstioOperator',
  metadata: { name: 'istio', namespace },
  spec: { profile: 'default', ...spec },
});
const istio = (name: string, namespace: string): Json => ({
  apiVersion: 'sailoperator.io/v1',
  kind: 'Istio',
  metadata: { name },
  spec: { version: 'v1.24.3', namespace, values: { pilot: { env: { PILOT_X: '1' } } } },
});

const remove = async ({ namespace, name }: Scene) => {
  await kube.request('DELETE', resourcePath(namespace, name));
  await waitFor(
    `${name} to be gone`,
    async () => (await getResource(kube, namespace, name)).metadata.uid === undefined,
  );
};

describe('an IstioOperator', () => {
  const namespace = 'plane-iop';
  let of: Scene;

  it('that nothing reconciles is said to be so, and is not called ready', async () => {
    of = await scene(namespace, 'IstioOperator', 'istio', { deletionPolicy: 'Delete' });
    await applyOk(kube, iop(namespace));
    await applyOk(kube, of.resource);
    const found = await isAs(of, 'ControlPlanePatched', 'False', 'NotReconciled');
    expect(messageOf(found, 'ControlPlanePatched')).toMatch(/IstioOperator istio has no status: nothing reconciles it/);
    expect(conditionOf(found, 'Ready')).toMatchObject({ status: 'False', reason: 'NotReconciled' });
  });

  it('carries the fields once its operator shows life', async () => {
    await setStatus(kube, iopPath(namespace), { status: 'HEALTHY' });
    await patched(of);
    expect(dig(await get(iopPath(namespace)), 'spec', 'values', 'pilot', 'env')).toEqual({
      ROOT_CA_DIR: '/vault/secrets',
    });
  });

  it('is repaired when a field is removed', async () => {
    await kube.request('PATCH', iopPath(namespace), { spec: { values: { pilot: { env: null } } } });
    await waitFor('the field to be back', async () =>
      dig(await get(iopPath(namespace)), 'spec', 'values', 'pilot', 'env', 'ROOT_CA_DIR'),
    );
    await patched(of);
  });

  it('names who has set a field to something else, and never forces it', async () => {
    const theirs = iop(namespace, { values: { pilot: { env: { ROOT_CA_DIR: '/elsewhere' } } } });
    expect((await apply(kube, theirs, 'platform-team')).status).toBe(200);
    const found = await isAs(of, 'ControlPlanePatched', 'False', 'FieldConflict');
    expect(messageOf(found, 'ControlPlanePatched')).toMatch(
      /spec\.values\.pilot\.env\.ROOT_CA_DIR is "\/elsewhere" \(set by field manager platform-team\)/,
    );
    expect(conditionOf(found, 'Stalled')?.reason).toBe('FieldConflict');
    expect((await apply(kube, iop(namespace), 'platform-team')).status).toBe(200);
    await patched(of);
  });

  it('is given back exactly', async () => {
    await remove(of);
    const after = await get(iopPath(namespace));
    expect(after['spec']).toEqual({ profile: 'default' });
    expect(dig(after, 'metadata', 'annotations') ?? {}).toEqual({});
  });
});

describe('an Istio of Sail', () => {
  const namespace = 'plane-sail';
  let of: Scene;

  /** A revision as the Sail operator makes it, with its Deployment. */
  async function revision(name: string): Promise<void> {
    const uid = dig(await get(istioPath('sail-a')), 'metadata', 'uid');
    const ownerReferences = [
      { apiVersion: 'sailoperator.io/v1', kind: 'Istio', name: 'sail-a', uid, controller: true },
    ];
    await applyOk(kube, {
      apiVersion: 'sailoperator.io/v1',
      kind: 'IstioRevision',
      metadata: { name, ownerReferences },
      spec: { namespace },
    });
    const labels = { app: 'istiod', 'istio.io/rev': name };
    const containers = [{ name: 'discovery', image: 'registry.example/pilot:1.24.3' }];
    await applyOk(kube, {
      apiVersion: 'apps/v1',
      kind: 'Deployment',
      metadata: { name: `istiod-${name}`, namespace, labels },
      spec: {
        selector: { matchLabels: labels },
        template: { metadata: { labels }, spec: { serviceAccountName: `istiod-${name}`, containers } },
      },
    });
  }
  const boundTo = async (): Promise<unknown> =>
    dig(
      (await vaults.OpenBao.request('GET', `auth/kubernetes/role/${namespace}-istiod`)).body,
      'data',
      'bound_service_account_names',
    );

  it('of another namespace is left alone', async () => {
    of = await scene(namespace, 'Sail', 'sail-a', { deletionPolicy: 'Delete' });
    await applyOk(kube, istio('sail-a', 'elsewhere'));
    await applyOk(kube, of.resource);
    const found = await isAs(of, 'ControlPlanePatched', 'False', 'ControlPlaneUnfit');
    expect(messageOf(found, 'ControlPlanePatched')).toMatch(/is for namespace elsewhere/);
    const managers = dig(await get(istioPath('sail-a')), 'metadata', 'managedFields') as { manager: string }[];
    expect(managers.map(({ manager }) => manager)).toEqual(['kubectl']);
  });

  it('of its own carries the fields beside those of others', async () => {
    await applyOk(kube, istio('sail-a', namespace));
    await isAs(of, 'ControlPlanePatched', 'False', 'NotReconciled');
    await setStatus(kube, istioPath('sail-a'), sailStatus('sail-a-v1-24-3'));
    await patched(of);
    expect(dig(await get(istioPath('sail-a')), 'spec', 'values', 'pilot', 'env')).toEqual({
      PILOT_X: '1',
      ROOT_CA_DIR: '/vault/secrets',
    });
  });

  it('has the role follow the service accounts of its revisions', async () => {
    await revision('sail-a-v1-24-3');
    await waitFor(
      'the role to be bound to the revision',
      async () => JSON.stringify(await boundTo()) === JSON.stringify(['istiod-sail-a-v1-24-3']),
    );
    await revision('sail-a-v1-25-0');
    await waitFor('the role to be bound to both', async () => ((await boundTo()) as string[]).length === 2);
    // another Istio's istiod in the namespace is not this one's
    expect(await boundTo()).toEqual(['istiod-sail-a-v1-24-3', 'istiod-sail-a-v1-25-0']);
  });

  it('is given back exactly', async () => {
    await kube.request('DELETE', `/apis/apps/v1/namespaces/${namespace}/deployments`);
    await remove(of);
    expect((await get(istioPath('sail-a')))['spec']).toEqual(istio('sail-a', namespace)['spec']);
    await kube.request('DELETE', '/apis/sailoperator.io/v1/istiorevisions');
    await kube.request('DELETE', istioPath('sail-a'));
  });

  it('names its revisions itself', async () => {
    const other = await scene('plane-sail-rev', 'Sail', 'sail-b', { controlPlane: { revision: 'canary' } });
    await applyOk(kube, other.resource);
    expect(messageOf(await isAs(other, 'ControlPlanePatched', 'False', 'InvalidSpec'), 'ControlPlanePatched')).toMatch(
      /spec\.controlPlane\.revision: canary/,
    );
  });
});

describe('two resources of one name in two namespaces that name one Istio', () => {
  it('the one that it is not for takes nothing from it when it goes, nor from the other', async () => {
    const [own, stranger] = await Promise.all(
      ['plane-owns', 'plane-strange'].map((namespace) =>
        scene(namespace, 'Sail', 'default', { deletionPolicy: 'Delete' }),
      ),
    );
    await applyOk(kube, istio('default', own!.namespace));
    await setStatus(kube, istioPath('default'), sailStatus('default'));
    await applyOk(kube, own!.resource);
    await patched(own!);
    await applyOk(kube, stranger!.resource);
    await isAs(stranger!, 'ControlPlanePatched', 'False', 'ControlPlaneUnfit');
    await isAs(stranger!, 'AccessReady', 'True', 'AccessConfigured');
    const seen = async () => {
      const { metadata, spec } = await get(istioPath('default'));
      const { annotations, resourceVersion } = metadata as Json;
      return { annotations, resourceVersion, spec };
    };
    const said = async (text: string) => {
      const { status } = await requestReconcile(kube, own!.namespace, own!.name, text);
      return status?.conditions?.map(({ type, status: is, reason }) => [type, is, reason].join(' '));
    };
    const before = [await seen(), await said('before')];
    expect(dig(before[0], 'annotations', 'istiovaultca.io/owner-default')).toBe(stranger!.name);
    await remove(stranger!);
    expect([await seen(), await said('after')]).toEqual(before);
    await remove(own!);
    expect((await seen()).spec).toEqual(istio('default', own!.namespace)['spec']);
    await kube.request('DELETE', istioPath('default'));
  });
});

describe('Helm values', () => {
  const namespace = 'plane-helm';
  const path = configMapPath(namespace, 'istiod-values');
  let of: Scene;

  it('are made in a ConfigMap that Flux notices at once, and that stays with Retain', async () => {
    of = await scene(namespace, 'HelmValues', 'istiod-values');
    await applyOk(kube, of.resource);
    await patched(of);
    const metadata = (await get(path))['metadata'];
    expect(dig(metadata, 'labels', 'reconcile.fluxcd.io/watch')).toBe('Enabled');
    expect(dig(metadata, 'ownerReferences')).toBeUndefined();
    await remove(of);
    expect(dig(await get(path), 'data', 'values.yaml')).toContain('ROOT_CA_DIR');
  });

  it('change nothing in the chart but env and annotations of istiod', async () => {
    const values = loadYaml(String(dig(await get(path), 'data', 'values.yaml'))) as Json;
    const deployment = async (given: Json) =>
      (await renderIstiod({ namespace, values: given })).find((object) => object['kind'] === 'Deployment') as Json;
    const [plain, ours] = [await deployment({}), await deployment(values)];
    const template = (object: Json) => dig(object, 'spec', 'template') as Json;
    const env = (object: Json) =>
      (dig(template(object), 'spec', 'containers') as { name: string; env: { name: string; value?: string }[] }[])[0]!
        .env;
    const annotations = (object: Json) => dig(template(object), 'metadata', 'annotations') as Json;
    const pilot = values['pilot'] as { env: Json; podAnnotations: Json };
    expect(env(ours).filter(({ name }) => name === 'ROOT_CA_DIR')).toEqual([
      { name: 'ROOT_CA_DIR', value: '/vault/secrets' },
    ]);
    expect(env(ours).filter(({ name }) => name !== 'ROOT_CA_DIR')).toEqual(env(plain));
    expect(annotations(ours)).toEqual({ ...annotations(plain), ...pilot.podAnnotations });
    // ConfigMaps of the chart hold its values, for the injector; all else is as it was
    const others = async (given: Json) =>
      (await renderIstiod({ namespace, values: given })).filter(
        (object) => object['kind'] !== 'Deployment' && object['kind'] !== 'ConfigMap',
      );
    expect(await others(values)).toEqual(await others({}));
    const without = (object: Json) => {
      const copy = JSON.parse(JSON.stringify(object)) as Json;
      env(copy).splice(0);
      for (const name of Object.keys(annotations(copy))) Reflect.deleteProperty(annotations(copy), name);
      return copy;
    };
    expect(without(ours)).toEqual(without(plain));
  });

  it('are repaired when somebody changes them, and go with Delete', async () => {
    const leaving = merge(of.resource, { spec: { deletionPolicy: 'Delete' } });
    await grantOperator(of.vault, `operator-${namespace}`, namespace, leaving['spec'] as Json);
    await applyOk(kube, leaving);
    await patched(of);
    await kube.request('PATCH', path, { data: null });
    await waitFor('the values to be back', async () => dig(await get(path), 'data', 'values.yaml'));
    await patched(of);
    await remove(of);
    expect((await kube.request('GET', path)).status).toBe(404);
  });

  it("leave somebody else's ConfigMap alone", async () => {
    const other = await scene('plane-helm-other', 'HelmValues', 'taken');
    const theirs = {
      apiVersion: 'v1',
      kind: 'ConfigMap',
      metadata: { name: 'taken', namespace: other.namespace },
      data: { 'values.yaml': 'a: b\n' },
    };
    await applyOk(kube, theirs);
    await applyOk(kube, other.resource);
    await isAs(other, 'ControlPlanePatched', 'False', 'FieldConflict');
    expect(dig(await get(configMapPath(other.namespace, 'taken')), 'data')).toEqual({ 'values.yaml': 'a: b\n' });
  });
});

describe('write: Render', () => {
  const target: Record<
    Kind,
    { name: string; make: (namespace: string) => Json | undefined; path: (namespace: string) => string }
  > = {
    TetrateControlPlane: {
      name: 'controlplane',
      make: () => undefined,
      path: (namespace) => `/apis/install.tetrate.io/v1alpha1/namespaces/${namespace}/controlplanes/controlplane`,
    },
    IstioOperator: { name: 'istio', make: iop, path: iopPath },
    Sail: { name: 'rendered', make: (namespace) => istio('rendered', namespace), path: () => istioPath('rendered') },
    HelmValues: {
      name: 'rendered',
      make: () => undefined,
      path: (namespace) => `/apis/apps/v1/namespaces/${namespace}/deployments/istiod`,
    },
  };

  /** What a GitOps tool makes of the values: istiod's Deployment, with them or without. */
  const istiod = (namespace: string, values: { env?: Json; podAnnotations?: Json } = {}): Json => {
    const labels = { app: 'istiod', 'istio.io/rev': 'default' };
    const env = Object.entries(values.env ?? {}).map(([name, value]) => ({ name, value }));
    return {
      apiVersion: 'apps/v1',
      kind: 'Deployment',
      metadata: { name: 'istiod', namespace, labels },
      spec: {
        selector: { matchLabels: labels },
        template: {
          metadata: { labels, annotations: values.podAnnotations ?? {} },
          spec: { serviceAccountName: 'istiod', containers: [{ name: 'discovery', image: 'pilot:1.24.3', env }] },
        },
      },
    };
  };

  it.each(Object.keys(target) as Kind[])('%s: shows what to commit, waits for it, and writes nothing', async (kind) => {
    const { name, make, path } = target[kind];
    const namespace = `render-${kind.toLowerCase()}`;
    const of = await scene(namespace, kind, name, { controlPlane: { write: 'Render' } });
    const object = make(namespace);
    if (object) await applyOk(kube, object);
    if (kind === 'IstioOperator') await setStatus(kube, iopPath(namespace), { status: 'HEALTHY' });
    if (kind === 'Sail') await setStatus(kube, istioPath(name), sailStatus(name));
    await applyOk(kube, of.resource);
    const renderPath = configMapPath(namespace, 'istioca-render');
    const shown = await waitFor('what to commit to be shown', async () => {
      const { status, body } = await kube.request('GET', renderPath);
      return status === 200 && Object.values((body as { data: Record<string, string> }).data)[0];
    });
    const waiting = await isAs(of, 'ControlPlanePatched', 'False', 'AwaitingCommit');
    expect(messageOf(waiting, 'ControlPlanePatched')).toMatch(
      /does not have .*ROOT_CA_DIR.* and 1\d more yet; commit what ConfigMap istioca-render shows/,
    );
    expect(conditionOf(waiting, 'Provisioned')?.status).toBe('True');
    expect(conditionOf(waiting, 'Stalled')).toBeUndefined();
    // a rotation must need no commit
    expect(shown).not.toContain('ca-digest');

    const committed = loadYaml(shown) as Json;
    if (kind === 'HelmValues') await applyOk(kube, istiod(namespace, committed['pilot'] as Json));
    else expect((await apply(kube, committed, 'argocd-controller')).status).toBe(200);
    await patched(of);
    const metadata = (await get(path(namespace)))['metadata'] as {
      managedFields: { manager: string }[];
      annotations?: Json;
    };
    expect(metadata.managedFields.map(({ manager }) => manager)).not.toContain('istio-vault-ca');
    if (kind === 'HelmValues') expect((await kube.request('GET', configMapPath(namespace, name))).status).toBe(404);
    if (kind === 'Sail') await kube.request('DELETE', istioPath('rendered'));
  });

  it('is taken down again when the operator is to write itself', async () => {
    const [namespace, name] = ['render-tetratecontrolplane', 'istioca'];
    await kube.request('PATCH', resourcePath(namespace, name), { spec: { controlPlane: { write: 'Patch' } } });
    await waitFor(
      'the ConfigMap to be gone',
      async () => (await kube.request('GET', configMapPath(namespace, `${name}-render`))).status === 404,
    );
    await waitForCondition(kube, namespace, name, { type: 'ControlPlanePatched', status: 'True' });
  });

  it('after Patch: what the operator wrote bridges the time until it is committed, and is given back then', async () => {
    const namespace = 'render-later';
    const path = `/apis/install.tetrate.io/v1alpha1/namespaces/${namespace}/controlplanes/controlplane`;
    const of = await scene(namespace, 'TetrateControlPlane', 'controlplane');
    const carries = async () => JSON.stringify((await get(path))['spec']).includes('ROOT_CA_DIR');
    await applyOk(kube, of.resource);
    await patched(of);
    await kube.request('PATCH', resourcePath(namespace, of.name), { spec: { controlPlane: { write: 'Render' } } });
    await isAs(of, 'ControlPlanePatched', 'False', 'AwaitingCommit');
    expect(await carries()).toBe(true);

    const shown = dig(await get(configMapPath(namespace, `${of.name}-render`)), 'data', 'manifest.yaml');
    expect((await apply(kube, loadYaml(String(shown)) as Json, 'argocd-controller')).status).toBe(200);
    await patched(of);
    await waitFor('the marks to be taken off', async () => {
      const annotations = dig(await get(path), 'metadata', 'annotations') ?? {};
      return Object.keys(annotations as Json).every((name) => !name.startsWith('istiovaultca.io/'));
    });
    expect(await carries()).toBe(true);
    await patched(of);

    // back again: what is committed is not taken for the operator's own
    await kube.request('PATCH', resourcePath(namespace, of.name), { spec: { controlPlane: { write: 'Patch' } } });
    await waitFor('the digest to be written', async () => JSON.stringify(await get(path)).includes('ca-digest'));
    await patched(of);
    const leaving = merge(of.resource, { spec: { deletionPolicy: 'Delete' } });
    await grantOperator(of.vault, `operator-${namespace}`, namespace, leaving['spec'] as Json);
    await kube.request('PATCH', resourcePath(namespace, of.name), { spec: { deletionPolicy: 'Delete' } });
    await isAs(of, 'VaultReady', 'True', 'VaultAnswers');
    await remove(of);
    expect(await carries()).toBe(true);
    expect(JSON.stringify(await get(path))).not.toContain('ca-digest');
  });

  it.each<[Kind, Json, (namespace: string) => { object: Json; path: string }]>([
    // whose digest, which is not shown, goes
    ['Sail', {}, (namespace) => ({ object: istio('committed', namespace), path: istioPath('committed') })],
    // of which all that was written is shown: the list stays as it was, and nobody but the operator is recorded for it
    [
      'TetrateControlPlane',
      { rollout: 'Never' },
      (namespace) => ({
        object: { ...controlPlane(namespace, []), spec: { hub: 'hub.example.invalid/tsb' } },
        path: target.TetrateControlPlane.path(namespace),
      }),
    ],
  ])('%s, after Patch: lines that kubectl apply commits are seen, and stay when the resource goes', async (kind, over, make) => {
    const namespace = `commit-${kind.toLowerCase()}`;
    const { object, path } = make(namespace);
    const file = join(makeTemporaryDir('commit'), 'manifest.yaml');
    const commit = async (manifest: Json) => {
      writeFileSync(file, dumpYaml(manifest));
      await kubectl(kube, 'apply', '-f', file);
    };
    const of = await makeScene(kube, vaults.OpenBao, {
      namespace,
      overlays: null,
      spec: merge({ controlPlane: { kind, name: dig(object, 'metadata', 'name') }, deletionPolicy: 'Delete' }, over),
      make: { rootGoes: true },
    });
    await commit(object);
    if (kind === 'Sail') await setStatus(kube, path, sailStatus('committed'));
    await applyOk(kube, of.resource);
    await patched(of);
    await kube.request('PATCH', resourcePath(namespace, of.name), { spec: { controlPlane: { write: 'Render' } } });
    await isAs(of, 'ControlPlanePatched', 'False', 'AwaitingCommit');
    const bridged = (await get(path))['spec'];
    expect(JSON.stringify(bridged)).toContain('ROOT_CA_DIR');

    const shown = dig(await get(configMapPath(namespace, `${of.name}-render`)), 'data', 'manifest.yaml');
    const committed = merge(object, loadYaml(String(shown)) as Json);
    if (kind === 'TetrateControlPlane') expect(bridged).toEqual(committed['spec']);
    await commit(committed);
    await patched(of);
    await waitFor('the marks to be taken off', async () => {
      const annotations = (dig(await get(path), 'metadata', 'annotations') ?? {}) as Json;
      return Object.keys(annotations).every((name) => !name.startsWith('istiovaultca.io/'));
    });
    await patched(of);
    expect((await get(path))['spec']).toEqual(committed['spec']);
    await remove(of);
    expect((await get(path))['spec']).toEqual(committed['spec']);
    // and are the user's to take out
    await commit(object);
    expect((await get(path))['spec']).toEqual(object['spec']);
    await kube.request('DELETE', path);
  }); // prettier-ignore

  it('with the lines in Git before there is a CA: it is made all the same', async () => {
    const of = await scene('render-first', 'TetrateControlPlane', 'controlplane', {
      controlPlane: { write: 'Render' },
    });
    const fields = istiodFields(specSchema.parse(of.resource['spec']), undefined);
    const target = {
      object: undefined,
      namespace: of.namespace,
      spec: specSchema.parse(of.resource['spec']).controlPlane,
      relatives: [],
    };
    await applyOk(kube, adapters.TetrateControlPlane.render(target, fields));
    await applyOk(kube, of.resource);
    await patched(of);
  });
});
