/** Bad input: each ends in its own reason, with a message that names field and remedy, nothing half done and nothing lost. */
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { brokenRules, immutableChanges } from '../../src/api/broken-rules.ts';
import { resourceStructure, type Structural } from '../../src/api/crd.ts';
import { specSchema } from '../../src/api/schema.ts';
import { parseManifest } from '../../src/cli/manifest.ts';
import { dumpYaml } from '../../src/runtime/yaml.ts';
import { requestToken, sharedStack, startVault, waitFor, type VaultServer } from '../stack/index.ts';
import { vaultWrites } from '../support/audit.ts';
import { leaks } from '../support/canary.ts';
import {
  apply,
  applyOk,
  conditionOf,
  requestReconcile,
  resourcePath,
  waitForCondition,
  type Json,
  type Resource,
} from '../support/cluster.ts';
import { eventsOf } from '../support/events.ts';
import { useOperator } from '../support/harness.ts';
import { entry } from '../support/look.ts';
import { grantOperator, makeScene, merge, prepareVault, type SceneOptions } from '../support/scene.ts';
import { breaking, changing, obeying, smallestSpec, specs } from '../support/specs.ts';

const { kube, vaults } = sharedStack();
const { operator } = useOperator();
const vault = vaults.OpenBao;

/** Applies a scene and waits for the reason on `Ready`. */
async function refusedWith(reason: string, options: SceneOptions): Promise<Resource> {
  const scene = await makeScene(kube, vault, options);
  await applyOk(kube, scene.resource);
  return await waitForCondition(kube, options.namespace, 'istioca', { type: 'Ready', status: 'False', reason });
}

const readyMessage = (resource: Resource) => conditionOf(resource, 'Ready')?.message ?? '';

const resourceOf = (name: string, spec: Json): Json => ({
  apiVersion: 'istiovaultca.io/v1alpha1',
  kind: 'IstioVaultCA',
  metadata: { name, namespace: 'default' },
  spec,
});

describe('the API server refuses', () => {
  const create = async (over: Json, name = 'refused') => await apply(kube, resourceOf(name, merge(smallestSpec, over)));

  const cases: [string, Json, string][] = [
    ['an intermediate that outlives its root', { root: { ttl: '8760h' } }, 'IntermediateOutlivesRoot'],
    [
      'an intermediate too short for its workload certificates',
      { intermediate: { ttl: '24h', maxWorkloadCertTTL: '12h' } },
      'twice',
    ],
    ['a renewal before the issue', { intermediate: { renewBefore: '43800h' } }, 'renewBefore'],
    ['a path that climbs', { keyStore: { path: '../other' } }, 'spec.keyStore.path'],
    ['a mount with a quote', { root: { mount: 'pki"{}' } }, 'spec.root.mount'],
    ['a template in a directory', { delivery: { directory: '/vault/{{ key }}' } }, 'spec.delivery.directory'],
    ['/etc/cacerts', { delivery: { directory: '/etc/cacerts' } }, '/etc/cacerts'],
    ['a state path', { keyStore: { path: 'istioca-state' } }, '-state'],
    ['policy root', { policy: { name: 'root' } }, 'root or default'],
    [
      'a foreign annotation',
      { delivery: { annotations: { 'sidecar.istio.io/inject': 'false' } } },
      'only these keys may be given: vault.hashicorp.com/',
    ],
    [
      'an annotation that the operator sets',
      { delivery: { annotations: { 'vault.hashicorp.com/role': 'a' } } },
      'only these keys',
    ],
    [
      'an annotation with another value',
      { delivery: { annotations: { 'vault.hashicorp.com/log-level': 'a\nb: c' } } },
      'trace, debug',
    ],
    ['an audit device of another type', { audit: { path: 'a', type: 'socket' } }, 'spec.audit.type'],
    [
      'an audit device that shows secrets',
      { audit: { path: 'a', options: { log_raw: 'true' } } },
      'file_path, format, mode',
    ],
    ['two CAs', { vault: { tls: { caSecretRef: { name: 'a' }, caConfigMapRef: { name: 'b' } } } }, 'not both'],
    ['an address with a user', { vault: { address: 'https://me@vault:8200' } }, 'spec.vault.address'],
    ['a login without its sub-object', { vault: { auth: { method: 'AppRole' } } }, 'vault.auth'],
    ['ec with 2048 bits', { root: { key: { type: 'ec', bits: 2048 } } }, 'key.bits'],
    [
      'a reviewer without its Secret',
      { kubernetesAuth: { config: { tokenReviewer: { mode: 'Secret' } } } },
      'tokenReviewer.secretRef',
    ],
    ['one mount for everything', { root: { mount: 'pki' }, intermediate: { mount: 'pki' } }, 'three different mounts'],
  ];
  it.each(cases)('%s', async (_name, over, says) => {
    const { status, body } = await create(over);
    expect(status).toBe(422);
    expect(String(body['message'])).toContain(says);
    // so do the commands
    const text = dumpYaml(resourceOf('refused', merge(smallestSpec, over)));
    expect(() => parseManifest(text, 'ca.yaml', undefined)).toThrow('ca.yaml: ');
  });

  it('a change of what cannot be changed, also setting and clearing', async () => {
    expect((await create({}, 'immutable')).status).toBe(201);
    try {
      for (const over of [
        { root: { mount: 'other' } },
        { controlPlane: { revision: 'one' } },
        { vault: { namespace: 'team' } },
        { kubernetesAuth: { role: 'other' } },
      ]) {
        const { status, body } = await create(over, 'immutable');
        expect(status).toBe(422);
        expect(String(body['message'])).toContain('cannot be changed');
      }
    } finally {
      await kube.request('DELETE', resourcePath('default', 'immutable'));
    }
  });
});

