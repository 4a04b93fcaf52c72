/**
 * Reads the entries of a CA for a backup, and writes them to a Vault that has lost them. Nothing that exists is overwritten: everything is checked
 * before the first write, and the writes are check-and-set.
 */
import { isDeepStrictEqual } from 'node:util';
import { rfc3339 } from '../api/time.ts';
import { str, type JsonObject } from '../api/json.ts';
import { kvDataPath } from '../plan/facts/ca-files.ts';
import { bundleFacts, type CertificateFacts } from '../plan/facts/certificate.ts';
import { caEntryDefect } from '../plan/facts/ca-entry.ts';
import type { Desired } from '../plan/facts/desired.ts';
import { parseMarker, type Identity } from '../plan/facts/identity.ts';
import type { CaEntry } from '../plan/facts/observed.ts';
import type { StateEntry } from '../plan/facts/state-entry.ts';
import { restoredState } from '../plan/vault/state.ts';
import { Secret } from '../observability/secret.ts';
import type { VaultClient } from './client.ts';
import { caEntryData, parseLive, parseStaging, parseState, stateData } from './entries.ts';
import { readKv, writeKv, type KvEntry } from './kv.ts';
import { capabilities, missingCapabilities, mountKv, readSecretsMount } from './mounts.ts';
import { kvPlace } from './observe.ts';

/** What a backup or a restore cannot get past. The message is one line: what, why, what to do. It contains no secret. */
export class BackupError extends Error {
  override readonly name = 'BackupError';
}

/** The entries of a CA. */
export interface StoredCa {
  /** The data of the CA entry as JSON, with the key. */
  ca: Secret;
  /** The data of the state entry. */
  state: Record<string, string>;
}

/** What the entries of a CA hold, without the key. */
export interface StoredFacts {
  entry: CaEntry & { certificate: CertificateFacts };
  state: StateEntry;
  /** The root that the certificate leads to. */
  root: CertificateFacts;
}

type Owner = Pick<Identity, 'cluster' | 'namespace' | 'name'>;

const fail = (message: string): never => {
  throw new BackupError(message);
};

const texts = (data: JsonObject): Record<string, string> =>
  Object.fromEntries(Object.entries(data).map(([field, value]) => [field, str(value)]));

/**
 * Parses the entries of a CA.
 * @param owner the resource whose markers they carry
 * @param what where the entries are from, for messages
 * @throws BackupError if one of them is missing, damaged, or of another resource
 */
export function factsOf(owner: Owner, ca: KvEntry, state: KvEntry, what: { ca: string; state: string }): StoredFacts {
  const id = { ...owner, uid: '' };
  const found = parseLive(id, ca);
  const recorded = parseState(id, state);
  const foreign = [
    { name: what.ca, entry: found.entry, mark: found.mark },
    { name: what.state, entry: recorded.entry, mark: recorded.mark },
  ].find(({ entry }) => entry === 'foreign');
  if (foreign)
    return fail(`${foreign.name} is not of IstioVaultCA ${owner.namespace}/${owner.name}: ${carries(foreign.mark)}`);
  const entry = found.entry;
  if (!entry || entry === 'foreign') return fail(`${what.ca} does not exist: there is no CA yet, or it was lost`);
  const { certificate } = entry;
  const defect = caEntryDefect(entry);
  if (defect !== undefined || !certificate)
    return fail(`${what.ca} is not a valid CA: ${defect ?? ''}. The operator corrects such an entry in Vault`);
  if (!recorded.entry || recorded.entry === 'foreign')
    return fail(`${what.state} does not exist or cannot be read; the operator writes it again when it runs`);
  const roots = bundleFacts(entry.root);
  const root =
    roots.find(({ fingerprint }) => fingerprint === (recorded.entry as StateEntry).root?.fingerprint) ?? roots[0];
  return { entry: { ...entry, certificate }, state: recorded.entry, root: root ?? certificate };
}

