/**
 * The steps of issuing, and of collecting what was issued: a key is stored before Vault acts on it, and every step reads again what it must not
 * trust. See docs/adr/0002.
 */
import { generateKeyPair } from 'node:crypto';
import { promisify } from 'node:util';
import {
  bundleFacts,
  certificateFacts,
  csrCarriesKey,
  isSignedBy,
  publicKeyOfPrivate,
  type CertificateFacts,
} from '../plan/facts/certificate.ts';
import type { Desired } from '../plan/facts/desired.ts';
import type { IntermediateSpec } from '../plan/facts/state-entry.ts';
import { ProblemError, type Problem } from '../plan/facts/problem.ts';
import type { Step } from '../plan/steps.ts';
import { Secret } from '../observability/secret.ts';
import type { VaultClient } from './client.ts';
import { foreignKeyOf, keyOf, liveData, parseLive, parseStaging, stagingData } from './entries.ts';
import { VaultError } from './errors.ts';
import { destroyKv, readKv, writeKv } from './kv.ts';
import { readMaxLeaseTtl } from './mounts.ts';
import { kvPlace } from './observe.ts';
import * as pki from './pki.ts';

export type StepOf<K extends Step['kind']> = Extract<Step, { kind: K }>;

/** What a step works with. */
export interface ExecuteContext {
  client: VaultClient;
  desired: Desired;
  /** The reviewer's token, where the spec names one. */
  reviewerJwt: () => Promise<Secret | undefined>;
  /** Something worth an event that only the doing shows. */
  notice: (reason: string, message: string) => void;
}

const generateKey = promisify(generateKeyPair);

/** PKCS1 for RSA and SEC1 for EC: what istiod and Vault's import both read. */
async function makeKey(spec: IntermediateSpec): Promise<Secret> {
  const { privateKey } =
    spec.keyType === 'rsa'
      ? await generateKey('rsa', { modulusLength: spec.keyBits })
      : await generateKey('ec', { namedCurve: spec.keyBits === 384 ? 'secp384r1' : 'prime256v1' });
  return new Secret(privateKey.export({ type: spec.keyType === 'rsa' ? 'pkcs1' : 'sec1', format: 'pem' }).toString());
}

/** What was planned for is not there any more: looked at anew at once. */
export const moved = (what: string): VaultError =>
  new VaultError('CheckAndSet', 'read', what, 0, 'changed meanwhile; looking again');

/** The staged or live key of a generation, read afresh. */
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

export async function stageKey(ctx: ExecuteContext, step: StepOf<'StageKey'>): Promise<void> {
  const place = kvPlace(ctx.desired, '-staging');
  const key = step.reuse === undefined ? await makeKey(step.spec) : await publishedKey(ctx);
  await writeKv(ctx.client, place, stagingData(ctx.desired.mark, step, key), step.cas);
}

/** The key of the live entry, whatever its generation. */
async function publishedKey({ client, desired }: ExecuteContext): Promise<Secret> {
  const entry = await readKv(client, kvPlace(desired, ''));
  const live = parseLive(desired.identity, entry).entry;
  const key = live && live !== 'foreign' ? keyOf(desired.identity, entry, live.generation) : undefined;
  if (!key) throw moved('the live entry');
  return key;
}

/** KV 2 destroys exactly the version that was seen; KV 1 has no versions, so what stands there is looked at once more. */
export async function removeStaging(ctx: ExecuteContext, step: StepOf<'RemoveStaging'>): Promise<void> {
  const place = kvPlace(ctx.desired, '-staging');
  if (place.version === 1 && step.left === undefined) await storedKey(ctx, 'staging', step.generation);
  if (place.version === 1 && step.left !== undefined) {
    const { mark } = parseStaging(ctx.desired.identity, await readKv(ctx.client, place));
    if (mark !== step.left) throw moved('the staging entry');
  }
  await destroyKv(ctx.client, place, step.version);
}

/** What a signed certificate must be; else it is not installed. */
function mismatch(
  cert: CertificateFacts | undefined,
  root: CertificateFacts,
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
  const wrong = [
    [cert.publicKey !== publicKey, 'another public key than the staged one'],
    [!cert.isCa, 'no CA certificate'],
    [!cert.canSignCertificates, 'a key usage without certificate signing'],
    [
      cert.maxPathLength !== spec.maxPathLength,
      `path length ${cert.maxPathLength ?? 'unlimited'} instead of ${spec.maxPathLength}`,
    ],
    [!isSignedBy(cert, root), 'a signature that the root does not verify'],
  ].find(([bad]) => bad === true);
  if (wrong)
    return problem('CertificateMismatch', `the signed intermediate has ${String(wrong[1])}; nothing was installed`);
  // a ttl is counted by Vault's clock: what is compared is the life it gave, not an end by ours
  const wanted = step.notAfter === undefined ? cert.notBefore + spec.ttl * 1000 : Date.parse(step.notAfter);
  if (cert.notAfter < wanted) {
    return problem(
      'TTLTruncated',
      `spec.intermediate.ttl: Vault cut the certificate's end from ${new Date(wanted).toISOString()} to ${new Date(cert.notAfter).toISOString()}; raise max_lease_ttl of the root mount. Nothing was installed`,
    );
  }
  return undefined;
}

