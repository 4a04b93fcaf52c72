/** The commands `plan` and `render`, run as a person runs them: what they say comes true, and nothing is written to say it. */
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { dumpYaml, loadYaml } from '../../src/runtime/yaml.ts';
import { existing, external, imported, type Source } from '../matrix/preparations.ts';
import { makeTemporaryDir, products, sharedStack } from '../stack/index.ts';
import { call } from '../stack/http.ts';
import { kubeWrites, vaultEntries, vaultWrites } from '../support/audit.ts';
import { leaks, secretsOf, tokenAccessors } from '../support/canary.ts';
import { applyOk, getResource, manifest, resourcePath, waitForCondition, type Json } from '../support/cluster.ts';
import { trustForeignRoot } from '../support/foreign-root.ts';
import { useOperator } from '../support/harness.ts';
import { runProgram, type Said } from '../support/operator.ts';
import { secretOf } from '../support/samples.ts';
import { grantLongTokens, grantOperator, makeScene, merge, type Scene, type Vault } from '../support/scene.ts';

const { kube, vaults } = sharedStack();
useOperator();

/** A person with every right, and none of them used for a write. */
const person = 'admin';
const credentials = `--kubeconfig=${kube.adminKubeconfig}`;

interface Planned {
  steps: { action: string; target: string; message: string }[];
  problems: { reason: string; message: string }[];
  summary: string;
}

/** `plan` of a resource, by a file. */
async function plan(resource: Json, ...flags: string[]): Promise<Said> {
  const file = join(makeTemporaryDir('manifest'), 'ca.yaml');
  await writeFile(file, dumpYaml(resource));
  return await runProgram(['plan', '-f', file, credentials, ...flags]);
}

const planned = ({ stdout }: Said): Planned => JSON.parse(stdout) as Planned;

/** A scene in which the operator logs in once. */
async function longScene(...args: Parameters<typeof makeScene>): Promise<Scene> {
  const scene = await makeScene(...args);
  if (!args[2].withoutRole) await grantLongTokens(scene);
  return scene;
}

/** Logins in Vault's audit log. */
async function logins(vault: Vault): Promise<number> {
  const entries = await vaultEntries(vault.auditLog);
  return entries.filter(({ type, path }) => type === 'request' && path.endsWith('/login')).length;
}

/** Runs it, and holds against it every write that the audit logs show, and every token that it leaves. */
async function withoutWrites(vault: Vault, run: () => Promise<Said>): Promise<Said> {
  const before = { vault: await vaultWrites(vault), kube: await kubeWrites(kube, person), logins: await logins(vault) };
  const tokens = await tokenAccessors(vault);
  const said = await run();
  expect(await vaultWrites(vault)).toEqual(before.vault);
  expect(await kubeWrites(kube, person)).toEqual(before.kube);
  // the logs do show what it did
  expect(await logins(vault)).toBe(before.logins + 1);
  expect((await tokenAccessors(vault)).filter((one) => !tokens.includes(one))).toEqual([]);
  return said;
}

