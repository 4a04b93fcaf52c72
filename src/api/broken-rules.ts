/**
 * The CEL rules of the CRD for a manifest that no API server has seen: a command must not promise what the API server would refuse.
 * The messages are those of the rules; a test holds the two lists together.
 */
import { parseGoDuration } from './duration.ts';
import { immutableFields, immutableMessage } from './rules.ts';
import type { Spec } from './schema.ts';

interface BrokenRule {
  /** From `spec` on. */
  path: string;
  message: string;
}

interface Rule extends BrokenRule {
  breaks: (spec: Spec) => boolean;
}

const bitsOf = { rsa: [2048, 3072, 4096], ec: [256, 384] };
const wrongBits = ({ type, bits }: Spec['root']['key']) => bits !== undefined && !bitsOf[type].includes(bits);
const bitsMessage = 'key.bits must be 2048, 3072 or 4096 for rsa and 256 or 384 for ec';

const given = (value: unknown): boolean => value !== undefined;

function sharedMount({ root, intermediate, keyStore }: Spec): boolean {
  const mounts = [root.mount, intermediate.mount, keyStore.mount].map((mount) => `${mount}/`);
  return mounts.some((a, i) => mounts.some((b, j) => i !== j && b.startsWith(a)));
}

/** All but those that compare with the spec before. */
export const rules: readonly Rule[] = [
  {
    path: 'spec.vault.tls',
    message: 'vault.tls: give caConfigMapRef or caSecretRef, not both',
    breaks: ({ vault: { tls } }) => given(tls?.caConfigMapRef) && given(tls?.caSecretRef),
  },
  {
    path: 'spec.vault.auth',
    message: 'vault.auth: give exactly the sub-object of method (kubernetes, appRole, token or jwt)',
    breaks: ({ vault: { auth } }) =>
      (auth.method === 'Kubernetes') !== given(auth.kubernetes) ||
      (auth.method === 'AppRole') !== given(auth.appRole) ||
      (auth.method === 'Token') !== given(auth.token) ||
      (auth.method === 'JWT') !== given(auth.jwt),
  },
  { path: 'spec.root.key.bits', message: bitsMessage, breaks: ({ root }) => wrongBits(root.key) },
  { path: 'spec.intermediate.key.bits', message: bitsMessage, breaks: (spec) => wrongBits(spec.intermediate.key) },
  {
    path: 'spec.root.existing',
    message: 'root.existing needs root.source: Existing',
    breaks: ({ root }) => root.source !== 'Existing' && given(root.existing),
  },
  {
    path: 'spec.root.external',
    message: 'root.external needs root.source: External',
    breaks: ({ root }) => root.source !== 'External' && given(root.external),
  },
  {
    path: 'spec.intermediate.importRef',
    message: 'intermediate.importRef goes with intermediate.source: Import, and only with it',
    breaks: ({ intermediate: { source, importRef } }) => (source === 'Import') !== given(importRef),
  },
  {
    path: 'spec.keyStore.path',
    message: 'keyStore.path may not end in -staging or -state: these entries stand beside it',
    breaks: ({ keyStore }) => /-(staging|state)$/.test(keyStore.path),
  },
  {
    path: 'spec.delivery.directory',
    message: 'delivery.directory may not be /etc/cacerts: the istiod chart mounts a Secret there',
    breaks: ({ delivery }) => delivery.directory === '/etc/cacerts',
  },
  {
    path: 'spec.delivery.annotations',
    message: 'delivery.annotations: every key must be an annotation of vault.hashicorp.com/',
    breaks: ({ delivery }) =>
      Object.keys(delivery.annotations).some(
        (key) => !/^vault[.]hashicorp[.]com\/[a-zA-Z0-9]([a-zA-Z0-9._-]*[a-zA-Z0-9])?$/.test(key),
      ),
  },
  {
    path: 'spec.delivery.annotations',
    message: 'delivery.annotations: values are one line without ": " (the overlay library would read them as YAML)',
    breaks: ({ delivery }) => Object.values(delivery.annotations).some((value) => /\n|: /.test(value)),
  },
  {
    path: 'spec.delivery.refreshInterval',
    message: 'delivery.refreshInterval must be at least 1s',
    breaks: ({ delivery }) => parseGoDuration(delivery.refreshInterval) < 1000,
  },
  {
    path: 'spec.policy.name',
    message: 'policy.name may not be root or default: these are Vault’s own',
    breaks: ({ policy }) => ['root', 'default'].includes(policy.name),
  },
  {
    path: 'spec.kubernetesAuth.config.tokenReviewer.secretRef',
    message: 'tokenReviewer.secretRef goes with mode: Secret, and only with it',
    breaks: ({ kubernetesAuth: { config } }) =>
      (config.tokenReviewer.mode === 'Secret') !== given(config.tokenReviewer.secretRef),
  },
  {
    path: 'spec.kubernetesAuth.config.tokenReviewer.mode',
    message: 'tokenReviewer.mode ClientToken cannot be used with audience: such a token cannot call TokenReview',
    breaks: ({ kubernetesAuth: { audience, config } }) =>
      given(audience) && config.tokenReviewer.mode === 'ClientToken',
  },
  {
    path: 'spec.intermediate.ttl',
    message:
      'IntermediateOutlivesRoot: intermediate.ttl is longer than root.ttl; shorten the one or lengthen the other',
    breaks: ({ root, intermediate }) =>
      root.source === 'Generate' && parseGoDuration(intermediate.ttl) > parseGoDuration(root.ttl),
  },
  {
    path: 'spec.intermediate.ttl',
    message:
      'intermediate.ttl must be more than twice intermediate.maxWorkloadCertTTL, else it cannot be renewed in time',
    breaks: ({ intermediate: { ttl, maxWorkloadCertTTL: most } }) =>
      most !== undefined && parseGoDuration(ttl) <= 2 * parseGoDuration(most),
  },
  {
    path: 'spec.intermediate.renewBefore',
    message:
      'intermediate.renewBefore must be shorter than intermediate.ttl, else every intermediate would be due at once',
    breaks: ({ intermediate: { ttl, renewBefore } }) =>
      renewBefore !== undefined && parseGoDuration(renewBefore) >= parseGoDuration(ttl),
  },
  {
    path: 'spec',
    message: 'root.mount, intermediate.mount and keyStore.mount must be three different mounts, none below another',
    breaks: sharedMount,
  },
  {
    path: 'spec.keyStore.manage',
    message: 'keyStore.manage: false goes only with intermediate.manage: false',
    breaks: ({ keyStore, intermediate }) => !keyStore.manage && intermediate.manage,
  },
];

/** The rules that a spec breaks. */
export function brokenRules(spec: Spec): BrokenRule[] {
  return rules.filter((rule) => rule.breaks(spec)).map(({ path, message }) => ({ path, message }));
}

const valueAt = (spec: Spec, path: string): unknown =>
  path.split('.').reduce<unknown>((at, key) => (at as Record<string, unknown> | undefined)?.[key], spec);

/** What of a spec that stands would be changed although it cannot be. */
export function immutableChanges(before: Spec, after: Spec): BrokenRule[] {
  return immutableFields
    .filter((field) => valueAt(before, field) !== valueAt(after, field))
    .map((field) => ({ path: `spec.${field}`, message: immutableMessage(field) }));
}