describe('the API server and the commands agree on the CEL rules', () => {
  interface Refused {
    details: { causes: { field: string; message: string }[] };
  }
  const messagesBelow = (schema: Structural): string[] => [
    ...(schema['x-kubernetes-validations'] ?? []).map(({ message }) => message),
    ...[...Object.values(schema.properties ?? {}), schema.additionalProperties, schema.items].flatMap((below) =>
      below ? messagesBelow(below) : [],
    ),
  ];
  const messages = messagesBelow(resourceStructure());

  /** Path and message of each rule, without what stands before the message; whatever is of no rule stays as it is. */
  const blamed = (found: { path: string; message: string }[]): string[] =>
    found.map(({ path, message }) => `${path}: ${messages.find((known) => message.endsWith(known)) ?? message}`).sort();

  /** What the API server says in a dry run. */
  async function verdict(name: string, spec: Json): Promise<string[]> {
    const query = 'fieldManager=kubectl&force=true&dryRun=All';
    const body = JSON.stringify(resourceOf(name, spec));
    const path = resourcePath('default', name);
    const answer = await kube.request('PATCH', `${path}?${query}`, body, 'application/apply-patch+yaml');
    if (answer.status < 300) return [];
    return blamed((answer.body as Refused).details.causes.map(({ field, message }) => ({ path: field, message })));
  }
  const ours = (spec: Json, before?: Json): string[] => {
    const judged = specSchema.parse(spec);
    const changes = before ? immutableChanges(specSchema.parse(before), judged) : [];
    return blamed([...brokenRules(judged), ...changes]);
  };

  it('for examples', async () => {
    for (const over of [...breaking.map(([, broken]) => broken), ...obeying]) {
      const spec = merge(smallestSpec, over);
      expect({ over, verdict: await verdict('judged', spec) }).toEqual({ over, verdict: ours(spec) });
    }
  });

  it('for any spec that fits the schema', async () => {
    await fc.assert(
      fc.asyncProperty(specs, async (spec) => expect(await verdict('judged', spec)).toEqual(ours(spec))),
      { numRuns: 500 },
    );
  });

  it.each<[string, Json]>([
    ['the smallest spec', {}],
    ['one with all that may be absent', { vault: { namespace: 'other' }, controlPlane: { revision: 'two' } }],
  ])('for any change of %s', async (_name, over) => {
    const before = merge(smallestSpec, over);
    await applyOk(kube, resourceOf('changed', before));
    const agrees = async (spec: Json) => expect(await verdict('changed', spec)).toEqual(ours(spec, before));
    try {
      for (const [, change] of changing) await agrees(merge(smallestSpec, change));
      await fc.assert(fc.asyncProperty(specs, agrees), { numRuns: 50 });
    } finally {
      await kube.request('DELETE', resourcePath('default', 'changed'));
    }
  });
});

