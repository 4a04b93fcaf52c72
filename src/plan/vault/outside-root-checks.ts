/** Checks of a root outside of this resource: the issuer of others that is to sign, and the signature outside of Vault that is awaited. Pure. */
import { annotations as known } from '../../api/annotations.ts';
import type { DerivedState } from '../facts/derived.ts';
import { isRevoked } from '../facts/revoked.ts';
import { existingRef } from '../facts/desired.ts';
import { rfc3339 } from '../../api/time.ts';
import {
  importOf,
  isRenewalDue,
  nameOfCertificate,
  rootOfWantedIssuer,
  signatureOf,
  wasPublished,
  type Signature,
} from '../facts/outside-roots.ts';
import type { Problem } from '../facts/problem.ts';
import { isStagedForNextRoot } from '../rotation/gates.ts';

/** Until something is published nothing is written without a root; later the CA in use goes on, and everything else is kept. */
const blocks = (s: DerivedState): Problem['blocks'] => (wasPublished(s) ? 'nothing' : 'all');

/** With `root.source: Existing`: the issuer that is to sign does not exist. */
export function issuerNotFound(s: DerivedState): Problem | undefined {
  const { root } = s.spec;
  if (root.source !== 'Existing' || s.imports) return undefined;
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
  if (root.source !== 'Existing' || !wanted || s.imports) return undefined;
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
const goesOn = (s: DerivedState): boolean => {
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

/** Where the signed certificate is expected, for the user. */
function expectedPlace({ spec, identity }: DerivedState): string {
  const { signed } = spec.root.external ?? {};
  const { configMapRef, secretRef } = signed ?? {};
  const { namespace } = identity;
  if (configMapRef) return `ConfigMap ${namespace}/${configMapRef.name}, key ${configMapRef.key}`;
  return secretRef
    ? `Secret ${namespace}/${secretRef.name}, key ${secretRef.key}`
    : 'the object that spec.root.external names';
}

/** What is missing from outside of Vault. */
interface OutsideNote {
  reason: 'AwaitingSignature' | 'SignedCertificateRefused' | 'AwaitingImport' | 'ImportRefused';
  message: string;
}

/** Reason and message while a signature outside of Vault or a CA to import is missing; undefined: none is. */
export const outsideNote = (s: DerivedState): OutsideNote | undefined => (s.imports ? importNote(s) : signatureNote(s));

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
  const { namespace, name } = s.identity;
  if (missing.kind === 'refused')
    return {
      reason: 'SignedCertificateRefused',
      message: `The certificate in ${missing.place} was not used: ${missing.why}. Nothing was installed, and ${request} is still to be signed.`,
    };
  const root = s.signer ? `with root ${s.signer.certificate.serial} at its top` : 'under the root of your choice';
  return {
    reason: 'AwaitingSignature',
    message: `Since ${staged.csr.madeAt}, ${request} waits for a signature outside of Vault. Have it signed as a CA, ${root} (\`kubectl get ivca -n ${namespace} ${name} -o jsonpath='{.status.csr}'\`). Put the certificate, followed by the CAs above it and the root, into ${expectedPlace(s)}. See docs/external-root.md.`,
  };
}

/** A signature outside of Vault or a CA to import is missing, and there is no CA in use that goes on without it. */
export function outsideMissing(s: DerivedState): Problem | undefined {
  const note = outsideNote(s);
  return note && !goesOn(s) ? { condition: 'IntermediateReady', ...note, blocks: 'nothing' } : undefined;
}

/** The root is known only by what comes from outside: until then `RootReady` waits for it too. */
export function rootAwaited(s: DerivedState): Problem | undefined {
  const note = s.signer ? undefined : outsideNote(s);
  return note && { condition: 'RootReady', ...note, blocks: 'nothing' };
}

/** The object with the signed certificate, or with the CA to import, may not be read. */
export function outsideUnreadable(s: DerivedState): Problem | undefined {
  const { signed, given } = s.kubernetes;
  const object = s.imports ? given : signed;
  const isNeeded = !s.currentCa || (s.imports ? isRenewalDue(s) : s.stagingEntry?.csr !== undefined);
  if (!object || !('unreadable' in object) || !isNeeded) return undefined;
  return { condition: 'IntermediateReady', reason: 'Forbidden', message: object.unreadable, blocks: 'nothing' };
}

/** The imported CA is gone from the key store, and the spec asks for one that is issued, which needs another root than workloads trust. */
export function importedCaLost(s: DerivedState): Problem | undefined {
  const { signer, spec } = s;
  if (s.imports || s.currentCa || spec.root.source !== 'Generate' || signer?.keyId !== '') return undefined;
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
