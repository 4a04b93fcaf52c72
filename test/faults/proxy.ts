/**
 * A proxy in front of a real server that counts requests and makes one of them fail, in each way a network or a server can
 * fail. The server behind it is real, and so is what it has done when an answer is lost.
 */
import http from 'node:http';
import https from 'node:https';
import type { AddressInfo } from 'node:net';

/** What happens to the one request. */
export type Fault =
  /** The connection is closed before the request is passed on. */
  | 'dropped'
  /** The request is carried out, and the connection closed instead of an answer. */
  | 'answer lost'
  /** The request is carried out, and the answer cut in its middle. */
  | 'reset'
  /** Answered by the proxy, without the server. */
  | 429
  | 500
  | 503
  /** The caller's process is killed before the request is passed on, or after it was carried out. */
  | 'killed before'
  | 'killed after';

export interface Counted {
  method: string;
  path: string;
}

interface FaultPlan {
  /** Which of the counted requests, from 1. */
  at: number;
  fault: Fault;
  /** Ends the caller, for the two kills; resolves when it is dead. */
  kill?: () => Promise<void>;
}

export interface FaultProxy {
  readonly address: string;
  /** Requests counted since `arm`. */
  readonly counted: Counted[];
  /** Whether the fault has happened. */
  readonly injected: () => boolean;
  /** Starts counting anew; without a plan nothing fails. */
  arm(counts: (request: Counted) => boolean, plan?: FaultPlan): void;
  stop(): Promise<void>;
}

/** Writes of Vault as the project counts them: no logins, no token calls, no questions about capabilities. */
export const isVaultWrite = ({ method, path }: Counted): boolean =>
  /^(POST|PUT|PATCH|DELETE)$/.test(method) &&
  !/^\/v1\/(auth\/[^/]+\/login|auth\/token\/.*|sys\/capabilities-self)$/.test(path);

const read = async (stream: NodeJS.ReadableStream): Promise<Buffer> => {
  const chunks: Buffer[] = [];
  for await (const chunk of stream) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
};

interface Upstream {
  url: URL;
  agent: http.Agent;
}

async function forward(
  upstream: Upstream,
  incoming: http.IncomingMessage,
  body: Buffer,
): Promise<{ status: number; headers: http.IncomingHttpHeaders; body: Buffer }> {
  const client = upstream.url.protocol === 'https:' ? https : http;
  return await new Promise((resolve, reject) => {
    const headers = { ...incoming.headers, host: upstream.url.host };
    const outgoing = client.request(
      new URL(incoming.url ?? '/', upstream.url),
      { method: incoming.method, headers, agent: upstream.agent },
      (answer) => {
        read(answer).then(
          (content) => resolve({ status: answer.statusCode ?? 502, headers: answer.headers, body: content }),
          reject,
        );
      },
    );
    outgoing.on('error', reject);
    outgoing.end(body);
  });
}

/** Starts a proxy on loopback, plain HTTP, in front of a server of the test's own. @param caPem of that server's certificate */
export async function startFaultProxy(target: string, caPem: string | undefined): Promise<FaultProxy> {
  const url = new URL(target);
  const upstream: Upstream = {
    url,
    agent:
      url.protocol === 'https:'
        ? new https.Agent({ keepAlive: true, ...(caPem === undefined ? {} : { ca: caPem }) })
        : new http.Agent({ keepAlive: true }),
  };
  let counts: (request: Counted) => boolean = () => false;
  let plan: FaultPlan | undefined;
  let counted: Counted[] = [];
  let injected = false;

  const handle = async (incoming: http.IncomingMessage, outgoing: http.ServerResponse): Promise<void> => {
    const body = await read(incoming);
    const request = { method: incoming.method ?? '', path: (incoming.url ?? '').split('?')[0] ?? '' };
    const isCounted = counts(request);
    if (isCounted) counted.push(request);
    const now = isCounted && plan?.at === counted.length && !injected ? plan : undefined;
    if (now) injected = true;
    if (now?.fault === 'killed before') await now.kill?.();
    if (now?.fault === 'dropped' || now?.fault === 'killed before') return void incoming.socket.destroy();
    if (typeof now?.fault === 'number') {
      outgoing
        .writeHead(now.fault, { 'content-type': 'application/json' })
        .end(JSON.stringify({ errors: ['made by the test'] }));
      return;
    }
    const answer = await forward(upstream, incoming, body);
    if (now?.fault === 'killed after') await now.kill?.();
    if (now?.fault === 'answer lost' || now?.fault === 'killed after') return void incoming.socket.destroy();
    const kept = Object.entries(answer.headers).filter(
      ([name]) => !['transfer-encoding', 'content-length'].includes(name),
    );
    const headers = Object.fromEntries(
      answer.status === 204 ? kept : [...kept, ['content-length', String(answer.body.length)]],
    );
    outgoing.writeHead(answer.status, headers);
    if (now?.fault === 'reset') {
      outgoing.write(answer.body.subarray(0, Math.max(1, answer.body.length >> 1)), () =>
        incoming.socket.resetAndDestroy(),
      );
      return;
    }
    outgoing.end(answer.body);
  };
  const server = http.createServer((incoming, outgoing) => {
    handle(incoming, outgoing).catch(() => incoming.socket.destroy());
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    address: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    get counted() {
      return counted;
    },
    injected: () => injected,
    arm(next, nextPlan) {
      [counts, plan, counted, injected] = [next, nextPlan, [], false];
    },
    stop: async () => {
      server.closeAllConnections();
      upstream.agent.destroy();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}
