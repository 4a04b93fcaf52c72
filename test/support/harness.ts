/** Setup and teardown of every end-to-end file: installs and runs the operator, and removes its resources at the end. */
import { afterAll, beforeAll } from '@jest/globals';
import { products, sharedStack, waitFor } from '../stack/index.ts';
import { getResource, installOperator, registerInjector, resourcePath } from './cluster.ts';
import { watchInEveryWait } from '../stack/wait.ts';
import { startOperator, type RunningOperator } from './operator.ts';
import { everythingVisible, leaks, secretsOf } from './canary.ts';
import { prepareVault, scenes } from './scene.ts';

export interface Harness {
  /** The running operator. */
  operator: () => RunningOperator;
  /** Stops it and starts another one. */
  restart: (flags?: string[]) => Promise<void>;
}

/**
 * Removes the finalizer of every IstioVaultCA and deletes the resource. The operator, which would remove the finalizer, does not run any
 * more.
 */
async function deleteResources(): Promise<void> {
  const { kube } = sharedStack();
  const all = (await kube.request('GET', '/apis/istiovaultca.io/v1alpha1/istiovaultcas')).body as {
    items?: { metadata: { namespace: string; name: string } }[];
  };
  for (const { metadata } of all.items ?? []) {
    await kube.request('PATCH', resourcePath(metadata.namespace, metadata.name), { metadata: { finalizers: [] } });
    await kube.request('DELETE', resourcePath(metadata.namespace, metadata.name));
    await waitFor(
      `${metadata.name} to be gone`,
      async () => (await getResource(kube, metadata.namespace, metadata.name)).metadata.uid === undefined,
    );
  }
}

/** @param flags command line of the first operator */
export function useOperator(flags: string[] = []): Harness {
  const { kube, vaults } = sharedStack();
  let kubeconfig = '';
  let operator: RunningOperator;
  const logs: string[] = [];
  beforeAll(async () => {
    kubeconfig = await installOperator(kube);
    await registerInjector(kube);
    for (const product of products) await prepareVault(kube, vaults[product]);
    operator = await startOperator(kubeconfig, flags);
    watchInEveryWait(operator);
  });
  afterAll(async () => {
    watchInEveryWait(undefined);
    logs.push(await operator.metrics());
    await operator.stop();
    logs.push(operator.log());
    const secrets = (await Promise.all(scenes.map(secretsOf))).flat();
    const shown = { ...(await everythingVisible(kube)), operator: logs.join('\n') };
    await deleteResources();
    const found = leaks(shown, secrets);
    if (found.length > 0) throw new Error(`key or token material is visible in: ${found.join('; ')}`);
  });
  return {
    operator: () => operator,
    restart: async (next = flags) => {
      watchInEveryWait(undefined);
      logs.push(await operator.metrics());
      await operator.stop();
      logs.push(operator.log());
      operator = await startOperator(kubeconfig, next);
      watchInEveryWait(operator);
    },
  };
}
