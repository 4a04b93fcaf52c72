/** A typed client over node-vault: the only user of it. Errors leave as `VaultError`, never as the HTTP layer's own. */
import { AsyncLocalStorage } from 'node:async_hooks';
import nodeVault from 'node-vault';
import { z } from 'zod';
import type { JsonObject } from '../api/json.ts';
import type { Secret } from '../observability/secret.ts';
import { sleep, systemClock } from '../runtime/clock.ts';
import { errorOfReply, errorOfTransport, VaultError } from './errors.ts';
import { createTransport, type TlsOptions, type TransportReply, type TransportRequest } from './transport.ts';

export type Method = 'GET' | 'LIST' | 'POST' | 'PUT' | 'DELETE';

export interface VaultReply {
  status: number;
  data: JsonObject;
  auth: JsonObject | undefined;
}

export interface VaultClientOptions {
  /** `https://host:port`, already judged by the allow-list. */
  address: string;
  namespace?: string;
  tls?: TlsOptions;
  /** Deadline of one request, milliseconds. */
  timeoutMs?: number;
  /** How long a request that the server turns away for now is repeated, milliseconds; 15 s unless given. */
  patienceMs?: number;
  /** Called once a request with the operation and the status (0: no answer). */
  onRequest?: (operation: string, status: number) => void;
}

const replySchema = z.object({
  data: z.record(z.string(), z.unknown()).nullish(),
  auth: z.record(z.string(), z.unknown()).nullish(),
});
const errorsSchema = z.object({ errors: z.array(z.string()) });
const healthSchema = z.object({
  initialized: z.boolean(),
  sealed: z.boolean(),
  standby: z.boolean(),
  performance_standby: z.boolean().optional(),
  version: z.string(),
  // seconds
  server_time_utc: z.number().default(0),
});

export interface Health {
  product: 'Vault' | 'OpenBao';
  version: string;
  /** Its clock, milliseconds since the epoch. */
  time: number;
  initialized: boolean;
  sealed: boolean;
  standby: boolean;
}

/**
 * Each segment escaped, so that no name can leave its place in a path.
 * @throws RangeError on segments that URL parsers take for a step up or to nowhere
 */
function encodePath(path: string): string {
  const segments = path.split('/');
  if (segments.some((segment) => ['', '.', '..'].includes(segment)))
    throw new RangeError('a path with an empty or dotted segment');
  return segments.map(encodeURIComponent).join('/');
}

/** Vault's way to say that nothing is there: errors, or the metadata of what was. */
const isVaultRefusal = (body: unknown): boolean =>
  errorsSchema.safeParse(body).success || z.object({ data: z.object({}) }).safeParse(body).success;

/** What a mount says for a moment after it was made, on standbys somewhat longer. */
const notYetUp = /upgrad(e|ing) from non-versioned|until migration has completed/i;

/** Whether the server has turned a request away untouched: a rate limit, a standby that has yet to catch up, a mount that is new. */
function turnedAway({ statusCode, body }: TransportReply): boolean {
  if (statusCode !== 400) return statusCode === 429 || statusCode === 412;
  return errorsSchema.safeParse(body).data?.errors.some((text) => notYetUp.test(text)) === true;
}

/** Vault's health as an error when it cannot serve; a standby forwards requests and serves. */
export function assertServing(health: Health, address: string): void {
  const fail = (kind: 'Uninitialized' | 'Sealed', what: string) => {
    throw new VaultError(kind, 'health', 'sys/health', 0, `${health.product} at ${address} is ${what}`);
  };
  if (!health.initialized) fail('Uninitialized', 'not initialized');
  if (health.sealed) fail('Sealed', 'sealed');
}

/**
 * The later of two storage indices. OpenBao writes base64 of `{"cluster":…,"value":"41"}`, Vault Enterprise of
 * `v1:<cluster>:41:…`; of forms that are not known the one that came last counts.
 */
function laterIndex(known: string | undefined, next: string): string {
  const value = (index: string): number => {
    const text = Buffer.from(index, 'base64').toString('latin1');
    return Number((/"value":"(\d+)"/.exec(text) ?? /^v1:[^:]*:(\d+):/.exec(text))?.[1] ?? NaN);
  };
  return known !== undefined && value(known) > value(next) ? known : next;
}

function anonymous(request: TransportRequest): TransportRequest {
  const kept = Object.entries(request.headers ?? {}).filter(([name]) => !/^x-vault-(token|namespace)$/i.test(name));
  return { ...request, headers: Object.fromEntries(kept) };
}

export class VaultClient {
  readonly #vault: nodeVault.client;
  readonly #transport: ReturnType<typeof createTransport>;
  readonly #onRequest: (operation: string, status: number) => void;
  /** Carries the whole answer past node-vault, which gives away the body only. */
  readonly #answer = new AsyncLocalStorage<{ reply: TransportReply | undefined }>();
  readonly #patienceMs: number;
  /** As its health answer tells; undefined before, and of what is not Vault. */
  #product: Health['product'] | undefined;
  /** What was written so far: standbys of OpenBao and of Vault Enterprise answer reads themselves, and may lag behind. */
  #index: string | undefined;

