/** The fields that the control plane must set on istiod: environment variables and Pod annotations. Pure. */
import { digestAnnotation } from '../../api/annotations.ts';
import type { Spec } from '../../api/schema.ts';
import { caFiles, fileSource } from '../facts/ca-files.ts';
import type { Desired } from '../facts/desired.ts';

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
