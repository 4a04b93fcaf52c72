/** Reads everything a plan needs from Vault, side by side. Never writes. Private keys are reduced to their public half here. */
import { requiredCapabilities } from '../plan/capabilities.ts';
import type { Desired } from '../plan/desired.ts';
import { isOwn } from '../plan/identity.ts';
import type { ObservedVault } from '../plan/observed.ts';
import { readAuthConfig, readPolicy, readRole } from './access.ts';
import type { Health, VaultClient } from './client.ts';
import { parseLive, parseStaging, parseState } from './entries.ts';
import { VaultError } from './errors.ts';
import { readKv, type KvEntry, type KvPlace } from './kv.ts';
import { missingCapabilities, readAuditDevice, readAuthMount, readSecretsMount } from './mounts.ts';
import { readPki } from './pki.ts';

/** The place of an entry in the key store. */
export function kvPlace({ spec }: Desired, suffix: '' | '-staging' | '-state'): KvPlace {
  const { mount, path, version } = spec.keyStore;
  return { mount, path: `${path}${suffix}`, version };
}

/** Vault's health as an error when it cannot serve; a standby forwards requests and serves. */
export function assertServing(health: Health, address: string): void {
  const fail = (kind: 'Uninitialized' | 'Sealed', what: string) => {
    throw new VaultError(kind, 'health', 'sys/health', 0, `${health.product} at ${address} is ${what}`);
  };
  if (!health.initialized) fail('Uninitialized', 'not initialized');
  if (health.sealed) fail('Sealed', 'sealed');
}

const nothing: KvEntry = { casVersion: 0, data: undefined };

/** A client call that may be forbidden although the capabilities say more precisely what is missing. */
async function orForbidden<T>(read: Promise<T>): Promise<T | undefined> {
  return await read.catch((error: unknown) => {
    if (error instanceof VaultError && error.kind === 'Forbidden') return undefined;
    throw error;
  });
}

/**
 * @throws VaultError of the first read that failed: then nothing is known, and nothing is planned
 */
export async function observeVault(client: VaultClient, d: Desired, health: Health): Promise<ObservedVault> {
  const { root, intermediate, keyStore, kubernetesAuth, policy, audit } = d.spec;
  const [authMount, auditDevice] = await Promise.all([
    orForbidden(readAuthMount(client, kubernetesAuth.mount)),
    audit ? orForbidden(readAuditDevice(client, audit.path)) : undefined,
  ]);
  const writesAuthConfig = isOwn(d.identity, authMount?.description);
  const needed = requiredCapabilities(d.spec, {
    authMount: authMount === undefined,
    authConfig: authMount === undefined || writesAuthConfig,
    auditDevice: auditDevice === undefined && health.product === 'Vault',
  });
  const missing = await missingCapabilities(client, needed);
  const base = {
    product: health.product,
    version: health.version,
    missingCapabilities: missing,
    auditDevice,
    authMount,
  };
  if (missing.length > 0) return { ...base, ...unread };

  const [kvMount, rootMount, intermediateMount, policyText, role, authConfig] = await Promise.all([
    readSecretsMount(client, keyStore.mount),
    readSecretsMount(client, root.mount),
    readSecretsMount(client, intermediate.mount),
    readPolicy(client, policy.name),
    authMount?.type === 'kubernetes' ? readRole(client, kubernetesAuth.mount, kubernetesAuth.role) : undefined,
    writesAuthConfig ? readAuthConfig(client, kubernetesAuth.mount) : undefined,
  ]);
  const kvFits = kvMount?.kvVersion === keyStore.version;
  const [live, staging, state, rootPki, intermediatePki] = await Promise.all([
    kvFits ? readKv(client, kvPlace(d, '')) : nothing,
    kvFits ? readKv(client, kvPlace(d, '-staging')) : nothing,
    kvFits ? readKv(client, kvPlace(d, '-state')) : nothing,
    // a mount of somebody else is not read: its issuers are none of our business
    rootMount?.type === 'pki' && isOwn(d.identity, rootMount.description) ? readPki(client, root.mount) : undefined,
    intermediateMount?.type === 'pki' && isOwn(d.identity, intermediateMount.description)
      ? readPki(client, intermediate.mount)
      : undefined,
  ]);
  return {
    ...base,
    kvMount,
    rootMount,
    intermediateMount,
    rootPki,
    intermediatePki,
    policy: policyText,
    role,
    authConfig,
    live: parseLive(d.identity, live),
    staging: parseStaging(d.identity, staging),
    state: parseState(d.identity, state),
  };
}

/** What stays unread while capabilities are missing; the plan stops at them before it looks here. */
const unread = {
  kvMount: undefined,
  rootMount: undefined,
  intermediateMount: undefined,
  rootPki: undefined,
  intermediatePki: undefined,
  policy: undefined,
  role: undefined,
  authConfig: undefined,
  live: { casVersion: 0, entry: undefined },
  staging: { casVersion: 0, entry: undefined },
  state: { casVersion: 0, entry: undefined },
} satisfies Partial<ObservedVault>;
