/** Settings with which administrators of Vault limit what others may write: the operator works with them, or says what stands against it. */
import { describe, expect, it } from '@jest/globals';
import { products, sharedStack, waitFor } from '../stack/index.ts';
import {
  applyOk,
  conditionOf,
  requestReconcile,
  waitForCondition,
  type Condition,
  type Json,
  type Resource,
} from '../support/cluster.ts';
import { useOperator } from '../support/harness.ts';
import { makeScene, type Scene } from '../support/scene.ts';

const { kube, vaults } = sharedStack();
useOperator();

const provisioned = (namespace: string) =>
  waitForCondition(kube, namespace, 'istioca', { type: 'Provisioned', status: 'True' });
const access = (resource: Resource): Condition | undefined => conditionOf(resource, 'AccessReady');

/** Calls Vault as administrator. @throws if Vault refuses it */
async function ask({ vault }: Pick<Scene, 'vault'>, method: string, path: string, body?: Json): Promise<Json> {
  const answer = await vault.request(method, path, body);
  if (answer.status >= 300) throw new Error(`${method} ${path}: ${answer.status} ${JSON.stringify(answer.body)}`);
  return (answer.body as { data?: Json } | undefined)?.data ?? {};
}

/** Makes the KV mount of a scene, with settings of an administrator. */
async function mountKv(scene: Scene, settings: Json): Promise<string> {
  const mount = `${scene.namespace}-kv`;
  await ask(scene, 'POST', `sys/mounts/${mount}`, { type: 'kv', options: { version: '2' } });
  await waitFor('the mount to take settings', async () => {
    const { status } = await scene.vault.request('POST', `${mount}/config`, settings);
    return status < 300;
  });
  return mount;
}

describe.each(products)('%s', (product) => {
  const vault = vaults[product];
  const prefix = `others-${product}`.toLowerCase();

  it('requires check-and-set: every write is one', async () => {
    const namespace = `${prefix}-cas`;
    const scene = await makeScene(kube, vault, { namespace });
    const metadata = `${await mountKv(scene, { cas_required: true, metadata_cas_required: true })}/metadata/istioca`;
    await applyOk(kube, scene.resource);
    await provisioned(namespace);
    const { max_versions, current_metadata_version } = await ask(scene, 'GET', metadata);
    expect(max_versions).toBe(2);

    // the same, set of one entry and of the policy, with something to correct
    await ask(scene, 'POST', `${namespace}-kv/config`, { cas_required: false, metadata_cas_required: false });
    await ask(scene, 'POST', metadata, {
      cas_required: true,
      metadata_cas_required: true,
      max_versions: 7,
      metadata_cas: current_metadata_version,
    });
    const policy = `sys/policies/acl/${namespace}-istioca`;
    const { policy: text } = await ask(scene, 'GET', policy);
    await ask(scene, 'PUT', policy, { policy: `${String(text)}# more\n`, cas_required: true, cas: 1 });
    expect(access(await requestReconcile(kube, namespace, 'istioca', 'limited'))?.status).toBe('True');
    expect((await ask(scene, 'GET', metadata))['max_versions']).toBe(2);
    expect(await ask(scene, 'GET', policy)).toMatchObject({
      policy: text,
      ...(product === 'OpenBao' ? { cas_required: true } : {}),
    });
  });

  it('limits the lifetime of tokens: the role stays within it, and the message names it', async () => {
    const namespace = `${prefix}-role`;
    const role = `auth/kubernetes/role/${namespace}-istiod`;
    const scene = await makeScene(kube, vault, { namespace });
    await applyOk(kube, scene.resource);
    await provisioned(namespace);
    await ask(scene, 'POST', role, { token_max_ttl: '1h', token_ttl: '30m' });
    expect(access(await requestReconcile(kube, namespace, 'istioca', 'shorter'))).toMatchObject({
      status: 'True',
      message: expect.stringContaining('token_max_ttl'),
    });
    expect(await ask(scene, 'GET', role)).toMatchObject({ token_max_ttl: 3600, token_ttl: 3600 });
    await ask(scene, 'POST', role, { token_max_ttl: 0 });
    expect(access(await requestReconcile(kube, namespace, 'istioca', 'longer'))?.status).toBe('True');
    expect(await ask(scene, 'GET', role)).toMatchObject({ token_max_ttl: 0, token_ttl: 86_400 });
  });

  const refused: [string, string, (namespace: string) => Json, string][] = [
    ['keyStore.mount', 'KeyStored', (n) => ({ keyStore: { mount: n } }), 'mounts'],
    ['root.mount', 'RootReady', (n) => ({ root: { mount: n } }), 'mounts'],
    ['intermediate.mount', 'IntermediateReady', (n) => ({ intermediate: { mount: n } }), 'mounts'],
    ['kubernetesAuth.mount', 'AccessReady', (n) => ({ kubernetesAuth: { mount: n } }), 'auth'],
  ];
  it.each(refused)('nothing can be mounted above another mount: %s', async (field, type, spec, kind) => {
    const namespace = `${prefix}-${field.replace('.mount', '').toLowerCase()}`;
    const make = { authMount: true, authConfig: true };
    const scene = await makeScene(kube, vault, { namespace, spec: spec(namespace), make });
    const deeper = `sys/${kind}/${namespace}/team`;
    await ask(scene, 'POST', deeper, { type: kind === 'auth' ? 'userpass' : 'kv' });
    await applyOk(kube, scene.resource);
    const what = { type: 'Ready', status: 'False', reason: 'MountRefused' };
    const stalled = await waitForCondition(kube, namespace, 'istioca', what);
    const message = conditionOf(stalled, type)?.message;
    expect(message).toContain(`spec.${field}: nothing can be mounted at `);
    expect(message).toContain(`${namespace}/team/`);
    expect(conditionOf(stalled, 'Stalled')?.status).toBe('True');

    await ask(scene, 'DELETE', deeper);
    const cleared = await requestReconcile(kube, namespace, 'istioca', 'cleared');
    expect(conditionOf(cleared, 'Provisioned')?.status).toBe('True');
  });
});

