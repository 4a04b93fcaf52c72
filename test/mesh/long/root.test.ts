/** The root changes in a mesh that works, and no workload may notice. Minutes: workload certificates must run out in between. */
import { describe, expect, it, jest } from '@jest/globals';
import { useRotatingMesh } from '../../support/rotating-mesh.ts';

jest.setTimeout(900_000);

const { annotate, bothRoots, inPhase, kill, mesh, meshRoots, ready, removeRoot, resource, work } = useRotatingMesh();

describe.each([
  ['by rollout', 'WhenChanged'],
  ['by reload, and the old root is lost on the way: there is no way back, though it is asked for', 'Never'],
] as const)('%s', (_, rollout) => {
  const namespace = `rotate-root-${rollout}`.toLowerCase();

  it('from A over A and B to B', async () => {
    await mesh(namespace, { rollout });
    const before = (await resource(namespace)).status?.root?.fingerprint;
    const workloads = await work(namespace);
    await annotate(namespace, { 'istiovaultca.io/rotate-root': 'please' });
    await inPhase(namespace, 'Distributing');
    expect((await bothRoots(namespace))[0]).toBe(before);
    await inPhase(namespace, 'Switching');
    if (rollout === 'Never') {
      await removeRoot(namespace, before);
      await annotate(namespace, { 'istiovaultca.io/rollback-rotation': 'too late' });
    }
    await inPhase(namespace, 'Retiring');
    await inPhase(namespace, undefined);
    const end = await ready(namespace);
    expect(end.status?.root?.fingerprint).not.toBe(before);
    expect(await meshRoots(namespace)).toEqual([end.status?.root?.fingerprint]);
    await workloads.renewed();
    await workloads.stop();
    expect(workloads.failures).toEqual([]);
  });
});

it('killed in the two most dangerous phases, and rolled back from the second, it ends where it began', async () => {
  const namespace = 'rotate-back';
  await mesh(namespace, { rollout: 'Never' });
  const before = (await resource(namespace)).status?.root?.fingerprint;
  const workloads = await work(namespace);
  await annotate(namespace, { 'istiovaultca.io/rotate-root': 'please' });
  await inPhase(namespace, 'Distributing');
  await kill();
  await inPhase(namespace, 'Switching');
  await annotate(namespace, { 'istiovaultca.io/pause-rotation': 'true' });
  await inPhase(namespace, 'Paused');
  await kill();
  await annotate(namespace, { 'istiovaultca.io/pause-rotation': null, 'istiovaultca.io/rollback-rotation': 'no' });
  await inPhase(namespace, undefined);
  const end = await ready(namespace);
  expect(end.status?.root?.fingerprint).toBe(before);
  expect(await meshRoots(namespace)).toEqual([before]);
  await workloads.renewed();
  await workloads.stop();
  expect(workloads.failures).toEqual([]);
});
