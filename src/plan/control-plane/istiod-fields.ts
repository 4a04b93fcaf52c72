/** The istiod fields of the control plane: environment variables and Pod annotations that istiod's Pod template must carry. Pure. */
import { digestAnnotation } from '../../api/annotations.ts';
import { clientCertificateKeys } from '../../api/client-certificate.ts';
import type { Spec } from '../../api/schema.ts';
import { deliveredFiles, fileSource } from '../facts/ca-files.ts';
import type { Desired } from '../facts/desired.ts';
import { controlPlaneKinds } from './kinds.ts';

/** Returns the kind and name of the control plane object, for messages. */
export const objectName = ({ spec: { controlPlane } }: Desired): string =>
  `${controlPlaneKinds[controlPlane.kind].objectKind} ${controlPlane.name}`;

/** Returns the name of the ConfigMap that shows the fields to commit with `write: Render`. */
export const renderName = ({ identity }: Desired): string => `${identity.name}-render`;

/** The fields of istiod's Pod template, independent of the kind of control plane. */
export interface IstiodFields {
  /** Environment variables of container `discovery`. */
  env: Record<string, string>;
  podAnnotations: Record<string, string>;
  /** For sidecar proxies: `spec.controlPlane.holdApplicationUntilProxyStarts`. */
  holdApplicationUntilProxyStarts: boolean;
}

const vaultAnnotation = (name: string) => `vault.hashicorp.com/${name}`;

/** The directory of the agent at which the injector mounts the Secret of annotation `tls-secret`. */
const tlsDirectory = '/vault/tls';

/** Settings for Vault's CA and the client certificate. The agent mounts one Secret only: `agentCaMissing` refuses a second one. */
function tlsSettings({ vault: { tls } }: Spec): Record<string, string> {
  const { caSecretRef, clientCertSecretRef } = tls ?? {};
  const { ca, cert, key } = clientCertificateKeys;
  const secret = clientCertSecretRef ?? caSecretRef;
  if (secret === undefined) return {};
  return {
    'tls-secret': secret.name,
    'ca-cert': `${tlsDirectory}/${caSecretRef?.key ?? ca}`,
    ...(clientCertSecretRef && { 'client-cert': `${tlsDirectory}/${cert}`, 'client-key': `${tlsDirectory}/${key}` }),
  };
}

/**
 * Returns the Pod annotations that configure Vault Agent Injector.
 * Source: https://developer.hashicorp.com/vault/docs/platform/k8s/injector/annotations
 */
function agentAnnotations(spec: Spec): Record<string, string> {
  const { vault, delivery, kubernetesAuth } = spec;
  const settings: Record<string, string> = {
    'agent-inject': 'true',
    role: kubernetesAuth.role,
    'auth-path': `auth/${kubernetesAuth.mount}`,
    service: (vault.injectorAddress ?? vault.address).replace(/\/$/, ''),
    'secret-volume-path': delivery.directory,
    'template-static-secret-render-interval': delivery.refreshInterval,
  };
  if (vault.namespace !== undefined) settings['namespace'] = vault.namespace;
  if (vault.tls?.serverName !== undefined) settings['tls-server-name'] = vault.tls.serverName;
  Object.assign(settings, tlsSettings(spec));
  if (kubernetesAuth.audience !== undefined) settings['agent-service-account-token-volume-name'] = 'istio-token';
  for (const file of deliveredFiles(spec)) {
    const { path, template } = fileSource(spec, file);
    settings[`agent-inject-secret-${file}`] = path;
    settings[`agent-inject-template-${file}`] = template;
  }
  return Object.fromEntries(Object.entries(settings).map(([name, value]) => [vaultAnnotation(name), value]));
}

/**
 * Returns whether istiod's Pod template carries the digest of the CA, so that a change of the CA restarts istiod. With `write: Render` it
 * does not, because the user would have to commit the digest at each renewal.
 */
export const hasDigest = ({ rollout, controlPlane }: Spec): boolean =>
  rollout === 'WhenChanged' && controlPlane.write === 'Patch';

/**
 * Returns the fields for istiod.
 * @param digest of the current CA, ignored if the spec sets no digest (`hasDigest`); `undefined`: without digest
 */
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
