import http from 'node:http';
import { createServer, type AddressInfo } from 'node:net';
import { inspect } from 'node:util';
import { afterEach, describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { Secret } from '../observability/secret.ts';
import { VaultClient, type VaultClientOptions } from './client.ts';
import { clean, VaultError, type VaultErrorKind } from './errors.ts';

type Handler = (request: http.IncomingMessage, response: http.ServerResponse, body: string) => void;
interface Seen {
  method: string;
  url: string;
  headers: http.IncomingHttpHeaders;
  body: string;
}

const cleanups: (() => void | Promise<void>)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

/** Starts an HTTP server on the loopback interface that calls the handler and records the requests. */
async function serve(handler: Handler): Promise<{ address: string; seen: Seen[] }> {
  const seen: Seen[] = [];
  const server = http.createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      const body = Buffer.concat(chunks).toString();
      seen.push({ method: request.method ?? '', url: request.url ?? '', headers: request.headers, body });
      handler(request, response, body);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  cleanups.push(() => {
    server.closeAllConnections();
    server.close();
  });
  return { address: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, seen };
}

function client(options: VaultClientOptions): VaultClient {
  const made = new VaultClient({ patienceMs: 0, ...options });
  cleanups.push(() => made.close());
  return made;
}

const health = { initialized: true, sealed: false, standby: false, version: '2.7.2' };
const json = (response: http.ServerResponse, status: number, body?: unknown, headers: http.OutgoingHttpHeaders = {}) =>
  response.writeHead(status, headers).end(body === undefined ? undefined : JSON.stringify(body));
/** A handler that responds to `sys/health` as Vault does, and calls the given handler for other requests. */
const vault =
  (handler: Handler): Handler =>
  (request, response, body) =>
    request.url === '/v1/sys/health' ? json(response, 200, health) : handler(request, response, body);

async function failure(work: Promise<unknown>): Promise<VaultError> {
  const result = await work.then(
    (value) => new Error(`no failure: ${inspect(value)}`),
    (error: unknown) => error,
  );
  if (result instanceof VaultError) return result;
  throw result;
}

describe('an answer', () => {
  it.each<{ status: number; errors?: string[]; kind: VaultErrorKind }>([
    { status: 400, errors: ['unsupported operation'], kind: 'Invalid' },
    { status: 400, errors: ['check-and-set parameter did not match the current version'], kind: 'CheckAndSet' },
    { status: 400, errors: ['path is already in use at kv/'], kind: 'InUse' },
    { status: 403, errors: ['permission denied'], kind: 'Forbidden' },
    { status: 404, errors: [], kind: 'NotFound' },
    { status: 404, errors: ['namespace not found'], kind: 'NamespaceNotFound' },
    { status: 503, errors: ['namespace is sealed'], kind: 'NamespaceSealed' },
    {
      status: 503,
      errors: ['API access to this namespace has been locked by an administrator'],
      kind: 'NamespaceLocked',
    },
    { status: 405, errors: ['unsupported operation'], kind: 'Invalid' },
    { status: 412, errors: ['required index state not present'], kind: 'Standby' },
    { status: 429, errors: ['request path "x": rate limit quota exceeded'], kind: 'RateLimited' },
    { status: 472, kind: 'Standby' },
    { status: 473, kind: 'Standby' },
    { status: 474, kind: 'Standby' },
    { status: 500, errors: ['local node not active but active cluster node not found'], kind: 'Standby' },
    { status: 500, errors: ['node is not the leader'], kind: 'Standby' },
    { status: 500, errors: ['leadership lost while committing log'], kind: 'Standby' },
    { status: 500, errors: ['Vault is sealed'], kind: 'Sealed' },
    { status: 500, errors: ['internal error'], kind: 'Server' },
    { status: 500, errors: ['1 error occurred:\n\t* key name already in use'], kind: 'InUse' },
    { status: 501, kind: 'Uninitialized' },
    { status: 502, kind: 'Server' },
    { status: 503, errors: ['Vault is sealed'], kind: 'Sealed' },
    { status: 503, errors: ['Vault is not initialized'], kind: 'Uninitialized' },
    { status: 503, errors: ['too many requests'], kind: 'Server' },
    { status: 307, kind: 'Redirected' },
    { status: 302, kind: 'Redirected' },
  ])('$status $errors is $kind', async ({ status, errors, kind }) => {
    const { address } = await serve(vault((_, response) => json(response, status, errors && { errors })));
    const it = client({ address });
    await it.health();
    const error = await failure(it.write('kv/data/istioca', { data: {} }));
    expect(error).toMatchObject({ kind, status, operation: 'write', path: 'kv/data/istioca' });
    const text = errors?.length ? ` ${errors.join('; ').replace(/\s+/g, ' ')}` : '';
    expect(error.message).toBe(`write kv/data/istioca: ${status}${text}`);
  });

  it.each([
    { status: 200, body: { data: { a: 1 }, warnings: ['w'] }, data: { a: 1 } },
    { status: 200, body: { data: null, auth: null, warnings: null }, data: {} },
    { status: 202, body: { data: {} }, data: {} },
    { status: 204, body: undefined, data: {} },
  ])('$status with $body is one', async ({ status, body, data }) => {
    const { address } = await serve((_, response) => json(response, status, body));
    const reply = await client({ address }).call('POST', 'x', {});
    expect(reply).toEqual({ status, data, auth: undefined });
  });

  it('404 of a read or a list for want of the Vault namespace is an error: the object is not known to be absent', async () => {
    const { address } = await serve(vault((_, response) => json(response, 404, { errors: ['namespace not found'] })));
    const asked = client({ address, namespace: 'team' });
    await asked.health();
    expect((await failure(asked.read('kv/data/istioca'))).kind).toBe('NamespaceNotFound');
    expect((await failure(asked.list('pki/issuers'))).kind).toBe('NamespaceNotFound');
  });

  it('404 of a read is nothing, also of a path that warns', async () => {
    const { address } = await serve((_, response) => json(response, 404, { errors: [], warnings: ['w'] }));
    expect(await client({ address }).read('kv/data/x')).toBeUndefined();
  });

  it.each([
    { status: 500, kind: 'Server' },
    { status: 403, kind: 'Forbidden' },
    { status: 503, kind: 'Server' },
    { status: 400, kind: 'Invalid' },
  ])('$status with a body that is not JSON is judged by its status alone', async ({ status, kind }) => {
    const { address } = await serve(vault((_, response) => response.writeHead(status).end('<html>PAGE</html>')));
    const it = client({ address });
    await it.health();
    const error = await failure(it.read('x'));
    expect(error).toMatchObject({ kind, message: `read x: ${status}` });
  });

  it.each([
    { name: 'a web page', body: '<html>' },
    { name: 'an empty body', body: '' },
    { name: 'other JSON', body: '{"status":"ok"}' },
    { name: 'a list', body: '[]' },
  ])('to health of $name is not Vault', async ({ body }) => {
    const { address } = await serve((_, response) => response.end(body));
    const error = await failure(client({ address }).health());
    expect(error).toMatchObject({ kind: 'Unreachable', path: 'sys/health', status: 200 });
  });

  it.each([
    { status: 200, body: health, product: 'OpenBao', sealed: false, standby: false },
    { status: 200, body: { ...health, performance_standby: false }, product: 'Vault', sealed: false, standby: false },
    { status: 429, body: { ...health, standby: true }, product: 'OpenBao', sealed: false, standby: true },
    { status: 503, body: { ...health, sealed: true }, product: 'OpenBao', sealed: true, standby: false },
    {
      status: 501,
      body: { ...health, initialized: false, sealed: true },
      product: 'OpenBao',
      sealed: true,
      standby: false,
    },
  ])('to health with status $status tells the state of the server', async ({ status, body, ...expected }) => {
    const { address } = await serve((_, response) => json(response, status, body));
    expect(await client({ address }).health()).toMatchObject({ ...expected, version: '2.7.2' });
  });
});

describe('no answer', () => {
  it.each<{ name: string; handler: Handler }>([
    { name: 'a server that hangs', handler: () => undefined },
    { name: 'a body that does not end', handler: (_, response) => void response.writeHead(200).write('{') },
    { name: 'a reset before the answer', handler: (request) => request.socket.destroy() },
    {
      name: 'a reset in the middle of the body',
      handler: (request, response) => {
        response.writeHead(200, { 'Content-Length': 100 });
        response.write('{"data":', () => request.socket.destroy());
      },
    },
    { name: 'something that is not HTTP', handler: (request) => request.socket.end('SSH-2.0-OpenSSH\r\n') },
  ])('$name', async ({ handler }) => {
    const { address } = await serve(handler);
    const requests: [string, number][] = [];
    const it = client({ address, timeoutMs: 300, onRequest: (...args) => requests.push(args) });
    expect(await failure(it.read('x'))).toMatchObject({ kind: 'Unreachable', operation: 'read', path: 'x', status: 0 });
    expect(requests).toEqual([['read', 0]]);
  });

  it.each([
    { name: 'a body of more than 1 MiB', mebibytes: 1, read: (it: VaultClient) => it.read('x') },
    { name: 'a list of more than 4 MiB', mebibytes: 4, read: (it: VaultClient) => it.list('x') },
  ])('$name', async ({ mebibytes, read }) => {
    const size = { more: mebibytes * 1024 * 1024 + 1 - 2, most: mebibytes * 1024 * 1024 - 2 };
    let length = size.more;
    const { address } = await serve((_, response) => response.end(`"${'a'.repeat(length)}"`));
    const it = client({ address });
    const tooLarge = await failure(read(it));
    expect(tooLarge).toMatchObject({ kind: 'Server', path: 'x', status: 0 });
    expect(tooLarge.message).toContain('larger than this operator accepts');
    length = size.most;
    expect((await failure(read(it))).message).toContain("the answer is not Vault's");
  });

  it('a signal that aborts ends a request, its repetitions, and nothing else', async () => {
    const { address } = await serve((request, response) => {
      if (request.url === '/v1/busy') json(response, 429, { errors: ['slow down'] });
      else if (request.url !== '/v1/hangs') json(response, 200, { data: { a: 1 } });
    });
    const it = client({ address, patienceMs: 15_000 });
    const stop = new AbortController();
    const bounded = it.within(stop.signal);
    const failures = Promise.all(['hangs', 'busy'].map((path) => failure(bounded.read(path))));
    expect(await bounded.read('x')).toEqual({ a: 1 });
    stop.abort();
    for (const error of await failures) {
      expect(error).toMatchObject({ kind: 'Unreachable', status: 0 });
      expect(error.message).toContain('the time for one reconcile was over');
    }
    expect(await failure(bounded.read('x'))).toMatchObject({ kind: 'Unreachable' });
    expect(await it.read('x')).toEqual({ a: 1 });
  });

  it('nobody listens', async () => {
    const { address } = await serve(() => undefined);
    for (const cleanup of cleanups.splice(0)) await cleanup();
    expect(await failure(client({ address }).read('x'))).toMatchObject({ kind: 'Unreachable', status: 0 });
  });
});

describe('what is sent', () => {
  it('goes to the given server with the given namespace and token, and nothing else', async () => {
    const { address, seen } = await serve((_, response) => json(response, 200, { data: {} }));
    const it = client({ address: `${address}/`, namespace: 'team/a' });
    await it.read('sys/mounts/pki');
    it.useToken(new Secret('hvs.token'));
    await it.write('kv/data/x', { data: { a: 'ä' } });
    expect(seen.map(({ method, url, headers, body }) => ({
      method,
      url,
      body,
      namespace: headers['x-vault-namespace'],
      token: headers['x-vault-token'],
      request: headers['x-vault-request'],
    }))).toEqual([
      { method: 'GET', url: '/v1/sys/mounts/pki', body: '', namespace: 'team/a', token: undefined, request: 'true' },
      { method: 'POST', url: '/v1/kv/data/x', body: '{"data":{"a":"ä"}}', namespace: 'team/a', token: 'hvs.token', request: 'true' },
    ]); // prettier-ignore
    expect(seen[1]?.headers['content-type']).toBe('application/json');
    it.useToken(undefined);
    await it.delete('pki/key/1');
    expect(seen[2]).toMatchObject({ method: 'DELETE', url: '/v1/pki/key/1', body: '' });
    expect(seen[2]?.headers['x-vault-token']).toBeUndefined();
  });

  it('does not depend on the environment', async () => {
    const other = await serve((_, response) => json(response, 200, { data: { from: 'other' } }));
    const { address, seen } = await serve((_, response) => json(response, 200, { data: { from: 'given' } }));
    const set = {
      VAULT_TOKEN: 'hvs.environment',
      VAULT_ADDR: other.address,
      VAULT_NAMESPACE: 'environment',
      VAULT_PREFIX: '/environment',
      VAULT_API_VERSION: 'v9',
      HTTPS_PROXY: other.address,
      HTTP_PROXY: other.address,
      http_proxy: other.address,
      ALL_PROXY: other.address,
    };
    const before = { ...process.env };
    Object.assign(process.env, set);
    try {
      const it = client({ address });
      expect(await it.read('kv/data/x')).toEqual({ from: 'given' });
      await it.write('kv/data/x', {});
    } finally {
      for (const name of Object.keys(set)) Reflect.deleteProperty(process.env, name);
      Object.assign(process.env, before);
    }
    expect(other.seen).toEqual([]);
    expect(seen.map((s) => s.url)).toEqual(['/v1/kv/data/x', '/v1/kv/data/x']);
    expect(JSON.stringify(seen)).not.toMatch(/environment/);
    expect(seen[0]?.headers['x-vault-namespace']).toBeUndefined();
  });

  it.each([301, 302, 303, 307, 308])('follows no redirect (%s)', async (status) => {
    const other = await serve((_, response) => json(response, 200, { data: {} }));
    const { address, seen } = await serve((_, response) =>
      json(response, status, undefined, { Location: `${other.address}/v1/x` }),
    );
    const it = client({ address });
    it.useToken(new Secret('hvs.token'));
    const error = await failure(it.write('x', { a: 1 }));
    expect(error.kind).toBe('Redirected');
    expect(error.message).not.toContain(other.address);
    expect([seen.length, other.seen.length]).toEqual([1, 0]);
  });

  it('no segment of a path leaves its place', async () => {
    const { address, seen } = await serve((_, response) => json(response, 200, {}));
    const it = client({ address });
    for (const name of ['a b', 'a?b', 'a#b', 'a%2fb', '{{a}}', 'ä', 'a&b', '&#x2F;', 'a\nb', 'a\\b']) {
      await it.read(`kv/${name}/c`);
      expect(seen.at(-1)?.url).toBe(`/v1/kv/${encodeURIComponent(name)}/c`);
    }
  });

  it('is counted once a request', async () => {
    const { address } = await serve(vault((_, response) => json(response, 403, { errors: ['permission denied'] })));
    const requests: [string, number][] = [];
    const it = client({ address, onRequest: (...args) => requests.push(args) });
    await it.health();
    await failure(it.write('x', {}));
    await failure(it.delete('x'));
    expect(requests).toEqual([['health', 200], ['write', 403], ['delete', 403]]); // prettier-ignore
  });
});

describe('a request that is turned away', () => {
  it.each([
    { status: 429, errors: [] },
    { status: 412, errors: ['required index state not present'] },
    { status: 400, errors: ['Upgrading from non-versioned to versioned data. This backend will be unavailable …'] },
    { status: 400, errors: ['Waiting for the primary to upgrade from non-versioned to versioned data. …'] },
    { status: 400, errors: ['Can not list issuers until migration has completed'] },
  ])('with $status $errors is sent again until it is taken', async ({ status, errors }) => {
    let refusals = 2;
    const { address, seen } = await serve((_, response) =>
      refusals-- > 0 ? json(response, status, { errors }, { 'retry-after': '0' }) : json(response, 204),
    );
    const codes: number[] = [];
    const it = client({ address, patienceMs: 1_000, onRequest: (_, code) => codes.push(code) });
    await it.write('kv/data/x', { a: 1 });
    expect(seen.map(({ method, body }) => `${method} ${body}`)).toEqual(Array(3).fill('POST {"a":1}'));
    expect(codes).toEqual([204]);
  });

  it('is given up when its time is over', async () => {
    const { address, seen } = await serve(vault((_, response) => json(response, 429, {}, { 'retry-after': '1' })));
    const it = client({ address, patienceMs: 1_500 });
    await it.health();
    expect(await failure(it.read('x'))).toMatchObject({ kind: 'RateLimited', status: 429 });
    expect(seen.filter(({ url }) => url === '/v1/x')).toHaveLength(2);
  });

  it('is not the health check: there 429 is a standby', async () => {
    const { address, seen } = await serve((_, response) => json(response, 429, { ...health, standby: true }));
    expect(await client({ address, patienceMs: 60_000 }).health()).toMatchObject({ standby: true });
    expect(seen).toHaveLength(1);
  });
});

describe('what was written', () => {
  const bao = (value: number) => Buffer.from(JSON.stringify({ cluster: 'c', value: String(value) })).toString('base64');
  const enterprise = (value: number) => Buffer.from(`v1:c:${value}:7:mac`).toString('base64');

  it.each([
    { name: 'OpenBao', index: bao, product: {}, forward: 'forward-active-node' },
    { name: 'Vault Enterprise', index: enterprise, product: { performance_standby: true }, forward: undefined },
  ])('is asked for in later reads, whichever answer comes last: $name', async ({ index, product, forward }) => {
    const values = [9, 10, 8];
    const { address, seen } = await serve((request, response) =>
      request.method === 'GET'
        ? json(response, 200, { ...health, ...product })
        : json(response, 204, undefined, { 'x-vault-index': index(values.shift() ?? 0) }),
    );
    const it = client({ address });
    await it.health();
    seen.length = 0;
    for (let i = 0; i < 3; i += 1) await it.write('x', {});
    await it.call('GET', 'y');
    expect(seen.map(({ headers }) => headers['x-vault-index'])).toEqual([undefined, index(9), index(10), index(10)]);
    expect(seen.map(({ headers }) => headers['x-vault-inconsistent'])).toEqual([undefined, forward, forward, forward]);
  });

  it('in a form that is not known: the last one', async () => {
    const indices = ['one', 'two'];
    const { address, seen } = await serve((_, response) =>
      json(response, 204, undefined, { 'x-vault-index': indices.shift() ?? 'none' }),
    );
    const it = client({ address });
    for (let i = 0; i < 3; i += 1) await it.write('x', {});
    expect(seen.map(({ headers }) => headers['x-vault-index'])).toEqual([undefined, 'one', 'two']);
  });
});

describe('secrets', () => {
  const secret = fc.stringMatching(/^[A-Za-z0-9_-]{24,60}$/);
  /** All texts by which an error or the client can get into a log. */
  const prints = (error: VaultError, it: VaultClient) =>
    [error.message, error.stack, String(error), JSON.stringify(error), JSON.stringify(Object.entries(error))].join(
      '\n',
    ) +
    inspect(error, { depth: 9, showHidden: true }) +
    inspect(it, { depth: 9, showHidden: true });
  /** A server that is not Vault. It returns the request as text, as `errors` and in headers, or closes the connection. */
  const echo =
    (status: number): Handler =>
    (request, response, body) => {
      const all = `${JSON.stringify(request.headers)} ${body}`;
      if (status === 0) request.socket.destroy();
      else if (status === 1) response.writeHead(500).end(all);
      else json(response, status, { errors: [all], data: all }, { Location: `/${encodeURIComponent(all)}` });
    };

  it('of ours never come out of an error, whatever a foreign server sends back', async () => {
    let status = 0;
    const { address } = await serve((...args) => echo(status)(...args));
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(0, 1, 307, 400, 403, 404, 412, 429, 472, 500, 501, 503),
        secret,
        secret,
        fc.constantFrom('hvs.', 's.', ''),
        async (answer, token, value, prefix) => {
          status = answer;
          const it = client({ address });
          it.useToken(new Secret(prefix + token));
          const printed = prints(await failure(it.write('kv/data/x', { jwt: value, nested: { key: value } })), it);
          expect(printed).not.toContain(token);
          expect(printed).not.toContain(value);
          it.close();
        },
      ),
    );
  });

  it('by their looks do not come out of what Vault itself says', async () => {
    let says = '';
    const { address } = await serve(vault((_, response) => json(response, 400, { errors: [says] })));
    const it = client({ address });
    await it.health();
    const looks = fc.oneof(
      fc.tuple(fc.constantFrom('hvs.', 'hvb.', 'hvr.', 's.', 'b.'), secret).map(([prefix, rest]) => prefix + rest),
      fc.tuple(secret, secret, secret).map(([a, b, c]) => `eyJ${a}.${b}.${c}`),
      secret.map((body) => `-----BEGIN PRIVATE KEY-----\n${body}\n-----END PRIVATE KEY-----`),
    );
    await fc.assert(
      fc.asyncProperty(looks, fc.constantFrom('', 'bad value "', 'token=', 'x '), async (value, before) => {
        says = `${before}${value}" and more`;
        const printed = prints(await failure(it.read('x')), it);
        for (const part of value.split(/[.\n]/).filter((p) => p.length >= 24)) expect(printed).not.toContain(part);
      }),
    );
  });

  it("Vault's words are one line and short", () => {
    expect(clean(`a\n\tb${' c'.repeat(400)}`)).toMatch(/^a b c[^\n]{1,295}$/);
  });
});

