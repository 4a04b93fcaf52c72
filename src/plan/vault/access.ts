/** Access of istiod's Vault Agent to the CA: policy, Kubernetes auth role and the configuration of the auth mount. Pure. */
import type { Spec } from '../../api/schema.ts';
import { caFiles, fileSource } from '../facts/ca-files.ts';
import { seconds, type Desired } from '../facts/desired.ts';
import type { ObservedKubernetes, KubernetesRole, KubernetesAuthConfig, Observed } from '../facts/observed.ts';
import type { Step } from '../steps.ts';
import { markerFor, ownables, ownsAuthMount } from '../ownership/ownership.ts';

/** The policy of istiod's agent: read on exactly the paths of the templates. */
export function policyText(d: Desired, mark = d.mark): string {
  const paths = [...new Set(caFiles.map((file) => fileSource(d.spec, file).path))];
  return [`# ${mark}`, ...paths.map((p) => `path "${p}" {\n  capabilities = ["read"]\n}`), ''].join('\n');
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
export function desiredRole(d: Desired, k: ObservedKubernetes, current: KubernetesRole | undefined): KubernetesRole {
  const names = serviceAccountNames(d.spec, k.istiodServiceAccounts, current?.serviceAccountNames ?? []);
  return {
    serviceAccountNames: [...new Set(names)].sort(),
    serviceAccountNamespaces: [d.identity.namespace],
    policies: [d.spec.policy.name],
    tokenTtl: seconds(d.spec.kubernetesAuth.tokenTTL),
    audience: d.spec.kubernetesAuth.audience ?? '',
  };
}

/** The configuration of the auth mount, but for the reviewer's token. */
export function desiredAuthConfig(d: Desired, kubernetesCa: string): KubernetesAuthConfig {
  const { config } = d.spec.kubernetesAuth;
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
export function accessSteps(d: Desired, o: Observed): Step[] {
  const steps: Step[] = [];
  const { mount, role } = d.spec.kubernetesAuth;
  const text = policyText(d, markerFor(d, o, ownables(d, o.vault).policy));
  if (o.vault.policy?.trim() !== text.trim()) steps.push({ kind: 'WritePolicy', name: d.spec.policy.name, text });
  if (!o.vault.authMount) return [...steps, { kind: 'EnableAuth', mount, description: d.mark }];
  if (ownsAuthMount(d, o.vault) && o.kubernetes.kubernetesCa !== undefined) {
    const config = desiredAuthConfig(d, o.kubernetes.kubernetesCa);
    if (!o.vault.authConfig || !sameAuthConfig(o.vault.authConfig, config))
      steps.push({ kind: 'WriteAuthConfig', mount, config });
  }
  const fields = desiredRole(d, o.kubernetes, o.vault.role);
  const current = o.vault.role;
  if (!current || JSON.stringify(fields) !== JSON.stringify({ ...fields, ...current })) {
    steps.push({ kind: 'WriteRole', mount, role, fields });
  }
  return steps;
}
