/**
 * Every method to log in, on servers of their own with default names: one resource goes from one to the next, each set up with the commands of
 * docs/authentication.md. What changes in a Secret is picked up while the operator runs, with one login each.
 * @servers kubectl
 */
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { products, requestToken, sharedStack, startVault, waitFor, type VaultServer } from '../stack/index.ts';
import { kubeEntries, vaultEntries } from '../support/audit.ts';
import { everythingVisible, leaks } from '../support/canary.ts';
import {
  applyOk,
  conditionOf,
  getResource,
  requestReconcile,
  resourcePath,
  waitForCondition,
  type Resource,
} from '../support/cluster.ts';
import { AdministratorShell, sectionsOf, type Section } from '../support/documented.ts';
import { useOperator } from '../support/harness.ts';
import { merge, type Json } from '../support/json.ts';
import { logins } from '../support/outage.ts';
import { applySample, secretOf } from '../support/samples.ts';
import { prepareVault } from '../support/scene.ts';

const { kube } = sharedStack();
const { operator, restart } = useOperator();

const methods = { Kubernetes: 'kubernetes', JWT: 'jwt', AppRole: 'appRole', Token: 'token' } as const;

describe.each(products)('%s', (product) => {
  const namespace = `auth-${product.toLowerCase()}`;
  const secret = { name: 'istio-vault-ca-approle', key: 'secret-id' };
  let server: VaultServer;
  let shell: AdministratorShell;
  let page: Map<string, Section>;
  let texts: Record<string, string>;
  /** Every secret of this test, none of which is shown anywhere. */
  const secrets: string[] = [];

  beforeAll(async () => {
    server = await startVault(product);
    await prepareVault(kube, server);
    [shell, page] = await Promise.all([AdministratorShell.open(kube, server), sectionsOf('docs/authentication.md')]);
    texts = {
      'istio-system': namespace,
      'https://kubernetes.default.svc': kube.url,
      'service-account-keys': `service-account-keys-${namespace}`,
    };
  });
  afterAll(() => server.stop());

  /** Runs a block of commands of a section. */
  const documented = async (heading: string, block = 0): Promise<string> => {
    const commands = page.get(heading)?.commands[block];
    if (commands === undefined) throw new Error(`docs/authentication.md: no commands ${block} in "${heading}"`);
    return await shell.run(commands, texts);
  };
  /** Has the resource log in as a section shows it. */
  const logInBy = async (method: keyof typeof methods, over: Json = {}): Promise<void> => {
    const manifest = page.get(method)?.manifests[0] as { spec: { vault: { auth: Json } } };
    const auth = merge(manifest.spec.vault.auth, over);
    const others = Object.fromEntries(Object.values(methods).map((field) => [field, null]));
    const spec = { vault: { auth: { ...others, ...auth } } };
    expect((await kube.request('PATCH', resourcePath(namespace, 'istioca'), { spec })).status).toBe(200);
  };

  let asked = 0;
  const look = async () => await requestReconcile(kube, namespace, 'istioca', String((asked += 1)));
  const connection = (resource: Resource) => conditionOf(resource, 'VaultReady');
  const answers = async () => {
    await waitForCondition(kube, namespace, 'istioca', { type: 'VaultReady', status: 'True' });
    return await waitForCondition(kube, namespace, 'istioca', { type: 'Provisioned', status: 'True' });
  };
  /** Counts the logins of the operator while something happens. */
  const loginsDuring = async (work: () => Promise<unknown>): Promise<number> => {
    const before = await logins(operator());
    await work();
    return (await logins(operator())) - before;
  };
  const secretIds = async (key: string, text: string) => {
    secrets.push(text);
    await applyOk(kube, secretOf(namespace, secret.name, key, text));
  };
  const requests = async (path: string): Promise<number> =>
    (await vaultEntries(server.auditLog)).filter((entry) => entry.type === 'request' && entry.path === path).length;
  const newSecretId = async (fields: Json = {}): Promise<string> => {
    const made = await server.request('POST', 'auth/approle/role/istio-vault-ca/secret-id', fields);
    return (made.body as { data: { secret_id: string } }).data.secret_id;
  };
  const wrapped = (): Promise<string> =>
    shell.run('vault write -wrap-ttl=10m -field=wrapping_token -f auth/approle/role/istio-vault-ca/secret-id');

  it('Kubernetes: the commands and the manifest of the documentation', async () => {
    await documented('');
    await documented('Kubernetes');
    await applySample(kube, 'deploy/samples/minimal.yaml', namespace, server);
    await answers();
  });

  it('JWT: the same; a login, and no more while nothing changes', async () => {
    const data = { 'ca.crt': kube.caPem };
    await applyOk(kube, {
      apiVersion: 'v1',
      kind: 'ConfigMap',
      metadata: { name: 'kube-root-ca.crt', namespace },
      data,
    });
    await documented('JWT');
    const count = await loginsDuring(async () => {
      await logInBy('JWT');
      await answers();
      for (let i = 0; i < 3; i += 1) expect(connection(await look())?.status).toBe('True');
    });
    expect(count).toBe(1);
  });

  it('JWT: a role that another service account is bound to is LoginFailed, with what to bind', async () => {
    await server.request('POST', 'auth/jwt/role/another', {
      ...{ role_type: 'jwt', user_claim: 'sub', bound_audiences: 'vault' },
      bound_subject: 'system:serviceaccount:elsewhere:istio-vault-ca',
    });
    await logInBy('JWT', { jwt: { role: 'another' } });
    const { message } = connection(
      await waitForCondition(kube, namespace, 'istioca', { type: 'VaultReady', reason: 'LoginFailed' }),
    )!;
    expect(message).toContain(`bound_subject system:serviceaccount:${namespace}:istio-vault-ca`);
    expect(message).toContain('bound_audiences vault');
  });

  it('AppRole: the commands and the manifest; a rotated secret ID is taken with one login', async () => {
    await documented('AppRole');
    const roleId = await shell.run('vault read -field=role_id auth/approle/role/istio-vault-ca/role-id');
    const count = await loginsDuring(async () => {
      await logInBy('AppRole', { appRole: { roleId } });
      await answers();
      await look();
    });
    expect(count).toBe(1);
    const read = async () =>
      (await kube.request('GET', `/api/v1/namespaces/${namespace}/secrets/${secret.name}`)).body as {
        data: Record<string, string>;
      };
    const before = Buffer.from((await read()).data[secret.key] ?? '', 'base64').toString();
    secrets.push(before);
    expect(
      await loginsDuring(async () => {
        await documented('AppRole', 1);
        await server.request('POST', 'auth/approle/role/istio-vault-ca/secret-id/destroy', { secret_id: before });
        for (let i = 0; i < 3; i += 1) expect(connection(await look())?.status).toBe('True');
      }),
    ).toBe(1);
  });

  it('AppRole: a wrong secret ID names field and Secret, is tried once, and locks no role ID', async () => {
    const wrong = '00000000-1111-2222-3333-444444444444';
    const reads = async () =>
      (await kubeEntries(kube.auditLog)).filter(
        (entry) => entry.resource === 'secrets' && entry.namespace === namespace && entry.name === secret.name,
      ).length;
    const count = await loginsDuring(async () => {
      await secretIds(secret.key, wrong);
      const refused = connection(await look());
      expect(refused).toMatchObject({ status: 'False', reason: 'LoginFailed' });
      expect(refused?.message).toContain(
        'Secret istio-vault-ca-approle (key secret-id, spec.vault.auth.appRole.secretIdRef)',
      );
      expect(refused?.message).not.toContain(wrong);
      for (let i = 0; i < 6; i += 1) {
        const before = await reads();
        await kube.request('PATCH', resourcePath(namespace, 'istioca'), {
          metadata: { annotations: { 'example.com/look': `${i}` } },
        });
        await waitFor('the Secret to be read again', async () => (await reads()) > before);
      }
    });
    expect(count).toBe(1);
    await secretIds(secret.key, await newSecretId());
    expect(connection(await look())).toMatchObject({ status: 'True' });
  });

  it('AppRole: a role ID that others have locked says so', async () => {
    const roleId = await shell.run('vault read -field=role_id auth/approle/role/istio-vault-ca/role-id');
    for (let i = 0; i < 5; i += 1)
      await server.request('POST', 'auth/approle/login', { role_id: roleId, secret_id: 'another' }, '');
    await secretIds(secret.key, await newSecretId());
    const locked = connection(await look());
    expect(locked).toMatchObject({ status: 'False', reason: 'LoginFailed' });
    expect(locked?.message).toContain('its role ID must not be locked');
    const accessor = await shell.run('vault read -field=accessor sys/auth/approle');
    await shell.run(`vault write -f sys/locked-users/${accessor}/unlock/${roleId}`);
    expect(connection(await look())).toMatchObject({ status: 'True' });
  });

  it('AppRole: a secret ID that a user chose is taken for what it is', async () => {
    const chosen = `chosen-by-hand-${namespace}`;
    await server.request('POST', 'auth/approle/role/istio-vault-ca/custom-secret-id', { secret_id: chosen });
    await secretIds(secret.key, chosen);
    expect(connection(await look())).toMatchObject({ status: 'True' });
  });

  it('AppRole: a wrapping token is unwrapped exactly once', async () => {
    const unwraps = await requests('sys/wrapping/unwrap');
    const count = await loginsDuring(async () => {
      await documented('A wrapped secret ID');
      for (let i = 0; i < 3; i += 1) expect(connection(await look())).toMatchObject({ status: 'True' });
    });
    expect([count, (await requests('sys/wrapping/unwrap')) - unwraps]).toEqual([1, 1]);
    // other settings of the connection mean another login, for which the secret ID is still there
    const again = await loginsDuring(async () => {
      await kube.request('PATCH', resourcePath(namespace, 'istioca'), {
        spec: { vault: { tls: { serverName: '127.0.0.1' } } },
      });
      await answers();
    });
    expect([again, (await requests('sys/wrapping/unwrap')) - unwraps]).toEqual([1, 1]);
  });

  it('AppRole: a used wrapping token is WrappingTokenInvalid, also after a restart of the operator; a new one ends that', async () => {
    await restart();
    const invalid = connection(
      await waitForCondition(kube, namespace, 'istioca', { type: 'VaultReady', reason: 'WrappingTokenInvalid' }),
    );
    expect(invalid?.message).toContain(
      'Secret istio-vault-ca-approle (key secret-id, spec.vault.auth.appRole.secretIdRef)',
    );
    expect(invalid?.message).toContain('already used, or has expired');
    expect(invalid?.message).toContain('vault write -wrap-ttl=10m -f auth/approle/role/<role>/secret-id');
    expect(conditionOf(await getResource(kube, namespace, 'istioca'), 'Stalled')?.status).toBe('True');
    await secretIds(secret.key, await wrapped());
    expect(connection(await look())).toMatchObject({ status: 'True' });
  });

  it('AppRole: a wrapping token of something else is refused, and not unwrapped', async () => {
    const made = await shell.run('vault write -wrap-ttl=10m -field=wrapping_token sys/wrapping/wrap secret_id=forged');
    await secretIds(secret.key, made);
    const refused = connection(await look());
    expect(refused).toMatchObject({ status: 'False', reason: 'WrappingTokenInvalid' });
    expect(refused?.message).toContain('it does not wrap a secret ID of this mount');
    expect((await server.request('POST', 'sys/wrapping/lookup', { token: made }, '')).status).toBe(200);
  });

  it('Token: the commands and the manifest; a rotated token is taken, and none is revoked by the operator', async () => {
    await documented('Token');
    await logInBy('Token');
    await answers();
    const path = `/api/v1/namespaces/${namespace}/secrets/istio-vault-ca-token`;
    const held = (await kube.request('GET', path)).body as { data: { token: string } };
    const before = Buffer.from(held.data.token, 'base64').toString().trim();
    const after = await shell.run('vault token create -orphan -period=24h -policy=istio-vault-ca -field=token');
    secrets.push(before, after);
    await applyOk(kube, secretOf(namespace, 'istio-vault-ca-token', 'token', after));
    expect(connection(await look())).toMatchObject({ status: 'True' });
    expect((await server.request('GET', 'auth/token/lookup-self', undefined, before)).status).toBe(200);
    await server.request('POST', 'auth/token/revoke', { token: before });
    const count = await loginsDuring(async () => {
      for (let i = 0; i < 3; i += 1) expect(connection(await look())).toMatchObject({ status: 'True' });
    });
    expect(count).toBe(0);
  });

  it('shows no secret anywhere, and the CA is still the first one', async () => {
    const resource = await getResource(kube, namespace, 'istioca');
    expect(resource.status?.intermediate?.generation).toBe(1);
    expect(secrets.length).toBeGreaterThan(6);
    const shown = { ...(await everythingVisible(kube)), operator: operator().log() };
    expect(leaks(shown, secrets)).toEqual([]);
    // istiod's service account is still what the agent logs in with
    const jwt = await requestToken(kube, namespace, 'istiod');
    expect((await server.request('POST', 'auth/kubernetes/login', { role: 'istiod', jwt }, '')).status).toBe(200);
  });
});
