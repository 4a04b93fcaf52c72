/** What the spec asks for, in the terms of Vault and of istiod's pod: pure. */
import { createHash } from 'node:crypto';
import { parseGoDuration } from '../api/duration.ts';
import { digestAnnotation } from '../api/annotations.ts';
import type { Spec } from '../api/schema.ts';
import { markOf, type Identity } from './identity.ts';
import type { KubernetesAuthConfig, KubernetesRole, ObservedKubernetes } from './observed.ts';

const seconds = (goDuration: string): number => Math.floor(parseGoDuration(goDuration) / 1000);

/** What a root is issued for; a change of any of these waits for `rotate-root`. TTL in seconds. */
export interface RootSpec {
  commonName: string;
  organization: string;
  ttl: number;
  keyType: 'rsa' | 'ec';
  keyBits: number;
}

/** What an intermediate is issued for; a change of any of these asks for a new generation. TTL in seconds. */
export interface IntermediateSpec extends RootSpec {
  source: 'Issue' | 'Import';
  importRef: string;
  maxPathLength: number;
}

export interface Desired {
  identity: Identity;
  mark: string;
  spec: Spec;
  /** Annotations of the resource. */
  annotations: Record<string, string>;
  root: RootSpec;
  intermediate: IntermediateSpec;
}

export function desire(identity: Identity, spec: Spec, annotations: Record<string, string>): Desired {
  const { root, intermediate } = spec;
  return {
    identity,
    mark: markOf(identity),
    spec,
    annotations,
    root: {
      commonName: root.commonName,
      organization: root.organization,
      ttl: seconds(root.ttl),
      keyType: root.key.type,
      keyBits: root.key.bits ?? (root.key.type === 'ec' ? 256 : 4096),
    },
    intermediate: {
      source: intermediate.source,
      importRef: intermediate.importRef?.secretRef.name ?? '',
      commonName: intermediate.commonName,
      organization: intermediate.organization,
      ttl: seconds(intermediate.ttl),
      maxPathLength: intermediate.maxPathLength,
      keyType: intermediate.key.type,
      keyBits: intermediate.key.bits ?? (intermediate.key.type === 'ec' ? 256 : 2048),
    },
  };
}

/** Texts of action annotations are compared and recorded up to this length; longer ones by their hash. */
const longestText = 256;

/** The text of an action annotation as the state records it once it is handled; undefined when it is not set. */
export function handledText(d: Desired, annotation: string): string | undefined {
  const text = d.annotations[annotation];
  if (text === undefined || text.length <= longestText) return text;
  return `sha256:${createHash('sha256').update(text).digest('hex')}`;
}

/** The text of an action annotation that is not handled yet. @param handled as the state has it; undefined: there is no state */
export function unanswered(
  d: Desired,
  handled: Record<string, string> | undefined,
  annotation: string,
): string | undefined {
  const text = handledText(d, annotation);
  return text === handled?.[annotation] ? undefined : text;
}

/** Whether a renewal makes a new key: with `PKI` delivery key and certificate change in two writes, so the key stays by default. */
export function newKeyAtRenewal(spec: Spec): boolean {
  const byDelivery = spec.delivery.source === 'Bundle' ? 'Always' : 'Never';
  return (spec.intermediate.key.rotationPolicy ?? byDelivery) === 'Always';
}

/** The longest workload certificate, in milliseconds: spec, else what istiod allows. */
export function maxWorkloadCertTtlMs(spec: Spec, fromIstiod: number | 'unknown'): number | 'unknown' {
  const asked = spec.intermediate.maxWorkloadCertTTL;
  return asked === undefined ? fromIstiod : parseGoDuration(asked);
}

/**
 * How long before its end an intermediate is renewed, in milliseconds; never less than the longest workload certificate. While it is not
 * known what istiod allows, that does not count: an istiod that is not there signs nothing, and to guess Istio's default would have many an
 * intermediate renewed at once because istiod is gone for a moment. Nor does more than half of the life that is asked for: else what is
 * issued would be due at once, again and again.
 */
export function renewBeforeMs(spec: Spec, lifeMs: number, fromIstiod: number | 'unknown'): number {
  const { renewBefore, ttl } = spec.intermediate;
  const longest = maxWorkloadCertTtlMs(spec, fromIstiod);
  const atLeast = longest === 'unknown' ? 0 : Math.min(longest, parseGoDuration(ttl) / 2);
  return Math.max(renewBefore === undefined ? lifeMs / 3 : parseGoDuration(renewBefore), atLeast);
}

/** Paths of the key store as the API has them: KV 2 puts `data/` between mount and path. */
export function kvDataPath(spec: Spec, suffix: '' | '-staging' | '-state' = ''): string {
  const { mount, path, version } = spec.keyStore;
  return version === 2 ? `${mount}/data/${path}${suffix}` : `${mount}/${path}${suffix}`;
}

