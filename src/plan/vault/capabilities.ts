/**
 * Capabilities that the operator's token needs in Vault for a spec. The operator checks them before the first write, and the policy in
 * `deploy/` is generated from them.
 */
import type { Spec } from '../../api/schema.ts';
import { kvDataPath } from '../facts/ca-files.ts';
import { rootSourceOf } from '../facts/desired.ts';

/** Work that needs further capabilities, beyond those that every spec needs. */
export interface ToMake {
  /** The auth mount does not exist. */
  authMount: boolean;
  /** This resource writes the configuration of the auth mount. */
  authConfig: boolean;
  /** The audit device does not exist. */
  auditDevice: boolean;
  /** Cleanup removes the root mount too. */
  rootGoes?: boolean;
  /** With `root.source: Existing`: id of the issuer that signs, or `+` for any. Absent: none exists, or this resource issues its root. */
  signerId?: string | undefined;
}

/**
 * The PKI mounts that this resource has for itself: the root mount only if it issues its root, that of the intermediate unless others manage it, none
 * for a CA that is imported.
 */
const ownPkiMounts = (spec: Spec): string[] =>
  spec.intermediate.source === 'Import'
    ? []
    : [
        ...(rootSourceOf(spec) === 'Generate' ? [spec.root.mount] : []),
        ...(spec.intermediate.manage ? [spec.intermediate.mount] : []),
      ];

/**
 * The path where an intermediate is signed. Whoever owns the issuer can permit that one only.
 * @param signerId undefined: any issuer of the mount
 */
const signPath = ({ root }: Spec, signerId: string | undefined): string =>
  `${root.mount}/issuer/${signerId ?? '+'}/sign-intermediate`;

/** Whether an issuer in Vault signs, and which one is known: the path of an issuer of others that does not exist is none that can be permitted. */
const signs = (spec: Spec, { signerId }: ToMake): boolean =>
  rootSourceOf(spec) === 'Generate' || (rootSourceOf(spec) === 'Existing' && signerId !== undefined);

/** Capabilities by API path: only those that the operator's requests need. */
export function requiredCapabilities(spec: Spec, make: ToMake): Map<string, string[]> {
  const { keyStore, intermediate, policy, kubernetesAuth, delivery } = spec;
  const needed = new Map<string, string[]>();
  const add = (path: string, ...capabilities: string[]) => void needed.set(path, capabilities);
  const pkiMounts = ownPkiMounts(spec);
  if (!keyStore.manage) add(`sys/mounts/${keyStore.mount}`, 'read');
  for (const mount of new Set([...(keyStore.manage ? [keyStore.mount] : []), ...pkiMounts])) {
    add(`sys/mounts/${mount}`, 'create', 'read', 'update');
  }
  if (!intermediate.manage && intermediate.source === 'Issue') addReading(intermediate.mount, add);
  for (const mount of pkiMounts) {
    add(`sys/mounts/${mount}/tune`, 'read', 'update');
    add(`${mount}/issuers`, 'list');
    add(`${mount}/keys`, 'list');
    add(`${mount}/issuer/+`, 'read');
    add(`${mount}/config/issuers`, 'create', 'read', 'update');
  }
  if (delivery.crl) {
    for (const mount of pkiMounts) {
      add(`${mount}/crl/rotate`, 'read');
      // adopted mounts keep their settings
      add(`${mount}/config/crl`, ...(spec.adopt ? [] : ['create', 'update']), 'read');
    }
  }
  if (pkiMounts.length > 0) addIssuing(spec, make, add);
  add(kvDataPath(spec), ...(intermediate.manage ? ['create', 'read', 'update'] : ['read']));
  if (keyStore.manage) add(kvDataPath(spec, '-state'), 'create', 'read', 'update');
  if (!intermediate.manage) {
    // what is left there from a time when the CA was managed
    if (keyStore.manage) add(kvDataPath(spec, '-staging'), 'read');
  } else if (keyStore.version === 2) {
    add(kvDataPath(spec, '-staging'), 'create', 'read', 'update');
    add(`${keyStore.mount}/destroy/${keyStore.path}`, 'create', 'update');
    add(`${keyStore.mount}/destroy/${keyStore.path}-staging`, 'create', 'update');
    add(`${keyStore.mount}/metadata/${keyStore.path}`, 'create', 'read', 'update');
  } else {
    add(kvDataPath(spec, '-staging'), 'create', 'read', 'update', 'delete');
  }
  if (policy.manage) add(`sys/policies/acl/${policy.name}`, 'create', 'read', 'update');
  // sys/auth/* and sys/audit are root-protected: reading them needs sudo
  // https://developer.hashicorp.com/vault/docs/concepts/policies#root-protected-api-endpoints
  const auth = kubernetesAuth.mount;
  if (kubernetesAuth.manage) {
    add(`sys/auth/${auth}`, ...(make.authMount && keyStore.manage ? ['create', 'update'] : []), 'read', 'sudo');
    add(`auth/${auth}/role/${kubernetesAuth.role}`, 'create', 'read', 'update');
    if (make.authConfig && keyStore.manage) add(`auth/${auth}/config`, 'create', 'read', 'update');
  }
  if (spec.audit) {
    add('sys/audit', 'read', 'sudo');
    if (make.auditDevice && keyStore.manage) add(`sys/audit/${spec.audit.path}`, 'create', 'update', 'sudo');
  }
  if (spec.deletionPolicy === 'Delete') addDeletion(spec, make, needed);
  return needed;
}

