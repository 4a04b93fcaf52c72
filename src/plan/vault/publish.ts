/** Steps that publish a CA to the CA entry: a new one, the same one with other roots or lists, or the same once more. Pure. */
import { splitPem } from '../../text/pem.ts';
import { certificateFacts, type CertificateFacts } from '../facts/certificate.ts';
import { pathTo } from '../facts/certificate-path.ts';
import type { DerivedState } from '../facts/derived.ts';
import type { Issuer } from '../facts/observed.ts';
import { markerFor, ownables } from '../ownership/ownership.ts';
import type { RepeatReason, Step } from '../steps.ts';
import { needsRewrite } from './entry-lifetime.ts';
import { firstEnd, listsSince, listsToPublish, reasonToPublishLists, rotateLists } from './revocation-lists.ts';

/**
 * The lists for a publication, PEM; undefined: one is missing. The first lists of an adopted CA wait for another look, which knows the CA. A CA entry
 * that is only written again keeps those that it has.
 */
function listsFor(
  s: DerivedState,
  { from, same }: { from: 'staging' | 'live' | 'adopted'; same?: RepeatReason },
  path: readonly CertificateFacts[],
): string[] | undefined {
  if (from === 'adopted') return [];
  const kept = same === 'lifetime' || same === 'keyForm' ? (s.caEntry?.lists ?? []).map(({ pem }) => pem) : undefined;
  return listsToPublish(s, path) ?? kept;
}

/**
 * The step that publishes an issuer as the current CA. None while the certificate of a trusted root is unknown, or if no trusted root signed
 * the issuer.
 */
export function publishSteps(
  s: DerivedState,
  what: {
    from: 'staging' | 'live' | 'adopted';
    issuer: Issuer;
    generation: number;
    keyRef: string;
    same?: RepeatReason;
    /** Of an imported CA: its certificates. */
    chain?: string[];
    secret?: string;
  },
): Step[] {
  const { trusted } = s.rootRoles;
  const known = [...(what.chain ?? []).flatMap((pem) => certificateFacts(pem) ?? []), ...s.knownCas];
  const path = trusted && pathTo(what.issuer.certificate, known, trusted);
  if (!path) return [];
  const lists = listsFor(s, what, path);
  if (!lists) return [];
  const since = listsSince(s, lists);
  const withdraws = lists.length === 0 && (s.caEntry?.lists ?? []).length > 0;
  return [
    {
      kind: 'PublishLive',
      from: what.from,
      generation: what.generation,
      issuerId: what.issuer.id,
      ...(what.chain ? { chain: what.chain } : {}),
      ...(what.secret === undefined ? {} : { secret: what.secret }),
      roots: trusted.map(({ pem }) => pem),
      lists,
      ...(since === undefined ? {} : { listsSince: since }),
      keyRef: what.keyRef,
      mark: markerFor(s, ownables(s).live),
      cas: s.vault.live.casVersion,
      ...(what.same ? { same: what.same } : {}),
      ...(withdraws ? { listsEnd: firstEnd(s) } : {}),
    },
  ];
}

/**
 * Publishes the current CA again if root-cert.pem does not contain exactly the trusted roots.
 * @param same publishes it only if root-cert.pem does contain exactly these roots, for this reason
 */
function publishRoots(s: DerivedState, same?: RepeatReason): Step[] {
  const ca = s.currentCa;
  const imported: Issuer | undefined = ca?.imported && { id: '', keyId: '', keyName: '', certificate: ca.certificate };
  const issuer = imported ?? s.currentIssuer;
  const bundle = s.trustBundle;
  if (!ca || !issuer || bundle === undefined || (ca.root === bundle) !== (same !== undefined)) return [];
  const { generation, keyRef } = ca;
  const chain = imported ? { chain: splitPem(ca.chain) } : {};
  return publishSteps(s, { from: 'live', issuer, generation, keyRef, ...chain, ...(same ? { same } : {}) });
}

/** Why the current CA is published again with the same key and certificates; undefined: there is no reason. */
function reasonToRepeat(s: DerivedState): RepeatReason | undefined {
  // an earlier version published an adopted key as it was
  if (s.currentCa?.unreadableKey) return 'keyForm';
  return needsRewrite(s.vault.live, s) ? 'lifetime' : undefined;
}

/**
 * Publishes the current CA again, unchanged, before Vault deletes the CA entry, and if istiod cannot read its key. Takes precedence over
 * issuing and collecting.
 */
export function publishAgain(s: DerivedState): Step[] {
  const reason = reasonToRepeat(s);
  return reason === undefined ? [] : publishRoots(s, reason);
}

/** Keeps what is published as it must be: first new lists of Vault, then the roots, then the lists. */
export function keepPublished(s: DerivedState): Step[] {
  const rotating = rotateLists(s);
  if (rotating.length > 0) return rotating;
  const roots = publishRoots(s);
  return roots.length > 0 ? roots : publishLists(s);
}

/** Publishes the current CA again for its revocation lists. */
function publishLists(s: DerivedState): Step[] {
  const reason = reasonToPublishLists(s);
  return reason === undefined ? [] : publishRoots(s, reason);
}
