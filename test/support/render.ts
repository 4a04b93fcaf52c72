/** The CA files in istiod's Pod: rendered by the real Vault Agent, with istiod's own login, from the fields of the control plane. */
import { makeTemporaryDir, renderWithAgent, requestToken } from '../stack/index.ts';
import type { Json } from './cluster.ts';
import { podTemplateOf, type PodTemplate } from './istiod-pod.ts';
import type { Scene } from './scene.ts';

/**
 * @param serviceAccount the service account of istiod; default `istiod`
 * @param tlsSecret the Secret of annotation `tls-secret`; default: the CA of the server
 */
export async function renderFiles(
  scene: Scene,
  serviceAccount = 'istiod',
  tlsSecret: Readonly<Record<string, string>> = { 'ca.crt': scene.vault.caPem ?? '' },
): Promise<{ template: PodTemplate; dir: string }> {
  const { kube, namespace, vault } = scene;
  const path = `/apis/install.tetrate.io/v1alpha1/namespaces/${namespace}/controlplanes/controlplane`;
  const template = podTemplateOf((await kube.request('GET', path)).body as Json);
  const dir = makeTemporaryDir('vault-secrets');
  const token = await requestToken(kube, namespace, serviceAccount);
  await renderWithAgent({ annotations: template.annotations, vault, token, dir, mode: 'init', tlsSecret });
  return { template, dir };
}
