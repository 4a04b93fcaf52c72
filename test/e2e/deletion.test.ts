/** The end of a resource: `Retain` at once, `Delete` in order, with its deadline, and only what it made. */
import { beforeAll, describe, expect, it } from '@jest/globals';
import { products, sharedStack, startVault, waitFor, type Product } from '../stack/index.ts';
import { vaultWrites } from '../support/audit.ts';
import { makeByHand, overlayByHand } from '../support/by-hand.ts';
import { applyOk, getResource, resourcePath, waitForCondition, type Json } from '../support/cluster.ts';
import { eventsOf } from '../support/events.ts';
import { useOperator } from '../support/harness.ts';
import { entry, inventory, servedBy } from '../support/look.ts';
import { controlPlane, grantOperator, makeScene, merge, prepareVault, type Scene } from '../support/scene.ts';

const { kube, vaults } = sharedStack();
const { operator, restart } = useOperator();

const controlPlanePath = (namespace: string) =>
  `/apis/install.tetrate.io/v1alpha1/namespaces/${namespace}/controlplanes/controlplane`;
const controlPlaneSpec = async (namespace: string) =>
  ((await kube.request('GET', controlPlanePath(namespace))).body as Json)['spec'];

const overlays = [
  { apiVersion: 'v1', kind: 'Service', name: 'istiod', patches: [{ path: 'spec.type', value: 'ClusterIP' }] },
  {
    apiVersion: 'install.istio.io/v1alpha1',
    kind: 'IstioOperator',
    name: 'tsb-istiocontrolplane',
    patches: [
      { path: 'spec.values.pilot.env.ROOT_CA_DIR', value: '/vault/secrets' },
      { path: 'spec.values.global.proxy.logLevel', value: 'warn' },
    ],
  },
];

/** A scene with `deletionPolicy: Delete`, and the rights for it. */
async function leavingScene(product: Product, namespace: string, over: Json = {}): Promise<Scene> {
  const spec = merge({ deletionPolicy: 'Delete' }, over);
  return await makeScene(kube, vaults[product], { namespace, spec, overlays, make: { rootGoes: true } });
}

async function provisioned(scene: Scene, annotations: Json = {}): Promise<void> {
  await applyOk(kube, merge(scene.resource, { metadata: { annotations } }));
  await waitForCondition(kube, scene.namespace, scene.name, { type: 'Provisioned', status: 'True' });
}

const remove = async ({ namespace, name }: Scene) => await kube.request('DELETE', resourcePath(namespace, name));
const isGone = async ({ namespace, name }: Scene) =>
  (await getResource(kube, namespace, name)).metadata.uid === undefined;
const gone = async (scene: Scene) => await waitFor(`${scene.name} to be gone`, () => isGone(scene));
const annotate = async ({ namespace, name }: Scene, annotations: Json) =>
  await kube.request('PATCH', resourcePath(namespace, name), { metadata: { annotations } });

/** Notes of Events with a reason about a scene's resource. */
const notes = async ({ namespace }: Scene, reason: string): Promise<string[]> =>
  (await eventsOf(kube, namespace)).filter((event) => event.reason === reason).map((event) => event.note);
const noted = async (scene: Scene, reason: string) =>
  await waitFor(`an Event ${reason}`, async () => {
    const found = await notes(scene, reason);
    return found.length > 0 && found;
  });

/** Which of a scene's places exist in Vault. */
async function standing({ vault, namespace }: Scene): Promise<string[]> {
  const places = {
    root: `sys/mounts/${namespace}-pki`,
    intermediate: `sys/mounts/${namespace}-ca`,
    keyStore: `sys/mounts/${namespace}-kv`,
    policy: `sys/policies/acl/${namespace}-istioca`,
    role: `auth/kubernetes/role/${namespace}-istiod`,
  };
  const found = await Promise.all(
    Object.entries(places).map(async ([name, path]) =>
      (await vault.request('GET', path)).status === 200 ? [name] : [],
    ),
  );
  return found.flat();
}

/** Lines of the log that say that the deletion of a scene gave up. */
const givenUp = ({ namespace }: Scene): string[] =>
  operator()
    .log()
    .split('\n')
    .filter((line) => line.includes('CleanupIncomplete') && line.includes(namespace));

