/** Intermediates that change in a mesh that works: no workload may notice, and nothing of the old ones is left. */
import { expect, it, jest } from '@jest/globals';
import { waitFor } from '../stack/index.ts';
import { conditionOf } from '../support/cluster.ts';
import { administer, plainSerial, renewIntermediate, serialOf } from '../support/others-ca.ts';
import { useRotatingMesh } from '../support/rotating-mesh.ts';

jest.setTimeout(600_000);

const { annotate, count, mesh, patch, request, until, work } = useRotatingMesh();

it('five in a row, and one of others', async () => {
  const namespace = 'rotate-intermediate';
  await mesh(namespace);
  const workloads = await work(namespace);
  for (let generation = 2; generation <= 6; generation += 1) {
    await annotate(namespace, { 'istiovaultca.io/rotate-intermediate': `to ${generation}` });
    await until(`generation ${generation} to be proven`, namespace, (resource) => {
      const isReady = conditionOf(resource, 'Ready')?.status === 'True';
      return isReady && resource.status?.intermediate?.generation === generation;
    });
  }
  await waitFor('the generation before to be collected', async () => (await count(namespace, 'keys')) === 1);
  expect(await count(namespace, 'issuers')).toBe(1);

  // the sixth is of others, to whom the CA is handed over
  await patch(namespace, { root: { manage: false }, intermediate: { manage: false } });
  const mounts = { root: `${namespace}-pki`, intermediate: `${namespace}-ca` };
  const files = await renewIntermediate({ request }, mounts, 'Istio Intermediate CA', { type: 'ec', bits: 256 });
  await administer({ request }, 'POST', `${namespace}-kv/data/istioca`, { data: files });
  await until('the CA of others to be proven', namespace, (resource) => {
    const isReady = conditionOf(resource, 'Ready')?.status === 'True';
    return isReady && plainSerial(resource.status?.intermediate?.serial) === serialOf(files['ca-cert.pem']);
  });
  await workloads.renewed();
  await workloads.stop();
  expect(workloads.failures).toEqual([]);
  expect(await count(namespace, 'issuers')).toBe(2);
});
