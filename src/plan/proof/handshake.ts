/** Evaluates a TLS handshake with an istiod replica: compares the certificates that it serves with the current CA. Pure. */
import { caDigest } from '../facts/ca-entry.ts';
import { derivedOnce } from '../facts/derived.ts';
import type { DerivedVault } from '../facts/derived-vault.ts';
import { rfc3339 } from '../../api/time.ts';
import { bundleFacts, isSignedBy, signedPath, type CertificateFacts } from '../facts/certificate.ts';
import { pathTo } from '../facts/certificate-path.ts';
import { hasDigest } from '../control-plane/istiod-fields.ts';
import type { IstiodPod, Served, Unreachable } from '../facts/observed-istiod.ts';

const day = (ms: number) => rfc3339(ms).slice(0, 10);

/** The CA that a replica is expected to serve. */
export interface ExpectedCa {
  /** The intermediate of the current CA (ca-cert.pem). */
  intermediate: CertificateFacts;
  /** CA generation of that intermediate. */
  generation: number;
  /** Roots of root-cert.pem. */
  roots: CertificateFacts[];
  /** The path from the intermediate up to the root that it leads to: the last one, which can be the intermediate itself. Empty: it leads to none. */
  path: CertificateFacts[];
  /** Value of annotation `istiovaultca.io/ca-digest` on the Pod template; `undefined`: the spec sets no digest (`hasDigest`). */
  digest: string | undefined;
  /** Every intermediate of this CA, current and earlier ones; `generation` is `undefined` if it is unknown. */
  intermediates: { certificate: CertificateFacts; generation: number | undefined }[];
  /** Every root of this CA, current and earlier ones. */
  ownRoots: CertificateFacts[];
}

/** The current CA with all earlier certificates of this CA; `undefined`: there is no valid CA. */
export const expectedCa = derivedOnce((s: DerivedVault): ExpectedCa | undefined => {
  const ca = s.currentCa;
  if (!ca) return undefined;
  const roots = bundleFacts(ca.root);
  return {
    intermediate: ca.certificate,
    generation: ca.generation,
    roots,
    path: pathTo(ca.certificate, bundleFacts(ca.chain), roots) ?? [],
    digest: hasDigest(s.spec) ? caDigest(ca) : undefined,
    intermediates: [
      { certificate: ca.certificate, generation: ca.generation },
      ...s.ownIntermediates.map(({ certificate, generation }) => ({ certificate, generation })),
    ],
    ownRoots: [...roots, ...s.ownRoots.map((issuer) => issuer.certificate)],
  };
});

/**
 * Result of a handshake. `Proven`: the replica serves the current CA. `Stale`: the certificates are of this CA, but outdated, inconsistent
 * or expired. `Foreign`: another CA issued the certificate. `seen` describes the served certificates.
 */
export type HandshakeResult =
  | { kind: 'Proven' }
  | { kind: 'Stale'; reason: 'OlderIntermediate' | 'OtherRoot' | 'ChainMismatch' | 'CertificateExpired'; seen: string }
  | { kind: 'Foreign'; seen: string };

/** Whether a handshake with the replica succeeded. */
export const isServed = <T extends Served>(served: T | Unreachable | undefined): served is T =>
  served !== undefined && 'leaf' in served;

/** The certificate that shows with which CA a replica signs: one that it signed on request, else the one that it serves. */
export const evidenceOf = (pod: IstiodPod): Served | undefined => {
  const evidence = isServed(pod.signed) ? pod.signed : pod.served;
  return isServed(evidence) ? evidence : undefined;
};

/**
 * The certificate that a replica serves is under a root of this CA and does not show with which CA the replica signs: it has the argument
 * `--tlsCertFile`, or no intermediate of this CA signed the certificate, which can be that of Secret `istiod-tls`. Only a certificate that the
 * replica signs shows its CA. The replica can be asked if a root of the present bundle vouches for it.
 */
