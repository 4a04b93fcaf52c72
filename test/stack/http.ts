import { request as httpRequest, type ClientRequest, type IncomingMessage } from 'node:http';
import { Agent, request as httpsRequest } from 'node:https';
import type { Answer } from './types.ts';

export interface CallOptions {
  readonly method?: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** A string is sent unchanged, anything else as JSON. */
  readonly body?: unknown;
  /** PEM; the only CA that is trusted. */
  readonly ca?: string | undefined;
  /** Path of a unix socket to call instead of the URL's host. */
  readonly socketPath?: string;
  /** Milliseconds; default: 30000. */
  readonly timeoutMs?: number;
}

/**
 * Connections to servers of a run are reused: a TLS handshake costs both sides several times as much as a request, and tests send
 * many requests per second. There is one HTTP agent for each CA, so that each agent trusts only its own CA.
 */
const agents = new Map<string, Agent>();

function agentFor(ca: string): Agent {
  const agent = agents.get(ca) ?? new Agent({ keepAlive: true, ca });
  agents.set(ca, agent);
  return agent;
}

function parse(text: string): unknown {
  if (text === '') return undefined;
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return text;
  }
}

/**
 * `keepAliveTimeout` for a server whose clients are Go programs, milliseconds. They close idle connections after 90 s at most. A server that
 * does so sooner, as Node's do after 5 s, can close one in the moment in which a request is sent; a POST is not repeated then.
 */
export const longerThanClients = 600_000;

/** Whether the server closed a reused connection before it accepted the request: then the request is sent again. */
const wasClosed = (request: ClientRequest, error: NodeJS.ErrnoException): boolean =>
  request.reusedSocket && (error.code === 'ECONNRESET' || error.code === 'EPIPE');

/**
 * Makes one HTTP call. With a CA it can reuse the connection of an earlier call.
 * @throws on network errors and after the timeout, never on a status
 */
export function call(url: string, options: CallOptions = {}): Promise<Answer> {
  const { body, ca, socketPath, timeoutMs = 30_000 } = options;
  const payload = body === undefined || typeof body === 'string' ? body : JSON.stringify(body);
  const settings = {
    method: options.method ?? 'GET',
    headers: {
      ...(payload === undefined ? {} : { 'content-length': String(Buffer.byteLength(payload)) }),
      ...options.headers,
    },
    agent: ca === undefined ? (false as const) : agentFor(ca),
    signal: AbortSignal.timeout(timeoutMs),
    ...(socketPath === undefined ? {} : { socketPath }),
  };
  const send = url.startsWith('https:') ? httpsRequest : httpRequest;
  return new Promise((resolve, reject) => {
    const onResponse = (response: IncomingMessage): void => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.on('error', reject);
      response.on('end', () => {
        resolve({ status: response.statusCode ?? 0, body: parse(Buffer.concat(chunks).toString('utf8')) });
      });
    };
    const attempt = (): void => {
      const request = send(url, settings, onResponse);
      request.on('error', (error) => {
        if (wasClosed(request, error)) attempt();
        else reject(error);
      });
      request.end(payload);
    };
    attempt();
  });
}

/** Returns the body of the response if the status is expected. @throws with the call and the response otherwise */
export function expectStatus(answer: Answer, statuses: readonly number[], what: string): unknown {
  if (statuses.includes(answer.status)) return answer.body;
  throw new Error(`${what}: HTTP ${answer.status}: ${JSON.stringify(answer.body)}`);
}
