/** The fields of a resource of a second cluster, which logs in at the same Vault by an auth mount of its own. */
import { enableKubernetesAuth } from '../stack/index.ts';
import type { Json, Kube } from './cluster.ts';
import type { Vault } from './scene.ts';

const mount = 'kubernetes-second';

/** Enables Kubernetes auth for a second cluster. @returns the fields that its resources need */
export async function joinVault(kube: Kube, vault: Vault): Promise<Json> {
  await enableKubernetesAuth(vault, kube, mount);
  return { vault: { auth: { kubernetes: { mount } } }, kubernetesAuth: { mount } };
}
