/** The CA of the manual procedure, made with API calls: they take less time than its command line. */
import { waitFor } from '../stack/index.ts';
import type { Json } from './cluster.ts';
import type { Vault } from './scene.ts';

export interface ByApi {
  vault: Vault;
  mounts: { root: string; intermediate: string; keyStore: string };
  /** Path of the CA entry in the API of KV, and the version of its mount. */
  entry: string;
  version: 1 | 2;
  /** Parameters of the keys. */
  key: { key_type: 'rsa' | 'ec' | 'ed25519'; key_bits?: number };
  /** Changes the text of the key before it is stored. */
  form?: (pem: string) => string;
}

/** Makes mounts, root, intermediate and entry. The root expires after the intermediate. @throws if a call fails */
export async function makeCaByApi({ vault, mounts, entry, version, key, form = (pem) => pem }: ByApi) {
  const call = async (path: string, body: Json): Promise<Record<string, string>> => {
    const answer = await vault.request('POST', path, body);
    if (answer.status >= 300) throw new Error(`POST ${path}: ${answer.status} ${JSON.stringify(answer.body)}`);
    return (answer.body as { data?: Record<string, string> } | undefined)?.data ?? {};
  };
  const { root, intermediate, keyStore } = mounts;
  const lifetimes = { root: '87600h', intermediate: '43800h' };
  for (const tier of ['root', 'intermediate'] as const)
    await call(`sys/mounts/${mounts[tier]}`, { type: 'pki', config: { max_lease_ttl: lifetimes[tier] } });
  await call(`${root}/root/generate/internal`, {
    common_name: 'Tetrate Root Authority',
    ttl: lifetimes.root,
    ...(key.key_type === 'ed25519' ? { key_type: 'ec', key_bits: 256 } : key),
  });
  const { csr = '', private_key: privateKey = '' } = await call(`${intermediate}/intermediate/generate/exported`, {
    common_name: 'Tetrate Intermediate Authority',
    ttl: lifetimes.intermediate,
    ...key,
  });
  const signing = { csr, format: 'pem_bundle', ttl: lifetimes.intermediate };
  const { certificate = '' } = await call(`${root}/root/sign-intermediate`, signing);
  await call(`${intermediate}/intermediate/set-signed`, { certificate });
  await call(`sys/mounts/${keyStore}`, { type: 'kv', options: { version: String(version) } });
  const data = { 'ca-key.pem': form(`${privateKey}\n`) };
  // KV 2 answers 400 until the upgrade of its new mount is finished
  await waitFor('the key to be stored', async () => [await call(entry, version === 2 ? { data } : data)], {
    intervalMs: 20,
  });
  return { certificate, privateKey };
}
