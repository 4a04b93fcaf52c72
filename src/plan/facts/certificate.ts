/**
 * Reads certificates and keys with node:crypto, and two extensions with @peculiar/asn1-x509. Returns public data only: of a private key, the
 * hash of its public half.
 */
import {
  createHash,
  createHmac,
  createPrivateKey,
  createPublicKey,
  randomBytes,
  X509Certificate,
  type KeyObject,
} from 'node:crypto';
import { AsnConvert } from '@peculiar/asn1-schema';
import {
  BasicConstraints,
  Certificate,
  type Extension,
  id_ce_basicConstraints,
  id_ce_keyUsage,
  KeyUsage,
  KeyUsageFlags,
} from '@peculiar/asn1-x509';
import { cut, printable } from '../../text/bounded.ts';
import { pemLimits, splitPem } from '../../text/pem.ts';

export interface CertificateFacts {
  /** One PEM block ending in a newline. */
  pem: string;
  /** Lower-case hex pairs with colons, as Vault prints serial numbers. */
  serial: string;
  /** SHA-256 of the DER, 64 lower-case hex digits. */
  fingerprint: string;
  /** SHA-256 of the SubjectPublicKeyInfo, 64 lower-case hex digits. Equal for a certificate and the key that it was issued for. */
  publicKey: string;
  /** Milliseconds since the epoch. */
  notBefore: number;
  /** Milliseconds since the epoch. */
  notAfter: number;
  /** An attribute that the subject does not have is empty. */
  subject: { commonName: string; organization: string };
  /** Subject and issuer have the same name, as in a root certificate. */
  selfIssued: boolean;
  isCa: boolean;
  /** Path length of the basic constraints; undefined: unlimited. */
  maxPathLength: number | undefined;
  canSignCertificates: boolean;
  keyType: 'rsa' | 'ec' | 'other';
  /** Size of the RSA modulus or of the curve; 0: unknown. */
  keyBits: number;
}

/** Whether istiod and Vault Agent can use a CA key of this kind: RSA of 2048 bits and more, P-256, P-384, P-521. */
export const hasSupportedKey = ({ keyType, keyBits }: Pick<CertificateFacts, 'keyType' | 'keyBits'>): boolean =>
  (keyType === 'rsa' && keyBits >= 2048) || (keyType === 'ec' && keyBits >= 256);

const curveBits: Record<string, number> = { prime256v1: 256, secp384r1: 384, secp521r1: 521 };

const spkiHash = (key: KeyObject): string =>
  createHash('sha256')
    .update(key.export({ type: 'spki', format: 'der' }))
    .digest('hex');

/** A serial number as Vault prints it: lower-case hex pairs with colons. @param hex its digits, without a sign octet */
export const colonHex = (hex: string): string =>
  (hex.length % 2 ? `0${hex}` : hex).toLowerCase().replace(/(..)(?=.)/g, '$1:');

/** The longest PEM text of one certificate or key that is parsed, in UTF-16 code units. A CA certificate has some 2 KiB. */
const longestPem = 32 * 1024;

function keyFacts(key: KeyObject): Pick<CertificateFacts, 'keyType' | 'keyBits'> {
  if (key.asymmetricKeyType === 'rsa') return { keyType: 'rsa', keyBits: key.asymmetricKeyDetails?.modulusLength ?? 0 };
  if (key.asymmetricKeyType === 'ec') {
    return { keyType: 'ec', keyBits: curveBits[key.asymmetricKeyDetails?.namedCurve ?? ''] ?? 0 };
  }
  return { keyType: 'other', keyBits: 0 };
}

/**
 * Basic constraints and key usage: RFC 5280, sections 4.2.1.9 and 4.2.1.3. A certificate without the key usage extension can be used for any
 * purpose.
 */
function caExtensions(der: Buffer): Pick<CertificateFacts, 'maxPathLength' | 'canSignCertificates'> {
  const extensions: Extension[] = Array.from(AsnConvert.parse(der, Certificate).tbsCertificate.extensions ?? []);
  const value = (id: string) => extensions.find((extension) => extension.extnID === id)?.extnValue;
  const basic = value(id_ce_basicConstraints);
  const usage = value(id_ce_keyUsage);
  return {
    maxPathLength: basic && AsnConvert.parse(basic, BasicConstraints).pathLenConstraint,
    canSignCertificates: !usage || (AsnConvert.parse(usage, KeyUsage).toNumber() & KeyUsageFlags.keyCertSign) !== 0,
  };
}

/** Value of one attribute of a subject, which node:crypto prints as lines such as `CN=…`; empty: the subject does not have the attribute. */
function attribute(subject: string | undefined, name: string): string {
  const line = subject?.split('\n').find((l) => l.startsWith(`${name}=`));
  return cut(printable(line?.slice(name.length + 1) ?? ''), longestName);
}

