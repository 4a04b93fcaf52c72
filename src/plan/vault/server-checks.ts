/** Checks of the Vault server before the first write: version, capabilities of the token, and existing mounts and audit devices. */
import type { DerivedState } from '../facts/derived.ts';
import { ownables, ownsAuthMount } from '../ownership/ownership.ts';
import type { Problem } from '../facts/problem.ts';

/** Vault is older than 1.11, which introduced named keys and issuers in PKI mounts. Every version of OpenBao has them. */
export function vaultTooOld(s: DerivedState): Problem | undefined {
  const [major = 0, minor = 0] = s.vault.version.split('.').map(Number);
  if (s.vault.product === 'OpenBao' || major > 1 || (major === 1 && minor >= 11)) return undefined;
  return {
    condition: 'VaultReady',
    reason: 'VaultTooOld',
    message: `spec.vault.address: Vault ${s.vault.version} cannot import keys or name issuers; version 1.11 or later is needed`,
    blocks: 'all',
  };
}

/** The operator's token lacks capabilities. */
export function forbidden(s: DerivedState): Problem | undefined {
  const missing = s.vault.missingCapabilities;
  if (missing.length === 0) return undefined;
  const list = missing.map((m) => `${m.missing.join('+')} on ${m.path}`).join('; ');
  return {
    condition: 'VaultReady',
    reason: 'Forbidden',
    message: `the operator's Vault token lacks ${list}; add it to the operator's policy (deploy/vault/operator-policy.hcl)`,
    blocks: 'all',
  };
}

/** The mount of the key store has another type than `kv`, or another KV version than the spec. */
export function keyStoreUnfit(s: DerivedState): Problem | undefined {
  const { kvMount } = s.vault;
  const { mount, version } = s.spec.keyStore;
  if (!kvMount) return undefined;
  const unfit = (reason: Problem['reason'], message: string): Problem => ({
    condition: 'KeyStored',
    reason,
    message,
    blocks: 'all',
  });
  if (kvMount.kvVersion === undefined) {
    return unfit(
      'MountTypeMismatch',
      `spec.keyStore.mount: ${mount} is of type ${kvMount.type}, not kv; choose another mount`,
    );
  }
  if (kvMount.kvVersion === version) return undefined;
  return unfit(
    'KVVersionMismatch',
    `spec.keyStore.version is ${version}, but ${mount} is KV version ${kvMount.kvVersion}; set version: ${kvMount.kvVersion} or choose another mount`,
  );
}

/** The auth mount has another type than `kubernetes`. */
export function authMountUnfit(s: DerivedState): Problem | undefined {
  const { authMount } = s.vault;
  if (!authMount || authMount.type === 'kubernetes') return undefined;
  return {
    condition: 'AccessReady',
    reason: 'MountTypeMismatch',
    message: `spec.kubernetesAuth.mount: auth/${s.spec.kubernetesAuth.mount} is of type ${authMount.type}, not kubernetes; choose another mount`,
    blocks: 'all',
  };
}

/**
 * The audit device has another type, or does not exist in OpenBao, which takes audit devices only from its configuration. The operator enables
 * a missing audit device of Vault itself.
 */
export function auditDeviceMissing(s: DerivedState): Problem | undefined {
  const { audit } = s.spec;
  if (!audit) return undefined;
  const device = s.vault.auditDevice;
  const fail = (message: string): Problem => ({
    condition: 'VaultReady',
    reason: 'AuditDeviceMissing',
    message,
    blocks: 'all',
  });
  if (device && device.type !== audit.type) {
    return fail(
      `spec.audit: device ${audit.path} is of type ${device.type}, not ${audit.type}; change spec.audit to match it`,
    );
  }
  if (device) return undefined;
  if (!s.spec.keyStore.manage)
    return fail(
      `spec.audit: device ${audit.path} does not exist, and with spec.keyStore.manage: false the operator makes none; have an administrator of Vault enable it, or remove spec.audit`,
    );
  if (s.vault.product === 'Vault') return undefined;
  const options = Object.entries(audit.options).map(([key, value]) => `${key} = ${JSON.stringify(value)}`);
  return fail(
    `spec.audit: device ${audit.path} does not exist, and OpenBao takes devices from its configuration only; add: audit "${audit.type}" "${audit.path}" { options { ${options.join('\n')} } }`,
  );
}

/** The spec has the operator write the configuration of an auth mount that this resource does not own. */
export function authConfigNotOwned(s: DerivedState): Problem | undefined {
  const { authMount } = ownables(s);
  if (!s.spec.kubernetesAuth.config.manage || !authMount) return undefined;
  if (ownsAuthMount(s)) return undefined;
  return {
    condition: 'AccessReady',
    reason: 'AuthConfigNotOwned',
    message: `spec.kubernetesAuth.config.manage: auth/${s.spec.kubernetesAuth.mount} was not made by this resource; set manage: false, or name another mount`,
    // a version before this one adopted such mounts: what it took over goes on, and only the configuration is left alone
    blocks: s.stateEntry?.adopted.includes(authMount.name) === true ? 'nothing' : 'all',
  };
}
