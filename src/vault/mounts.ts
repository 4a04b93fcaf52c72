/** Secrets engines (`sys/mounts/<path>`), auth methods (`sys/auth/<path>`), audit devices (`sys/audit`) and capabilities of the token. */
import { z } from 'zod';
import type { JsonObject } from '../api/json.ts';
import type { Mount } from '../plan/facts/observed.ts';
import { cut, printable } from '../text/bounded.ts';
import type { VaultClient } from './client.ts';
import { VaultError } from './errors.ts';

/** The longest path of a mount in a message, in UTF-16 code units. */
const longestShownPath = 100;

const mountSchema = z.object({
  type: z.string(),
  description: z.string().default(''),
  config: z.object({ max_lease_ttl: z.number().default(0) }),
  options: z.record(z.string(), z.string()).nullish(),
});

/**
 * Reads a mount; undefined if it does not exist. For a missing mount, Vault 1.10 and later and OpenBao respond with status 400 and
 * "No secret engine mount at …"; other versions respond with 404.
 */
async function readMount(client: VaultClient, path: string): Promise<Mount | undefined> {
  const body = await client.read(path).catch((error: unknown) => {
    if (
      error instanceof VaultError &&
      error.kind === 'Invalid' &&
      /No (secret engine mount|auth engine) at/.test(error.message)
    )
      return undefined;
    throw error;
  });
  if (body === undefined) return undefined;
  const mount = mountSchema.parse(body);
  return {
    type: mount.type,
    description: mount.description,
    maxLeaseTtl: mount.config.max_lease_ttl,
    ...(mount.type === 'kv' ? { kvVersion: mount.options?.['version'] === '2' ? 2 : 1 } : {}),
  };
}

/**
 * Reads a secrets engine mount; undefined if it does not exist.
 * @throws VaultError of kind `MountRefused` if the path is below another mount: Vault then returns that mount, and refuses a mount at the path
 */
export async function readSecretsMount(client: VaultClient, mount: string): Promise<Mount | undefined> {
  const read = await readMount(client, `sys/mounts/${mount}`);
  if (!read || !mount.includes('/')) return read;
  const { path } = z.object({ path: z.string() }).parse(await client.read(`sys/internal/ui/mounts/${mount}`));
  if (path === `${mount}/`) return read;
  throw new VaultError(
    'MountRefused',
    'read',
    `sys/mounts/${mount}`,
    0,
    `it is below the mount ${cut(printable(path), longestShownPath)}, so nothing can be mounted there`,
  );
}

/**
 * Mounts at a path, or enables an audit device, where nothing was when it was read.
 * @param read reads the path again
 * @throws VaultError of kind `InUse` if somebody else mounted there meanwhile; of kind `MountRefused` if nothing is mounted there and the server
 * refuses it all the same: a mount is above or below, the path belongs to a namespace or to the server itself, or the type is not available
 */
async function mountAt(
  client: VaultClient,
  path: string,
  body: JsonObject,
  read: () => Promise<unknown>,
): Promise<void> {
  try {
    await client.write(path, body);
  } catch (error) {
    if (!(error instanceof VaultError && error.status === 400)) throw error;
    const kind = (await read()) ? 'InUse' : 'MountRefused';
    throw new VaultError(kind, error.operation, path, error.status, error.detail);
  }
}

/** Reads an auth mount; undefined if it does not exist. */
export const readAuthMount = (client: VaultClient, mount: string) => readMount(client, `sys/auth/${mount}`);

export async function mountKv(client: VaultClient, mount: string, version: 1 | 2, description: string): Promise<void> {
  const body = { type: 'kv', description, options: { version: String(version) } };
  await mountAt(client, `sys/mounts/${mount}`, body, () => readSecretsMount(client, mount));
}

