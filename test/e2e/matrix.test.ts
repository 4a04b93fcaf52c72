/**
 * Combinations of product, login, root, delivery and KV version, each on a server of its own from its first mount to a renewal. Without
 * TEST_MATRIX a few that cover every value; with it, as `npm run test:matrix` sets it, all of the products that it names.
 */
import { describe, expect, it } from '@jest/globals';
import { sharedStack, startVault, waitFor } from '../stack/index.ts';
import {
  authMethods,
  cells,
  covering,
  deliveries,
  nameOf,
  refusalOf,
  rootSources,
  type Cell,
} from '../matrix/cells.ts';
import { renew, type Source } from '../matrix/preparations.ts';
import { defects, readCaFiles, type CaFiles } from '../support/certificates.ts';
import { apply, applyOk, conditionOf, getResource, resourcePath, waitForCondition, type Json } from '../support/cluster.ts'; // prettier-ignore
import { useOperator } from '../support/harness.ts';
import { renderFiles } from '../support/render.ts';
import { grantOperator, makeScene, merge, prepareVault, type Scene, type Vault } from '../support/scene.ts';

const { kube } = sharedStack();
// the first lists of a CA wait for this time
useOperator(['--crl-lead-time=1s']);

const wanted = process.env['TEST_MATRIX'];
const chosen =
  wanted === undefined ? covering(cells) : cells.filter(({ product }) => wanted.split(',').includes(product));

/** The environment of a cell, with the resource that a user of this combination writes. */
async function sceneOf(cell: Cell, vault: Vault): Promise<Scene> {
  const namespace = `matrix-${cells.indexOf(cell)}`;
  const scene = await makeScene(kube, vault, { namespace, spec: { keyStore: { version: cell.kv } } });
  const parts = { ...(await rootSources[cell.root]!.prepare(scene)), delivery: deliveries[cell.delivery]! };
  const spec = merge(scene.resource['spec'] as Json, parts);
  // exactly the rights that this combination needs
  await grantOperator(vault, `operator-${namespace}`, namespace, spec);
  const auth = await authMethods[cell.auth]!(scene);
  const resource = { ...scene.resource, spec: { ...spec, vault: { ...(spec['vault'] as Json), auth } } };
  return { ...scene, resource };
}

/** The files that istiod's agent renders. */
async function filesOf(scene: Scene): Promise<CaFiles> {
  const files = await readCaFiles((await renderFiles(scene)).dir);
  expect(defects(files)).toEqual([]);
  return files;
}

/** From nothing to a provisioned CA, and to the next one. */
async function works(scene: Scene, source: Source): Promise<void> {
  const { namespace, name } = scene;
  await applyOk(kube, scene.resource);
  await source.answer?.(scene);
  await waitForCondition(kube, namespace, name, { type: 'Provisioned', status: 'True' });
  const first = await filesOf(scene);
  await renew(scene, source);
  await waitFor('the second CA generation', async () => {
    const resource = await getResource(kube, namespace, name);
    const isProvisioned = conditionOf(resource, 'Provisioned')?.status === 'True';
    return isProvisioned && resource.status?.intermediate?.generation === 2;
  });
  const second = await filesOf(scene);
  expect(second.cert).not.toBe(first.cert);
  expect(second.root).toBe(first.root);
}

/** Refused by the API server, or by the operator, in the words of the table. */
async function isRefused({ namespace, name, resource }: Scene, says: string): Promise<void> {
  const { status, body } = await apply(kube, resource);
  if (status >= 300) {
    expect(body['message']).toContain(says);
    return;
  }
  await waitForCondition(kube, namespace, name, { type: 'Ready', status: 'False' });
  const refusal = conditionOf(await waitForCondition(kube, namespace, name, { type: 'Stalled' }), 'Ready');
  expect(`${refusal?.reason}: ${refusal?.message}`).toContain(says);
}

describe.each([...new Set(chosen.map(({ product }) => product))])('%s', (product) => {
  const ofProduct = chosen.filter((cell) => cell.product === product).map((cell) => [nameOf(cell), cell] as const);
  it.each(ofProduct)('%s', async (_name, cell) => {
    const server = await startVault(product);
    try {
      await prepareVault(kube, server);
      const scene = await sceneOf(cell, server);
      const says = refusalOf(cell);
      await (says === undefined ? works(scene, rootSources[cell.root]!) : isRefused(scene, says));
      // a resource that is left would be tried again without its server
      await kube.request('DELETE', resourcePath(scene.namespace, scene.name));
    } finally {
      await server.stop();
    }
  });
});
