/** KV entries, with one interface for KV 1 and KV 2. KV 1 has no versions and no check-and-set: its version is always 0. */
import { z } from 'zod';
import type { Lifetime } from '../plan/facts/observed.ts';
import type { VaultClient } from './client.ts';

/** The location of a KV entry. */
export interface KvPlace {
  mount: string;
  path: string;
  version: 1 | 2;
}

export interface KvEntry {
  /** KV 2: the current version, which the next check-and-set write must name. */
  casVersion: number;
  /** undefined: the entry was never written, or its current version is deleted or destroyed. */
  data: Record<string, unknown> | undefined;
  /** KV 2: set if Vault deletes this version automatically (`delete_version_after`). */
  lifetime?: Lifetime;
}

const v2Schema = z.object({
  data: z.record(z.string(), z.unknown()).nullish(),
  metadata: z
    .object({ version: z.int(), created_time: z.string().default(''), deletion_time: z.string().default('') })
    .nullish(),
});

/** Reads the current version of an entry. */
export async function readKv(client: VaultClient, { mount, path, version }: KvPlace): Promise<KvEntry> {
  if (version === 1) return { casVersion: 0, data: await client.read(`${mount}/${path}`) };
  // The 404 response for a deleted or destroyed version has its metadata. The next check-and-set write must name that version.
  const reply = await client.call('GET', `${mount}/data/${path}`, undefined, { allow: [404] });
  const { data, metadata } = v2Schema.parse(reply.data);
  const entry = { casVersion: metadata?.version ?? 0, data: data ?? undefined };
  // If the version is already deleted, deletion_time is the time of that deletion.
  if (!data || !metadata?.deletion_time) return entry;
  return { ...entry, lifetime: { from: Date.parse(metadata.created_time), to: Date.parse(metadata.deletion_time) } };
}

/**
 * Replaces the whole entry.
 * @param cas KV 2: the version that the write replaces; 0 if the entry was never written
 * @throws VaultError of kind `CheckAndSet` if the current version is another one
 */
export async function writeKv(
  client: VaultClient,
  { mount, path, version }: KvPlace,
  data: Record<string, string>,
  cas: number,
): Promise<void> {
  if (version === 1) await client.write(`${mount}/${path}`, data);
  else await client.write(`${mount}/data/${path}`, { data, options: { cas } });
}

/**
 * Destroys the content of an entry. On KV 2 only the given versions are destroyed: a version written meanwhile remains, and the next
 * check-and-set write names the destroyed version.
 */
export async function destroyKv(client: VaultClient, place: KvPlace, versions: number[]): Promise<void> {
  if (place.version === 1) await client.delete(`${place.mount}/${place.path}`);
  else await destroyVersions(client, place, versions);
}

/** The versions that KV 2 keeps of an entry besides the current one. */
export interface KvVersions {
  /** `max_versions` of the entry; undefined if it is not set for the entry, or if the entry was never written. */
  limit: number | undefined;
  /** Numbers of the versions that are neither current nor destroyed. */
  older: number[];
  /** OpenBao: the version of the metadata, which a check-and-set of them must name; 0 if the entry was never written. Absent: Vault has none. */
  metadataVersion?: number;
}

const metadataSchema = z.object({
  max_versions: z.int(),
  current_version: z.int().default(0),
  current_metadata_version: z.int().exactOptional(),
  versions: z.record(z.string(), z.object({ destroyed: z.boolean() })).nullish(),
});

/** Reads the metadata of a KV 2 entry. */
export async function readVersions(client: VaultClient, { mount, path }: KvPlace): Promise<KvVersions> {
  const body = await client.read(`${mount}/metadata/${path}`);
  if (!body) return { limit: undefined, older: [], metadataVersion: 0 };
  const { max_versions, current_version, current_metadata_version, versions } = metadataSchema.parse(body);
  const older = Object.entries(versions ?? {})
    .filter(([number, { destroyed }]) => Number(number) !== current_version && !destroyed)
    .map(([number]) => Number(number));
  return {
    limit: max_versions || undefined,
    older,
    ...(current_metadata_version === undefined ? {} : { metadataVersion: current_metadata_version }),
  };
}

/** Destroys versions of a KV 2 entry irreversibly. */
export async function destroyVersions(
  client: VaultClient,
  { mount, path }: KvPlace,
  versions: number[],
): Promise<void> {
  await client.call('PUT', `${mount}/destroy/${path}`, { versions });
}

/** Destroys the versions of a KV 2 entry that are newer than `version`. @param current the number of the current version */
export async function destroyAfter(
  client: VaultClient,
  place: KvPlace,
  version: number,
  current: number,
): Promise<void> {
  const { older } = await readVersions(client, place);
  await destroyVersions(
    client,
    place,
    [...older, current].filter((number) => number > version),
  );
}

/**
 * Limits the number of versions that KV 2 keeps of an entry. The entry does not need to exist. The write is a check-and-set, because a mount
 * or an entry of OpenBao can require that (`metadata_cas_required`). Vault ignores the parameter.
 * https://openbao.org/api-docs/secret/kv/kv-v2/#create-update-metadata
 * @throws VaultError of kind `CheckAndSet` if somebody else wrote the metadata meanwhile
 */
export async function writeMaxVersions(client: VaultClient, place: KvPlace, versions: number): Promise<void> {
  const { metadataVersion } = await readVersions(client, place);
  await client.write(`${place.mount}/metadata/${place.path}`, {
    max_versions: versions,
    ...(metadataVersion === undefined ? {} : { metadata_cas: metadataVersion }),
  });
}

/** Deletes an entry with all its versions. On KV 2 this resets the version counter too, so only cleanup uses it. */
export async function deleteKv(client: VaultClient, { mount, path, version }: KvPlace): Promise<void> {
  await client.delete(version === 1 ? `${mount}/${path}` : `${mount}/metadata/${path}`);
}

/** Returns the names of all entries at the top level of the mount, on KV 2 also of deleted ones. */
export async function listKv(client: VaultClient, mount: string, version: 1 | 2): Promise<string[]> {
  return await client.list(version === 1 ? mount : `${mount}/metadata`);
}
