/** What Vault and the cluster must offer before anything is written. */
import type { DerivedState } from '../facts/derived.ts';
import { adoptable, ownables, ownsAuthMount } from '../ownership/ownership.ts';
import type { Problem } from '../facts/problem.ts';

/** Issuing needs named keys and issuers, which came with Vault 1.11; OpenBao has had them from its start. */
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

/** OpenBao takes audit devices from its configuration only, not from the API. */
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
  if (device || s.vault.product === 'Vault') return undefined;
  const options = Object.entries(audit.options).map(([key, value]) => `${key} = ${JSON.stringify(value)}`);
  return fail(
    `spec.audit: device ${audit.path} does not exist, and OpenBao takes devices from its configuration only; add: audit "${audit.type}" "${audit.path}" { options { ${options.join('\n')} } }`,
  );
}

/** A mount that somebody else made keeps its configuration. */
export function authConfigNotOwned(s: DerivedState): Problem | undefined {
  const { authMount } = ownables(s);
  if (!s.spec.kubernetesAuth.config.manage || !authMount) return undefined;
  if (ownsAuthMount(s) || adoptable(s, authMount)) return undefined;
  return {
    condition: 'AccessReady',
    reason: 'AuthConfigNotOwned',
    message: `spec.kubernetesAuth.config.manage: auth/${s.spec.kubernetesAuth.mount} was not made by this resource; set manage: false, or name another mount`,
    blocks: 'all',
  };
}
