/**
 * Proxies in front of the real servers that make one request of a run fail, in each way a network or a server can fail. The
 * server behind is real, so it has executed the request if an answer is lost.
 */
import http from 'node:http';
import https from 'node:https';
import type { AddressInfo } from 'node:net';
import { setTimeout as pause } from 'node:timers/promises';
import type { Fault, FaultPoint, Side } from './point.ts';

/** How long a delayed request waits: far less than the operator's timeouts. */
const delayMs = 250;

export interface Upstream {
  url: URL;
  agent: http.Agent;
}

/** A server behind proxies; its connections are shared by all of them. @param caPem of its certificate */
export function upstreamOf(address: string, caPem: string | undefined): Upstream {
  const url = new URL(address);
  const options = { keepAlive: true, maxSockets: 64 };
  const secure = new https.Agent({ ...options, ...(caPem === undefined ? {} : { ca: caPem }) });
  return { url, agent: url.protocol === 'https:' ? secure : new http.Agent(options) };
}

interface Passed {
  status: number;
  headers: http.OutgoingHttpHeaders;
  body: Buffer;
}

const read = async (stream: NodeJS.ReadableStream): Promise<Buffer> => {
  const chunks: Buffer[] = [];
  for await (const chunk of stream) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
};

function open(upstream: Upstream, incoming: http.IncomingMessage, onAnswer: (answer: http.IncomingMessage) => void) {
  const client = upstream.url.protocol === 'https:' ? https : http;
  const headers = { ...incoming.headers, host: upstream.url.host };
  const options = { method: incoming.method, headers, agent: upstream.agent };
  return client.request(new URL(incoming.url ?? '/', upstream.url), options, onAnswer);
}

const ofTheConnection = ['transfer-encoding', 'content-length', 'connection', 'keep-alive'];

/** The answer with a content length instead of chunks. */
function whole(answer: http.IncomingMessage, body: Buffer): Passed {
  const status = answer.statusCode ?? 502;
  const headers = Object.fromEntries(
    Object.entries(answer.headers).filter(([name]) => !ofTheConnection.includes(name)),
  );
  return { status, headers: status === 204 ? headers : { ...headers, 'content-length': String(body.length) }, body };
}

function forward(upstream: Upstream, incoming: http.IncomingMessage, body: Buffer): Promise<Passed> {
  return new Promise((resolve, reject) => {
    const outgoing = open(upstream, incoming, (answer) => {
      read(answer).then((content) => resolve(whole(answer, content)), reject);
    });
    outgoing.on('error', reject);
    outgoing.end(body);
  });
}

/** Passes a stream such as a watch through as it arrives. */
function stream(upstream: Upstream, incoming: http.IncomingMessage, outgoing: http.ServerResponse): void {
  const request = open(upstream, incoming, (answer) => {
    outgoing.writeHead(answer.statusCode ?? 502, answer.headers);
    outgoing.flushHeaders(); // a watch starts with its headers, long before its first event
    answer.pipe(outgoing);
    answer.on('error', () => outgoing.destroy());
  });
  request.on('error', () => outgoing.destroy());
  outgoing.on('close', () => request.destroy());
  request.end();
}

/** The error response of a failing server. */
function failure(side: Side, status: number): string {
  if (side === 'Vault') return JSON.stringify({ errors: ['made by the test'] });
  const reason = { 429: 'TooManyRequests', 500: 'InternalError', 503: 'ServiceUnavailable' }[status];
  return JSON.stringify({ kind: 'Status', apiVersion: 'v1', status: 'Failure', code: status, reason });
}

interface Exchange {
  side: Side;
  point: FaultPoint;
  incoming: http.IncomingMessage;
  outgoing: http.ServerResponse;
  /** Sends the request on, once. */
  pass: () => Promise<Passed>;
}

function answer(outgoing: http.ServerResponse, { status, headers, body }: Passed): void {
  outgoing.writeHead(status, headers).end(body);
}

