/** Each managed object changed or deleted behind the operator's back: repaired, and never by a new root. */
import { beforeAll, describe, expect, it } from '@jest/globals';
import { generateKeyPairSync } from 'node:crypto';
import { sharedStack, waitFor, type Product } from '../stack/index.ts';
import { vaultWrites } from '../support/audit.ts';
import { defects } from '../support/certificates.ts';
import {
  applyOk,
  getResource,
  requestReconcile,
  resourcePath,
  waitForCondition,
  type Json,
} from '../support/cluster.ts';
import { useOperator } from '../support/harness.ts';
import { overlaysOf } from '../support/istiod-pod.ts';
import { entry, inventory, servedBy, writeEntry } from '../support/look.ts';
import { makeScene, merge, type Scene } from '../support/scene.ts';

const { kube, vaults } = sharedStack();
useOperator();

/** What a person sees to be the CA, and whether it is whole. */
async function ca(scene: Scene) {
  const live = (await entry(scene)) ?? {};
  const files = {
    cert: live['ca-cert.pem'] ?? '',
    key: live['ca-key.pem'] ?? '',
    chain: live['cert-chain.pem'] ?? '',
    root: live['root-cert.pem'] ?? '',
  };
  return {
    defects: defects(files),
    intermediate: files.cert.trim(),
    root: await servedBy(scene, 'pki'),
    servedIsLive: (await servedBy(scene, 'ca')) === files.cert.trim(),
  };
}

const controlPlanePath = (namespace: string) =>
  `/apis/install.tetrate.io/v1alpha1/namespaces/${namespace}/controlplanes/controlplane`;

interface Drift {
  name: string;
  damage: (scene: Scene) => Promise<unknown>;
  /** Whether the intermediate is the same afterwards, or a new one under the same root. */
  intermediate: 'same' | 'new';
  repaired: (scene: Scene) => Promise<unknown>;
  expected: unknown;
}

const get = async (scene: Scene, path: string, field: string): Promise<unknown> =>
  ((await scene.vault.request('GET', path)).body as { data?: Json }).data?.[field];
const issuersOf = async (scene: Scene, mount: string) =>
  (await inventory(scene))[`${scene.namespace}-${mount}/issuers`] ?? [];

/** With all its versions. */
async function removeEntry({ vault, namespace, resource }: Scene, suffix: '' | '-state'): Promise<void> {
  const { version = 2 } = (resource['spec'] as { keyStore: { version?: number } }).keyStore;
  await vault.request('DELETE', `${namespace}-kv/${version === 1 ? '' : 'metadata/'}istioca${suffix}`);
}

