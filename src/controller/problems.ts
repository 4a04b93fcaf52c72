/** From thrown errors to problems: every failure ends in a condition, with a reason and a remedy. */
import { ZodError } from 'zod';
import type { StageCondition } from '../api/conditions.ts';
import { KubeError } from '../kube/errors.ts';
import { ProblemError, type Problem } from '../plan/problem.ts';
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

function vaultProblem(error: VaultError, condition: StageCondition): Problem {
  const remedy = remedies[error.kind];
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
    ...(error.kind === 'Sealed' ||
    error.kind === 'Standby' ||
    error.kind === 'Redirected' ||
    error.kind === 'RateLimited'
      ? { retryAfterMs: 15_000 }
      : {}),
  };
}

/**
 * @param condition where it shows when the error itself does not tell
 * @returns undefined for what is no failure of a server: a bug, which must be loud
 */
export function toProblem(error: unknown, condition: StageCondition): Problem | undefined {
  if (error instanceof ProblemError) return error.problem;
  if (error instanceof VaultError) return vaultProblem(error, condition);
  if (error instanceof KubeError) {
    const reason =
      error.kind === 'Forbidden' ? 'Forbidden' : error.kind === 'Conflict' ? 'Conflict' : 'KubernetesError';
    return {
      condition,
      reason,
      message: error.message,
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
  return undefined;
}
