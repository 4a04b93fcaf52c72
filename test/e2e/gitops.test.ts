/**
 * The manifests of docs/gitops.md, applied as the tools do it, again and again beside the running operator.
 * @servers kubectl
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from '@jest/globals';
import { dig } from '../../src/api/json.ts';
import { dumpYaml, loadYaml } from '../../src/runtime/yaml.ts';
import { statesFile } from '../stack/gitops-health.ts';
import { makeTemporaryDir, sharedStack, waitFor } from '../stack/index.ts';
import { kubeWrites } from '../support/audit.ts';
import {
  applyOk,
  conditionOf,
  manifest,
  requestReconcile,
  setStatus,
  waitForCondition,
  type Json,
} from '../support/cluster.ts';
import { istioOperatorCrd, openCrd, sailCrds, sailStatus, serveCrds } from '../support/control-plane-crds.ts';
import { useOperator } from '../support/harness.ts';
import { kubectl } from '../support/kubectl.ts';
import { controlPlane, makeScene, merge, type Scene } from '../support/scene.ts';

const { kube, vaults, dir } = sharedStack();
useOperator();

const toolCrds = [
  openCrd({
    group: 'helm.toolkit.fluxcd.io',
    version: 'v2',
    kind: 'HelmRelease',
    plural: 'helmreleases',
    scope: 'Namespaced',
  }),
  openCrd({
    group: 'argoproj.io',
    version: 'v1alpha1',
    kind: 'Application',
    plural: 'applications',
    scope: 'Namespaced',
  }),
];

beforeAll(async () => {
  await serveCrds(kube, [istioOperatorCrd, ...sailCrds, ...toolCrds]);
});

interface Sample {
  of: Scene;
  /** Applies it as the tool does. */
  sync: () => Promise<void>;
  objects: Json[];
}

/**
 * A sample with the names, the Vault and the namespace of a scene.
 * @param manager of a tool that applies server-side, by force; undefined: `kubectl apply`, client-side
 */
async function sample(file: string, manager?: string, more: (namespace: string) => Json[] = () => []): Promise<Sample> {
  const namespace = `gitops-${file.replace('.yaml', '')}`;
  const objects = await manifest(`deploy/samples/gitops/${file}`);
  const own = objects.find((object) => object['kind'] === 'IstioVaultCA')!;
  const { controlPlane: target } = own['spec'] as { controlPlane: Json };
  const of = await makeScene(kube, vaults.OpenBao, { namespace, overlays: null, spec: { controlPlane: target } });
  const here = [...more(namespace), ...objects].map((object) => {
    if (object === own) return merge(of.resource, { spec: { controlPlane: target } });
    if (object['kind'] === 'Istio') return merge(object, { spec: { namespace } });
    return merge(object, { metadata: { namespace } });
  });
  const path = join(makeTemporaryDir('gitops'), file);
  writeFileSync(path, here.map(dumpYaml).join('---\n'));
  const sync = async () => {
    const how = manager === undefined ? [] : ['--server-side', '--force-conflicts', `--field-manager=${manager}`];
    await kubectl(kube, 'apply', ...how, '-f', path);
  };
  return { of, sync, objects: here };
}

const patched = ({ namespace, name }: Scene) =>
  waitForCondition(kube, namespace, name, { type: 'ControlPlanePatched', status: 'True' });
const get = async (path: string): Promise<Json> => (await kube.request('GET', path)).body as Json;

/** Syncs go on, and neither takes anything from the other. */
async function peaceful({ of, sync }: Sample): Promise<void> {
  const writes = async () =>
    (await kubeWrites(kube)).filter((line) => / (controlplanes|istios|istiooperators|configmaps)\/ /.test(line));
  const before = await writes();
  for (const text of ['1', '2', '3']) {
    await sync();
    const resource = await requestReconcile(kube, of.namespace, of.name, text);
    expect(conditionOf(resource, 'ControlPlanePatched')).toMatchObject({ status: 'True' });
  }
  expect(await writes()).toEqual(before);
}

it('plain kubectl, an IstioOperator', async () => {
  const it_ = await sample('kubectl.yaml', undefined, (namespace) => [
    {
      apiVersion: 'install.istio.io/v1alpha1',
      kind: 'IstioOperator',
      metadata: { name: 'istio', namespace },
      spec: { profile: 'default' },
    },
  ]);
  await it_.sync();
  const path = `/apis/install.istio.io/v1alpha1/namespaces/${it_.of.namespace}/istiooperators/istio`;
  await setStatus(kube, path, { status: 'HEALTHY' });
  await patched(it_.of);
  await peaceful(it_);
});

