import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { afterEach, describe, expect, test } from '@jest/globals';
import { parseListenAddress, startHealthServers, type HealthCheck, type HealthServers } from './health.ts';
import { createMetrics } from './metrics.ts';

const servers: HealthServers[] = [];
afterEach(async () => {
  for (const server of servers.splice(0)) await server.close();
});

async function start(
  metricsAddress: string,
  healthAddress: string,
  readyz: HealthCheck[] = [],
): Promise<HealthServers> {
  const metrics = createMetrics();
  metrics.setLeader(true);
  const started = await startHealthServers({
    metricsAddress,
    healthAddress,
    metrics: () => metrics.expose(),
    livez: [],
    readyz,
  });
  servers.push(started);
  return started;
}

const url = (port: number | undefined, path: string): string => `http://127.0.0.1:${port ?? 0}${path}`;

describe('addresses to listen on', () => {
  test.each([
    ['0.0.0.0:8080', { host: '0.0.0.0', port: 8080 }],
    [':8080', { host: '0.0.0.0', port: 8080 }],
    ['localhost:0', { host: 'localhost', port: 0 }],
    ['[::1]:8080', { host: '::1', port: 8080 }],
    ['0', undefined],
  ])('%s', (text, expected) => expect(parseListenAddress(text)).toEqual(expected));

  test.each(['', '8080', 'host', 'host:', '::1:8080', 'host:99999', 'http://host:80', 'ho st:80', '-:x'])(
    'refuses %j',
    (text) => expect(() => parseListenAddress(text)).toThrow(RangeError),
  );
});

describe('the endpoints', () => {
  test('serve metrics on the one, health on the other', async () => {
    const { metrics, health } = await start('127.0.0.1:0', '127.0.0.1:0');
    expect(metrics?.port).toBeGreaterThan(0);
    expect(metrics?.port).not.toBe(health?.port);
    const exposed = await fetch(url(metrics?.port, '/metrics?x=1'));
    expect(exposed.headers.get('content-type')).toMatch(/^text\/plain/);
    expect(await exposed.text()).toContain('\nistio_vault_ca_leader 1\n');
    const live = await fetch(url(health?.port, '/livez'));
    expect([live.status, await live.text()]).toEqual([200, 'ok\n']);
    expect((await fetch(url(health?.port, '/metrics'))).status).toBe(404);
    expect((await fetch(url(health?.port, '/__proto__'))).status).toBe(404);
    expect((await fetch(url(health?.port, '/livez'), { method: 'POST' })).status).toBe(405);
    expect((await fetch(url(health?.port, '/livez'), { method: 'HEAD' })).status).toBe(200);
  });

  test('say which check fails, also one that throws', async () => {
    let problem: string | undefined = 'istiovaultcas: not synced';
    const { health } = await start('0', '127.0.0.1:0', [
      { name: 'informers', check: () => problem },
      { name: 'fine', check: () => undefined },
    ]);
    const failing = await fetch(url(health?.port, '/readyz'));
    expect([failing.status, await failing.text()]).toEqual([503, '[-]informers: istiovaultcas: not synced\n']);
    problem = undefined;
    expect((await fetch(url(health?.port, '/readyz'))).status).toBe(200);

    const broken = await start('0', '127.0.0.1:0', [
      {
        name: 'broken',
        check: () => {
          throw new Error('secret detail');
        },
      },
    ]);
    const answer = await fetch(url(broken.health?.port, '/readyz'));
    expect(answer.status).toBe(500);
    expect(await answer.text()).toBe('');
  });

  test('who holds all connections of the metrics does not keep the kubelet from the probes', async () => {
    const { metrics, health } = await start('127.0.0.1:0', '127.0.0.1:0');
    const open = () =>
      new Promise<Socket>((resolve, reject) => {
        const socket = connect({ port: metrics?.port ?? 0, host: '127.0.0.1' }, () => resolve(socket));
        socket.once('error', reject);
      });
    const held = await Promise.all(Array.from({ length: 64 }, open));
    try {
      const more = await open();
      await once(more, 'close');
      expect((await fetch(url(health?.port, '/livez'))).status).toBe(200);
    } finally {
      for (const socket of held) socket.destroy();
    }
  });

  test('are off with 0', async () => {
    expect(await start('0', '0')).toMatchObject({ metrics: undefined, health: undefined });
  });

  test('share a server when they share an address, and leave none open when one cannot be had', async () => {
    const first = await start('127.0.0.1:0', '0');
    const port = first.metrics?.port ?? 0;
    await expect(start('0', `127.0.0.1:${port}`)).rejects.toThrow('EADDRINUSE');
    await first.close();
    const shared = await start(`127.0.0.1:${port}`, `127.0.0.1:${port}`);
    expect((await fetch(url(shared.health?.port, '/readyz'))).status).toBe(200);
    expect((await fetch(url(shared.metrics?.port, '/metrics'))).status).toBe(200);
  });
});
