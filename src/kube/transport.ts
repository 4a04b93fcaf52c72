/** One HTTP request to the API server: credentials, pool, time limit, and failures as KubeError. */
import { IsomorphicFetchHttpLibrary, RequestContext, type HttpMethod, type KubeConfig } from '@kubernetes/client-node';
import { isObject, type JsonObject } from '../api/json.ts';
import { fromAnswer, KubeError, toKubeError } from './errors.ts';

export interface KubeRequest {
  method: HttpMethod;
  /** Begins with a slash; segments are encoded. */
  path: string;
  query?: Readonly<Record<string, string | undefined>>;
  body?: JsonObject | unknown[];
  /** Of the body; JSON unless given. */
  contentType?: string;
  signal?: AbortSignal | undefined;
  /** The request in words, for errors. */
  what: string;
}

/** Sends the request; gives the object that the server answers with. Throws KubeError. */
export type Send = (request: KubeRequest) => Promise<JsonObject>;

/** Sends the request; gives the text that the server answers with. Throws KubeError. */
export type SendForText = (request: KubeRequest) => Promise<string>;

export interface TransportOptions {
  /** How long a request may take, in milliseconds; 30 s unless given. Watches do not go this way. */
  timeoutMs?: number;
}

const userAgent = 'istio-vault-ca';

/** A `Send` on the credentials and connections of the KubeConfig. */
export function createTransport(kubeConfig: KubeConfig, options: TransportOptions = {}): Send {
  const send = createTextTransport(kubeConfig, options);
  return async (request) => parse(await send(request), request.what);
}

/** As `createTransport`, for answers that are no JSON, such as logs. */
export function createTextTransport(kubeConfig: KubeConfig, options: TransportOptions = {}): SendForText {
  const http = new IsomorphicFetchHttpLibrary();
  const { timeoutMs = 30_000 } = options;

  return async (request) => {
    const timeout = AbortSignal.timeout(timeoutMs);
    const signal = request.signal === undefined ? timeout : AbortSignal.any([timeout, request.signal]);
    try {
      signal.throwIfAborted();
      const context = toContext(kubeConfig, request);
      context.setSignal(signal);
      await kubeConfig.applySecurityAuthentication(context);
      const answer = await http.send(context).toPromise();
      const text = await answer.body.text();
      if (answer.httpStatusCode >= 300) throw fromAnswer(answer.httpStatusCode, text, answer.headers, request.what);
      return text;
    } catch (error) {
      if (timeout.aborted) throw toKubeError(timeout.reason, request.what);
      if (signal.aborted) throw toKubeError(new DOMException('aborted', 'AbortError'), request.what);
      throw toKubeError(error, request.what);
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
  // logs are plain text, errors about them JSON
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
    // Said below, without the text.
  }
  throw new KubeError(`${what}: the answer is not a JSON object`, { kind: 'Unknown' });
}
