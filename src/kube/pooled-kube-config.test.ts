import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { HttpMethod, RequestContext } from '@kubernetes/client-node';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Secret } from '../observability/secret.ts';
import { createKubeClient } from './client.ts';
import { loadKubeConfig, PooledKubeConfig, withoutCredentials } from './pooled-kube-config.ts';

let dir = '';
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'kubeconfig-'));
});
afterAll(() => rmSync(dir, { recursive: true }));

function kubeconfigFile(name: string, server = 'https://127.0.0.1:1'): string {
  const path = join(dir, name);
  const config = {
    clusters: [{ name: 'c', cluster: { server } }],
    users: [{ name: 'u', user: { token: 't' } }],
    contexts: [{ name: 'x', context: { cluster: 'c', user: 'u' } }],
    'current-context': 'x',
  };
  writeFileSync(path, JSON.stringify(config));
  return path;
}

function pooled(caData: string, token = 't'): PooledKubeConfig {
  const config = new PooledKubeConfig();
  config.loadFromClusterAndUser(
    { name: 'c', server: 'https://127.0.0.1:1', skipTLSVerify: false, caData: Buffer.from(caData).toString('base64') },
    { name: 'u', token },
  );
  return config;
}

async function apply(config: PooledKubeConfig): Promise<RequestContext> {
  const context = new RequestContext('https://127.0.0.1:1/x', HttpMethod.GET);
  await config.applySecurityAuthentication(context);
  return context;
}

describe('the pool', () => {
  test('is one for all requests, with credentials on each', async () => {
    const config = pooled('ca-1');
    const [first, second] = [await apply(config), await apply(config)];
    expect(first.getDispatcher()).toBeDefined();
    expect(second.getDispatcher()).toBe(first.getDispatcher());
    for (const context of [first, second]) expect(context.getHeaders()['Authorization']).toBe('Bearer t');
  });

  test('is replaced when the CA or the server changes, not when the token does', async () => {
    const config = pooled('ca-1');
    const first = (await apply(config)).getDispatcher();
    config.users = [{ name: 'u', token: 'new' }];
    const second = await apply(config);
    expect(second.getDispatcher()).toBe(first);
    expect(second.getHeaders()['Authorization']).toBe('Bearer new');
    config.clusters = [{ ...config.clusters[0]!, caData: Buffer.from('ca-2').toString('base64') }];
    const third = (await apply(config)).getDispatcher();
    expect(third).not.toBe(first);
    config.clusters = [{ ...config.clusters[0]!, server: 'https://127.0.0.1:2' }];
    expect((await apply(config)).getDispatcher()).not.toBe(third);
  });

  test('keeps user name and password', async () => {
    const config = pooled('ca-1');
    config.users = [{ name: 'u', username: 'me', password: 'pw' }];
    await apply(config);
    expect((await apply(config)).getHeaders()['Authorization']).toBe(
      `Basic ${Buffer.from('me:pw').toString('base64')}`,
    );
  });
});

describe('requests', () => {
  let server: Server;
  const sockets = new Set<Socket>();
  let answer: (path: string) => [number, string] | undefined = () => [200, '{}'];
  let client: ReturnType<typeof createKubeClient>;
  let impatient: ReturnType<typeof createKubeClient>;

  beforeAll(async () => {
    server = createServer((request, response) => {
      const [status, body] = answer(request.url ?? '') ?? [0, ''];
      if (status !== 0) response.writeHead(status, { 'retry-after': '2' }).end(body);
    });
    server.on('connection', (socket) => sockets.add(socket));
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const config = new PooledKubeConfig();
    const { port } = server.address() as AddressInfo;
    config.loadFromClusterAndUser(
      { name: 'c', server: `http://127.0.0.1:${port}/prefix/`, skipTLSVerify: true },
      { name: 'u' },
    );
    client = createKubeClient(config);
    impatient = createKubeClient(config, { timeoutMs: 200 });
  });
  afterAll(() => {
    server.close();
    server.closeAllConnections();
  });

  test('go over few connections and keep the prefix of the server', async () => {
    const paths = new Set<string>();
    answer = (path) => {
      paths.add(path);
      return [200, '{"gitVersion":"v1.2.3"}'];
    };
    const before = sockets.size;
    for (let i = 0; i < 50; i++) expect(await client.version()).toBe('v1.2.3');
    expect(sockets.size - before).toBeLessThanOrEqual(2);
    expect([...paths]).toEqual(['/prefix/version']);
  });

  test('carry a token in place of all other credentials, and do not keep it', async () => {
    const seen: (string | undefined)[] = [];
    const sees = createServer((request, response) => {
      seen.push(request.headers.authorization);
      response.end('{}');
    });
    await new Promise<void>((resolve) => sees.listen(0, '127.0.0.1', resolve));
    const config = new PooledKubeConfig();
    const { port } = sees.address() as AddressInfo;
    const user = { name: 'u', username: 'me', password: 'pw', certData: 'cert', keyData: 'key' };
    config.loadFromClusterAndUser({ name: 'c', server: `http://127.0.0.1:${port}`, skipTLSVerify: true }, user);
    const bare = withoutCredentials(config);
    expect([bare.getCurrentUser(), bare.getCurrentCluster()]).toEqual([{ name: 'none' }, config.getCurrentCluster()]);
    config.users = [{ name: 'u', username: 'me', password: 'pw' }];
    const own = createKubeClient(config);
    await own.version();
    await own.withToken(new Secret('theirs')).version();
    await own.withToken(new Secret('theirs')).within(new AbortController().signal).version();
    await own.version();
    const basic = `Basic ${Buffer.from('me:pw').toString('base64')}`;
    expect(seen).toEqual([basic, 'Bearer theirs', 'Bearer theirs', basic]);
    sees.close();
    sees.closeAllConnections();
  });

  test('end in time when the server does not answer, and when they are aborted', async () => {
    answer = () => undefined;
    await expect(impatient.version()).rejects.toMatchObject({ kind: 'Unavailable', reason: 'Timeout' });
    const stop = new AbortController();
    const call = client.version({ signal: stop.signal });
    stop.abort();
    await expect(call).rejects.toMatchObject({ kind: 'Unavailable', reason: 'Aborted' });
    await expect(client.version({ signal: AbortSignal.abort() })).rejects.toMatchObject({ reason: 'Aborted' });
  });

  test('say what went wrong without the text of the answer', async () => {
    answer = () => [200, 'secret text'];
    await expect(client.version()).rejects.toThrow('ask for the version: the answer is not a JSON object');
    answer = () => [503, 'secret text'];
    await expect(client.version()).rejects.toMatchObject({ kind: 'Unavailable', status: 503, retryAfterMs: 2000 });
    await expect(client.version()).rejects.not.toThrow('secret');
  });
});

