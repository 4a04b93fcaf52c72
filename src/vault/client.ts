/**
 * A typed Vault client over node-vault; no other file uses node-vault. Every failed request becomes a `VaultError`: errors of the HTTP layer
 * can contain request headers.
 */
import { AsyncLocalStorage } from 'node:async_hooks';
import nodeVault from 'node-vault';
import { z } from 'zod';
import { dig, isObject, type JsonObject } from '../api/json.ts';
import type { Secret } from '../observability/secret.ts';
import { sleep, systemClock } from '../runtime/clock.ts';
import type { Proxy } from '../runtime/proxy.ts';
import { concernsNamespace, errorOfReply, errorOfTransport, VaultError, type TlsSources } from './errors.ts';
import { aborted, createTransport, type TlsOptions, type TransportReply, type TransportRequest } from './transport.ts';

export type Method = 'GET' | 'LIST' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';

export interface VaultReply {
  status: number;
  data: JsonObject;
  auth: JsonObject | undefined;
}

export interface VaultClientOptions {
  /** `https://host:port`. The caller has checked it against `--vault-addresses`. */
  address: string;
  namespace?: string;
  tls?: TlsOptions;
  /** Where `tls` is from, for messages. */
  tlsSources?: TlsSources;
  /** The proxy that the connection goes through; undefined: none. */
  proxy?: Proxy | undefined;
  /** Deadline of one HTTP request, in milliseconds; default 20 s. */
  timeoutMs?: number;
  /** How long the client repeats a request that the server rejects temporarily, in milliseconds; default 15 s. */
  patienceMs?: number;
  /** Receives the operation and the HTTP status of each call. Status 0 means that there was no response. */
  onRequest?: (operation: string, status: number) => void;
}

const replySchema = z.object({
  data: z.record(z.string(), z.unknown()).nullish(),
  auth: z.record(z.string(), z.unknown()).nullish(),
});
const keysSchema = z.object({ keys: z.array(z.string()) });
const healthSchema = z.object({
  initialized: z.boolean(),
  sealed: z.boolean(),
  standby: z.boolean(),
  performance_standby: z.boolean().optional(),
  version: z.string().regex(/^[\x20-\x7e]{1,100}$/),
  // seconds since the epoch
  server_time_utc: z.number().default(0),
});

/** The response of `sys/health`. */
export interface Health {
  product: 'Vault' | 'OpenBao';
  version: string;
  /** The server's clock, in milliseconds since the epoch. */
  time: number;
  initialized: boolean;
  sealed: boolean;
  standby: boolean;
}

/**
 * Escapes each segment of a path, so that a name cannot address another path.
 * @throws RangeError for the segments ``, `.` and `..`, which URL parsers resolve
 */
function encodePath(path: string): string {
  const segments = path.split('/');
  if (segments.some((segment) => ['', '.', '..'].includes(segment)))
    throw new RangeError('a path with an empty or dotted segment');
  return segments.map(encodeURIComponent).join('/');
}

/** Maximum number of error texts of a response that are looked at, and of UTF-16 code units of each. */
const mostErrors = 10;
const longestError = 4096;

/** The `errors` of a response; undefined if it has none, so that it is not an error response of Vault. */
function errorsOf(body: unknown): string[] | undefined {
  const errors = dig(body, 'errors');
  if (!Array.isArray(errors)) return undefined;
  const texts = errors.slice(0, mostErrors);
  return texts.every((text) => typeof text === 'string') ? texts.map((text) => text.slice(0, longestError)) : undefined;
}

/** Whether the body of an error response is Vault's: a list of errors, or the metadata of a deleted version (KV 2). */
const isVaultErrorBody = (body: unknown): boolean => errorsOf(body) !== undefined || isObject(dig(body, 'data'));

/** Errors of a KV 2 mount shortly after it was enabled; standbys return them somewhat longer. */
const mountNotReady = /upgrad(e|ing) from non-versioned|until migration has completed/i;

