/**
 * Everything in `deploy`, built by the real kustomize and taken by a real API server.
 * @servers kubectl
 */
import { readdirSync, writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { beforeAll, expect, it } from '@jest/globals';
import { dumpYaml, loadAllYaml } from '../../src/runtime/yaml.ts';
import { createNamespace, makeTemporaryDir, sharedStack } from '../stack/index.ts';
import { installOperator, type Json } from '../support/cluster.ts';
import { kubectl } from '../support/kubectl.ts';

const { kube } = sharedStack();
const deploy = join(import.meta.dirname, '..', '..', 'deploy');

beforeAll(async () => {
  await installOperator(kube);
  await createNamespace(kube, 'istio-system');
});

/** Builds an overlay of these folders, and has the API server judge what comes out. */
async function build(resources: string[], components: string[] = []): Promise<Json[]> {
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

it.each(['default', 'namespaced'])('deploy/%s', async (folder) => {
  expect(names(await build([folder]), 'Deployment')).toEqual(['istio-vault-ca']);
});

const components = readdirSync(join(deploy, 'components')).filter((name) => name !== 'namespaced');
it.each(components)('component %s', async (name) => {
  const plain = await build(['base']);
  expect((await build(['base'], [`components/${name}`])).length).toBeGreaterThanOrEqual(plain.length);
});

const access = readdirSync(join(deploy, 'components', 'namespaced')).filter((name) => name.startsWith('access'));
it.each(access)('for one namespace, %s', async (name) => {
  const objects = await build(
    ['base', ...new Set(['components/namespaced/access', `components/namespaced/${name}`])],
    ['components/namespaced'],
  );
  // nothing is granted in all namespaces but the small reading role
  expect(names(objects, 'ClusterRoleBinding')).toEqual(['istio-vault-ca-cluster-read']);
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
