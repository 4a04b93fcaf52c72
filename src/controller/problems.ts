/** From thrown errors to problems: every failure ends in a condition, with a reason and a remedy. */
import { ZodError } from 'zod';
import type { StageCondition } from '../api/conditions.ts';
import { KubeError, type KubeErrorCause } from '../kube/errors.ts';
import { ProblemError, type Problem } from '../plan/facts/problem.ts';
import { reasonOfKind, VaultError } from '../vault/errors.ts';

const remedies: Partial<Record<VaultError['kind'], string>> = {
  Unreachable: 'check spec.vault.address, DNS and network policies',
  TLSFailed: 'check spec.vault.tls: the CA that signs the server certificate, and serverName',
  Redirected:
    'this node sends clients to the active node, which is not followed; during an election the operator goes on by itself, if it lasts give the address of the active node, or of a service that selects it',
  Sealed: 'unseal it; the operator goes on by itself',
  Uninitialized: 'initialize and unseal it',
  Standby: 'the operator goes on by itself when a node is active',
  RateLimited: 'a rate limit quota of Vault; the operator slows down and goes on',
  Forbidden: "add the path to the operator's policy (deploy/vault/operator-policy.hcl)",
};

/** Not a question of a path: where this is refused, the token is. */
const tokenRefused =
  "every token with policy default may ask this: the operator's was revoked, or lacks that policy. It logs in anew within five minutes; a token from a Secret must be replaced there";

function remedyOf({ kind, path }: VaultError): string | undefined {
  return kind === 'Forbidden' && path === 'sys/capabilities-self' ? tokenRefused : remedies[kind];
}

function vaultProblem(error: VaultError, condition: StageCondition): Problem {
  const remedy = remedyOf(error);
  const aboutServer = [
    'Unreachable',
    'TLSFailed',
    'Redirected',
    'Sealed',
    'Uninitialized',
    'Standby',
    'RateLimited',
    'Forbidden',
  ];
  return {
    condition: aboutServer.includes(error.kind) ? 'VaultReady' : condition,
    reason: reasonOfKind[error.kind],
    message: remedy === undefined ? error.message : `${error.message}; ${remedy}`,
    blocks: 'all',
  };
}

/** Rights that the base does not have. */
function remedyFor(message: string): string {
  if (/cannot (create|patch|delete|list|watch) resource "configmaps"/.test(message))
    return '; ConfigMaps are written only with deploy/components/configmaps (docs/rbac.md)';
  return message.includes('sailoperator.io') ? '; with --namespaces add deploy/components/sail (docs/rbac.md)' : '';
}

/** Another manager has set a field since it was looked at: server-side apply names it. */
function fieldConflict(causes: readonly KubeErrorCause[], condition: StageCondition): Problem {
  const list = causes.map(({ field, message }) => `${field} (${message})`).join('; ');
  const message = `somebody else has set a field that this resource would set: ${list}. Remove it there, or change this resource to match`;
  return { condition, reason: 'FieldConflict', message, blocks: 'controlPlane' };
}

/**
 * @param condition where it shows when the error itself does not tell
 * @throws the error itself when it is no failure of a server: a bug, which must be loud
 */
export function asProblem(error: unknown, condition: StageCondition): Problem {
  if (error instanceof ProblemError) return error.problem;
  if (error instanceof VaultError) return vaultProblem(error, condition);
  if (error instanceof KubeError) {
    const taken = error.causes.filter((cause) => cause.reason === 'FieldManagerConflict');
    if (taken.length > 0) return fieldConflict(taken, condition);
    const reason =
      error.kind === 'Forbidden' ? 'Forbidden' : error.kind === 'Conflict' ? 'Conflict' : 'KubernetesError';
    return {
      condition,
      reason,
      message: error.kind === 'Forbidden' ? `${error.message}${remedyFor(error.message)}` : error.message,
      blocks: 'all',
      ...(error.retryAfterMs === undefined ? {} : { retryAfterMs: error.retryAfterMs }),
    };
  }
  if (error instanceof ZodError) {
    const where = error.issues.map((issue) => issue.path.join('.')).join(', ');
    return {
      condition,
      reason: 'VaultError',
      message: `an answer had an unexpected shape at ${where || 'its top'}`,
      blocks: 'all',
    };
  }
  throw error;
}
