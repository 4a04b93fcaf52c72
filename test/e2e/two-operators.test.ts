/** Two operators at once without leader election: check-and-set and resourceVersion alone keep them apart. */
import { afterAll, beforeAll, expect, it } from '@jest/globals';
import { products, sharedStack, waitFor } from '../stack/index.ts';
import { defects } from '../support/certificates.ts';
import { applyOk, getResource, installOperator, requestReconcile, resourcePath, waitForCondition } from '../support/cluster.ts'; // prettier-ignore
import { useOperator } from '../support/harness.ts';
import { entry, inventory } from '../support/look.ts';
import { startOperator, type RunningOperator } from '../support/operator.ts';
import { makeScene, type Scene } from '../support/scene.ts';

const flags = ['--leader-elect=false', '--backoff-base=50ms'];
const { kube, vaults } = sharedStack();
const { operator } = useOperator(flags);
let second: RunningOperator;

const rotations = 10;
const perProduct = 2;

beforeAll(async () => {
  second = await startOperator(await installOperator(kube), flags);
});
afterAll(async () => {
  await second.stop();
});

interface Snapshots {
  taken: number;
  defects: string[];
}

/** Reads the live entry again and again, as istiod's agent would, until told to stop. */
function watchLive(scene: Scene, signal: AbortSignal): Promise<Snapshots> {
  const seen: Snapshots = { taken: 0, defects: [] };
  const one = async (): Promise<Snapshots> => {
    if (signal.aborted) return seen;
    const live = await entry(scene);
    if (live) {
      seen.taken += 1;
      const [cert = '', key = '', chain = '', root = ''] = ['ca-cert.pem', 'ca-key.pem', 'cert-chain.pem', 'root-cert.pem'].map((file) => live[file] ?? ''); // prettier-ignore
      seen.defects.push(...defects({ cert, key, chain, root }));
    }
    return await one();
  };
  return one();
}

const stateOf = async (scene: Scene) =>
  JSON.parse((await entry(scene, '-state'))?.['state'] ?? '{}') as {
    highestGeneration: number;
    history: { reason: string }[];
  };

it.each(products)('on %s: no double generation, no lost update, no mismatched pair', async (product) => {
  const scenes = await Promise.all(
    Array.from({ length: perProduct }, (_, i) =>
      makeScene(kube, vaults[product], { namespace: `two-${product}-${i}`.toLowerCase() }),
    ),
  );
  const ended = new AbortController();
  const readers = scenes.map((scene) => watchLive(scene, ended.signal));
  try {
    await Promise.all(scenes.map(async (scene) => {
      const { namespace, name } = scene;
      await applyOk(kube, scene.resource);
      await waitForCondition(kube, namespace, name, { type: 'Provisioned', status: 'True' });
      for (let i = 1; i <= rotations; i += 1) {
        const annotations = { 'istiovaultca.io/rotate-intermediate': `rotation ${i}` };
        await kube.request('PATCH', resourcePath(namespace, name), { metadata: { annotations } });
        await waitFor(`generation ${i + 1} of ${namespace}`, async () => {
          const { status } = await getResource(kube, namespace, name);
          return (status?.intermediate?.generation ?? 0) >= i + 1;
        });
      }
      await requestReconcile(kube, namespace, name, 'settle');
      await waitForCondition(kube, namespace, name, { type: 'Provisioned', status: 'True' });
    })); // prettier-ignore
    for (const scene of scenes) {
      const { namespace } = scene;
      const settled = await waitFor(`${namespace} to settle`, async () => {
        const found = await inventory(scene);
        const two = found[`${namespace}-ca/issuers`]?.length === 2 && found[`${namespace}-ca/keys`]?.length === 2;
        return two && (await entry(scene, '-staging')) === undefined && found;
      });
      expect(settled[`${namespace}-pki/issuers`]).toHaveLength(1);
      expect(settled[`${namespace}-pki/keys`]).toHaveLength(1);
      const { highestGeneration, history } = await stateOf(scene);
      expect(highestGeneration).toBe(1 + rotations);
      expect((await entry(scene))?.['generation']).toBe(String(1 + rotations));
      // ten are kept: each rotation once
      expect(history.map((e) => e.reason)).toEqual(Array(10).fill('asked for by istiovaultca.io/rotate-intermediate'));
    }
  } finally {
    ended.abort();
  }
  const seen = await Promise.all(readers);
  expect(seen.flatMap((snapshots) => snapshots.defects)).toEqual([]);
  expect(seen.reduce((sum, { taken }) => sum + taken, 0)).toBeGreaterThan(rotations * perProduct);
  // both have worked: each has asked Vault for something
  for (const one of [operator(), second])
    expect(await one.metrics()).toMatch(/istio_vault_ca_vault_requests_total\{[^}]*\} [1-9]/);
}); // prettier-ignore
