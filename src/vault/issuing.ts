/**
 * The steps that issue and publish an intermediate certificate, and that garbage-collect old ones. A key is stored before Vault uses it.
 * Each step reads again the objects whose observed state can be outdated. See docs/adr/0002.
 */
import { createPrivateKey, generateKeyPair } from 'node:crypto';
import { promisify } from 'node:util';
import { rfc3339 } from '../api/time.ts';
import {
  bundleFacts,
  certificateFacts,
  csrCarriesKey,
  isSignedBy,
  publicKeyOfPrivate,
  type CertificateFacts,
} from '../plan/facts/certificate.ts';
import { pathTo } from '../plan/facts/certificate-path.ts';
import { rootSourceOf, type Desired } from '../plan/facts/desired.ts';
import { isListOf, listsIn } from '../plan/facts/revocation-list.ts';
import type { IntermediateSpec } from '../plan/facts/state-entry.ts';
import { ProblemError, type Problem } from '../plan/facts/problem.ts';
import { keptLists } from '../plan/step-rows-issuing.ts';
import type { Step } from '../plan/steps.ts';
import { Secret } from '../observability/secret.ts';
import type { VaultClient } from './client.ts';
import {
  foreignKeyOf,
  keyOf,
  caEntryData,
  parseLive,
  importedData,
  parseStaging,
  stagingData,
  withCsr,
} from './entries.ts';
import { VaultError } from './errors.ts';
import { destroyKv, readKv, writeKv } from './kv.ts';
import { readMaxLeaseTtl, readVisibleMaxLeaseTtl } from './mounts.ts';
import { kvPlace } from './observe.ts';
import * as pki from './pki.ts';

export type StepOf<K extends Step['kind']> = Extract<Step, { kind: K }>;

/** The arguments of every step. */
export interface ExecuteContext {
  client: VaultClient;
  desired: Desired;
  /** Reads the token for TokenReview requests; undefined if the spec names none. */
  reviewerJwt: () => Promise<Secret | undefined>;
  /** Reads the key of the CA that the spec imports; undefined: there is none. */
  givenKey: () => Promise<Secret | undefined>;
  /** The time, milliseconds since the epoch. */
  now: () => number;
  /** Records an Event about a fact that only the execution of the step shows. */
  notice: (reason: string, message: string) => void;
}

const generateKeyPairAsync = promisify(generateKeyPair);

/** Generates a private key, in PKCS #1 for RSA and in SEC 1 for EC. Both istiod and the import of Vault read these formats. */
async function generateKey(spec: IntermediateSpec): Promise<Secret> {
  const { privateKey } =
    spec.keyType === 'rsa'
      ? await generateKeyPairAsync('rsa', { modulusLength: spec.keyBits })
      : await generateKeyPairAsync('ec', { namedCurve: spec.keyBits === 384 ? 'secp384r1' : 'prime256v1' });
  return new Secret(privateKey.export({ type: spec.keyType === 'rsa' ? 'pkcs1' : 'sec1', format: 'pem' }).toString());
}

/**
 * Creates the error of a step whose object changed since it was observed. Its kind has the condition reason `Conflict`.
 * @param object the changed object, for the message
 */
export const moved = (object: string): VaultError =>
  new VaultError('CheckAndSet', 'read', object, 0, 'changed meanwhile; looking again');

/**
 * Returns a key in the form that istiod reads, PKCS #1 or SEC 1, as one PEM block. A block EC PARAMETERS before the key, as OpenSSL writes
 * it, makes istiod exit (findings/istio-ec-parameters.sh). A key of another kind stays as it is.
 */
function forIstiod(key: Secret): Secret {
  const parsed = createPrivateKey(key.reveal());
  const type = { rsa: 'pkcs1', ec: 'sec1' } as const;
  const kind = parsed.asymmetricKeyType;
  return kind === 'rsa' || kind === 'ec'
    ? new Secret(parsed.export({ type: type[kind], format: 'pem' }).toString())
    : key;
}

/**
 * Reads the key of a CA generation from the staging entry or the CA entry.
 * @throws VaultError of kind `CheckAndSet` if the entry is not owned by this resource or has another generation
 */
export async function storedKey(
  { client, desired }: ExecuteContext,
  from: 'staging' | 'live',
  generation: number,
): Promise<Secret> {
  const entry = await readKv(client, kvPlace(desired, from === 'staging' ? '-staging' : ''));
  const key = keyOf(desired.identity, entry, generation);
  if (!key) throw moved(`the ${from} entry`);
  return key;
}

