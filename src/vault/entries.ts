/**
 * How the live, staging and state entries are laid out in the key store. The mark is a field inside the data, so that
 * content and ownership change in one write on KV 1 and 2 alike.
 */
import { z } from 'zod';
import { str, type JsonObject } from '../api/json.ts';
import { certificateFacts, publicKeyOfPrivate, splitPem } from '../plan/facts/certificate.ts';
import { isOwnMarker, type Identity } from '../plan/facts/identity.ts';
import { caFiles } from '../plan/facts/ca-files.ts';
import type { IntermediateSpec, StateEntry } from '../plan/facts/state-entry.ts';
import type { CaEntry, Slot, StagingEntry } from '../plan/facts/observed.ts';
import { Secret } from '../observability/secret.ts';
import type { KvEntry } from './kv.ts';

const markField = 'istio-vault-ca';
const generationField = 'generation';
const keyRefField = 'key-ref';
const ttlField = 'ttl';

const intermediateSpec = z.object({
  commonName: z.string(),
  organization: z.string(),
  ttl: z.number(),
  keyType: z.enum(['rsa', 'ec']),
  keyBits: z.number(),
  source: z.enum(['Issue', 'Import']),
  importRef: z.string(),
  maxPathLength: z.number(),
});
const rootSpec = intermediateSpec.pick({
  commonName: true,
  organization: true,
  ttl: true,
  keyType: true,
  keyBits: true,
});
const ids = {
  generation: z.number(),
  issuerId: z.string().exactOptional(),
  keyId: z.string().exactOptional(),
  serial: z.string().exactOptional(),
  fingerprint: z.string().exactOptional(),
};
const stateSchema = z.object({
  highestGeneration: z.number(),
  root: z.object({ ...ids, spec: rootSpec }).exactOptional(),
  intermediate: z.object({ ...ids, spec: intermediateSpec }).exactOptional(),
  rotation: z
    .object({
      phase: z.enum(['Issuing', 'Distributing', 'Switching', 'Retiring']),
      startedAt: z.string(),
      reachedAt: z.string().exactOptional(),
      to: z.object({ ...ids, spec: rootSpec }),
      back: z.boolean(),
      found: z.boolean().exactOptional(),
      longestMs: z.number(),
    })
    .exactOptional(),
  role: z.string(),
  made: z.array(z.string()),
  // states of an earlier version do not have the next two
  adopted: z.array(z.string()).default([]),
  publicKeys: z.array(z.string()).default([]),
  stood: z.object({ version: z.number(), publicKey: z.string().exactOptional() }).exactOptional(),
  handled: z.record(z.string(), z.string()),
  history: z.array(
    z.object({
      time: z.string(),
      kind: z.enum(['Root', 'Intermediate']),
      serial: z.string(),
      fingerprint: z.string(),
      reason: z.string(),
    }),
  ),
});

const generationOf = (data: JsonObject): number => Number(str(data[generationField])) || 0;

function slot<T>(id: Identity, entry: KvEntry, parse: (data: JsonObject) => T | undefined): Slot<T> {
  const { casVersion, data, lifetime } = entry;
  if (!data) return { casVersion, entry: undefined };
  const mark = str(data[markField]);
  const found = { casVersion, mark, ...(lifetime ? { lifetime } : {}) };
  return { ...found, entry: isOwnMarker(id, mark) ? parse(data) : 'foreign' };
}

const json = (value: string): unknown => {
  try {
    return JSON.parse(value) as unknown;
  } catch {
    return undefined; // judged by the schema, which then finds nothing
  }
};

/** What a live entry may consist of, with the mark of an operator and without; whatever else lies in one is gone with the next publication. */
const markedFields: ReadonlySet<string> = new Set([...caFiles, keyRefField, generationField, markField]);
const plainFields: ReadonlySet<string> = new Set(caFiles);