const drifts: Drift[] = [
  {
    name: 'tune of a mount',
    damage: ({ vault, namespace: n }) => vault.request('POST', `sys/mounts/${n}-ca/tune`, { max_lease_ttl: '1h' }),
    intermediate: 'same',
    repaired: (scene) => get(scene, `sys/mounts/${scene.namespace}-ca/tune`, 'max_lease_ttl'),
    expected: 43800 * 3600,
  },
  {
    name: 'text of the policy',
    damage: async (scene) => {
      const text = String(await get(scene, `sys/policies/acl/${scene.namespace}-istioca`, 'policy'));
      await scene.vault.request('PUT', `sys/policies/acl/${scene.namespace}-istioca`, {
        policy: `${text}\npath "secret/*" { capabilities = ["read"] }\n`,
      });
    },
    intermediate: 'same',
    repaired: async (scene) => String(await get(scene, `sys/policies/acl/${scene.namespace}-istioca`, 'policy')).includes('secret/*'), // prettier-ignore
    expected: false,
  },
  {
    name: 'policy deleted',
    damage: ({ vault, namespace: n }) => vault.request('DELETE', `sys/policies/acl/${n}-istioca`),
    intermediate: 'same',
    repaired: async ({ vault, namespace: n }) => (await vault.request('GET', `sys/policies/acl/${n}-istioca`)).status,
    expected: 200,
  },
  {
    name: 'role bound to somebody else',
    damage: ({ vault, namespace: n }) =>
      vault.request('POST', `auth/kubernetes/role/${n}-istiod`, {
        bound_service_account_names: ['*'],
        bound_service_account_namespaces: ['*'],
        token_policies: [`${n}-istioca`],
      }),
    intermediate: 'same',
    repaired: (scene) => get(scene, `auth/kubernetes/role/${scene.namespace}-istiod`, 'bound_service_account_namespaces'), // prettier-ignore
    expected: undefined,
  },
  {
    name: 'role opened to the namespaces of a selector',
    damage: ({ vault, namespace: n }) =>
      vault.request('POST', `auth/kubernetes/role/${n}-istiod`, {
        bound_service_account_namespace_selector: JSON.stringify({ matchLabels: { team: 'other' } }),
      }),
    intermediate: 'same',
    repaired: async (scene) =>
      (await get(scene, `auth/kubernetes/role/${scene.namespace}-istiod`, 'bound_service_account_namespace_selector')) || 'none', // prettier-ignore
    expected: 'none',
  },
  {
    name: 'role with tokens that never have to end',
    damage: ({ vault, namespace: n }) =>
      vault.request('POST', `auth/kubernetes/role/${n}-istiod`, { token_period: 3600, token_type: 'service' }),
    intermediate: 'same',
    repaired: (scene) => get(scene, `auth/kubernetes/role/${scene.namespace}-istiod`, 'token_period'),
    expected: 0,
  },
  {
    name: 'role whose identities are names',
    damage: ({ vault, namespace: n }) =>
      vault.request('POST', `auth/kubernetes/role/${n}-istiod`, { alias_name_source: 'serviceaccount_name' }),
    intermediate: 'same',
    repaired: (scene) => get(scene, `auth/kubernetes/role/${scene.namespace}-istiod`, 'alias_name_source'),
    expected: 'serviceaccount_uid',
  },
  {
    name: 'a default issuer that follows each new one',
    damage: async (scene) => {
      const [issuer] = await issuersOf(scene, 'pki');
      await scene.vault.request('POST', `${scene.namespace}-pki/config/issuers`, {
        default: issuer,
        default_follows_latest_issuer: true,
      });
    },
    intermediate: 'same',
    repaired: (scene) => get(scene, `${scene.namespace}-pki/config/issuers`, 'default_follows_latest_issuer'),
    expected: false,
  },
  ...(['pki', 'ca'] as const).map((tier) => ({
    name: `an issuer of ${tier} that may not sign certificates`,
    damage: async (scene: Scene) => {
      const mount = `${scene.namespace}-${tier}`;
      const issuer = String(await get(scene, `${mount}/config/issuers`, 'default'));
      await scene.vault.request('POST', `${mount}/issuer/${issuer}`, { usage: 'read-only,crl-signing' });
    },
    intermediate: 'same' as const,
    repaired: async (scene: Scene) => {
      const mount = `${scene.namespace}-${tier}`;
      const issuer = String(await get(scene, `${mount}/config/issuers`, 'default'));
      return await get(scene, `${mount}/issuer/${issuer}`, 'usage');
    },
    expected: 'crl-signing,issuing-certificates,read-only',
  })),
  {
    name: 'intermediate revoked in its mount',
    damage: async (scene) => {
      const issuer = String(await get(scene, `${scene.namespace}-ca/config/issuers`, 'default'));
      await scene.vault.request('POST', `${scene.namespace}-ca/issuer/${issuer}/revoke`, {});
    },
    intermediate: 'new',
    repaired: async (scene) => {
      const issuer = String(await get(scene, `${scene.namespace}-ca/config/issuers`, 'default'));
      return await get(scene, `${scene.namespace}-ca/issuer/${issuer}`, 'revoked');
    },
    expected: false,
  },
  {
    name: 'intermediate revoked by its root',
    damage: async (scene) => {
      const { serial } = (await getResource(kube, scene.namespace, 'istioca')).status?.intermediate as unknown as { serial: string }; // prettier-ignore
      await scene.vault.request('POST', `${scene.namespace}-pki/revoke`, { serial_number: serial });
    },
    intermediate: 'new',
    repaired: async (scene) => {
      const { serial } = (await getResource(kube, scene.namespace, 'istioca')).status?.intermediate as unknown as { serial: string }; // prettier-ignore
      return await get(scene, `${scene.namespace}-pki/cert/${serial}`, 'revocation_time');
    },
    expected: 0,
  },
  {
    name: 'role deleted',
    damage: ({ vault, namespace: n }) => vault.request('DELETE', `auth/kubernetes/role/${n}-istiod`),
    intermediate: 'same',
    repaired: async ({ vault, namespace: n }) =>
      (await vault.request('GET', `auth/kubernetes/role/${n}-istiod`)).status,
    expected: 200,
  },
  {
    name: 'live entry removed',
    damage: (scene) => removeEntry(scene, ''),
    intermediate: 'new',
    repaired: async (scene) => (await issuersOf(scene, 'pki')).length,
    expected: 1,
  },
  {
    name: 'live key replaced',
    damage: async (scene) => {
      const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'prime256v1' });
      const pem = privateKey.export({ type: 'sec1', format: 'pem' }).toString();
      await writeEntry(scene, { ...(await entry(scene)), 'ca-key.pem': pem });
    },
    intermediate: 'new',
    repaired: async (scene) => (await issuersOf(scene, 'pki')).length,
    expected: 1,
  },
  {
    name: 'default issuer moved',
    damage: async (scene) => {
      const { vault, namespace: n } = scene;
      const csr = ((await vault.request('POST', `${n}-ca/intermediate/generate/internal`, { common_name: 'x', key_type: 'ec' })).body as { data: { csr: string } }).data.csr; // prettier-ignore
      const signed = ((await vault.request('POST', `${n}-pki/root/sign-intermediate`, { csr, common_name: 'x', ttl: '100h' })).body as { data: { certificate: string } }).data.certificate; // prettier-ignore
      const set = (await vault.request('POST', `${n}-ca/intermediate/set-signed`, { certificate: signed })).body as { data: { imported_issuers: string[] } }; // prettier-ignore
      await vault.request('POST', `${n}-ca/config/issuers`, { default: set.data.imported_issuers[0] });
    },
    intermediate: 'same',
    // the stranger is somebody's, and stays
    repaired: async (scene) => (await issuersOf(scene, 'ca')).length >= 2,
    expected: true,
  },
  {
    name: 'issuers of the intermediate mount removed',
    damage: async (scene) => {
      for (const id of await issuersOf(scene, 'ca')) await scene.vault.request('DELETE', `${scene.namespace}-ca/issuer/${id}`); // prettier-ignore
    },
    intermediate: 'same',
    repaired: async (scene) => (await issuersOf(scene, 'ca')).length,
    expected: 1,
  },
  {
    name: 'intermediate mount disabled',
    damage: ({ vault, namespace: n }) => vault.request('DELETE', `sys/mounts/${n}-ca`),
    intermediate: 'same',
    repaired: async (scene) => (await issuersOf(scene, 'ca')).length,
    expected: 1,
  },
  {
    name: 'intermediate mount disabled and remade empty, with its mark',
    damage: async (scene) => {
      const { vault, namespace: n } = scene;
      const { description } = (await vault.request('GET', `sys/mounts/${n}-ca`)).body as { description: string };
      await vault.request('DELETE', `sys/mounts/${n}-ca`);
      await vault.request('POST', `sys/mounts/${n}-ca`, { type: 'pki', description });
    },
    intermediate: 'same',
    repaired: async (scene) => (await issuersOf(scene, 'ca')).length,
    expected: 1,
  },
  {
    name: 'memory removed',
    damage: (scene) => removeEntry(scene, '-state'),
    intermediate: 'same',
    repaired: async (scene) => (await entry(scene, '-state')) !== undefined,
    expected: true,
  },
  {
    name: 'overlay edited',
    damage: async ({ namespace: n }) => {
      const overlays = overlaysOf((await kube.request('GET', controlPlanePath(n))).body as Json);
      const edited = overlays.map((o) => ({ ...o, patches: o.patches?.slice(1) }));
      await kube.request('PATCH', controlPlanePath(n), { spec: { components: { istio: { kubeSpec: { overlays: edited } } } } }); // prettier-ignore
    },
    intermediate: 'same',
    repaired: async ({ namespace: n }) =>
      overlaysOf((await kube.request('GET', controlPlanePath(n))).body as Json)[0]?.patches?.some((p) => p.path.endsWith('ROOT_CA_DIR')), // prettier-ignore
    expected: true,
  },
  {
    name: 'memory and live entry removed, beside a later root that never was in use',
    damage: async (scene) => {
      const { vault, namespace: n } = scene;
      const [key = ''] = (await inventory(scene))[`${n}-pki/keys`] ?? [];
      const name = String(await get(scene, `${n}-pki/key/${key}`, 'key_name')).replace(/1$/, '2');
      await vault.request('POST', `${n}-pki/root/generate/internal`, { key_name: name, key_type: 'ec', common_name: 'Later' }); // prettier-ignore
      await removeEntry(scene, '-state');
      await removeEntry(scene, '');
    },
    intermediate: 'new',
    repaired: async (scene) => (await entry(scene))?.['root-cert.pem']?.trim() === (await servedBy(scene, 'pki')),
    expected: true,
  },
];