/** Generates a key, or copies the key of the CA entry if `reuse` is set, and writes it to the staging entry. */
export async function stageKey(ctx: ExecuteContext, step: StepOf<'StageKey'>): Promise<void> {
  const place = kvPlace(ctx.desired, '-staging');
  const key = step.reuse === undefined ? await generateKey(step.spec) : await publishedKey(ctx);
  await writeKv(ctx.client, place, stagingData(ctx.desired.mark, step, key), step.cas);
}

/**
 * Takes a CA that a user brought along into the staging entry.
 * @throws VaultError of kind `CheckAndSet` if the Secret has another key than it had when it was observed, or if the entry changed
 */
export async function importCa(ctx: ExecuteContext, step: StepOf<'ImportCA'>): Promise<void> {
  const key = await ctx.givenKey();
  if (!key || publicKeyOfPrivate(key.reveal()) !== step.publicKey) throw moved(`Secret ${step.secret}`);
  await writeKv(ctx.client, kvPlace(ctx.desired, '-staging'), importedData(ctx.desired.mark, step, key), step.cas);
}

/** Reads the key of the CA entry, of any generation. @throws VaultError of kind `CheckAndSet` if this resource does not own the entry */
async function publishedKey({ client, desired }: ExecuteContext): Promise<Secret> {
  const entry = await readKv(client, kvPlace(desired, ''));
  const ca = parseLive(desired.identity, entry).entry;
  const key = ca && ca !== 'foreign' ? keyOf(desired.identity, entry, ca.generation) : undefined;
  if (!key) throw moved('the CA entry');
  return key;
}

/**
 * Removes the staging entry. KV 2 destroys only the observed version, and the one before it if that holds the same key. KV 1 has no versions, so
 * the entry is read and compared again.
 * @throws VaultError of kind `CheckAndSet` if the entry changed (KV 1)
 */
export async function removeStaging(ctx: ExecuteContext, step: StepOf<'RemoveStaging'>): Promise<void> {
  const place = kvPlace(ctx.desired, '-staging');
  if (place.version === 1 && step.left === undefined) await storedKey(ctx, 'staging', step.generation);
  if (place.version === 1 && step.left !== undefined) {
    const { mark } = parseStaging(ctx.desired.identity, await readKv(ctx.client, place));
    if (mark !== step.left) throw moved('the staging entry');
  }
  await destroyKv(ctx.client, place, step.twice ? [step.version - 1, step.version] : [step.version]);
}

/** Compares a signed certificate with what was requested. Returns the problem; undefined if the certificate can be installed. */
function mismatch(
  cert: CertificateFacts | undefined,
  signer: CertificateFacts,
  publicKey: string,
  step: StepOf<'SignIntermediate'>,
): Problem | undefined {
  const { spec } = step;
  const problem = (reason: Problem['reason'], message: string): Problem => ({
    condition: 'IntermediateReady',
    reason,
    message,
    blocks: 'all',
  });
  if (!cert)
    return problem('CertificateMismatch', 'the root mount answered the signing with something that is no certificate');
  const difference = [
    [cert.publicKey !== publicKey, 'another public key than the staged one'],
    [!cert.isCa, 'no CA certificate'],
    [!cert.canSignCertificates, 'a key usage without certificate signing'],
    [
      cert.maxPathLength !== spec.maxPathLength,
      `path length ${cert.maxPathLength ?? 'unlimited'} instead of ${spec.maxPathLength}`,
    ],
    [!isSignedBy(cert, signer), 'a signature that the issuer does not verify'],
  ].find(([differs]) => differs === true);
  if (difference)
    return problem(
      'CertificateMismatch',
      `the signed intermediate has ${String(difference[1])}; nothing was installed`,
    );
  // Vault counts a TTL by its own clock, so the lifetime is compared, not an expiry computed with the local clock.
  const wanted = step.notAfter === undefined ? cert.notBefore + spec.ttl * 1000 : Date.parse(step.notAfter);
  if (cert.notAfter < wanted) {
    return problem(
      'TTLTruncated',
      `spec.intermediate.ttl: Vault cut the certificate's end from ${new Date(wanted).toISOString()} to ${new Date(cert.notAfter).toISOString()}; raise max_lease_ttl of the root mount. Nothing was installed`,
    );
  }
  return undefined;
}

/**
 * Makes a certificate signing request for the staged key.
 * @throws ProblemError if the key in the mount is another one
 */
async function csrOf(
  { client, desired }: ExecuteContext,
  key: Secret,
  { keyId, spec }: { keyId: string; spec: IntermediateSpec },
): Promise<string> {
  const { mount } = desired.spec.intermediate;
  const csr = await pki.csrForKey(client, mount, keyId, spec);
  if (csrCarriesKey(csr, key.reveal())) return csr;
  const message = `key ${keyId} of ${mount} is not the staged one, somebody else imported it; delete it there. Nothing was signed`;
  throw new ProblemError({ condition: 'IntermediateReady', reason: 'CertificateMismatch', message, blocks: 'all' });
}

