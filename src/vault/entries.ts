/**
 * Parses and formats the three KV entries of a resource: CA entry, staging entry and state entry. The ownership marker is a field of the data,
 * so that one write changes content and ownership, on KV 1 and KV 2.
 */
import { z } from 'zod';
import { str, type JsonObject } from '../api/json.ts';
import { bundleFacts, certificateFacts, publicKeyOfPrivate } from '../plan/facts/certificate.ts';
import { isOwnMarker, type Identity } from '../plan/facts/identity.ts';
import { caFiles, crlFile } from '../plan/facts/ca-files.ts';
import { listsIn } from '../plan/facts/revocation-list.ts';
import type { IntermediateSpec, StateEntry } from '../plan/facts/state-entry.ts';
import type { CaEntry, Slot, StagingEntry } from '../plan/facts/observed.ts';
import { Secret } from '../observability/secret.ts';
import { splitPem } from '../text/pem.ts';
import type { KvEntry } from './kv.ts';

const markerField = 'istio-vault-ca';
const generationField = 'generation';
const keyRefField = 'key-ref';
const ttlField = 'ttl';
const csrField = 'csr.pem';
/** In a CA entry: `Import` for a CA that was imported. In a staging entry: the Secret that it is from. */
const importField = 'imported';
const chainField = 'cert-chain.pem';
const rootField = 'root-cert.pem';
const csrTimeField = 'csr-made-at';
/** In a CA entry: when ca-crl.pem last got the list of another CA, RFC 3339. */
const listsSinceField = 'crl-since';

const intermediateSpecSchema = z.object({
  commonName: z.string(),
  organization: z.string(),
  ttl: z.number(),
  keyType: z.enum(['rsa', 'ec']),
  keyBits: z.number(),
  source: z.enum(['Issue', 'Import']),
  importRef: z.string(),
  maxPathLength: z.number(),
});
const rootSpecSchema = intermediateSpecSchema
  .pick({ commonName: true, organization: true, ttl: true, keyType: true, keyBits: true })
  .extend({ issuerRef: z.string().exactOptional() });
