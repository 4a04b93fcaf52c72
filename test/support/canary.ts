/** Searches everything the operator writes or exposes for key and token material: log, Events, status, metrics, objects. */
import { createPrivateKey } from 'node:crypto';
import type { Json, Kube } from './cluster.ts';
import type { Scene, Vault } from './scene.ts';

/** Strings that must never appear: the stored keys in every encoding in which they could leak. */
export async function secretsOf(scene: Scene): Promise<string[]> {
  const { vault } = scene;
  const store = (scene.resource['spec'] as { keyStore: { mount: string; path: string; version?: number } }).keyStore;
  const path = store.version === 1 ? `${store.mount}/${store.path}` : `${store.mount}/data/${store.path}`;
  // the own server of a test can be stopped already: then only the forms of secrets are searched for, not these values
  const answer = await vault.request('GET', path).catch(() => undefined);
  const body = (answer?.body ?? {}) as { data?: Json & { data?: Json } };
  const entry = store.version === 1 ? body.data : body.data?.data;
  const pem = entry?.['ca-key.pem'];
  if (typeof pem !== 'string') return [];
  const middle = pem.split('\n').filter((line) => line !== '' && !line.startsWith('-----'));
  const pkcs8 = createPrivateKey(pem).export({ type: 'pkcs8', format: 'der' }).toString('base64');
  return [...middle.map((line) => line.slice(0, 40)).filter((line) => line.length > 20), pkcs8.slice(40, 80)];
}

/** Patterns of secrets that are recognizable without their value. */
const patterns = [
  /-----BEGIN [A-Z ]*PRIVATE KEY-----/,
  /\bhv[sbr]\.[A-Za-z0-9_-]{20,}/,
  /\bs\.[A-Za-z0-9]{20,}\b/,
  /\beyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}/,
];

/** The places that contain a secret; empty: none. */
export function leaks(texts: Record<string, string>, secrets: string[]): string[] {
  return Object.entries(texts).flatMap(([name, text]) => [
    ...secrets.filter((secret) => text.includes(secret)).map(() => `${name}: a stored secret`),
    ...patterns.filter((pattern) => pattern.test(text)).map((pattern) => `${name}: ${pattern.source}`),
  ]);
}

/** All objects of the kinds that the operator can write, in all namespaces, as text. */
export async function everythingVisible(kube: Kube): Promise<Record<string, string>> {
  const paths = {
    resources: '/apis/istiovaultca.io/v1alpha1/istiovaultcas',
    events: '/apis/events.k8s.io/v1/events',
    controlPlanes: '/apis/install.tetrate.io/v1alpha1/controlplanes',
    configMaps: '/api/v1/configmaps',
    leases: '/apis/coordination.k8s.io/v1/leases',
  };
  const texts = Object.entries(paths).map(
    async ([name, path]) => [name, JSON.stringify((await kube.request('GET', path)).body)] as const,
  );
  return Object.fromEntries(await Promise.all(texts));
}

/** Accessors of valid Vault tokens except the root token, to check that the operator revokes its own. */
export async function tokenAccessors(vault: Vault): Promise<string[]> {
  const body = (await vault.request('LIST', 'auth/token/accessors')).body as { data?: { keys?: string[] } };
  return body.data?.keys ?? [];
}
