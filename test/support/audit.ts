/** Counts writes as the project promises them: in the audit logs of Vault and of the API server, less logins, tokens, leases and reviews. */
import { readFile } from 'node:fs/promises';
import { setTimeout as pause } from 'node:timers/promises';
import type { Kube } from './cluster.ts';
import type { Vault } from './scene.ts';

async function lines(path: string): Promise<unknown[]> {
  return (await readFile(path, 'utf8'))
    .split('\n')
    .slice(0, -1) // what follows the last newline is still being written
    .map((line) => JSON.parse(line) as unknown);
}

interface VaultEntry {
  type: string;
  request?: { operation: string; path: string };
}

/** Create, update, patch and delete requests in Vault's audit log, as `operation path`. */
export async function vaultWrites(vault: Vault): Promise<string[]> {
  const entries = (await lines(vault.auditLog)) as VaultEntry[];
  return entries
    .filter((entry) => entry.type === 'request' && entry.request !== undefined)
    .map((entry) => `${entry.request?.operation ?? ''} ${entry.request?.path ?? ''}`)
    .filter((line) => /^(create|update|patch|delete) /.test(line))
    .filter((line) => !/ (auth\/[^/]+\/login|auth\/token\/.*|sys\/capabilities-self)$/.test(line));
}

interface KubeEntry {
  verb: string;
  user?: { username?: string };
  objectRef?: { resource?: string; subresource?: string; namespace?: string; name?: string };
  responseStatus?: { code?: number };
}

const operatorUser = 'system:serviceaccount:istio-vault-ca:istio-vault-ca';

/**
 * Writes of a user in the API server's audit log, as `verb resource/subresource namespace/name`.
 * @param user the operator unless given
 * @param which also those that were refused, unless only what was `done` counts
 */
export async function kubeWrites(
  kube: Kube,
  user = operatorUser,
  which: 'asked' | 'done' = 'asked',
): Promise<string[]> {
  const entries = (await lines(kube.auditLog)) as KubeEntry[];
  return entries
    .filter((entry) => entry.user?.username === user)
    .filter((entry) => /^(create|update|patch|delete)/.test(entry.verb))
    .filter((entry) => which === 'asked' || (entry.responseStatus?.code ?? 0) < 300)
    .filter(
      (entry) =>
        !/^(leases|tokenreviews|subjectaccessreviews|selfsubjectaccessreviews)$/.test(entry.objectRef?.resource ?? ''),
    )
    .filter((entry) => entry.objectRef?.subresource !== 'token')
    .map(
      ({ verb, objectRef: o }) =>
        `${verb} ${o?.resource ?? ''}/${o?.subresource ?? ''} ${o?.namespace ?? ''}/${o?.name ?? ''}`,
    );
}

/** How many requests of any kind the operator's token has made: a reconcile shows in it even when it writes nothing. */
async function vaultReads(vault: Vault, path: string): Promise<number> {
  const entries = (await lines(vault.auditLog)) as VaultEntry[];
  return entries.filter((e) => e.type === 'request' && e.request?.operation === 'read' && e.request.path === path)
    .length;
}

/** Waits until a path was read so many more times: that many reconciles have looked at it. */
export async function waitForReads(vault: Vault, path: string, more: number, timeoutMs = 90_000): Promise<void> {
  const from = await vaultReads(vault, path);
  const end = Date.now() + timeoutMs;
  while ((await vaultReads(vault, path)) < from + more) {
    if (Date.now() > end)
      throw new Error(`${path} was read only ${(await vaultReads(vault, path)) - from} of ${more} times`);
    await pause(100);
  }
}