/** Enables a PKI secrets engine. @param maxLeaseTtl in seconds. Without it, the server's default of 768h limits the certificates */
export async function mountPki(
  client: VaultClient,
  mount: string,
  maxLeaseTtl: number,
  description: string,
): Promise<void> {
  const body = { type: 'pki', description, config: { max_lease_ttl: `${maxLeaseTtl}s` } };
  await mountAt(client, `sys/mounts/${mount}`, body, () => readSecretsMount(client, mount));
}

/** Sets the maximum lease TTL and the description of a mount. @param maxLeaseTtl in seconds */
export async function tuneMount(
  client: VaultClient,
  mount: string,
  maxLeaseTtl: number,
  description: string,
): Promise<void> {
  await client.write(`sys/mounts/${mount}/tune`, { max_lease_ttl: `${maxLeaseTtl}s`, description });
}

/** Returns the effective maximum lease TTL of a mount in seconds. It takes the server's own limit into account. */
export async function readMaxLeaseTtl(client: VaultClient, mount: string): Promise<number> {
  const body = await client.read(`sys/mounts/${mount}/tune`);
  return z.object({ max_lease_ttl: z.number() }).parse(body).max_lease_ttl;
}

/**
 * Returns the maximum lease TTL of a mount that others own, in seconds, as far as any token with a right on the mount may see it; undefined: it is not
 * to be seen.
 */
export async function readVisibleMaxLeaseTtl(client: VaultClient, mount: string): Promise<number | undefined> {
  const body = await client.read(`sys/internal/ui/mounts/${mount}`).catch((error: unknown) => {
    if (error instanceof VaultError && error.kind === 'Forbidden') return undefined;
    throw error;
  });
  const limit = z.object({ config: z.object({ max_lease_ttl: z.number() }) }).safeParse(body).data
    ?.config.max_lease_ttl;
  return limit === 0 ? undefined : limit;
}

/** Disables a secrets engine and deletes its data. */
export async function unmount(client: VaultClient, mount: string): Promise<void> {
  await client.delete(`sys/mounts/${mount}`);
}

export async function disableAuth(client: VaultClient, mount: string): Promise<void> {
  await client.delete(`sys/auth/${mount}`);
}

export async function enableKubernetesAuth(client: VaultClient, mount: string, description: string): Promise<void> {
  await mountAt(client, `sys/auth/${mount}`, { type: 'kubernetes', description }, () => readAuthMount(client, mount));
}

const auditSchema = z.record(
  z.string(),
  z.object({ type: z.string(), options: z.record(z.string(), z.string()).nullish() }),
);

/** Reads an audit device; undefined if none exists at the path. */
export async function readAuditDevice(
  client: VaultClient,
  path: string,
): Promise<{ type: string; options: Record<string, string> } | undefined> {
  const devices = auditSchema.parse((await client.read('sys/audit')) ?? {});
  const device = devices[`${path}/`];
  return device && { type: device.type, options: device.options ?? {} };
}

/** Enables an audit device. @throws VaultError of kind `MountRefused` if the server refuses it, for example because it cannot write to the file */
export async function enableAudit(
  client: VaultClient,
  path: string,
  type: string,
  options: Record<string, string>,
): Promise<void> {
  await mountAt(client, `sys/audit/${path}`, { type, options }, () => readAuditDevice(client, path));
}

/** Returns the capabilities of the token by path. The capability `root` permits everything. */
export async function capabilities(client: VaultClient, paths: string[]): Promise<Map<string, string[]>> {
  const reply = await client.write('sys/capabilities-self', { paths });
  return new Map(paths.map((path) => [path, z.array(z.string()).catch([]).parse(reply.data[path])]));
}

/** Returns the required capabilities that are not granted, by path; empty if all are granted. */
export function missingCapabilities(
  required: Map<string, string[]>,
  granted: Map<string, string[]>,
): { path: string; missing: string[] }[] {
  return [...required].flatMap(([path, wanted]) => {
    const has = granted.get(path) ?? [];
    const missing = has.includes('root') ? [] : wanted.filter((capability) => !has.includes(capability));
    return missing.length > 0 ? [{ path, missing }] : [];
  });
}
