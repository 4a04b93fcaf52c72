/**
 * Every way in which istiod fails, made for real on the stand-in for a node: what a user finds in status, with its reason, and that it
 * passes when the cause is gone. Most causes are set side by side at the beginning, since an agent that hangs takes its time.
 */
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { generateKeyPairSync } from 'node:crypto';
import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { sharedStack, waitFor } from '../stack/index.ts';
import { freePort } from '../stack/ports.ts';
import { podsCome } from '../support/admission.ts';
import { blocks, readCaFiles } from '../support/certificates.ts';
import { applyOk, waitForCondition, type Json } from '../support/cluster.ts';
import { makeForeignRoot } from '../support/foreign-root.ts';
import { useMeshes } from '../support/mesh.ts';
import { makeScene, merge, type Vault } from '../support/scene.ts';

const { kube, vaults } = sharedStack();
const vault = vaults.OpenBao;
/** A server that pods are led to by mistake. */
const otherVault = vaults.Vault;
const meshes = useMeshes(['--resync=5s']);

const insist = async (server: Vault, method: string, path: string, body?: unknown): Promise<Json> => {
  const answer = await server.request(method, path, body);
  if (answer.status >= 300) throw new Error(`${method} ${path}: ${answer.status}`);
  return (answer.body ?? {}) as Json;
};
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

const notThis = (namespace: string) => ({
  matchExpressions: [{ key: 'kubernetes.io/metadata.name', operator: 'NotIn', values: [namespace] }],
});

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
    meshes.start('fail-files'),
    meshes.start('fail-stale', { replicas: 2, spec: { rollout: 'Never', delivery: { refreshInterval: '1s' } } }),
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
    expect(message).toContain('does not select namespace fail-excluded: change its namespaceSelector');
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
    expect(message).toContain('its log may not be read (deploy/components/logs)');
    expect(message).toMatch(/see `kubectl logs -n fail-hanging istiod-\S+ -c vault-agent-init`/);
    await meshes.istiodReady('fail-hanging', 'False', 'VaultInitFailed');
    await meshes.allowLogs('fail-hanging');
    await failed('fail-hanging', 'LoginRefused');
  });
});

describe('the files of a replica that runs', () => {
  const namespace = 'fail-files';
  const names = ['ca-cert.pem', 'ca-key.pem', 'cert-chain.pem', 'root-cert.pem'];
  const otherKey = () =>
    generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey.export({ type: 'pkcs8', format: 'pem' });
  const otherRoot = async () => (await makeForeignRoot()).pem;

  it.each<[string, string[], () => Promise<string | Buffer> | string | Buffer | undefined, string, string, string]>([
    ['no key', ['ca-key.pem'], () => undefined, 'IstiodCrash', 'IncompleteBundle', 'some of the four files are missing in /vault/secrets; the pod asks the agent for 4 of them'],
    ['the key of another certificate', ['ca-key.pem'], otherKey, 'IstiodCrash', 'KeyMismatch', 'ca-key.pem and ca-cert.pem are of two generations'],
    ['another root', ['root-cert.pem'], otherRoot, 'IstiodCrash', 'ChainNotVerified', 'ca-cert.pem does not verify against root-cert.pem'],
    ['no certificate', ['ca-cert.pem'], () => 'nothing\n', 'IstiodCrash', 'CALoadFailed', 'istiod refuses the files of the CA'],
    ['none at all', names, () => undefined, 'SelfSignedFallback', 'FilesMissing', 'none of the files of the CA were in /vault/secrets'],
  ])('%s', async (_, files, makeContent, phase, reason, says) => {
    await meshes.proven(namespace);
    const [{ pod } = { pod: '' }] = await meshes.replicas(namespace);
    const running = meshes.node.pod(namespace, pod);
    const content = await makeContent();
    for (const name of files) {
      const file = join(running.folder('/vault/secrets'), name);
      await (content === undefined ? rm(file) : writeFile(file, content));
    }
    running.kill('discovery', 'SIGTERM');
    const seen = await meshes.replica(namespace, phase, reason);
    expect(seen).toMatchObject({ pod, container: 'discovery' });
    expect(seen.message).toContain(says);
    await meshes.istiodReady(namespace, 'False', phase);
    await meshes.remake(namespace, pod);
    await waitFor('the pod to be gone', async () => (await meshes.replicas(namespace)).every((one) => one.pod !== pod));
  }); // prettier-ignore
});