/** The maximum TTL of the mount that signs, in seconds; undefined: others own it and do not show it. */
async function signingLimit({ client, desired }: ExecuteContext): Promise<number | undefined> {
  const { mount } = desired.spec.root;
  const isOwn = rootSourceOf(desired.spec) === 'Generate';
  return isOwn ? await readMaxLeaseTtl(client, mount) : await readVisibleMaxLeaseTtl(client, mount);
}

/** The certificate of the issuer that signs; undefined: the issuer does not exist. */
async function readSigner({ client, desired }: ExecuteContext, id: string): Promise<CertificateFacts | undefined> {
  const { mount } = desired.spec.root;
  if (rootSourceOf(desired.spec) !== 'Generate') return (await pki.readPublicIssuer(client, mount, id))?.certificate;
  return certificateFacts((await pki.readChain(client, mount, id))[0] ?? '');
}

/**
 * Makes the certificate signing request of a staged key and stores it beside the key, so that it stays the same as long as it waits for a signature.
 * @throws ProblemError if the key in the mount is another one
 * @throws VaultError of kind `CheckAndSet` if the staging entry changed
 */
export async function recordCsr(ctx: ExecuteContext, step: StepOf<'RecordCSR'>): Promise<void> {
  const place = kvPlace(ctx.desired, '-staging');
  const entry = await readKv(ctx.client, place);
  const key = keyOf(ctx.desired.identity, entry, step.generation);
  if (!key || !entry.data) throw moved('the staging entry');
  const csr = await csrOf(ctx, key, step);
  await writeKv(ctx.client, place, withCsr(entry.data, csr, rfc3339(ctx.now())), step.cas);
}

/**
 * Installs a certificate that was signed outside of Vault, with the CAs above it.
 * @throws VaultError of kind `CheckAndSet` if the certificate is not for the staged key
 */
export async function installSigned(ctx: ExecuteContext, step: StepOf<'InstallSigned'>): Promise<void> {
  const key = await storedKey(ctx, 'staging', step.generation);
  const [leaf = ''] = step.chain;
  if (certificateFacts(leaf)?.publicKey !== publicKeyOfPrivate(key.reveal())) throw moved('the staged key');
  await pki.setSigned(ctx.client, step.mount, step.chain);
  if (step.notAfter !== undefined)
    ctx.notice(
      'IntermediateShortened',
      `the signed certificate ends on ${step.notAfter}, sooner than spec.intermediate.ttl asks for`,
    );
}

/**
 * Signs the staged key with the root, compares the certificate with the request, and installs it in the intermediate mount.
 * @throws ProblemError if the key in the mount is another one, or if Vault would return or returned another certificate than requested
 * @throws VaultError
 */
export async function signIntermediate(ctx: ExecuteContext, step: StepOf<'SignIntermediate'>): Promise<void> {
  const { client, desired } = ctx;
  const { mount } = desired.spec.intermediate;
  const key = await storedKey(ctx, 'staging', step.generation);
  const [limit, csr, signer] = await Promise.all([
    signingLimit(ctx),
    csrOf(ctx, key, step),
    readSigner(ctx, step.rootIssuerId),
  ]);
  const publicKey = publicKeyOfPrivate(key.reveal()) ?? '';
  if (!signer) throw moved('the issuer that signs');
  // Vault truncates a TTL to the limit of the signing mount without an error. It does not truncate a requested `not_after`.
  if (step.notAfter === undefined && limit !== undefined && limit < step.spec.ttl) {
    const message = `max_lease_ttl of ${desired.spec.root.mount} is ${limit} s, less than the ${step.spec.ttl} s asked for; raise it. Nothing was signed`;
    throw new ProblemError({
      condition: 'IntermediateReady',
      reason: 'TTLTruncated',
      message: `spec.intermediate.ttl: ${message}`,
      blocks: 'all',
    });
  }
  const chain = await pki.signIntermediate(
    client,
    desired.spec.root.mount,
    step.rootIssuerId,
    csr,
    step.spec,
    step.notAfter,
  );
  const problem = mismatch(certificateFacts(chain[0] ?? ''), signer, publicKey, step);
  if (problem) throw new ProblemError(problem);
  if (step.notAfter !== undefined) {
    ctx.notice(
      'IntermediateShortened',
      `the root ends on ${step.notAfter}, before spec.intermediate.ttl would: the intermediate ends with it`,
    );
  }
  await pki.setSigned(client, mount, chain);
}

