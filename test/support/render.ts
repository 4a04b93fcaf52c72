/** The files as istiod's pod would see them: the real agent, with istiod's own login, from what the control plane carries. */
import { makeTemporaryDir, renderWithAgent, requestToken } from '../stack/index.ts';
import type { Json } from './cluster.ts';
import { podTemplateOf, type PodTemplate } from './istiod-pod.ts';
import type { Scene } from './scene.ts';

/** @param serviceAccount istiod's, `istiod` unless given */
export async function renderFiles(
  scene: Scene,
  serviceAccount = 'istiod',
): Promise<{ template: PodTemplate; dir: string }> {
  const { kube, namespace, vault } = scene;
  const path = `/apis/install.tetrate.io/v1alpha1/namespaces/${namespace}/controlplanes/controlplane`;
  const template = podTemplateOf((await kube.request('GET', path)).body as Json);
  const dir = makeTemporaryDir('vault-secrets');
  const token = await requestToken(kube, namespace, serviceAccount);
  const tlsSecret = { 'ca.crt': vault.caPem ?? '' };
  await renderWithAgent({ annotations: template.annotations, vault, token, dir, mode: 'init', tlsSecret });
  return { template, dir };
}
