/**
 * The HTTP transport below node-vault: one keep-alive agent per client, a deadline for every request, a limit on the response size. It does
 * not follow redirects, takes no token from the environment, and uses the proxy that it is given, no other.
 */
import http from 'node:http';
import https from 'node:https';
import type { Proxy } from '../runtime/proxy.ts';
import { TunnelAgent } from './tunnel.ts';

export interface TlsOptions {
  /** CA certificates in PEM for the server certificate; default: Node's own list (`--use-system-ca` adds those of the system). */
  ca?: string;
  /** Client certificate in PEM, for mutual TLS. */
  cert?: string;
  /** Private key of the client certificate, in PEM. */
  key?: string;
  /** Name for SNI and for the verification of the server certificate; default: the host of the address. */
  serverName?: string;
}

/** A request as node-vault passes it to its transport. */
export interface TransportRequest {
  method: string;
  uri: string;
  headers?: Record<string, string>;
  json?: unknown;
  /** If it aborts, the request fails. */
  signal?: AbortSignal | undefined;
}

export interface TransportReply {
  statusCode: number;
  body: unknown;
  /** Whether the body is neither empty nor JSON, so that the response is not Vault's. */
  foreign: boolean;
  /** Storage index (`X-Vault-Index`); undefined if absent. If a later request carries it, a standby detects that it lags behind. */
  index: string | undefined;
  /** `Retry-After` of the response, in milliseconds; undefined if absent or not in seconds. */
  retryAfterMs: number | undefined;
  request: { path: string };
}

/** The largest accepted response body, in bytes; of a list, which has an entry for each key. */
const maxBytes = 1024 * 1024;
const maxListBytes = 4 * 1024 * 1024;

/** The code of the error for a request whose signal aborted. */
export const aborted = 'EABORTED';

/** The code of the error for a response body that is larger than accepted. */
export const tooLarge = 'ETOOLARGE';

/** The most memory that bodies which are being received may take together, in bytes. */
const mostTogether = 64 * 1024 * 1024;

/**
 * The body of a response while it is received, in one buffer: a server chooses how many chunks it sends, and each would take memory of its
 * own. If all bodies together become too much, the longest is given up.
 */
export class Body {
  static readonly #receiving = new Set<Body>();
  static #together = 0;
  #bytes = Buffer.alloc(0);
  #size = 0;
  readonly #most: number;
  readonly #giveUp: () => void;

  /** @param giveUp called when the body is longer than `most` bytes, or has to make room for others */
  constructor(most: number, giveUp: () => void) {
    this.#most = most;
    this.#giveUp = giveUp;
    Body.#receiving.add(this);
  }

