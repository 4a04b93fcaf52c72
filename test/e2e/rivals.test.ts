/** Several resources: side by side they do not disturb each other; for one control plane there is one owner. */
import { describe, expect, it } from '@jest/globals';
import { sharedStack, waitFor } from '../stack/index.ts';
import { vaultWrites } from '../support/audit.ts';
import { applyOk, conditionOf, getResource, resourcePath, waitForCondition, type Json } from '../support/cluster.ts';
import { useOperator } from '../support/harness.ts';
import { overlaysOf } from '../support/istiod-pod.ts';
import { grantOperator, makeScene, merge } from '../support/scene.ts';

const { kube, vaults } = sharedStack();
useOperator();

const controlPlaneOf = async (namespace: string) =>
  (await kube.request('GET', `/apis/install.tetrate.io/v1alpha1/namespaces/${namespace}/controlplanes/controlplane`))
    .body as Json & {
    metadata: { annotations?: Record<string, string> };
  };

const foreign = [
  { apiVersion: 'v1', kind: 'Service', name: 'istiod', patches: [{ path: 'spec.type', value: 'ClusterIP' }] },
  {
    apiVersion: 'install.istio.io/v1alpha1',
    kind: 'IstioOperator',
    name: 'tsb-istiocontrolplane',
    patches: [
      { path: 'spec.values.global.proxy.logLevel', value: 'warn' },
      {
        path: 'spec.components.pilot.k8s.env[-1]',
        value: { name: 'PILOT_SCOPE_GATEWAY_TO_NAMESPACE', value: 'false' },
      },
    ],
  },
  { apiVersion: 'apps/v1', kind: 'Deployment', name: 'other', patches: [{ path: 'spec.replicas', value: 2 }] },
];

describe('two resources with different mounts, path, policy and role', () => {
  it('do not disturb each other, and leave the other overlays deep-equal', async () => {
    const one = await makeScene(kube, vaults.OpenBao, { namespace: 'pair-one', overlays: foreign });
    await applyOk(kube, one.resource);
    const before = await waitForCondition(kube, 'pair-one', 'istioca', { type: 'Provisioned', status: 'True' });
    const two = await makeScene(kube, vaults.OpenBao, {
      namespace: 'pair-two',
      spec: { keyStore: { mount: 'pair-one-kv', path: 'second' } },
    });
    await applyOk(kube, two.resource);
    await waitForCondition(kube, 'pair-two', 'istioca', { type: 'Provisioned', status: 'True' });
    const after = await getResource(kube, 'pair-one', 'istioca');
    expect(after.status?.intermediate).toEqual(before.status?.intermediate);
    expect(after.status?.root).toEqual(before.status?.root);

    const overlays = overlaysOf(await controlPlaneOf('pair-one'));
    expect(overlays.map((o) => `${o.kind}/${o.name}`)).toEqual(foreign.map((o) => `${o.kind}/${o.name}`));
    expect(overlays[0]).toEqual(foreign[0]);
    expect(overlays[2]).toEqual(foreign[2]);
    expect(overlays[1]?.patches?.slice(0, 2)).toEqual(foreign[1]?.patches);
  });
});

describe('two resources for one control plane', () => {
  it('end in one owner and one ControlPlaneConflict that writes nothing; the other takes over when the owner goes', async () => {
    const namespace = 'rivals';
    const first = await makeScene(kube, vaults.OpenBao, { namespace });
    await applyOk(kube, first.resource);
    await waitForCondition(kube, namespace, 'istioca', { type: 'Provisioned', status: 'True' });
    const names = {
      root: { mount: 'rival-pki' },
      intermediate: { mount: 'rival-ca' },
      keyStore: { mount: 'rival-kv' },
      policy: { name: 'rival' },
      kubernetesAuth: { role: 'rival' },
      vault: { auth: { kubernetes: { role: 'operator-rival' } } },
    };
    const spec = merge(first.resource['spec'] as Json, names);
    await grantOperator(vaults.OpenBao, 'operator-rival', namespace, spec);
    const writes = await vaultWrites(vaults.OpenBao);
    await applyOk(kube, { ...first.resource, metadata: { name: 'rival', namespace }, spec });

    const rival = await waitForCondition(kube, namespace, 'rival', {
      type: 'Ready',
      status: 'False',
      reason: 'ControlPlaneConflict',
    });
    expect(conditionOf(rival, 'Stalled')).toMatchObject({ status: 'True', reason: 'ControlPlaneConflict' });
    expect(conditionOf(rival, 'Ready')?.message).toContain('istioca');
    expect(await vaultWrites(vaults.OpenBao)).toEqual(writes);
    expect((await controlPlaneOf(namespace)).metadata.annotations?.['istiovaultca.io/owner-default']).toBe('istioca');

    await kube.request('DELETE', resourcePath(namespace, 'istioca'));
    // the mesh still has the first resource's fields: another root is never put in silently
    const stopped = await waitFor('the rival to look again', async () => {
      const now = await getResource(kube, namespace, 'rival');
      return conditionOf(now, 'Ready')?.reason !== 'ControlPlaneConflict' && now;
    });
    expect(conditionOf(stopped, 'Ready')).toMatchObject({ status: 'False', reason: 'RootLost' });
    expect(await vaultWrites(vaults.OpenBao)).toEqual(writes);
  });
});