describe.each(products)('plan, with %s', (product) => {
  const namespace = `plan-${product.toLowerCase()}`;
  const vault = vaults[product];
  let scene: Scene;

  it('says every step before the resource is there, and takes none', async () => {
    scene = await longScene(kube, vault, { namespace });
    const said = await withoutWrites(vault, async () => await plan(scene.resource));
    expect(said).toMatchObject({ code: 2, stderr: '' });
    const lines = said.stdout.trim().split('\n');
    expect(lines[0]).toMatch(/^Update {2,}controlPlane:owner {2,}Set the owner annotation on /);
    expect(lines.at(-3)).toMatch(/^Update {2,}controlPlane:fields {2,}Write the fields of istiod to /);
    expect(lines.at(-2)).toMatch(
      /^Update {2,}vault:state {2,}Record in the state entry: the control plane carries the fields$/,
    );
    expect(lines.at(-1)).toBe(`${lines.length - 1} steps to take. Nothing was changed.`);
    expect((await getResource(kube, namespace, 'istioca')).metadata.uid).toBeUndefined();
    expect((await vault.request('GET', `sys/mounts/${namespace}-pki`)).status).toBe(400);
  });

  it('says the same as mode: Plan, by JSON too', async () => {
    const { steps } = planned(await plan(scene.resource, '-o', 'json'));
    await applyOk(kube, merge(scene.resource, { spec: { mode: 'Plan' } }));
    const held = await waitForCondition(kube, namespace, 'istioca', { type: 'Ready', reason: 'ChangesPending' });
    expect(steps).toEqual((held.status as { plan?: unknown }).plan);
  });

  it('finds nothing to do when it is done', async () => {
    await applyOk(kube, scene.resource);
    await waitForCondition(kube, namespace, 'istioca', { type: 'Provisioned', status: 'True' });
    const said = await withoutWrites(vault, async () => await plan(scene.resource));
    expect(said).toEqual({ code: 0, stdout: 'nothing to do. Nothing was changed.\n', stderr: '' });
    expect(leaks({ said: said.stdout }, await secretsOf(scene))).toEqual([]);
  });

  it('says what another spec would change, and what the annotations ask for', async () => {
    const longer = planned(
      await plan(merge(scene.resource, { spec: { intermediate: { ttl: '50000h' } } }), '-o', 'json'),
    );
    expect(longer.steps.map(({ target }) => target)).toContain('vault:staging');
    const asked = merge(scene.resource, {
      metadata: { annotations: { 'istiovaultca.io/rotate-intermediate': 'now' } },
    });
    const said = await withoutWrites(vault, async () => await plan(asked));
    expect(said.code).toBe(2);
    expect(said.stdout).toContain('Create and stage the key of CA generation 2');
  });

  it('shows drift, and repairs none of it', async () => {
    await applyOk(kube, merge(scene.resource, { spec: { suspend: true } }));
    await waitForCondition(kube, namespace, 'istioca', { type: 'Ready', reason: 'Suspended' });
    await vault.request('DELETE', `auth/kubernetes/role/${namespace}-istiod`);
    const { code, stdout } = await withoutWrites(vault, async () => await plan(scene.resource));
    expect(code).toBe(2);
    expect(stdout.split('\n')[0]).toContain(`vault:auth/kubernetes/role/${namespace}-istiod`);
    expect(stdout).toContain('1 step to take.');
    await applyOk(kube, scene.resource);
    await waitForCondition(kube, namespace, 'istioca', { type: 'Provisioned', status: 'True' });
  });

  it('names what cannot be changed', async () => {
    const said = await plan(merge(scene.resource, { spec: { root: { mount: 'other' } } }));
    expect(said).toMatchObject({ code: 1, stdout: '' });
    expect(said.stderr).toMatch(/^istio-vault-ca: \S+ca\.yaml: spec\.root\.mount cannot be changed: .*\n$/);
  });
});

