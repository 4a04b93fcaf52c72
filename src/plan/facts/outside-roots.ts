/**
 * Roots outside of this resource: the root above an issuer of others (`root.source: Existing`), and the root above a certificate that was signed
 * outside of Vault (`External`), with what is checked of such a certificate before it is used. Pure.
 */
import { formatGoDuration } from '../../api/duration.ts';
import { annotations as known } from '../../api/annotations.ts';
import { rfc3339 } from '../../api/time.ts';
import { defectOfCas, isRoot, nameOfCertificate } from './ca-defects.ts';
import type { CertificateFacts } from './certificate.ts';
import { pathTo } from './certificate-path.ts';
import { derivedOnce, type DerivedState } from './derived.ts';
import { maxWorkloadCertTtlMs, pendingRequest } from './desired.ts';
import type { GivenCertificates, ObservedCertificateRequest, StagingEntry } from './observed.ts';
import { wantedRequest } from './signature-request.ts';
import type { IssuedRoot } from './state-entry.ts';

/** Self-signed certificates that a path can end at: with `rootCertRef` only those of its object, else those that came along. */
const rootsAmong = (s: DerivedState, certificates: readonly CertificateFacts[]): CertificateFacts[] =>
  (s.kubernetes.givenRoots?.certificates ?? certificates).filter(isRoot);

/**
 * The path from a CA that others made to its root, which comes along or is named by `rootCertRef`; undefined: there is none.
 * @param others the certificates that came with it
 */
export const pathOfGiven = (
  s: DerivedState,
  leaf: CertificateFacts,
  others: readonly CertificateFacts[],
): CertificateFacts[] | undefined => pathTo(leaf, others, rootsAmong(s, [leaf, ...others]));

/** With `root.source: Existing`: the root above the issuer that the spec names; undefined: the issuer does not exist, or no path leads to a root. */
export const rootOfWantedIssuer = derivedOnce((s: DerivedState): CertificateFacts | undefined => {
  const issuer = s.wantedIssuer;
  if (!issuer) return undefined;
  const all = [issuer.certificate, ...issuer.above];
  return pathTo(issuer.certificate, issuer.above, rootsAmong(s, all))?.at(-1);
});

/**
 * With `root.source: Existing`: workloads trust the root above the issuer that the spec names, so a CA under it can be issued although nothing in
 * Vault records any more that it was the root of this CA.
 */
export const meshTrustsWantedRoot = (s: DerivedState): boolean => {
  const root = s.rootSource === 'Existing' && !s.imports ? rootOfWantedIssuer(s) : undefined;
  return s.kubernetes.meshRoots?.some(({ fingerprint }) => fingerprint === root?.fingerprint) === true;
};

/** Whether a CA of this resource was published at any time. Before that, no workload trusts the root that is recorded. */
export const wasPublished = ({ stateEntry, caEntry }: DerivedState): boolean =>
  caEntry !== undefined || stateEntry?.intermediate?.fingerprint !== undefined;

/** What became of the request for a signature outside of Vault. */
export type Signature =
  /** Nothing that answers the request is there. */
  | { kind: 'awaited'; csr: { pem: string; madeAt: string } }
  /** What is there, the subject, cannot be used. `why` is a clause that names the fact. `request`: the CertificateRequest that it is in, or is. */
  | { kind: 'refused'; why: string; subject: string; request?: { name: string; said: string } }
  /** The certificate, the CAs above it in ascending order without the root, and the root. */
  | { kind: 'accepted'; chain: CertificateFacts[]; root: CertificateFacts };

/**
 * What became of the request for a signature; undefined: none is made, or the answer may not be read. With another root than the one that this
 * CA has, a certificate is accepted only if the text of annotation `rotate-root` begins with the fingerprint of that root. With an object of the
 * user and a CertificateRequest of cert-manager, whichever answers counts.
 */
