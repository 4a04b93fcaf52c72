import { request as httpRequest, type IncomingMessage } from 'node:http';
import { request as httpsRequest } from 'node:https';
import type { Answer } from './types.ts';

export interface CallOptions {
  readonly method?: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** A string goes out as it is, anything else as JSON. */
  readonly body?: unknown;
  /** PEM; the only CA that is trusted. */
  readonly ca?: string | undefined;
  /** Path of a unix socket to call instead of the URL's host. */
  readonly socketPath?: string;
  /** Milliseconds; 30000 unless given. */
  readonly timeoutMs?: number;
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
 * One HTTP call on a connection of its own.
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
    agent: false as const,
    signal: AbortSignal.timeout(timeoutMs),
    ...(ca === undefined ? {} : { ca }),
    ...(socketPath === undefined ? {} : { socketPath }),
  };
  return new Promise((resolve, reject) => {
    const onResponse = (response: IncomingMessage): void => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.on('error', reject);
      response.on('end', () => {
        resolve({ status: response.statusCode ?? 0, body: parse(Buffer.concat(chunks).toString('utf8')) });
      });
    };
    const request = url.startsWith('https:')
      ? httpsRequest(url, settings, onResponse)
      : httpRequest(url, settings, onResponse);
    request.on('error', reject);
    request.end(payload);
  });
}

/** The answer's body, when the status is one of those expected. @throws naming the call and what came instead */
export function expectStatus(answer: Answer, statuses: readonly number[], what: string): unknown {
  if (statuses.includes(answer.status)) return answer.body;
  throw new Error(`${what}: HTTP ${answer.status}: ${JSON.stringify(answer.body)}`);
}
