/** Access of istiod's Vault Agent to the CA: policy, Kubernetes auth role and the configuration of the auth mount. Pure. */
import type { DerivedState } from '../facts/derived.ts';
import type { Spec } from '../../api/schema.ts';
import { caFiles, fileSource } from '../facts/ca-files.ts';
import { seconds, type Desired } from '../facts/desired.ts';
import type { ObservedKubernetes, KubernetesRole, KubernetesAuthConfig } from '../facts/observed.ts';
import type { Step } from '../steps.ts';
import { markerFor, ownables, ownsAuthMount } from '../ownership/ownership.ts';

/** The policy of istiod's agent: read on exactly the paths of the templates. */
export function policyText(desired: Desired, marker = desired.mark): string {
  const paths = [...new Set(caFiles.map((file) => fileSource(desired.spec, file).path))];
  return [`# ${marker}`, ...paths.map((p) => `path "${p}" {\n  capabilities = ["read"]\n}`), ''].join('\n');
}

/** Service accounts the role is bound to; `current` keeps a role from being narrowed when istiod cannot be read. */
function serviceAccountNames(spec: Spec, found: string[] | 'unreadable', current: string[]): string[] {
  if (spec.kubernetesAuth.serviceAccountNames !== undefined) return spec.kubernetesAuth.serviceAccountNames;
  const { revision } = spec.controlPlane;
  const guess = [revision === undefined ? 'istiod' : `istiod-${revision}`, 'istiod-service-account'];
  if (found === 'unreadable') return current.length > 0 ? current : guess;
  return found.length > 0 ? found : guess;
}

/** The Kubernetes auth role of istiod's agent. */
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

/** The configuration of the auth mount, but for the reviewer's token. */
export function desiredAuthConfig({ spec }: Desired, kubernetesCa: string): KubernetesAuthConfig {
  const { config } = spec.kubernetesAuth;
  return {
    host: config.kubernetesHost,
    caCert: kubernetesCa.trim(),
    disableLocalCaJwt: config.tokenReviewer.mode !== 'VaultLocal',
    reviewerJwtSet: config.tokenReviewer.mode === 'Secret',
  };
}
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
