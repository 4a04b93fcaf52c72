/**
 * Reads certificate revocation lists (CRLs, RFC 5280, section 5) with @peculiar/asn1-x509, and verifies their signatures with node:crypto.
 */
import { constants, createHash, verify, X509Certificate } from 'node:crypto';
import { AsnConvert, type OctetString } from '@peculiar/asn1-schema';
import {
  AuthorityKeyIdentifier,
  Certificate,
  CertificateList,
  type Extension,
  id_ce_authorityKeyIdentifier,
  id_ce_keyUsage,
  id_ce_subjectKeyIdentifier,
  KeyUsage,
  KeyUsageFlags,
  type Name,
  SubjectKeyIdentifier,
  Version,
} from '@peculiar/asn1-x509';
import { crlLabel, pemLimits, splitPem, type PemLimits } from '../../text/pem.ts';
import { colonHex, type CertificateFacts } from './certificate.ts';

export interface RevocationList {
  /** One PEM block ending in a newline, encoded again from its content: istiod refuses a block in which something else stands. */
  pem: string;
  /**
   * Whose list it is: see {@link caOf}.
   */
  ca: string;
  /** When the CA signed it, milliseconds since the epoch. */
  thisUpdate: number;
  /** From when on Envoy takes it, and every certificate of the CA, for invalid: milliseconds since the epoch; Infinity: it has no end. */
  nextUpdate: number;
  /** When each certificate on it was revoked, milliseconds since the epoch, by its serial number as in {@link CertificateFacts.serial}. */
  revoked: Readonly<Record<string, number>>;
  /** Why istiod or proxies cannot use it, as a clause about the list; absent: they can. */
  unfit?: string;
}

/** The longest list that is read, in UTF-16 code units: some 2,500 revoked certificates. A CA for intermediates revokes a few. */
export const longestList = 128 * 1024;

/** More lists than a CA entry of ours has: one for each root and intermediate that workloads can meet. */
const mostLists = 64;

/** What is read of a text by default. */
const limitsOfEntry: PemLimits = { longest: pemLimits.longest, most: mostLists };

/** Reads every list in a PEM text; the result omits blocks that cannot be parsed. */
export function listsIn(pemText: string, limits = limitsOfEntry): RevocationList[] {
  return splitPem(pemText, limits, crlLabel).flatMap((pem) => revocationList(pem) ?? []);
}

/** Parsed lists by PEM text: each iteration reads the same few. Public data only. */
const cache = new Map<string, RevocationList>();
const mostCached = 100;

/** Reads one PEM block; undefined: not a revocation list, or longer than `longestList`. */
export function revocationList(pem: string): RevocationList | undefined {
  if (pem.length > longestList) return undefined;
  const cached = cache.get(pem);
  if (cached) return cached;
  const list = parse(pem);
  if (!list) return undefined;
  if (cache.size >= mostCached) cache.clear();
  cache.set(pem, list);
  return list;
}

const derOf = (pem: string): Buffer => Buffer.from(pem.replace(/-----[^-]+-----|\s/g, ''), 'base64');

/** One PEM block of some DER, in lines of 64 characters as Go and OpenSSL write it. */
const pemOf = (der: Buffer): string =>
  [`-----BEGIN ${crlLabel}-----`, ...(der.toString('base64').match(/.{1,64}/g) ?? []), `-----END ${crlLabel}-----`, ''].join('\n'); // prettier-ignore

/** Whether bytes are one DER value and nothing behind it, which other readers than this one refuse: X.690, section 8.1.3. */
function isOneValue(der: Buffer): boolean {
  const first = der[1] ?? 0;
  const digits = first < 0x80 ? 0 : first & 0x7f;
  if (digits > 4 || der.length < 2 + digits) return false;
  return der.length === 2 + digits + (digits === 0 ? first : der.readUIntBE(2, digits));
}

function parse(text: string): RevocationList | undefined {
  const der = derOf(text);
  if (!isOneValue(der)) return undefined;
  const pem = pemOf(der);
  const decoded = decode(pem);
  try {
    return decoded && factsOf(pem, decoded);
  } catch {
    return undefined; // an extension that is damaged
  }
}

