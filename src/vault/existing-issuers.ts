/** Reads issuers of a PKI mount that others own (`root.source: Existing`). */
import { existingRef, rootSourceOf, type Desired } from '../plan/facts/desired.ts';
import { ownEntry, type ExistingIssuers, type Slot } from '../plan/facts/observed.ts';
import type { StateEntry } from '../plan/facts/state-entry.ts';
import type { VaultClient } from './client.ts';
import { readPublicIssuer } from './pki.ts';

/**
 * Reads the issuers of a mount that others own which matter to this resource: no others, of which there can be thousands.
 * @param state the state entry, which records the issuers that sign
 */
export async function readExisting(
  client: VaultClient,
  d: Desired,
  deleting: boolean,
  state: () => Promise<Slot<StateEntry>>,
): Promise<ExistingIssuers | undefined> {
  const { root, delivery } = d.spec;
  if (rootSourceOf(d.spec) !== 'Existing' || deleting) return undefined;
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
  const existing = found.filter((issuer) => issuer !== undefined);
  return {
    found: [...new Map(existing.map((issuer) => [issuer.id, issuer])).values()],
    wantedId: (await wanted)?.id,
    defaultId: (await byDefault)?.id,
  };
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
