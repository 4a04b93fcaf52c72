/** Checks of a root outside of this resource: the issuer of others that is to sign, and the signature outside of Vault that is awaited. Pure. */
import { annotations as known } from '../../api/annotations.ts';
import type { DerivedState } from '../facts/derived.ts';
import { isRevoked } from '../facts/revoked.ts';
import { existingRef } from '../facts/desired.ts';
import { rfc3339 } from '../../api/time.ts';
import type { ObservedCertificateRequest } from '../facts/observed.ts';
import { nameOfCertificate } from '../facts/ca-defects.ts';
import {
  awaitedCsr,
  certificateRequestOf,
  importOf,
  isRenewalDue,
  rootOfWantedIssuer,
  signatureOf,
  wasPublished,
  type Signature,
} from '../facts/outside-roots.ts';
import type { Problem } from '../facts/problem.ts';
import { nameOfIssuer, requestMapName } from '../facts/signature-request.ts';
import { isStagedForNextRoot } from '../rotation/gates.ts';

/** Until something is published nothing is written without a root; later the CA in use goes on, and everything else is kept. */
const blocks = (s: DerivedState): Problem['blocks'] => (wasPublished(s) ? 'nothing' : 'all');

/** With `root.source: Existing`: the issuer that is to sign does not exist. */
export function issuerNotFound(s: DerivedState): Problem | undefined {
  const { root } = s.spec;
  if (s.rootSource !== 'Existing' || s.imports) return undefined;
  const problem = (message: string): Problem => ({
    condition: 'RootReady',
    reason: 'IssuerNotFound',
    message,
    blocks: blocks(s),
  });
  const { signer, signingIssuer, wantedIssuer: wanted } = s;
  const ref = existingRef(root);
  const name = ref === 'default' ? 'a default issuer' : `an issuer ${ref}`;
  if (!signer && !wanted)
    return problem(
      `spec.root.existing: mount ${root.mount}/ has not ${name}, or does not exist. Correct spec.root.existing.issuerRef, or have the owner of the mount create it; \`vault list ${root.mount}/issuers\` shows those that exist.`,
    );
  const { rotation } = s;
  const next = rotation && !rotation.back && !rotation.found ? s.findRoot(rotation.to) : undefined;
  if (next && s.lacksIssuer(next))
    return problem(
      `issuer ${next.id} of mount ${root.mount}/, to whose root the root rotation in progress leads, does not exist any more: the rotation stops. Have the owner of the mount restore it, or roll the rotation back (annotation ${known.rollbackRotation}=<any new text>), see docs/rotation.md`,
    );
  if (!signer || signingIssuer) return undefined;
  const remedy = wanted
    ? `To have issuer ${wanted.name || wanted.id} (serial ${wanted.certificate.serial}) sign instead, annotate this resource with ${known.rotateRoot}=<any new text>`
    : `Have the owner of the mount restore it, or set spec.root.existing.issuerRef to another one and annotate this resource with ${known.rotateRoot}=<any new text>`;
  const gone =
    signer.id === ''
      ? `which issuer of mount ${root.mount}/ signs under root ${signer.certificate.serial} is not known, because the state entry was lost`
      : `issuer ${signer.id} of mount ${root.mount}/, which signs for this resource, does not exist any more, or has another certificate`;
  return problem(
    `${gone}. istiod goes on with the intermediate that it has, which cannot be renewed. ${remedy}; see docs/rotation.md`,
  );
}

/** With `root.source: Existing`: no self-signed certificate is known at the top of the issuer, or `delivery.source: PKI` cannot deliver it. */
export function rootNotServed(s: DerivedState): Problem | undefined {
  const { root, delivery } = s.spec;
  const wanted = s.wantedIssuer;
  if (s.rootSource !== 'Existing' || !wanted || s.imports) return undefined;
  const problem = (message: string): Problem => ({
    condition: 'RootReady',
    reason: 'RootNotServed',
    message,
    blocks: 'all',
  });
  const top = rootOfWantedIssuer(s);
  if (!top && !s.signer) {
    const { givenRoots } = s.kubernetes;
    const where = givenRoots
      ? `No path leads from it to a self-signed certificate in ${givenRoots.place}`
      : `Mount ${root.mount}/ has no self-signed certificate above it`;
    return problem(
      `issuer ${nameOfCertificate(wanted.certificate)} of mount ${root.mount}/ is not a root. ${where}, so what root-cert.pem must hold is not known. Put the root of that PKI into a ConfigMap, and name it in spec.root.existing.rootCertRef.`,
    );
  }
  const isMountsRoot = top?.fingerprint === wanted.certificate.fingerprint && s.vault.existing?.defaultId === wanted.id;
  if (delivery.source === 'Bundle' || isMountsRoot) return undefined;
  return problem(
    `spec.delivery.source: PKI takes root-cert.pem from ${root.mount}/cert/ca, the default issuer of the mount, and issuer ${nameOfCertificate(wanted.certificate)} is not that or not self-signed. Set spec.delivery.source: Bundle.`,
  );
}