/** The longest attribute of a subject that is kept, in UTF-16 code units: more than RFC 5280 allows (`ub-common-name`, 64 characters). */
const longestName = 200;

/**
 * Reads the first certificate in a PEM text.
 * @returns undefined if the text contains no certificate, or the first one cannot be parsed
 */
export function certificateFacts(pemText: string): CertificateFacts | undefined {
  const [pem] = splitPem(pemText, { ...pemLimits, most: 1 });
  if (pem === undefined) return undefined;
  const cached = cache.get(pem);
  if (cached) return cached;
  const planned = plannedOf(pem);
  const facts = planned ? { ...planned.facts, pem } : parse(pem);
  if (!facts) return undefined;
  if (cache.size >= mostCached) cache.clear();
  cache.set(pem, facts);
  return facts;
}

/** Parsed certificates by PEM text: each iteration reads the same few certificates, and parsing is most of its work. Public data only. */
const cache = new Map<string, CertificateFacts>();
const mostCached = 500;

/** Largest RSA modulus and longest serial number that are read: whoever issues a certificate chooses how long it takes to verify. */
const mostRsaBits = 8192;
/** Largest public exponent; almost every key has 65537. */
const mostExponent = 2n ** 32n;
/** Longest serial number, in hex digits: RFC 5280, section 4.1.2.2, allows 20 octets. */
const longestSerial = 42;

/** Whether a certificate takes no more time and space than certificates do. */
function isReasonable({ publicKey, serialNumber }: X509Certificate): boolean {
  const { modulusLength = 0, publicExponent = 0n } = publicKey.asymmetricKeyDetails ?? {};
  return modulusLength <= mostRsaBits && publicExponent <= mostExponent && serialNumber.length <= longestSerial;
}

function factsOf(pem: string, cert: X509Certificate): CertificateFacts {
  // contrary to its types, node:crypto returns undefined for an empty subject, such as that of istiod's serving certificate
  const subject = (cert.subject as string | undefined) ?? '';
  return {
    pem,
    serial: colonHex(cert.serialNumber),
    fingerprint: createHash('sha256').update(cert.raw).digest('hex'),
    publicKey: spkiHash(cert.publicKey),
    notBefore: cert.validFromDate.getTime(),
    notAfter: cert.validToDate.getTime(),
    subject: { commonName: attribute(subject, 'CN'), organization: attribute(subject, 'O') },
    selfIssued: subject === ((cert.issuer as string | undefined) ?? ''),
    isCa: cert.ca,
    ...caExtensions(cert.raw),
    ...keyFacts(cert.publicKey),
  };
}

/** Parses one PEM block; undefined: not a certificate. node:crypto parses lazily, so reading the key or the extensions can fail too. */
function parse(pem: string): CertificateFacts | undefined {
  if (pem.length > longestPem) return undefined;
  try {
    const certificate = new X509Certificate(pem);
    return isReasonable(certificate) ? factsOf(pem, certificate) : undefined;
  } catch {
    return undefined; // callers treat the text like a missing certificate
  }
}

/** Reads every certificate in a PEM bundle; the result omits blocks that cannot be parsed. */
export function bundleFacts(bundle: string): CertificateFacts[] {
  return splitPem(bundle).flatMap((pem) => certificateFacts(pem) ?? []);
}

/**
 * The SHA-256 fingerprints of the certificates in a PEM bundle, 64 lower-case hex digits each, like `CertificateFacts.fingerprint`. Only
 * decodes: a block that is no certificate gives a fingerprint that no certificate has.
 */
export function bundleFingerprints(bundle: string): string[] {
  return splitPem(bundle).map((pem) => {
    const der = Buffer.from(pem.slice(pem.indexOf('\n'), pem.lastIndexOf('-----END')), 'base64');
    return plannedOf(pem)?.facts.fingerprint ?? createHash('sha256').update(der).digest('hex');
  });
}

/** SHA-256 of the SubjectPublicKeyInfo of a private key, hex; undefined: the text is not an unencrypted private key. */
export function publicKeyOfPrivate(pem: string): string | undefined {
  if (pem.length > longestPem) return undefined;
  try {
    return spkiHash(createPublicKey(createPrivateKey(pem)));
  } catch {
    return undefined; // a key that cannot be read matches no certificate
  }
}

/** Content of a planned certificate. */
interface Planned {
  facts: Omit<CertificateFacts, 'pem'>;
  /** Fingerprint of the certificate that would sign this one. */
  issuer: string;
}

/**
 * Creates a planned certificate: one that does not exist, for a dry run. Its PEM text contains its facts and an HMAC by a key of this
 * process, so a text from a server is never taken for a planned certificate.
 * @param issuer fingerprint of the certificate that would sign this one; undefined: self-signed
 */