it('an audit device that Vault cannot write is refused, and the message has the cause', async () => {
  const namespace = 'refused-audit';
  const audit = { path: namespace, options: { file_path: '/proc/audit/denied.log' } };
  const scene = await makeScene(kube, vaults.Vault, { namespace, spec: { audit }, make: { auditDevice: true } });
  await applyOk(kube, scene.resource);
  const what = { type: 'VaultReady', status: 'False', reason: 'AuditDeviceMissing' };
  const stalled = await waitForCondition(kube, namespace, 'istioca', what);
  expect(conditionOf(stalled, 'VaultReady')?.message).toMatch(/^spec\.audit: .* Vault reports: .*\/proc\/audit/);
});

describe('nothing can be mounted', () => {
  const cases: [string, string, (scene: Scene) => Promise<unknown>][] = [
    ['below another mount', 'deep/er', (scene) => ask(scene, 'POST', 'sys/mounts/deep', { type: 'kv' })],
    ['at a path of the server itself', 'cubbyhole', () => Promise.resolve()],
    ['at the path of a namespace', 'tenant', (scene) => ask(scene, 'POST', 'sys/namespaces/tenant', {})],
  ];
  it.each(cases)('%s', async (_what, mount, prepare) => {
    const namespace = `refused-${mount.replace('/', '-')}`;
    const scene = await makeScene(kube, vaults.OpenBao, { namespace, spec: { keyStore: { mount } } });
    await prepare(scene);
    await applyOk(kube, scene.resource);
    const what = { type: 'KeyStored', status: 'False' };
    const { reason, message } = conditionOf(await waitForCondition(kube, namespace, 'istioca', what), 'KeyStored')!;
    expect({ reason, message }).toMatchObject({
      reason: mount === 'cubbyhole' ? 'MountTypeMismatch' : 'MountRefused',
      message: expect.stringContaining(`spec.keyStore.mount: `),
    });
  });
});
