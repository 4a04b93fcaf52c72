/** Counts writes in the audit logs of Vault and of the API server, without logins, tokens, Leases and reviews. */
import { setTimeout as pause } from 'node:timers/promises';
import { growingLogs } from './audit-log.ts';
import type { Kube } from './cluster.ts';
import type { Vault } from './scene.ts';

interface VaultLine {
  type: string;
  error?: string;
  request?: { operation: string; path: string };
}

/** The fields of an entry of Vault's audit log that are kept. */
export interface VaultEntry {
  type: 'request' | 'response';
  failed: boolean;
  operation: string;
  path: string;
}

/** Requests and responses in the audit log of a Vault server so far. */
export const vaultEntries = growingLogs((line): VaultEntry | undefined => {
  const { type, error = '', request } = line as VaultLine;
  if ((type !== 'request' && type !== 'response') || request === undefined) return undefined;
  return { type, failed: error !== '', operation: request.operation, path: request.path };
});

/** Create, update, patch and delete requests in Vault's audit log, as `operation path`. */
export async function vaultWrites(vault: Vault): Promise<string[]> {
  return (await vaultEntries(vault.auditLog))
    .filter(({ type }) => type === 'request')
    .map(({ operation, path }) => `${operation} ${path}`)
    .filter((line) => /^(create|update|patch|delete) /.test(line))
    .filter((line) => !/ (auth\/[^/]+\/login|auth\/token\/.*|sys\/capabilities-self|sys\/wrapping\/.*)$/.test(line));
}

interface KubeLine {
  verb: string;
  user?: { username?: string };
  objectRef?: { resource?: string; subresource?: string; namespace?: string; name?: string };
  responseStatus?: { code?: number };
}

/** The fields of an entry of the API server's audit log that are kept. */
export interface KubeEntry {
  verb: string;
  user: string;
  resource: string;
  subresource: string;
  namespace: string;
  name: string;
  code: number;
}

/** Requests in an API server's audit log so far. */
export const kubeEntries = growingLogs((line): KubeEntry => {
  const { verb, user, objectRef: o, responseStatus } = line as KubeLine;
  return {
    verb,
    user: user?.username ?? '',
    resource: o?.resource ?? '',
    subresource: o?.subresource ?? '',
    namespace: o?.namespace ?? '',
    name: o?.name ?? '',
    code: responseStatus?.code ?? 0,
  };
});

const operatorUser = 'system:serviceaccount:istio-vault-ca:istio-vault-ca-operator';

/**
 * Writes of a user in the API server's audit log, as `verb resource/subresource namespace/name`.
 * @param user default: the operator
 * @param which `done` counts only accepted writes; otherwise refused writes count too
 */
export async function kubeWrites(
  kube: Kube,
  user = operatorUser,
  which: 'asked' | 'done' = 'asked',
): Promise<string[]> {
  return (await kubeEntries(kube.auditLog))
    .filter((entry) => entry.user === user)
    .filter((entry) => /^(create|update|patch|delete)/.test(entry.verb))
    .filter((entry) => which === 'asked' || entry.code < 300)
    .filter((entry) => !/^(leases|tokenreviews|subjectaccessreviews|selfsubjectaccessreviews)$/.test(entry.resource))
    .filter((entry) => entry.subresource !== 'token')
    .map(
      ({ verb, resource, subresource, namespace, name }) => `${verb} ${resource}/${subresource} ${namespace}/${name}`,
    );
}

/** The number of reads of a path in Vault's audit log so far. Each reconcile reads, even if it writes nothing. */
async function vaultReads(vault: Vault, path: string): Promise<number> {
  const entries = await vaultEntries(vault.auditLog);
  return entries.filter((e) => e.type === 'request' && e.operation === 'read' && e.path === path).length;
}

/** Waits until a path was read the given number of times more, which shows that many reconciles. */
export async function waitForReads(vault: Vault, path: string, more: number, timeoutMs = 90_000): Promise<void> {
  const from = await vaultReads(vault, path);
  const end = Date.now() + timeoutMs;
  while ((await vaultReads(vault, path)) < from + more) {
    if (Date.now() > end)
      throw new Error(`${path} was read only ${(await vaultReads(vault, path)) - from} of ${more} times`);
    await pause(100);
  }
}