const ids = {
  generation: z.number(),
  issuerId: z.string().exactOptional(),
  keyId: z.string().exactOptional(),
  serial: z.string().exactOptional(),
  fingerprint: z.string().exactOptional(),
};
const rootSchema = z.object({ ...ids, spec: rootSpecSchema, certificate: z.string().exactOptional() });
const stateSchema = z.object({
  highestGeneration: z.number(),
  root: rootSchema.exactOptional(),
  intermediate: z
    .object({ ...ids, spec: intermediateSpecSchema, servedAt: z.string().exactOptional() })
    .exactOptional(),
  rotation: z
    .object({
      phase: z.enum(['Issuing', 'Distributing', 'Switching', 'Retiring']),
      startedAt: z.string(),
      reachedAt: z.string().exactOptional(),
      to: rootSchema,
      back: z.boolean(),
      found: z.boolean().exactOptional(),
      longestMs: z.number(),
      awaitsMembers: z.literal(true).exactOptional(),
    })
    .exactOptional(),
  trustedRoots: z
    .record(z.string(), z.object({ reachedAt: z.string().exactOptional(), longestMs: z.number() }))
    .exactOptional(),
  role: z.string(),
  reviewer: z.string().exactOptional(),
  made: z.array(z.string()),
  // state entries of earlier versions of the operator do not have the next two fields
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

/** The CA generation of an entry; 0 if the field is missing or not a number. */
const generationOf = (data: JsonObject): number => Number(str(data[generationField])) || 0;

/**
 * Parses an entry that carries the ownership marker of this resource; `entry` is `foreign` if it does not.
 * @param anyones the marker does not matter: others manage the entry
 */
function slot<T>(id: Identity, entry: KvEntry, parse: (data: JsonObject) => T | undefined, anyones = false): Slot<T> {
  const { casVersion, data, lifetime } = entry;
  if (!data) return { casVersion, entry: undefined };
  const marker = str(data[markerField]);
  const common = { casVersion, mark: marker, ...(lifetime ? { lifetime } : {}) };
  return { ...common, entry: anyones || isOwnMarker(id, marker) ? parse(data) : 'foreign' };
}

const parseJson = (value: string): unknown => {
  try {
    return JSON.parse(value) as unknown;
  } catch {
    return undefined; // every schema here rejects undefined
  }
};

/** The known fields of a CA entry, with the ownership marker of an operator and without one. The next publication removes all other fields. */
const markedFields: ReadonlySet<string> = new Set([
  ...[...caFiles, crlFile, keyRefField, generationField, markerField],
  importField,
  listsSinceField,
]);
const unmarkedFields: ReadonlySet<string> = new Set(caFiles);

/** How much text before the first PEM block is looked at, in UTF-16 code units. */
const longestBeforeKey = 4096;

/**
 * Whether istiod can read a key: it looks at the first PEM block only. Source:
 * https://github.com/istio/istio/blob/master/security/pkg/pki/util/crypto.go (ParsePemEncodedKey), findings/istio-ec-parameters.sh
 */
const istiodReads = (pem: string): boolean => {
  const [, label] = /-----BEGIN ([A-Z ]{1,40})-----/.exec(pem.slice(0, longestBeforeKey)) ?? [];
  return label === undefined || ['RSA PRIVATE KEY', 'EC PRIVATE KEY', 'PRIVATE KEY'].includes(label);
};

/** The revocation lists of a CA entry. */
function listsPart(data: JsonObject): Pick<CaEntry, 'lists' | 'listsSince'> {
  if (!(crlFile in data)) return {};
  const since = Date.parse(str(data[listsSinceField]));
  return { lists: listsIn(str(data[crlFile])), ...(Number.isNaN(since) ? {} : { listsSince: since }) };
}

/**
 * Parses the CA entry. The result has the hash of the public key instead of the private key.
 * @param anyones others manage the entry (`intermediate.manage: false`): it is read whoever wrote it
 */
export function parseLive(id: Identity, entry: KvEntry, anyones = false): Slot<CaEntry> {
  const parse = (data: JsonObject): CaEntry => ({
    generation: generationOf(data),
    keyRef: str(data[keyRefField]),
    certificate: certificateFacts(str(data['ca-cert.pem'])),
    chain: str(data['cert-chain.pem']),
    root: str(data['root-cert.pem']),
    publicKey: publicKeyOfPrivate(str(data['ca-key.pem'])),
    ...(importField in data ? { imported: true as const } : {}),
    ...listsPart(data),
    ...(istiodReads(str(data['ca-key.pem'])) ? {} : { unreadableKey: true as const }),
  });
  const result = slot<CaEntry>(id, entry, parse, anyones);
  if (result.entry !== 'foreign' || !entry.data) return result;
  const foreign = {
    publicKey: publicKeyOfPrivate(str(entry.data['ca-key.pem'])),
    generation: generationOf(entry.data),
    // only the certificates: other content of the file, such as a private key, is not kept
    root: splitPem(str(entry.data['root-cert.pem'])).join(''),
    certificates: bundleFacts([str(entry.data['ca-cert.pem']), str(entry.data[chainField])].join('\n')),
    others: Object.keys(entry.data).filter((name) => !(result.mark ? markedFields : unmarkedFields).has(name)),
  };
  return { ...result, foreign };
}

/** The content of a CA entry besides generation and ownership marker: files in PEM. */
interface CaEntryContent {
  certificate: string;
  chain: string;
  root: string;
  key: Secret;
  /** Empty: the entry gets no ca-crl.pem. */
  lists: string;
  /** When the lists last got that of another CA, RFC 3339; undefined: there are no lists. */
  listsSince: string | undefined;
  /** Name or id of the key in the intermediate mount; empty: the key has the default name of its generation. */
  keyRef: string;
  /** The CA was brought along by a user. */
  imported: boolean;
}

/**
 * Formats a CA entry. On KV 1 it has the field `ttl`: KV 1 returns a lease of 32 days, after which Vault Agent reads again. With the field,
 * Vault Agent reads every minute.
 */
export function caEntryData(
  marker: string,
  generation: number,
  content: CaEntryContent,
  kvVersion: 1 | 2,
): Record<string, string> {
  return {
    'ca-cert.pem': content.certificate,
    'ca-key.pem': content.key.reveal(),
    'cert-chain.pem': content.chain,
    'root-cert.pem': content.root,
    ...(content.lists === '' ? {} : { [crlFile]: content.lists }),
    ...(content.lists === '' || content.listsSince === undefined ? {} : { [listsSinceField]: content.listsSince }),
    ...(content.keyRef === '' ? {} : { [keyRefField]: content.keyRef }),
    ...(content.imported ? { [importField]: 'true' } : {}),
    [generationField]: String(generation),
    [markerField]: marker,
    ...(kvVersion === 1 ? { [ttlField]: '60s' } : {}),
  };
}

/** The certificates of an imported CA in a staging entry. */
const importedPart = (data: JsonObject): Pick<StagingEntry, 'imported'> =>
  typeof data[importField] === 'string'
    ? {
        imported: {
          chain: splitPem(str(data[chainField])),
          root: str(data[rootField]),
          secret: data[importField],
        },
      }
    : {};

/** Parses the staging entry. The result has the hash of the public key instead of the private key. */
export function parseStaging(id: Identity, entry: KvEntry): Slot<StagingEntry> {
  return slot(id, entry, (data) => ({
    generation: generationOf(data),
    keyRef: str(data[keyRefField]),
    spec: intermediateSpecSchema.safeParse(parseJson(str(data['spec']))).data,
    before: str(data['before']).split(' ').filter(Boolean),
    publicKey: publicKeyOfPrivate(str(data['ca-key.pem'])),
    reason: str(data['reason']),
    request: typeof data['request'] === 'string' ? data['request'] : undefined,
    ...importedPart(data),
    ...(typeof data[csrField] === 'string' ? { csr: { pem: data[csrField], madeAt: str(data[csrTimeField]) } } : {}),
  }));
}

/** The data of a staging entry with its certificate signing request. @param madeAt RFC 3339 */
export const withCsr = (data: JsonObject, csr: string, madeAt: string): Record<string, string> => ({
  ...Object.fromEntries(Object.entries(data).map(([field, value]) => [field, str(value)])),
  [csrField]: csr,
  [csrTimeField]: madeAt,
});

/** Formats a staging entry with an imported CA. */
export function importedData(
  marker: string,
  step: { generation: number; spec: IntermediateSpec; reason: string; chain: string[]; root: string; secret: string },
  key: Secret,
): Record<string, string> {
  const { generation, spec, reason, chain, root, secret } = step;
  return {
    ...stagingData(marker, { generation, spec, reason, reuse: undefined, before: [], request: undefined }, key),
    [chainField]: chain.join(''),
    [rootField]: root,
    [importField]: secret,
  };
}

/** Formats a staging entry. */
export function stagingData(
  marker: string,
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
    [markerField]: marker,
  };
}

/**
 * Returns the key of a CA entry that is being adopted; undefined if there is no entry. The ownership marker is not checked: the plan decided
 * on the adoption. The caller checks that the key matches the certificate.
 */
export function foreignKeyOf({ data }: KvEntry): Secret | undefined {
  return data && new Secret(str(data['ca-key.pem']));
}

/** Returns the key of a CA or staging entry; undefined if this resource does not own the entry, or if it has another CA generation. */
export function keyOf(id: Identity, entry: KvEntry, generation: number): Secret | undefined {
  const { data } = entry;
  if (!data || !isOwnMarker(id, str(data[markerField])) || generationOf(data) !== generation) return undefined;
  return new Secret(str(data['ca-key.pem']));
}

/** Parses the state entry. `entry` is undefined if the content is invalid: the state then counts as lost and is rebuilt from what exists. */
export function parseState(id: Identity, entry: KvEntry): Slot<StateEntry> {
  return slot<StateEntry>(id, entry, (data) => stateSchema.safeParse(parseJson(str(data['state']))).data);
}

/** Formats a state entry. */
export function stateData(marker: string, state: StateEntry): Record<string, string> {
  return { state: JSON.stringify(state), [markerField]: marker };
}
