/**
 * Reads revocation lists in PKI mounts, of this resource and of others: with what Vault and OpenBao serve to everybody, and nothing else. In a mount of
 * others the number of requests does not depend on how many issuers it has.
 */
import type { CertificateFacts } from '../plan/facts/certificate.ts';
import type { DerivedVault } from '../plan/facts/derived-vault.ts';
import type { ExistingIssuers, ObservedVault } from '../plan/facts/observed.ts';
import { isListOf } from '../plan/facts/revocation-list.ts';
import type { VaultClient } from './client.ts';
import { findIssuers, readList } from './pki-lists.ts';

/** Most CAs above an issuer of others whose lists are looked for in its mount. */
const mostAbove = 10;

/**
 * Reads the lists of CAs in a mount, by fingerprint of the certificate.
 * @param existing the issuers of others that matter, with the CAs above them, which can be issuers of the same mount
 * @throws VaultError if Vault cannot answer. What it does not have is left out
 */
async function readListsOfOthers(
  client: VaultClient,
  mount: string,
  existing: ExistingIssuers | undefined,
): Promise<ObservedVault['lists']> {
  const found = existing?.found ?? [];
  const known = new Set(found.map(({ certificate }) => certificate.fingerprint));
  const above = found
    .flatMap((issuer) => issuer.above)
    .filter(({ fingerprint }) => !known.has(fingerprint))
    .slice(0, mostAbove);
  const serials = above.map(({ serial }) => serial);
  const ids = serials.length === 0 ? [] : await findIssuers(client, mount, serials);
  const read = async (id: string, cas: readonly CertificateFacts[]) => {
    const list = await readList(client, mount, id);
    const ca = list && cas.find((one) => isListOf(list, one));
    return list && ca ? [[ca.fingerprint, list] as const] : [];
  };
  const lists = await Promise.all([
    ...found.map(({ id, certificate }) => read(id, [certificate])),
    ...ids.map((id) => read(id, above)),
  ]);
  return Object.fromEntries(lists.flat());
}

/** Maximum number of issuers of one mount whose lists are read, newest first: the others are neither trusted nor used. */
export const mostListed = 20;

/**
 * The revocation lists of roots and intermediates of this resource, and of the CAs of others that sign for it, by fingerprint of the certificate. What
 * Vault gives for an issuer and the issuer did not sign is left out.
 * @param existing with `root.source: Existing`: the issuers of others
 */
export async function readLists(
  client: VaultClient,
  derived: DerivedVault,
  existing: ExistingIssuers | undefined,
): Promise<ObservedVault['lists']> {
  const { spec } = derived;
  const issuers = (['root', 'intermediate'] as const).flatMap((tier) =>
    derived
      .ownIssuers(tier)
      .filter(({ id, keyId }) => id !== '' && keyId !== '')
      .slice(0, mostListed)
      .map((issuer) => ({ ...issuer, mount: spec[tier].mount })),
  );
  const own = issuers.map(async ({ id, certificate, mount }) => {
    const list = await readList(client, mount, id);
    return list && isListOf(list, certificate) ? [[certificate.fingerprint, list] as const] : [];
  });
  const [lists, ofOthers] = await Promise.all([Promise.all(own), readListsOfOthers(client, spec.root.mount, existing)]);
  return { ...ofOthers, ...Object.fromEntries(lists.flat()) };
}
