/** The generic runtime against a real API server: what unit tests with doubles cannot show. */
import { afterAll, beforeAll, describe, expect, jest, test } from '@jest/globals';
import { createSecureServer } from 'node:http2';
import { readFileSync } from 'node:fs';
import { createServer, connect, type AddressInfo, type Server } from 'node:net';
import type { Gvr } from '../../src/api/gvr.ts';
import type { JsonObject } from '../../src/api/json.ts';
import { createKubeClient, type KubeClient } from '../../src/kube/client.ts';
import { createEventRecorder } from '../../src/kube/events.ts';
import { createInformerFactory, type StartInformer } from '../../src/kube/informers.ts';
import { createLeaseStore } from '../../src/kube/lease.ts';
import { loadKubeConfig, type PooledKubeConfig } from '../../src/kube/pooled-kube-config.ts';
import { silentLogger } from '../../src/runtime/logger.ts';
import { systemClock } from '../../src/runtime/clock.ts';
import { runLeaderElection, type ElectionEnd } from '../../src/runtime/leader-election.ts';
import { makeServingCertificate } from '../stack/certificates.ts';
import {
  createNamespace,
  makeTemporaryDir,
  removeTemporaryDir,
  requestToken,
  sharedStack,
  waitFor,
  type SharedStack,
} from '../stack/index.ts';

jest.setTimeout(120_000);

const ns = 'runtime-test';
const configMaps: Gvr = { group: '', version: 'v1', plural: 'configmaps' };
const leases: Gvr = { group: 'coordination.k8s.io', version: 'v1', plural: 'leases' };
const events: Gvr = { group: 'events.k8s.io', version: 'v1', plural: 'events' };
const crds: Gvr = { group: 'apiextensions.k8s.io', version: 'v1', plural: 'customresourcedefinitions' };
const widgets: Gvr = { group: 'runtime-test.example.com', version: 'v1', plural: 'widgets' };

let stack: SharedStack;
let kubeConfig: PooledKubeConfig;
let client: KubeClient;
let startInformer: StartInformer;

function informersOn(config: PooledKubeConfig): StartInformer {
  const own = createKubeClient(config);
  return createInformerFactory({
    kubeConfig: config,
    client: own,
    clock: systemClock,
    random: Math.random,
    logger: silentLogger,
  });
}

const configMap = (
  name: string,
  data: Record<string, string> = {},
  labels: Record<string, string> = {},
): JsonObject => ({
  apiVersion: 'v1',
  kind: 'ConfigMap',
  metadata: { name, namespace: ns, labels },
  data,
});

beforeAll(async () => {
  stack = sharedStack();
  kubeConfig = loadKubeConfig({ path: stack.kube.adminKubeconfig, env: {} }).kubeConfig;
  client = createKubeClient(kubeConfig);
  startInformer = informersOn(kubeConfig);
  await createNamespace(stack.kube, ns);
});

