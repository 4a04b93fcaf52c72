/**
 * Everything in `deploy`, built by the real kustomize and taken by a real API server; the RBAC of each overlay is compared with a golden file.
 * @servers kubectl
 */
import { readdirSync, writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { beforeAll, expect, it } from '@jest/globals';
import { dig, items, str } from '../../src/api/json.ts';
import { dumpYaml, loadAllYaml } from '../../src/runtime/yaml.ts';
import { createNamespace, makeTemporaryDir, sharedStack } from '../stack/index.ts';
import { installOperator, type Json } from '../support/cluster.ts';
import { expectGolden } from '../support/golden.ts';
import { kubectl } from '../support/kubectl.ts';

const { kube } = sharedStack();
const deploy = join(import.meta.dirname, '..', '..', 'deploy');

beforeAll(async () => {
  await installOperator(kube);
  await createNamespace(kube, 'istio-system');
});

const built = new Map<string, Promise<Json[]>>();

/** Builds an overlay of these folders, and has the API server judge what comes out, once. */
function build(resources: string[], components: string[] = []): Promise<Json[]> {
  const key = JSON.stringify([resources, components]);
  const objects = built.get(key) ?? buildOnce(resources, components);
  built.set(key, objects);
  return objects;
}

async function buildOnce(resources: string[], components: string[]): Promise<Json[]> {
  const dir = makeTemporaryDir('kustomize');
  const from = (folder: string) => relative(dir, join(deploy, folder));
  const kustomization = {
    apiVersion: 'kustomize.config.k8s.io/v1beta1',
    kind: 'Kustomization',
    resources: resources.map(from),
    components: components.map(from),
  };
  writeFileSync(join(dir, 'kustomization.yaml'), dumpYaml(kustomization));
  const text = await kubectl(kube, 'kustomize', dir);
  // what needs the CRDs of a Prometheus operator is only built
  const objects = (loadAllYaml(text) as Json[]).filter(
    (object) => !String(object['apiVersion']).startsWith('monitoring.coreos.com/'),
  );
  const file = join(dir, 'all.yaml');
  writeFileSync(file, objects.map(dumpYaml).join('---\n'));
  await kubectl(kube, 'apply', '--server-side', '--force-conflicts', '--dry-run=server', '-f', file);
  return objects;
}
const names = (objects: Json[], kind: string) =>
  objects.filter((object) => object['kind'] === kind).map(({ metadata }) => (metadata as { name: string }).name);

/** The roles and bindings among objects: what decides about rights, by kind, namespace and name. */
function rbac(objects: Json[]): Json {
  const entries = objects
    .filter((object) => str(object['apiVersion']).startsWith('rbac.authorization.k8s.io/'))
    .map(({ kind, metadata, rules, roleRef, subjects }): [string, unknown] => {
      const { name, namespace, labels = {} } = metadata as { name: string; namespace?: string; labels?: Json };
      const own = Object.entries(labels).filter(([key]) => key !== 'app.kubernetes.io/name');
      const shown = { labels: Object.fromEntries(own), rules, roleRef, subjects };
      const present = Object.entries(shown).filter(([, value]) => value !== undefined);
      return [`${str(kind)} ${namespace === undefined ? '' : `${namespace}/`}${name}`, Object.fromEntries(present)];
    });
  return Object.fromEntries(entries.sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** What of the RBAC of an overlay another one does not have, or has otherwise. */
const added = (more: Json, than: Json): Json =>
  Object.fromEntries(Object.entries(more).filter(([key, value]) => !isDeepStrictEqual(value, than[key])));

it.each(['default', 'namespaced'])('deploy/%s', async (folder) => {
  const objects = await build([folder]);
  expect(names(objects, 'Deployment')).toEqual(['istio-vault-ca']);
  expectGolden(`rbac/${folder}`, rbac(objects));
});

it('the base has no right on control planes and none on Secrets', async () => {
  const objects = await build(['base']);
  expectGolden('rbac/base', rbac(objects));
  const resources = objects
    .flatMap((object) => items(dig(object, 'rules')))
    .flatMap((rule) => items(dig(rule, 'resources')));
  for (const one of ['controlplanes', 'istiooperators', 'istios', 'istiorevisions', 'secrets'])
    expect(resources).not.toContain(one);
});

const components = readdirSync(join(deploy, 'components')).filter((name) => name !== 'namespaced');
it.each(components)('component %s', async (name) => {
  const [plain, more] = [await build(['base']), await build(['base'], [`components/${name}`])];
  expect(more.length).toBeGreaterThanOrEqual(plain.length);
  // nothing of the base changes
  expect(added(rbac(plain), rbac(more))).toEqual({});
  expectGolden(`rbac/${name}`, added(rbac(more), rbac(plain)));
});

it('components go together with deploy/default, but for the one that it contains', async () => {
  const more = components.filter((name) => name !== 'tetrate').map((name) => `components/${name}`);
  expect(names(await build(['default'], more), 'ClusterRole')).toContain('istio-vault-ca-tetrate');
});

const access = readdirSync(join(deploy, 'components', 'namespaced')).filter((name) => name.startsWith('access'));
it.each(access)('for one namespace, %s', async (name) => {
  const folders = ['base', ...new Set(['components/namespaced/access', `components/namespaced/${name}`])];
  const objects = await build(folders, ['components/namespaced']);
  // nothing is granted in all namespaces but the small reading role
  expect(names(objects, 'ClusterRoleBinding')).toEqual(['istio-vault-ca-cluster-read']);
  const fewer = name === 'access' ? ['base'] : ['base', 'components/namespaced/access'];
  expectGolden(`rbac/namespaced/${name}`, added(rbac(objects), rbac(await build(fewer, ['components/namespaced']))));
});

it('each component that grants rights in namespaces has a counterpart for one namespace', async () => {
  const granting = await Promise.all(
    components.map(async (name) => {
      const role = (await build(['base'], [`components/${name}`])).find(
        ({ kind, metadata }) => kind === 'ClusterRole' && dig(metadata, 'name') === `istio-vault-ca-${name}`,
      );
      return dig(role, 'metadata', 'labels', 'istiovaultca.io/rights') === undefined ? [] : [`access-${name}`];
    }),
  );
  expect(granting.flat().sort()).toEqual(access.filter((name) => name !== 'access').sort());
});

it('each golden file is that of an overlay', () => {
  const golden = readdirSync(join(import.meta.dirname, '..', 'golden', 'rbac'), { recursive: true }).map(String);
  const overlays = ['base', 'default', 'namespaced', ...components, ...access.map((name) => `namespaced/${name}`)];
  expect(golden.filter((file) => file.endsWith('.yaml')).sort()).toEqual(overlays.map((name) => `${name}.yaml`).sort());
});

it('the operator may request tokens of accounts for the login to Vault, and not of its own', async () => {
  const allowed = async (namespace: string, name: string) => {
    const review = {
      spec: {
        user: 'system:serviceaccount:istio-vault-ca:istio-vault-ca-operator',
        resourceAttributes: { namespace, resource: 'serviceaccounts', subresource: 'token', name, verb: 'create' },
      },
    };
    const { body } = await kube.request('POST', '/apis/authorization.k8s.io/v1/subjectaccessreviews', review);
    return (body as { status: { allowed: boolean } }).status.allowed;
  };
  expect(await allowed('istio-system', 'istio-vault-ca')).toBe(true);
  expect(await allowed('istio-vault-ca', 'istio-vault-ca-operator')).toBe(false);
  expect(await allowed('istio-system', 'istiod')).toBe(false);
});
