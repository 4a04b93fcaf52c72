/** Access of istiod's Vault Agent to the CA: policy, Kubernetes auth role and the configuration of the auth mount. Pure. */
import type { DerivedState } from '../facts/derived.ts';
import type { Spec } from '../../api/schema.ts';
import { caFiles, fileSource } from '../facts/ca-files.ts';
import { seconds, type Desired } from '../facts/desired.ts';
import type { ObservedKubernetes, KubernetesRole, KubernetesAuthConfig } from '../facts/observed.ts';
import type { Step } from '../steps.ts';
import { markerFor, ownables, ownsAuthMount } from '../ownership/ownership.ts';

/**
 * Text of istiod's policy: capability `read` on exactly the paths that the templates read.
 * @param marker ownership marker, by default the one of a policy that this resource creates
 */
export function policyText(desired: Desired, marker = desired.mark): string {
  const paths = [...new Set(caFiles.map((file) => fileSource(desired.spec, file).path))];
  return [`# ${marker}`, ...paths.map((p) => `path "${p}" {\n  capabilities = ["read"]\n}`), ''].join('\n');
}

/**
 * Service accounts that the role is bound to: as the spec says, else those of istiod's Deployments, else the default names.
 * @param observed service accounts of istiod's Deployments
 * @param current service accounts of the existing role, which stay if the operator cannot list Deployments
 */
function serviceAccountNames(spec: Spec, observed: string[] | 'unreadable', current: string[]): string[] {
  if (spec.kubernetesAuth.serviceAccountNames !== undefined) return spec.kubernetesAuth.serviceAccountNames;
  const { revision } = spec.controlPlane;
  const defaults = [revision === undefined ? 'istiod' : `istiod-${revision}`, 'istiod-service-account'];
  if (observed === 'unreadable') return current.length > 0 ? current : defaults;
  return observed.length > 0 ? observed : defaults;
}

/** The Kubernetes auth role of istiod's Vault Agent. @param current the existing role; undefined: there is none */
export function desiredRole(
  { spec, identity }: Desired,
  k: ObservedKubernetes,
  current: KubernetesRole | undefined,
): KubernetesRole {
  const names = serviceAccountNames(spec, k.istiodServiceAccounts, current?.serviceAccountNames ?? []);
  return {
    serviceAccountNames: [...new Set(names)].sort(),
    serviceAccountNamespaces: [identity.namespace],
    policies: [spec.policy.name],
    tokenTtl: seconds(spec.kubernetesAuth.tokenTTL),
    audience: spec.kubernetesAuth.audience ?? '',
  };
}

/** Configuration of the auth mount without the token of the token reviewer. @param kubernetesCa PEM of the API server's CA */
export function desiredAuthConfig({ spec }: Desired, kubernetesCa: string): KubernetesAuthConfig {
  const { config } = spec.kubernetesAuth;
  return {
    host: config.kubernetesHost,
    caCert: kubernetesCa.trim(),
    disableLocalCaJwt: config.tokenReviewer.mode !== 'VaultLocal',
    reviewerJwtSet: config.tokenReviewer.mode === 'Secret',
  };
}

/** Whether two configurations are equal. `reviewerJwtSet` counts only if both have it. */
function sameAuthConfig(a: KubernetesAuthConfig, b: KubernetesAuthConfig): boolean {
  return (
    a.host === b.host &&
    a.caCert.trim() === b.caCert.trim() &&
    a.disableLocalCaJwt === b.disableLocalCaJwt &&
    (a.reviewerJwtSet === undefined || b.reviewerJwtSet === undefined || a.reviewerJwtSet === b.reviewerJwtSet)
  );
}

/** Steps that write the policy, enable the auth mount, and write its configuration and role. */
export function accessSteps(s: DerivedState): Step[] {
  const steps: Step[] = [];
  const { mount, role } = s.spec.kubernetesAuth;
  const text = policyText(s.desired, markerFor(s, ownables(s).policy));
  if (s.vault.policy?.trim() !== text.trim()) steps.push({ kind: 'WritePolicy', name: s.spec.policy.name, text });
  if (!s.vault.authMount) return [...steps, { kind: 'EnableAuth', mount, description: s.desired.mark }];
  if (ownsAuthMount(s) && s.kubernetes.kubernetesCa !== undefined) {
    const config = desiredAuthConfig(s.desired, s.kubernetes.kubernetesCa);
    if (!s.vault.authConfig || !sameAuthConfig(s.vault.authConfig, config))
      steps.push({ kind: 'WriteAuthConfig', mount, config });
  }
  const fields = desiredRole(s.desired, s.kubernetes, s.vault.role);
  const current = s.vault.role;
  if (!current || JSON.stringify(fields) !== JSON.stringify({ ...fields, ...current })) {
    steps.push({ kind: 'WriteRole', mount, role, fields });
  }
  return steps;
}