describe('what stands in the way', () => {
  const vault = vaults.OpenBao;

  it('is another root of the mesh', async () => {
    const namespace = 'plan-root';
    const scene = await longScene(kube, vault, { namespace });
    const root = await trustForeignRoot(kube, namespace);
    const said = await withoutWrites(vault, async () => await plan(scene.resource));
    expect(said).toMatchObject({ code: 1, stderr: '' });
    expect(said.stdout).toMatch(/^RootReady {2}WouldReplaceRoot {2}/);
    expect(said.stdout).toContain(`istiovaultca.io/confirm-root-change=${root.fingerprint}`);
    expect(said.stdout).toMatch(/\nin the way: WouldReplaceRoot\. Nothing was changed\.\n$/);
    const confirmed = merge(scene.resource, {
      metadata: { annotations: { 'istiovaultca.io/confirm-root-change': root.fingerprint } },
    });
    expect((await plan(confirmed)).code).toBe(2);
  });

  it('is an older resource for the same control plane', async () => {
    const older = await longScene(kube, vault, { namespace: 'plan-older' });
    await applyOk(kube, merge(older.resource, { spec: { suspend: true } }));
    const younger = merge(older.resource, { metadata: { name: 'younger' } });
    const refused = await withoutWrites(vault, async () => await plan(younger));
    expect(refused.code).toBe(1);
    expect(refused.stdout).toContain('ControlPlaneConflict');
    await kube.request('DELETE', resourcePath('plan-older', 'istioca'));
  });

  it('is a login that Vault refuses, and an address that is not on the list', async () => {
    const { resource } = await longScene(kube, vault, { namespace: 'plan-login', withoutRole: true });
    const refused = await plan(resource, '-o', 'json');
    expect(refused.code).toBe(1);
    expect(planned(refused).problems.map(({ reason }) => reason)).toEqual(['LoginFailed']);
    const before = await logins(vault);
    const listed = await plan(resource, '--vault-addresses=https://elsewhere.example:8200');
    expect(listed.code).toBe(1);
    expect(listed.stdout).toContain('AddressNotAllowed');
    expect(await logins(vault)).toBe(before);
  });

  it('is a wrapping token, which it leaves to the operator', async () => {
    const namespace = 'plan-wrapped';
    await vault.request('POST', 'sys/auth/plan-approle', { type: 'approle' });
    await vault.request('POST', 'auth/plan-approle/role/operator', {});
    const wrapped = await call(`${vault.address}/v1/auth/plan-approle/role/operator/secret-id`, {
      method: 'POST',
      ca: vault.caPem,
      headers: { 'x-vault-token': vault.rootToken, 'x-vault-wrap-ttl': '600' },
    });
    const { token } = (wrapped.body as { wrap_info: { token: string } }).wrap_info;
    const appRole = { mount: 'plan-approle', roleId: 'r', secretIdRef: { name: 'istio-vault-ca-approle' } };
    const auth = { method: 'AppRole', kubernetes: undefined, appRole };
    const { resource } = await longScene(kube, vault, { namespace, spec: { vault: { auth } } });
    await applyOk(kube, secretOf(namespace, 'istio-vault-ca-approle', 'secret-id', token));
    const said = await plan(resource, '-o', 'json');
    expect(said.code).toBe(1);
    expect(planned(said).problems.map(({ reason }) => reason)).toEqual(['WrappingTokenInvalid']);
    expect(said.stdout).toContain('left to the running operator');
    expect((await vault.request('POST', 'sys/wrapping/lookup', { token }, '')).status).toBe(200);
  });

  it('is a suspended resource, or a mistake, on one line', async () => {
    const { resource } = await longScene(kube, vault, { namespace: 'plan-words' });
    expect(await plan(merge(resource, { spec: { suspend: true } }))).toMatchObject({ code: 0, stderr: '' });
    const mistakes: [Json, RegExp][] = [
      [{ spec: { root: { life: '1h' } } }, /spec\.root\.life: no such field/],
      [{ spec: { vault: { address: 'http://127.0.0.1:1' } } }, /not encrypted; write https:\/\/, or add --allow-http/],
      [{ spec: { keyStore: { path: '../x' } } }, /spec\.keyStore\.path "\.\.\/x": /],
    ];
    for (const [over, says] of mistakes) {
      const said = await plan(merge(resource, over));
      expect(said).toMatchObject({ code: 1, stdout: '' });
      expect(said.stderr).toMatch(says);
      expect(said.stderr.trim().split('\n')).toHaveLength(1);
    }
  });
});

