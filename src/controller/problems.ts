/** Converts thrown errors to problems, so that every failure appears in a condition with a reason and an action. */
import { ZodError } from 'zod';
import type { StageCondition } from '../api/conditions.ts';
import { missingPermission } from '../api/permissions.ts';
import { KubeError, type KubeErrorCause } from '../kube/errors.ts';
import { ProblemError, type Problem } from '../plan/facts/problem.ts';
import { reasonOfKind, VaultError } from '../vault/errors.ts';

/** Actions by kind of Vault error. */
const remedies: Partial<Record<VaultError['kind'], string>> = {
  Unreachable: 'check spec.vault.address, DNS and network policies',
  Redirected:
    'this node sends clients to the active node, which is not followed; during an election the operator goes on by itself, if it lasts give the address of the active node, or of a service that selects it',
  Sealed: 'unseal it; the operator goes on by itself',
  Uninitialized: 'initialize and unseal it',
  Standby: 'the operator goes on by itself when a node is active',
  RateLimited: 'a rate limit quota of Vault; the operator slows down and goes on',
  NamespaceNotFound:
    'create the Vault namespace of spec.vault.namespace, unseal the namespace above it if that is sealed, or correct spec.vault.address; the operator goes on by itself',
  NamespaceSealed:
    'unseal the Vault namespace of spec.vault.namespace with its own keys (bao namespace unseal <namespace>); the operator goes on by itself',
  NamespaceLocked:
    'unlock the Vault namespace of spec.vault.namespace (bao namespace unlock <namespace>); the operator goes on by itself',
  NamespaceUnsupported:
    'nothing was sent to it but questions. Delete this resource and create it again without spec.vault.namespace, or correct spec.vault.address: namespaces are part of OpenBao, Vault Enterprise and HCP Vault',
  Forbidden: "add the path to the operator's policy (deploy/vault/operator-policy.hcl)",
};

/** Action if Vault refuses `sys/capabilities-self`, which both policy `default` and the operator's policy allow. */
const tokenRefused =
  "policy default and the operator's policy (deploy/vault/operator-policy.hcl) both allow this: the operator's token was revoked, or its role has lost the policy, or the policy is gone. It logs in anew within five minutes; a token from a Secret must be replaced there";

function remedyOf({ kind, path, remedy }: VaultError): string | undefined {
  if (remedy !== undefined) return remedy;
  return kind === 'Forbidden' && path === 'sys/capabilities-self' ? tokenRefused : remedies[kind];
}

/** Returns the problem for an error of Vault. Errors of the server as a whole, and missing permissions, appear in `VaultReady`. */
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
    'NamespaceNotFound',
    'NamespaceSealed',
    'NamespaceLocked',
    'NamespaceUnsupported',
  ];
  return {
    condition: aboutServer.includes(error.kind) ? 'VaultReady' : condition,
    reason: reasonOfKind[error.kind],
    message: remedy === undefined ? error.message : `${error.message}; ${remedy}`,
    blocks: 'all',
  };
}

/**
 * Returns the message of an error of the API server. For a missing permission: verb, resource, and what grants it.
 * @param remedy what to do about a missing permission; default: the permission determines it
 */
export const messageOf = ({ permission, message }: KubeError, remedy?: string): string =>
  permission === undefined ? message : `${missingPermission(permission, remedy)} The API server reports: ${message}`;

/** Returns the problem for a field that another field manager has set since the observation. Server-side apply reports that manager. */
function fieldConflict(causes: readonly KubeErrorCause[], condition: StageCondition): Problem {
  const list = causes.map(({ field, message }) => `${field} (${message})`).join('; ');
  const message = `somebody else has set a field that this resource would set: ${list}. Remove it there, or change this resource to match`;
  return { condition, reason: 'FieldConflict', message, blocks: 'controlPlane' };
}

/**
 * Converts an error to a problem.
 * @param condition condition of the problem if the error does not determine it
 * @throws the error itself if no server caused it: it is a bug, and must not be hidden in a condition
 */
export function asProblem(error: unknown, condition: StageCondition): Problem {
  if (error instanceof ProblemError) return error.problem;
  if (error instanceof VaultError) return vaultProblem(error, condition);
  if (error instanceof KubeError) {
    const conflicts = error.causes.filter((cause) => cause.reason === 'FieldManagerConflict');
    if (conflicts.length > 0) return fieldConflict(conflicts, condition);
    const reason =
      error.kind === 'Forbidden' ? 'Forbidden' : error.kind === 'Conflict' ? 'Conflict' : 'KubernetesError';
    return {
      condition,
      reason,
      message: messageOf(error),
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
