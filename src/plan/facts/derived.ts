/** What follows from an observation before anything is decided: which certificates are ours, which set is live and sound. */
import { createHash } from 'node:crypto';
import { bundleFacts, isSignedBy, type CertificateFacts } from './certificate.ts';
import { renewBeforeMs, type Desired } from './desired.ts';
import { generationName, generationOf } from './identity.ts';
import { ownEntry, type Issuer, type CaEntry, type Observed, type ObservedVault, type Pki } from './observed.ts';

/** An issuer of ours with its generation. */
export interface OwnIssuer extends Issuer {
  generation: number;
}

type VaultOnly = Pick<Observed, 'vault'>;
type Tier = 'root' | 'intermediate';

/**
 * What makes an issuer ours besides the name of its key: the state records it, or the live entry carries it. So what was
 * taken over, and bears other names, is ours too.
 */
function recordedIssuers(tier: Tier, vault: ObservedVault): { fingerprints: Set<string>; generation: number } {
  const state = ownEntry(vault.state);
  const live = ownEntry(vault.live);
  const kind = tier === 'root' ? 'Root' : 'Intermediate';
  const history = (state?.history ?? []).filter((entry) => entry.kind === kind).map((entry) => entry.fingerprint);
  const recorded = [state?.[tier], tier === 'root' ? state?.rotation?.to : undefined].map(
    (one) => one?.fingerprint ?? '',
  );
  const published = tier === 'root' ? bundleFacts(live?.root ?? '') : live?.certificate ? [live.certificate] : [];
  return {
    fingerprints: new Set([...recorded, ...history, ...published.map((c) => c.fingerprint)]),
    generation: state?.[tier]?.generation ?? (tier === 'root' ? 1 : (live?.generation ?? 1)),
  };
}

/** Issuers of ours in the mount of a tier, newest generation first. */
export function ownIssuers(d: Desired, tier: Tier, vault: ObservedVault): OwnIssuer[] {
  const pki = tier === 'root' ? vault.rootPki : vault.intermediatePki;
  const recorded = recordedIssuers(tier, vault);
  return (pki?.issuers ?? [])
    .flatMap((issuer) => {
      const generation =
        generationOf(d.identity, tier, issuer.keyName) ??
        (recorded.fingerprints.has(issuer.certificate.fingerprint) ? recorded.generation : undefined);
      return generation === undefined ? [] : [{ ...issuer, generation }];
    })
    .sort((a, b) => b.generation - a.generation || b.certificate.notBefore - a.certificate.notBefore);
}

/** The highest number that a root of ours bears, or a key for one that was removed: none is given out twice. */
export function highestRootGeneration(d: Desired, { vault }: VaultOnly): number {
  const keys = (vault.rootPki?.keys ?? []).map((key) => generationOf(d.identity, 'root', key.name) ?? 0);
  return Math.max(0, ...ownIssuers(d, 'root', vault).map((issuer) => issuer.generation), ...keys);
}

/** What of the roots of this CA does what. */
export interface RootRoles {
  /** It signs intermediates; undefined: there is none, or it is lost. */
  signer: OwnIssuer | undefined;
  /**
   * Those that istiod hands out, in their order in root-cert.pem; undefined while one of them is not known. A root that is lost is trusted
   * as long as its phase says so: its certificate is in the live entry.
   */
  trusted: CertificateFacts[] | undefined;
}

/** A root of ours that was issued, where it lies in the mount. */
export const findRoot = (d: Desired, { vault }: VaultOnly, issued: { fingerprint?: string } | undefined) =>
  ownIssuers(d, 'root', vault).find(({ certificate }) => certificate.fingerprint === issued?.fingerprint);

/** The root that the state records, where it lies in the mount: during a rotation the one that it leads away from. */
export const recordedRoot = (d: Desired, o: VaultOnly): OwnIssuer | undefined =>
  findRoot(d, o, ownEntry(o.vault.state)?.root);

/**
 * The root that stands, outside of a rotation: the recorded one and no other, else one that was made since. When the memory is lost, the
 * one that the live certificate is signed by, and without that, the newest intermediate of ours: older roots, and such as were rolled back,
 * still lie in the mount.
 */
function rootOutsideRotation(d: Desired, { vault }: VaultOnly): OwnIssuer | undefined {
  const recorded = ownEntry(vault.state)?.root;
  if (recorded?.fingerprint !== undefined) return recordedRoot(d, { vault });
  const issuers = ownIssuers(d, 'root', vault);
  if (recorded) return issuers.find((issuer) => issuer.generation > recorded.generation);
  const signed = ownEntry(vault.live)?.certificate ?? ownIssuers(d, 'intermediate', vault)[0]?.certificate;
  return signed ? issuers.find((issuer) => isSignedBy(signed, issuer.certificate)) : issuers[0];
}

/** Which root signs and which are trusted, by the phase of a rotation where there is one. */
export function rootRoles(d: Desired, o: Observed): RootRoles {
  const from = rootOutsideRotation(d, o);
  const state = ownEntry(o.vault.state);
  const rotation = state?.rotation;
  if (!rotation) return { signer: from, trusted: from && [from.certificate] };
  const to = findRoot(d, o, rotation.to);
  const [signer, last] = rotation.back ? [from, state.root] : [to, rotation.to];
  const certificates = (...roots: ({ fingerprint?: string } | undefined)[]) => certificatesOf(d, o, roots);
  switch (rotation.phase) {
    case 'Issuing':
      return { signer: from, trusted: certificates(state.root) };
    case 'Distributing':
      return { signer: from, trusted: certificates(state.root, rotation.to) };
    case 'Switching':
      // a certificate that is nowhere any more cannot be handed out by anybody
      return { signer, trusted: certificates(state.root, rotation.to) ?? certificates(last) };
    case 'Retiring':
      return { signer, trusted: certificates(last) };
  }
}

