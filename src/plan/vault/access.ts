/** Access of istiod's Vault Agent to the CA: policy, Kubernetes auth role and the configuration of the auth mount. Pure. */
import { isDeepStrictEqual } from 'node:util';
import type { DerivedState } from '../facts/derived.ts';
import type { Spec } from '../../api/schema.ts';
import { caFiles, fileSource } from '../facts/ca-files.ts';
import { seconds, type Desired } from '../facts/desired.ts';
import type { KubernetesAuthConfig, KubernetesRole, ObservedKubernetes, RoleFields } from '../facts/observed.ts';
import { kindOfControlPlane } from '../control-plane/kinds.ts';
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

/** Names that istiod's service account has in usual installations. The Sail operator names a revision after its Istio, but not `default`. */
function defaultAccountNames(spec: Spec): string[] {
  const { revision, name } = spec.controlPlane;
  const named = kindOfControlPlane(spec).namesRevisions !== undefined && name !== 'default' ? [`istiod-${name}`] : [];
  return [...(revision === undefined ? ['istiod', ...named] : [`istiod-${revision}`]), 'istiod-service-account'];
}

/** Whether the names of istiod's service accounts are only assumed: the spec has none, and no Deployment of istiod was seen. */
export function namesAreAssumed({ spec, kubernetes }: DerivedState): boolean {
  const accounts = kubernetes.istiodServiceAccounts;
  return spec.kubernetesAuth.serviceAccountNames === undefined && (accounts === 'unreadable' || accounts.length === 0);
}

/** Service accounts that a role which somebody else manages may be bound to: those of istiod, and the usual names unless the spec has others. */
export function permittedAccountNames({ spec, kubernetes }: DerivedState): string[] {
  if (spec.kubernetesAuth.serviceAccountNames !== undefined) return spec.kubernetesAuth.serviceAccountNames;
  const accounts = kubernetes.istiodServiceAccounts;
  return [...(accounts === 'unreadable' ? [] : accounts), ...defaultAccountNames(spec)];
}

/**
 * Service accounts that the role is bound to: as the spec says, else those of istiod's Deployments, else the default names.
 * @param observed service accounts of istiod's Deployments
 * @param current service accounts of the existing role, which stay if the operator cannot list Deployments
 */
function serviceAccountNames(spec: Spec, observed: string[] | 'unreadable', current: string[]): string[] {
  if (spec.kubernetesAuth.serviceAccountNames !== undefined) return spec.kubernetesAuth.serviceAccountNames;
  const defaults = defaultAccountNames(spec);
  if (observed === 'unreadable') return current.length > 0 ? current : defaults;
  return observed.length > 0 ? observed : defaults;
}

/**
 * The Kubernetes auth role of istiod's Vault Agent. A shorter `token_max_ttl`, which somebody else set, limits its `token_ttl`: the server refuses
 * a longer one, and the agent logs in again when its token ends.
 * @param current the existing role; undefined: there is none
 */
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
    tokenTtl: Math.min(seconds(spec.kubernetesAuth.tokenTTL), current?.tokenMaxTtl ?? Infinity),
    audience: spec.kubernetesAuth.audience ?? '',
  };
}

/** The field of a role that binds it to the namespaces with certain labels, in addition to those that it names. */
export const namespaceSelector = 'bound_service_account_namespace_selector';

/**
 * Fields that give a role's token to more logins, or for longer, than the role is for, with the value that undoes it. Vault takes a namespace
 * selector in addition to the namespaces, so with it a service account of another namespace can read the CA's key.
 * Source: https://developer.hashicorp.com/vault/api-docs/auth/kubernetes
 */
const widening: Readonly<Record<string, string | number>> = {
  alias_name_source: 'serviceaccount_uid',
  [namespaceSelector]: '',
  token_period: 0,
  token_type: 'default',
};

/** Whether a field, by its name in the API, gives a role's token to more logins, or for longer, if it has another value than its default. */
export const isWidening = (field: string): boolean => Object.hasOwn(widening, field);

/** The fields of the existing role that are to be reset. */
const resetsOf = (role: KubernetesRole | undefined): Record<string, string | number> =>
  Object.fromEntries(Object.entries(widening).filter(([name]) => role?.otherFields.includes(name)));

/** Fields of the role that somebody else set and that stay, because they can only narrow it, or because their meaning is not known. */
export const keptRoleFields = ({ vault }: DerivedState): string[] =>
  (vault.role?.otherFields ?? []).filter((name) => !isWidening(name));

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

/** The auth mount does not exist, and is not made: with `keyStore.manage: false` nothing would record that this resource made it. */
export function authMountAbsent(s: DerivedState): Problem | undefined {
  const { kubernetesAuth, keyStore } = s.spec;
  if (keyStore.manage || !kubernetesAuth.manage || s.vault.authMount) return undefined;
  return {
    condition: 'AccessReady',
    reason: 'AccessDiffers',
    message: `spec.kubernetesAuth.mount: auth/${kubernetesAuth.mount} does not exist. With spec.keyStore.manage: false the operator makes no mount: have an administrator of Vault enable and configure it (deploy/vault/README.md)`,
    blocks: 'controlPlane',
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
    otherFields: [],
  };
}