describe('the agent beside istiod', () => {
  const namespace = 'fail-files';

  it('killed again and again', async () => {
    await meshes.proven(namespace);
    const [{ pod } = { pod: '' }] = await meshes.replicas(namespace);
    const state = async () => {
      const { body } = await kube.request('GET', `/api/v1/namespaces/${namespace}/pods/${pod}`);
      const { containerStatuses } = (body as { status: { containerStatuses: { name: string; state: Json }[] } }).status;
      return containerStatuses.find(({ name }) => name === 'vault-agent')?.state ?? {};
    };
    const looping = await waitFor('the agent to be in CrashLoopBackOff', async () => {
      const { running } = await state();
      if (running !== undefined) meshes.node.pod(namespace, pod).kill('vault-agent');
      return (await meshes.replicas(namespace)).find(({ reason }) => reason === 'CrashLoopBackOff');
    }, { timeoutMs: 120_000 }); // prettier-ignore
    expect(looping).toMatchObject({ pod, phase: 'VaultAgentFailed', container: 'vault-agent' });
    const again = await meshes.replica(namespace, 'VaultAgentFailed', 'RestartsAgain');
    expect(again.message).toContain('vault-agent runs, after it ended with code 137');
    expect(again.message).toContain('istiod goes on with the files it has, and gets no renewed ones');
    await meshes.istiodReady(namespace, 'False', 'VaultAgentFailed');
    await meshes.remake(namespace, pod);
    await meshes.proven(namespace);
  });

  it('may not read any more: a policy that forbids it, which is not of this resource', async () => {
    const [{ pod } = { pod: '' }] = await meshes.replicas(namespace);
    const policy = `path "${namespace}-kv/data/istioca" { capabilities = ["deny"] }`;
    await insist(vault, 'PUT', 'sys/policies/acl/forbids', { policy });
    const path = `/api/v1/namespaces/${namespace}/serviceaccounts/istiod`;
    const { uid } = ((await kube.request('GET', path)).body as { metadata: { uid: string } }).metadata;
    const auth = (await insist(vault, 'GET', 'sys/auth/kubernetes'))['data'] as { accessor: string };
    const alias = { alias_name: uid, alias_mount_accessor: auth.accessor };
    const entity = (await insist(vault, 'POST', 'identity/lookup/entity', alias))['data'] as { id: string };
    await insist(vault, 'POST', `identity/entity/id/${entity.id}`, { policies: ['forbids'] });
    await meshes.remake(namespace, pod);
    const { message } = await meshes.replica(namespace, 'VaultInitFailed', 'ReadRefused');
    expect(message).toContain('permission denied');
    expect(message).toContain(`\`vault policy read ${namespace}-istioca\``);
    await insist(vault, 'POST', `identity/entity/id/${entity.id}`, { policies: [] });
    await meshes.proven(namespace);
  });
});

describe('the injector', () => {
  const namespace = 'fail-files';
  const configuration = '/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/vault-agent-injector-cfg';
  const remakeOne = async () => {
    const [one] = await meshes.replicas(namespace);
    await meshes.remake(namespace, one!.pod);
  };

  it('its webhook is not registered', async () => {
    await meshes.node.injector.unregister();
    await podsCome(kube, namespace, 'not injected');
    await remakeOne();
    const { message } = await meshes.replica(namespace, 'SelfSignedFallback', 'NotInjected');
    expect(message).toContain('no webhook of the Vault agent injector is registered: install it, then delete the pod');
    await meshes.node.injector.register();
    await podsCome(kube, namespace, 'injected');
    await remakeOne();
    await meshes.proven(namespace);
  });

  it('its webhook does not answer, and pods may not pass without it', async () => {
    const change = [{ op: 'replace', path: '/webhooks/0/failurePolicy', value: 'Fail' }];
    await kube.request('PATCH', configuration, JSON.stringify(change), 'application/json-patch+json');
    await meshes.node.injector.stop();
    await podsCome(kube, namespace, /failed calling webhook/);
    await remakeOne();
    const { message } = await meshes.istiodReady(namespace, 'False', 'PodCreateFailed');
    expect(message).toContain('failed calling webhook "vault.hashicorp.com"');
    await meshes.node.injector.start();
    await meshes.proven(namespace);
    await meshes.node.injector.register();
  });
});

