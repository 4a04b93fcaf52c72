/** Errors of requests to the API server, without the parts that can be secret, such as headers and bodies. */
import { dig, isObject, items, str, type JsonObject } from '../api/json.ts';
import type { Permission } from '../api/permissions.ts';
import { isError } from '../observability/is-error.ts';
import { cut, printable } from '../text/bounded.ts';
import { throughProxy, type Proxy } from '../runtime/proxy.ts';

export type KubeErrorKind =
  | 'NotFound'
  /** The object exists, has another resourceVersion, or another field manager owns a field. */
  | 'Conflict'
  /** Includes a token that the API server rejects (401, reason `Unauthorized`). */
  | 'Forbidden'
  | 'Invalid'
  | 'Gone'
  | 'TooManyRequests'
  /** The API server failed, is unreachable, or did not respond in time. */
  | 'Unavailable'
  | 'Unknown';

/** One rejected field. For a field conflict, `message` names the other field manager. */
export interface KubeErrorCause {
  reason: string;
  field: string;
  message: string;
}

export interface KubeErrorDetails {
  kind: KubeErrorKind;
  status?: number;
  /** `reason` of the API server, such as `AlreadyExists`; for a network failure an error code, `Timeout` or `Aborted`. */
  reason?: string;
  /** How long the API server asks the client to wait, in milliseconds. */
  retryAfterMs?: number;
  causes?: KubeErrorCause[];
  /** The permission that the caller lacks. */
  permission?: Permission;
}

export class KubeError extends Error {
  override readonly name = 'KubeError';
  readonly kind: KubeErrorKind;
  readonly status?: number;
  readonly reason?: string;
  /** How long the API server asks the client to wait, in milliseconds. */
  readonly retryAfterMs?: number;
  /** The rejected fields, at most 20; texts are truncated to 200 characters. */
  readonly causes: readonly KubeErrorCause[];
  /** The permission that the caller lacks; undefined: the error has another cause, or the response does not name it. */
  readonly permission?: Permission;

  /** @param message short text of this program, without headers and bodies */
  constructor(message: string, details: KubeErrorDetails) {
    super(message);
    this.kind = details.kind;
    if (details.status !== undefined) this.status = details.status;
    if (details.reason !== undefined) this.reason = details.reason;
    if (details.retryAfterMs !== undefined) this.retryAfterMs = details.retryAfterMs;
    if (details.permission !== undefined) this.permission = details.permission;
    this.causes = details.causes ?? [];
  }
}

/** Whether the value is a `KubeError`, of the given kind if there is one. */
export function isKubeError(value: unknown, kind?: KubeErrorKind): value is KubeError {
  return value instanceof KubeError && (kind === undefined || value.kind === kind);
}

/** Returns the result of a call; undefined if it fails with a `KubeError` of the given kind. @throws every other error */
export async function unless<T>(kind: KubeErrorKind, call: Promise<T>): Promise<T | undefined> {
  try {
    return await call;
  } catch (error) {
    if (isKubeError(error, kind)) return undefined;
    throw error;
  }
}

/**
 * Converts a thrown value into a `KubeError`: an error response, an error of client-node or a network failure.
 * @param what description of the request, such as `get pods istio-system/istiod`; the message starts with it
 * @param proxy the proxy that the request went through; undefined: none
 */
export function toKubeError(value: unknown, what = 'request to the API server', proxy?: Proxy): KubeError {
  if (value instanceof KubeError) return value;
  const status = statusOf(value);
  if (status === undefined) return fromNetwork(value, what, proxy ? throughProxy(proxy) : '');
  const { body, headers } = value as { body?: unknown; headers?: unknown };
  return fromAnswer(status, body, isObject(headers) ? headers : {}, what);
}

/**
 * Creates the `KubeError` of an HTTP error response.
 * @param body the `Status` object, as text or parsed; any other body is ignored
 * @param headers with names in lower case
 */
export function fromAnswer(status: number, body: unknown, headers: Readonly<JsonObject>, what: string): KubeError {
  const answer = parseStatus(body);
  const reason = str(answer?.['reason']) || undefined;
  const kind = kindOf(status);
  const causes = causesOf(answer);
  const retryAfterMs = retryAfterOf(headers, answer);
  const permission = kind === 'Forbidden' ? permissionOf(str(answer?.['message'])) : undefined;
  return new KubeError(`${what}: ${detailsText(kind, status, reason, answer, causes)}`, {
    kind,
    status,
    causes,
    ...(reason === undefined ? {} : { reason }),
    ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
    ...(permission === undefined ? {} : { permission }),
  });
}

/** The HTTP status of a thrown value; undefined if it has none. */
function statusOf(value: unknown): number | undefined {
  if (typeof value !== 'object' || value === null) return undefined;
  const { status, statusCode, code } = value as { status?: unknown; statusCode?: unknown; code?: unknown };
  return [status, statusCode, code].find((n): n is number => typeof n === 'number' && n >= 100 && n <= 599);
}

