/** Reads the objects of a scene in Vault as administrator. */
import type { Scene } from './scene.ts';

interface Store {
  mount: string;
  path: string;
  version?: 1 | 2;
}

const storeOf = ({ resource }: Scene): Store => (resource['spec'] as { keyStore: Store }).keyStore;

/** API path of an entry in the key store. */
function entryPath(scene: Scene, suffix: '' | '-staging' | '-state' = ''): string {
  const { mount, path, version = 2 } = storeOf(scene);
  return version === 1 ? `${mount}/${path}${suffix}` : `${mount}/data/${path}${suffix}`;
}

/** The data of an entry; undefined: the entry does not exist. */
export async function entry(
  scene: Scene,
  suffix: '' | '-staging' | '-state' = '',
): Promise<Record<string, string> | undefined> {
  const { version = 2 } = storeOf(scene);
  const { body } = await scene.vault.request('GET', entryPath(scene, suffix));
  const data = (body as { data?: Record<string, unknown> | null }).data ?? undefined;
  return (version === 1 ? data : (data?.['data'] ?? undefined)) as Record<string, string> | undefined;
}

/** Numbers of the versions of an entry that KV 2 still holds; none: the entry was never written, or every version is destroyed. */
export async function heldVersions(scene: Scene, suffix: '' | '-staging' | '-state'): Promise<string[]> {
  const { mount, path } = storeOf(scene);
  const { body } = await scene.vault.request('GET', `${mount}/metadata/${path}${suffix}`);
  const { versions = {} } = (body as { data?: { versions?: Record<string, { destroyed: boolean }> } }).data ?? {};
  return Object.entries(versions).flatMap(([number, { destroyed }]) => (destroyed ? [] : [number]));
}

/** Writes an entry as another client than the operator. */
export async function writeEntry(
  scene: Scene,
  data: Record<string, string>,
  suffix: '' | '-staging' = '',
): Promise<void> {
  const { version = 2 } = storeOf(scene);
  const path = entryPath(scene, suffix);
  const { status } = await scene.vault.request('POST', path, version === 1 ? data : { data });
  if (status >= 300) throw new Error(`writing ${path}: ${status}`);
}

/** Names under a path; empty: there are none. */
async function names(scene: Scene, path: string): Promise<string[]> {
  const { body } = await scene.vault.request('LIST', path);
  return (body as { data?: { keys?: string[] } }).data?.keys ?? [];
}

/** Issuers and keys of both PKI mounts, by their ids. */
export async function inventory(scene: Scene): Promise<Record<string, string[]>> {
  const { namespace } = scene;
  const paths = [
    `${namespace}-pki/issuers`,
    `${namespace}-pki/keys`,
    `${namespace}-ca/issuers`,
    `${namespace}-ca/keys`,
  ];
  return Object.fromEntries(await Promise.all(paths.map(async (p) => [p, (await names(scene, p)).sort()] as const)));
}

/** The certificate that a mount serves by default. */
export async function servedBy(scene: Scene, mount: 'pki' | 'ca'): Promise<string> {
  const { body } = await scene.vault.request('GET', `${scene.namespace}-${mount}/cert/ca`);
  return ((body as { data?: { certificate?: string } }).data?.certificate ?? '').trim();
}
