/** Whether the CA in use was revoked: by Vault, or by a revocation list that a user hands along. Pure. */
import { bundleFacts, isSignedBy } from './certificate.ts';
import { derivedOnce, type DerivedState } from './derived.ts';
import { caOf, isListOf } from './revocation-list.ts';

/** Whether the certificate of the current CA is on a list that a user hands along and that the CA above it signed. */
function isOnGivenList(s: DerivedState): boolean {
  const lists = (s.kubernetes.givenLists ?? []).flatMap((given) => given.lists);
  const ca = s.currentCa;
  const listing = ca ? lists.filter(({ revoked }) => Object.hasOwn(revoked, ca.certificate.serial)) : [];
  if (!ca || listing.length === 0) return false;
  const above = [...bundleFacts(ca.chain), ...bundleFacts(ca.root)];
  return above
    .filter((one) => isSignedBy(ca.certificate, one))
    .some((one) => listing.some((list) => list.unfit === undefined && list.ca === caOf(one) && isListOf(list, one)));
}

/** Whether the certificate of the current CA is revoked. */
export const isRevoked = derivedOnce((s: DerivedState): boolean => s.isRevoked || isOnGivenList(s));