/** What the marker of an entry says of its owner, for messages. */
function carries(mark: string | undefined): string {
  const marker = parseMarker(mark);
  return marker
    ? `it carries the marker of ${marker.cluster}/${marker.namespace}/${marker.name}`
    : 'it carries no marker';
}

/** @throws BackupError if the token lacks one of the capabilities */
async function requireCapabilities(client: VaultClient, needed: Map<string, string[]>): Promise<void> {
  const missing = missingCapabilities(needed, await capabilities(client, [...needed.keys()]));
  if (missing.length === 0) return;
  const list = missing.map((one) => `${one.missing.join('+')} on ${one.path}`).join('; ');
  fail(
    `the Vault token of the resource's login lacks ${list}; add it to its policy (deploy/vault/operator-policy.hcl). Nothing was written`,
  );
}

/** Capabilities on the entries and on their mount. */
const rights = ({ spec }: Desired, onEntries: string[], onMount: string[]): Map<string, string[]> =>
  new Map([
    [`sys/mounts/${spec.keyStore.mount}`, onMount],
    [kvDataPath(spec), onEntries],
    [kvDataPath(spec, '-state'), onEntries],
  ]);

/** Refuses a CA that others manage: their entry is theirs to back up, and to restore. @throws BackupError */
function refuseOthers({ spec }: Desired): void {
  if (!spec.intermediate.manage)
    fail(
      'spec.intermediate.manage is false: others make the CA, and the operator writes nothing of it. Have them back it up and restore it. Nothing was written',
    );
}

/** Whether the mount of the key store exists. @throws BackupError if it is no KV mount of the version in the spec */
async function keyStoreExists(client: VaultClient, { spec }: Desired): Promise<boolean> {
  const { mount, version } = spec.keyStore;
  const found = await readSecretsMount(client, mount);
  if (!found) return false;
  if (found.kvVersion === undefined)
    return fail(
      `spec.keyStore.mount: ${mount}/ is of type ${found.type}, not kv; correct the manifest. Nothing was written`,
    );
  if (found.kvVersion !== version)
    return fail(
      `spec.keyStore.version is ${version}, but ${mount}/ is KV version ${found.kvVersion}; set version: ${found.kvVersion}, or have an administrator remove the mount if it is empty. Nothing was written`,
    );
  return true;
}

/** How often the entries are read until they do not change between two reads. */
const attempts = 5;

/**
 * Reads the entries of a CA, as they were at one moment.
 * @throws BackupError, VaultError
 */
export async function readCa(client: VaultClient, desired: Desired): Promise<StoredCa & { facts: StoredFacts }> {
  refuseOthers(desired);
  const [caPlace, statePlace] = [kvPlace(desired, ''), kvPlace(desired, '-state')];
  await requireCapabilities(client, rights(desired, ['read'], ['read']));
  if (!(await keyStoreExists(client, desired)))
    return fail(
      `mount ${caPlace.mount}/ does not exist: there is no CA yet, or it was lost. Check spec.vault.address and spec.keyStore`,
    );
  for (let i = 0; i < attempts; i += 1) {
    const before = await readKv(client, statePlace);
    const ca = await readKv(client, caPlace);
    const [caAgain, state] = [await readKv(client, caPlace), await readKv(client, statePlace)];
    if (!isDeepStrictEqual([ca, before], [caAgain, state])) continue;
    const at = (path: string) => `KV entry ${caPlace.mount}/${path}`;
    const facts = factsOf(desired.identity, ca, state, { ca: at(caPlace.path), state: at(statePlace.path) });
    return { ca: new Secret(JSON.stringify(texts(ca.data ?? {}))), state: texts(state.data ?? {}), facts };
  }
  return fail(`the operator is changing the CA in ${caPlace.mount}/${caPlace.path} right now; repeat the command`);
}

/** What a restore did with an entry: `present` if it was there already, exactly as it is to be. */
export interface Restored {
  mount: 'created' | 'present';
  ca: 'written' | 'present';
  state: 'written' | 'present';
}

