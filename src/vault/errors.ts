/**
 * The error of every failed call to Vault. It carries operation, path and status. Of the response body it carries only the `errors` strings,
 * truncated and redacted, and only if the health response showed that the server is Vault.
 */
import type { Reason } from '../api/conditions.ts';
import { head, printable } from '../text/bounded.ts';
import { throughProxy, type Proxy } from '../runtime/proxy.ts';
import { redact } from '../text/redact.ts';
import { aborted, tooLarge } from './transport.ts';

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
  /** Nothing can be mounted at a path, or no audit device enabled. */
  | 'MountRefused'
  /** A mount has more issuers or keys than the operator reads. */
  | 'TooMany'
  | 'Server';

export class VaultError extends Error {
  override readonly name = 'VaultError';
  readonly kind: VaultErrorKind;
  readonly operation: string;
  readonly path: string;
  /** HTTP status; 0 if there was no response, or if the failure is not that of a response. */
  readonly status: number;
  /** The message without operation and path. */
  readonly detail: string;

  constructor(kind: VaultErrorKind, operation: string, path: string, status: number, detail: string) {
    super(`${operation} ${path}: ${detail}`);
    this.kind = kind;
    this.operation = operation;
    this.path = path;
    this.status = status;
    this.detail = detail;
  }
}

/** The condition reason of a failed call. */
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
  MountRefused: 'MountRefused',
  TooMany: 'TooManyIssuers',
  Server: 'VaultError',
};

/** The longest error text that is looked at, in UTF-16 code units: enough to fill what is shown after redaction. */
const longestRead = 4096;
/** The longest error text that is shown, in UTF-16 code units. */
const longestShown = 300;

/** Returns the text on one line, at most 300 characters long. Redacts whatever looks like a key or a token, and any PEM block to its end. */
export function clean(text: string): string {
  const known = redact(head(text, longestRead));
  const pem = known.indexOf('-----BEGIN');
  const shown = pem < 0 ? known : `${known.slice(0, pem)}[redacted]`;
  return printable(shown).replace(/ +/g, ' ').trim().slice(0, longestShown).toWellFormed();
}

/** Errors that cluster nodes return while there is no leader or while the leader changes. */
const noLeader =
  /active cluster node not found|in standby mode|node is not the leader|leadership lost|leadership transfer/i;

function kindOfStatus(status: number, text: string): VaultErrorKind {
  if (status === 403) return 'Forbidden';
  if (status === 404) return 'NotFound';
  if (status === 429) return 'RateLimited';
  // 412: a standby lags behind
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

/** Creates the error of an error response. @param messages the server's `errors`; empty if the server is not known to be Vault */
export function errorOfReply(operation: string, path: string, status: number, messages: string[]): VaultError {
  const text = clean(messages.join('; '));
  const kind = kindOfStatus(status, text);
  return new VaultError(kind, operation, path, status, `${status}${text === '' ? '' : ` ${text}`}`);
}

const tlsCodes = /CERT|TLS|SSL|ALTNAME|SELF_SIGNED|ISSUER|UNABLE_TO|SIGNATURE/;

/**
 * Creates the error of a failed connection. It keeps only the code: messages and causes can contain request headers.
 * @param proxy the proxy that the connection went through; undefined: none
 */
export function errorOfTransport(operation: string, path: string, error: unknown, proxy?: Proxy): VaultError {
  if (error instanceof VaultError) return error;
  const code =
    typeof error === 'object' && error !== null && 'code' in error && typeof error.code === 'string'
      ? error.code
      : 'failed';
  if (code === aborted)
    return new VaultError('Unreachable', operation, path, 0, 'no answer before the time for one reconcile was over');
  if (code === tooLarge)
    return new VaultError(
      'Server',
      operation,
      path,
      0,
      'the answer is larger than this operator accepts (1 MiB, a list 4 MiB)',
    );
  const kind = tlsCodes.test(code) || code === 'EPROTO' ? 'TLSFailed' : 'Unreachable';
  return new VaultError(kind, operation, path, 0, `${code}${proxy ? throughProxy(proxy) : ''}`);
}