/**
 * Whether the server rejected the request temporarily and without executing it. Causes: a rate limit (429), a standby that lags behind (412),
 * or a new mount (400).
 */
function isTemporaryRejection({ statusCode, body }: TransportReply): boolean {
  if (statusCode !== 400) return statusCode === 429 || statusCode === 412;
  return errorsOf(body)?.some((text) => mountNotReady.test(text)) === true;
}

/**
 * Checks that the server can process requests. A standby passes, because it forwards requests to the active node.
 * @throws VaultError of kind `Uninitialized` or `Sealed`
 */
export function assertServing(health: Health, address: string): void {
  const fail = (kind: 'Uninitialized' | 'Sealed', what: string) => {
    throw new VaultError(kind, 'health', 'sys/health', 0, `${health.product} at ${address} is ${what}`);
  };
  if (!health.initialized) fail('Uninitialized', 'not initialized');
  if (health.sealed) fail('Sealed', 'sealed');
}

/**
 * Returns the later of two storage indices (`X-Vault-Index`). The values are base64: of `{"cluster":…,"value":"41"}` in OpenBao, of
 * `v1:<cluster>:41:…` in Vault Enterprise. If the form is unknown, `next` is returned.
 */
function laterIndex(known: string | undefined, next: string): string {
  const value = (index: string): number => {
    const text = Buffer.from(index, 'base64').toString('latin1');
    return Number((/"value":"(\d+)"/.exec(text) ?? /^v1:[^:]*:(\d+):/.exec(text))?.[1] ?? NaN);
  };
  return known !== undefined && value(known) > value(next) ? known : next;
}

/** The request without token and Vault namespace. */
function anonymous(request: TransportRequest): TransportRequest {
  const headers = Object.entries(request.headers ?? {}).filter(([name]) => !/^x-vault-(token|namespace)$/i.test(name));
  return { ...request, headers: Object.fromEntries(headers) };
}

/** What one request of node-vault passes to its transport and back: node-vault itself returns only the body. */
interface Exchange {
  reply: TransportReply | undefined;
  readonly signal: AbortSignal | undefined;
}

/** A server, with the token and what its responses showed. Clients of different signals share it. */
class Connection {
  readonly vault: nodeVault.client;
  readonly onRequest: (operation: string, status: number) => void;
  readonly exchange = new AsyncLocalStorage<Exchange>();
  /** The clients of this connection, by signal. */
  readonly clients = new WeakMap<AbortSignal, VaultClient>();
  /** The product according to the last health response; undefined before the first one, and if the server is not Vault. */
  product: Health['product'] | undefined;
  readonly proxy: Proxy | undefined;
  readonly tlsSources: TlsSources;
  readonly #transport: ReturnType<typeof createTransport>;
  readonly #patienceMs: number;
  /** The storage index of the latest write. Standbys of OpenBao and Vault Enterprise process reads themselves and can lag behind. */
  #index: string | undefined;

  constructor(options: VaultClientOptions) {
    const address = options.address.replace(/\/$/, '');
    this.proxy = options.proxy;
    this.tlsSources = options.tlsSources ?? {};
    this.#transport = createTransport(address, options.tls ?? {}, options.timeoutMs ?? 20_000, options.proxy);
    this.#patienceMs = options.patienceMs ?? 15_000;
    this.onRequest = options.onRequest ?? (() => undefined);
    const rp = async (request: TransportRequest) => {
      const exchange = this.exchange.getStore();
      const health = request.uri.endsWith('/v1/sys/health');
      const bound = { ...request, signal: exchange?.signal };
      // status 429 of sys/health means standby and is no rate limit
      const reply = health ? await this.#transport.send(anonymous(bound)) : await this.#sendPatiently(bound);
      if (exchange) exchange.reply = reply;
      return reply;
    };
    // Every setting is explicit: node-vault falls back to VAULT_ADDR, VAULT_TOKEN, VAULT_NAMESPACE and VAULT_PREFIX.
    this.vault = nodeVault({
      endpoint: address,
      apiVersion: 'v1',
      pathPrefix: '',
      token: '',
      debug: () => undefined,
      ['request-promise']: { defaults: () => rp },
    });
    this.vault.token = '';
    Object.assign(this.vault, { namespace: options.namespace ?? '', pathPrefix: '' });
  }