describe('an older CA', () => {
  const namespace = 'fail-stale';
  /** Its istiod has run since long. */
  let untouched: string;

  it('a replica whose agent hangs keeps the intermediate of before', async () => {
    await meshes.proven(namespace);
    const [hung, other] = await meshes.replicas(namespace);
    untouched = other!.pod;
    const running = meshes.node.pod(namespace, hung!.pod);
    const folder = running.folder('/vault/secrets');
    const { chain } = await readCaFiles(folder);
    running.kill('vault-agent', 'SIGSTOP');
    await meshes.patch(namespace, { metadata: { annotations: { 'istiovaultca.io/rotate-intermediate': 'now' } } });
    const stale = await meshes.replica(namespace, 'StaleCA', 'OlderIntermediate');
    expect(stale).toMatchObject({ pod: hung!.pod, container: 'discovery' });
    expect(stale.message).toContain(
      'it serves a certificate of the intermediate of generation 1, live is generation 2',
    );
    expect(stale.message).toContain('kubectl rollout restart -n fail-stale deployment/istiod');
    await meshes.istiodReady(namespace, 'False', 'StaleCA');
    await waitFor('the other replica to be proven', async () =>
      (await meshes.replicas(namespace)).some(({ pod, phase }) => pod === untouched && phase === 'Proven'),
      { timeoutMs: 120_000 },
    ); // prettier-ignore
    running.kill('vault-agent', 'SIGCONT');
    await meshes.proven(namespace);

    const { chain: newChain } = await readCaFiles(folder);
    running.kill('vault-agent', 'SIGSTOP');
    await writeFile(join(folder, 'cert-chain.pem'), chain);
    running.kill('discovery', 'SIGTERM');
    const mixed = await meshes.replica(namespace, 'StaleCA', 'ChainMismatch');
    expect(mixed.message).toContain('cert-chain.pem is of another generation');
    await writeFile(join(folder, 'cert-chain.pem'), newChain);
    running.kill('vault-agent', 'SIGCONT');
    running.kill('discovery', 'SIGTERM');
    await meshes.proven(namespace);
  });

  it('an istiod that hangs', async () => {
    const running = meshes.node.pod(namespace, untouched);
    running.kill('discovery', 'SIGSTOP');
    const { message } = await meshes.replica(namespace, 'IstiodCrash', 'NotReady');
    expect(message).toContain('it has not become ready within a minute');
    running.kill('discovery', 'SIGCONT');
    await meshes.proven(namespace);
  });
});

describe('a control plane that is not acted on', () => {
  const namespace = 'fail-unpropagated';

  it('in a mesh of today, and at a renewal', async () => {
    const scene = await makeScene(kube, vault, { namespace });
    await meshes.allowLogs(namespace);
    meshes.runTetrate(namespace);
    const path = `/api/v1/namespaces/${namespace}/configmaps/istio-ca-root-cert`;
    const root = await waitFor(
      'istiod of today to have written its root',
      async () => ((await kube.request('GET', path)).body as { data?: Record<string, string> }).data?.['root-cert.pem'],
      { timeoutMs: 60_000 },
    );
    const [today] = blocks(root);
    const sha256 = today!.fingerprint256.replaceAll(':', '').toLowerCase();
    await meshes.node.injector.register(notThis(namespace));
    const annotations = { 'istiovaultca.io/confirm-root-change': sha256 };
    await applyOk(kube, merge(scene.resource, { metadata: { annotations } }));
    const { message: not } = await meshes.replica(namespace, 'Pending', 'NotConfigured');
    expect(not).toContain('the control plane does not carry the fields for istiod yet: ControlPlanePatched says why');
    await meshes.stopTetrate(namespace);
    await meshes.node.injector.register();
    await podsCome(kube, namespace, 'injected');
    const { message } = await meshes.replica(namespace, 'SelfSignedFallback', 'NotPropagated');
    expect(message).toContain('the pod does not carry the fields that the control plane has: see IstiodReady');
    const ready = await meshes.istiodReady(namespace, 'False', 'NotPropagated');
    expect(ready.message).toContain('look at that operator');
    meshes.runTetrate(namespace);
    await meshes.proven(namespace);

    await meshes.stopTetrate(namespace);
    await meshes.patch(namespace, { metadata: { annotations: { 'istiovaultca.io/rotate-intermediate': 'now' } } });
    const again = await meshes.istiodReady(namespace, 'False', 'NotPropagated');
    expect(again.message).toContain('Deployment istiod does not have istiovaultca.io/ca-digest');
    const stale = await meshes.replica(namespace, 'StaleCA', 'OlderIntermediate');
    expect(stale.message).toContain('its pod template is of before the change');
    meshes.runTetrate(namespace);
    await meshes.proven(namespace);
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