/** A pod of istiod with these annotations: no kubelet runs it, and nothing takes it away. */
async function istiodPod({ namespace }: Scene, annotations: Json, ownerReferences: Json[] = []): Promise<void> {
  const pod = {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'istiod-1', namespace, labels: { app: 'istiod' }, annotations, ownerReferences },
    spec: { containers: [{ name: 'discovery', image: 'example.invalid/none' }], automountServiceAccountToken: false },
  };
  await kube.request('POST', `/api/v1/namespaces/${namespace}/serviceaccounts`, { metadata: { name: 'default' } });
  const { status } = await kube.request('POST', `/api/v1/namespaces/${namespace}/pods`, pod);
  expect(status).toBe(201);
}

/** What the procedure's overlay puts on istiod's pods. */
function annotationsByHand(scene: Scene): Json {
  const overlay = overlayByHand(scene) as { patches: { path: string; value: unknown }[] }[];
  const patch = overlay[0]?.patches.find(({ path }) => path.endsWith('.podAnnotations'));
  return patch?.value as Json;
}

describe.each(products)('Delete in %s', (product) => {
  const version = product === 'Vault' ? 1 : 2;
  const place = (name: string) => `${name}-${product}`.toLowerCase();
  const spec = { keyStore: { version } };

  it('takes away what the resource made, keeps the root, and gives the fields back exactly', async () => {
    const scene = await leavingScene(product, place('delete'), spec);
    const before = await controlPlaneSpec(scene.namespace);
    await provisioned(scene);
    expect(await controlPlaneSpec(scene.namespace)).not.toEqual(before);
    const root = await servedBy(scene, 'pki');
    await remove(scene);
    await gone(scene);
    expect(await standing(scene)).toEqual(['root', 'keyStore']);
    expect([await entry(scene), await entry(scene, '-staging')]).toEqual([undefined, undefined]);
    expect(await servedBy(scene, 'pki')).toBe(root);
    expect(await controlPlaneSpec(scene.namespace)).toEqual(before);
    expect((await noted(scene, 'RootKept'))[0]).toContain('istiovaultca.io/confirm-delete-root');

    // made anew it takes its root up again
    await applyOk(kube, scene.resource);
    const again = await waitForCondition(kube, scene.namespace, scene.name, { type: 'Provisioned', status: 'True' });
    expect(await servedBy(scene, 'pki')).toBe(root);
    await annotate(scene, {
      'istiovaultca.io/confirm-delete-root': (again.status?.root as { serial?: string }).serial,
    });
    await remove(scene);
    await gone(scene);
    expect(await standing(scene)).toEqual([]);
  });

  it('keeps a confirmed root that has signed for somebody else, and says whom', async () => {
    const scene = await leavingScene(product, place('delete-signed'), spec);
    await provisioned(scene);
    const other = `${scene.namespace}-other`;
    await scene.vault.request('POST', `sys/mounts/${other}`, { type: 'pki' });
    const csr = ((await scene.vault.request('POST', `${other}/intermediate/generate/internal`, { common_name: 'Istio Intermediate CA', key_type: 'ec' })).body as { data: { csr: string } }).data.csr; // prettier-ignore
    await scene.vault.request('POST', `${scene.namespace}-pki/root/sign-intermediate`, { csr, common_name: 'Istio Intermediate CA' }); // prettier-ignore
    const { status } = await getResource(kube, scene.namespace, scene.name);
    await annotate(scene, { 'istiovaultca.io/confirm-delete-root': (status?.root as { serial?: string }).serial });
    await remove(scene);
    await gone(scene);
    expect(await standing(scene)).toEqual(['root', 'keyStore']);
    expect((await noted(scene, 'CleanupIncomplete'))[0]).toContain('has signed for somebody else');
  });

  it('keeps everything that was adopted, and does not wait for an istiod that goes on reading it', async () => {
    const scene = await makeScene(kube, vaults[product], {
      namespace: place('delete-adopted'),
      spec: merge({ deletionPolicy: 'Delete', adopt: true }, spec),
      make: { rootGoes: true },
    });
    await makeByHand(scene, { ROOT_TTL: '87600h' });
    await applyOk(kube, controlPlane(scene.namespace, overlayByHand(scene)));
    const before = await controlPlaneSpec(scene.namespace);
    await provisioned(scene);
    const stock = await inventory(scene);
    await istiodPod(scene, annotationsByHand(scene));
    await remove(scene);
    await gone(scene);
    expect(await standing(scene)).toEqual(['root', 'intermediate', 'keyStore', 'policy', 'role']);
    expect(await inventory(scene)).toEqual(stock);
    expect(givenUp(scene)).toEqual([]);
    expect((await entry(scene))?.['ca-key.pem']).toContain('PRIVATE KEY');
    expect(await entry(scene, '-state')).toBeUndefined();
    expect(await controlPlaneSpec(scene.namespace)).toEqual(before);
  });

  it('leaves a key store in which others keep something', async () => {
    const scene = await leavingScene(product, place('delete-shared'), spec);
    await provisioned(scene);
    const theirs = version === 1 ? `${scene.namespace}-kv/theirs` : `${scene.namespace}-kv/data/theirs`;
    await scene.vault.request('POST', theirs, version === 1 ? { a: 'b' } : { data: { a: 'b' } });
    await remove(scene);
    await gone(scene);
    expect(await standing(scene)).toEqual(['root', 'keyStore']);
    expect(await entry(scene)).toBeUndefined();
  });
});