/** The four files of istiod's plugged-in CA. https://istio.io/latest/docs/tasks/security/cert-management/plugin-ca-cert/ */
export const caFiles = ['ca-cert.pem', 'ca-key.pem', 'cert-chain.pem', 'root-cert.pem'] as const;
export type CaFile = (typeof caFiles)[number];

/** Where the agent reads a file, and the template that renders it with a newline at its end. */
export function fileSource(spec: Spec, file: CaFile): { path: string; template: string } {
  const fromPki: Partial<Record<CaFile, string>> = {
    'ca-cert.pem': `${spec.intermediate.mount}/cert/ca`,
    'cert-chain.pem': `${spec.intermediate.mount}/cert/ca_chain`,
    'root-cert.pem': `${spec.root.mount}/cert/ca`,
  };
  const pkiPath = spec.delivery.source === 'PKI' ? fromPki[file] : undefined;
  if (pkiPath !== undefined) {
    return { path: pkiPath, template: `{{- with secret "${pkiPath}" -}}{{ .Data.certificate }}{{ "\\n" }}{{- end -}}` };
  }
  const path = kvDataPath(spec);
  const data = spec.keyStore.version === 2 ? '.Data.data' : '.Data';
  return { path, template: `{{- with secret "${path}" -}}{{ index ${data} "${file}" }}{{- end -}}` };
}

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

/** Kubernetes' kind of each kind of control plane. */
export const objectKinds = {
  TetrateControlPlane: 'ControlPlane',
  IstioOperator: 'IstioOperator',
  Sail: 'Istio',
  HelmValues: 'ConfigMap',
} as const satisfies Record<Spec['controlPlane']['kind'], string>;

/** The control plane's object, as kubectl would name it. */
export const objectName = ({ spec: { controlPlane } }: Desired): string =>
  `${objectKinds[controlPlane.kind]} ${controlPlane.name}`;

/** The ConfigMap that shows what to commit, with `write: Render`. */
export const renderName = ({ identity }: Desired): string => `${identity.name}-render`;

/** What istiod's pod template must carry, whatever kind of control plane writes it. */
export interface IstiodFields {
  env: Record<string, string>;
  podAnnotations: Record<string, string>;
  holdApplicationUntilProxyStarts: boolean;
}

const vaultAnnotation = (name: string) => `vault.hashicorp.com/${name}`;

/** The injector's annotations, in the terms of https://developer.hashicorp.com/vault/docs/platform/k8s/injector/annotations */
function agentAnnotations(spec: Spec): Record<string, string> {
  const { vault, delivery, kubernetesAuth } = spec;
  const out: Record<string, string> = {
    'agent-inject': 'true',
    role: kubernetesAuth.role,
    'auth-path': `auth/${kubernetesAuth.mount}`,
    service: (vault.injectorAddress ?? vault.address).replace(/\/$/, ''),
    'secret-volume-path': delivery.directory,
    'template-static-secret-render-interval': delivery.refreshInterval,
  };
  if (vault.namespace !== undefined) out['namespace'] = vault.namespace;
  if (vault.tls?.serverName !== undefined) out['tls-server-name'] = vault.tls.serverName;
  if (vault.tls?.caSecretRef !== undefined) {
    out['tls-secret'] = vault.tls.caSecretRef.name;
    out['ca-cert'] = `/vault/tls/${vault.tls.caSecretRef.key}`;
  }
  if (kubernetesAuth.audience !== undefined) out['agent-service-account-token-volume-name'] = 'istio-token';
  for (const file of caFiles) {
    const { path, template } = fileSource(spec, file);
    out[`agent-inject-secret-${file}`] = path;
    out[`agent-inject-template-${file}`] = template;
  }
  return Object.fromEntries(Object.entries(out).map(([name, value]) => [vaultAnnotation(name), value]));
}

/** Annotations of ours that `delivery.annotations` may not override, and others that would undo what they promise. */
export function refusedDeliveryAnnotations(spec: Spec): string[] {
  const ours = agentAnnotations(spec);
  const dangerous = /^(agent-image|agent-configmap|agent-json-patch|agent-init-json-patch|agent-inject-command-.*)$/;
  return Object.keys(spec.delivery.annotations).filter(
    (key) => key in ours || dangerous.test(key.slice(vaultAnnotation('').length)),
  );
}

/** Whether a digest of the CA on istiod's pods rolls them when it changes: one that must be committed would make a commit of each renewal. */
export const hasDigest = ({ rollout, controlPlane }: Spec): boolean =>
  rollout === 'WhenChanged' && controlPlane.write === 'Patch';

/** @param digest of the live CA; undefined leaves the digest out, as where the spec has none */
export function istiodFields(spec: Spec, digest: string | undefined): IstiodFields {
  return {
    env: { ROOT_CA_DIR: spec.delivery.directory },
    podAnnotations: {
      ...spec.delivery.annotations,
      ...agentAnnotations(spec),
      ...(digest !== undefined && hasDigest(spec) ? { [digestAnnotation]: digest } : {}),
    },
    holdApplicationUntilProxyStarts: spec.controlPlane.holdApplicationUntilProxyStarts,
  };
}
