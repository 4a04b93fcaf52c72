/** Failures of the API server, reduced to what the program decides by and what may be shown. */
import { dig, isObject, items, str, type JsonObject } from '../api/json.ts';
import { isError } from '../observability/is-error.ts';

export type KubeErrorKind =
  | 'NotFound'
  /** The object exists already, has another resourceVersion, or another field manager owns the field. */
  | 'Conflict'
  /** Also a token that is not accepted (401, reason `Unauthorized`). */
  | 'Forbidden'
  | 'Invalid'
  | 'Gone'
  | 'TooManyRequests'
  /** The server fails, cannot be reached, or did not answer in time. */
  | 'Unavailable'
  | 'Unknown';

/** One field that the server objects to. Of conflicts, `message` names the other manager. */
export interface KubeErrorCause {
  reason: string;
  field: string;
  message: string;
}

export interface KubeErrorDetails {
  kind: KubeErrorKind;
  status?: number;
  /** The server's own word, such as `AlreadyExists`; of failures of the network a code, `Timeout` or `Aborted`. */
  reason?: string;
  retryAfterMs?: number;
  causes?: KubeErrorCause[];
}

export class KubeError extends Error {
  override readonly name = 'KubeError';
  readonly kind: KubeErrorKind;
  readonly status?: number;
  readonly reason?: string;
  /** How long the server asks to wait, in milliseconds. */
  readonly retryAfterMs?: number;
  /** What the server objects to, field by field; texts cut to 200 characters. */
  readonly causes: readonly KubeErrorCause[];

  /** @param message short and ours: no headers, no bodies */
  constructor(message: string, details: KubeErrorDetails) {
    super(message);
    this.kind = details.kind;
    if (details.status !== undefined) this.status = details.status;
    if (details.reason !== undefined) this.reason = details.reason;
    if (details.retryAfterMs !== undefined) this.retryAfterMs = details.retryAfterMs;
    this.causes = details.causes ?? [];
  }
}

/** Whether the value is a KubeError of that kind. */
export function isKubeError(value: unknown, kind?: KubeErrorKind): value is KubeError {
  return value instanceof KubeError && (kind === undefined || value.kind === kind);
}

/** What a call gives; undefined when it fails in this way. @throws KubeError of every other kind, and what is none */
export async function unless<T>(kind: KubeErrorKind, call: Promise<T>): Promise<T | undefined> {
  try {
    return await call;
  } catch (error) {
    if (isKubeError(error, kind)) return undefined;
    throw error;
  }
}

/**
 * Makes a KubeError of anything thrown: an answer of the server, an error of client-node, a failure of the network.
 * @param what the request in words, such as `get pods istio-system/istiod`; begins the message
 */
export function toKubeError(value: unknown, what = 'request to the API server'): KubeError {
  if (value instanceof KubeError) return value;
  const status = statusOf(value);
  if (status === undefined) return fromNetwork(value, what);
  const { body, headers } = value as { body?: unknown; headers?: unknown };
  return fromAnswer(status, body, isObject(headers) ? headers : {}, what);
}

/**
 * Makes a KubeError of an HTTP answer.
 * @param body the `Status` object, as text or parsed; anything else is ignored
 * @param headers with names in lower case
 */
export function fromAnswer(status: number, body: unknown, headers: Readonly<JsonObject>, what: string): KubeError {
  const answer = parseStatus(body);
  const reason = str(answer?.['reason']) || undefined;
  const kind = kindOf(status);
  const causes = causesOf(answer);
  const retryAfterMs = retryAfter(headers, answer);
  return new KubeError(`${what}: ${words(kind, status, reason, answer, causes)}`, {
    kind,
    status,
    causes,
    ...(reason === undefined ? {} : { reason }),
    ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
  });
}

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
  const text = (value: unknown): string => cut(str(value), 200);
  return items(dig(answer, 'details', 'causes'))
    .filter(isObject)
    .slice(0, 20)
    .map((cause) => ({ reason: text(cause['reason']), field: text(cause['field']), message: text(cause['message']) }));
}

function retryAfter(headers: Readonly<JsonObject>, answer: JsonObject | undefined): number | undefined {
  const asked = dig(answer, 'details', 'retryAfterSeconds');
  const header = str(headers['retry-after']);
  const seconds = typeof asked === 'number' ? asked : Number(/^[0-9]+$/.test(header) ? header : NaN);
  return seconds > 0 ? Math.min(seconds, 3600) * 1000 : undefined;
}

/** What happened. Of a refusal for lack of rights the server's own text: it names verb, resource and namespace. */
function words(
  kind: KubeErrorKind,
  status: number,
  reason: string | undefined,
  answer: JsonObject | undefined,
  causes: readonly KubeErrorCause[],
): string {
  const message = answer?.['message'];
  if (kind === 'Forbidden' && typeof message === 'string') return cut(message, 300);
  const fields = causes.map((cause) => `${cause.field} (${cause.reason})`).join(', ');
  return cut([`${status} ${reason ?? kind}`, fields].filter((part) => part !== '').join(': '), 300);
}

function fromNetwork(value: unknown, what: string): KubeError {
  if (!isError(value)) return new KubeError(`${what}: failed`, { kind: 'Unknown' });
  if (value.name === 'TimeoutError') {
    return new KubeError(`${what}: no answer in time`, { kind: 'Unavailable', reason: 'Timeout' });
  }
  if (value.name === 'AbortError') {
    return new KubeError(`${what}: aborted`, { kind: 'Unavailable', reason: 'Aborted' });
  }
  const code = codeOf(value);
  if (code === undefined && !isFetchError(value)) {
    return new KubeError(`${what}: ${cut(value.message, 200)}`, { kind: 'Unknown' });
  }
  return new KubeError(`${what}: cannot reach the API server (${code ?? 'connection lost'})`, {
    kind: 'Unavailable',
    ...(code === undefined ? {} : { reason: code }),
  });
}

/** undici's own: `fetch failed` before an answer, `terminated` within one. */
function isFetchError(error: Error): boolean {
  return error.name === 'TypeError' && (error.message === 'fetch failed' || error.message === 'terminated');
}

/** The code of the error or of what caused it, such as ECONNREFUSED, UND_ERR_SOCKET or a TLS code. */
function codeOf(error: Error): string | undefined {
  for (let at: unknown = error, depth = 0; isError(at) && depth < 5; at = at.cause, depth++) {
    const { code } = at as { code?: unknown };
    if (typeof code === 'string' && /^[A-Z0-9_]{2,60}$/.test(code)) return code;
  }
  return undefined;
}

const cut = (text: string, most: number): string => (text.length <= most ? text : `${text.slice(0, most - 1)}…`);