  close(): void {
    this.#transport.close();
  }

  /**
   * Repeats a temporarily rejected request until the server executes it, or `patienceMs` after its first attempt. Repetitions are safe:
   * nothing was executed.
   */
  async #sendPatiently(request: TransportRequest): Promise<TransportReply> {
    const startMs = systemClock.elapsed();
    for (;;) {
      const reply = await this.#transport.send({ ...request, headers: { ...request.headers, ...this.#consistency() } });
      if (reply.index !== undefined) this.#index = laterIndex(this.#index, reply.index);
      const pauseMs = reply.statusCode === 429 ? Math.max(100, reply.retryAfterMs ?? 1_000) : 100;
      const patient = systemClock.elapsed() - startMs + pauseMs <= this.#patienceMs;
      if (!isTemporaryRejection(reply) || !patient) return reply;
      // if the signal aborts, the next attempt fails at once
      await sleep(systemClock, pauseMs, request.signal);
    }
  }

  /**
   * Headers that make a read see the latest write (read-after-write consistency). OpenBao forwards such a read to the active node. Vault
   * rejects the forwarding header unless its configuration permits it, so the header is sent to OpenBao only.
   */
  #consistency(): Record<string, string> {
    if (this.#index === undefined) return {};
    const forward = this.product === 'OpenBao' ? { 'X-Vault-Inconsistent': 'forward-active-node' } : {};
    return { 'X-Vault-Index': this.#index, ...forward };
  }
}

export class VaultClient {
  readonly #connection: Connection;
  readonly #signal: AbortSignal | undefined;

  /** @param signal if it aborts, the requests of this client fail */
  constructor(options: VaultClientOptions | Connection, signal?: AbortSignal) {
    this.#connection = options instanceof Connection ? options : new Connection(options);
    this.#signal = signal;
  }