describe('a CA from elsewhere', () => {
  const ofOthers: Source = {
    prepare: async (scene) => {
      const { root } = (await existing.prepare(scene)) as { root: { mount: string } };
      return { root: { manage: false, mount: root.mount, commonName: 'Corporate Root' } };
    },
  };

  it.each<[string, Source, string]>([
    ['an issuer of others', existing, 'vault:state'],
    ['a root of others', ofOthers, 'vault:state'],
    ['a root outside of Vault', external, 'configmap:istioca-csr'],
    ['an imported CA', imported, 'vault:state'],
  ])('%s: says the same as mode: Plan, and it comes true', async (name, source, last) => {
    const namespace = `plan-${name.replaceAll(' ', '-').toLowerCase()}`;
    const made = await makeScene(kube, vaults.OpenBao, { namespace });
    const spec = merge(made.resource['spec'] as Json, await source.prepare(made));
    await grantOperator(made.vault, `operator-${namespace}`, namespace, spec);
    const scene = { ...made, resource: { ...made.resource, spec } };
    const { steps, problems } = planned(await plan(scene.resource, '-o', 'json'));
    // a signature outside is awaited before istiod gets anything
    expect([steps.at(-1)?.target, problems]).toEqual([last, []]);
    // nobody else's mount, and none that is not needed
    expect(steps.filter(({ target }) => target.endsWith(`${namespace}-pki`))).toEqual([]);
    await applyOk(kube, merge(scene.resource, { spec: { mode: 'Plan' } }));
    const held = await waitForCondition(kube, namespace, 'istioca', { type: 'Ready', reason: 'ChangesPending' });
    expect(steps).toEqual((held.status as { plan?: unknown }).plan);
    await applyOk(kube, scene.resource);
    await source.answer?.(scene);
    await waitForCondition(kube, namespace, 'istioca', { type: 'Provisioned', status: 'True' });
    expect((await plan(scene.resource)).stdout).toBe('nothing to do. Nothing was changed.\n');
  });
});

it('waits for a control plane that is still to come, in a namespace by flag, from standard input', async () => {
  const namespace = 'plan-late';
  const { resource } = await longScene(kube, vaults.OpenBao, { namespace, overlays: null });
  const bare = { ...resource, metadata: { name: 'istioca' } };
  const said = await runProgram(['plan', '-f', '-', '-n', namespace, credentials], dumpYaml(bare));
  expect(said).toMatchObject({ code: 2, stderr: '' });
  expect(said.stdout).toMatch(/steps to take; waits for: ControlPlaneNotFound\. Nothing was changed\.\n$/);
});

describe('render', () => {
  const folder = 'deploy/components/configmaps';
  const binding = '/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/istio-vault-ca-configmaps';

  beforeAll(async () => {
    for (const file of ['rights/clusterrole.yaml', 'clusterrolebinding.yaml'])
      for (const object of await manifest(`${folder}/${file}`)) await applyOk(kube, object);
  });

  afterAll(async () => {
    await kube.request('DELETE', binding);
  });

  it('prints what the operator shows to be committed, and it is what it waits for', async () => {
    const namespace = 'plan-render';
    const scene = await longScene(kube, vaults.OpenBao, { namespace, spec: { controlPlane: { write: 'Render' } } });
    await applyOk(kube, scene.resource);
    await waitForCondition(kube, namespace, 'istioca', { type: 'ControlPlanePatched', reason: 'AwaitingCommit' });
    const said = await runProgram(['render', '-f', '-'], dumpYaml(scene.resource));
    expect(said).toMatchObject({ code: 0, stderr: '' });
    const path = `/api/v1/namespaces/${namespace}/configmaps/istioca-render`;
    const shown = (await kube.request('GET', path)).body as { data: Record<string, string> };
    expect(said.stdout.replace(/^(#.*\n)+/, '')).toBe(shown.data['manifest.yaml']);
    const awaited = await plan(scene.resource);
    expect(awaited).toMatchObject({ code: 0, stderr: '' });
    expect(awaited.stdout).toMatch(/\nnothing to do; waits for: AwaitingCommit\. Nothing was changed\.\n$/);
    await applyOk(kube, loadYaml(said.stdout) as Json);
    await waitForCondition(kube, namespace, 'istioca', { type: 'ControlPlanePatched', status: 'True' });
  });
});
