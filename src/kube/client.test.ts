import { describe, expect, test } from '@jest/globals';
import type { JsonObject } from '../api/json.ts';
import { clientOn } from './client.ts';
import { KubeError } from './errors.ts';
import { resourcePath } from './resources.ts';
import type { KubeRequest } from './transport.ts';

const configMaps = { group: '', version: 'v1', plural: 'configmaps' };
const resources = { group: 'istiovaultca.io', version: 'v1alpha1', plural: 'istiovaultcas' };

/** A client that records its requests and returns the given answers in order. An answer that is an Error is thrown. */
function setup(...answers: (JsonObject | Error)[]) {
  const requests: KubeRequest[] = [];
  const client = clientOn((request) => {
    requests.push(request);
    const answer = answers.shift() ?? {};
    return answer instanceof Error ? Promise.reject(answer) : Promise.resolve(answer);
  });
  return { client, requests };
}

const notFound = new KubeError('none', { kind: 'NotFound', status: 404 });

describe('paths', () => {
  test.each([
    [resourcePath(configMaps), '/api/v1/configmaps'],
    [resourcePath(configMaps, 'ns', 'a'), '/api/v1/namespaces/ns/configmaps/a'],
    [resourcePath(resources, undefined, 'a'), '/apis/istiovaultca.io/v1alpha1/istiovaultcas/a'],
    [resourcePath(resources, 'n/s', 'a?b%'), '/apis/istiovaultca.io/v1alpha1/namespaces/n%2Fs/istiovaultcas/a%3Fb%25'],
  ])('%s', (path, expected) => expect(path).toBe(expected));

  test.each(['', '.', '..'])('refuses %j as a name: URL parsers resolve it', (name) =>
    expect(() => resourcePath(configMaps, 'ns', name)).toThrow(RangeError),
  );
});

