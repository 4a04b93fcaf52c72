/** A typed client over node-vault: the only user of it. Errors leave as `VaultError`, never as the HTTP layer's own. */
import { AsyncLocalStorage } from 'node:async_hooks';
import nodeVault from 'node-vault';
import { z } from 'zod';
import type { Secret } from '../observability/secret.ts';
import { errorOfReply, errorOfTransport, VaultError } from './errors.ts';
import { createTransport, type TlsOptions, type TransportReply, type TransportRequest } from './transport.ts';

export type JsonObject = Record<string, unknown>;
export type Method = 'GET' | 'LIST' | 'POST' | 'PUT' | 'DELETE';

export interface VaultReply {
  status: number;
  data: JsonObject;
  auth: JsonObject | undefined;
  warnings: string[];
}

export interface VaultClientOptions {
  /** `https://host:port`, already judged by the allow-list. */
  address: string;
  namespace?: string;
  tls?: TlsOptions;
  /** Deadline of one request, milliseconds. */
  timeoutMs?: number;
  /** Called once a request with the operation and the status (0: no answer). */
  onRequest?: (operation: string, status: number) => void;
}

const replySchema = z.object({
  data: z.record(z.string(), z.unknown()).nullish(),
  auth: z.record(z.string(), z.unknown()).nullish(),
  warnings: z.array(z.string()).nullish(),
});
const errorsSchema = z.object({ errors: z.array(z.string()) });
const healthSchema = z.object({
  initialized: z.boolean(),
  sealed: z.boolean(),
  standby: z.boolean(),
  performance_standby: z.boolean().optional(),
  version: z.string(),
});

export interface Health {
  product: 'Vault' | 'OpenBao';
  version: string;
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

export class VaultClient {
  readonly #vault: nodeVault.client;
  readonly #transport: ReturnType<typeof createTransport>;
  readonly #onRequest: (operation: string, status: number) => void;
  readonly #signal = new AsyncLocalStorage<{ signal: AbortSignal | undefined; reply: TransportReply | undefined }>();
  #isVault = false;

  constructor(options: VaultClientOptions) {
    const address = options.address.replace(/\/$/, '');
    this.#transport = createTransport(address, options.tls ?? {}, options.timeoutMs ?? 20_000);
    this.#onRequest = options.onRequest ?? (() => undefined);
    const rp = async (request: TransportRequest) => {
      const call = this.#signal.getStore();
      const reply = await this.#transport.send(request, call?.signal);
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
  async call(
    method: Method,
    path: string,
    body?: JsonObject,
    options: { allow?: number[]; signal?: AbortSignal } = {},
  ): Promise<VaultReply> {
    const operation =
      method === 'GET' ? 'read' : method === 'POST' || method === 'PUT' ? 'write' : method.toLowerCase();
    const reply = await this.#exchange(method, path, body, operation, options.signal);
    const ok = reply.statusCode >= 200 && reply.statusCode < 300;
    if (!ok && options.allow?.includes(reply.statusCode) !== true) {
      const messages = this.#isVault ? (errorsSchema.safeParse(reply.body).data?.errors ?? []) : [];
      throw errorOfReply(operation, path, reply.statusCode, messages);
    }
    if (ok && reply.foreign)
      throw new VaultError('Server', operation, path, reply.statusCode, 'the answer is not Vault’s');
    const parsed = replySchema.safeParse(reply.body ?? {});
    return {
      status: reply.statusCode,
      data: parsed.data?.data ?? {},
      auth: parsed.data?.auth ?? undefined,
      warnings: parsed.data?.warnings ?? [],
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

  /** `sys/health`, without a token. @throws VaultError when there is no answer, or one that is not Vault's */
  async health(signal?: AbortSignal): Promise<Health> {
    const reply = await this.#exchange('GET', 'sys/health', undefined, 'health', signal);
    const parsed = healthSchema.safeParse(reply.body);
    if (!parsed.success)
      throw new VaultError(
        'Unreachable',
        'health',
        'sys/health',
        reply.statusCode,
        `status ${reply.statusCode}: this is not Vault's health answer`,
      );
    this.#isVault = true;
    const { initialized, sealed, standby, version, performance_standby } = parsed.data;
    // OpenBao's answer has no performance_standby; Vault's has had it since 0.11
    return { product: performance_standby === undefined ? 'OpenBao' : 'Vault', version, initialized, sealed, standby };
  }

  async #exchange(
    method: Method,
    path: string,
    body: JsonObject | undefined,
    operation: string,
    signal?: AbortSignal,
  ): Promise<TransportReply> {
    const call: { signal: AbortSignal | undefined; reply: TransportReply | undefined } = { signal, reply: undefined };
    try {
      // LIST as GET: proxies on the way, and Node's own server, know no such method
      const query = method === 'LIST' ? '?list=true' : '';
      const request = { method: method === 'LIST' ? 'GET' : method, path: `/${encodePath(path)}${query}` };
      await this.#signal.run(call, () => this.#vault.request({ ...request, ...(body ? { json: body } : {}) }));
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