/** Adds the capabilities that reading a PKI mount of others needs, to see what is in it. */
function addReading(mount: string, add: (path: string, ...capabilities: string[]) => void): void {
  add(`sys/mounts/${mount}`, 'read');
  add(`${mount}/issuers`, 'list');
  add(`${mount}/keys`, 'list');
  add(`${mount}/issuer/+`, 'read');
  add(`${mount}/config/issuers`, 'read');
}

/** Adds the capabilities that issuing needs. */
function addIssuing(spec: Spec, make: ToMake, add: (path: string, ...capabilities: string[]) => void): void {
  const { root, intermediate } = spec;
  if (rootSourceOf(spec) === 'Generate') {
    add(`${root.mount}/root/generate/internal`, 'create', 'update');
    add(`${root.mount}/root/generate/existing`, 'create', 'update');
  }
  if (!intermediate.manage) return;
  if (signs(spec, make)) add(signPath(spec, make.signerId), 'create', 'update');
  add(`${intermediate.mount}/keys/import`, 'create', 'update');
  add(`${intermediate.mount}/intermediate/generate/existing`, 'create', 'update');
  add(`${intermediate.mount}/intermediate/set-signed`, 'create', 'update');
  add(`${intermediate.mount}/issuer/+`, 'read', 'delete');
  add(`${intermediate.mount}/key/+`, 'delete');
}

/** Adds the capabilities that `deletionPolicy: Delete` needs. */
function addDeletion(spec: Spec, make: ToMake, needed: Map<string, string[]>): void {
  const { root, intermediate, keyStore, policy, kubernetesAuth } = spec;
  const add = (path: string, ...capabilities: string[]) =>
    needed.set(path, [...new Set([...(needed.get(path) ?? []), ...capabilities])]);
  if (intermediate.source === 'Issue' && intermediate.manage) add(`sys/mounts/${intermediate.mount}`, 'delete');
  if (keyStore.manage) add(`sys/mounts/${keyStore.mount}`, 'delete');
  if (policy.manage) add(`sys/policies/acl/${policy.name}`, 'delete');
  if (kubernetesAuth.manage) {
    add(`auth/${kubernetesAuth.mount}/role/${kubernetesAuth.role}`, 'delete');
    add(`auth/${kubernetesAuth.mount}/role`, 'list');
    if (keyStore.manage && (make.authMount || make.authConfig)) add(`sys/auth/${kubernetesAuth.mount}`, 'delete');
  }
  for (const suffix of ['', '-staging', '-state'] as const) {
    if (!keyStore.manage || (suffix === '' && !intermediate.manage)) continue;
    if (keyStore.version === 2) add(`${keyStore.mount}/metadata/${keyStore.path}${suffix}`, 'delete');
    else add(kvDataPath(spec, suffix), 'delete');
  }
  if (keyStore.manage) add(keyStore.version === 2 ? `${keyStore.mount}/metadata` : keyStore.mount, 'list');
  if (!make.rootGoes || rootSourceOf(spec) !== 'Generate') return;
  add(`sys/mounts/${root.mount}`, 'delete');
  add(`${root.mount}/roles`, 'list');
  add(`${root.mount}/certs`, 'list');
  add(`${root.mount}/cert/+`, 'read');
}

/**
 * Capabilities by API path that the operator can do without: they show what others did in the mounts of the resource, and what others manage.
 * Without them, the messages of the conditions say what is not verified.
 */
export function optionalCapabilities(spec: Spec): Map<string, string[]> {
  const { policy, kubernetesAuth } = spec;
  const mounts = ownPkiMounts(spec);
  const optional = new Map<string, string[]>();
  for (const mount of mounts) optional.set(`${mount}/roles`, ['list']);
  for (const mount of mounts) optional.set(`${mount}/issuer/+`, ['patch']);
  if (!kubernetesAuth.config.manage) optional.set(`auth/${kubernetesAuth.mount}/config`, ['read']);
  if (!policy.manage) optional.set(`sys/policies/acl/${policy.name}`, ['read']);
  if (!kubernetesAuth.manage) optional.set(`auth/${kubernetesAuth.mount}/role/${kubernetesAuth.role}`, ['read']);
  return optional;
}

/**
 * Capabilities for the operator's own token, which policy `default` grants too. With these, its role does without that policy: a policy with
 * templates, as `default` is, is parsed by Vault and OpenBao again at each request.
 */
const ownToken: readonly [string, string[]][] = [
  ['auth/token/lookup-self', ['read']],
  ['auth/token/renew-self', ['update']],
  ['auth/token/revoke-self', ['update']],
  ['sys/capabilities-self', ['update']],
];

const capabilityNames = ['create', 'read', 'update', 'patch', 'delete', 'list', 'sudo'];
const byName = (a: string, b: string): number => capabilityNames.indexOf(a) - capabilityNames.indexOf(b);

/** What the operator needs, and what it can do without, as the text of a Vault policy. */
export function operatorPolicy(spec: Spec, make: ToMake): string {
  const all = new Map<string, string[]>();
  for (const [path, capabilities] of [...ownToken, ...optionalCapabilities(spec), ...requiredCapabilities(spec, make)])
    all.set(path, [...new Set([...(all.get(path) ?? []), ...capabilities])].sort(byName));
  const rules = [...all].map(
    ([path, capabilities]) => `path "${path}" {\n  capabilities = [${capabilities.map((c) => `"${c}"`).join(', ')}]\n}`,
  );
  return `${rules.join('\n\n')}\n`;
}