describe('a proxy', () => {
  const proxyFor = (url: string) => ({ url: 'http://user:word@127.0.0.1:1', variable: `HTTPS_PROXY for ${url}` });

  test('of the environment is that for the server, unless the kubeconfig names one', () => {
    const path = kubeconfigFile('proxied');
    const { kubeConfig } = loadKubeConfig({ path, env: {}, proxyFor });
    expect(kubeConfig.getCurrentCluster()?.proxyUrl).toBe('http://user:word@127.0.0.1:1');
    expect(kubeConfig.proxy?.variable).toBe('HTTPS_PROXY for https://127.0.0.1:1');
    const config = JSON.parse(readFileSync(path, 'utf8')) as { clusters: [{ cluster: Record<string, string> }] };
    config.clusters[0].cluster['proxy-url'] = 'http://own:3128';
    writeFileSync(path, JSON.stringify(config));
    expect(loadKubeConfig({ path, env: {}, proxyFor }).kubeConfig.getCurrentCluster()?.proxyUrl).toBe(
      'http://own:3128',
    );
    expect(loadKubeConfig({ path: kubeconfigFile('direct'), env: {} }).kubeConfig.proxy).toBeUndefined();
  });

  test('that fails is named, without its password', async () => {
    const { kubeConfig } = loadKubeConfig({ path: kubeconfigFile('refused'), env: {}, proxyFor: () => ({ url: 'http://user:word@127.0.0.1:1', variable: 'HTTPS_PROXY' }) });
    const named = 'of HTTPS_PROXY; NO_PROXY lists what is reached without it)';
    await expect(createKubeClient(kubeConfig).version()).rejects.toThrow(named);
    await expect(createKubeClient(kubeConfig).version()).rejects.not.toThrow('word');
  }); // prettier-ignore
});

describe('where credentials come from', () => {
  const home = (): string => join(dir, 'nobody');

  test('the flag first, then KUBECONFIG, then the pod', () => {
    const file = kubeconfigFile('flag');
    expect(loadKubeConfig({ path: file, env: {}, home: home() }).source).toBe(file);
    const saved = process.env['KUBECONFIG'];
    process.env['KUBECONFIG'] = kubeconfigFile('variable', 'https://127.0.0.1:7');
    try {
      const loaded = loadKubeConfig({ env: process.env, home: home() });
      expect(loaded.source).toBe('KUBECONFIG');
      expect(loaded.kubeConfig.getCurrentCluster()?.server).toBe('https://127.0.0.1:7');
    } finally {
      if (saved === undefined) delete process.env['KUBECONFIG'];
      else process.env['KUBECONFIG'] = saved;
    }
    expect(loadKubeConfig({ env: { KUBERNETES_SERVICE_HOST: '10.0.0.1' }, home: home() }).source).toMatch(/pod/);
  });

  test('says what is missing', () => {
    expect(() => loadKubeConfig({ env: {}, home: home() })).toThrow(/give --kubeconfig/);
    expect(() => loadKubeConfig({ path: join(dir, 'absent'), env: {} })).toThrow(/ENOENT/);
    writeFileSync(join(dir, 'empty'), '{}');
    expect(() => loadKubeConfig({ path: join(dir, 'empty'), env: {} })).toThrow(/no current context/);
  });
});
