/**
 * The roots of another IstioVaultCA under whose root this resource signs (`root.source: Existing`): which of them are handed out. Pure.
 */
import { defectOfCas, isRoot, nameOfCertificate } from './ca-defects.ts';
import type { CertificateFacts } from './certificate.ts';
import type { ExistingIssuer, ExistingIssuers, GivenCertificates } from './observed.ts';

/** The roots of the owner of a mount. */
export interface SharedRoots {
  /** Those that are handed out, in the order of `OwnersIssuers`. */
  roots: ExistingIssuer[];
  /** Those that are not: a clause each that names the root and says why. */
  refused: string[];
  /** As in `OwnersIssuers`; false also if the object that limits what is handed out is not there, or has no certificate. */
  complete: boolean;
}

/**
 * The roots of the owner of the mount.
 * @param given certificates of `rootCertRef`, which limit what is handed out; undefined: the spec has no such reference
 * @param now milliseconds since the epoch
 * @returns undefined: the mount is not that of an IstioVaultCA
 */
export function sharedRootsOf(
  existing: ExistingIssuers | undefined,
  given: GivenCertificates | undefined,
  now: number,
): SharedRoots | undefined {
  const { owners, found } = existing ?? {};
  if (!owners || !found) return undefined;
  const all = owners.ids.flatMap((id) => found.find((issuer) => issuer.id === id) ?? []);
  const defects = all.map(({ certificate }) => defectOf(certificate, given, now));
  return {
    roots: all.filter((_, i) => defects[i] === undefined),
    refused: all.flatMap(({ certificate }, i) => {
      const defect = defects[i];
      return defect === undefined ? [] : [`${nameOfCertificate(certificate)} is not handed out: ${defect}`];
    }),
    complete: owners.complete && given?.certificates.length !== 0,
  };
}

/** Why a root is not handed out; undefined: it is. */
function defectOf(
  certificate: CertificateFacts,
  given: GivenCertificates | undefined,
  now: number,
): string | undefined {
  if (!isRoot(certificate)) return 'it is not self-signed';
  const defect = defectOfCas([certificate], now);
  if (defect !== undefined) return defect;
  const isGiven = given?.certificates.some(({ fingerprint }) => fingerprint === certificate.fingerprint) ?? true;
  return isGiven ? undefined : `it is not in ${given?.place ?? ''}, which spec.root.existing.rootCertRef names`;
}

/**
 * Roots that the owner signs with, or may sign with next: its present one, and newer ones than the one that signs here. Older ones remain from earlier
 * rotations.
 * @param signer the root that signs here
 * @param presentId id of the issuer that the owner signs with
 */
export const comingAmong = (
  { roots }: SharedRoots,
  signer: CertificateFacts,
  presentId: string | undefined,
): ExistingIssuer[] =>
  roots.filter(
    ({ id, certificate: { fingerprint, notBefore } }) =>
      fingerprint !== signer.fingerprint && (id === presentId || notBefore > signer.notBefore),
  );

/**
 * The roots to hand out: those that the phase of a rotation needs, and all of the owner. What is published stays while the mount cannot be read, or not
 * all of its issuers, or `rootCertRef` names nothing, and until the mesh has the roots that sign or are about to: istiod before 1.30 takes up a bundle only if it contains the one before, or is part
 * of it. Another revision of istiod can be the one that publishes, without roots that remain from earlier.
 * @param shared undefined: the mount is not that of an IstioVaultCA
 * @param meshRoots the roots that istiod publishes; undefined: unknown
 * @param coming as of `comingAmong`
 * @param isUnknown no issuer of the mount was found
 */
export function withShared(
  needed: readonly CertificateFacts[],
  shared: SharedRoots | undefined,
  published: readonly CertificateFacts[],
  coming: readonly ExistingIssuer[],
  meshRoots: readonly CertificateFacts[] | undefined,
  isUnknown: boolean,
): CertificateFacts[] {
  const wanted = [...needed, ...(shared?.roots ?? []).map(({ certificate }) => certificate)];
  const has = (list: readonly CertificateFacts[], { fingerprint }: CertificateFacts) =>
    list.some((one) => one.fingerprint === fingerprint);
  const isPartial = shared ? !shared.complete : isUnknown;
  const awaited = [...needed, ...coming.map(({ certificate }) => certificate)];
  const lags = shared !== undefined && meshRoots !== undefined && !awaited.every((root) => has(meshRoots, root));
  // those that are published keep their order
  const kept = published.filter((one) => isPartial || lags || has(wanted, one));
  return [...new Map([...kept, ...wanted].map((one) => [one.fingerprint, one])).values()];
}
