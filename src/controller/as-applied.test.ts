import { expect, it } from '@jest/globals';
import type { JsonObject } from '../api/json.ts';
import { specSchema } from '../api/schema.ts';
import { clientOn } from '../kube/client.ts';
import { KubeError } from '../kube/errors.ts';
import { Secret } from '../observability/secret.ts';
import { applied, asApplied } from './as-applied.ts';
import { resources } from './observe-kubernetes.ts';

const spec = specSchema.parse({
  vault: { address: 'https://vault.vault.svc:8200', auth: { kubernetes: { role: 'istio-vault-ca' } } },
  controlPlane: { kind: 'Sail', name: 'default' },
});
const manifest = { namespace: 'mesh', name: 'istioca', annotations: { a: 'new', b: 'new' }, spec };

/** A client of an API server that gives the same answers to every request and counts the requests. */
function server(answer: () => JsonObject) {
  const asked: string[] = [];
  const client = clientOn(({ method, path }) => {
    asked.push(`${method} ${path}`);
    return Promise.resolve().then(answer);
  });
  return { client, asked };
}

it('annotations of the manifest stand over those that are there', () => {
  const existing = { metadata: { name: 'istioca', uid: 'u', generation: 7, annotations: { a: 'old', c: 'old' } } };
  expect(applied(manifest, existing, 0).metadata).toMatchObject({
    uid: 'u',
    generation: 7,
    annotations: { a: 'new', b: 'new', c: 'old' },
  });
});

it('one that is not there is the youngest', () => {
  expect(applied(manifest, undefined, 0).metadata).toMatchObject({
    creationTimestamp: '1970-01-01T00:00:00Z',
    annotations: manifest.annotations,
  });
});

it('stands among the others, in its new form, and in place of its old one', async () => {
  const others = [
    { metadata: { namespace: 'mesh', name: 'istioca', uid: 'old' } },
    { metadata: { namespace: 'mesh', name: 'rival' } },
  ];
  const { client, asked } = server(() => ({ kind: 'IstioVaultCAList', metadata: {}, items: others }));
  const seen = asApplied(client, applied(manifest, undefined, 0));
  const listed = await seen.listObjects(resources, 'mesh');
  expect(listed.map(({ metadata }) => (metadata as JsonObject)['name'])).toEqual(['rival', 'istioca']);
  expect(await seen.getObject(resources, 'mesh', 'istioca')).toEqual(listed[1]);
  await seen.getObject(resources, 'mesh', 'rival');
  expect(asked).toHaveLength(2);
});

it('stands alone where its type is not installed', async () => {
  const { client } = server(() => {
    throw new KubeError('list', { kind: 'NotFound', status: 404 });
  });
  expect(await asApplied(client, applied(manifest, undefined, 0)).listObjects(resources, 'mesh')).toHaveLength(1);
});

it('nothing can be written', async () => {
  const { client, asked } = server(() => ({}));
  const seen = asApplied(client, applied(manifest, undefined, 0));
  const gvr = { group: '', version: 'v1', plural: 'configmaps' };
  await expect(seen.createObject(gvr, 'mesh', {})).rejects.toThrow('a bug');
  await expect(seen.replaceObject(gvr, 'mesh', 'a', {})).rejects.toThrow('a bug');
  await expect(seen.patchObject(gvr, 'mesh', 'a', {}, { type: 'merge' })).rejects.toThrow('a bug');
  await expect(seen.deleteObject(gvr, 'mesh', 'a')).rejects.toThrow('a bug');
  await expect(seen.withToken(new Secret('token')).createObject(gvr, 'mesh', {})).rejects.toThrow('a bug');
  expect(asked).toEqual([]);
});
