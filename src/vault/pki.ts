/** The PKI secrets engine of Vault ≥ 1.11 and OpenBao. https://developer.hashicorp.com/vault/api-docs/secret/pki */
import { z } from 'zod';
import { isObject, type JsonObject } from '../api/json.ts';
import { bundleFacts, certificateFacts } from '../plan/facts/certificate.ts';
import type { IntermediateSpec, RootSpec } from '../plan/facts/state-entry.ts';
import type { ExistingIssuer, Issuer, Pki } from '../plan/facts/observed.ts';
import type { Secret } from '../observability/secret.ts';
import { cut, printable } from '../text/bounded.ts';
import { splitPem } from '../text/pem.ts';
import type { VaultClient } from './client.ts';
import { isTooLarge, VaultError } from './errors.ts';

const issuerList = z.object({ key_info: z.record(z.string(), z.object({ issuer_name: z.string().default('') })) });
const keyList = z.object({ key_info: z.record(z.string(), z.object({ key_name: z.string().default('') })) });
/** The usage without which an issuer signs no certificates. https://developer.hashicorp.com/vault/api-docs/secret/pki#update-issuer */
const issuingUsage = 'issuing-certificates';

const issuerSchema = z.object({
  certificate: z.string(),
  key_id: z.string().default(''),
  revoked: z.boolean().default(false),
  usage: z.string().default(issuingUsage),
});
const configSchema = z.object({
  default: z.string().default(''),
  default_follows_latest_issuer: z.boolean().default(false),
});
const signedSchema = z.object({ certificate: z.string(), ca_chain: z.array(z.string()).nullish() });

/** Maximum number of issuers, and of keys, in a mount of a resource. Each issuer is read with a request of its own. */
const mostIssuers = 200;

/**
 * Lists issuers or keys with their details; undefined if Vault responds with status 404, as it does for an empty list.
 * @throws VaultError of kind `TooMany` if there are more than 200
 */
async function listDetails<T>(client: VaultClient, path: string, schema: z.ZodType<T>): Promise<T | undefined> {
  const reply = await client.call('LIST', path, undefined, { allow: [404] });
  if (reply.status === 404) return undefined;
  const { key_info: details } = reply.data;
  const count = isObject(details) ? Object.keys(details).length : 0;
  if (count > mostIssuers)
    throw new VaultError('TooMany', 'list', path, 0, `${count} of them, and at most ${mostIssuers} are read`);
  return schema.parse(reply.data);
}

const namedItems = z.record(
  z.string(),
  z.looseObject({ issuer_name: z.string().default(''), key_name: z.string().default('') }),
);

/** Whether the list of a mount has no issuer, or no key, of an id or name; of issuer `default`, whether the mount has none. */
async function isNotListed(
  client: VaultClient,
  mount: string,
  kind: 'issuers' | 'keys',
  ref: string,
): Promise<boolean> {
  if (kind === 'issuers' && ref === 'default')
    return configSchema.parse((await client.read(`${mount}/config/issuers`)) ?? {}).default === '';
  const reply = await client.call('LIST', `${mount}/${kind}`, undefined, { allow: [404] });
  if (reply.status === 404) return true;
  const items = Object.entries(namedItems.parse(reply.data['key_info']));
  return !items.some(([id, names]) => id === ref || (ref !== '' && Object.values(names).includes(ref)));
}

/**
 * Whether a request failed because an issuer or a key does not exist. Vault and OpenBao answer such requests with status 500, as they do when
 * they fail (findings/openbao-absent-issuer.sh), or with 400, so the list decides. If it cannot be read, nothing shows that the object is absent.
 * @param ref id or name
 */
async function isAbsence(
  error: unknown,
  client: VaultClient,
  mount: string,
  kind: 'issuers' | 'keys',
  ref: string,
): Promise<boolean> {
  if (!(error instanceof VaultError && [400, 500].includes(error.status))) return false;
  return await isNotListed(client, mount, kind, ref).catch((second: unknown) => {
    if (second instanceof VaultError) return false;
    throw second;
  });
}

/**
 * A read of an issuer; undefined if it does not exist.
 * @param ref id or name of the issuer
 * @throws VaultError if the issuer exists and cannot be read, or if it is not known whether it exists
 */
async function unlessAbsent<T>(
  client: VaultClient,
  mount: string,
  ref: string,
  read: Promise<T>,
): Promise<T | undefined> {
  try {
    return await read;
  } catch (error) {
    if (await isAbsence(error, client, mount, 'issuers', ref)) return undefined;
    throw error;
  }
}

