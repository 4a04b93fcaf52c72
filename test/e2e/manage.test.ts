/** `kubernetesAuth.manage` and `policy.manage` from false to true and back: what an administrator of Vault wrote stays until `spec.adopt`. */
import { beforeAll, describe, expect, it } from '@jest/globals';
import { products, sharedStack, waitFor } from '../stack/index.ts';
import { applyOk, conditionOf, getResource, resourcePath, waitForCondition, type Json } from '../support/cluster.ts';
import { useOperator } from '../support/harness.ts';
import { makeScene, merge, type Scene } from '../support/scene.ts';

const { kube, vaults } = sharedStack();
useOperator();

describe.each(products)('%s', (product) => {
  const namespace = `manage-${product.toLowerCase()}`;
  const role = `auth/kubernetes/role/${namespace}-istiod`;
  const policy = `sys/policies/acl/${namespace}-istioca`;
  let scene: Scene;

  const patch = async (spec: Json) => await kube.request('PATCH', resourcePath(namespace, 'istioca'), { spec });
  const read = async (path: string) => ((await scene.vault.request('GET', path)).body as { data?: Json }).data;
  const accessIs = async (status: string, reason: string) =>
    conditionOf(
      await waitForCondition(kube, namespace, 'istioca', { type: 'AccessReady', status, reason }),
      'AccessReady',
    );
  /** What the administrator writes: a role by which istiod can log in, with a lifetime of its own. */
  const writeRole = async (lifetime: string) =>
    await scene.vault.request('POST', role, {
      bound_service_account_names: ['istiod'],
      bound_service_account_namespaces: [namespace],
      token_policies: [`${namespace}-istioca`],
      token_ttl: lifetime,
    });

  beforeAll(async () => {
    scene = await makeScene(kube, vaults[product], { namespace, spec: { deletionPolicy: 'Delete' } });
    await writeRole('7h');
    await applyOk(kube, merge(scene.resource, { spec: { kubernetesAuth: { manage: false } } }));
    await waitForCondition(kube, namespace, 'istioca', { type: 'Provisioned', status: 'True' });
  });

  it('a role of the administrator is MountNotOwned and stays as it is, until spec.adopt', async () => {
    const before = await read(role);
    expect(before).toMatchObject({ token_ttl: 7 * 3600 });
    await patch({ kubernetesAuth: { manage: true } });
    expect((await accessIs('False', 'MountNotOwned'))?.message).toContain('spec.adopt: true');
    expect(await read(role)).toEqual(before);
    await patch({ adopt: true });
    await accessIs('True', 'AccessConfigured');
    expect(await read(role)).toMatchObject({ token_ttl: 24 * 3600 });
  });

  it('what the administrator wrote meanwhile stays too', async () => {
    await patch({ adopt: false, policy: { manage: false }, kubernetesAuth: { manage: false } });
    await accessIs('True', 'AccessConfigured');
    await writeRole('5h');
    await scene.vault.request('PUT', policy, {
      policy: `path "${namespace}-kv/data/*" { capabilities = ["read"] }`,
    });
    const before = [await read(role), await read(policy)];
    await patch({ policy: { manage: true }, kubernetesAuth: { manage: true } });
    await accessIs('False', 'MountNotOwned');
    expect([await read(role), await read(policy)]).toEqual(before);
  });

  it('a deletion leaves what is not managed', async () => {
    await patch({ policy: { manage: false }, kubernetesAuth: { manage: false } });
    await accessIs('True', 'AccessConfigured');
    const before = [await read(role), await read(policy)];
    await kube.request('DELETE', resourcePath(namespace, 'istioca'));
    await waitFor(
      'the resource to be gone',
      async () => (await getResource(kube, namespace, 'istioca')).metadata.uid === undefined,
    );
    expect(await read(`sys/mounts/${namespace}-ca`)).toBeUndefined();
    expect([await read(role), await read(policy)]).toEqual(before);
  });
});