function decode(pem: string): CertificateList | undefined {
  try {
    return AsnConvert.parse(derOf(pem), CertificateList);
  } catch {
    return undefined; // callers treat the text like a missing list
  }
}

const hexOf = (bytes: ArrayBuffer): string => Buffer.from(bytes).toString('hex');

/** A serial number as node:crypto prints it: without the sign octet that DER puts before a number with its highest bit set. */
const serialOf = (bytes: ArrayBuffer): string => colonHex(hexOf(bytes).replace(/^(00)+(?=..)/, ''));

/** SHA-256 of the name and the key identifier of a CA, hex. */
const nameAndKey = (name: Name, keyId: OctetString | undefined): string =>
  createHash('sha256')
    .update(Buffer.from(AsnConvert.serialize(name)))
    .update(keyId ? Buffer.from(keyId.buffer) : '')
    .digest('hex');

/** Results of {@link caOf} by PEM text. Public data only. */
const caCache = new Map<string, string>();

/**
 * What a CA certificate has in common with its revocation lists, and with every other certificate for the same name and key: SHA-256 of both, hex. Of
 * a planned certificate, its fingerprint.
 */
export function caOf({ pem, fingerprint }: CertificateFacts): string {
  const cached = caCache.get(pem);
  if (cached !== undefined) return cached;
  const ca = parsedCaOf(pem) ?? fingerprint;
  if (caCache.size >= mostCached) caCache.clear();
  caCache.set(pem, ca);
  return ca;
}

function parsedCaOf(pem: string): string | undefined {
  try {
    const { subject, extensions } = AsnConvert.parse(derOf(pem), Certificate).tbsCertificate;
    const own = extensions?.find(({ extnID }) => extnID === id_ce_subjectKeyIdentifier)?.extnValue;
    return nameAndKey(subject, own && AsnConvert.parse(own, SubjectKeyIdentifier));
  } catch {
    return undefined; // a planned certificate
  }
}

const isCritical = ({ critical }: Extension): boolean => critical;

/**
 * Why istiod or Envoy cannot use a list. Go reads version 2 alone; a critical extension is one of a list of some certificates only, or of changes to
 * another list, which Envoy takes for no list of the CA.
 */
function unfitOf(
  { version, crlExtensions, nextUpdate, revokedCertificates }: CertificateList['tbsCertList'],
  hasKeyId: boolean,
): string | undefined {
  // prettier-ignore
  if (version !== Version.v2) return 'is of version 1, which istiod does not read: have it signed as version 2';
  if (!hasKeyId) return 'has no authority key identifier: have it signed with one (RFC 5280, section 5.2.1)';
  if (!nextUpdate) return 'does not say when it ends (nextUpdate)';
  const entries = (revokedCertificates ?? []).flatMap(({ crlEntryExtensions }) => crlEntryExtensions ?? []);
  if ([...(crlExtensions ?? []), ...entries].some(isCritical))
    return 'has a critical extension: it is a list of some certificates only, or a delta of another list';
  return undefined;
}

function factsOf(pem: string, { tbsCertList: list }: CertificateList): RevocationList {
  const authority = list.crlExtensions?.find(({ extnID }) => extnID === id_ce_authorityKeyIdentifier)?.extnValue;
  const keyId = authority && AsnConvert.parse(authority, AuthorityKeyIdentifier).keyIdentifier;
  const unfit = unfitOf(list, keyId !== undefined);
  return {
    pem,
    ca: nameAndKey(list.issuer, keyId),
    ...(unfit === undefined ? {} : { unfit }),
    thisUpdate: list.thisUpdate.getTime().getTime(),
    nextUpdate: list.nextUpdate?.getTime().getTime() ?? Infinity,
    revoked: Object.fromEntries(
      (list.revokedCertificates ?? []).map((one) => [
        serialOf(one.userCertificate),
        one.revocationDate.getTime().getTime(),
      ]),
    ),
  };
}

const sha = { sha256: 'sha256', sha384: 'sha384', sha512: 'sha512' } as const;

/**
 * Hashes by signature algorithm: RFC 4055, section 5, and RFC 5758, section 3.2. RSASSA-PSS names its hash in parameters, so each one is tried.
 */