function kindOf(status: number): KubeErrorKind {
  switch (status) {
    case 400:
    case 415:
    case 422:
      return 'Invalid';
    case 401:
    case 403:
      return 'Forbidden';
    case 404:
      return 'NotFound';
    case 409:
      return 'Conflict';
    case 410:
      return 'Gone';
    case 429:
      return 'TooManyRequests';
    case 408:
      return 'Unavailable';
    default:
      return status >= 500 ? 'Unavailable' : 'Unknown';
  }
}

/** The `Status` object of a body; undefined if the body is something else. */
function parseStatus(body: unknown): JsonObject | undefined {
  let parsed = body;
  if (typeof body === 'string') {
    try {
      parsed = JSON.parse(body);
    } catch {
      return undefined;
    }
  }
  return isObject(parsed) && parsed['kind'] === 'Status' ? parsed : undefined;
}

function causesOf(answer: JsonObject | undefined): KubeErrorCause[] {
  const text = (value: unknown): string => cut(printable(str(value).slice(0, 1000)), 200);
  return items(dig(answer, 'details', 'causes'))
    .filter(isObject)
    .slice(0, 20)
    .map((cause) => ({ reason: text(cause['reason']), field: text(cause['field']), message: text(cause['message']) }));
}

/**
 * The permission that a message of RBAC names. undefined: another component than RBAC rejected the request. Source:
 * https://github.com/kubernetes/kubernetes, staging/src/k8s.io/apiserver/pkg/endpoints/handlers/responsewriters/errors.go
 */
function permissionOf(message: string): Permission | undefined {
  const pattern =
    /User "([^"]{1,300})" cannot (\S{1,60}) resource "([^"]{1,300})" in API group "([^"]{0,253})" (?:in the namespace "([^"]{1,63})"|at the cluster scope)/;
  const [, user, verb, resource, group, namespace] = pattern.exec(printable(message.slice(0, 2000))) ?? [];
  if (verb === undefined || resource === undefined || group === undefined) return undefined;
  return { verb, resource, group, namespace, user };
}

/** The requested wait in milliseconds, at most one hour; undefined if there is none. */
function retryAfterOf(headers: Readonly<JsonObject>, answer: JsonObject | undefined): number | undefined {
  const asked = dig(answer, 'details', 'retryAfterSeconds');
  const header = str(headers['retry-after']);
  const seconds = typeof asked === 'number' ? asked : Number(/^[0-9]+$/.test(header) ? header : NaN);
  return seconds > 0 ? Math.min(seconds, 3600) * 1000 : undefined;
}

/**
 * The message text: status, reason and rejected fields. For a missing permission it is the text of the API server, which names verb, resource
 * and namespace.
 */
function detailsText(
  kind: KubeErrorKind,
  status: number,
  reason: string | undefined,
  answer: JsonObject | undefined,
  causes: readonly KubeErrorCause[],
): string {
  const message = answer?.['message'];
  if (kind === 'Forbidden' && typeof message === 'string') return cut(printable(message.slice(0, 1000)), 300);
  const fields = causes.map((cause) => `${cause.field} (${cause.reason})`).join(', ');
  return cut([`${status} ${reason ?? kind}`, fields].filter((part) => part !== '').join(': '), 300);
}

/** @param through names the proxy that the request went through; empty: none */
function fromNetwork(value: unknown, what: string, through: string): KubeError {
  if (!isError(value)) return new KubeError(`${what}: failed`, { kind: 'Unknown' });
  if (value.name === 'TimeoutError') {
    return new KubeError(`${what}: no answer in time${through}`, { kind: 'Unavailable', reason: 'Timeout' });
  }
  if (value.name === 'AbortError') {
    return new KubeError(`${what}: aborted`, { kind: 'Unavailable', reason: 'Aborted' });
  }
  const code = codeOf(value);
  if (code === undefined && !isFetchError(value)) {
    return new KubeError(`${what}: ${cut(value.message, 200)}`, { kind: 'Unknown' });
  }
  return new KubeError(`${what}: cannot reach the API server (${code ?? 'connection lost'})${through}`, {
    kind: 'Unavailable',
    ...(code === undefined ? {} : { reason: code }),
  });
}

/** Whether undici threw the error: `fetch failed` before a response, `terminated` during one. */
function isFetchError(error: Error): boolean {
  return error.name === 'TypeError' && (error.message === 'fetch failed' || error.message === 'terminated');
}

/** The code of an error or of its causes, such as ECONNREFUSED, UND_ERR_SOCKET or a TLS code; undefined if there is none. */
function codeOf(error: Error): string | undefined {
  for (let at: unknown = error, depth = 0; isError(at) && depth < 5; at = at.cause, depth++) {
    const { code } = at as { code?: unknown };
    if (typeof code === 'string' && /^[A-Z0-9_]{2,60}$/.test(code)) return code;
  }
  return undefined;
}
