/** Sends HTTP requests to the API server, with credentials, the connection pool and a time limit. Failures become `KubeError`. */
import { IsomorphicFetchHttpLibrary, RequestContext, type HttpMethod, type KubeConfig } from '@kubernetes/client-node';
import { isObject, type JsonObject } from '../api/json.ts';
import { fromAnswer, KubeError, toKubeError } from './errors.ts';
import type { Secret } from '../observability/secret.ts';
import { PooledKubeConfig, withoutCredentials } from './pooled-kube-config.ts';

export interface KubeRequest {
  method: HttpMethod;
  /** Starts with a slash; its segments are escaped. */
  path: string;
  query?: Readonly<Record<string, string | undefined>>;
  body?: JsonObject | unknown[];
  /** Content type of the body; default `application/json`. */
  contentType?: string;
  signal?: AbortSignal | undefined;
  /** A token to send in place of the credentials of the KubeConfig. */
  token?: Secret | undefined;
  /** Description of the request for error messages, such as `get pods istio-system/istiod`. */
  what: string;
}

/** Sends a request and returns the JSON object of the response. Throws `KubeError`. */
export type Send = (request: KubeRequest) => Promise<JsonObject>;

/** Sends a request and returns the text of the response. Throws `KubeError`. */
export type SendForText = (request: KubeRequest) => Promise<string>;

export interface TransportOptions {
  /** Time limit of a request, in milliseconds; default 30 s. Watches do not use this transport. */
  timeoutMs?: number;
}

const userAgent = 'istio-vault-ca';

/** Creates a `Send` with the credentials and connections of the KubeConfig. */
export function createTransport(kubeConfig: KubeConfig, options: TransportOptions = {}): Send {
  const send = createTextTransport(kubeConfig, options);
  return async (request) => parse(await send(request), request.what);
}

/** Like `createTransport`, for responses that are not JSON, such as logs. */
export function createTextTransport(kubeConfig: KubeConfig, options: TransportOptions = {}): SendForText {
  const http = new IsomorphicFetchHttpLibrary();
  const { timeoutMs = 30_000 } = options;
  const proxy = kubeConfig instanceof PooledKubeConfig ? kubeConfig.proxy : undefined;
  let bare: PooledKubeConfig | undefined;

  return async (request) => {
    const timeout = AbortSignal.timeout(timeoutMs);
    const signal = request.signal === undefined ? timeout : AbortSignal.any([timeout, request.signal]);
    try {
      signal.throwIfAborted();
      const context = toContext(kubeConfig, request);
      context.setSignal(signal);
      const { token } = request;
      const credentials = token === undefined ? kubeConfig : (bare ??= withoutCredentials(kubeConfig));
      await credentials.applySecurityAuthentication(context);
      if (token) context.setHeaderParam('Authorization', `Bearer ${token.reveal()}`);
      const answer = await http.send(context).toPromise();
      const text = await answer.body.text();
      if (answer.httpStatusCode >= 300) throw fromAnswer(answer.httpStatusCode, text, answer.headers, request.what);
      return text;
    } catch (error) {
      if (timeout.aborted) throw toKubeError(timeout.reason, request.what, proxy);
      if (signal.aborted) throw toKubeError(new DOMException('aborted', 'AbortError'), request.what);
      throw toKubeError(error, request.what, proxy);
    }
  };
}

function toContext(kubeConfig: KubeConfig, request: KubeRequest): RequestContext {
  const server = kubeConfig.getCurrentCluster()?.server;
  if (server === undefined) throw new KubeError('no current cluster', { kind: 'Unknown' });
  const context = new RequestContext(server.replace(/\/+$/, '') + request.path, request.method);
  for (const [name, value] of Object.entries(request.query ?? {})) {
    if (value !== undefined) context.setQueryParam(name, value);
  }
  // Logs are plain text, but their error responses are JSON.
  context.setHeaderParam('Accept', 'application/json, */*');
  context.setHeaderParam('User-Agent', userAgent);
  if (request.body !== undefined) {
    context.setHeaderParam('Content-Type', request.contentType ?? 'application/json');
    context.setBody(JSON.stringify(request.body));
  }
  return context;
}

function parse(text: string, what: string): JsonObject {
  try {
    const value: unknown = JSON.parse(text);
    if (isObject(value)) return value;
  } catch {
    // The error below does not contain the text.
  }
  throw new KubeError(`${what}: the answer is not a JSON object`, { kind: 'Unknown' });
}
