/** What the content of a CA entry shows by itself: whether it is valid, and its digest. Pure. */
import { createHash } from 'node:crypto';
import { bundleFacts } from './certificate.ts';
import { pathTo } from './certificate-path.ts';
import type { CaEntry } from './observed.ts';

/** Why the content of a CA entry is not valid; undefined: it is valid, or there is no entry. */
export function caEntryDefect(entry: CaEntry | undefined): string | undefined {
  if (!entry) return undefined;
  const { certificate } = entry;
  if (!certificate) return 'ca-cert.pem is not a certificate';
  if (entry.publicKey === undefined) return 'ca-key.pem is not a private key';
  if (entry.publicKey !== certificate.publicKey) return 'ca-key.pem is not the key of ca-cert.pem';
  const [first] = bundleFacts(entry.chain);
  if (first?.fingerprint !== certificate.fingerprint) return 'cert-chain.pem does not begin with ca-cert.pem';
  if (!pathTo(certificate, bundleFacts(entry.chain), bundleFacts(entry.root))) {
    return 'ca-cert.pem is not signed by a root of root-cert.pem, nor by CAs of cert-chain.pem that are';
  }
  return undefined;
}

/** Digest of the public files of a CA entry (certificate, chain and roots): SHA-256, 64 lower-case hex digits. */
export function caDigest(entry: CaEntry): string {
  return createHash('sha256')
    .update([entry.certificate?.pem ?? '', entry.chain, entry.root].join('\n'))
    .digest('hex');
}