it('Flux with Helm: the ConfigMap that the HelmRelease names, by the key that it names', async () => {
  const it_ = await sample('flux-helm.yaml', 'kustomize-controller');
  await it_.sync();
  await patched(it_.of);
  const release = it_.objects.find((object) => object['kind'] === 'HelmRelease');
  const [from] = dig(release, 'spec', 'valuesFrom') as [{ name: string; valuesKey: string }];
  const configMap = await get(`/api/v1/namespaces/${it_.of.namespace}/configmaps/${from.name}`);
  const values = loadYaml(String(dig(configMap, 'data', from.valuesKey)));
  expect(dig(values, 'pilot', 'env', 'ROOT_CA_DIR')).toBe('/vault/secrets');
  await peaceful(it_);
});

it('Flux with Sail', async () => {
  const it_ = await sample('flux-sail.yaml', 'kustomize-controller');
  await it_.sync();
  await setStatus(kube, '/apis/sailoperator.io/v1/istios/default', sailStatus('default'));
  await patched(it_.of);
  await peaceful(it_);
  const istio = await get('/apis/sailoperator.io/v1/istios/default');
  expect(dig(istio, 'spec', 'values', 'pilot', 'env')).toEqual({
    PILOT_ENABLE_STATUS: 'true',
    ROOT_CA_DIR: '/vault/secrets',
  });
  await kube.request('DELETE', '/apis/sailoperator.io/v1/istios/default');
});

describe('Argo CD with Tetrate', () => {
  it('the ControlPlane without overlays in Git', async () => {
    const it_ = await sample('argocd-tetrate.yaml', 'argocd-controller', (namespace) => [bare(namespace)]);
    await it_.sync();
    await patched(it_.of);
    await peaceful(it_);
  });

  it('the ControlPlane with overlays in Git: what is shown is committed, and then both agree', async () => {
    const overlays = [{ kind: 'Deployment', name: 'other', patches: [] }];
    const it_ = await sample('render-tetrate.yaml', 'argocd-controller', (namespace) => [
      controlPlane(namespace, overlays),
    ]);
    await it_.sync();
    const { namespace, name } = it_.of;
    const waiting = await waitForCondition(kube, namespace, name, {
      type: 'ControlPlanePatched',
      reason: 'AwaitingCommit',
    });
    expect(conditionOf(waiting, 'Provisioned')?.status).toBe('True');
    const shown = await waitFor('what to commit', async () =>
      dig(await get(`/api/v1/namespaces/${namespace}/configmaps/${name}-render`), 'data', 'manifest.yaml'),
    );
    const [entry] = dig(loadYaml(String(shown)), 'spec', 'components', 'istio', 'kubeSpec', 'overlays') as [Json];
    const committed = {
      ...it_,
      sync: async () => {
        await applyOk(kube, controlPlane(namespace, [...overlays, entry]));
      },
    };
    await committed.sync();
    await patched(it_.of);
    await peaceful(committed);
  });
});

/** A ControlPlane without overlays. */
function bare(namespace: string): Json {
  const object = controlPlane(namespace, []);
  return { ...object, spec: { hub: 'hub.example.invalid/tsb', components: { istio: { traceSamplingRate: 50 } } } };
}

it('every state of this run is recorded, to be judged by the tools at its end', async () => {
  const recorded = () => readFileSync(join(dir, statesFile), 'utf8').split('\n');
  await waitFor('states that were Ready or not', () =>
    ['True', 'False'].every((status) =>
      recorded().some((line) => line.includes('"namespace":"gitops-') && line.includes(`"status":"${status}"`)),
    ),
  );
});

it('docs/gitops.md names every sample, and nothing that is not there', async () => {
  const text = readFileSync(join(import.meta.dirname, '../../docs/gitops.md'), 'utf8');
  const named = new Set([...text.matchAll(/deploy\/samples\/gitops\/([a-z-]+\.yaml)/g)].map(([, name]) => name));
  expect([...named].sort()).toEqual([
    'argocd-tetrate.yaml',
    'flux-helm.yaml',
    'flux-sail.yaml',
    'kubectl.yaml',
    'render-tetrate.yaml',
  ]);
  for (const name of named) expect((await manifest(`deploy/samples/gitops/${name!}`)).length).toBeGreaterThan(0);
});