/** Whether two configurations are equal. `reviewerJwtSet` counts only if both have it. */
function sameAuthConfig(a: KubernetesAuthConfig, b: KubernetesAuthConfig): boolean {
  return (
    a.host === b.host &&
    a.caCert.trim() === b.caCert.trim() &&
    a.disableLocalCaJwt === b.disableLocalCaJwt &&
    (a.reviewerJwtSet === undefined || b.reviewerJwtSet === undefined || a.reviewerJwtSet === b.reviewerJwtSet) &&
    isDeepStrictEqual(a.otherFields, b.otherFields)
  );
}

/** Whether the token of the token reviewer in its Secret is another one than the one that was written. */
function reviewerChanged({ kubernetes: { reviewerHash }, vault, stateEntry }: DerivedState): boolean {
  return reviewerHash !== undefined && reviewerHash !== (vault.reviewerWritten ?? stateEntry?.reviewer);
}

/**
 * The configuration of the auth mount lets no login of istiod's Vault Agent succeed. Reported only of a mount that this resource does not own:
 * it restores the configuration of its own.
 */
export function authConfigUnfit(s: DerivedState): Problem | undefined {
  const { authConfig } = s.vault;
  if (!authConfig || ownsAuthMount(s)) return undefined;
  const { manage, mount, audience } = s.spec.kubernetesAuth;
  const config = `auth/${mount}/config`;
  const why = manage
    ? 'The operator does not write the configuration of an auth mount that it did not make'
    : 'With spec.kubernetesAuth.manage: false the operator does not write the configuration of the auth mount';
  const { tokenIssuer } = s.kubernetes;
  const problem = (message: string): Problem => ({
    condition: 'AccessReady',
    reason: 'AuthConfigUnfit',
    message: `${message} ${why}`,
    // fields that are there stay: istiod goes on with the files that it has
    blocks: 'controlPlane',
  });
  if (authConfig.issuer !== undefined && tokenIssuer !== undefined && authConfig.issuer !== tokenIssuer)
    return problem(
      `${config} accepts only tokens of issuer ${JSON.stringify(authConfig.issuer)}, and those of this cluster are of ${JSON.stringify(tokenIssuer)}, so istiod's agent cannot log in. Have an administrator of Vault set disable_iss_validation=true, or issuer.`,
    );
  const reviewsItself = authConfig.disableLocalCaJwt && authConfig.reviewerJwtSet === false;
  if (reviewsItself && audience !== undefined)
    return problem(
      `${config} has no token_reviewer_jwt and uses the token of the login itself, which spec.kubernetesAuth.audience ${audience} makes one that the API server does not accept, so istiod's agent cannot log in. Clear the audience, or have an administrator of Vault set token_reviewer_jwt.`,
    );
  return undefined;
}

/** The step that writes the configuration of the auth mount, if this resource owns the mount and may write; undefined: it does not. */
function configStep(s: DerivedState): Step | undefined {
  if (!s.vault.authMount || !ownsAuthMount(s) || s.kubernetes.kubernetesCa === undefined) return undefined;
  const config = desiredAuthConfig(s.desired, s.kubernetes.kubernetesCa);
  return {
    kind: 'WriteAuthConfig',
    mount: s.spec.kubernetesAuth.mount,
    config,
    reviewer: s.kubernetes.reviewerHash,
  };
}

/** Whether the configuration of the auth mount differs from a step's in more than the token of the token reviewer. */
const configDiffers = ({ vault }: DerivedState, step: Step): boolean =>
  step.kind === 'WriteAuthConfig' && !(vault.authConfig && sameAuthConfig(vault.authConfig, step.config));

/**
 * The step that writes nothing but a changed token of the token reviewer, in an iteration of its own. Vault does not show the token, so the
 * next step records its hash. If another step of the same iteration failed, the loop would end before, and each retry would write it again.
 */
export function reviewerSteps(s: DerivedState): Step[] {
  const step = reviewerChanged(s) ? configStep(s) : undefined;
  return step && !configDiffers(s, step) ? [step] : [];
}

/** Whether a role has exactly these fields, whatever else somebody set of it. */
function hasFields(role: KubernetesRole, fields: RoleFields): boolean {
  const others = role.tokenMaxTtl === undefined ? {} : { tokenMaxTtl: role.tokenMaxTtl };
  return isDeepStrictEqual({ ...role, otherFields: [] }, { ...fields, ...others, otherFields: [] });
}

/** Steps that write the policy, enable the auth mount, and write its configuration and role. */
export function accessSteps(s: DerivedState): Step[] {
  const steps: Step[] = [];
  const { manage, mount, role } = s.spec.kubernetesAuth;
  const text = policyText(s.desired, markerFor(s, ownables(s).policy));
  if (s.spec.policy.manage && s.vault.policy?.trim() !== text.trim())
    steps.push({ kind: 'WritePolicy', name: s.spec.policy.name, text });
  // without a state entry the marker of the policy shows whose the role is
  if (!manage || (!s.spec.keyStore.manage && steps.length > 0)) return steps;
  if (!s.vault.authMount && !s.spec.keyStore.manage) return steps;
  if (!s.vault.authMount) return [...steps, { kind: 'EnableAuth', mount, description: s.desired.mark }];
  const config = configStep(s);
  if (config && configDiffers(s, config)) steps.push(config);
  const fields = desiredRole(s.desired, s.kubernetes, s.vault.role);
  const current = s.vault.role;
  const resets = resetsOf(current);
  if (!current || !hasFields(current, fields) || Object.keys(resets).length > 0)
    steps.push({ kind: 'WriteRole', mount, role, fields, resets });
  return steps;
}