const hashes: Readonly<Record<string, readonly string[]>> = {
  '1.2.840.113549.1.1.11': [sha.sha256],
  '1.2.840.113549.1.1.12': [sha.sha384],
  '1.2.840.113549.1.1.13': [sha.sha512],
  '1.2.840.10045.4.3.2': [sha.sha256],
  '1.2.840.10045.4.3.3': [sha.sha384],
  '1.2.840.10045.4.3.4': [sha.sha512],
  '1.2.840.113549.1.1.10': Object.values(sha),
};
const rsaPss = '1.2.840.113549.1.1.10';

/** Whether a CA may sign lists. Without a key usage extension it may: RFC 5280, section 4.2.1.3. @throws if the certificate cannot be parsed */
function mayUseKeyForLists(ca: CertificateFacts): boolean {
  const { extensions } = AsnConvert.parse(derOf(ca.pem), Certificate).tbsCertificate;
  const usage = extensions?.find(({ extnID }) => extnID === id_ce_keyUsage)?.extnValue;
  return !usage || (AsnConvert.parse(usage, KeyUsage).toNumber() & KeyUsageFlags.cRLSign) !== 0;
}

/** Whether the key usage of a CA permits lists (cRLSign): istiod and proxies take none of a CA without it. */
export function maySignLists(ca: CertificateFacts): boolean {
  try {
    return mayUseKeyForLists(ca);
  } catch {
    return true; // a planned certificate
  }
}

const plannedText = 'planned list of ';

/** Results of {@link isListOf}, by the PEM of the list, then of the CA: the same few pairs are verified in each iteration. Public data only. */
const verified = new Map<string, Map<string, boolean>>();

/** Whether a CA signed a list, and its key usage permits that. The names count too: a proxy looks a list up by the name of the CA. */
export function isListOf(list: RevocationList, ca: CertificateFacts): boolean {
  // no list that was read has such a text
  if (list.pem.startsWith(plannedText)) return list.ca === ca.fingerprint;
  const known = verified.get(list.pem)?.get(ca.pem);
  if (known !== undefined) return known;
  const result = verifies(list, ca) && maySignLists(ca);
  if (verified.size >= mostCached) verified.clear();
  const ofList = verified.get(list.pem) ?? new Map<string, boolean>();
  verified.set(list.pem, ofList.set(ca.pem, result));
  return result;
}

function verifies(list: RevocationList, ca: CertificateFacts): boolean {
  const parsed = decode(list.pem);
  if (!parsed?.tbsCertListRaw) return false;
  const { tbsCertListRaw, tbsCertList, signature } = parsed;
  const algorithm = parsed.signatureAlgorithm.algorithm;
  const padding =
    algorithm === rsaPss
      ? { padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_AUTO }
      : {};
  try {
    const key = { key: new X509Certificate(ca.pem).publicKey, ...padding };
    const names = Buffer.from(AsnConvert.serialize(tbsCertList.issuer));
    return (
      derOf(ca.pem).includes(names) &&
      (hashes[algorithm] ?? []).some((hash) => verify(hash, Buffer.from(tbsCertListRaw), key, Buffer.from(signature)))
    );
  } catch {
    return false; // a signature that is damaged or of an unknown kind cannot be verified
  }
}

/**
 * A list that does not exist, of a planned certificate, for a dry run.
 * @param now milliseconds since the epoch
 * @param lifeMs time until it ends
 */
export const plannedList = (ca: CertificateFacts, now: number, lifeMs: number): RevocationList => ({
  pem: `${plannedText}${ca.fingerprint} at ${now}\n`,
  ca: ca.fingerprint,
  thisUpdate: now,
  nextUpdate: now + lifeMs,
  revoked: {},
});

/** A list that does not exist: a list signed again at another time. @param now milliseconds since the epoch */
export const plannedAgain = (list: RevocationList, now: number): RevocationList => ({
  ...list,
  pem: `${plannedText}${list.ca} at ${now}\n`,
  thisUpdate: now,
  nextUpdate: now + list.nextUpdate - list.thisUpdate,
});
