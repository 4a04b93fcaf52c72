/** What follows from an observation before anything is decided: which certificates are ours, which set is live and sound. */
import { createHash } from 'node:crypto';
import { bundleFacts, isSignedBy, type CertificateFacts } from './certificate.ts';
import type { Desired } from './desired.ts';
import { generationOf } from './identity.ts';
import { own, type Issuer, type LiveEntry, type Observed, type Pki } from './observed.ts';

/** An issuer of ours with its generation. */
export interface OwnIssuer extends Issuer {
  generation: number;
}

/** Issuers of ours in a mount, newest generation first; known by the name of their key. */
export function ownIssuers(d: Desired, tier: 'root' | 'intermediate', pki: Pki | undefined): OwnIssuer[] {
  return (pki?.issuers ?? [])
    .flatMap((issuer) => {
      const generation = generationOf(d.identity, tier, issuer.keyName);
      return generation === undefined ? [] : [{ ...issuer, generation }];
    })
    .sort((a, b) => b.generation - a.generation || b.certificate.notBefore - a.certificate.notBefore);
}

/** The root that signs: the newest of ours. */
export function currentRoot(d: Desired, o: Observed): OwnIssuer | undefined {
  return ownIssuers(d, 'root', o.vault.rootPki)[0];
}

/** The highest CA generation that any trace of ours shows. */
export function highestGeneration(d: Desired, o: Observed): number {
  const names = (o.vault.intermediatePki?.keys ?? []).map(
    (key) => generationOf(d.identity, 'intermediate', key.name) ?? 0,
  );
  return Math.max(
    0,
    own(o.vault.state)?.highestGeneration ?? 0,
    own(o.vault.live)?.generation ?? 0,
    own(o.vault.staging)?.generation ?? 0,
    ...names,
  );
}

/** Why the live set is not sound; undefined when it is (or when there is none). */
export function liveDefect(live: LiveEntry | undefined): string | undefined {
  if (!live) return undefined;
  if (!live.certificate) return 'ca-cert.pem is not a certificate';
  if (live.publicKey === undefined) return 'ca-key.pem is not a private key';
  if (live.publicKey !== live.certificate.publicKey) return 'ca-key.pem is not the key of ca-cert.pem';
  const [first] = bundleFacts(live.chain);
  if (first?.fingerprint !== live.certificate.fingerprint) return 'cert-chain.pem does not begin with ca-cert.pem';
  const certificate = live.certificate;
  if (!bundleFacts(live.root).some((root) => isSignedBy(certificate, root))) {
    return 'ca-cert.pem is not signed by a root of root-cert.pem';
  }
  return undefined;
}

/**
 * The live set, if it is sound and of this CA: a set that is only consistent in itself, under a root of somebody else, was put
 * there behind the operator's back.
 */
export function soundLive(
  d: Desired,
  o: Pick<Observed, 'vault'>,
): (LiveEntry & { certificate: CertificateFacts }) | undefined {
  const live = own(o.vault.live);
  if (!live?.certificate || liveDefect(live) !== undefined) return undefined;
  const { certificate } = live;
  const roots = ownIssuers(d, 'root', o.vault.rootPki);
  const ofThisCa = roots.length === 0 || roots.some((root) => isSignedBy(certificate, root.certificate));
  return ofThisCa ? { ...live, certificate } : undefined;
}

/** The issuer of the intermediate mount that carries the live certificate. */
export function issuerOf(
  live: { certificate: CertificateFacts } | undefined,
  o: Pick<Observed, 'vault'>,
): Issuer | undefined {
  const fingerprint = live?.certificate.fingerprint;
  return o.vault.intermediatePki?.issuers.find((issuer) => issuer.certificate.fingerprint === fingerprint);
}

/** Digest over what istiod serves: certificate, chain and roots, 64 hex digits. */
export function liveDigest(live: LiveEntry): string {
  return createHash('sha256')
    .update([live.certificate?.pem ?? '', live.chain, live.root].join('\n'))
    .digest('hex');
}