describe('the client', () => {
  test('creates, reads, patches in three ways, lists and deletes', async () => {
    expect(await client.version()).toMatch(/^v1\./);
    const created = await client.createObject(configMaps, ns, configMap('crud', { a: '1' }, { test: 'crud' }));
    expect(created).toMatchObject({ kind: 'ConfigMap', metadata: { name: 'crud' } });
    await client.patchObject(configMaps, ns, 'crud', { data: { b: '2' } }, { type: 'merge' });
    await client.patchObject(configMaps, ns, 'crud', [{ op: 'add', path: '/data/c', value: '3' }], { type: 'json' });
    const applied = { apiVersion: 'v1', kind: 'ConfigMap', data: { d: '4' } };
    await client.patchObject(configMaps, ns, 'crud', applied, { type: 'apply', fieldManager: 'istio-vault-ca' });
    const read = await client.getObject(configMaps, ns, 'crud');
    expect(read?.['data']).toEqual({ a: '1', b: '2', c: '3', d: '4' });
    const listed = await client.listObjects(configMaps, ns, 'test=crud');
    expect(listed).toHaveLength(1);
    expect(listed[0]).toMatchObject({ apiVersion: 'v1', kind: 'ConfigMap' });
    expect(typeof (listed[0]?.['metadata'] as JsonObject)['creationTimestamp']).toBe('string');
    expect(await client.deleteObject(configMaps, ns, 'crud')).toBe(true);
    expect(await client.deleteObject(configMaps, ns, 'crud')).toBe(false);
    expect(await client.getObject(configMaps, ns, 'crud')).toBeUndefined();
  });

  test('lists more than a page', async () => {
    const names = Array.from({ length: 510 }, (_, i) => `page-${i}`);
    for (let i = 0; i < names.length; i += 30) {
      await Promise.all(
        names
          .slice(i, i + 30)
          .map((name) => client.createObject(configMaps, ns, configMap(name, {}, { test: 'page' }))),
      );
    }
    expect(await client.listObjects(configMaps, ns, 'test=page')).toHaveLength(510);
    await stack.kube.request('DELETE', `/api/v1/namespaces/${ns}/configmaps?labelSelector=test%3Dpage`);
  });

  test('tells resource types that are served from those that are not', async () => {
    expect(await client.isServed(configMaps)).toBe(true);
    expect(await client.isServed({ ...configMaps, plural: 'nothings' })).toBe(false);
    expect(await client.isServed(widgets)).toBe(false);
    expect(await client.getObject(widgets, ns, 'x')).toBeUndefined();
    await expect(client.listObjects(widgets, ns)).rejects.toMatchObject({ kind: 'NotFound' });
  });

  test('gets tokens with their audience', async () => {
    await client.createObject({ ...configMaps, plural: 'serviceaccounts' }, ns, {
      apiVersion: 'v1',
      kind: 'ServiceAccount',
      metadata: { name: 'istio-vault-ca' },
    });
    const { token, expiresAtMs } = await client.requestToken(ns, 'istio-vault-ca', ['vault'], 600);
    const claims = JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString()) as {
      aud: string[];
      exp: number;
    };
    expect(claims.aud).toEqual(['vault']);
    expect(Math.abs(claims.exp * 1000 - expiresAtMs)).toBeLessThan(2000);
    await expect(client.requestToken(ns, 'nobody', [], 600)).rejects.toMatchObject({ kind: 'NotFound' });
  });

  test('maps the refusals of the API server', async () => {
    await client.createObject(configMaps, ns, configMap('refusals'));
    await expect(client.createObject(configMaps, ns, configMap('refusals'))).rejects.toMatchObject({
      kind: 'Conflict',
      status: 409,
      reason: 'AlreadyExists',
    });
    const stale = { ...configMap('refusals'), metadata: { name: 'refusals', namespace: ns, resourceVersion: '1' } };
    await expect(client.replaceObject(configMaps, ns, 'refusals', stale)).rejects.toMatchObject({
      kind: 'Conflict',
      reason: 'Conflict',
    });
    const invalid = client.createObject(configMaps, ns, configMap('Not_A_Name'));
    await expect(invalid).rejects.toMatchObject({ kind: 'Invalid', status: 422, reason: 'Invalid' });
    await expect(invalid).rejects.toThrow(/metadata\.name \(FieldValueInvalid\)/);
    await expect(client.patchObject(configMaps, ns, 'absent', {}, { type: 'merge' })).rejects.toMatchObject({
      kind: 'NotFound',
      status: 404,
    });
    await expect(
      client.patchObject(configMaps, ns, 'refusals', [{ op: 'no' }], { type: 'json' }),
    ).rejects.toMatchObject({ kind: 'Invalid' });
    await client.patchObject(
      configMaps,
      ns,
      'owned',
      { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'owned' }, data: { a: '1' } },
      { type: 'apply', fieldManager: 'helm' },
    );
    const contested = client.patchObject(
      configMaps,
      ns,
      'owned',
      { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'owned' }, data: { a: '2' } },
      { type: 'apply', fieldManager: 'istio-vault-ca' },
    );
    await expect(contested).rejects.toMatchObject({
      kind: 'Conflict',
      causes: [
        { reason: 'FieldManagerConflict', field: '.data.a', message: expect.stringContaining('helm') as unknown },
      ],
    });

    const token = await requestToken(stack.kube, ns, 'powerless');
    const path = await stack.kube.kubeconfigWithToken(token, 'powerless');
    const powerless = createKubeClient(loadKubeConfig({ path, env: {} }).kubeConfig);
    const refused = powerless.getObject(configMaps, ns, 'refusals');
    await expect(refused).rejects.toMatchObject({ kind: 'Forbidden', status: 403 });
    await expect(refused).rejects.toThrow(
      /cannot get resource "configmaps" in API group "" in the namespace "runtime-test"/,
    );
    const nobody = await stack.kube.kubeconfigWithToken('not-a-token', 'nobody');
    const unknown = createKubeClient(loadKubeConfig({ path: nobody, env: {} }).kubeConfig);
    await expect(unknown.version()).rejects.toMatchObject({ kind: 'Forbidden', status: 401, reason: 'Unauthorized' });
  });
});

