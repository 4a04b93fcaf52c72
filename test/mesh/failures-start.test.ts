/**
 * Every way in which istiod fails to start with the CA, made for real on the stand-in for a node: what a user finds in status, with its
 * reason, and that it passes when the cause is gone. All causes are set side by side at the beginning, since an agent that hangs takes
 * its time.
 */
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { sharedStack, waitFor } from '../stack/index.ts';
import { freePort } from '../stack/ports.ts';
import { podsCome } from '../support/admission.ts';
import { applyOk, waitForCondition } from '../support/cluster.ts';
import { insist, notThis } from '../support/failing-mesh.ts';
import { useMeshes } from '../support/mesh.ts';

const { kube, vaults } = sharedStack();
const vault = vaults.OpenBao;
/** A server that pods are led to by mistake. */
const otherVault = vaults.Vault;
const meshes = useMeshes(['--resync=5s']);

const label = async (namespace: string, labels: Record<string, string | null>): Promise<void> => {
  const { status } = await kube.request('PATCH', `/api/v1/namespaces/${namespace}`, { metadata: { labels } });
  expect(status).toBe(200);
};
const restricted = 'pod-security.kubernetes.io/enforce';

/** A second server that knows istiod of this namespace, and has nothing for it. */
async function emptyVaultFor(namespace: string): Promise<void> {
  await insist(otherVault, 'POST', `sys/mounts/${namespace}-kv`, { type: 'kv', options: { version: '2' } });
  const policy = `path "${namespace}-kv/data/istioca" { capabilities = ["read"] }`;
  await insist(otherVault, 'PUT', `sys/policies/acl/${namespace}`, { policy });
  await insist(otherVault, 'POST', `auth/kubernetes/role/${namespace}-istiod`, {
    bound_service_account_names: ['istiod'],
    bound_service_account_namespaces: [namespace],
    token_policies: [namespace],
  });
}

/** Makes the agents of a namespace trust the other server too. */
async function trustBoth(namespace: string): Promise<void> {
  await applyOk(kube, {
    apiVersion: 'v1',
    kind: 'Secret',
    metadata: { name: 'istio-vault-ca-tls', namespace },
    data: { 'ca.crt': Buffer.from(`${vault.caPem ?? ''}\n${otherVault.caPem ?? ''}`).toString('base64') },
  });
}

const nobody = { kubernetesAuth: { serviceAccountNames: ['nobody'] } };
let nowhere = '';

beforeAll(async () => {
  nowhere = `https://127.0.0.1:${await freePort()}`;
  const elsewhere = { vault: { injectorAddress: otherVault.address } };
  await emptyVaultFor('fail-sealed');
  await otherVault.seal();
  await Promise.all([
    meshes.start('fail-hanging', { spec: nobody, logs: false }),
    meshes.start('fail-role', { tetrate: { over: { annotations: { 'vault.hashicorp.com/role': 'nobody' } } } }),
    meshes.start('fail-unreachable', { spec: { vault: { injectorAddress: nowhere } } }),
    meshes.start('fail-tls', { spec: elsewhere }),
    meshes.start('fail-sealed', { spec: elsewhere, before: () => trustBoth('fail-sealed') }),
    meshes.start('fail-restricted', {
      before: async () => {
        await label('fail-restricted', { [restricted]: 'restricted' });
        await podsCome(kube, 'fail-restricted', /violates PodSecurity/);
      },
    }),
    meshes.start('fail-quota', {
      before: async () => {
        const metadata = { name: 'no-pods', namespace: 'fail-quota' };
        await applyOk(kube, { apiVersion: 'v1', kind: 'ResourceQuota', metadata, spec: { hard: { pods: '0' } } });
        const path = '/api/v1/namespaces/fail-quota/resourcequotas/no-pods';
        await waitFor('the quota to be counted', async () => {
          const { body } = await kube.request('GET', path);
          return (body as { status?: { hard?: { pods?: string } } }).status?.hard?.pods === '0';
        });
        await podsCome(kube, 'fail-quota', /exceeded quota/);
      },
    }),
    meshes.start('fail-directory', { tetrate: { over: { env: { ROOT_CA_DIR: '/etc/elsewhere' } } } }),
    meshes.start('fail-excluded', {
      before: async () => {
        await meshes.node.injector.register(notThis('fail-excluded'));
        await podsCome(kube, 'fail-excluded', 'not injected');
      },
      // a volume that is not there yet: istiod does not start before it
      tetrate: {
        values: {
          volumes: [{ name: 'extra', secret: { secretName: 'extra' } }],
          volumeMounts: [{ name: 'extra', mountPath: '/etc/extra' }],
        },
      },
    }),
  ]);
});

afterAll(async () => {
  await otherVault.unseal();
});

/** Where the cause is gone. That they are proven is awaited at the end, side by side. */
const recovering: string[] = [];