describe('istiod', () => {
  const fields = (namespace: string, domain: string): Json => ({
    [`${domain}/role`]: `${namespace}-istiod`,
    [`${domain}/agent-inject-secret-ca-key.pem`]: `${namespace}-kv/data/istioca`,
  });

  /** A pod without annotations, of a ReplicaSet whose template has the fields. */
  async function podOfReplicaSet(scene: Scene): Promise<void> {
    const { namespace } = scene;
    const labels = { app: 'istiod' };
    const made = await kube.request('POST', `/apis/apps/v1/namespaces/${namespace}/replicasets`, {
      metadata: { name: 'istiod', labels },
      spec: {
        selector: { matchLabels: labels },
        template: {
          metadata: { labels, annotations: fields(namespace, 'vault.hashicorp.com') },
          spec: { containers: [{ name: 'discovery', image: 'example.invalid/none' }] },
        },
      },
    });
    const { uid } = (made.body as { metadata: { uid: string } }).metadata;
    const owner = { apiVersion: 'apps/v1', kind: 'ReplicaSet', name: 'istiod', uid, controller: true };
    await istiodPod(scene, {}, [owner]);
  }

  it.each<[string, (scene: Scene) => Promise<void>]>([
    ["HashiCorp's injector", (scene) => istiodPod(scene, fields(scene.namespace, 'vault.hashicorp.com'))],
    ["OpenBao's injector, which renames them,", (scene) => istiodPod(scene, fields(scene.namespace, 'openbao.org'))],
    ['an injector that takes them off the pod', podOfReplicaSet],
  ])('is waited for: nothing in Vault goes while a pod uses the fields, with %s', async (what, makePod) => {
    const scene = await leavingScene('OpenBao', `delete-waits-${what.length}`);
    await provisioned(scene);
    const { namespace } = scene;
    await makePod(scene);
    await remove(scene);
    const waiting = await waitForCondition(kube, namespace, scene.name, { type: 'Ready', reason: 'Deleting' });
    expect(waiting.status?.conditions?.find((c) => c.type === 'Ready')?.message).toContain('pod istiod-1');
    expect(await standing(scene)).toEqual(['root', 'intermediate', 'keyStore', 'policy', 'role']);
    expect(JSON.stringify(await controlPlaneSpec(namespace))).not.toContain('vault.hashicorp.com');
    await kube.request('DELETE', `/api/v1/namespaces/${namespace}/pods/istiod-1?gracePeriodSeconds=0`);
    await gone(scene);
    expect(await standing(scene)).toEqual(['root', 'keyStore']);
  });
});

