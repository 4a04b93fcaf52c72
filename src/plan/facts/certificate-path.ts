/** Paths of signatures from a certificate up to a root, where CAs of others can stand between a root and the intermediate of a resource. Pure. */
import { isSignedBy, type CertificateFacts } from './certificate.ts';

/** Maximum number of certificates that a path is looked for in: a chain has a few, and each pair of them can cost a verification. */
const mostLookedAt = 50;

/**
 * Returns the shortest path from a certificate to a root, each signed by the next: the certificate itself, the CAs above it, and the root last. A
 * certificate that is one of the roots is a path of its own. Validity periods and path lengths do not count.
 * @param cas certificates that can stand between; the first 50 are looked at
 * @param roots the first one that a path of the same length leads to wins
 * @returns undefined: no path leads to one of the roots
 */
export function pathTo(
  leaf: CertificateFacts,
  cas: readonly CertificateFacts[],
  roots: readonly CertificateFacts[],
): CertificateFacts[] | undefined {
  const considered = cas.slice(0, mostLookedAt);
  const seen = new Set([leaf.fingerprint]);
  let paths = [[leaf]];
  while (paths.length > 0) {
    const longer: CertificateFacts[][] = [];
    for (const path of paths) {
      const last = path.at(-1) ?? leaf;
      const root = roots.find((one) => isSignedBy(last, one));
      if (root) return root.fingerprint === last.fingerprint ? path : [...path, root];
      for (const ca of considered) {
        if (seen.has(ca.fingerprint) || !isSignedBy(last, ca)) continue;
        seen.add(ca.fingerprint);
        longer.push([...path, ca]);
      }
    }
    paths = longer;
  }
  return undefined;
}

/** Whether a certificate is signed by a root, or by CAs that are. */
export const leadsTo = (leaf: CertificateFacts, cas: readonly CertificateFacts[], root: CertificateFacts): boolean =>
  pathTo(leaf, cas, [root]) !== undefined;