export const signatureOf = derivedOnce((s: DerivedState): Signature | undefined => {
  const staged = s.stagingEntry;
  if (s.spec.root.source !== 'External' || s.imports || !staged?.csr) return undefined;
  const { external } = s.spec.root;
  const answers = [
    ...(external?.signed ? [answerInObject(s, staged)] : []),
    ...(external?.certManagerIssuerRef ? [answerOfCertManager(s, staged)] : []),
  ];
  if (answers.every((answer) => answer === 'unreadable')) return undefined;
  const found = answers.filter((answer) => answer !== 'unreadable' && answer !== undefined);
  return found.find(({ kind }) => kind === 'accepted') ?? found[0] ?? { kind: 'awaited', csr: staged.csr };
});

/** The certificate signing request that waits for a signature outside of Vault, PEM; undefined: none does. */
export const awaitedCsr = (s: DerivedState): string | undefined =>
  s.spec.root.source === 'External' && !s.imports && signatureOf(s)?.kind !== 'accepted'
    ? s.stagingEntry?.csr?.pem
    : undefined;

/** What became of a request in one place; undefined: nothing answers it there. */
type Answer = Exclude<Signature, { kind: 'awaited' }> | 'unreadable' | undefined;

/** What the object holds that `root.external.signed` names. */
function answerInObject(s: DerivedState, staged: StagingEntry): Answer {
  const { signed } = s.kubernetes;
  return signed && 'unreadable' in signed ? 'unreadable' : signed && answerIn(s, staged, signed);
}

/** The CertificateRequest for the request that waits, as it was read; undefined: none is wanted. */
export const certificateRequestOf = (s: DerivedState): ObservedCertificateRequest | undefined => {
  const wanted = wantedRequest(s);
  const seen = s.kubernetes.certificateRequest;
  if (!wanted || seen?.state === 'notServed') return seen;
  return seen?.name === wanted.name ? seen : { state: 'absent', name: wanted.name };
};

/** What became of the CertificateRequest of cert-manager. */
function answerOfCertManager(s: DerivedState, staged: StagingEntry): Answer {
  const seen = certificateRequestOf(s);
  const refused = (name: string, why: string, said = ''): Answer => ({
    kind: 'refused',
    why,
    subject: `CertificateRequest ${s.identity.namespace}/${name}`,
    request: { name, said },
  });
  switch (seen?.state) {
    case 'forbidden':
      return 'unreadable';
    case 'other':
      return refused(seen.name, `its ${seen.field} is not what this resource asks for`);
    case 'failed':
      return refused(seen.name, `it ${seen.what}`, seen.said);
    case 'signed': {
      const answer = answerIn(s, staged, seen.given, 'into status.ca, or name it in spec.root.external.rootCertRef');
      return answer?.kind === 'refused' ? { ...answer, request: { name: seen.name, said: '' } } : answer;
    }
    default:
      return undefined;
  }
}

/** What certificates of one place are as an answer. @param where those above the first belong, for the user */
function answerIn(
  s: DerivedState,
  staged: StagingEntry,
  signed: GivenCertificates,
  where = 'behind it, in one text',
): Exclude<Answer, 'unreadable'> {
  if (answersAnotherRequest(s, staged, signed)) return undefined;
  const refused = (why: string) => ({ kind: 'refused' as const, why, subject: `The certificate in ${signed.place}` });
  const [leaf, ...others] = signed.certificates;
  if (!leaf) return refused('it holds no certificate that can be read');
  if (signed.incomplete)
    return refused('it holds something beside certificates that can be read, or more than 10 of them');
  if (leaf.publicKey !== staged.publicKey)
    return refused(
      `its first certificate is for another key (SHA-256 ${leaf.publicKey}) than the request (SHA-256 ${staged.publicKey ?? ''})`,
    );
  const path = pathOfGiven(s, leaf, others);
  const defect = path ? (defectOfPath(s, path) ?? defectOfRoot(s, path)) : noPath(s, leaf, others, where);
  const root = path?.at(-1);
  if (defect !== undefined || !path || !root) return refused(defect ?? '');
  return { kind: 'accepted', chain: path.slice(0, -1), root };
}

/**
 * Whether what is there answered an earlier request: the certificate is for a key of an earlier CA generation, or is one that this resource has had. A
 * renewal can keep its key (`rotationPolicy: Never`).
 */
