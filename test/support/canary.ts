/** Looks for key and token material in everything the operator shows: log, events, status, metrics, objects. */
import { createPrivateKey } from 'node:crypto';
import { resourcePath, type Json, type Kube } from './cluster.ts';
import type { Scene, Vault } from './scene.ts';

/** Strings that must never appear: the stored keys, in every form they could take on the way out. */
export async function secretsOf(scene: Scene): Promise<string[]> {
  const { vault } = scene;
  const store = (scene.resource['spec'] as { keyStore: { mount: string; path: string; version?: number } }).keyStore;
  const path = store.version === 1 ? `${store.mount}/${store.path}` : `${store.mount}/data/${store.path}`;
  const body = (await vault.request('GET', path)).body as { data?: Json & { data?: Json } };
  const entry = store.version === 1 ? body.data : body.data?.data;
  const pem = entry?.['ca-key.pem'];
  if (typeof pem !== 'string') return [];
  const middle = pem.split('\n').filter((line) => line !== '' && !line.startsWith('-----'));
  const pkcs8 = createPrivateKey(pem).export({ type: 'pkcs8', format: 'der' }).toString('base64');
  return [...middle.map((line) => line.slice(0, 40)).filter((line) => line.length > 20), pkcs8.slice(40, 80)];
}

/** Forms of secrets that need no knowledge of their value. */
const patterns = [
  /-----BEGIN [A-Z ]*PRIVATE KEY-----/,
  /\bhv[sbr]\.[A-Za-z0-9_-]{20,}/,
  /\bs\.[A-Za-z0-9]{20,}\b/,
  /\beyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}/,
];

/** Where a secret shows; empty when nowhere. */
export function leaks(texts: Record<string, string>, secrets: string[]): string[] {
  return Object.entries(texts).flatMap(([name, text]) => [
    ...secrets.filter((secret) => text.includes(secret)).map(() => `${name}: a stored secret`),
    ...patterns.filter((pattern) => pattern.test(text)).map((pattern) => `${name}: ${pattern.source}`),
  ]);
}

/** Everything of a namespace that the operator may have written, as text. */
export async function visibleObjects(kube: Kube, namespace: string, name: string): Promise<Record<string, string>> {
  const get = async (path: string) => JSON.stringify((await kube.request('GET', path)).body);
  return {
    resource: await get(resourcePath(namespace, name)),
    events: await get(`/apis/events.k8s.io/v1/namespaces/${namespace}/events`),
    configMaps: await get(`/api/v1/namespaces/${namespace}/configmaps`),
    controlPlane: await get(`/apis/install.tetrate.io/v1alpha1/namespaces/${namespace}/controlplanes`),
  };
}

/** Tokens of Vault that are alive besides the root token, by accessor: to see that the operator revokes its own. */
export async function tokenAccessors(vault: Vault): Promise<string[]> {
  const body = (await vault.request('LIST', 'auth/token/accessors')).body as { data?: { keys?: string[] } };
  return body.data?.keys ?? [];
}