/** The live entry, its key reduced to the hash of its public half. */
export function parseLive(id: Identity, entry: KvEntry): Slot<CaEntry> {
  const found = slot<CaEntry>(id, entry, (data) => ({
    generation: generationOf(data),
    keyRef: str(data[keyRefField]),
    certificate: certificateFacts(str(data['ca-cert.pem'])),
    chain: str(data['cert-chain.pem']),
    root: str(data['root-cert.pem']),
    publicKey: publicKeyOfPrivate(str(data['ca-key.pem'])),
  }));
  if (found.entry !== 'foreign' || !entry.data) return found;
  const foreign = {
    publicKey: publicKeyOfPrivate(str(entry.data['ca-key.pem'])),
    generation: generationOf(entry.data),
    // whatever else somebody put into that file stays unread
    root: splitPem(str(entry.data['root-cert.pem'])).join(''),
    others: Object.keys(entry.data).filter((name) => !(found.mark ? markedFields : plainFields).has(name)),
  };
  return { ...found, foreign };
}

export interface LiveFiles {
  certificate: string;
  chain: string;
  root: string;
  key: Secret;
  /** Name or id of the key in the mount; empty: the generation's own name. */
  keyRef: string;
}

/** KV 1 answers with a lease of 32 days, after which agents read again; a `ttl` of its own makes them look every minute. */
export function liveData(mark: string, generation: number, files: LiveFiles, kvVersion: 1 | 2): Record<string, string> {
  return {
    'ca-cert.pem': files.certificate,
    'ca-key.pem': files.key.reveal(),
    'cert-chain.pem': files.chain,
    'root-cert.pem': files.root,
    ...(files.keyRef === '' ? {} : { [keyRefField]: files.keyRef }),
    [generationField]: String(generation),
    [markField]: mark,
    ...(kvVersion === 1 ? { [ttlField]: '60s' } : {}),
  };
}

export function parseStaging(id: Identity, entry: KvEntry): Slot<StagingEntry> {
  return slot(id, entry, (data) => ({
    generation: generationOf(data),
    keyRef: str(data[keyRefField]),
    spec: intermediateSpec.safeParse(json(str(data['spec']))).data,
    before: str(data['before']).split(' ').filter(Boolean),
    publicKey: publicKeyOfPrivate(str(data['ca-key.pem'])),
    reason: str(data['reason']),
    request: typeof data['request'] === 'string' ? data['request'] : undefined,
  }));
}

export function stagingData(
  mark: string,
  step: {
    generation: number;
    spec: IntermediateSpec;
    reuse: string | undefined;
    before: string[];
    reason: string;
    request: string | undefined;
  },
  key: Secret,
): Record<string, string> {
  return {
    'ca-key.pem': key.reveal(),
    spec: JSON.stringify(step.spec),
    reason: step.reason,
    ...(step.request === undefined ? {} : { request: step.request }),
    ...(step.reuse === undefined ? {} : { [keyRefField]: step.reuse }),
    ...(step.before.length === 0 ? {} : { before: step.before.join(' ') }),
    [generationField]: String(step.generation),
    [markField]: mark,
  };
}

/** The key in an entry that is being taken over: whose it is was decided before, and that it fits is checked by the caller. */
export function foreignKeyOf({ data }: KvEntry): Secret | undefined {
  return data && new Secret(str(data['ca-key.pem']));
}

/** The key in a live or staging entry of ours, if it carries that generation. */
export function keyOf(id: Identity, entry: KvEntry, generation: number): Secret | undefined {
  const { data } = entry;
  if (!data || !isOwnMarker(id, str(data[markField])) || generationOf(data) !== generation) return undefined;
  return new Secret(str(data['ca-key.pem']));
}

/** A state of ours that cannot be read counts as lost, and is rebuilt from what exists. */
export function parseState(id: Identity, entry: KvEntry): Slot<StateEntry> {
  return slot<StateEntry>(id, entry, (data) => stateSchema.safeParse(json(str(data['state']))).data);
}

export function stateData(mark: string, state: StateEntry): Record<string, string> {
  return { state: JSON.stringify(state), [markField]: mark };
}