/** Whether the CA in use goes on while something is missing from outside, so that nothing fails yet. */
export const goesOn = (s: DerivedState): boolean => {
  const ca = s.currentCa;
  if (!ca || isRevoked(s) || !s.isUnderSigner(ca.certificate)) return false;
  const due = s.renewAt ?? ca.certificate.notAfter;
  // the second half of the time between the request and the end is the time to worry
  return s.now < due + (ca.certificate.notAfter - due) / 2;
};

/** What is to follow the CA in use is awaited from outside, or waits for its phase of a root rotation, and nothing is amiss yet. */
export const isAwaited = (s: DerivedState): boolean =>
  (outsideNote(s) !== undefined || isStagedForNextRoot(s)) && goesOn(s);

/** The kinds of a signature that has not come. */
type Missing = Exclude<Signature, { kind: 'accepted' }>;

const missingSignature = (s: DerivedState): Missing | undefined => {
  const signature = signatureOf(s);
  return signature?.kind === 'accepted' ? undefined : signature;
};

/** Where the user is to put the signed certificate; undefined: only cert-manager is asked. */
function expectedPlace({ spec, identity }: DerivedState): string | undefined {
  const { signed } = spec.root.external ?? {};
  const { configMapRef, secretRef } = signed ?? {};
  const { namespace } = identity;
  if (configMapRef) return `ConfigMap ${namespace}/${configMapRef.name}, key ${configMapRef.key}`;
  return secretRef && `Secret ${namespace}/${secretRef.name}, key ${secretRef.key}`;
}

/** What is missing from outside of Vault. */
interface OutsideNote {
  reason: 'AwaitingSignature' | 'SignedCertificateRefused' | 'AwaitingImport' | 'ImportRefused';
  message: string;
}

/** Reason and message while a signature outside of Vault or a CA to import is missing; undefined: none is. */
export const outsideNote = (s: DerivedState): OutsideNote | undefined =>
  s.checksOnly ? undefined : s.imports ? importNote(s) : signatureNote(s);

/** The CA to import is missing, cannot be used, or is due to be replaced by a new one. */
function importNote(s: DerivedState): OutsideNote | undefined {
  const imported = importOf(s);
  const name = s.spec.intermediate.importRef?.secretRef.name ?? '';
  const { namespace } = s.identity;
  if (imported?.kind === 'refused')
    return {
      reason: 'ImportRefused',
      message: `The CA in ${imported.place} was not imported: ${imported.why}. Nothing was changed.`,
    };
  const what = `Secret ${namespace}/${name}, with tls.crt, tls.key and ca.crt, or with the keys of Secret cacerts. See docs/import.md.`;
  // the CA entry is about to be adopted
  if (s.spec.adopt && !s.currentCa && s.vault.live.entry === 'foreign') return undefined;
  if (imported?.kind === 'absent' && !s.currentCa)
    return { reason: 'AwaitingImport', message: `There is no CA to import. Put it into ${what}` };
  if (
    imported?.kind === 'absent' &&
    s.currentCa &&
    s.signer &&
    !s.isUnderSigner(s.currentCa.certificate) &&
    !s.stagingEntry
  )
    return {
      reason: 'AwaitingImport',
      message: `There is no CA to import under root ${s.signer.certificate.serial}, which signs in this phase of the root rotation. Put it into ${what}`,
    };
  const ca = s.currentCa?.certificate;
  const isNew = imported?.kind === 'accepted' && imported.chain[0]?.fingerprint !== ca?.fingerprint;
  if (ca && isRevoked(s) && !isNew)
    return {
      reason: 'AwaitingImport',
      message: `The imported CA, serial ${ca.serial}, is on the revocation list of the CA above it. Put another one, under root ${s.signer?.certificate.serial ?? ''}, into ${what}`,
    };
  if (!ca || isNew || !isRenewalDue(s)) return undefined;
  const since = rfc3339(s.renewAt ?? s.now);
  return {
    reason: 'AwaitingImport',
    message: `Since ${since}, the imported CA is due to be renewed: it ends on ${rfc3339(ca.notAfter)}. Put a new one, under root ${s.signer?.certificate.serial ?? ''}, into ${what}`,
  };
}

