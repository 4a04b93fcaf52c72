/** Which roots of the owner of a mount concern a resource that signs under one of them. Pure. */
import type { DerivedState } from '../facts/derived.ts';
import type { ExistingIssuer } from '../facts/observed.ts';
import { comingAmong } from '../facts/shared-roots.ts';

/** SHA-256 of the certificate of an issuer. */
export const fingerprintOf = ({ certificate }: ExistingIssuer): string => certificate.fingerprint;

/** The root that the owner signs with: the default issuer of the mount, if it is handed out. undefined: it is not, or there is no owner. */
export const ownersSigner = (s: DerivedState): ExistingIssuer | undefined =>
  s.sharedRoots?.roots.find(({ id }) => id === s.vault.existing?.defaultId);

/** The root that this resource is to sign with, as the owner does. undefined: no owner shows it, or the spec names an issuer. */
export const followedRoot = (s: DerivedState): ExistingIssuer | undefined =>
  s.spec.root.existing?.issuerRef === undefined ? ownersSigner(s) : undefined;

/** Roots that the owner signs with, or may sign with next, as of `comingAmong`. */
export function comingRoots({ signer, sharedRoots, vault }: DerivedState): ExistingIssuer[] {
  return signer && sharedRoots ? comingAmong(sharedRoots, signer.certificate, vault.existing?.defaultId) : [];
}

/** A message names at most this many roots that are not handed out. */
const mostNamed = 2;

const whyIncomplete = ({ kubernetes: { givenRoots } }: DerivedState, mount: string): string =>
  givenRoots?.certificates.length === 0
    ? `${givenRoots.place}, which spec.root.existing.rootCertRef names, has no root`
    : `not every root of ${mount} could be read`;

/** What is to be said of the roots of the owner, as clauses. */
export function ownersNotes(s: DerivedState): string[] {
  const { roots, refused, complete } = s.sharedRoots ?? { roots: [], refused: [], complete: true };
  const mount = `mount ${s.spec.root.mount}/`;
  const more = refused.length - mostNamed;
  return [
    ...refused.slice(0, mostNamed).map((text) => `root ${text}`),
    ...(more > 0 ? [`${more} more roots of ${mount} are not handed out`] : []),
    ...(complete ? [] : [`${whyIncomplete(s, mount)}, so none is withdrawn`]),
    ...(s.spec.delivery.source === 'PKI' && roots.length > 0
      ? [
          `an IstioVaultCA owns ${mount}, and before it rotates its root this resource needs spec.delivery.source: Bundle, since PKI hands out one root only`,
        ]
      : []),
  ];
}
