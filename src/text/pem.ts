/** PEM blocks in texts from elsewhere: trust bundles of ConfigMaps, chains and keys of a key store. */

/** The label of the PEM blocks of certificates: RFC 7468, section 5. */
const certificateLabel = 'CERTIFICATE';
/** The label of the PEM blocks of revocation lists: RFC 7468, section 6. */
export const crlLabel = 'X509 CRL';

/** Limits of a bundle that is read. */
export interface PemLimits {
  /** Maximum length of the text that is looked at, in UTF-16 code units. */
  longest: number;
  /** Maximum number of certificates. */
  most: number;
}

/** Far more than a trust bundle of a mesh has: istiod publishes a few roots, and public ones would be some 150. */
export const pemLimits: PemLimits = { longest: 512 * 1024, most: 300 };

/**
 * Splits a PEM bundle into the blocks of one label, by default certificates, each ending in a newline. What is beyond the limits is not read,
 * as if it were not there: a root that is missing can only stop an action, never start one.
 */
export function splitPem(bundle: string, { longest, most }: PemLimits = pemLimits, label = certificateLabel): string[] {
  const begin = `-----BEGIN ${label}-----`;
  const end = `-----END ${label}-----`;
  const text = bundle.slice(0, longest);
  const blocks: string[] = [];
  for (let at = 0; blocks.length < most;) {
    const start = text.indexOf(begin, at);
    const stop = start < 0 ? -1 : text.indexOf(end, start + begin.length);
    if (stop < 0) break;
    at = stop + end.length;
    blocks.push(`${text.slice(start, at)}\n`);
  }
  return blocks;
}
