/** Secrets engines and auth methods: `sys/mounts/<path>`, `sys/auth/<path>`, `sys/audit`. */
import { z } from 'zod';
import type { Mount } from '../plan/facts/observed.ts';
import type { VaultClient } from './client.ts';
import { VaultError } from './errors.ts';

const mountSchema = z.object({
  type: z.string(),
  description: z.string().default(''),
  config: z.object({ max_lease_ttl: z.number().default(0) }),
  options: z.record(z.string(), z.string()).nullish(),
});

/** A mount that is not there answers 400 "No secret engine mount at …" (Vault 1.10+, OpenBao), or 404. */
async function readMount(client: VaultClient, path: string): Promise<Mount | undefined> {
  const found = await client.read(path).catch((error: unknown) => {
    if (
      error instanceof VaultError &&
      error.kind === 'Invalid' &&
      /No (secret engine mount|auth engine) at/.test(error.message)
    )
      return undefined;
    throw error;
  });
  if (found === undefined) return undefined;
  const mount = mountSchema.parse(found);
  return {
    type: mount.type,
    description: mount.description,
    maxLeaseTtl: mount.config.max_lease_ttl,
    ...(mount.type === 'kv' ? { kvVersion: mount.options?.['version'] === '2' ? 2 : 1 } : {}),
  };
}

/** @throws VaultError InUse when the path lies below another mount: Vault answers with that one, and mounts nothing there */
export async function readSecretsMount(client: VaultClient, mount: string): Promise<Mount | undefined> {
  const found = await readMount(client, `sys/mounts/${mount}`);
  if (!found || !mount.includes('/')) return found;
  const { path } = z.object({ path: z.string() }).parse(await client.read(`sys/internal/ui/mounts/${mount}`));
  if (path === `${mount}/`) return found;
  throw new VaultError(
    'InUse',
    'read',
    `sys/mounts/${mount}`,
    0,
    `it lies below the mount ${path}, so nothing can be mounted there; choose another mount`,
  );
}
export const readAuthMount = (client: VaultClient, mount: string) => readMount(client, `sys/auth/${mount}`);

export async function mountKv(client: VaultClient, mount: string, version: 1 | 2, description: string): Promise<void> {
  await client.write(`sys/mounts/${mount}`, { type: 'kv', description, options: { version: String(version) } });
}

/** @param maxLeaseTtl seconds: a mount without it caps certificates at the server's default of 768h */
export async function mountPki(
  client: VaultClient,
  mount: string,
  maxLeaseTtl: number,
  description: string,
): Promise<void> {
  await client.write(`sys/mounts/${mount}`, { type: 'pki', description, config: { max_lease_ttl: `${maxLeaseTtl}s` } });
}

export async function tuneMount(
  client: VaultClient,
  mount: string,
  maxLeaseTtl: number,
  description: string,
): Promise<void> {
  await client.write(`sys/mounts/${mount}/tune`, { max_lease_ttl: `${maxLeaseTtl}s`, description });
}

/** The longest life a mount gives out, in seconds, the server's own limit included. */
export async function readMaxLeaseTtl(client: VaultClient, mount: string): Promise<number> {
  const body = await client.read(`sys/mounts/${mount}/tune`);
  return z.object({ max_lease_ttl: z.number() }).parse(body).max_lease_ttl;
}

/** Removes a mount with all it holds. */
export async function unmount(client: VaultClient, mount: string): Promise<void> {
  await client.delete(`sys/mounts/${mount}`);
}

export async function disableAuth(client: VaultClient, mount: string): Promise<void> {
  await client.delete(`sys/auth/${mount}`);
}

export async function enableKubernetesAuth(client: VaultClient, mount: string, description: string): Promise<void> {
  await client.write(`sys/auth/${mount}`, { type: 'kubernetes', description });
}

const auditSchema = z.record(
  z.string(),
  z.object({ type: z.string(), options: z.record(z.string(), z.string()).nullish() }),
);

/** An audit device by its path. */
export async function readAuditDevice(
  client: VaultClient,
  path: string,
): Promise<{ type: string; options: Record<string, string> } | undefined> {
  const devices = auditSchema.parse((await client.read('sys/audit')) ?? {});
  const device = devices[`${path}/`];
  return device && { type: device.type, options: device.options ?? {} };
}

export async function enableAudit(
  client: VaultClient,
  path: string,
  type: string,
  options: Record<string, string>,
): Promise<void> {
  await client.write(`sys/audit/${path}`, { type, options });
}

/** What the token may do, by path; `root` may do everything. */
export async function capabilities(client: VaultClient, paths: string[]): Promise<Map<string, string[]>> {
  const reply = await client.write('sys/capabilities-self', { paths });
  return new Map(paths.map((path) => [path, z.array(z.string()).catch([]).parse(reply.data[path])]));
}

/** Which of the needed capabilities are not there. */
export function missingCapabilities(
  needed: Map<string, string[]>,
  found: Map<string, string[]>,
): { path: string; missing: string[] }[] {
  return [...needed].flatMap(([path, wanted]) => {
    const has = found.get(path) ?? [];
    const missing = has.includes('root') ? [] : wanted.filter((capability) => !has.includes(capability));
    return missing.length > 0 ? [{ path, missing }] : [];
  });
}