describe('connections', () => {
  let proxy: Server;
  let accepted = 0;

  beforeAll(async () => {
    const { hostname, port } = new URL(stack.kube.url);
    proxy = createServer((inbound) => {
      accepted += 1;
      const outbound = connect(Number(port), hostname);
      inbound.pipe(outbound).pipe(inbound);
      for (const [socket, other] of [
        [inbound, outbound],
        [outbound, inbound],
      ] as const) {
        socket.on('error', () => other.destroy());
        socket.on('close', () => other.destroy());
      }
    });
    await new Promise<void>((resolve) => proxy.listen(0, '127.0.0.1', resolve));
  });
  afterAll(() => void proxy.close());

  test('100 requests after each other take one or two, with an informer two or three', async () => {
    const { kubeConfig: own } = loadKubeConfig({ path: stack.kube.adminKubeconfig, env: {} });
    const { port } = proxy.address() as AddressInfo;
    own.clusters = own.clusters.map((cluster) => ({ ...cluster, server: `https://127.0.0.1:${port}` }));
    const pooled = createKubeClient(own);
    for (let i = 0; i < 100; i++) await pooled.getObject(configMaps, ns, 'absent');
    expect(accepted).toBeLessThanOrEqual(2);
    const informer = informersOn(own)({ gvr: configMaps, namespace: ns, onKey: () => undefined });
    await informer.synced;
    for (let i = 0; i < 50; i++) await pooled.getObject(configMaps, ns, 'absent');
    expect(accepted).toBeLessThanOrEqual(3);
    informer.stop();
  });
});