async function fail(fault: Fault, { side, point, incoming, outgoing, pass }: Exchange): Promise<void> {
  const { socket } = incoming;
  const carryOut = () => pass().catch(() => undefined);
  switch (fault) {
    case 'dropped':
      socket.destroy();
      break;
    case 'answer lost':
      await carryOut();
      socket.destroy();
      break;
    case 'reset': {
      const { status, headers, body } = await pass();
      outgoing.writeHead(status, headers);
      outgoing.write(body.subarray(0, Math.max(1, body.length >> 1)), () => socket.resetAndDestroy());
      break;
    }
    case 'delayed':
      await pause(delayMs);
      answer(outgoing, await pass());
      break;
    case 'late':
      point.later(pass);
      socket.destroy();
      break;
    case 'timed out':
      point.track(new Promise((resolve) => outgoing.once('close', () => resolve(carryOut()))));
      break;
    case 'killed before':
      point.freeze();
      point.hold(socket);
      break;
    case 'killed after':
      await carryOut();
      point.freeze();
      point.hold(socket);
      break;
    case 429:
    case 500:
    case 503:
      outgoing.writeHead(fault, { 'content-type': 'application/json' }).end(failure(side, fault));
  }
}

async function exchange(
  side: Side,
  point: FaultPoint,
  upstream: Upstream,
  incoming: http.IncomingMessage,
  outgoing: http.ServerResponse,
  onPassed: (path: string, method: string, sent: number) => void,
): Promise<void> {
  const body = await read(incoming);
  if (point.isFrozen) {
    point.hold(incoming.socket);
    return;
  }
  const request = { method: incoming.method ?? '', path: (incoming.url ?? '').split('?')[0] ?? '' };
  const pass = async () => {
    const sent = Date.now();
    const passed = await forward(upstream, incoming, body);
    if (passed.status < 300) onPassed(request.path, request.method, sent);
    return passed;
  };
  const fault = point.next(side, request);
  if (fault === undefined) answer(outgoing, await pass());
  else await fail(fault, { side, point, incoming, outgoing, pass });
}

interface Proxy {
  /** Plain HTTP on loopback. */
  readonly address: string;
  stop(): Promise<void>;
}

async function listen(handle: (i: http.IncomingMessage, o: http.ServerResponse) => Promise<void>): Promise<Proxy> {
  const server = http.createServer({ keepAliveTimeout: 60_000 }, (incoming, outgoing) => {
    handle(incoming, outgoing).catch(() => incoming.socket.destroy());
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    address: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    stop: async () => {
      server.closeAllConnections();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}

/** An executed write, with the times of its request and its answer, milliseconds since the epoch. */
export interface Write {
  path: string;
  sent: number;
  answered: number;
}

/** A proxy in front of Vault for one resource. @param onWrite called for each executed write */
export function startVaultProxy(
  upstream: Upstream,
  point: FaultPoint,
  onWrite: (write: Write) => void,
): Promise<Proxy> {
  const onPassed = (path: string, method: string, sent: number) => {
    if (method !== 'GET') onWrite({ path: path.slice('/v1/'.length), sent, answered: Date.now() });
  };
  return listen((incoming, outgoing) => exchange('Vault', point, upstream, incoming, outgoing, onPassed));
}

/**
 * A proxy in front of the API server for all resources. It consults the point of a namespace about the requests for it. Watches, Leases and
 * requests of no run pass unchanged. Events pass too, because the operator sends them one after another for all resources.
 * @param points by namespace
 */
export function startKubernetesProxy(upstream: Upstream, points: ReadonlyMap<string, FaultPoint>): Promise<Proxy> {
  return listen(async (incoming, outgoing) => {
    const url = incoming.url ?? '';
    if (/[?&]watch=(true|1)\b/.test(url)) {
      stream(upstream, incoming, outgoing);
      return;
    }
    const namespace = /\/namespaces\/([^/?]+)/.exec(url)?.[1] ?? '';
    const point = url.includes('/events') ? undefined : points.get(namespace);
    if (point) await exchange('Kubernetes', point, upstream, incoming, outgoing, () => undefined);
    else answer(outgoing, await forward(upstream, incoming, await read(incoming)));
  });
}
