/** Intermediates that change in a mesh that works: no workload may notice, and nothing of the old ones is left. */
import { expect, it, jest } from '@jest/globals';
import { waitFor } from '../stack/index.ts';
import { conditionOf } from '../support/cluster.ts';
import { useRotatingMesh } from '../support/rotating-mesh.ts';

jest.setTimeout(600_000);

const { annotate, count, mesh, until, work } = useRotatingMesh();

it('five in a row', async () => {
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
  await workloads.renewed();
  await workloads.stop();
  expect(workloads.failures).toEqual([]);
  await waitFor('the generation before to be collected', async () => (await count(namespace, 'keys')) === 1);
  expect(await count(namespace, 'issuers')).toBe(1);
});