/** Whether lists, if there are any, are complete for a certificate and the CAs above it: istiod refuses the files otherwise, or exits. */
function coversChain(lists: string, path: readonly CertificateFacts[]): boolean {
  if (lists === '') return true;
  const parsed = listsIn(lists);
  return path.every((ca) => parsed.some((list) => isListOf(list, ca)));
}

/**
 * Publishes a CA: writes the files of istiod to the CA entry in one write. Certificate and chain come from the intermediate mount, the
 * key from its entry, the roots from the step.
 * @throws VaultError of kind `CheckAndSet` if key, certificate and roots do not match, or if the CA entry changed
 */
export async function publishLive(ctx: ExecuteContext, step: StepOf<'PublishLive'>): Promise<void> {
  const { client, desired } = ctx;
  const { intermediate, delivery, keyStore } = desired.spec;
  const [key, signed] = await Promise.all([
    step.from === 'adopted' ? adoptedKey(ctx) : storedKey(ctx, step.from, step.generation),
    step.chain ?? pki.readChain(client, intermediate.mount, step.issuerId),
  ]);
  const cert = certificateFacts(signed[0] ?? '');
  const root = step.roots.join('');
  const path = cert && pathTo(cert, bundleFacts(signed.join('')), bundleFacts(root));
  if (!cert || !path) throw moved('the issuer');
  if (cert.publicKey !== publicKeyOfPrivate(key.reveal())) throw moved('the key of the issuer');
  const lists = step.lists.join('');
  if (!coversChain(lists, path)) throw moved('the revocation lists');
  const { keyRef, listsSince } = step;
  const imported = step.chain !== undefined;
  const files = { certificate: cert.pem, chain: signed.join(''), root, key: forIstiod(key), lists };
  const content = { ...files, listsSince, keyRef, imported };
  const data = caEntryData(step.mark, step.generation, content, keyStore.version);
  await writeKv(client, kvPlace(desired, ''), data, step.cas);
  if (step.listsEnd !== undefined) ctx.notice('CRLWithdrawn', keptLists(step.listsEnd));
  // With `PKI` delivery, istiod's certificate and key come from two paths; both writes follow each other immediately.
  if (delivery.source === 'PKI') await pki.setDefaultIssuer(client, intermediate.mount, step.issuerId);
}

/** Reads the key of a CA entry that is being adopted. @throws VaultError of kind `CheckAndSet` if the entry does not exist */
async function adoptedKey({ client, desired }: ExecuteContext): Promise<Secret> {
  const key = foreignKeyOf(await readKv(client, kvPlace(desired, '')));
  if (!key) throw moved('the CA entry');
  return key;
}

/**
 * Removes unused issuers and keys. Another operator can have staged or published a key since the observation, so both entries are read again.
 * @throws VaultError of kind `CheckAndSet` if one of the issuers or keys is in use
 */
export async function collect(ctx: ExecuteContext, step: StepOf<'Collect'>): Promise<void> {
  const { client, desired } = ctx;
  const [caEntry, staging, mount] = await Promise.all([
    readKv(client, kvPlace(desired, '')),
    readKv(client, kvPlace(desired, '-staging')),
    pki.readPki(client, step.mount),
  ]);
  const entry = parseLive(desired.identity, caEntry).entry;
  const ca = entry === 'foreign' ? undefined : entry;
  const inUse = mount.issuers.some(
    (issuer) =>
      (step.issuerIds.includes(issuer.id) && issuer.certificate.fingerprint === ca?.certificate?.fingerprint) ||
      (step.keyIds.includes(issuer.keyId) && issuer.certificate.publicKey === ca?.publicKey),
  );
  // One of the keys can be the staged one, which has no issuer yet.
  if (inUse || (step.keyIds.length > 0 && staging.data !== undefined)) throw moved('what was to be collected');
  await pki.removeParts(client, step.mount, step.issuerIds, step.keyIds);
}

/**
 * Restores the issuer of the CA entry in a mount that still has its key.
 * @throws VaultError of kind `CheckAndSet` if this resource does not own the entry, or if it has another CA generation
 */
export async function installCertificate(ctx: ExecuteContext, step: StepOf<'InstallCertificate'>): Promise<void> {
  const entry = await readKv(ctx.client, kvPlace(ctx.desired, ''));
  const ca = parseLive(ctx.desired.identity, entry).entry;
  if (ca === undefined || ca === 'foreign' || ca.generation !== step.generation) throw moved('the CA entry');
  await pki.setSigned(ctx.client, step.mount, [ca.chain]);
}
