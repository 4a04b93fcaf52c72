/** What disqualifies a certificate from being a CA of the mesh. Pure. */
import { rfc3339 } from '../../api/time.ts';
import { pathTo } from './certificate-path.ts';
import { brokenHash, extendedUsages, hasSupportedKey, type CertificateFacts } from './certificate.ts';

/** Names a certificate in a message. */
export const nameOfCertificate = ({ subject, serial, fingerprint }: CertificateFacts): string =>
  `"${subject.commonName || subject.organization}" (serial ${serial}, SHA-256 ${fingerprint})`;

/** Whether a certificate is a root: signed by its own key. */
export const isRoot = (certificate: CertificateFacts): boolean =>
  certificate.selfIssued && pathTo(certificate, [], [certificate]) !== undefined;

/** Tolerated difference between clocks, milliseconds. */
const skewMs = 5 * 60_000;

/** Why a certificate with the CAs above it cannot be a path of CAs: the first defect from below; undefined: it can. @param path the root last */
export const defectOfCas = (path: readonly CertificateFacts[], now: number): string | undefined =>
  path
    .map((certificate, below) => defectOfCa(certificate, below, path.length - 1, now))
    .find((defect) => defect !== undefined);

/** Why a certificate of a path cannot be in it; undefined: it can. @param below how many CAs of the path it is above */
function defectOfCa(certificate: CertificateFacts, below: number, top: number, now: number): string | undefined {
  const { isCa, canSignCertificates, maxPathLength, notBefore, notAfter } = certificate;
  const name = below === 0 ? 'it' : `${nameOfCertificate(certificate)} above it`;
  // node:crypto also takes one without that key usage for no CA
  if (!canSignCertificates) return `${name} has a key usage without certificate signing (keyCertSign)`;
  if (!isCa) return `${name} is no CA certificate (basicConstraints CA:TRUE)`;
  if (notBefore > now + skewMs) return `${name} is not valid before ${rfc3339(notBefore)}`;
  if (notAfter <= now) return `${name} has expired on ${rfc3339(notAfter)}`;
  if (below > 0 && maxPathLength !== undefined && maxPathLength < below)
    return `${name} has path length ${maxPathLength}, and ${below} CAs are below it`;
  if (!hasSupportedKey(certificate))
    return `${name} has a key that istiod does not take: RSA of 2048 bits and more, or P-256, P-384, P-521`;
  // nobody verifies the signature of a root: it is trusted itself
  const hash = below === top ? undefined : brokenHash(certificate.pem);
  if (hash !== undefined) return `${name} is signed with ${hash}, which is broken`;
  const usages = extendedUsages(certificate.pem);
  if (usages && !usages.includes(anyUsage) && !tlsUsages.every((usage) => usages.includes(usage)))
    return `${name} has an extended key usage without serverAuth and clientAuth, so that no workload certificate under it is taken`;
  return undefined;
}

/** RFC 5280, section 4.2.1.12. */
const anyUsage = '2.5.29.37.0';
const tlsUsages: readonly string[] = ['1.3.6.1.5.5.7.3.1', '1.3.6.1.5.5.7.3.2'];