/**
 * A write that names an issuer or a key which was observed.
 * @throws VaultError of kind `CheckAndSet` if it does not exist any more
 */
async function unlessGone<T>(
  client: VaultClient,
  mount: string,
  [kind, ref]: ['issuers' | 'keys', string],
  write: Promise<T>,
): Promise<T> {
  try {
    return await write;
  } catch (error) {
    if (!(await isAbsence(error, client, mount, kind, ref))) throw error;
    const what = kind === 'issuers' ? 'the issuer' : 'the key';
    throw new VaultError('CheckAndSet', 'write', what, 0, 'does not exist any more; looking again');
  }
}

/** Reads an issuer; undefined if it does not exist. @throws VaultError */
const readIssuer = (client: VaultClient, mount: string, ref: string): Promise<JsonObject | undefined> =>
  unlessAbsent(client, mount, ref, client.read(`${mount}/issuer/${ref}`));

/** A usage is a word of a list that Vault knows; nothing else is sent back to it. */
const shownUsage = (usage: string): string => cut(printable(usage), 40);

/** Reads the public data of a mount: issuers with their certificates, key ids and names, and the default issuer. */
export async function readPki(client: VaultClient, mount: string): Promise<Pki> {
  const [issuers, keys, config] = await Promise.all([
    listDetails(client, `${mount}/issuers`, issuerList),
    listDetails(client, `${mount}/keys`, keyList),
    client.read(`${mount}/config/issuers`),
  ]);
  const keyNames = Object.entries(keys?.key_info ?? {}).map(([id, key]) => ({ id, name: key.key_name }));
  const read = await Promise.all(
    Object.keys(issuers?.key_info ?? {}).map(async (id): Promise<Issuer | undefined> => {
      const body = await readIssuer(client, mount, id);
      if (!body) return undefined; // removed between the list and the read
      const { certificate, key_id, revoked, usage } = issuerSchema.parse(body);
      const facts = certificateFacts(certificate);
      const keyName = keyNames.find((k) => k.id === key_id)?.name ?? '';
      const usages = usage.split(',').filter((one) => one !== '');
      return (
        facts && {
          ...{ id, keyId: key_id, keyName, certificate: facts },
          ...(revoked ? { revoked } : usages.includes(issuingUsage) ? {} : { usages: usages.map(shownUsage) }),
        }
      );
    }),
  );
  const { default: defaultIssuerId, default_follows_latest_issuer: followsLatest } = configSchema.parse(config ?? {});
  return {
    issuers: read.filter((issuer) => issuer !== undefined),
    keys: keyNames,
    defaultIssuerId,
    ...(followsLatest ? { followsLatest } : {}),
  };
}

const subject = (spec: RootSpec): JsonObject => ({
  common_name: spec.commonName,
  exclude_cn_from_sans: true,
  ...(spec.organization === '' ? {} : { organization: [spec.organization] }),
});

/**
 * Issues a root certificate whose key is not exported from Vault.
 * @param name name of the issuer and of its key
 * @param existingKey uses the existing key of that name instead of a new one
 */
export async function generateRoot(
  client: VaultClient,
  mount: string,
  name: string,
  spec: RootSpec,
  existingKey: boolean,
): Promise<void> {
  const common = { ...subject(spec), ttl: `${spec.ttl}s`, issuer_name: name };
  if (existingKey) await client.write(`${mount}/root/generate/existing`, { ...common, key_ref: name });
  else
    await client.write(`${mount}/root/generate/internal`, {
      ...common,
      key_name: name,
      key_type: spec.keyType,
      key_bits: spec.keyBits,
    });
}

/**
 * Imports a private key under a name.
 * @throws VaultError of kind `InUse` if the mount has a key of that name ("already in use")
 */
export async function importKey(client: VaultClient, mount: string, name: string, key: Secret): Promise<void> {
  await client.write(`${mount}/keys/import`, { pem_bundle: key.reveal(), key_name: name });
}

/** Returns a certificate signing request in PEM for a key in the mount. The call stores nothing in Vault and can be repeated. */
export async function csrForKey(
  client: VaultClient,
  mount: string,
  keyRef: string,
  spec: IntermediateSpec,
): Promise<string> {
  const request = { ...subject(spec), key_ref: keyRef, format: 'pem' };
  const write = client.write(`${mount}/intermediate/generate/existing`, request);
  const reply = await unlessGone(client, mount, ['keys', keyRef], write);
  return z.object({ csr: z.string() }).parse(reply.data).csr;
}

