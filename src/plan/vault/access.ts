/** Access of istiod's Vault Agent to the CA: policy, Kubernetes auth role and the configuration of the auth mount. Pure. */
import { isDeepStrictEqual } from 'node:util';
import type { DerivedState } from '../facts/derived.ts';
import type { Spec } from '../../api/schema.ts';
import { caFiles, fileSource } from '../facts/ca-files.ts';
import { seconds, type Desired } from '../facts/desired.ts';
import type { KubernetesAuthConfig, KubernetesRole, ObservedKubernetes, RoleFields } from '../facts/observed.ts';
import type { Problem } from '../facts/problem.ts';
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
): RoleFields {
  const names = serviceAccountNames(spec, k.istiodServiceAccounts, current?.serviceAccountNames ?? []);
  return {
    serviceAccountNames: [...new Set(names)].sort(),
    serviceAccountNamespaces: [identity.namespace],
    policies: [spec.policy.name],
    tokenTtl: seconds(spec.kubernetesAuth.tokenTTL),
    audience: spec.kubernetesAuth.audience ?? '',
  };
}

/**
 * Fields that give a role's token to more logins, or for longer, than the role is for, with the value that undoes it. Vault takes a namespace
 * selector in addition to the namespaces, so with it a service account of another namespace can read the CA's key.
 * Source: https://developer.hashicorp.com/vault/api-docs/auth/kubernetes
 */
const widening: Readonly<Record<string, string | number>> = {
  alias_name_source: 'serviceaccount_uid',
  bound_service_account_namespace_selector: '',
  token_period: 0,
  token_type: 'default',
};

/** The fields of the existing role that are to be reset. */
const resetsOf = (role: KubernetesRole | undefined): Record<string, string | number> =>
  Object.fromEntries(Object.entries(widening).filter(([name]) => role?.otherFields.includes(name)));

/** Fields of the role that somebody else set and that stay, because they can only narrow it, or because their meaning is not known. */
export const keptRoleFields = ({ vault }: DerivedState): string[] =>
  (vault.role?.otherFields ?? []).filter((name) => !(name in widening));

/**
 * The role has a field with which Vault Agent cannot work. A limited number of uses is over after a few reads: until its next login the
 * agent then renders nothing, so istiod does not get a renewed CA.
 */
export function accessRestricted(s: DerivedState): Problem | undefined {
  if (!keptRoleFields(s).includes('token_num_uses')) return undefined;
  const { mount, role } = s.spec.kubernetesAuth;
  return {
    condition: 'AccessReady',
    reason: 'AccessRestricted',
    message: `role ${role} of auth/${mount} has token_num_uses, which this resource did not set: after that many reads istiod's agent gets no renewed CA. Remove it: \`vault write auth/${mount}/role/${role} token_num_uses=0\``,
    blocks: 'nothing',
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
  const resets = resetsOf(current);
  if (
    !current ||
    !isDeepStrictEqual({ ...current, otherFields: [] }, { ...fields, otherFields: [] }) ||
    Object.keys(resets).length > 0
  )
    steps.push({ kind: 'WriteRole', mount, role, fields, resets });
  return steps;
}