export function hidesSigner({ served, tlsCertFile }: IstiodPod, s: DerivedVault): boolean {
  const ca = expectedCa(s);
  if (!ca || !isServed(served)) return false;
  const { leaf, chain } = served;
  const top = signedPath(leaf, chain).at(-1) ?? leaf;
  const roots = tlsCertFile ? ca.ownRoots : ca.roots;
  const isVouchedFor = roots.some((root) => root.fingerprint === top.fingerprint || isSignedBy(top, root));
  return isVouchedFor && (tlsCertFile || !ca.intermediates.some(({ certificate }) => isSignedBy(leaf, certificate)));
}

/** It is not known with which CA a replica signs: its handshake does not show it, and it has signed no certificate on request. */
export const isSignerUnknown = (pod: IstiodPod, s: DerivedVault): boolean =>
  !isServed(pod.signed) && hidesSigner(pod, s);

/** Returns the intermediate that signed the leaf; `undefined`: the replica did not send it. */
export const issuerOfLeaf = ({ leaf, chain }: Served): CertificateFacts | undefined => signedPath(leaf, chain)[1];

/**
 * Evaluates the certificates that a replica serves, or one that it signed on request with what came along. For `Proven`, the current intermediate must have signed the leaf, and the replica must
 * send that intermediate. A root of the current trust bundle must have signed the intermediate. None of the three may have expired.
 * @param now milliseconds since the epoch
 */
export function evaluateHandshake(served: Served, ca: ExpectedCa, now: number): HandshakeResult {
  const { leaf, chain } = served;
  const shows = 'roots' in served ? 'asked for one, it signed a certificate' : 'it serves a certificate';
  const sends = (certificate: CertificateFacts) => chain.some((c) => c.fingerprint === certificate.fingerprint);
  const root = ca.path.at(-1);
  const sendsAll = [ca.intermediate, ...ca.path.slice(1, -1)].every(sends);
  if (isSignedBy(leaf, ca.intermediate) && root && sendsAll) {
    // a certificate that was signed just now lives for a minute, by the clock of istiod
    const lasting = 'roots' in served ? [] : [leaf];
    const expired = [...lasting, ...ca.path].find((certificate) => certificate.notAfter <= now);
    if (!expired) return { kind: 'Proven' };
    return {
      kind: 'Stale',
      reason: 'CertificateExpired',
      seen: `a certificate of its chain has run out on ${day(expired.notAfter)}`,
    };
  }
  const older = ca.intermediates.find(
    ({ certificate: c }) => c.fingerprint !== ca.intermediate.fingerprint && isSignedBy(leaf, c) && sends(c),
  );
  if (older) {
    const which =
      older.generation === undefined ? 'an older intermediate' : `the intermediate of generation ${older.generation}`;
    return {
      kind: 'Stale',
      reason: 'OlderIntermediate',
      seen: `${shows} of ${which}, live is generation ${ca.generation}`,
    };
  }
  if (isSignedBy(leaf, ca.intermediate))
    return {
      kind: 'Stale',
      reason: 'ChainMismatch',
      seen: 'its certificate is of the live intermediate, but that, or a CA above it, does not come along: cert-chain.pem is of another generation',
    };
  const top = signedPath(leaf, chain).at(-1) ?? leaf;
  const ownRoot = ca.ownRoots.find((r) => r.fingerprint === top.fingerprint || isSignedBy(top, r));
  if (ownRoot) {
    const trusted = ca.roots.some((r) => r.fingerprint === ownRoot.fingerprint);
    return trusted
      ? {
          kind: 'Stale',
          reason: 'OlderIntermediate',
          seen: `${shows} of another intermediate under this root, live is generation ${ca.generation}`,
        }
      : {
          kind: 'Stale',
          reason: 'OtherRoot',
          seen: `${shows} under root ${ownRoot.serial.slice(0, 11)}…, which is this resource's and not the live one`,
        };
  }
  return {
    kind: 'Foreign',
    seen: `${shows} issued by "${served.issuer.slice(0, 200)}", which is not of this CA`,
  };
}