/**
 * Certificates of recorded roots, from the live entry, be it taken over only now, from the mount or from the mesh; those that the live entry has in
 * its order.
 */
function certificatesOf(
  d: Desired,
  { vault, kubernetes }: Observed,
  roots: ({ fingerprint?: string } | undefined)[],
): CertificateFacts[] | undefined {
  const live = bundleFacts(ownEntry(vault.live)?.root ?? vault.live.foreign?.root ?? '');
  const issued = ownIssuers(d, 'root', vault).map(({ certificate }) => certificate);
  const known = [...live, ...issued, ...(kubernetes.meshRoots ?? [])];
  const found = roots
    .map((root) => known.find(({ fingerprint }) => fingerprint === root?.fingerprint))
    .filter((certificate) => certificate !== undefined);
  if (found.length < roots.length) return undefined;
  const place = ({ fingerprint }: CertificateFacts) => live.findIndex((one) => one.fingerprint === fingerprint);
  // one that is new stands behind: before 1.30 istiod compares the bytes of what it had
  return found.sort((a, b) => (place(a) + 1 || Infinity) - (place(b) + 1 || Infinity) || 0);
}

/** The root that signs. */
export function currentRoot(d: Desired, o: Observed): OwnIssuer | undefined {
  return rootRoles(d, o).signer;
}

/** root-cert.pem as it must be. */
export function desiredTrustBundle(d: Desired, o: Observed): string | undefined {
  return rootRoles(d, o)
    .trusted?.map(({ pem }) => pem)
    .join('');
}

/** The highest CA generation that any trace of ours shows. */
export function highestGeneration(d: Desired, o: VaultOnly): number {
  const names = (o.vault.intermediatePki?.keys ?? []).map(
    (key) => generationOf(d.identity, 'intermediate', key.name) ?? 0,
  );
  return Math.max(
    0,
    ownEntry(o.vault.state)?.highestGeneration ?? 0,
    ownEntry(o.vault.live)?.generation ?? 0,
    ownEntry(o.vault.staging)?.generation ?? 0,
    ...names,
  );
}

/** The key of a live or staged entry in the mount: by a certificate for it, by the name it was given, or by its id. */
export function keyIdOf(
  d: Desired,
  pki: Pki,
  entry: { publicKey: string | undefined; keyRef: string; generation: number },
): string | undefined {
  const carried = pki.issuers.find((i) => i.keyId !== '' && i.certificate.publicKey === entry.publicKey);
  const ref = entry.keyRef || generationName(d.identity, 'intermediate', entry.generation);
  const again = generationName(d.identity, 'intermediate', entry.generation);
  return carried?.keyId ?? pki.keys.find((key) => key.id === ref || key.name === ref || key.name === again)?.id;
}

/** Why the live set is not sound; undefined when it is (or when there is none). */
export function caEntryDefect(live: CaEntry | undefined): string | undefined {
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

export type CurrentCa = CaEntry & { certificate: CertificateFacts };

/**
 * The live set, if it is sound and of this CA: a set that is only consistent in itself, under a root of somebody else, was put
 * there behind the operator's back.
 */
export function currentCa(d: Desired, o: VaultOnly): CurrentCa | undefined {
  const live = ownEntry(o.vault.live);
  if (!live?.certificate || caEntryDefect(live) !== undefined) return undefined;
  const { certificate } = live;
  const roots = ownIssuers(d, 'root', o.vault);
  const ofThisCa = roots.length === 0 || roots.some((root) => isSignedBy(certificate, root.certificate));
  return ofThisCa ? { ...live, certificate } : undefined;
}

/** The issuer of the intermediate mount that carries the live certificate. */
export function issuerOf(live: { certificate: CertificateFacts } | undefined, o: VaultOnly): Issuer | undefined {
  const fingerprint = live?.certificate.fingerprint;
  return o.vault.intermediatePki?.issuers.find((issuer) => issuer.certificate.fingerprint === fingerprint);
}

/** When the intermediate is renewed; undefined when it already ends with its root. Milliseconds. */
export function renewAt(d: Desired, o: Observed): number | undefined {
  const live = currentCa(d, o);
  const root = currentRoot(d, o);
  if (!live || !root || live.certificate.notAfter >= root.certificate.notAfter) return undefined;
  const life = live.certificate.notAfter - live.certificate.notBefore;
  return live.certificate.notAfter - renewBeforeMs(d.spec, life, o.kubernetes.maxWorkloadCertTtlMs);
}

/** The root that was issued and is to be missed, as the state or, when that is lost, the live entry knows it. */
export function lastKnownRoot({ vault }: VaultOnly): { fingerprint?: string; serial?: string } | undefined {
  const recorded = ownEntry(vault.state)?.root;
  if (recorded?.fingerprint ?? recorded?.serial) return recorded;
  const live = ownEntry(vault.live);
  const roots = bundleFacts(live?.root ?? '');
  return roots.find((root) => live?.certificate && isSignedBy(live.certificate, root)) ?? roots[0];
}

/** Digest over what istiod serves: certificate, chain and roots, 64 hex digits. */
export function caDigest(live: CaEntry): string {
  return createHash('sha256')
    .update([live.certificate?.pem ?? '', live.chain, live.root].join('\n'))
    .digest('hex');
}