describe('while Vault does not answer', () => {
  let scene: Scene;
  const down = async (namespace: string, deletionPolicy: string) => {
    const vault = await startVault('OpenBao', {});
    await prepareVault(kube, vault);
    const made = await makeScene(kube, vault, { namespace, spec: { deletionPolicy }, make: { rootGoes: true } });
    await provisioned(made);
    await vault.stop();
    return made;
  };

  it('Retain is gone at once', async () => {
    scene = await down('down-retain', 'Retain');
    expect((await kube.request('GET', resourcePath(scene.namespace, scene.name))).body).not.toHaveProperty('metadata.finalizers');
    await remove(scene);
    expect(await isGone(scene)).toBe(true);
  }); // prettier-ignore

  it('Delete that is changed to Retain is gone at once', async () => {
    scene = await down('down-changed', 'Delete');
    await remove(scene);
    expect(await isGone(scene)).toBe(false);
    await kube.request('PATCH', resourcePath(scene.namespace, scene.name), { spec: { deletionPolicy: 'Retain' } });
    await gone(scene);
  });

  it('Delete with skip-cleanup is gone at once, and what may be left is said', async () => {
    scene = await down('down-skip', 'Delete');
    await remove(scene);
    await annotate(scene, { 'istiovaultca.io/skip-cleanup': 'true' });
    await gone(scene);
    expect((await noted(scene, 'CleanupIncomplete'))[0]).toContain(`mount ${scene.namespace}-ca`);
  });

  it('Delete gives up at its deadline, and says why and what may be left', async () => {
    await restart(['--deletion-deadline=1s']);
    scene = await down('down-deadline', 'Delete');
    await remove(scene);
    await gone(scene);
    const [note] = await noted(scene, 'CleanupIncomplete');
    expect(note).toContain('Unreachable');
    expect(note).toContain(`policy ${scene.namespace}-istioca`);
    await restart([]);
  });

  it('Delete in a namespace that is being deleted gives up at once', async () => {
    scene = await down('down-namespace', 'Delete');
    await kube.request('DELETE', `/api/v1/namespaces/${scene.namespace}`);
    await remove(scene);
    await gone(scene);
    await waitFor('the log to say so', async () =>
      Promise.resolve(operator().log().includes('the namespace is being deleted')),
    );
  });
});

describe('the finalizer', () => {
  let scene: Scene;
  const finalizers = async () =>
    ((await kube.request('GET', resourcePath(scene.namespace, scene.name))).body as { metadata: { finalizers?: string[] } })
      .metadata.finalizers ?? []; // prettier-ignore

  beforeAll(async () => {
    scene = await leavingScene('OpenBao', 'finalizer');
  });

  it('is there before the first write, and only with Delete, Enforce and not suspended', async () => {
    await provisioned(scene);
    expect(await finalizers()).toEqual(['istiovaultca.io/cleanup']);
    for (const spec of [{ suspend: true }, { mode: 'Plan' }, { deletionPolicy: 'Retain' }]) {
      await applyOk(kube, merge(scene.resource, { spec }));
      await waitFor(`no finalizer with ${JSON.stringify(spec)}`, async () => (await finalizers()).length === 0);
      await applyOk(kube, scene.resource);
      await waitFor('the finalizer to be back', async () => (await finalizers()).length === 1);
    }
  });

  it('leaves those of others, and a deletion under way touches nothing of theirs', async () => {
    const theirs = 'example.com/theirs';
    await kube.request('PATCH', resourcePath(scene.namespace, scene.name), {
      metadata: { finalizers: ['istiovaultca.io/cleanup', theirs] },
    });
    await remove(scene);
    await waitFor('ours to be off', async () => (await finalizers()).join() === theirs);
    expect(await standing(scene)).toEqual(['root', 'keyStore']);
    await kube.request('PATCH', resourcePath(scene.namespace, scene.name), { metadata: { finalizers: [] } });
    await gone(scene);
  });

  it('a missing right for the deletion shows before the day', async () => {
    const { vault } = scene;
    const poor = await makeScene(kube, vault, { namespace: 'finalizer-poor', spec: { deletionPolicy: 'Delete' } });
    const retain = merge(poor.resource, { spec: { deletionPolicy: 'Retain' } })['spec'] as Json;
    await grantOperator(vault, 'operator-finalizer-poor', 'finalizer-poor', retain);
    const writes = await vaultWrites(vault);
    await applyOk(kube, poor.resource);
    const refused = await waitForCondition(kube, 'finalizer-poor', poor.name, { type: 'VaultReady', reason: 'Forbidden' });
    expect(refused.status?.conditions?.find((c) => c.type === 'VaultReady')?.message).toContain('delete on');
    expect(await vaultWrites(vault)).toEqual(writes);
    await kube.request('PATCH', resourcePath('finalizer-poor', poor.name), { spec: { deletionPolicy: 'Retain' } });
  }); // prettier-ignore
});

it('a resource whose spec was always refused is held by nothing', async () => {
  const scene = await makeScene(kube, vaults.OpenBao, { namespace: 'leaving-refused', overlays });
  const over = { deletionPolicy: 'Delete', intermediate: { manage: false }, delivery: { crl: true } };
  await applyOk(kube, merge(scene.resource, { spec: over }));
  const waited = { type: 'Stalled', reason: 'NotYetSupported' };
  const resource = await waitForCondition(kube, scene.namespace, scene.name, waited);
  expect((resource.metadata as { finalizers?: string[] }).finalizers ?? []).toEqual([]);
  await remove(scene);
  await gone(scene);
});