  constructor(options: VaultClientOptions) {
    const address = options.address.replace(/\/$/, '');
    this.#transport = createTransport(address, options.tls ?? {}, options.timeoutMs ?? 20_000);
    this.#patienceMs = options.patienceMs ?? 15_000;
    this.#onRequest = options.onRequest ?? (() => undefined);
    const rp = async (request: TransportRequest) => {
      const call = this.#answer.getStore();
      const health = request.uri.endsWith('/v1/sys/health');
      // 429 of the health check is the answer of a standby
      const reply = health ? await this.#transport.send(anonymous(request)) : await this.#sendPatiently(request);
      if (call) call.reply = reply;
      return reply;
    };
    // explicit values throughout: node-vault would read VAULT_ADDR, VAULT_TOKEN, VAULT_NAMESPACE and VAULT_PREFIX
    this.#vault = nodeVault({
      endpoint: address,
      apiVersion: 'v1',
      pathPrefix: '',
      token: '',
      debug: () => undefined,
      ['request-promise']: { defaults: () => rp },
    });
    this.#vault.token = '';
    Object.assign(this.#vault, { namespace: options.namespace ?? '', pathPrefix: '' });
  }

  /** The token of further calls. */
  useToken(token: Secret | undefined): void {
    this.#vault.token = token?.reveal() ?? '';
  }

  close(): void {
    this.#transport.close();
  }

  /**
   * One call. @param path without `v1/`, unescaped
   * @param allow statuses that are an answer and not an error
   * @throws VaultError
   */
  async call(method: Method, path: string, body?: JsonObject, options: { allow?: number[] } = {}): Promise<VaultReply> {
    const operation =
      method === 'GET' ? 'read' : method === 'POST' || method === 'PUT' ? 'write' : method.toLowerCase();
    const reply = await this.#exchange(method, path, body, operation);
    const ok = reply.statusCode >= 200 && reply.statusCode < 300;
    const allowed = options.allow?.includes(reply.statusCode) === true;
    if (!ok && !allowed) {
      const messages = this.#product ? (errorsSchema.safeParse(reply.body).data?.errors ?? []) : [];
      throw errorOfReply(operation, path, reply.statusCode, messages);
    }
    const parsed = replySchema.safeParse(reply.body ?? {});
    // an ingress, a proxy's error page: neither done nor absent
    if (reply.foreign || !parsed.success || (allowed && !isVaultRefusal(reply.body))) {
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

  /** Reads a path. @returns undefined when nothing is there (404) */
  async read(path: string): Promise<JsonObject | undefined> {
    const reply = await this.call('GET', path, undefined, { allow: [404] });
    return reply.status === 404 ? undefined : reply.data;
  }

  async write(path: string, body: JsonObject): Promise<VaultReply> {
    return await this.call('POST', path, body);
  }

  async delete(path: string): Promise<void> {
    await this.call('DELETE', path);
  }

  /** `sys/health`, without token and namespace: inside a namespace there is no such path. @throws VaultError when there is no answer, or one that is not Vault's */
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
    // OpenBao's answer has no performance_standby; Vault's has had it since 0.11
    this.#product = performance_standby === undefined ? 'OpenBao' : 'Vault';
    return { product: this.#product, version, time: server_time_utc * 1000, initialized, sealed, standby };
  }

  /** What was turned away has done nothing: it is sent again until the server takes it, or the patience is over. */
  async #sendPatiently(request: TransportRequest): Promise<TransportReply> {
    for (let waitedMs = 0; ;) {
      const reply = await this.#transport.send({ ...request, headers: { ...request.headers, ...this.#consistency() } });
      if (reply.index !== undefined) this.#index = laterIndex(this.#index, reply.index);
      const pauseMs = reply.statusCode === 429 ? Math.max(100, reply.retryAfterMs ?? 1_000) : 100;
      if (!turnedAway(reply) || waitedMs + pauseMs > this.#patienceMs) return reply;
      await sleep(systemClock, pauseMs);
      waitedMs += pauseMs;
    }
  }

  /** Asks for what was written so far. OpenBao hands such a read on; Vault must be told to in its configuration, else it refuses. */
  #consistency(): Record<string, string> {
    if (this.#index === undefined) return {};
    const forward = this.#product === 'OpenBao' ? { 'X-Vault-Inconsistent': 'forward-active-node' } : {};
    return { 'X-Vault-Index': this.#index, ...forward };
  }

  async #exchange(
    method: Method,
    path: string,
    body: JsonObject | undefined,
    operation: string,
  ): Promise<TransportReply> {
    const call: { reply: TransportReply | undefined } = { reply: undefined };
    try {
      // LIST as GET: proxies on the way, and Node's own server, know no such method
      const query = method === 'LIST' ? '?list=true' : '';
      const request = { method: method === 'LIST' ? 'GET' : method, path: `/${encodePath(path)}${query}` };
      await this.#answer.run(call, () => this.#vault.request({ ...request, ...(body ? { json: body } : {}) }));
    } catch (error) {
      if (!call.reply) {
        this.#onRequest(operation, 0);
        throw errorOfTransport(operation, path, error);
      }
      // node-vault rejects for the status; the answer is judged by the caller
    }
    if (!call.reply) throw new VaultError('Unreachable', operation, path, 0, 'no answer');
    this.#onRequest(operation, call.reply.statusCode);
    return call.reply;
  }
}
