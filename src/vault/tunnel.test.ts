/** Tunnels through a proxy of this test to a TLS server of this test, with certificates that openssl issues meanwhile. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import { connect, type AddressInfo, type Server, type Socket } from 'node:net';
import { networkInterfaces, tmpdir } from 'node:os';
import { createServer as createTlsServer } from 'node:tls';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { createTransport, type TlsOptions } from './transport.ts';

let dir: string;
let pem: { cert: string; key: string };
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'tunnel-'));
  const args = ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2'];
  const names = ['-subj', '/CN=vault', '-addext', 'subjectAltName=DNS:vault.example.invalid,IP:fd00::1'];
  execFileSync('openssl', [...args, ...names, '-keyout', 'key.pem', '-out', 'cert.pem'], { cwd: dir, stdio: 'pipe' });
  pem = { cert: readFileSync(join(dir, 'cert.pem'), 'utf8'), key: readFileSync(join(dir, 'key.pem'), 'utf8') };
});
afterAll(() => rmSync(dir, { recursive: true }));

const ends: (() => void)[] = [];
afterEach(() => {
  for (const end of ends.splice(0)) end();
});

async function listen(server: Server, host = '127.0.0.1'): Promise<number> {
  const sockets = new Set<Socket>();
  server.on('connection', (socket: Socket) => {
    sockets.add(socket);
    socket.on('error', () => undefined);
    socket.on('close', () => sockets.delete(socket));
  });
  ends.push(() => {
    server.close();
    for (const socket of sockets) socket.destroy();
  });
  await new Promise<void>((resolve) => server.listen(0, host, resolve));
  return (server.address() as AddressInfo).port;
}

/** A Vault that answers everything with its health. */
const vault = () =>
  listen(https.createServer(pem, (_, response) => response.end(JSON.stringify({ initialized: true }))));

/** A proxy that leads every tunnel to a port, or does something else with it. */
async function proxy(to: number | ((client: Socket) => void), host = '127.0.0.1') {
  const asked: string[] = [];
  const server = http.createServer();
  server.on('connect', ({ url = '' }, client: Socket) => {
    asked.push(url);
    client.on('error', () => undefined);
    if (typeof to === 'function') {
      to(client);
      return;
    }
    const upstream = connect(to, '127.0.0.1', () => {
      client.write('HTTP/1.1 200 OK\r\n\r\n');
      upstream.pipe(client).pipe(upstream);
    });
    ends.push(() => upstream.destroy());
    upstream.on('error', () => client.destroy());
  });
  const port = await listen(server, host);
  const url = `http://user:word@${host === '::1' ? '[::1]' : host}:${port}`;
  return { asked, proxy: { url, variable: 'HTTPS_PROXY' } };
}

const outcome = async (
  address: string,
  tls: TlsOptions,
  via: Awaited<ReturnType<typeof proxy>>,
  signal?: AbortSignal,
) => {
  const transport = createTransport(address, tls, 300, via.proxy);
  ends.push(() => transport.close());
  return await transport.send({ method: 'GET', uri: `${address}/v1/sys/health`, signal }).then(
    ({ statusCode }) => statusCode,
    (error: unknown) => (error as { code?: unknown }).code,
  );
};
const address = 'https://vault.example.invalid:8200';
const hasIpv6 = Object.values(networkInterfaces()).some((all) => all?.some((one) => one.address === '::1'));

describe('a tunnel', () => {
  it('leads to a server, whose certificate is verified', async () => {
    const via = await proxy(await vault());
    expect(await outcome(address, { ca: pem.cert }, via)).toBe(200);
    expect(await outcome(address, {}, via)).toBe('DEPTH_ZERO_SELF_SIGNED_CERT');
    expect(await outcome(address, { ca: pem.cert, serverName: 'other.example.invalid' }, via)).toBe(
      'ERR_TLS_CERT_ALTNAME_INVALID',
    );
    expect(via.asked).toEqual(Array(3).fill('vault.example.invalid:8200'));
  });

  it('is used again: many requests at once, and again as many, open as many as the first time', async () => {
    const via = await proxy(await vault());
    const transport = createTransport(address, { ca: pem.cert }, 5_000, via.proxy);
    ends.push(() => transport.close());
    const request = { method: 'GET', uri: `${address}/v1/sys/health` };
    const many = async () => (await Promise.all(Array.from({ length: 30 }, () => transport.send(request)))).length;
    expect([await many(), await many(), via.asked.length]).toEqual([30, 30, 30]);
  });

  it('goes to a proxy with TLS under the name of the proxy', async () => {
    const asked: string[] = [];
    const SNICallback = (name: string, done: (error: null) => void) => {
      asked.push(name);
      done(null);
    };
    const server = createTlsServer({ ...pem, SNICallback });
    server.on('tlsClientError', () => undefined);
    const url = `https://localhost:${await listen(server, 'localhost')}`;
    const via = { asked, proxy: { url, variable: 'HTTPS_PROXY' } };
    expect(await outcome(address, { ca: pem.cert }, via)).toBe('DEPTH_ZERO_SELF_SIGNED_CERT');
    expect(asked).toEqual(['localhost']);
  });

  it('leads to an IPv6 address, through one where this machine has any', async () => {
    const via = await proxy(await vault(), hasIpv6 ? '::1' : '127.0.0.1');
    expect(await outcome('https://[fd00::1]:8200', { ca: pem.cert }, via)).toBe(200);
    expect(via.asked).toEqual(['[fd00::1]:8200']);
  });

  it.each<[string, () => TlsOptions]>([
    ['a certificate that is none', () => ({ cert: 'none', key: pem.key })],
    ['a key that is none', () => ({ cert: pem.cert, key: 'none' })],
  ])('fails with an error, and not the process, given %s', async (_, tls) => {
    expect(await outcome(address, { ca: pem.cert, ...tls() }, await proxy(await vault()))).toMatch(/^ERR_/);
  });

  it.each<[string, (client: Socket) => void, unknown]>([
    ['refuses', (client) => client.end('HTTP/1.1 407 Proxy Authentication Required\r\n\r\n'), 'PROXY_ANSWERED_407'],
    ['says nothing', () => undefined, 'ETIMEDOUT'],
    ['hangs up', (client) => client.destroy(), 'ECONNRESET'],
    ['opens a tunnel that leads nowhere', (client) => client.write('HTTP/1.1 200 OK\r\n\r\n'), 'ETIMEDOUT'],
    ['opens one and hangs up', (client) => client.end('HTTP/1.1 200 OK\r\n\r\n'), 'ECONNRESET'],
    ['answers something else', (client) => client.end('no HTTP\r\n\r\n'), 'HPE_INVALID_CONSTANT'],
  ])('fails in time if the proxy %s', async (_, act, code) => {
    expect(await outcome(address, { ca: pem.cert }, await proxy(act))).toBe(code);
  }); // prettier-ignore

  it('ends when it is aborted before it is open', async () => {
    const stop = new AbortController();
    const via = await proxy(() => stop.abort());
    expect(await outcome(address, {}, via, stop.signal)).toBe('EABORTED');
  });
});
