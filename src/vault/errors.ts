/**
 * Every failure of a call to Vault, as one error of ours. It carries operation, path and status; of the body only the
 * server's `errors` strings, cut and cleaned, and those only from a server whose health answer was Vault's.
 */
import type { Reason } from '../api/conditions.ts';

export type VaultErrorKind =
  | 'Unreachable'
  | 'TLSFailed'
  | 'Redirected'
  | 'Sealed'
  | 'Uninitialized'
  | 'Standby'
  | 'RateLimited'
  | 'Forbidden'
  | 'NotFound'
  | 'Invalid'
  | 'CheckAndSet'
  | 'InUse'
  | 'Server';

export class VaultError extends Error {
  override readonly name = 'VaultError';
  readonly kind: VaultErrorKind;
  readonly operation: string;
  readonly path: string;
  /** HTTP status; 0 when there was no answer. */
  readonly status: number;

  constructor(kind: VaultErrorKind, operation: string, path: string, status: number, detail: string) {
    super(`${operation} ${path}: ${detail}`);
    this.kind = kind;
    this.operation = operation;
    this.path = path;
    this.status = status;
  }
}

/** The reason a failed call shows in a condition. */
export const reasonOfKind: Record<VaultErrorKind, Reason> = {
  Unreachable: 'Unreachable',
  TLSFailed: 'TLSFailed',
  Redirected: 'Standby',
  Sealed: 'Sealed',
  Uninitialized: 'Uninitialized',
  Standby: 'Standby',
  RateLimited: 'RateLimited',
  Forbidden: 'Forbidden',
  NotFound: 'VaultError',
  Invalid: 'VaultError',
  CheckAndSet: 'Conflict',
  InUse: 'Conflict',
  Server: 'VaultError',
};

const secretLike =
  /-----BEGIN[\s\S]*|\b(hv[sbr]|s|b|r)\.[A-Za-z0-9_-]{16,}|\beyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*/g;

/** One line, at most 300 characters, without anything that looks like a key or a token. */
export function clean(text: string): string {
  return text.replace(secretLike, '[redacted]').replace(/\s+/g, ' ').trim().slice(0, 300);
}

/** What nodes of a cluster say while nobody leads it, or while the leader changes. */
const noLeader =
  /active cluster node not found|in standby mode|node is not the leader|leadership lost|leadership transfer/i;

function kindOfStatus(status: number, text: string): VaultErrorKind {
  if (status === 403) return 'Forbidden';
  if (status === 404) return 'NotFound';
  if (status === 429) return 'RateLimited';
  // 412: a standby that has not caught up
  if ([412, 472, 473, 474].includes(status)) return 'Standby';
  if (status >= 300 && status < 400) return 'Redirected';
  if (status === 501 || /not (yet )?initialized/i.test(text)) return 'Uninitialized';
  if (status >= 500 && /\bis sealed\b/i.test(text)) return 'Sealed';
  if (status >= 500 && noLeader.test(text)) return 'Standby';
  if (/check-and-set/.test(text)) return 'CheckAndSet';
  if (/already in use/.test(text)) return 'InUse';
  if (status >= 500) return 'Server';
  return 'Invalid';
}

/** @param messages the server's `errors`; empty when the server is not known to be Vault */
export function errorOfReply(operation: string, path: string, status: number, messages: string[]): VaultError {
  const text = clean(messages.join('; '));
  const kind = kindOfStatus(status, text);
  return new VaultError(kind, operation, path, status, `${status}${text === '' ? '' : ` ${text}`}`);
}

const tlsCodes = /CERT|TLS|SSL|ALTNAME|SELF_SIGNED|ISSUER|UNABLE_TO|SIGNATURE/;

/** A connection that failed. Only the error's code is kept: messages and causes may carry request headers. */
export function errorOfTransport(operation: string, path: string, error: unknown): VaultError {
  if (error instanceof VaultError) return error;
  const code =
    typeof error === 'object' && error !== null && 'code' in error && typeof error.code === 'string'
      ? error.code
      : 'failed';
  const kind = tlsCodes.test(code) || code === 'EPROTO' ? 'TLSFailed' : 'Unreachable';
  return new VaultError(kind, operation, path, 0, code);
}