describe('a spec that only the operator can judge', () => {
  const cases: [string, string, Json, string][] = [
    [
      'NotYetSupported',
      'bad-later',
      { intermediate: { manage: false }, delivery: { crl: true } },
      'spec.delivery.crl with spec.intermediate.manage: false',
    ],
    [
      'AddressNotAllowed',
      'bad-address',
      { vault: { address: 'https://vault.elsewhere.example:8200' } },
      '--vault-addresses',
    ],
    [
      'AgentCAMissing',
      'bad-agent-ca',
      { vault: { tls: { caSecretRef: undefined, caConfigMapRef: { name: 'kube-root-ca.crt' } } } },
      'caSecretRef',
    ],
    [
      'AddressNotAllowed',
      'bad-injector',
      { vault: { injectorAddress: 'https://vault.elsewhere.example:8200' } },
      'spec.vault.injectorAddress https://vault.elsewhere.example:8200 is not on the operator',
    ],
    [
      'InvalidSpec',
      'bad-annotation',
      {
        delivery: {
          annotations: { 'vault.hashicorp.com/tls-secret': 'ca', 'vault.hashicorp.com/ca-cert': '/vault/tls/ca.crt' },
        },
      },
      'only with spec.vault.tls.caConfigMapRef',
    ],
    ['IntermediateTTLTooShort', 'bad-short', { intermediate: { ttl: '4000h' } }, '2160h'],
  ];
  it.each(cases)('%s', async (reason, namespace, spec, says) => {
    const before = await vaultWrites(vault);
    const scene = await makeScene(kube, vault, { namespace, withoutRole: true });
    const wanted = merge(scene.resource['spec'] as Json, spec);
    if (reason === 'IntermediateTTLTooShort') await grantOperator(vault, `operator-${namespace}`, namespace, wanted);
    const setUp = (await vaultWrites(vault)).length - before.length;
    await applyOk(kube, { ...scene.resource, spec: wanted });
    const resource = await waitForCondition(kube, namespace, 'istioca', { type: 'Ready', status: 'False', reason });
    expect(readyMessage(resource)).toContain(says);
    expect(conditionOf(resource, 'Stalled')?.status).toBe('True');
    expect((await vaultWrites(vault)).length - before.length).toBe(setUp);
  });
});

