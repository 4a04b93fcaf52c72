/** Reads issuers of a PKI mount that others own (`root.source: Existing`). */
import { existingRef, rootSourceOf, type Desired } from '../plan/facts/desired.ts';
import { generationOfAnyRoot } from '../plan/facts/identity.ts';
import { ownEntry, type ExistingIssuer, type ExistingIssuers, type OwnersIssuers, type Slot } from '../plan/facts/observed.ts'; // prettier-ignore
import type { StateEntry } from '../plan/facts/state-entry.ts';
import type { VaultClient } from './client.ts';
import { listPublicIssuers, readPublicIssuer } from './pki.ts';

/** Maximum number of issuers of an owner that are read, newest first, beside those that sign or are the default. */
const mostOfOwner = 10;

/** Reads the issuers of an owner that were not found yet. @param found those that were */
async function readOwners(
  client: VaultClient,
  mount: string,
  found: readonly ExistingIssuer[],
): Promise<{ issuers: ExistingIssuer[]; owners: OwnersIssuers }> {
  const listed = await listPublicIssuers(client, mount);
  const named = [...(listed ?? [])]
    .map(({ id, name }) => ({ id, generation: generationOfAnyRoot(name) ?? 0 }))
    .filter(({ generation }) => generation > 0)
    .sort((a, b) => b.generation - a.generation);
  const known = new Map(found.map((issuer) => [issuer.id, issuer]));
  const wanted = named.filter(({ id }, at) => at < mostOfOwner || known.has(id));
  const read = async (id: string) => known.get(id) ?? (await readPublicIssuer(client, mount, id));
  const issuers = (await Promise.all(wanted.map(({ id }) => read(id)))).filter((issuer) => issuer !== undefined);
  const complete = listed !== undefined && issuers.length === named.length;
  return { issuers, owners: { ids: issuers.map(({ id }) => id), complete } };
}

/**
 * Reads the issuers of a mount that others own which matter to this resource: no others, of which there can be thousands. If this resource signs under one
 * with a name that an IstioVaultCA gives its roots, that is the owner of the mount, and its other roots matter too.
 * @param state the state entry, which records the issuers that sign
 */
export async function readExisting(
  client: VaultClient,
  d: Desired,
  deleting: boolean,
  state: () => Promise<Slot<StateEntry>>,
): Promise<ExistingIssuers | undefined> {
  const { root, intermediate, delivery } = d.spec;
  if (rootSourceOf(d.spec) !== 'Existing' || deleting) return undefined;
  const distinct = (issuers: ExistingIssuer[]) => [...new Map(issuers.map((issuer) => [issuer.id, issuer])).values()];
  const read = (ref: string) => readPublicIssuer(client, root.mount, ref);
  const wanted = read(existingRef(root));
  const byDefault = delivery.source === 'PKI' ? read('default') : Promise.resolve(undefined);
  byDefault.catch(() => undefined); // awaited below, after the state entry
  wanted.catch(() => undefined);
  const recorded = ownEntry(await state());
  const ids = [recorded?.root?.issuerId, recorded?.rotation?.to.issuerId].filter((id) => id !== undefined);
  const found = await Promise.all(
    [wanted, byDefault, ...new Set(ids)].map((one) => (typeof one === 'string' ? read(one) : one)),
  );
  const existing = distinct(found.filter((issuer) => issuer !== undefined));
  const wantedId = (await wanted)?.id;
  const canBeMember = root.source === 'Existing' && intermediate.source === 'Issue' && intermediate.manage;
  if (!canBeMember || !existing.some(({ name }) => generationOfAnyRoot(name) !== undefined))
    return { found: existing, wantedId, defaultId: (await byDefault)?.id };
  const standard = (await byDefault) ?? (await read('default'));
  const all = distinct([...existing, ...(standard ? [standard] : [])]);
  const { issuers, owners } = await readOwners(client, root.mount, all);
  return { found: distinct([...all, ...issuers]), wantedId, defaultId: standard?.id, owners };
}

/** Id of the issuer of others that signs: the one of the root that signs now, or the one that the spec names. undefined: none exists. */
export async function signerIdOf(
  existing: Promise<ExistingIssuers | undefined>,
  state: Slot<StateEntry>,
): Promise<string | undefined> {
  const { found, wantedId } = (await existing.catch(() => undefined)) ?? {};
  const { root, rotation } = ownEntry(state) ?? {};
  const isNew = rotation && !rotation.back && /Switching|Retiring/.test(rotation.phase);
  const recorded = (isNew ? rotation.to : root)?.issuerId;
  return found?.some(({ id }) => id === recorded) ? recorded : wantedId;
}