describe('the client', () => {
  test('reads undefined where there is nothing, and passes other errors on', async () => {
    const forbidden = new KubeError('no', { kind: 'Forbidden' });
    const { client } = setup(notFound, forbidden, notFound, { kind: 'Status' });
    expect(await client.getObject(configMaps, 'ns', 'a')).toBeUndefined();
    await expect(client.getObject(configMaps, 'ns', 'a')).rejects.toBe(forbidden);
    expect(await client.deleteObject(configMaps, 'ns', 'a')).toBe(false);
    expect(await client.deleteObject(configMaps, 'ns', 'a')).toBe(true);
  });

  test('lists page by page and fills in what lists leave out', async () => {
    const page = (name: string, more?: string): JsonObject => ({
      apiVersion: 'v1',
      kind: 'ConfigMapList',
      metadata: { resourceVersion: '7', ...(more === undefined ? {} : { continue: more }) },
      items: [{ metadata: { name } }],
    });
    const { client, requests } = setup(page('a', 'next'), page('b'));
    expect(await client.listCollection(configMaps, 'ns', { labelSelector: 'x=y' })).toEqual({
      items: [
        { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'a' } },
        { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'b' } },
      ],
      resourceVersion: '7',
    });
    expect(requests.map(({ query }) => query)).toEqual([
      { labelSelector: 'x=y', limit: '500', continue: undefined },
      { labelSelector: 'x=y', limit: '500', continue: 'next' },
    ]);
  });

  test('begins a list anew when its version is gone in the middle, not when it is gone at the start', async () => {
    const gone = new KubeError('gone', { kind: 'Gone' });
    const page = (name: string, more?: string): JsonObject => ({
      metadata: { continue: more, resourceVersion: '1' },
      items: [{ metadata: { name } }],
    });
    const { client } = setup(page('a', 'next'), gone, page('a', 'next'), page('b'), gone);
    expect(await client.listObjects(configMaps, undefined)).toHaveLength(2);
    await expect(client.listObjects(configMaps, undefined)).rejects.toBe(gone);
  });

  test('patches with the right type, manager and subresource', async () => {
    const { client, requests } = setup();
    await client.patchObject(resources, 'ns', 'a', { status: {} }, { type: 'merge', subresource: 'status' });
    await client.patchObject(resources, 'ns', 'a', [{ op: 'test', path: '/x', value: 1 }], { type: 'json' });
    await client.patchObject(resources, 'ns', 'a', {}, { type: 'apply', fieldManager: 'istio-vault-ca', force: true });
    expect(requests.map(({ contentType }) => contentType)).toEqual([
      'application/merge-patch+json',
      'application/json-patch+json',
      'application/apply-patch+yaml',
    ]);
    expect(requests[0]?.path).toMatch(/\/istiovaultcas\/a\/status$/);
    expect(requests[2]?.query).toEqual({ fieldManager: 'istio-vault-ca', force: 'true' });
    expect(requests[0]?.what).toBe('patch istiovaultcas.istiovaultca.io ns/a');
  });

  test('asks for tokens; no audiences means the API server’s own', async () => {
    const status = { token: 'abc', expirationTimestamp: '2026-01-01T00:10:00Z' };
    const { client, requests } = setup({ status }, { status }, { status: {} });
    expect(await client.requestToken('ns', 'istio-vault-ca', ['vault'], 600)).toEqual({
      token: 'abc',
      expiresAtMs: Date.UTC(2026, 0, 1, 0, 10),
    });
    await client.requestToken('ns', 'istio-vault-ca', [], 600);
    expect(requests.map(({ body }) => (body as JsonObject)['spec'])).toEqual([
      { audiences: ['vault'], expirationSeconds: 600 },
      { expirationSeconds: 600 },
    ]);
    expect(requests[0]?.path).toBe('/api/v1/namespaces/ns/serviceaccounts/istio-vault-ca/token');
    await expect(client.requestToken('ns', 'istio-vault-ca', [], 600)).rejects.toThrow('no token came back');
  });

  test('reads a part of a log as text', async () => {
    const requests: KubeRequest[] = [];
    const client = clientOn(
      () => Promise.reject(new Error('not JSON')),
      (request) => {
        requests.push(request);
        return Promise.resolve('line\n');
      },
    );
    const read = (part: Parameters<typeof client.podLog>[3]) => client.podLog('ns', 'pod', 'discovery', part);
    expect(await read({ previous: true, tailLines: 60, limitBytes: 1024 })).toBe('line\n');
    await read({ limitBytes: 1024 });
    expect(requests.map(({ path, query }) => ({ path, ...query }))).toEqual([
      {
        path: '/api/v1/namespaces/ns/pods/pod/log',
        container: 'discovery',
        previous: 'true',
        tailLines: '60',
        limitBytes: '1024',
      },
      {
        path: '/api/v1/namespaces/ns/pods/pod/log',
        container: 'discovery',
        previous: undefined,
        tailLines: undefined,
        limitBytes: '1024',
      },
    ]);
    await expect(clientOn(() => Promise.resolve({})).podLog('ns', 'p', 'c', { limitBytes: 1 })).rejects.toThrow(
      KubeError,
    );
  });

  test('tells whether a type is served', async () => {
    const served = { resources: [{ name: 'istiovaultcas' }, { name: 'istiovaultcas/status' }] };
    const { client } = setup(served, { resources: [{ name: 'others' }] }, notFound);
    expect([
      await client.isServed(resources),
      await client.isServed(resources),
      await client.isServed(resources),
    ]).toEqual([true, false, false]);
  });

  test('asks whether it may do something', async () => {
    const { client, requests } = setup({ status: { allowed: true } }, { status: { allowed: false } }, {});
    const permission = { verb: 'create', group: '', resource: 'configmaps', namespace: 'ns' };
    const answers = [1, 2, 3].map(() => client.isAllowed(permission));
    expect(await Promise.all(answers)).toEqual([true, false, false]);
    expect(requests[0]).toMatchObject({
      method: 'POST',
      path: '/apis/authorization.k8s.io/v1/selfsubjectaccessreviews',
      body: { spec: { resourceAttributes: permission } },
    });
  });

  test('deletes with preconditions', async () => {
    const { client, requests } = setup();
    await client.deleteObject(configMaps, 'ns', 'a', { uid: 'u', resourceVersion: '5' });
    expect(requests[0]?.body).toMatchObject({
      propagationPolicy: 'Background',
      preconditions: { uid: 'u', resourceVersion: '5' },
    });
  });
});