describe('a Vault that does not serve', () => {
  it('is Unreachable, TLSFailed or LoginFailed', async () => {
    const dead = await refusedWith('Unreachable', {
      namespace: 'bad-unreachable',
      spec: { vault: { address: 'https://127.0.0.1:1' } },
      withoutRole: true,
    });
    expect(readyMessage(dead)).toContain('spec.vault.address');
    expect(conditionOf(dead, 'Reconciling')?.status).toBe('True');

    const scene = await makeScene(kube, vault, { namespace: 'bad-tls' });
    await applyOk(kube, {
      apiVersion: 'v1',
      kind: 'Secret',
      metadata: { name: 'istio-vault-ca-tls', namespace: 'bad-tls' },
      data: { 'ca.crt': Buffer.from(kube.caPem).toString('base64') },
    });
    await applyOk(kube, scene.resource);
    const tls = await waitForCondition(kube, 'bad-tls', 'istioca', {
      type: 'Ready',
      status: 'False',
      reason: 'TLSFailed',
    });
    expect(readyMessage(tls)).toContain('spec.vault.tls');

    const role = await refusedWith('LoginFailed', { namespace: 'bad-role', withoutRole: true });
    expect(readyMessage(role)).toMatch(/role operator-bad-role of auth\/kubernetes .* audience vault/);
  });

  it.each([
    ['a token', { method: 'Token', kubernetes: undefined, token: { secretRef: { name: 'istio-vault-ca-token' } } }],
    ['a service account', { method: 'Kubernetes' }],
  ])('is VaultNamespaceNotFound in a namespace that does not exist, with %s', async (_, auth) => {
    const namespace = `bad-namespace-${auth.method.toLowerCase()}`;
    const spec = { vault: { namespace: 'nowhere', auth } };
    const scene = await makeScene(kube, vaults.OpenBao, { namespace, spec, withoutRole: true });
    const made = await vaults.OpenBao.request('POST', 'auth/token/create', { policies: ['default'], ttl: '10m' });
    const { auth: login } = made.body as { auth: { client_token: string } };
    const data = { token: Buffer.from(login.client_token).toString('base64') };
    await applyOk(kube, {
      apiVersion: 'v1',
      kind: 'Secret',
      metadata: { name: 'istio-vault-ca-token', namespace },
      data,
    });
    await applyOk(kube, scene.resource);
    const resource = await waitForCondition(kube, namespace, 'istioca', {
      type: 'VaultReady',
      reason: 'VaultNamespaceNotFound',
    });
    expect(readyMessage(resource)).toContain('spec.vault.namespace');
  });

  it('is LoginFailed without the audience in the role, and without echoing the token', async () => {
    const namespace = 'bad-audience';
    const scene = await makeScene(kube, vault, {
      namespace,
      spec: { vault: { auth: { kubernetes: { audiences: ['another'] } } } },
    });
    await applyOk(kube, scene.resource);
    const resource = await waitForCondition(kube, namespace, 'istioca', {
      type: 'Ready',
      status: 'False',
      reason: 'LoginFailed',
    });
    expect(readyMessage(resource)).toContain('audience another');
    expect(leaks({ status: JSON.stringify(resource), log: operator().log() }, [])).toEqual([]);
  });

  describe('sealed', () => {
    let own: VaultServer;
    beforeAll(async () => {
      own = await startVault('Vault');
      await prepareVault(kube, own);
    });
    afterAll(async () => {
      await own.stop();
    });

    it('is Sealed until it is unsealed, and then goes on by itself', async () => {
      const scene = await makeScene(kube, own, { namespace: 'bad-sealed' });
      await own.seal();
      await applyOk(kube, scene.resource);
      const sealed = await waitForCondition(kube, 'bad-sealed', 'istioca', {
        type: 'VaultReady',
        status: 'False',
        reason: 'Sealed',
      });
      expect(readyMessage(sealed)).toContain('unseal');
      await own.unseal();
      const resource = await waitForCondition(kube, 'bad-sealed', 'istioca', { type: 'Provisioned', status: 'True' });
      await own.seal();
      const again = await requestReconcile(kube, 'bad-sealed', 'istioca', '1');
      expect(conditionOf(again, 'VaultReady')).toMatchObject({ status: 'False', reason: 'Sealed' });
      expect(again.status?.intermediate).toEqual(resource.status?.intermediate);
    });
  });
});

