/** Names and paths that the demo's parts share, as in the sample manifests. */
import { join } from 'node:path';

/** The root folder of the repository. */
export const top = join(import.meta.dirname, '..', '..');

export const namespace = 'istio-system';
export const resourceName = 'istioca';
export const controlPlaneName = 'controlplane';
export const controlPlanePath = `/apis/install.tetrate.io/v1alpha1/namespaces/${namespace}/controlplanes/${controlPlaneName}`;
export const policyFile = 'deploy/vault/operator-policy.hcl';
