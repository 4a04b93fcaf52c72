/** Looks for key and token material in everything the operator shows: log, events, status, metrics, objects. */
import { createPrivateKey } from 'node:crypto';
import type { Json, Kube } from './cluster.ts';
import type { Scene, Vault } from './scene.ts';

/** Strings that must never appear: the stored keys, in every form they could take on the way out. */
export async function secretsOf(scene: Scene): Promise<string[]> {
  const { vault } = scene;
  const store = (scene.resource['spec'] as { keyStore: { mount: string; path: string; version?: number } }).keyStore;
  const path = store.version === 1 ? `${store.mount}/${store.path}` : `${store.mount}/data/${store.path}`;
  // a server of the test's own may have ended with it: then the forms of secrets are searched for, but not these values
  const answer = await vault.request('GET', path).catch(() => undefined);
  const body = (answer?.body ?? {}) as { data?: Json & { data?: Json } };
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

/** Every object of the kinds that the operator writes or could write to, in all namespaces, as text. */
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

/** Tokens of Vault that are alive besides the root token, by accessor: to see that the operator revokes its own. */
export async function tokenAccessors(vault: Vault): Promise<string[]> {
  const body = (await vault.request('LIST', 'auth/token/accessors')).body as { data?: { keys?: string[] } };
  return body.data?.keys ?? [];
}