  add(chunk: Buffer): void {
    if (!Body.#receiving.has(this)) return;
    if (this.#size + chunk.length > this.#most) {
      this.#end();
      return;
    }
    if (this.#size + chunk.length > this.#bytes.length) this.#grow(this.#size + chunk.length);
    chunk.copy(this.#bytes, this.#size);
    this.#size += chunk.length;
  }

  /** The body so far. */
  text(): string {
    return this.#bytes.toString('utf8', 0, this.#size);
  }

  /** Called when the response has ended, in whatever way. */
  release(): void {
    if (Body.#receiving.delete(this)) Body.#together -= this.#bytes.length;
  }

  #grow(least: number): void {
    const length = Math.min(this.#most, Math.max(least, 2 * this.#bytes.length, 4096));
    Body.#together += length - this.#bytes.length;
    const bytes = Buffer.alloc(length);
    this.#bytes.copy(bytes, 0, 0, this.#size);
    this.#bytes = bytes;
    while (Body.#together > mostTogether) {
      const [longest] = [...Body.#receiving].sort((a, b) => b.#bytes.length - a.#bytes.length);
      if (!longest) return;
      longest.#end();
    }
  }

  #end(): void {
    this.release();
    this.#giveUp();
  }
}

function send(request: TransportRequest, agent: http.Agent, timeoutMs: number): Promise<TransportReply> {
  const url = new URL(request.uri);
  const body = typeof request.json === 'object' && request.json !== null ? JSON.stringify(request.json) : undefined;
  const headers: Record<string, string> = { ...request.headers, 'X-Vault-Request': 'true' };
  if (body !== undefined) {
    headers['Content-Type'] ??= request.method === 'PATCH' ? 'application/merge-patch+json' : 'application/json';
    headers['Content-Length'] = String(Buffer.byteLength(body));
  }
  const client = url.protocol === 'https:' ? https : http;
  return new Promise((resolve, reject) => {
    const deadline = AbortSignal.timeout(timeoutMs);
    const most = url.searchParams.get('list') === 'true' ? maxListBytes : maxBytes;
    const signal = request.signal ? AbortSignal.any([deadline, request.signal]) : deadline;
    const options = { agent, method: request.method, headers, signal };
    const outgoing = client.request(url, options, (incoming) => {
      const body = new Body(most, () =>
        incoming.destroy(Object.assign(new Error('answer too large'), { code: tooLarge })),
      );
      incoming.on('data', (chunk: Buffer) => body.add(chunk));
      incoming.on('error', reject);
      incoming.on('close', () => body.release());
      incoming.on('end', () => {
        resolve({
          statusCode: incoming.statusCode ?? 0,
          index: headerOf(incoming, 'x-vault-index'),
          retryAfterMs: secondsOf(headerOf(incoming, 'retry-after')),
          request: { path: url.pathname },
          ...parseBody(body.text()),
        });
      });
    });
    const reasonOf = (error: Error): Error => {
      if (deadline.aborted) return Object.assign(new Error('deadline passed'), { code: 'ETIMEDOUT' });
      return signal.aborted ? Object.assign(new Error('aborted'), { code: aborted }) : error;
    };
    outgoing.on('error', (error) => reject(reasonOf(error)));
    // a request learns of it only once it has a connection, which in a tunnel takes a while
    const onAbort = () => reject(reasonOf(new Error('aborted')));
    signal.addEventListener('abort', onAbort, { once: true });
    outgoing.on('close', () => signal.removeEventListener('abort', onAbort));
    outgoing.end(body);
  });
}

/** A response header that can be sent in a request: printable ASCII without spaces, at most 1000 characters; otherwise undefined. */
function headerOf({ headers }: http.IncomingMessage, name: string): string | undefined {
  const value = headers[name];
  return typeof value === 'string' && /^[\x21-\x7e]{1,1000}$/.test(value) ? value : undefined;
}

const secondsOf = (text: string | undefined): number | undefined =>
  text !== undefined && /^[0-9]{1,6}$/.test(text) ? Number(text) * 1000 : undefined;

/** Parses a body. A body that is not JSON is not Vault's and is dropped. */
function parseBody(text: string): Pick<TransportReply, 'body' | 'foreign'> {
  try {
    return { body: text === '' ? undefined : (JSON.parse(text) as unknown), foreign: false };
  } catch {
    return { body: undefined, foreign: true };
  }
}

/**
 * Limits of connections through a proxy. Node counts a connection that takes a while to open only when it is open, so that its limit does not keep
 * any from being opened, but closes those that are over it afterwards, and leaves requests waiting behind one that could not be opened.
 */
const tunnels = { maxSockets: Infinity, maxFreeSockets: 32 };

/**
 * Creates the transport of one client.
 * @param timeoutMs deadline of a request, in milliseconds; it includes what the proxy takes
 * @param proxy undefined: the connection is direct
 */
export function createTransport(address: string, tls: TlsOptions, timeoutMs: number, proxy?: Proxy) {
  const secure = address.startsWith('https:');
  const { serverName, ...pem } = tls;
  const pool = { keepAlive: true, maxSockets: 16 };
  const encrypted = { ...pool, ...pem, ...(serverName !== undefined ? { servername: serverName } : {}) };
  const agentOf = (): http.Agent => {
    // without TLS the proxy gets the whole address of the server, as from Go programs; NO_PROXY was decided before
    if (!secure) return new http.Agent({ ...pool, proxyEnv: proxy ? { HTTP_PROXY: proxy.url } : {} });
    if (proxy) return new TunnelAgent(proxy, { ...encrypted, ...tunnels }, timeoutMs);
    return new https.Agent(encrypted);
  };
  const agent = agentOf();
  return {
    send: (request: TransportRequest) => send(request, agent, timeoutMs),
    close: () => agent.destroy(),
  };
}