function answersAnotherRequest(
  s: DerivedState,
  staged: StagingEntry,
  { certificates: [leaf] }: GivenCertificates,
): boolean {
  if (!leaf) return false;
  if (leaf.publicKey !== staged.publicKey)
    return leaf.publicKey === s.caEntry?.publicKey || s.stateEntry?.publicKeys.includes(leaf.publicKey) === true;
  const before = s.vault.intermediatePki?.issuers.filter(({ id }) => staged.before.includes(id)) ?? [];
  const had = [
    s.caEntry?.certificate,
    ...before.map(({ certificate }) => certificate),
    ...(s.stateEntry?.history ?? []),
  ];
  return had.some((one) => one?.fingerprint === leaf.fingerprint);
}

/** @param where the certificates belong, for the user */
function noPath(s: DerivedState, leaf: CertificateFacts, others: readonly CertificateFacts[], where: string): string {
  const { givenRoots } = s.kubernetes;
  const signer = others.find((one) => pathTo(leaf, [], [one]));
  const from = signer ? `${nameOfCertificate(signer)}, which signed it,` : 'it';
  const what = givenRoots ? `a root in ${givenRoots.place}` : 'a self-signed root that comes along';
  return `no chain of signatures leads from ${from} to ${what}: put the CAs above it${givenRoots ? '' : ' and the root'} ${where}`;
}

/** How much longer than `intermediate.ttl` a certificate may be valid, as a factor: signers count in days, and begin before now. */
const longestLife = 1.1;

const hour = 3_600_000;

/** A duration for a message, in whole hours if it has any. */
const hours = (ms: number): string =>
  formatGoDuration(ms >= hour ? Math.floor(ms / hour) * hour : Math.floor(ms / 1000) * 1000);

/** Why a certificate with the CAs above it cannot be istiod's CA; undefined: it can. @param path the root last */
function defectOfPath(s: DerivedState, path: readonly CertificateFacts[]): string | undefined {
  const [leaf] = path;
  if (!leaf) return undefined;
  const found = defectOfCas(path, s.now);
  if (found !== undefined) return found;
  const { maxPathLength } = s.desired.intermediate;
  // without a path length it could have CAs below it, but istiod signs none
  if (leaf.maxPathLength !== undefined && leaf.maxPathLength > maxPathLength)
    return `its path length is ${leaf.maxPathLength}, and spec.intermediate.maxPathLength is ${maxPathLength}`;
  return defectOfLife(s, leaf, path.slice(1));
}

function defectOfLife(s: DerivedState, leaf: CertificateFacts, above: readonly CertificateFacts[]): string | undefined {
  const { ttl } = s.spec.intermediate;
  const life = leaf.notAfter - leaf.notBefore;
  if (life > s.desired.intermediate.ttl * 1000 * longestLife)
    return `it is valid for ${hours(life)}, longer than spec.intermediate.ttl (${ttl}): have it signed for that time`;
  const first = above.find(({ notAfter }) => notAfter < leaf.notAfter);
  if (first)
    return `it ends on ${rfc3339(leaf.notAfter)}, after ${nameOfCertificate(first)} above it, which ends on ${rfc3339(first.notAfter)}: have it signed until then`;
  const longest = maxWorkloadCertTtlMs(s.spec, s.kubernetes.maxWorkloadCertTtlMs);
  const left = leaf.notAfter - s.now;
  if (longest !== 'unknown' && left < 2 * longest)
    return `it ends on ${rfc3339(leaf.notAfter)}, sooner than twice the longest workload certificate (${hours(longest)}) from now: have it signed for longer, or set spec.intermediate.maxWorkloadCertTTL`;
  return undefined;
}