describe('what comes from elsewhere than this resource', () => {
  it('pods that Pod Security refuses', async () => {
    const { message } = await meshes.istiodReady('fail-restricted', 'False', 'PodCreateFailed');
    expect(message).toContain('violates PodSecurity "restricted:latest"');
    expect(message).toContain('pod-security.kubernetes.io/enforce');
    await label('fail-restricted', { [restricted]: null });
    recovering.push('fail-restricted');
  });

  it('pods that a quota refuses', async () => {
    const { message } = await meshes.istiodReady('fail-quota', 'False', 'PodCreateFailed');
    expect(message).toContain('exceeded quota: no-pods, requested: pods=1, used: pods=0, limited: pods=0');
    await kube.request('DELETE', '/api/v1/namespaces/fail-quota/resourcequotas/no-pods');
    recovering.push('fail-quota');
  });

  it('another directory than the agent renders to', async () => {
    const { message, container } = await meshes.replica('fail-directory', 'SelfSignedFallback', 'WrongDirectory');
    expect(container).toBe('discovery');
    expect(message).toContain('istiod reads /etc/elsewhere, the agent renders to /vault/secrets');
    const ready = await meshes.istiodReady('fail-directory', 'False', 'NotPropagated');
    expect(ready.message).toContain('Deployment istiod does not have env ROOT_CA_DIR');
    expect(ready.message).toContain('Meanwhile istiod signs with a CA of its own');
    await meshes.stopTetrate('fail-directory');
    meshes.runTetrate('fail-directory');
    recovering.push('fail-directory');
  });

  it('a namespace that the webhook does not select', async () => {
    const before = await meshes.replica('fail-excluded', 'NotInjected', 'NotInjected');
    expect(before.message).toContain('the pod asks for a Vault agent (vault.hashicorp.com/agent-inject) and has none');
    await meshes.istiodReady('fail-excluded', 'False', 'NotInjected');
    await applyOk(kube, { apiVersion: 'v1', kind: 'Secret', metadata: { name: 'extra', namespace: 'fail-excluded' } });
    const { message, pod } = await meshes.replica('fail-excluded', 'SelfSignedFallback', 'NotInjected');
    expect(message).toContain('Use self-signed certificate as the CA certificate');
    expect(message).toContain('does not select namespace fail-excluded. Change the namespaceSelector');
    await meshes.istiodReady('fail-excluded', 'False', 'SelfSignedFallback');
    await meshes.node.injector.register();
    await podsCome(kube, 'fail-excluded', 'injected');
    await meshes.remake('fail-excluded', pod);
    recovering.push('fail-excluded');
  });
});

describe('an agent that does not get the files', () => {
  const failed = async (namespace: string, reason: string) => {
    const replica = await meshes.replica(namespace, 'VaultInitFailed', reason);
    expect(replica.container).toBe('vault-agent-init');
    return replica.message;
  };

  it('a role that Vault does not know, set behind the control plane', async () => {
    const message = await failed('fail-role', 'LoginRefused');
    expect(message).toContain('invalid role name');
    expect(message).toContain("Compare `vault read auth/kubernetes/role/fail-role-istiod` and `vault read auth/kubernetes/config`, and the pod's annotation vault.hashicorp.com/role"); // prettier-ignore
    const ready = await meshes.istiodReady('fail-role', 'False', 'NotPropagated');
    expect(ready.message).toContain('Deployment istiod does not have vault.hashicorp.com/role.');
    await meshes.stopTetrate('fail-role');
    meshes.runTetrate('fail-role');
    recovering.push('fail-role');
  });

  it('an address where nobody answers', async () => {
    const message = await failed('fail-unreachable', 'VaultUnreachable');
    expect(message).toContain('connection refused');
    expect(message).toContain(`the pod cannot reach Vault at ${nowhere}`);
    expect(message).toContain('spec.vault.injectorAddress');
    await meshes.istiodReady('fail-unreachable', 'False', 'VaultInitFailed');
    await meshes.patch('fail-unreachable', { spec: { vault: { injectorAddress: null } } });
    recovering.push('fail-unreachable');
  });

  it('a server whose certificate it does not trust', async () => {
    const message = await failed('fail-tls', 'VaultTLS');
    expect(message).toContain('x509: certificate signed by unknown authority');
    expect(message).toContain('spec.vault.tls.caSecretRef');
    await meshes.istiodReady('fail-tls', 'False', 'VaultInitFailed');
    await meshes.patch('fail-tls', { spec: { vault: { injectorAddress: null } } });
    recovering.push('fail-tls');
  });

  it('a sealed server; and unsealed, nothing there', async () => {
    const sealed = await failed('fail-sealed', 'VaultSealed');
    expect(sealed).toContain('Vault is sealed');
    expect(sealed).toContain('unseal it, the agent goes on by itself');
    await otherVault.unseal();
    const message = await failed('fail-sealed', 'SecretMissing');
    expect(message).toContain('no secret exists at fail-sealed-kv/data/istioca');
    expect(message).toContain(`not at ${otherVault.address} (spec.vault.injectorAddress), which must lead to the same`);
    expect(message).toContain('`vault kv get -field=root-cert.pem fail-sealed-kv/istioca`');
    await meshes.patch('fail-sealed', { spec: { vault: { injectorAddress: null } } });
    recovering.push('fail-sealed');
  });

  it('a reason that the operator may not read', async () => {
    const message = await failed('fail-hanging', 'Hanging');
    expect(message).toContain('the operator lacks permission to get pods/log (deploy/components/logs)');
    expect(message).toMatch(/see `kubectl logs -n fail-hanging istiod-\S+ -c vault-agent-init`/);
    await meshes.istiodReady('fail-hanging', 'False', 'VaultInitFailed');
    await meshes.allowLogs('fail-hanging');
    await failed('fail-hanging', 'LoginRefused');
  });
});

it('whatever it was: when the cause is gone, istiod is proven', async () => {
  await Promise.all(recovering.map((namespace) => meshes.proven(namespace)));
});

it('Vault is sealed for everybody: the operator says so, and shows the replicas as last seen', async () => {
  const namespace = 'fail-role';
  const before = await meshes.replicas(namespace);
  await vault.seal();
  try {
    const what = { type: 'VaultReady', status: 'False', reason: 'Sealed' };
    await waitForCondition(kube, namespace, 'istioca', what);
    const { message } = await meshes.istiodReady(namespace, 'Unknown', 'Sealed');
    expect(message).toContain('VaultReady');
    expect(await meshes.replicas(namespace)).toEqual(before);
  } finally {
    await vault.unseal();
  }
  await meshes.proven(namespace);
});
