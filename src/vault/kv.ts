/** The key store: KV version 1 and 2 behind one slot with a check-and-set version (always 0 on KV 1, which has none). */
import { z } from 'zod';
import type { Lifetime } from '../plan/facts/observed.ts';
import type { VaultClient } from './client.ts';

export interface KvPlace {
  mount: string;
  path: string;
  version: 1 | 2;
}

export interface KvEntry {
  /** KV 2: the version that a check-and-set must name. */
  casVersion: number;
  /** undefined: never written, deleted or destroyed. */
  data: Record<string, unknown> | undefined;
  /** KV 2: set when Vault deletes this version by itself (`delete_version_after`). */
  lifetime?: Lifetime;
}

const v2Schema = z.object({
  data: z.record(z.string(), z.unknown()).nullish(),
  metadata: z
    .object({ version: z.int(), created_time: z.string().default(''), deletion_time: z.string().default('') })
    .nullish(),
});

/** Reads the latest version. */
export async function readKv(client: VaultClient, { mount, path, version }: KvPlace): Promise<KvEntry> {
  if (version === 1) return { casVersion: 0, data: await client.read(`${mount}/${path}`) };
  // a deleted or destroyed version answers 404 with its metadata, which a later check-and-set must name
  const reply = await client.call('GET', `${mount}/data/${path}`, undefined, { allow: [404] });
  const { data, metadata } = v2Schema.parse(reply.data);
  const entry = { casVersion: metadata?.version ?? 0, data: data ?? undefined };
  // of a version that was deleted it is when that was
  if (!data || !metadata?.deletion_time) return entry;
  return { ...entry, lifetime: { from: Date.parse(metadata.created_time), to: Date.parse(metadata.deletion_time) } };
}

/** Writes the whole entry. @param cas the version it replaces (KV 2) @throws VaultError kind CheckAndSet when it is another */
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
 * Removes an entry so that its content is gone. On KV 2 exactly the version that was seen is destroyed: a version written
 * meanwhile stays, and the next check-and-set names the destroyed one.
 */
export async function destroyKv(client: VaultClient, place: KvPlace, seen: number): Promise<void> {
  if (place.version === 1) await client.delete(`${place.mount}/${place.path}`);
  else await destroyVersions(client, place, [seen]);
}

/** What KV 2 keeps of an entry besides the version that stands. */
export interface KvVersions {
  /** How many versions it keeps; undefined when nothing was set for it, or it was never written. */
  limit: number | undefined;
  /** Numbers of older versions that still hold something. */
  older: number[];
}

const metadataSchema = z.object({
  max_versions: z.int(),
  current_version: z.int().default(0),
  versions: z.record(z.string(), z.object({ destroyed: z.boolean() })).nullish(),
});

/** Reads the metadata of a KV 2 entry. */
export async function readVersions(client: VaultClient, { mount, path }: KvPlace): Promise<KvVersions> {
  const body = await client.read(`${mount}/metadata/${path}`);
  if (!body) return { limit: undefined, older: [] };
  const { max_versions, current_version, versions } = metadataSchema.parse(body);
  const older = Object.entries(versions ?? {})
    .filter(([number, { destroyed }]) => Number(number) !== current_version && !destroyed)
    .map(([number]) => Number(number));
  return { limit: max_versions || undefined, older };
}

/** Destroys versions of a KV 2 entry for good. */
export async function destroyVersions(
  client: VaultClient,
  { mount, path }: KvPlace,
  versions: number[],
): Promise<void> {
  await client.call('PUT', `${mount}/destroy/${path}`, { versions });
}

/** Destroys all versions of a KV 2 entry after one. @param seen the version that stands */
export async function destroyAfter(client: VaultClient, place: KvPlace, version: number, seen: number): Promise<void> {
  const { older } = await readVersions(client, place);
  await destroyVersions(
    client,
    place,
    [...older, seen].filter((one) => one > version),
  );
}

/** Limits the versions that KV 2 keeps of an entry, also before its first one. */
export async function writeMaxVersions(client: VaultClient, { mount, path }: KvPlace, versions: number): Promise<void> {
  await client.write(`${mount}/metadata/${path}`, { max_versions: versions });
}

/** Removes an entry with all its versions: only for deletion, since it frees the version counter too. */
export async function deleteKv(client: VaultClient, { mount, path, version }: KvPlace): Promise<void> {
  await client.delete(version === 1 ? `${mount}/${path}` : `${mount}/metadata/${path}`);
}

/** Names of all entries in the top folder of the mount, deleted ones of KV 2 included. */
export async function listKv(client: VaultClient, mount: string, version: 1 | 2): Promise<string[]> {
  const reply = await client.call('LIST', version === 1 ? mount : `${mount}/metadata`, undefined, { allow: [404] });
  return z.object({ keys: z.array(z.string()).default([]) }).parse(reply.data).keys;
}