/** Reason and message while a signature outside of Vault is missing; undefined: none is. */
function signatureNote(s: DerivedState): OutsideNote | undefined {
  const missing = missingSignature(s);
  const staged = s.stagingEntry;
  if (!missing || !staged?.csr) return undefined;
  const request = `the certificate signing request in status.csr (CA generation ${staged.generation}, SHA-256 of its public key ${staged.publicKey ?? ''})`;
  if (missing.kind === 'refused') {
    const { subject, why, request: asked } = missing;
    const remedy = asked ? ` ${askAgain(s, asked.name)}${quoted(asked.said)}` : '';
    return {
      reason: 'SignedCertificateRefused',
      message: `${subject} was not used: ${why}. Nothing was installed, and ${request} is still to be signed.${remedy}`,
    };
  }
  const certManager = certificateRequestOf(s);
  const message = certManager
    ? waitsForCertManager(s, certManager, staged.csr.madeAt, request)
    : waitsForUser(s, expectedPlace(s) ?? '', staged.csr.madeAt, request);
  const map = mapNote(s);
  return { reason: 'AwaitingSignature', message: `${message.first}${map} See docs/external-root.md.${message.said}` };
}

/** The message while a signature is awaited. `said`: what cert-manager reports, which comes last, because its length is not known. */
interface Waiting {
  first: string;
  said: string;
}

/** What to hand in, and where. */
const handIn = (s: DerivedState, place: string): string =>
  `Have it signed as a CA, ${s.signer ? `with root ${s.signer.certificate.serial} at its top` : 'under the root of your choice'} (\`kubectl get ivca -n ${s.identity.namespace} ${s.identity.name} -o jsonpath='{.status.csr}'\`). Put the certificate, followed by the CAs above it and the root, into ${place}.`;

const waitsForUser = (s: DerivedState, place: string, since: string, request: string): Waiting => ({
  first: `Since ${since}, ${request} waits for a signature outside of Vault. ${handIn(s, place)}`,
  said: '',
});

/** What cert-manager reports, quoted; empty: nothing. */
const quoted = (said: string): string => (said === '' ? '' : ` cert-manager reports: "${said}".`);

/** How a CertificateRequest that ended is made again. */
const askAgain = ({ identity: { namespace } }: DerivedState, name: string): string =>
  `Correct the cause, then delete the CertificateRequest (\`kubectl delete certificaterequest -n ${namespace} ${name}\`): the operator creates it again with the same request.`;

/** While cert-manager is asked: what its CertificateRequest waits for. */
function waitsForCertManager(
  s: DerivedState,
  seen: ObservedCertificateRequest,
  since: string,
  request: string,
): Waiting {
  const { namespace } = s.identity;
  const issuer = nameOfIssuer(s.spec.root.external?.certManagerIssuerRef ?? { name: '', kind: '' });
  const place = expectedPlace(s);
  const instead = place === undefined ? '' : ` Or hand it in by hand. ${handIn(s, place)}`;
  const waiting = (what: string, todo: string, said = ''): Waiting => ({
    first: `Since ${since}, ${what}. ${todo} It is for ${request}.${instead}`,
    said: quoted(said),
  });
  if (seen.state === 'notServed')
    return {
      first: `Since ${since}, ${request} waits for cert-manager. The API server serves no CertificateRequests (cert-manager.io/v1): install cert-manager, or remove spec.root.external.certManagerIssuerRef and name an object in spec.root.external.signed.${instead}`,
      said: '',
    };
  const name = `CertificateRequest ${namespace}/${seen.name}`;
  if (seen.state === 'deleting')
    return waiting(
      `${name} is being deleted`,
      'Remove its finalizers, or wait: the operator creates it again afterwards.',
    );
  if (seen.state !== 'waiting') return waiting(`${name} for ${issuer} is due`, 'The operator creates it.');
  return seen.approved
    ? waiting(
        `${name} waits for ${issuer} to sign it`,
        `See \`kubectl describe certificaterequest -n ${namespace} ${seen.name}\`.`,
        seen.said,
      )
    : waiting(
        `${name} for ${issuer} waits for approval`,
        `Approve it (\`cmctl approve -n ${namespace} ${seen.name}\`), or have the approver of cert-manager take it.`,
        seen.said,
      );
}