  /**
   * Returns a client with the same connection and token, whose requests fail with kind `Unreachable` when the signal aborts. Writes that were
   * sent before are still waited for; each request has its own time limit.
   */
  within(signal: AbortSignal): VaultClient {
    const { clients } = this.#connection;
    const client = clients.get(signal) ?? new VaultClient(this.#connection, signal);
    clients.set(signal, client);
    return client;
  }

  /** Sets the token for further calls; undefined removes it. */
  useToken(token: Secret | undefined): void {
    this.#connection.vault.token = token?.reveal() ?? '';
  }

  close(): void {
    this.#connection.close();
  }

  /**
   * Sends one request.
   * @param path without `v1/`, unescaped
   * @param options.allow error statuses to return instead of throwing, such as 404
   * @throws VaultError for every other error status, and if the response is not Vault's
   */
  async call(method: Method, path: string, body?: JsonObject, options: { allow?: number[] } = {}): Promise<VaultReply> {
    const operation =
      method === 'GET' ? 'read' : method === 'POST' || method === 'PUT' ? 'write' : method.toLowerCase();
    const reply = await this.#exchange(method, path, body, operation);
    const ok = reply.statusCode >= 200 && reply.statusCode < 300;
    const messages = this.#connection.product ? (errorsOf(reply.body) ?? []) : [];
    // an object of a namespace that does not exist is not an object that does not exist
    const allowed =
      options.allow?.includes(reply.statusCode) === true && !concernsNamespace(reply.statusCode, messages);
    if (!ok && !allowed) throw errorOfReply(operation, path, reply.statusCode, messages);
    const parsed = replySchema.safeParse(reply.body ?? {});
    // The response of an ingress, or the error page of a proxy, shows neither success nor absence.
    if (reply.foreign || !parsed.success || (allowed && !isVaultErrorBody(reply.body))) {
      throw new VaultError(
        'Server',
        operation,
        path,
        reply.statusCode,
        `status ${reply.statusCode}: the answer is not Vault's`,
      );
    }
    return {
      status: reply.statusCode,
      data: parsed.data.data ?? {},
      auth: parsed.data.auth ?? undefined,
    };
  }

  /** Reads a path. @returns `data`; undefined if Vault responds with status 404 @throws VaultError */
  async read(path: string): Promise<JsonObject | undefined> {
    const reply = await this.call('GET', path, undefined, { allow: [404] });
    return reply.status === 404 ? undefined : reply.data;
  }

  /** Lists the keys below a path. @returns empty if Vault responds with status 404, as it does for an empty list @throws VaultError */
  async list(path: string): Promise<string[]> {
    const reply = await this.call('LIST', path, undefined, { allow: [404] });
    return reply.status === 404 ? [] : keysSchema.parse(reply.data).keys;
  }

  /** Writes a path with POST. @throws VaultError */
  async write(path: string, body: JsonObject): Promise<VaultReply> {
    return await this.call('POST', path, body);
  }

  /** Changes some fields of an object (JSON merge patch) and leaves the others. @throws VaultError */
  async patch(path: string, body: JsonObject): Promise<void> {
    await this.call('PATCH', path, body);
  }

  /** Deletes a path. @throws VaultError */
  async delete(path: string): Promise<void> {
    await this.call('DELETE', path);
  }

  /**
   * Reads `sys/health`. The request has no token and no Vault namespace: the path does not exist inside a namespace.
   * @throws VaultError if there is no response, or if it is not Vault's
   */
  async health(): Promise<Health> {
    const reply = await this.#exchange('GET', 'sys/health', undefined, 'health');
    const parsed = healthSchema.safeParse(reply.body);
    if (!parsed.success)
      throw new VaultError(
        'Unreachable',
        'health',
        'sys/health',
        reply.statusCode,
        `status ${reply.statusCode}: this is not Vault's health answer`,
      );
    const { initialized, sealed, standby, version, performance_standby, server_time_utc } = parsed.data;
    // Vault's response has performance_standby since 0.11; OpenBao's has not.
    const product = performance_standby === undefined ? 'OpenBao' : 'Vault';
    this.#connection.product = product;
    return { product, version, time: server_time_utc * 1000, initialized, sealed, standby };
  }

  async #exchange(
    method: Method,
    path: string,
    body: JsonObject | undefined,
    operation: string,
  ): Promise<TransportReply> {
    const { vault, exchange, onRequest } = this.#connection;
    // a write that was sent is waited for: Vault can execute it after an abort, when the next reconcile has already looked
    const isRead = method === 'GET' || method === 'LIST';
    const call: Exchange = { reply: undefined, signal: isRead ? this.#signal : undefined };
    try {
      // LIST is sent as GET: proxies and Node's HTTP server do not know the method LIST.
      const query = method === 'LIST' ? '?list=true' : '';
      const request = { method: method === 'LIST' ? 'GET' : method, path: `/${encodePath(path)}${query}` };
      if (this.#signal?.aborted) throw Object.assign(new Error('aborted'), { code: aborted });
      await exchange.run(call, () => vault.request({ ...request, ...(body ? { json: body } : {}) }));
    } catch (error) {
      if (!call.reply) {
        onRequest(operation, 0);
        throw errorOfTransport(operation, path, error, this.#connection);
      }
      // node-vault rejects error statuses; the caller evaluates the response.
    }
    if (!call.reply) throw new VaultError('Unreachable', operation, path, 0, 'no answer');
    onRequest(operation, call.reply.statusCode);
    return call.reply;
  }
}