describe("rights and other people's things", () => {
  it('missing capabilities are named with their paths, and nothing is done until they are there', async () => {
    const namespace = 'bad-rights';
    const scene = await makeScene(kube, vault, { namespace });
    const full = (await vault.request('GET', `sys/policies/acl/operator-${namespace}`)).body as {
      data: { policy: string };
    };
    const without = full.data.policy
      .replace(/path "[^"]*sign-intermediate" \{[^}]*\}/, '')
      .replace(/path "[^"]*keys\/import" \{[^}]*\}/, '');
    await vault.request('PUT', `sys/policies/acl/operator-${namespace}`, { policy: without });
    await applyOk(kube, scene.resource);
    const resource = await waitForCondition(kube, namespace, 'istioca', {
      type: 'Ready',
      status: 'False',
      reason: 'Forbidden',
    });
    expect(readyMessage(resource)).toContain(`create+update on ${namespace}-pki/issuer/+/sign-intermediate`);
    expect(readyMessage(resource)).toContain(`create+update on ${namespace}-ca/keys/import`);
    expect((await vault.request('GET', `sys/mounts/${namespace}-pki`)).status).toBe(400);
    await vault.request('PUT', `sys/policies/acl/operator-${namespace}`, { policy: full.data.policy });
    const granted = await requestReconcile(kube, namespace, 'istioca', '1');
    expect(conditionOf(granted, 'Provisioned')?.status).toBe('True');
  });

  const taken: [string, string, (namespace: string) => Promise<unknown>, string][] = [
    [
      'MountNotOwned',
      'bad-pki',
      (n) => vault.request('POST', `sys/mounts/${n}-pki`, { type: 'pki' }),
      'spec.root.mount',
    ],
    [
      'MountNotOwned',
      'bad-ca',
      (n) => vault.request('POST', `sys/mounts/${n}-ca`, { type: 'pki' }),
      'spec.intermediate.mount',
    ],
    [
      'MountNotOwned',
      'bad-policy',
      (n) => vault.request('PUT', `sys/policies/acl/${n}-istioca`, { policy: '# mine' }),
      'spec.policy.name',
    ],
    [
      'MountNotOwned',
      'bad-istiod-role',
      (n) =>
        vault.request('POST', `auth/kubernetes/role/${n}-istiod`, {
          bound_service_account_names: 'x',
          bound_service_account_namespaces: 'y',
          token_policies: 'default',
          audience: 'z',
        }),
      'spec.kubernetesAuth.role',
    ],
    [
      'MountNotOwned',
      'bad-entry',
      async (n) => {
        await vault.request('POST', `sys/mounts/${n}-kv`, { type: 'kv', options: { version: '2' } });
        await vault.request('POST', `${n}-kv/data/istioca`, { data: { mine: 'yes' } });
      },
      'spec.keyStore.path',
    ],
    [
      'KVVersionMismatch',
      'bad-kv',
      (n) => vault.request('POST', `sys/mounts/${n}-kv`, { type: 'kv', options: { version: '1' } }),
      'spec.keyStore.version is 2',
    ],
    [
      'MountTypeMismatch',
      'bad-type',
      (n) => vault.request('POST', `sys/mounts/${n}-kv`, { type: 'transit' }),
      'of type transit',
    ],
  ];
  it.each(taken)('%s: %s', async (reason, namespace, take, says) => {
    const scene = await makeScene(kube, vault, { namespace });
    await take(namespace);
    const before = await vaultWrites(vault);
    await applyOk(kube, scene.resource);
    const resource = await waitForCondition(kube, namespace, 'istioca', { type: 'Ready', status: 'False', reason });
    expect(readyMessage(resource)).toContain(says);
    expect(conditionOf(resource, 'Stalled')?.status).toBe('True');
    expect(await vaultWrites(vault)).toEqual(before);
  });

  it('a service account by another name is not the operator’s to use', async () => {
    const namespace = 'bad-account';
    await requestToken(kube, 'default', 'default');
    const scene = await makeScene(kube, vault, {
      namespace,
      spec: { vault: { auth: { kubernetes: { serviceAccountName: 'default' } } } },
    });
    await applyOk(kube, scene.resource);
    const resource = await waitForCondition(kube, namespace, 'istioca', {
      type: 'Ready',
      status: 'False',
      reason: 'Forbidden',
    });
    expect(readyMessage(resource)).toContain('serviceAccountName');
  });

  it('a foreign value at a place of ours in the overlay is a FieldConflict', async () => {
    const namespace = 'bad-field';
    const overlays = [
      {
        apiVersion: 'install.istio.io/v1alpha1',
        kind: 'IstioOperator',
        name: 'tsb-istiocontrolplane',
        patches: [{ path: 'spec.values.pilot.env.ROOT_CA_DIR', value: '/elsewhere' }],
      },
    ];
    const resource = await refusedWith('FieldConflict', { namespace, overlays });
    expect(readyMessage(resource)).toContain('/elsewhere');
    expect(conditionOf(resource, 'KeyStored')?.status).toBe('True');
  });
});