export async function signIntermediate(ctx: ExecuteContext, step: StepOf<'SignIntermediate'>): Promise<void> {
  const { client, desired } = ctx;
  const { mount } = desired.spec.intermediate;
  const key = await storedKey(ctx, 'staging', step.generation);
  const [limit, csr, rootPki] = await Promise.all([
    readMaxLeaseTtl(client, desired.spec.root.mount),
    pki.csrForKey(client, mount, step.keyId, step.spec),
    pki.readChain(client, desired.spec.root.mount, step.rootIssuerId),
  ]);
  if (!csrCarriesKey(csr, key.reveal())) {
    const message = `key ${step.keyId} of ${mount} is not the staged one, somebody else imported it; delete it there. Nothing was signed`;
    throw new ProblemError({ condition: 'IntermediateReady', reason: 'CertificateMismatch', message, blocks: 'all' });
  }
  const publicKey = publicKeyOfPrivate(key.reveal()) ?? '';
  const root = certificateFacts(rootPki[0] ?? '');
  if (!root) throw moved('the root issuer');
  // Vault cuts a ttl to the signing mount's limit without an error; an end that is asked for by date it does not cut
  if (step.notAfter === undefined && limit < step.spec.ttl) {
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
  const problem = mismatch(certificateFacts(chain[0] ?? ''), root, publicKey, step);
  if (problem) throw new ProblemError(problem);
  if (step.notAfter !== undefined) {
    ctx.notice(
      'IntermediateShortened',
      `the root ends on ${step.notAfter}, before spec.intermediate.ttl would: the intermediate ends with it`,
    );
  }
  await pki.setSigned(client, mount, chain);
}

/** The four files, from the certificate and chain in the intermediate mount, the root, and the stored key: one write. */
export async function publishLive(ctx: ExecuteContext, step: StepOf<'PublishLive'>): Promise<void> {
  const { client, desired } = ctx;
  const { intermediate, delivery, keyStore } = desired.spec;
  const [key, signed] = await Promise.all([
    step.from === 'adopted' ? adoptedKey(ctx) : storedKey(ctx, step.from, step.generation),
    pki.readChain(client, intermediate.mount, step.issuerId),
  ]);
  const cert = certificateFacts(signed[0] ?? '');
  const root = step.roots.join('');
  if (!cert || !bundleFacts(root).some((one) => isSignedBy(cert, one))) throw moved('the issuer');
  if (cert.publicKey !== publicKeyOfPrivate(key.reveal())) throw moved('the key of the issuer');
  const { keyRef } = step;
  const files = { certificate: cert.pem, chain: signed.join(''), root, key, keyRef };
  const data = liveData(step.mark, step.generation, files, keyStore.version);
  await writeKv(client, kvPlace(desired, ''), data, step.cas);
  // PKI delivery reads certificate and key from two places: the second write follows the first at once
  if (delivery.source === 'PKI') await pki.setDefaultIssuer(client, intermediate.mount, step.issuerId);
}

async function adoptedKey({ client, desired }: ExecuteContext): Promise<Secret> {
  const key = foreignKeyOf(await readKv(client, kvPlace(desired, '')));
  if (!key) throw moved('the live entry');
  return key;
}

/**
 * Removes issuers and keys that nothing needs. Another operator may have staged or published since they were chosen, so both entries are
 * looked at once more.
 */
export async function collect(ctx: ExecuteContext, step: StepOf<'Collect'>): Promise<void> {
  const { client, desired } = ctx;
  const [live, staging, mount] = await Promise.all([
    readKv(client, kvPlace(desired, '')),
    readKv(client, kvPlace(desired, '-staging')),
    pki.readPki(client, step.mount),
  ]);
  const entry = parseLive(desired.identity, live).entry;
  const published = entry === 'foreign' ? undefined : entry;
  const inUse = mount.issuers.some(
    (issuer) =>
      (step.issuerIds.includes(issuer.id) && issuer.certificate.fingerprint === published?.certificate?.fingerprint) ||
      (step.keyIds.includes(issuer.keyId) && issuer.certificate.publicKey === published?.publicKey),
  );
  // a staged key may be one of these keys, not signed yet
  if (inUse || (step.keyIds.length > 0 && staging.data !== undefined)) throw moved('what was to be collected');
  await pki.removeParts(client, step.mount, step.issuerIds, step.keyIds);
}

/** Puts the published certificate back into a mount that has its key but lost its issuer. */
export async function installCertificate(ctx: ExecuteContext, step: StepOf<'InstallCertificate'>): Promise<void> {
  const entry = await readKv(ctx.client, kvPlace(ctx.desired, ''));
  const live = parseLive(ctx.desired.identity, entry).entry;
  if (live === undefined || live === 'foreign' || live.generation !== step.generation) throw moved('the live entry');
  await pki.setSigned(ctx.client, step.mount, [live.chain]);
}