const isSameCa = (one: CaEntry, other: CaEntry): boolean =>
  isDeepStrictEqual(
    [one.generation, one.publicKey, one.certificate?.fingerprint, one.root],
    [other.generation, other.publicKey, other.certificate?.fingerprint, other.root],
  );

/** Refuses to overwrite an entry. */
function exists({ spec }: Desired, suffix: '' | '-staging' | '-state', mark: string | undefined): never {
  const { mount, path, version } = spec.keyStore;
  const remove = `vault kv ${version === 2 ? 'metadata delete' : 'delete'} -mount=${mount} ${path}${suffix}`;
  return fail(
    `KV entry ${mount}/${path}${suffix} exists at ${spec.vault.address} and is not what the backup holds (${carries(mark)}). Nothing was written: a restore overwrites nothing. If this Vault has the CA of the mesh, nothing has to be restored. If it is a remainder that no workload depends on, have an administrator remove it: ${remove}`,
  );
}

/**
 * Writes the entries of a backup. The mount is made if it is absent.
 * @param facts of the backup
 * @param sameCluster false: the backup is of another cluster; the entries get the marker of this resource
 * @throws BackupError, VaultError; both leave what exists as it is
 */
export async function restoreCa(
  client: VaultClient,
  desired: Desired,
  backup: StoredCa & { facts: StoredFacts },
  sameCluster: boolean,
): Promise<Restored> {
  refuseOthers(desired);
  const { mount, version } = desired.spec.keyStore;
  const places = { ca: kvPlace(desired, ''), staging: kvPlace(desired, '-staging'), state: kvPlace(desired, '-state') };
  await requireCapabilities(client, rights(desired, ['create', 'read', 'update'], ['create', 'read', 'update']));
  const { entry, state } = backup.facts;
  const next = restoredState(state, desired, sameCluster);
  const mounted = await keyStoreExists(client, desired);
  const nothing: KvEntry = { casVersion: 0, data: undefined };
  const read = async (place: keyof typeof places) => (mounted ? await readKv(client, places[place]) : nothing);
  const found = { ca: await read('ca'), staging: await read('staging'), state: await read('state') };
  const ca = parseLive(desired.identity, found.ca);
  const recorded = parseState(desired.identity, found.state);
  const caIsThere = ca.entry !== undefined && ca.entry !== 'foreign' && isSameCa(ca.entry, entry);
  const stateIsThere = [state, next].some((one) => isDeepStrictEqual(recorded.entry, one));
  if (found.ca.data && !caIsThere) exists(desired, '', ca.mark);
  if (found.staging.data) exists(desired, '-staging', parseStaging(desired.identity, found.staging).mark);
  if (found.state.data && !stateIsThere) exists(desired, '-state', recorded.mark);
  if (!mounted) await mountKv(client, mount, version, desired.mark);
  const data = JSON.parse(backup.ca.reveal()) as JsonObject;
  const content = {
    certificate: str(data['ca-cert.pem']),
    chain: entry.chain,
    root: entry.root,
    key: new Secret(str(data['ca-key.pem'])),
    lists: str(data['ca-crl.pem']),
    listsSince: typeof data['crl-since'] === 'string' ? data['crl-since'] : undefined,
    keyRef: entry.keyRef,
    imported: entry.imported === true,
  };
  const written = caEntryData(desired.mark, entry.generation, content, version);
  if (!caIsThere) await writeKv(client, places.ca, written, found.ca.casVersion);
  if (!stateIsThere) await writeKv(client, places.state, stateData(desired.mark, next), found.state.casVersion);
  return {
    mount: mounted ? 'present' : 'created',
    ca: caIsThere ? 'present' : 'written',
    state: stateIsThere ? 'present' : 'written',
  };
}

/** One line about a CA: which it is, and until when. */
export const describeCa = ({ entry, root }: StoredFacts): string =>
  `CA generation ${entry.generation}: intermediate serial ${entry.certificate.serial}, until ${rfc3339(entry.certificate.notAfter)}; root serial ${root.serial}, until ${rfc3339(root.notAfter)}`;
