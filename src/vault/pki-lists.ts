/** Revocation lists of the PKI secrets engine. https://developer.hashicorp.com/vault/api-docs/secret/pki */
import { z } from 'zod';
import { parseAnyGoDuration } from '../api/duration.ts';
import type { ListSettings } from '../plan/facts/observed.ts';
import { listsIn, longestList, type RevocationList } from '../plan/facts/revocation-list.ts';
import type { VaultClient } from './client.ts';
import { isTooLarge, VaultError } from './errors.ts';
import { isAbsent, listPublicIssuers } from './pki.ts';

/**
 * Reads the revocation list of an issuer, which Vault and OpenBao serve to everybody, also to a token without rights on the mount.
 * https://developer.hashicorp.com/vault/api-docs/secret/pki#read-issuer-crl
 * @returns undefined: the mount or the issuer does not exist, the issuer has no list because its key is elsewhere, or it is too long or
 * cannot be read
 */
export async function readList(
  client: VaultClient,
  mount: string,
  issuerId: string,
): Promise<RevocationList | undefined> {
  const body = await client.read(`${mount}/issuer/${issuerId}/crl`).catch((error: unknown) => {
    if (error instanceof VaultError && (isAbsent(error) || isTooLarge(error))) return undefined;
    throw error;
  });
  const { crl } = z.object({ crl: z.string().default('') }).parse(body ?? {});
  return listsIn(crl.slice(0, longestList))[0];
}

/** Most issuers of a mount of others that have a serial number which is looked for: a serial number can be that of several. */
const mostOfSerial = 10;

/**
 * Ids of the issuers of a mount that others own with one of these serial numbers, at most ten.
 * @param serials as in `CertificateFacts.serial`
 */
export async function findIssuers(client: VaultClient, mount: string, serials: readonly string[]): Promise<string[]> {
  const listed = (await listPublicIssuers(client, mount)) ?? [];
  return listed
    .filter(({ serial }) => serials.includes(serial))
    .slice(0, mostOfSerial)
    .map(({ id }) => id);
}

const dayMs = 86_400_000;

/**
 * A duration as Vault takes and reports it, in milliseconds: whole seconds, whole days (`30d`), or a Go duration.
 * https://developer.hashicorp.com/vault/docs/concepts/duration-format
 */
const vaultDuration = z.union([z.number(), z.string().max(100)]).transform((value, context) => {
  const text = String(value);
  const [, amount = '', unit] = /^(\d+)(d?)$/.exec(text) ?? [];
  const ms = amount === '' ? parseAnyGoDuration(text) : Number(amount) * (unit === 'd' ? dayMs : 1000);
  if (ms !== undefined) return ms;
  context.addIssue({ code: 'custom', message: 'is not a duration' });
  return z.NEVER;
});

const listSettingsSchema = z.object({
  expiry: vaultDuration,
  disable: z.boolean(),
  auto_rebuild: z.boolean().default(false),
  auto_rebuild_grace_period: vaultDuration.default(0),
});

/** Reads how a mount signs its revocation lists; undefined: it does not say, or in a form that is not known. */
export async function readListSettings(client: VaultClient, mount: string): Promise<ListSettings | undefined> {
  const body = await client.read(`${mount}/config/crl`);
  const settings = listSettingsSchema.safeParse(body).data;
  return (
    settings && {
      lifeMs: settings.expiry,
      disabled: settings.disable,
      autoRebuild: settings.auto_rebuild,
      graceMs: settings.auto_rebuild_grace_period,
    }
  );
}

/** Sets how a mount signs its revocation lists; other settings stay. Lists that are signed already stay as they are. */
export async function writeListSettings(client: VaultClient, mount: string, settings: ListSettings): Promise<void> {
  await client.write(`${mount}/config/crl`, {
    expiry: `${settings.lifeMs / 1000}s`,
    disable: settings.disabled,
    auto_rebuild: settings.autoRebuild,
    auto_rebuild_grace_period: `${settings.graceMs / 1000}s`,
  });
}

/** Has Vault sign the revocation lists of all issuers of a mount again. */
export async function rotateLists(client: VaultClient, mount: string): Promise<void> {
  await client.read(`${mount}/crl/rotate`);
}
