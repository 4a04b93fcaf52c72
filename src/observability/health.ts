/** HTTP servers for `/metrics`, and for `/livez` and `/readyz`. */
import { createServer, type RequestListener, type Server } from 'node:http';

/** One check of `/livez` or `/readyz`. */
export interface HealthCheck {
  name: string;
  /** @returns a text about the problem; undefined if there is none. Must not block. */
  check: () => string | undefined;
}

export interface HealthOptions {
  /** `host:port`; `0` disables the server. */
  metricsAddress: string;
  /** `host:port`; `0` disables the server. */
  healthAddress: string;
  metrics: () => Promise<{ contentType: string; body: string }>;
  /** If one of these checks fails, the process should be restarted. */
  livez: readonly HealthCheck[];
  /** If one of these checks fails, the process is not ready. */
  readyz: readonly HealthCheck[];
}

/** The address on which a server listens. */
export interface Listening {
  host: string;
  port: number;
}

export interface HealthServers {
  /** undefined: disabled. */
  metrics: Listening | undefined;
  /** undefined: disabled. */
  health: Listening | undefined;
  close(): Promise<void>;
}

/**
 * Parses `host:port`, `:port` or `[IPv6]:port`. Port 0 selects a free port.
 * @returns undefined for `0`, which disables the server
 * @throws RangeError if the text has none of these forms
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
 * Starts the servers. If both addresses are equal and the port is not 0, one server has all endpoints.
 * @throws if a server cannot listen on its address; no server then stays open
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

/** Maximum number of connections to one of the servers. Metrics and health have servers of their own, so neither takes the other's. */
const mostConnections = 64;

function listen(server: Server, where: Listening): Promise<Listening> {
  server.maxConnections = mostConnections;
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
