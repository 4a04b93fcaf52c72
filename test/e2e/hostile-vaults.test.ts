/** Vaults that hang, answer without end, with too much or with something else: they hold up nobody but the resource that names them. */
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { sharedStack, waitFor } from '../stack/index.ts';
import {
  applyOk,
  conditionOf,
  getResource,
  requestReconcile,
  resourcePath,
  waitForCondition,
} from '../support/cluster.ts';
import { useOperator } from '../support/harness.ts';
import { startHostileVault, type HostileVault, type Hostility } from '../support/hostile-vault.ts';
import { makeScene, type Scene, type Vault } from '../support/scene.ts';
import { startService, type Service } from '../support/service.ts';

const { kube, vaults } = sharedStack();
// fewer places than resources that hang
const { restart } = useOperator(['--concurrency=2']);

const hostilities: Hostility[] = ['silent', 'trickling', 'huge', 'wrong'];
const hostile = new Map<Hostility, HostileVault>();

/** A scene whose resource names another address than that of its Vault. */
const sceneAt = (namespace: string, address: string, caPem: string): Promise<Scene> => {
  const elsewhere: Vault = { ...vaults.OpenBao, address, caPem };
  return makeScene(kube, elsewhere, { namespace, withoutRole: true });
};

beforeAll(async () => {
  for (const hostility of hostilities) hostile.set(hostility, await startHostileVault(hostility));
});
afterAll(async () => {
  for (const server of hostile.values()) await server.stop();
});

describe('while four resources name such Vaults', () => {
  beforeAll(async () => {
    for (const [hostility, { address, caPem }] of hostile) {
      // two of each kind hang at the same time
      for (const copy of [1, 2])
        await applyOk(kube, (await sceneAt(`hostile-${hostility}-${copy}`, address, caPem)).resource);
    }
    await waitFor('the requests that hang', () =>
      ['silent', 'trickling'].every((kind) => {
        const { received = 0, ended = 0 } = hostile.get(kind as Hostility)?.requests ?? {};
        return received - ended >= 1;
      }),
    );
  });

  it('another is provisioned before any of them gives up', async () => {
    const scene = await makeScene(kube, vaults.OpenBao, { namespace: 'hostile-fifth' });
    await applyOk(kube, scene.resource);
    await waitForCondition(kube, 'hostile-fifth', 'istioca', { type: 'Provisioned', status: 'True' });
    expect(hostile.get('silent')?.requests.ended).toBe(0);
  });

  it.each<[Hostility, string, RegExp]>([
    ['silent', 'Unreachable', /ETIMEDOUT/],
    ['trickling', 'Unreachable', /ETIMEDOUT/],
    ['huge', 'VaultError', /larger than this operator accepts/],
    ['wrong', 'VaultError', /the answer is not Vault's/],
  ])('%s: the condition says %s', async (hostility, reason, message) => {
    const resource = await waitForCondition(kube, `hostile-${hostility}-1`, 'istioca', {
      type: 'Ready',
      status: 'False',
      reason,
    });
    expect(conditionOf(resource, 'Ready')?.message).toMatch(message);
  });

  it('a deletion among them does not wait for its Vault', async () => {
    const namespace = 'hostile-silent-1';
    await kube.request('DELETE', resourcePath(namespace, 'istioca'));
    await waitFor(
      'the resource to be gone',
      async () => (await getResource(kube, namespace, 'istioca')).metadata.uid === undefined,
    );
  });
});

describe('a Vault that answers everything, but slowly', () => {
  let service: Service;
  beforeAll(async () => {
    const { address } = vaults.OpenBao;
    service = await startService([Number(new URL(address).port)]);
    await restart(['--reconcile-timeout=2s']);
  });
  afterAll(() => service.stop());

  it('is given up when the time of a reconcile is over, and gone on with when it is fast again', async () => {
    const namespace = 'hostile-slow';
    const scene = await makeScene(kube, { ...vaults.OpenBao, address: service.address }, { namespace });
    service.slow(700);
    await applyOk(kube, scene.resource);
    const slow = await waitForCondition(kube, namespace, 'istioca', {
      type: 'Ready',
      status: 'False',
      reason: 'Unreachable',
    });
    expect(conditionOf(slow, 'Ready')?.message).toContain('no answer before the time for one reconcile was over');
    await service.restore();
    await waitForCondition(kube, namespace, 'istioca', { type: 'Provisioned', status: 'True' });
    const settled = await requestReconcile(kube, namespace, 'istioca', 'once more');
    expect(conditionOf(settled, 'Provisioned')?.status).toBe('True');
  });
});