describe('a proxy', () => {
  const address = 'https://vault.example.invalid:8200';
  const through = (host: string) => ({ url: `http://user:word@${host}`, variable: 'HTTPS_PROXY' });
  const named = (host: string) =>
    `(through the proxy ${host} of HTTPS_PROXY; NO_PROXY lists what is reached without it)`;

  it('that does not answer ends with the deadline of the request, and is named without its password', async () => {
    const silent = createServer(() => undefined);
    await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve));
    cleanups.push(() => void silent.close());
    const host = `127.0.0.1:${(silent.address() as AddressInfo).port}`;
    const error = await failure(client({ address, proxy: through(host), timeoutMs: 200 }).health());
    expect(error).toMatchObject({ kind: 'Unreachable', message: `health sys/health: ETIMEDOUT ${named(host)}` });
  });

  it('that refuses is named', async () => {
    const refusing = http.createServer();
    refusing.on('connect', (_, socket) => socket.end('HTTP/1.1 407 Proxy Authentication Required\r\n\r\n'));
    await new Promise<void>((resolve) => refusing.listen(0, '127.0.0.1', resolve));
    cleanups.push(() => void refusing.close());
    const host = `127.0.0.1:${(refusing.address() as AddressInfo).port}`;
    const error = await failure(client({ address, proxy: through(host) }).health());
    expect(error).toMatchObject({
      kind: 'Unreachable',
      message: `health sys/health: PROXY_ANSWERED_407 ${named(host)}`,
    });
  });

  it('gets the whole address of a server that is not encrypted', async () => {
    const proxy = await serve((_, response) => json(response, 200, health));
    const url = proxy.address;
    await client({ address: 'http://vault.example.invalid:8200', proxy: { url, variable: 'HTTP_PROXY' } }).health();
    expect(proxy.seen.map((one) => one.url)).toEqual(['http://vault.example.invalid:8200/v1/sys/health']);
  });

  it('of the environment is not used unless it is given', async () => {
    const proxy = await serve((_, response) => json(response, 500));
    const before = process.env['HTTP_PROXY'];
    process.env['HTTP_PROXY'] = proxy.address;
    cleanups.push(() => {
      if (before === undefined) delete process.env['HTTP_PROXY'];
      else process.env['HTTP_PROXY'] = before;
    });
    const server = await serve(vault((_, response) => json(response, 404)));
    await client({ address: server.address }).health();
    expect(proxy.seen).toEqual([]);
  });
});
