/**
 * The HTTP transport under node-vault: one keep-alive agent a client, a deadline for every request, no redirects, bounded
 * answers, no proxy or token from the environment.
 */
import http from 'node:http';
import https from 'node:https';

export interface TlsOptions {
  /** PEM of the CA that signs the server's certificate; Node's own list if unset (`--use-system-ca` adds the system's). */
  ca?: string;
  /** PEM of the client's certificate and key, for mutual TLS. */
  cert?: string;
  key?: string;
  serverName?: string;
}

/** What node-vault hands to a transport. */
export interface TransportRequest {
  method: string;
  uri: string;
  headers?: Record<string, string>;
  json?: unknown;
}

export interface TransportReply {
  statusCode: number;
  body: unknown;
  /** The body was neither empty nor JSON: it is not Vault's. */
  foreign: boolean;
  /** Of the cluster's storage, as the server names it; sent back, a standby that lags behind knows that it does. */
  index: string | undefined;
  /** How long the server asks to wait, in milliseconds. */
  retryAfterMs: number | undefined;
  request: { path: string };
}

const maxBytes = 8 * 1024 * 1024;

function send(request: TransportRequest, agent: http.Agent, timeoutMs: number): Promise<TransportReply> {
  const url = new URL(request.uri);
  const body = typeof request.json === 'object' && request.json !== null ? JSON.stringify(request.json) : undefined;
  const headers: Record<string, string> = { ...request.headers, 'X-Vault-Request': 'true' };
  if (body !== undefined) {
    headers['Content-Type'] ??= 'application/json';
    headers['Content-Length'] = String(Buffer.byteLength(body));
  }
  const client = url.protocol === 'https:' ? https : http;
  return new Promise((resolve, reject) => {
    const deadline = AbortSignal.timeout(timeoutMs);
    const options = {
      agent,
      method: request.method,
      headers,
      signal: deadline,
    };
    const outgoing = client.request(url, options, (incoming) => {
      const chunks: Buffer[] = [];
      let size = 0;
      incoming.on('data', (chunk: Buffer) => {
        size += chunk.length;
        if (size > maxBytes) incoming.destroy(Object.assign(new Error('answer too large'), { code: 'ETOOLARGE' }));
        else chunks.push(chunk);
      });
      incoming.on('error', reject);
      incoming.on('end', () => {
        resolve({
          statusCode: incoming.statusCode ?? 0,
          index: headerOf(incoming, 'x-vault-index'),
          retryAfterMs: secondsOf(headerOf(incoming, 'retry-after')),
          request: { path: url.pathname },
          ...parseBody(Buffer.concat(chunks).toString('utf8')),
        });
      });
    });
    outgoing.on('error', (error) => {
      reject(deadline.aborted ? Object.assign(new Error('deadline passed'), { code: 'ETIMEDOUT' }) : error);
    });
    outgoing.end(body);
  });
}

/** A header as it goes back into a request: short, and nothing that could end a line. */
function headerOf({ headers }: http.IncomingMessage, name: string): string | undefined {
  const value = headers[name];
  return typeof value === 'string' && /^[\x21-\x7e]{1,1000}$/.test(value) ? value : undefined;
}

const secondsOf = (text: string | undefined): number | undefined =>
  text !== undefined && /^[0-9]{1,6}$/.test(text) ? Number(text) * 1000 : undefined;

/** JSON, or nothing: a body that is not JSON is not Vault's, and is not passed on. */
function parseBody(text: string): Pick<TransportReply, 'body' | 'foreign'> {
  try {
    return { body: text === '' ? undefined : (JSON.parse(text) as unknown), foreign: false };
  } catch {
    return { body: undefined, foreign: true };
  }
}

/** Makes the transport of one client. @param timeoutMs deadline of a request, in milliseconds */
export function createTransport(address: string, tls: TlsOptions, timeoutMs: number) {
  const secure = address.startsWith('https:');
  const agentOptions = { keepAlive: true, maxSockets: 16 };
  const { serverName, ...pem } = tls;
  const agent = secure
    ? new https.Agent({ ...agentOptions, ...pem, ...(serverName !== undefined ? { servername: serverName } : {}) })
    : new http.Agent(agentOptions);
  return {
    send: (request: TransportRequest) => send(request, agent, timeoutMs),
    close: () => agent.destroy(),
  };
}
