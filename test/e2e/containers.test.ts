/**
 * The main job once more, with the servers in containers under their public image names. Where no image can be pulled, the
 * images are made round the same binaries, and a Docker daemon is started if that is possible.
 */
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { containersAvailable, products, startStack, type Stack } from '../stack/index.ts';
import { defects, readCaFiles } from '../support/certificates.ts';
import { applyOk, installOperator, registerInjector, waitForCondition } from '../support/cluster.ts';
import { startOperator, type RunningOperator } from '../support/operator.ts';
import { renderFiles } from '../support/render.ts';
import { makeScene, prepareVault } from '../support/scene.ts';

const { available, reason } = await containersAvailable({ onProgress: (line) => process.stderr.write(`${line}\n`) });
if (!available)
  console.error(
    `containers are left out: ${reason}; they run where a Docker daemon answers, or as root with the package docker.io`,
  );
const whereContainersRun = available ? describe : describe.skip;

whereContainersRun('in containers', () => {
  let stack: Stack;
  let operator: RunningOperator;

  beforeAll(async () => {
    stack = await startStack({ mode: 'containers' });
    const kubeconfig = await installOperator(stack.kube);
    await registerInjector(stack.kube);
    for (const product of products) await prepareVault(stack.kube, stack.vaults[product]);
    operator = await startOperator(kubeconfig);
  });

  afterAll(async () => {
    await operator.stop();
    await stack.stop();
  });

  it.each(products)('%s becomes the CA of the control plane', async (product) => {
    const namespace = `container-${product}`.toLowerCase();
    const scene = await makeScene(stack.kube, stack.vaults[product], { namespace });
    await applyOk(stack.kube, scene.resource);
    await waitForCondition(stack.kube, namespace, 'istioca', { type: 'Provisioned', status: 'True' });
    const { dir } = await renderFiles(scene);
    expect(defects(await readCaFiles(dir))).toEqual([]);
  });
});
