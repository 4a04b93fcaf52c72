/** Public facts of certificates and keys, by node:crypto and, for extensions, @peculiar/asn1-x509. Private keys come in and only their public half goes out. */
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

export interface CertificateFacts {
  /** One PEM block ending in a newline. */
  pem: string;
  /** Lower-case hex pairs with colons, as Vault prints it. */
  serial: string;
  /** SHA-256 of the DER, 64 lower-case hex digits. */
  fingerprint: string;
  /** SHA-256 of the SubjectPublicKeyInfo, hex: what ties a certificate to a key. */
  publicKey: string;
  /** Milliseconds since the epoch. */
  notBefore: number;
  notAfter: number;
  subject: { commonName: string; organization: string };
  /** Subject and issuer are the same name: a root. */
  selfIssued: boolean;
  isCa: boolean;
  /** basicConstraints path length; undefined when unlimited. */
  maxPathLength: number | undefined;
  canSignCertificates: boolean;
  keyType: 'rsa' | 'ec' | 'other';
  keyBits: number;
}

const curveBits: Record<string, number> = { prime256v1: 256, secp384r1: 384, secp521r1: 521 };

const spkiHash = (key: KeyObject): string =>
  createHash('sha256')
    .update(key.export({ type: 'spki', format: 'der' }))
    .digest('hex');

/** Splits a PEM bundle into certificate blocks, each ending in a newline. */
export function splitPem(bundle: string): string[] {
  return [...bundle.matchAll(/-----BEGIN CERTIFICATE-----[\s\S]*?-----END CERTIFICATE-----/g)].map(
    ([block]) => `${block}\n`,
  );
}

function keyFacts(key: KeyObject): Pick<CertificateFacts, 'keyType' | 'keyBits'> {
  if (key.asymmetricKeyType === 'rsa') return { keyType: 'rsa', keyBits: key.asymmetricKeyDetails?.modulusLength ?? 0 };
  if (key.asymmetricKeyType === 'ec') {
    return { keyType: 'ec', keyBits: curveBits[key.asymmetricKeyDetails?.namedCurve ?? ''] ?? 0 };
  }
  return { keyType: 'other', keyBits: 0 };
}

/** RFC 5280, 4.2.1.9 and 4.2.1.3; a certificate without key usage may be used for anything. */
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

/** One attribute of a subject as node:crypto prints it (`CN=…` lines); it gives undefined for a certificate without a subject. */
function attribute(subject: string | undefined, name: string): string {
  const line = subject?.split('\n').find((l) => l.startsWith(`${name}=`));
  return line?.slice(name.length + 1) ?? '';
}

/**
 * Facts of the first certificate in a PEM text.
 * @returns undefined when there is none or it cannot be parsed
 */
export function certificateFacts(pemText: string): CertificateFacts | undefined {
  const [pem] = splitPem(pemText);
  if (pem === undefined) return undefined;
  const seen = remembered.get(pem);
  if (seen) return seen;
  const planned = plannedOf(pem);
  const facts = planned ? { ...planned.facts, pem } : parse(pem);
  if (!facts) return undefined;
  if (remembered.size >= mostRemembered) remembered.clear();
  remembered.set(pem, facts);
  return facts;
}

/** Every round looks at the same few certificates again; parsing is most of its work. Public data only. */
const remembered = new Map<string, CertificateFacts>();
const mostRemembered = 500;

function factsOf(pem: string, cert: X509Certificate): CertificateFacts {
  // node:crypto gives undefined for an empty subject, such as that of istiod's own certificate, whatever its types say
  const subject = (cert.subject as string | undefined) ?? '';
  return {
    pem,
    serial: (cert.serialNumber.length % 2 ? `0${cert.serialNumber}` : cert.serialNumber)
      .toLowerCase()
      .replace(/(..)(?=.)/g, '$1:'),
    fingerprint: createHash('sha256').update(cert.raw).digest('hex'),
    publicKey: spkiHash(cert.publicKey),
    notBefore: cert.validFromDate.getTime(),
    notAfter: cert.validToDate.getTime(),
    subject: { commonName: attribute(subject, 'CN'), organization: attribute(subject, 'O') },
    selfIssued: subject === cert.issuer,
    isCa: cert.ca,
    ...caExtensions(cert.raw),
    ...keyFacts(cert.publicKey),
  };
}

/** node:crypto parses lazily: a damaged certificate fails only when its key or its extensions are looked at. */
function parse(pem: string): CertificateFacts | undefined {
  try {
    return factsOf(pem, new X509Certificate(pem));
  } catch {
    return undefined; // not a certificate: callers treat it like the absence of one, and say so
  }
}

/** Facts of every certificate in a PEM bundle; blocks that do not parse are left out. */
export function bundleFacts(bundle: string): CertificateFacts[] {
  return splitPem(bundle).flatMap((pem) => certificateFacts(pem) ?? []);
}

/** The hash of the public half of a private key; undefined when the text is not an unencrypted private key. */
export function publicKeyOfPrivate(pem: string): string | undefined {
  try {
    return spkiHash(createPublicKey(createPrivateKey(pem)));
  } catch {
    return undefined; // an unreadable key matches no certificate
  }
}

interface Planned {
  facts: Omit<CertificateFacts, 'pem'>;
  /** Fingerprint of the one that would sign it. */
  issuer: string;
}

/**
 * A certificate that does not exist, for looking ahead: its text carries its facts under a seal of this process, so no text that is read
 * from a server is ever taken for one.
 * @param issuer fingerprint of the one that would sign it; undefined: it signs itself
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
  return { ...facts, pem: `-----BEGIN CERTIFICATE-----\nplanned ${text} ${sealOf(text)}\n-----END CERTIFICATE-----\n` };
}

const sealKey = randomBytes(32);
const sealOf = (text: string): string => createHmac('sha256', sealKey).update(text).digest('hex');

/** What a certificate of {@link plannedCertificate} says; undefined for any other. */
function plannedOf(pem: string): Planned | undefined {
  const [, text, seal] = /^-----BEGIN CERTIFICATE-----\nplanned (\S+) (\S+)\n/.exec(pem) ?? [];
  if (text === undefined || seal !== sealOf(text)) return undefined;
  return JSON.parse(Buffer.from(text, 'base64').toString()) as Planned;
}

/** Whether `issuer` signed `subject` (signature and names; validity is judged elsewhere). */
export function isSignedBy(subject: CertificateFacts, issuer: CertificateFacts): boolean {
  const known = verified.get(subject.pem)?.get(issuer.pem);
  if (known !== undefined) return known;
  const result = verifies(subject, issuer);
  if (verified.size >= mostRemembered) verified.clear();
  const ofSubject = verified.get(subject.pem) ?? new Map<string, boolean>();
  verified.set(subject.pem, ofSubject.set(issuer.pem, result));
  return result;
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
    return false; // a signature of an unknown or damaged kind verifies nothing
  }
}

/** Whether a CSR is for the public half of a private key: it holds that key's SubjectPublicKeyInfo (RFC 2986, 4.1) byte by byte. */
export function csrCarriesKey(csrPem: string, privateKeyPem: string): boolean {
  const der = Buffer.from(csrPem.replace(/-----[^-]+-----|\s/g, ''), 'base64');
  return der.includes(createPublicKey(createPrivateKey(privateKeyPem)).export({ type: 'spki', format: 'der' }));
}