/** Why the root above a certificate is not the one that is to sign now; undefined: it is. */
function defectOfRoot(s: DerivedState, path: readonly CertificateFacts[]): string | undefined {
  const root = path.at(-1);
  const state = s.stateEntry;
  if (!root || !state?.root?.fingerprint || !wasPublished(s)) return undefined;
  const { rotation } = state;
  const expected = rotation && !rotation.back ? rotation.to : state.root;
  const asked = rotation ? undefined : pendingRequest(s.desired, state.handled, known.rotateRoot);
  if (root.fingerprint === expected.fingerprint)
    return asked === undefined || !s.currentCa
      ? undefined
      : `it leads to the root in use, and annotation ${known.rotateRoot} asks for another one: have it signed under that one, or remove the annotation`;
  const other = `it leads to the root ${nameOfCertificate(root)}`;
  if (rotation) return `${other}, and the root rotation in progress needs a certificate under ${expected.serial ?? ''}`;
  if (asked?.startsWith(root.fingerprint))
    return s.currentCa
      ? undefined
      : `${other}, which annotation ${known.rotateRoot} asks for, but the CA in use is not in ${s.spec.keyStore.mount}/${s.spec.keyStore.path} any more, and without one that signs no root can be distributed beside the one in use. One under the root in use (serial ${expected.serial ?? ''}) has to come first; the root rotation begins after that`;
  // the same root can have been asked for before, and rolled back from
  const before = state.handled[known.rotateRoot] ?? '';
  const text = before.startsWith(root.fingerprint) ? `${before}-again` : root.fingerprint;
  return `${other}, which is not the root in use (serial ${expected.serial ?? ''}). If the root is to be replaced, annotate this resource with ${known.rotateRoot}=${text}, see docs/rotation.md`;
}

/** What is to be made of the CA in the Secret of `intermediate.importRef`. */
export type Import =
  | { kind: 'absent' }
  /** `why` is a clause that names the fact. */
  | { kind: 'refused'; why: string; place: string }
  /** The certificates of the CA, its own first, without the root unless it is the CA itself; the root; and the hash of the public half of the key. */
  | { kind: 'accepted'; chain: CertificateFacts[]; root: CertificateFacts; publicKey: string; secret: string };

/** What is to be made of the CA in the Secret; undefined: nothing is imported, or the Secret may not be read. */
export const importOf = derivedOnce((s: DerivedState): Import | undefined => {
  const { given } = s.kubernetes;
  if (!s.imports || s.checksOnly || (given && 'unreadable' in given)) return undefined;
  if (!given) return { kind: 'absent' };
  const refused = (why: string): Import => ({ kind: 'refused', why, place: given.place });
  const [leaf, ...others] = given.certificates;
  if (!leaf) return refused('it holds no certificate that can be read, in tls.crt or ca-cert.pem');
  if (given.publicKey === undefined)
    return refused(
      'it holds no private key that can be read, in tls.key or ca-key.pem: PKCS #1, PKCS #8 or SEC 1, not encrypted',
    );
  if (given.publicKey !== leaf.publicKey) return refused('its key is not that of its certificate');
  const path = pathOfGiven(s, leaf, others);
  const root = path?.at(-1);
  const defect = path
    ? (defectOfCas(path, s.now) ?? defectOfRoot(s, path))
    : noPath(s, leaf, others, 'into tls.crt and ca.crt, or into cert-chain.pem and root-cert.pem');
  if (defect !== undefined || !path || !root) return refused(defect ?? '');
  const chain = path.length === 1 ? path : path.slice(0, -1);
  return { kind: 'accepted', chain, root, publicKey: given.publicKey, secret: given.secret };
});

/** Whether the CA in use is due to be renewed. */
export const isRenewalDue = ({ renewAt, now }: DerivedState): boolean => renewAt !== undefined && now >= renewAt;

/** A root outside that is to be recorded as the root of this CA, or to be rotated to; undefined: none is known, or this resource issues its root. */
export const offeredRoot = derivedOnce(
  (s: DerivedState): Pick<IssuedRoot, 'certificate' | 'fingerprint' | 'serial' | 'issuerId'> | undefined => {
    const signature = signatureOf(s);
    const imported = importOf(s);
    const accepted = imported?.kind === 'accepted' ? imported : signature?.kind === 'accepted' ? signature : undefined;
    const certificate = accepted?.root ?? (s.imports ? undefined : rootOfWantedIssuer(s));
    if (!certificate) return undefined;
    const { pem, fingerprint, serial } = certificate;
    const id = s.imports ? undefined : s.wantedIssuer?.id;
    return { certificate: pem, fingerprint, serial, ...(id === undefined ? {} : { issuerId: id }) };
  },
);
