/** What the handshake with a replica proves: its chain against the live set. Pure. */
import { caDigest, derivedOnce, type DerivedVault } from '../facts/derived.ts';
import { rfc3339 } from '../../api/time.ts';
import { bundleFacts, isSignedBy, type CertificateFacts } from '../facts/certificate.ts';
import { hasDigest } from '../control-plane/istiod-fields.ts';
import type { Served } from '../facts/observed-istiod.ts';

const day = (ms: number) => rfc3339(ms).slice(0, 10);

/** What replicas are judged against. */
export interface ExpectedCa {
  live: CertificateFacts;
  generation: number;
  /** Those of root-cert.pem. */
  roots: CertificateFacts[];
  /** On the pod template; undefined with `rollout: Never`. */
  digest: string | undefined;
  /** Every intermediate and root of ours, also those that are not live any more. */
  intermediates: { certificate: CertificateFacts; generation: number | undefined }[];
  ownRoots: CertificateFacts[];
}

/** The live set and all that was ours before; undefined while none is sound. */
export const expectedCa = derivedOnce((s: DerivedVault): ExpectedCa | undefined => {
  const live = s.currentCa;
  if (!live) return undefined;
  const roots = bundleFacts(live.root);
  return {
    live: live.certificate,
    generation: live.generation,
    roots,
    digest: hasDigest(s.spec) ? caDigest(live) : undefined,
    intermediates: [
      { certificate: live.certificate, generation: live.generation },
      ...s.ownIntermediates.map(({ certificate, generation }) => ({ certificate, generation })),
    ],
    ownRoots: [...roots, ...s.ownRoots.map((issuer) => issuer.certificate)],
  };
});

/** What a handshake showed, against what is wanted. */
export type HandshakeResult =
  | { kind: 'Proven' }
  | { kind: 'Stale'; reason: 'OlderIntermediate' | 'OtherRoot' | 'ChainMismatch' | 'CertificateExpired'; seen: string }
  | { kind: 'Foreign'; seen: string };

/** The intermediate that signed what a replica serves, if it came along. */
export const issuerOfLeaf = ({ leaf, chain }: Pick<Served, 'leaf' | 'chain'>): CertificateFacts | undefined =>
  chain.find((one) => one.fingerprint !== leaf.fingerprint && isSignedBy(leaf, one));

/** The last certificate on the way from the leaf upwards, signature by signature: what else came along belongs to nothing. */
function topOf(leaf: CertificateFacts, chain: CertificateFacts[]): CertificateFacts {
  const issuer = issuerOfLeaf({ leaf, chain });
  const rest = chain.filter((one) => one !== issuer);
  return issuer ? topOf(issuer, rest) : leaf;
}

/**
 * Judges what a replica serves. Proven is only: the leaf is signed by exactly the live intermediate, which it sends along and which a root
 * of the live bundle has signed, and none of the three has run out.
 */
export function evaluateHandshake(served: Served, ca: ExpectedCa, now: number): HandshakeResult {
  const { leaf, chain } = served;
  const sends = (certificate: CertificateFacts) => chain.some((c) => c.fingerprint === certificate.fingerprint);
  const root = ca.roots.find((r) => isSignedBy(ca.live, r));
  if (isSignedBy(leaf, ca.live) && root && sends(ca.live)) {
    const over = [leaf, ca.live, root].find((certificate) => certificate.notAfter <= now);
    if (!over) return { kind: 'Proven' };
    return {
      kind: 'Stale',
      reason: 'CertificateExpired',
      seen: `a certificate of its chain has run out on ${day(over.notAfter)}`,
    };
  }
  const older = ca.intermediates.find(
    ({ certificate: c }) => c.fingerprint !== ca.live.fingerprint && isSignedBy(leaf, c) && sends(c),
  );
  if (older) {
    const which =
      older.generation === undefined ? 'an older intermediate' : `the intermediate of generation ${older.generation}`;
    return {
      kind: 'Stale',
      reason: 'OlderIntermediate',
      seen: `it serves a certificate of ${which}, live is generation ${ca.generation}`,
    };
  }
  if (isSignedBy(leaf, ca.live))
    return {
      kind: 'Stale',
      reason: 'ChainMismatch',
      seen: 'its certificate is of the live intermediate, but that does not come along: cert-chain.pem is of another generation',
    };
  const top = topOf(leaf, chain);
  const ours = ca.ownRoots.find((r) => r.fingerprint === top.fingerprint || isSignedBy(top, r));
  if (ours) {
    const trusted = ca.roots.some((r) => r.fingerprint === ours.fingerprint);
    return trusted
      ? {
          kind: 'Stale',
          reason: 'OlderIntermediate',
          seen: `it serves a certificate of another intermediate under this root, live is generation ${ca.generation}`,
        }
      : {
          kind: 'Stale',
          reason: 'OtherRoot',
          seen: `it serves a certificate under root ${ours.serial.slice(0, 11)}…, which is this resource's and not the live one`,
        };
  }
  return {
    kind: 'Foreign',
    seen: `it serves a certificate issued by "${served.issuer.slice(0, 200)}", which is not of this CA`,
  };
}
