/**
 * Where the revocation list of a CA comes from (`delivery.crl`): a mount of this resource, a mount of others, or an object in which a user hands it
 * along; which of those that are there counts, and what is said of a CA without one. Pure.
 */
import { rfc3339 } from '../../api/time.ts';
import type { CertificateFacts } from '../facts/certificate.ts';
import type { DerivedState } from '../facts/derived.ts';
import { caOf, isListOf, maySignLists, type RevocationList } from '../facts/revocation-list.ts';

/** How much later than Vault's clock a list can be dated that counts, milliseconds. */
const skewMs = 5000;

/** The PKI mount of this resource in which a CA has its key; undefined: none, so that this resource cannot have its list signed. */
export function ownMountOf(s: DerivedState, { fingerprint }: CertificateFacts): string | undefined {
  const tier = (['root', 'intermediate'] as const).find((one) =>
    s.ownIssuers(one).some(({ keyId, certificate }) => keyId !== '' && certificate.fingerprint === fingerprint),
  );
  return tier && s.spec[tier].mount;
}

/** Lists that users hand along and that a CA signed. */
const givenListsOf = (s: DerivedState, ca: CertificateFacts): RevocationList[] =>
  (s.kubernetes.givenLists ?? [])
    .flatMap(({ lists }) => lists)
    .filter((list) => list.ca === caOf(ca) && isListOf(list, ca));

/** Why a list from elsewhere does not count now, as a clause about it; undefined: it does. */
function defectOf(s: DerivedState, { unfit, thisUpdate, nextUpdate }: RevocationList): string | undefined {
  if (unfit !== undefined) return unfit;
  if (nextUpdate <= s.vault.time) return `has ended on ${rfc3339(nextUpdate)}`;
  return thisUpdate > s.vault.time + skewMs ? `is not valid before ${rfc3339(thisUpdate)}` : undefined;
}

/** The newest list of a CA that is there; undefined: there is none that counts. What a mount of this resource has is signed again before it ends. */
export function presentList(s: DerivedState, ca: CertificateFacts): RevocationList | undefined {
  const ofVault = s.vault.lists[ca.fingerprint];
  if (ofVault && ownMountOf(s, ca) !== undefined) return ofVault;
  const [newest] = [...(ofVault ? [ofVault] : []), ...givenListsOf(s, ca)]
    .filter((list) => defectOf(s, list) === undefined)
    .sort((a, b) => b.thisUpdate - a.thisUpdate);
  return newest;
}

/** The object and key in which a user hands lists along, for a message; undefined: the spec names none. */
function givenPlace(s: DerivedState): string | undefined {
  const places = (s.kubernetes.givenLists ?? []).map(({ place }) => place);
  return places.length > 0 ? [...new Set(places)].join(' or ') : undefined;
}

/** The field that has to name an object first, in which lists can be handed along. */
function fieldOfObject({ imports, spec }: DerivedState): string {
  if (imports) return 'spec.intermediate.importRef';
  if (spec.root.source === 'Generate')
    return 'spec.intermediate.importRef, with the Secret of the CA that was imported';
  return `spec.root.${spec.root.source === 'Existing' ? 'existing' : 'external'}.rootCertRef, with the root in key ca.crt`;
}

/** The mount of others that the CA signs in or under for this resource; undefined: it is in none that is known. */
function othersMountOf(s: DerivedState, { fingerprint }: CertificateFacts): string | undefined {
  const isIssuer = s.vault.existing?.found.some(({ certificate }) => certificate.fingerprint === fingerprint);
  return isIssuer === true || s.vault.lists[fingerprint] !== undefined ? s.spec.root.mount : undefined;
}

/** Who has to do what, so that there is a newer list of a CA: a sentence without a full stop. */
export function listRemedy(s: DerivedState, ca: CertificateFacts): string {
  const own = ownMountOf(s, ca);
  if (own !== undefined)
    return `Look at the usage of the issuer in mount ${own}, which needs crl-signing, then \`vault read ${own}/crl/rotate\``;
  const place = givenPlace(s);
  const others = othersMountOf(s, ca);
  if (others !== undefined)
    return `The owner of mount ${others} has to have its issuer sign one: usage crl-signing, \`vault read ${others}/crl/rotate\`, and auto_rebuild=true in ${others}/config/crl`;
  return `Whoever runs that CA has to sign one. Put it, PEM, into ${place ?? `key ca-crl.pem of an object that is named in ${fieldOfObject(s)}`}`;
}

/** Why no list of a CA counts, as a clause with its own subject; undefined: there is simply none. */
export function whyNone(s: DerivedState, ca: CertificateFacts): string | undefined {
  if (!maySignLists(ca)) return 'its key usage does not permit lists (cRLSign), so that nobody takes any of it';
  const given = s.kubernetes.givenLists ?? [];
  const unreadable = given.find((one) => one.unreadable !== undefined)?.unreadable;
  const ofVault = s.vault.lists[ca.fingerprint];
  const candidates = [
    ...(ofVault ? [{ list: ofVault, where: `in mount ${s.spec.root.mount}` }] : []),
    ...given.flatMap(({ place, lists }) => lists.map((list) => ({ list, where: `in ${place}` }))),
  ].filter(({ list }) => list.ca === caOf(ca) || isListOf(list, ca));
  const [first] = candidates;
  if (!first) return unreadable;
  const defect = isListOf(first.list, ca) ? defectOf(s, first.list) : 'has a signature that does not verify';
  return defect === undefined ? undefined : `its list ${first.where} ${defect}`;
}