/** Why the ConfigMap does not show the request; empty: it does. */
function mapNote({ kubernetes, identity }: DerivedState): string {
  const map = kubernetes.requestMap;
  const name = `ConfigMap ${identity.namespace}/${requestMapName(identity)}`;
  if (map?.content === 'foreign')
    return ` ${name} is not owned by this resource and was left alone: do not take its content for the request.`;
  return map?.lacks === undefined ? '' : ` ${name} does not show it: ${map.lacks}`;
}

/** A signature outside of Vault or a CA to import is missing, and there is no CA in use that goes on without it. */
export function outsideMissing(s: DerivedState): Problem | undefined {
  const note = outsideNote(s);
  return note && !goesOn(s) ? { condition: 'IntermediateReady', ...note, blocks: 'nothing' } : undefined;
}

/** The root is known only by what comes from outside: until then `RootReady` waits for it too. */
export function rootAwaited(s: DerivedState): Problem | undefined {
  if (s.signer) return undefined;
  const unreadable = outsideUnreadable(s);
  if (unreadable) return { ...unreadable, condition: 'RootReady' };
  const note = outsideNote(s);
  return note && { condition: 'RootReady', ...note, blocks: 'nothing' };
}

/** What is to come from outside, the signed certificate or the CA to import, is in an object that may not be read. */
export function outsideUnreadable(s: DerivedState): Problem | undefined {
  const message = s.imports ? unreadableImport(s) : unreadableSignature(s);
  if (message === undefined) return undefined;
  return { condition: 'IntermediateReady', reason: 'Forbidden', message, blocks: 'nothing' };
}

function unreadableImport(s: DerivedState): string | undefined {
  const { given } = s.kubernetes;
  const isNeeded = !s.currentCa || isRenewalDue(s);
  return isNeeded && given && 'unreadable' in given ? given.unreadable : undefined;
}

function unreadableSignature(s: DerivedState): string | undefined {
  const { signed } = s.kubernetes;
  if (signatureOf(s)?.kind === 'accepted' || (s.currentCa && awaitedCsr(s) === undefined)) return undefined;
  if (signed && 'unreadable' in signed) return signed.unreadable;
  const request = certificateRequestOf(s);
  return request?.state === 'forbidden' ? request.message : undefined;
}

/** The imported CA is gone from the key store, and the spec asks for one that is issued, which needs another root than workloads trust. */
export function importedCaLost(s: DerivedState): Problem | undefined {
  const { signer, spec } = s;
  if (s.imports || s.currentCa || s.rootSource !== 'Generate' || signer?.keyId !== '') return undefined;
  return {
    condition: 'IntermediateReady',
    reason: 'AwaitingImport',
    message: `the imported CA is not in ${spec.keyStore.mount}/${spec.keyStore.path} any more, and root ${signer.certificate.serial}, which workloads trust, is not in Vault. Restore the entry, or set spec.intermediate.source: Import, with the Secret of that CA`,
    blocks: 'nothing',
  };
}

/** The CA in use was imported, and the spec asks for one that is issued: that waits until a rotation of the root is requested. */
export function importAwaitsRotation(s: DerivedState): Problem | undefined {
  if (!s.awaitsFirstIssue) return undefined;
  return {
    condition: 'RootReady',
    reason: 'RootSpecChanged',
    message: `the CA in use was imported, and its root ${s.signer?.certificate.serial ?? ''} is not in Vault. spec.intermediate.source: Issue has a CA under another root issued, which waits for a rotation of the root: annotation ${known.rotateRoot}, see docs/migration.md. Until then nothing is made in Vault's PKI mounts`,
    blocks: 'nothing',
  };
}

/** How often an object of users is read while something is awaited from there: no event shows its change. Milliseconds. */
const outsideRecheckMs = 30_000;

/** When what is missing from outside is looked for again, milliseconds since the epoch; undefined: nothing is missing. */
export const outsideDueAt = (s: DerivedState): number | undefined =>
  outsideNote(s) ? s.now + outsideRecheckMs : undefined;
