/** The PKI secrets engine of Vault ≥ 1.11 and OpenBao. https://developer.hashicorp.com/vault/api-docs/secret/pki */
import { z } from 'zod';
import type { JsonObject } from '../api/json.ts';
import { certificateFacts, splitPem } from '../plan/facts/certificate.ts';
import type { IntermediateSpec, RootSpec } from '../plan/facts/state-entry.ts';
import type { Issuer, Pki } from '../plan/facts/observed.ts';
import type { Secret } from '../observability/secret.ts';
import type { VaultClient } from './client.ts';
import { VaultError } from './errors.ts';

const issuerList = z.object({ key_info: z.record(z.string(), z.object({ issuer_name: z.string().default('') })) });
const keyList = z.object({ key_info: z.record(z.string(), z.object({ key_name: z.string().default('') })) });
const issuerSchema = z.object({ certificate: z.string(), key_id: z.string().default('') });
const signedSchema = z.object({ certificate: z.string(), ca_chain: z.array(z.string()).nullish() });

async function list<T>(client: VaultClient, path: string, schema: z.ZodType<T>): Promise<T | undefined> {
  const reply = await client.call('LIST', path, undefined, { allow: [404] });
  return reply.status === 404 ? undefined : schema.parse(reply.data);
}

/** Everything public in a mount: issuers with their certificates, keys by name, the default issuer. */
export async function readPki(client: VaultClient, mount: string): Promise<Pki> {
  const [issuers, keys, config] = await Promise.all([
    list(client, `${mount}/issuers`, issuerList),
    list(client, `${mount}/keys`, keyList),
    client.read(`${mount}/config/issuers`),
  ]);
  const keyNames = Object.entries(keys?.key_info ?? {}).map(([id, key]) => ({ id, name: key.key_name }));
  const found = await Promise.all(
    Object.keys(issuers?.key_info ?? {}).map(async (id): Promise<Issuer | undefined> => {
      const body = await client.read(`${mount}/issuer/${id}`);
      if (!body) return undefined; // removed between the list and the read
      const { certificate, key_id } = issuerSchema.parse(body);
      const facts = certificateFacts(certificate);
      return (
        facts && { id, keyId: key_id, keyName: keyNames.find((k) => k.id === key_id)?.name ?? '', certificate: facts }
      );
    }),
  );
  return {
    issuers: found.filter((issuer) => issuer !== undefined),
    keys: keyNames,
    defaultIssuerId: z.object({ default: z.string().default('') }).parse(config ?? {}).default,
  };
}

const subject = (spec: RootSpec): JsonObject => ({
  common_name: spec.commonName,
  exclude_cn_from_sans: true,
  ...(spec.organization === '' ? {} : { organization: [spec.organization] }),
});

/** Makes a root whose key never leaves Vault. With `existingKey` the key of that name is used instead of a new one. */
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

/** Imports a private key under a name; a second import of the name is refused by Vault ("already in use"). */
export async function importKey(client: VaultClient, mount: string, name: string, key: Secret): Promise<void> {
  await client.write(`${mount}/keys/import`, { pem_bundle: key.reveal(), key_name: name });
}

/** A CSR for a key in the mount: makes nothing, and may be asked for again. */
export async function csrForKey(
  client: VaultClient,
  mount: string,
  keyRef: string,
  spec: IntermediateSpec,
): Promise<string> {
  const reply = await client.write(`${mount}/intermediate/generate/existing`, {
    ...subject(spec),
    key_ref: keyRef,
    format: 'pem',
  });
  return z.object({ csr: z.string() }).parse(reply.data).csr;
}

/**
 * Signs a CSR with a pinned issuer.
 * @param notAfter RFC 3339 end instead of the spec's ttl, when the signer ends before it
 * @returns the certificate, then the intermediates above it without any root: PEM blocks, leaf-most first
 */
export async function signIntermediate(
  client: VaultClient,
  mount: string,
  issuerId: string,
  csr: string,
  spec: IntermediateSpec,
  notAfter: string | undefined,
): Promise<string[]> {
  const reply = await client.write(`${mount}/issuer/${issuerId}/sign-intermediate`, {
    ...subject(spec),
    csr,
    use_csr_values: false,
    format: 'pem',
    max_path_length: spec.maxPathLength,
    ...(notAfter === undefined ? { ttl: `${spec.ttl}s` } : { not_after: notAfter }),
  });
  const signed = signedSchema.parse(reply.data);
  return chainWithoutRoots([signed.certificate, ...(signed.ca_chain ?? [])]);
}

/** PEM blocks in their order, each once, without self-issued ones after the first. */
function chainWithoutRoots(pems: string[]): string[] {
  const seen = new Set<string>();
  return pems.flatMap(splitPem).filter((pem) => {
    const facts = certificateFacts(pem);
    if (!facts || seen.has(facts.fingerprint)) return false;
    seen.add(facts.fingerprint);
    return seen.size === 1 || !facts.selfIssued;
  });
}

/** The certificate of an issuer and the intermediates above it, leaf-most first, without any root. */
export async function readChain(client: VaultClient, mount: string, issuerId: string): Promise<string[]> {
  const body = await client.read(`${mount}/issuer/${issuerId}`);
  const issuer = z.object({ certificate: z.string(), ca_chain: z.array(z.string()).nullish() }).safeParse(body).data;
  return issuer ? chainWithoutRoots([issuer.certificate, ...(issuer.ca_chain ?? [])]) : [];
}

/** Installs a certificate for a key in the mount; the same certificate again changes nothing. */
export async function setSigned(client: VaultClient, mount: string, chain: string[]): Promise<void> {
  await client.write(`${mount}/intermediate/set-signed`, { certificate: chain.join('') });
}

export async function setDefaultIssuer(client: VaultClient, mount: string, issuerId: string): Promise<void> {
  await client.write(`${mount}/config/issuers`, { default: issuerId });
}

/** Removes issuers, then keys; what is gone already is fine. */
export async function removeParts(
  client: VaultClient,
  mount: string,
  issuerIds: string[],
  keyIds: string[],
): Promise<void> {
  const gone = (error: unknown) => {
    if (!(error instanceof VaultError && error.kind === 'NotFound')) throw error;
  };
  for (const id of issuerIds) await client.delete(`${mount}/issuer/${id}`).catch(gone);
  for (const id of keyIds) await client.delete(`${mount}/key/${id}`).catch(gone);
}

/** More than this many certificates of one root are not read one by one. */
const mostSigned = 500;

/** Names of the roles of a PKI mount. */
export async function listPkiRoles(client: VaultClient, mount: string): Promise<string[]> {
  return (await list(client, `${mount}/roles`, z.object({ keys: z.array(z.string()) })))?.keys ?? [];
}

/** Certificates that a mount has issued and that are valid at a time; undefined when there are too many to read. */
export async function readSigned(
  client: VaultClient,
  mount: string,
  now: number,
): Promise<{ serial: string; publicKey: string; selfIssued: boolean }[] | undefined> {
  const serials = await list(client, `${mount}/certs`, z.object({ keys: z.array(z.string()) }));
  if (!serials) return [];
  if (serials.keys.length > mostSigned) return undefined;
  const found = await Promise.all(
    serials.keys.map(async (serial) => {
      const body = await client.read(`${mount}/cert/${serial}`);
      return body && certificateFacts(z.object({ certificate: z.string() }).parse(body).certificate);
    }),
  );
  return found.flatMap((facts) =>
    facts && facts.notAfter > now
      ? [{ serial: facts.serial, publicKey: facts.publicKey, selfIssued: facts.selfIssued }]
      : [],
  );
}