describe.each<{ product: Product; version: 1 | 2 }>([
  { product: 'OpenBao', version: 2 },
  { product: 'Vault', version: 1 },
])('in $product with KV $version', ({ product, version }) => {
  const namespace = `drift-${product}`.toLowerCase();
  let scene: Scene;
  let text = 0;

  beforeAll(async () => {
    scene = await makeScene(kube, vaults[product], { namespace, spec: { keyStore: { version } } });
    await applyOk(kube, scene.resource);
    await waitForCondition(kube, namespace, 'istioca', { type: 'Provisioned', status: 'True' });
  });

  const look = async () => await requestReconcile(kube, namespace, 'istioca', `look ${(text += 1)}`);

  it.each(drifts)('$name', async ({ damage, intermediate, repaired, expected }) => {
    const before = await ca(scene);
    expect(before).toMatchObject({ defects: [], servedIsLive: true });
    await damage(scene);
    await look();
    await waitForCondition(kube, namespace, 'istioca', { type: 'Provisioned', status: 'True' });
    const after = await waitFor('the repair', async () => {
      const found = await ca(scene);
      return found.defects.length === 0 && found.servedIsLive && found;
    });
    expect(after.root).toBe(before.root);
    expect(after.intermediate === before.intermediate).toBe(intermediate === 'same');
    if (expected === undefined) expect(await repaired(scene)).toEqual([namespace]);
    else expect(await repaired(scene)).toEqual(expected);
  });

  it('mode Plan says what it would repair, and repairs nothing', async () => {
    // first the mode, and seen to be taken up: else the role might be repaired before it
    await applyOk(kube, merge(scene.resource, { spec: { mode: 'Plan' } }));
    await look();
    await scene.vault.request('DELETE', `auth/kubernetes/role/${namespace}-istiod`);
    const writes = await vaultWrites(scene.vault);
    await look();
    const planned = await waitForCondition(kube, namespace, 'istioca', { type: 'Ready', reason: 'ChangesPending' });
    expect((planned.status as { plan?: { target: string }[] }).plan?.map((step) => step.target)).toEqual([
      `vault:auth/kubernetes/role/${namespace}-istiod`,
    ]);
    expect(await vaultWrites(scene.vault)).toEqual(writes);
    await applyOk(kube, scene.resource);
    await waitForCondition(kube, namespace, 'istioca', { type: 'Provisioned', status: 'True' });
  });

  it('a lost root is RootLost and never made anew silently; allow-reissue makes one, once', async () => {
    const before = await getResource(kube, namespace, 'istioca');
    await scene.vault.request('DELETE', `sys/mounts/${namespace}-pki`);
    const writes = await vaultWrites(scene.vault);
    const lost = await look();
    expect(lost.status?.conditions?.find((c) => c.type === 'Ready')?.reason).toBe('RootLost');
    expect(await vaultWrites(scene.vault)).toEqual(writes);
    const { serial } = before.status?.root as unknown as { serial: string };
    expect(lost.status?.conditions?.find((c) => c.type === 'Ready')?.message).toContain(serial);
    const annotations = { 'istiovaultca.io/allow-reissue': serial };
    await kube.request('PATCH', resourcePath(namespace, 'istioca'), { metadata: { annotations } });
    const again = await waitForCondition(kube, namespace, 'istioca', { type: 'Provisioned', status: 'True' });
    expect(again.status?.root?.fingerprint).not.toBe(before.status?.root?.fingerprint);
    expect(await ca(scene)).toMatchObject({ defects: [], servedIsLive: true });

    await scene.vault.request('DELETE', `sys/mounts/${namespace}-pki`);
    expect((await look()).status?.conditions?.find((c) => c.type === 'Ready')?.reason).toBe('RootLost');
  });
});