/**
 * Signs a certificate signing request with the given issuer.
 * @param notAfter RFC 3339 time to use instead of the TTL of the spec, if the issuer expires before it; undefined uses the TTL
 * @returns PEM blocks: the certificate, then the intermediates above it in ascending order, without roots
 */
export async function signIntermediate(
  client: VaultClient,
  mount: string,
  issuerId: string,
  csr: string,
  spec: IntermediateSpec,
  notAfter: string | undefined,
): Promise<string[]> {
  const write = client.write(`${mount}/issuer/${issuerId}/sign-intermediate`, {
    ...subject(spec),
    csr,
    use_csr_values: false,
    format: 'pem',
    max_path_length: spec.maxPathLength,
    ...(notAfter === undefined ? { ttl: `${spec.ttl}s` } : { not_after: notAfter }),
  });
  const reply = await unlessGone(client, mount, ['issuers', issuerId], write);
  const signed = signedSchema.parse(reply.data);
  return chainWithoutRoots([signed.certificate, ...(signed.ca_chain ?? [])]);
}

/** The PEM blocks in their order, without duplicates, and without self-issued certificates after the first. */
function chainWithoutRoots(pems: string[]): string[] {
  const seen = new Set<string>();
  return pems
    .flatMap((pem) => splitPem(pem))
    .filter((pem) => {
      const facts = certificateFacts(pem);
      if (!facts || seen.has(facts.fingerprint)) return false;
      seen.add(facts.fingerprint);
      return seen.size === 1 || !facts.selfIssued;
    });
}

/**
 * Returns the certificate of an issuer, then the intermediates above it in ascending order, without roots: PEM blocks. Empty if the issuer
 * does not exist.
 */
export async function readChain(client: VaultClient, mount: string, issuerId: string): Promise<string[]> {
  const body = await readIssuer(client, mount, issuerId);
  const issuer = z.object({ certificate: z.string(), ca_chain: z.array(z.string()).nullish() }).safeParse(body).data;
  return issuer ? chainWithoutRoots([issuer.certificate, ...(issuer.ca_chain ?? [])]) : [];
}

const publicIssuerSchema = z.object({
  issuer_id: z.string(),
  issuer_name: z.string().default(''),
  certificate: z.string(),
  ca_chain: z.array(z.string()).nullish(),
});

/** Maximum number of certificates above an issuer of others that are looked at. */
const mostAbove = 10;

/**
 * Reads an issuer of a mount that others own, as Vault shows it to everybody: no right is needed.
 * https://developer.hashicorp.com/vault/api-docs/secret/pki#read-issuer-certificate
 * @param ref id or name, or `default`
 * @returns undefined: the mount or the issuer does not exist. Vault does not tell a mount that does not exist from one that may not be read
 */
export async function readPublicIssuer(
  client: VaultClient,
  mount: string,
  ref: string,
): Promise<ExistingIssuer | undefined> {
  const body = await client.read(`${mount}/issuer/${ref}/json`).catch((error: unknown) => {
    if (error instanceof VaultError && isAbsent(error)) return undefined;
    throw error;
  });
  const issuer = publicIssuerSchema.safeParse(body ?? {}).data;
  const certificate = certificateFacts(issuer?.certificate ?? '');
  if (!issuer || !certificate) return undefined;
  const chain = (issuer.ca_chain ?? []).slice(0, mostAbove).flatMap((pem) => bundleFacts(pem).slice(0, 1));
  return {
    id: cut(printable(issuer.issuer_id), longestRole),
    name: cut(printable(issuer.issuer_name), longestRole),
    certificate,
    above: chain.filter(({ fingerprint }) => fingerprint !== certificate.fingerprint),
  };
}

const publicIssuerList = z.object({
  key_info: z.record(
    z.string(),
    z.object({ issuer_name: z.string().default(''), serial_number: z.string().default('') }),
  ),
});

/** What everybody may see of an issuer in the list of its mount. */
export interface ListedIssuer {
  id: string;
  /** Empty: it has none. */
  name: string;
  /** As in `CertificateFacts.serial`; empty: the server does not show it. */
  serial: string;
}

/**
 * Lists the issuers of a mount that others own, as Vault and OpenBao show them to everybody: no right is needed, and no policy keeps it from anybody.
 * It is one response, bounded in bytes, however many issuers there are.
 * @returns undefined: the mount has none or does not exist, or the list is longer than is read, or of an unknown form
 */
