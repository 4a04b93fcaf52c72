/** A second revision of istiod in the namespace of a mesh, with a resource of its own under the same root. */
import { loadYaml } from '../../src/runtime/yaml.ts';
import { waitFor } from '../stack/index.ts';
import { renderIstiod } from '../stack/istiod-chart.ts';
import { applyOk, waitForCondition, type Json, type Kube } from './cluster.ts';
import { grantOperator, limitMesh, makeScene, merge, type Scene, type Vault } from './scene.ts';

/** Creates the resource of a revision, and waits until istiod of that revision is verified. @returns its scene; the resource has the name of the revision */
export async function startRevision(kube: Kube, vault: Vault, namespace: string, revision: string): Promise<Scene> {
  const role = `operator-${namespace}-${revision}`;
  const spec = {
    vault: { auth: { kubernetes: { role } } },
    root: { source: 'Existing' },
    intermediate: { mount: `${namespace}-${revision}` },
    keyStore: { path: revision },
    policy: { name: `${namespace}-${revision}` },
    kubernetesAuth: { role: `${namespace}-${revision}` },
    controlPlane: { kind: 'HelmValues', name: revision, revision },
  };
  await limitMesh(kube, namespace, revision);
  const scene = await makeScene(kube, vault, { namespace, name: revision, overlays: null, spec, withoutRole: true });
  await grantOperator(vault, role, namespace, scene.resource['spec'] as Json);
  await applyOk(kube, scene.resource);
  await waitForCondition(kube, namespace, revision, { type: 'ControlPlanePatched', status: 'True' }, 120_000);
  const values = await waitFor('the values of the chart', async () => {
    const { body } = await kube.request('GET', `/api/v1/namespaces/${namespace}/configmaps/${revision}`);
    const text = (body as { data?: Record<string, string> }).data?.['values.yaml'];
    return text !== undefined && (loadYaml(text) as { pilot: Json });
  });
  const base = {
    global: { istioNamespace: namespace },
    meshConfig: { discoverySelectors: [{ matchLabels: { 'kubernetes.io/metadata.name': namespace } }] },
    autoscaleEnabled: false,
    revision,
  };
  // the chart of the stand-in takes the values of pilot in its flattened form
  for (const object of await renderIstiod({ namespace, values: merge(base, values.pilot) }))
    await applyOk(kube, object);
  await waitForCondition(kube, namespace, revision, { type: 'Ready', status: 'True' }, 120_000);
  return scene;
}
