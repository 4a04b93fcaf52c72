/** The HTTP endpoints of the program: `/metrics` on one address, `/livez` and `/readyz` on another. */
import { createServer, type RequestListener, type Server } from 'node:http';

/** One thing that must hold. */
export interface HealthCheck {
  name: string;
  /** @returns what is wrong, for a person; undefined when all is well. Must answer at once. */
  check: () => string | undefined;
}

export interface HealthOptions {
  /** `host:port`, or `0` for off. */
  metricsAddress: string;
  /** `host:port`, or `0` for off. */
  healthAddress: string;
  metrics: () => Promise<{ contentType: string; body: string }>;
  /** A process that fails one of these should be restarted. */
  livez: readonly HealthCheck[];
  /** A process that fails one of these is not to be relied on yet. */
  readyz: readonly HealthCheck[];
}

/** Where a server listens. */
export interface Listening {
  host: string;
  port: number;
}

export interface HealthServers {
  /** undefined when off. */
  metrics: Listening | undefined;
  /** undefined when off. */
  health: Listening | undefined;
  close(): Promise<void>;
}

/**
 * Splits `host:port`, `:port` or `[v6]:port`. Port 0 asks for a free one.
 * @returns undefined for `0`, which is off
 * @throws RangeError when the text is neither
 */
export function parseListenAddress(text: string): Listening | undefined {
  if (text === '0') return undefined;
  const match = /^(?:\[([0-9A-Fa-f:.]+)\]|([^:[\]\s/]*)):([0-9]{1,5})$/.exec(text);
  const port = Number(match?.[3]);
  if (match === null || port > 65_535) {
    throw new RangeError(
      `"${text}" is not an address to listen on; write host:port, such as 0.0.0.0:8080, or 0 for off`,
    );
  }
  const host = match[1] ?? match[2] ?? '';
  return { host: host === '' ? '0.0.0.0' : host, port };
}

/**
 * Starts both servers; on one server when the addresses are the same.
 * @throws when an address cannot be listened on; none is left open then
 */
export async function startHealthServers(options: HealthOptions): Promise<HealthServers> {
  const metricsRoutes = { '/metrics': options.metrics };
  const healthRoutes = {
    '/livez': () => Promise.resolve(report(options.livez)),
    '/readyz': () => Promise.resolve(report(options.readyz)),
  };
  const shared = options.metricsAddress === options.healthAddress && !/:0$/.test(options.healthAddress);
  const servers: Server[] = [];
  const close = async (): Promise<void> => {
    await Promise.all(servers.map(closeServer));
  };
  const open = async (address: string, routes: Routes): Promise<Listening | undefined> => {
    const where = parseListenAddress(address);
    if (where === undefined) return undefined;
    const server = createServer(answer(routes));
    servers.push(server);
    return listen(server, where);
  };
  try {
    const metrics = await open(options.metricsAddress, shared ? { ...metricsRoutes, ...healthRoutes } : metricsRoutes);
    const health = shared ? metrics : await open(options.healthAddress, healthRoutes);
    return { metrics, health, close };
  } catch (error) {
    await close();
    throw error;
  }
}

interface Answer {
  status?: number;
  contentType: string;
  body: string;
}

type Routes = Readonly<Record<string, () => Promise<Answer>>>;

function report(checks: readonly HealthCheck[]): Answer {
  const lines = checks.map(({ name, check }) => ({ name, problem: check() }));
  const failing = lines.filter(({ problem }) => problem !== undefined);
  const body = failing.map(({ name, problem }) => `[-]${name}: ${problem ?? ''}\n`).join('');
  return { status: failing.length === 0 ? 200 : 503, contentType: 'text/plain; charset=utf-8', body: body || 'ok\n' };
}

function answer(routes: Routes): RequestListener {
  return (request, response) => {
    const path = (request.url ?? '/').split('?')[0] ?? '/';
    const route = Object.hasOwn(routes, path) ? routes[path] : undefined;
    const method = request.method ?? 'GET';
    if (route === undefined || (method !== 'GET' && method !== 'HEAD')) {
      response.writeHead(route === undefined ? 404 : 405, { 'content-type': 'text/plain' }).end();
      return;
    }
    Promise.resolve()
      .then(route)
      .then(({ status = 200, contentType, body }) => {
        response.writeHead(status, { 'content-type': contentType, 'cache-control': 'no-store' });
        response.end(method === 'HEAD' ? undefined : body);
      })
      .catch(() => {
        if (!response.headersSent) response.writeHead(500);
        response.end();
      });
  };
}

function listen(server: Server, where: Listening): Promise<Listening> {
  server.requestTimeout = 10_000;
  server.headersTimeout = 5_000;
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(where.port, where.host, () => {
      server.removeListener('error', reject);
      const bound = server.address();
      resolve({ host: where.host, port: typeof bound === 'object' && bound !== null ? bound.port : where.port });
    });
  });
}

function closeServer(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
    server.closeAllConnections();
  });
}