export async function listPublicIssuers(client: VaultClient, mount: string): Promise<ListedIssuer[] | undefined> {
  const reply = await client
    .call('LIST', `${mount}/issuers`, undefined, { allow: [403, 404] })
    .catch((error: unknown) => {
      if (error instanceof VaultError && isTooLarge(error)) return undefined;
      throw error;
    });
  const list = publicIssuerList.safeParse(reply?.data).data;
  return (
    list &&
    Object.entries(list.key_info).map(([id, { issuer_name, serial_number }]) => ({
      id: cut(printable(id), longestRole),
      name: issuer_name,
      serial: serial_number.toLowerCase(),
    }))
  );
}

/** Vault answers 500 if it has no such issuer or no list of it (findings/openbao-absent-issuer.sh), and 403 if there is no such mount. */
export const isAbsent = ({ kind, message }: VaultError): boolean =>
  kind === 'Forbidden' ||
  (kind === 'Server' && /unable to find (?:PKI issuer|CRL for issuer)|no default issuer/i.test(message));

/** Installs a certificate for a key in the mount. A repetition with the same certificate changes nothing. */
export async function setSigned(client: VaultClient, mount: string, chain: string[]): Promise<void> {
  await client.write(`${mount}/intermediate/set-signed`, { certificate: chain.join('') });
}

/** Sets the default issuer, which then stays the default when further issuers are made. */
export async function setDefaultIssuer(client: VaultClient, mount: string, issuerId: string): Promise<void> {
  const write = client.write(`${mount}/config/issuers`, { default: issuerId, default_follows_latest_issuer: false });
  await unlessGone(client, mount, ['issuers', issuerId], write);
}

/**
 * Lets an issuer sign certificates, besides what it is used for.
 * @param usages the present usages, without `issuing-certificates`
 */
export async function addIssuingUsage(
  client: VaultClient,
  mount: string,
  issuerId: string,
  usages: string[],
): Promise<void> {
  const write = client.patch(`${mount}/issuer/${issuerId}`, { usage: [...usages, issuingUsage].join(',') });
  await unlessGone(client, mount, ['issuers', issuerId], write);
}

/** Returns whether a mount has revoked a certificate that it issued. False: it has not, or does not know the certificate. */
export async function isRevoked(client: VaultClient, mount: string, serial: string): Promise<boolean> {
  const body = await client.read(`${mount}/cert/${serial}`);
  return z.object({ revocation_time: z.number().default(0) }).parse(body ?? {}).revocation_time > 0;
}

/** Removes issuers, then keys; those that do not exist are ignored. */
export async function removeParts(
  client: VaultClient,
  mount: string,
  issuerIds: string[],
  keyIds: string[],
): Promise<void> {
  const ignoreNotFound = (error: unknown) => {
    if (!(error instanceof VaultError && error.kind === 'NotFound')) throw error;
  };
  for (const id of issuerIds) await client.delete(`${mount}/issuer/${id}`).catch(ignoreNotFound);
  for (const id of keyIds) await client.delete(`${mount}/key/${id}`).catch(ignoreNotFound);
}

/** The limit for `readSigned`, which sends one request per certificate. */
const maxSigned = 500;

/** Maximum number of roles whose names are kept, and the longest name, in UTF-16 code units. */
const mostRoles = 100;
const longestRole = 100;

/** Returns the names of the roles of a PKI mount, at most 100. */
export async function listPkiRoles(client: VaultClient, mount: string): Promise<string[]> {
  const names = await client.list(`${mount}/roles`);
  return names.slice(0, mostRoles).map((name) => cut(printable(name), longestRole));
}

/**
 * Returns the certificates that a mount has issued and that are not expired.
 * @param now milliseconds since the epoch
 * @returns undefined if the mount has more than 500 certificates, which are too many to read
 */
export async function readSigned(
  client: VaultClient,
  mount: string,
  now: number,
): Promise<{ serial: string; publicKey: string; selfIssued: boolean }[] | undefined> {
  const serials = await client.list(`${mount}/certs`);
  if (serials.length > maxSigned) return undefined;
  const certificates = await Promise.all(
    serials.map(async (serial) => {
      const body = await client.read(`${mount}/cert/${serial}`);
      return body && certificateFacts(z.object({ certificate: z.string() }).parse(body).certificate);
    }),
  );
  return certificates.flatMap((facts) =>
    facts && facts.notAfter > now
      ? [{ serial: facts.serial, publicKey: facts.publicKey, selfIssued: facts.selfIssued }]
      : [],
  );
}
