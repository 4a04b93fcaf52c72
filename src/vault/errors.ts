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
  /** The Vault namespace does not exist; sealed by itself; locked by an administrator; or the server has no namespaces. */
  | 'NamespaceNotFound'
  | 'NamespaceSealed'
  | 'NamespaceLocked'
  | 'NamespaceUnsupported'
  /** A response-wrapping token does not give a secret ID. */
  | 'WrappingToken'
  | 'Server';

export class VaultError extends Error {
  override readonly name = 'VaultError';
  readonly kind: VaultErrorKind;
  readonly operation: string;
  readonly path: string;
  /** HTTP status; 0 if there was no response, or if the failure is not that of a response. */
  readonly status: number;
  /** What to do, if the error shows more than its kind. */
  readonly remedy: string | undefined;
  /** The message without operation and path. */
  readonly detail: string;

  constructor(kind: VaultErrorKind, operation: string, path: string, status: number, detail: string, remedy?: string) {
    super(`${operation} ${path}: ${detail}`);
    this.remedy = remedy;
    this.kind = kind;
    this.operation = operation;
    this.path = path;
    this.status = status;
    this.detail = detail;
  }
}

const tooLargeText = 'the answer is larger than this operator accepts (1 MiB, a list 4 MiB)';

/** Whether a response had more bytes than are read: a limit of the operator, not a failure of the server. */
export const isTooLarge = ({ detail }: VaultError): boolean => detail === tooLargeText;

/** Whether an error of a login shows that Vault refused it, rather than that it could not answer. */
export const isRefusal = ({ kind }: VaultError): boolean => ['Forbidden', 'Invalid', 'NotFound'].includes(kind);

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
  NamespaceNotFound: 'VaultNamespaceNotFound',
  NamespaceSealed: 'VaultNamespaceSealed',
  NamespaceLocked: 'VaultNamespaceLocked',
  NamespaceUnsupported: 'VaultNamespaceUnsupported',
  WrappingToken: 'WrappingTokenInvalid',
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

/** The kind of an error that concerns the whole Vault namespace, as OpenBao and Vault Enterprise word it. */
function kindOfNamespace(status: number, text: string): VaultErrorKind | undefined {
  if (status === 404 && /\bnamespace not found\b/i.test(text)) return 'NamespaceNotFound';
  if (status === 503 && /\bnamespace is sealed\b/i.test(text)) return 'NamespaceSealed';
  if (status === 503 && /\baccess to this namespace has been locked\b/i.test(text)) return 'NamespaceLocked';
  return undefined;
}

/** Whether an error response concerns the whole Vault namespace, and not the path of the request. */
export const concernsNamespace = (status: number, messages: readonly string[]): boolean =>
  kindOfNamespace(status, messages.join('; ')) !== undefined;

function kindOfStatus(status: number, text: string): VaultErrorKind {
  const ofNamespace = kindOfNamespace(status, text);
  if (ofNamespace !== undefined) return ofNamespace;
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

/** Where the certificates of a connection are from, for messages: kind and name of the object, and the field of the spec. */
export interface TlsSources {
  ca?: string;
  clientCert?: string;
}

/** TLS alerts (RFC 8446, section 6.2) by which a server asks for a client certificate, or refuses the one it got. */
const certificateMissing = /alert (certificate required|handshake failure)/;
const certificateRefused =
  /alert (bad certificate|unsupported certificate|certificate (revoked|expired|unknown)|unknown ca|access denied|decrypt error)/;

/** What to do about a failed TLS handshake. @param text code and message of the error, which are not shown */
function tlsRemedy(text: string, { ca, clientCert }: TlsSources): string {
  const said = text.toLowerCase().replaceAll('_', ' ');
  if (certificateMissing.test(said) && clientCert === undefined)
    return 'Vault asks for a client certificate: name its Secret in spec.vault.tls.clientCertSecretRef';
  if (certificateMissing.test(said) || certificateRefused.test(said)) {
    return clientCert === undefined
      ? "Vault ended the handshake: check spec.vault.tls and the configuration of Vault's listener"
      : `Vault refused the client certificate in ${clientCert}: it has expired, is not for client authentication, or its CA is not in tls_client_ca_file of Vault's listener. Put another one into that Secret`;
  }
  const server = 'the CA that signs the server certificate, and serverName';
  return ca === undefined
    ? `check spec.vault.tls: ${server}`
    : `check spec.vault.tls: ${server}. The CA given is that of ${ca}`;
}

/**
 * Creates the error of a failed connection. Of the failure it shows only the code: messages and causes can contain request headers.
 * @param connection the proxy that the connection went through (undefined: none), and where its certificates are from
 */
export function errorOfTransport(
  operation: string,
  path: string,
  error: unknown,
  { proxy, tlsSources = {} }: { proxy?: Proxy | undefined; tlsSources?: TlsSources } = {},
): VaultError {
  if (error instanceof VaultError) return error;
  const code =
    typeof error === 'object' && error !== null && 'code' in error && typeof error.code === 'string'
      ? error.code
      : 'failed';
  if (code === aborted)
    return new VaultError('Unreachable', operation, path, 0, 'no answer before the time for one reconcile was over');
  if (code === tooLarge) return new VaultError('Server', operation, path, 0, tooLargeText);
  const detail = `${code}${proxy ? throughProxy(proxy) : ''}`;
  if (!tlsCodes.test(code) && code !== 'EPROTO') return new VaultError('Unreachable', operation, path, 0, detail);
  const text = `${code} ${error instanceof Error ? error.message : ''}`;
  return new VaultError('TLSFailed', operation, path, 0, detail, tlsRemedy(text, tlsSources));
}