test('the pool speaks HTTP/1.1 where the server would rather speak HTTP/2', async () => {
  const dir = makeTemporaryDir('http2');
  const { caPem, certFile, keyFile } = await makeServingCertificate(dir, ['127.0.0.1']);
  const pair = { cert: readFileSync(certFile), key: readFileSync(keyFile) };
  const server = createSecureServer({ ...pair, allowHTTP1: true }, (request, response) => {
    response.end(JSON.stringify({ gitVersion: request.httpVersion }));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  try {
    const { kubeConfig: own } = loadKubeConfig({ path: stack.kube.adminKubeconfig, env: {} });
    const url = `https://127.0.0.1:${(server.address() as AddressInfo).port}`;
    own.clusters = [{ ...own.clusters[0]!, server: url, caData: Buffer.from(caPem).toString('base64') }];
    const other = createKubeClient(own);
    expect(await Promise.all([other.version(), other.version()])).toEqual(['1.1', '1.1']);
  } finally {
    server.close();
    removeTemporaryDir(dir);
  }
});

describe('the informer', () => {
  test('sees what is made, changed and deleted, by label', async () => {
    const keys: string[] = [];
    const informer = startInformer({
      gvr: configMaps,
      namespace: ns,
      labelSelector: 'test=seen',
      onKey: ({ name }) => keys.push(name),
    });
    await client.createObject(configMaps, ns, configMap('unseen'));
    await client.createObject(configMaps, ns, configMap('seen', {}, { test: 'seen' }));
    await waitFor('the new object', () => Promise.resolve(keys.includes('seen')));
    await informer.synced;
    await client.patchObject(configMaps, ns, 'seen', { data: { a: '1' } }, { type: 'merge' });
    await waitFor('its change', () =>
      Promise.resolve((informer.get(ns, 'seen')?.['data'] as JsonObject | undefined)?.['a'] === '1'),
    );
    await client.deleteObject(configMaps, ns, 'seen');
    await waitFor('its end', () => Promise.resolve(informer.get(ns, 'seen') === undefined));
    expect(new Set(keys)).toEqual(new Set(['seen']));
    expect(informer.lastContactMs()).toBeGreaterThan(0);
    informer.stop();
    const before = keys.length;
    await client.createObject(configMaps, ns, configMap('seen', {}, { test: 'seen' }));
    await client.deleteObject(configMaps, ns, 'seen');
    expect(keys).toHaveLength(before);
  });

  test('survives a restart of the API server and sees what happened since', async () => {
    const keys: string[] = [];
    await client.createObject(configMaps, ns, configMap('old', {}, { test: 'restart' }));
    const informer = startInformer({
      gvr: configMaps,
      namespace: ns,
      labelSelector: 'test=restart',
      onKey: ({ name }) => keys.push(name),
    });
    await informer.synced;
    expect(keys).toEqual(['old']);
    await stack.kube.restart();
    await client.createObject(configMaps, ns, configMap('new', {}, { test: 'restart' }));
    await client.deleteObject(configMaps, ns, 'old');
    await waitFor(
      'what happened since',
      () => Promise.resolve(informer.get(ns, 'new') !== undefined && informer.get(ns, 'old') === undefined),
      {
        timeoutMs: 60_000,
      },
    );
    expect(keys).toContain('new');
    expect(keys.filter((key) => key === 'old').length).toBeGreaterThanOrEqual(2);
    await client.createObject(configMaps, ns, configMap('later', {}, { test: 'restart' }));
    await waitFor('what happens later', () => Promise.resolve(keys.includes('later')), { timeoutMs: 60_000 });
    informer.stop();
  });

  test('counts a CRD that is not there as empty, and finds its objects when it comes', async () => {
    const keys: string[] = [];
    const informer = startInformer({
      gvr: widgets,
      missingRetryMs: 500,
      onKey: ({ namespace, name }) => keys.push(`${namespace ?? ''}/${name}`),
    });
    await informer.synced;
    expect(informer.list()).toEqual([]);
    await client.createObject(crds, undefined, {
      apiVersion: 'apiextensions.k8s.io/v1',
      kind: 'CustomResourceDefinition',
      metadata: { name: 'widgets.runtime-test.example.com' },
      spec: {
        group: widgets.group,
        scope: 'Namespaced',
        names: { plural: 'widgets', singular: 'widget', kind: 'Widget' },
        versions: [{ name: 'v1', served: true, storage: true, schema: { openAPIV3Schema: { type: 'object' } } }],
      },
    });
    const served = async (): Promise<boolean> => client.isServed(widgets);
    await waitFor('the CRD to be served', served, { timeoutMs: 30_000 });
    const widget = { apiVersion: 'runtime-test.example.com/v1', kind: 'Widget', metadata: { name: 'w' } };
    await waitFor('a widget', async () =>
      client.createObject(widgets, ns, widget).then(
        () => true,
        () => false,
      ),
    );
    await waitFor('its key', () => Promise.resolve(keys.includes(`${ns}/w`)), { timeoutMs: 60_000 });
    informer.stop();
    await client.deleteObject(crds, undefined, 'widgets.runtime-test.example.com');
  });
});

describe('leader election', () => {
  test('of two candidates one leads; the other takes over a released Lease at once, and a dead one’s in time', async () => {
    const leading = new Map<string, boolean>();
    let most = 0;
    // so long that only a release lets another one lead within this test
    const long = { leaseDurationMs: 600_000, renewDeadlineMs: 400_000 };
    const short = { leaseDurationMs: 3000, renewDeadlineMs: 2000 };
    const candidate = (
      identity: string,
      times: typeof long,
      dead = false,
    ): { stop: AbortController; end: Promise<ElectionEnd> } => {
      const stop = new AbortController();
      const store = createLeaseStore(client, ns, 'candidates');
      const end = runLeaderElection({
        // One that dies does not renew.
        lease: dead ? { ...store, update: () => Promise.reject(new Error('dead')) } : store,
        identity,
        clock: systemClock,
        random: Math.random,
        logger: silentLogger,
        ...times,
        retryPeriodMs: 400,
        signal: stop.signal,
        onStartedLeading: async (signal) => {
          leading.set(identity, true);
          most = Math.max(most, [...leading.values()].filter(Boolean).length);
          await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
          leading.set(identity, false);
        },
        onStoppedLeading: () => leading.set(identity, false),
      });
      return { stop, end };
    };
    const a = candidate('a', long);
    await waitFor('a to lead', () => Promise.resolve(leading.get('a') === true));
    const b = candidate('b', long);
    const lease = async (): Promise<JsonObject> => (await client.getObject(leases, ns, 'candidates')) as JsonObject;
    expect((await lease())['spec']).toMatchObject({
      holderIdentity: 'a',
      leaseDurationSeconds: 600,
      leaseTransitions: 0,
    });

    a.stop.abort();
    expect(await a.end).toBe('released');
    await waitFor('b to lead', () => Promise.resolve(leading.get('b') === true));
    expect((await lease())['spec']).toMatchObject({ holderIdentity: 'b', leaseTransitions: 1 });
    b.stop.abort();
    expect(await b.end).toBe('released');
    expect((await lease())['spec']).not.toHaveProperty('holderIdentity');
    await client.deleteObject(leases, ns, 'candidates');

    const dying = candidate('dying', short, true);
    await waitFor('the dying one to lead', () => Promise.resolve(leading.get('dying') === true));
    const heir = candidate('heir', short);
    expect(await dying.end).toBe('lost');
    expect(leading.get('heir')).toBeUndefined();
    await waitFor('the heir to lead', () => Promise.resolve(leading.get('heir') === true));
    heir.stop.abort();
    await heir.end;
    expect(most).toBe(1);
  });
});

describe('events', () => {
  test('are made, and become a series', async () => {
    const recorder = createEventRecorder({
      client,
      clock: systemClock,
      logger: silentLogger,
      reportingInstance: 'test-pod',
    });
    const object = (await client.createObject(configMaps, ns, configMap('subject')))['metadata'] as JsonObject;
    const event = {
      regarding: { apiVersion: 'v1', kind: 'ConfigMap', name: 'subject', namespace: ns, uid: object['uid'] as string },
      type: 'Warning' as const,
      reason: 'Sealed',
      action: 'Reconcile',
      note: 'ü'.repeat(2000),
    };
    const found = async (): Promise<JsonObject[]> =>
      (await client.listObjects(events, ns)).filter((each) => (each['regarding'] as JsonObject)['name'] === 'subject');
    recorder.record(event);
    await recorder.flush();
    const [made, ...more] = await found();
    expect(more).toEqual([]);
    expect(made).toMatchObject({
      type: 'Warning',
      reason: 'Sealed',
      reportingController: 'istiovaultca.io/istio-vault-ca',
      reportingInstance: 'test-pod',
    });
    expect(Buffer.byteLength(made?.['note'] as string)).toBe(1024);
    recorder.record(event);
    recorder.record({ ...event, note: 'another' });
    await recorder.flush();
    const after = await found();
    expect(after).toHaveLength(2);
    expect(after.find(({ note }) => note !== 'another')?.['series']).toMatchObject({ count: 2 });
  });

  test('that are refused are counted, and nothing else happens', async () => {
    let dropped = 0;
    const recorder = createEventRecorder({
      client,
      clock: systemClock,
      logger: silentLogger,
      reportingInstance: 'test-pod',
      onDropped: () => (dropped += 1),
    });
    const regarding = { apiVersion: 'v1', kind: 'ConfigMap', name: 'x', namespace: 'no-such-namespace' };
    recorder.record({ regarding, type: 'Normal', reason: 'R', action: 'A', note: 'n' });
    recorder.record({ regarding: { ...regarding, namespace: ns }, type: 'Normal', reason: '', action: '', note: 'n' });
    await recorder.flush();
    expect(dropped).toBe(2);
  });
});