export function plannedCertificate(
  about: Omit<CertificateFacts, 'pem' | 'serial' | 'fingerprint'>,
  issuer: string | undefined,
): CertificateFacts {
  const fingerprint = randomBytes(32).toString('hex');
  const serial = fingerprint.slice(0, 40).replace(/(..)(?=.)/g, '$1:');
  const facts = { ...about, serial, fingerprint };
  const planned: Planned = { facts, issuer: issuer ?? fingerprint };
  const text = Buffer.from(JSON.stringify(planned)).toString('base64');
  return { ...facts, pem: `-----BEGIN CERTIFICATE-----\nplanned ${text} ${hmacOf(text)}\n-----END CERTIFICATE-----\n` };
}

const hmacKey = randomBytes(32);
const hmacOf = (text: string): string => createHmac('sha256', hmacKey).update(text).digest('hex');

/** Content of a certificate of {@link plannedCertificate}; undefined: any other text. */
function plannedOf(pem: string): Planned | undefined {
  const [, text, hmac] = /^-----BEGIN CERTIFICATE-----\nplanned (\S+) (\S+)\n/.exec(pem) ?? [];
  if (text === undefined || hmac !== hmacOf(text)) return undefined;
  return JSON.parse(Buffer.from(text, 'base64').toString()) as Planned;
}

/** Whether `issuer` signed `subject`, by signature and names. The validity period does not count. */
export function isSignedBy(subject: CertificateFacts, issuer: CertificateFacts): boolean {
  const known = verified.get(subject.pem)?.get(issuer.pem);
  if (known !== undefined) return known;
  const result = verifies(subject, issuer);
  if (verified.size >= mostCached) verified.clear();
  const ofSubject = verified.get(subject.pem) ?? new Map<string, boolean>();
  verified.set(subject.pem, ofSubject.set(issuer.pem, result));
  return result;
}

/** Returns the path from a certificate upward, each signed by the next; other certificates of the chain are ignored. */
export function signedPath(leaf: CertificateFacts, chain: readonly CertificateFacts[]): CertificateFacts[] {
  const issuer = chain.find((one) => one.fingerprint !== leaf.fingerprint && isSignedBy(leaf, one));
  return issuer
    ? [
        leaf,
        ...signedPath(
          issuer,
          chain.filter((one) => one !== issuer),
        ),
      ]
    : [leaf];
}

/** Results of `isSignedBy`, by the PEM of the subject, then of the issuer: the same few pairs are verified many times in a reconcile. */
const verified = new Map<string, Map<string, boolean>>();

function verifies(subject: CertificateFacts, issuer: CertificateFacts): boolean {
  const planned = plannedOf(subject.pem);
  if (planned) return planned.issuer === issuer.fingerprint;
  if (plannedOf(issuer.pem)) return false;
  const child = new X509Certificate(subject.pem);
  const parent = new X509Certificate(issuer.pem);
  try {
    return child.checkIssued(parent) && child.verify(parent.publicKey);
  } catch {
    return false; // a signature that is damaged or of an unknown kind cannot be verified
  }
}

/** Hash functions of signatures that are broken, by the identifier of the signature: RFC 3279, section 2.2, and RFC 8017, appendix A.2.4. */
const brokenSignatures: Readonly<Record<string, string>> = {
  '1.2.840.113549.1.1.2': 'MD2',
  '1.2.840.113549.1.1.4': 'MD5',
  '1.2.840.113549.1.1.5': 'SHA-1',
  '1.3.14.3.2.29': 'SHA-1',
  '1.2.840.10045.4.1': 'SHA-1',
};

/** The broken hash function that a certificate is signed with: `MD2`, `MD5` or `SHA-1`; undefined: another one. @param pem one that could be parsed */
export function brokenHash(pem: string): string | undefined {
  if (plannedOf(pem)) return undefined;
  const { signatureAlgorithm } = AsnConvert.parse(new X509Certificate(pem).raw, Certificate);
  return brokenSignatures[signatureAlgorithm.algorithm];
}

/** Identifiers of the extended key usages of a certificate; undefined: it has no such extension. @param pem one that could be parsed */
export function extendedUsages(pem: string): string[] | undefined {
  if (plannedOf(pem)) return undefined;
  // contrary to its types, node:crypto returns undefined without the extension
  const usages: string[] | undefined = new X509Certificate(pem).keyUsage;
  return usages;
}

/** Whether a CSR is for a private key: the CSR contains the bytes of the key's SubjectPublicKeyInfo (RFC 2986, section 4.1). */
export function csrCarriesKey(csrPem: string, privateKeyPem: string): boolean {
  const der = Buffer.from(csrPem.replace(/-----[^-]+-----|\s/g, ''), 'base64');
  return der.includes(createPublicKey(createPrivateKey(privateKeyPem)).export({ type: 'spki', format: 'der' }));
}