describe('a key store that deletes what it is given after a while', () => {
  interface Entry {
    data: { data: Json; metadata: { version: number; deletion_time: string } };
  }
  const read = async (namespace: string, name: string) =>
    ((await vault.request('GET', `${namespace}-kv/data/${name}`)).body as Entry).data.metadata;
  const setting = async (namespace: string, after: string) =>
    await vault.request('POST', `${namespace}-kv/config`, { delete_version_after: after });

  it('gets no key, and says what to do; that done, it does', async () => {
    const namespace = 'bad-deletes';
    await vault.request('POST', `sys/mounts/${namespace}-kv`, { type: 'kv', options: { version: '2' } });
    await waitFor('the mount to be ready', async () => (await setting(namespace, '24h')).status < 300);
    const scene = await makeScene(kube, vault, { namespace });
    await applyOk(kube, scene.resource);
    const told = await waitForCondition(kube, namespace, 'istioca', { type: 'Stalled', reason: 'TTLTruncated' });
    const { version, deletion_time } = await read(namespace, 'istioca-state');
    const message = conditionOf(told, 'KeyStored')?.message;
    expect(message).toContain(`${namespace}-kv/istioca-state on ${deletion_time.slice(0, 19)}Z`);
    expect(message).toContain(`vault kv undelete -mount=${namespace}-kv -versions=${version} istioca-state`);
    for (const suffix of ['', '-staging'] as const) expect(await entry(scene, suffix)).toBeUndefined();
    await setting(namespace, '0s');
    await vault.request('PUT', `${namespace}-kv/undelete/istioca-state`, { versions: [version] });
    await requestReconcile(kube, namespace, 'istioca', 'done');
    await waitForCondition(kube, namespace, 'istioca', { type: 'Provisioned', status: 'True' });
  });

  it('has what is published written anew, and once the setting is gone, for good', async () => {
    const namespace = 'bad-deletes-later';
    const scene = await makeScene(kube, vault, { namespace });
    await applyOk(kube, scene.resource);
    await waitForCondition(kube, namespace, 'istioca', { type: 'Provisioned', status: 'True' });
    await setting(namespace, '60s');
    const annotations = { 'istiovaultca.io/rotate-intermediate': 'now' };
    await kube.request('PATCH', resourcePath(namespace, 'istioca'), { metadata: { annotations } });
    await waitForCondition(kube, namespace, 'istioca', { type: 'Stalled', reason: 'TTLTruncated' });
    const { version } = await waitFor('the second generation', async () => {
      const live = await entry(scene);
      return live?.['generation'] === '2' && (await read(namespace, 'istioca'));
    });
    await setting(namespace, '0s');
    await waitForCondition(kube, namespace, 'istioca', { type: 'KeyStored', status: 'True' });
    for (const name of ['istioca', 'istioca-state'])
      expect(await read(namespace, name)).toMatchObject({ deletion_time: '' });
    expect((await read(namespace, 'istioca')).version).toBe(version + 1);
    expect((await entry(scene))?.['generation']).toBe('2');
  });
});

describe('ends of life', () => {
  it('an intermediate that would outlive its root is shortened, with an Event, and the root is near its end', async () => {
    const namespace = 'bad-near-end';
    const resource = await refusedWith('RootNearEnd', {
      namespace,
      spec: { root: { ttl: '9000h' }, intermediate: { ttl: '9000h' } },
    });
    expect(readyMessage(resource)).toContain('rotate-root');
    expect(resource.status?.intermediate?.notAfter).toBe(resource.status?.root?.notAfter);
    expect(resource.status?.intermediate?.renewAt).toBeUndefined();
    const events = await eventsOf(kube, namespace);
    expect(events.map((event) => event.reason)).toContain('IntermediateShortened');
  });
});
