/**
 * Checks of a root, an intermediate and a CA entry that others manage (`manage: false`): they are read and compared with the spec, and never written. Pure.
 */
import { annotations as known } from '../../api/annotations.ts';
import { rfc3339 } from '../../api/time.ts';
import { cut, printable } from '../../text/bounded.ts';
import { bundleFacts, type CertificateFacts } from '../facts/certificate.ts';
import { leadsTo, pathTo } from '../facts/certificate-path.ts';
import { fieldsWereApplied } from '../facts/applied.ts';
import { derivedOnce, type DerivedState } from '../facts/derived.ts';
import { existingRef, seconds } from '../facts/desired.ts';
import { ownEntry } from '../facts/observed.ts';
import { defectOfCas, nameOfCertificate as nameOf } from '../facts/ca-defects.ts';
import { wasPublished } from '../facts/outside-roots.ts';
import type { Problem } from '../facts/problem.ts';
import type { RootSpec } from '../facts/state-entry.ts';
import { goesOn } from './outside-root-checks.ts';

type Condition = 'RootReady' | 'IntermediateReady' | 'KeyStored';

/** Who must act, and where it is described. @param field whose `manage` is false */
const remedyOf = (field: 'root' | 'intermediate'): string =>
  `With spec.${field}.manage: false the operator does not write it: have whoever manages it correct it, see docs/checks.md.`;

const differs = (
  condition: Condition,
  field: 'root' | 'intermediate',
  what: string,
  blocks: Problem['blocks'],
): Problem => ({ condition, reason: 'CADiffers', message: `${what}. ${remedyOf(field)}`, blocks });

/** The longest name of others in a message, in UTF-16 code units. */
const longestName = 100;
const quoted = (text: string): string => JSON.stringify(cut(printable(text), longestName));

/** How a certificate differs from what the spec asks for, as clauses. @param tier the part of the spec */
function differencesOf(certificate: CertificateFacts, wanted: RootSpec, tier: 'root' | 'intermediate'): string[] {
  const { subject, keyType, keyBits } = certificate;
  const different = (field: string, is: string, asked: string) =>
    is === asked ? [] : [`spec.${tier}.${field} is ${quoted(asked)}, and the certificate has ${quoted(is)}`];
  return [
    ...different('commonName', subject.commonName, wanted.commonName),
    ...different('organization', subject.organization, wanted.organization),
    ...different('key', `${keyType} ${keyBits}`, `${wanted.keyType} ${wanted.keyBits}`),
  ];
}

/** A lifetime clearly shorter than the spec asks for, as a clause: the certificate ends when it ends, which is reported in time. */
function shorterLife({ notBefore, notAfter }: CertificateFacts, ttl: string, tier: 'root' | 'intermediate'): string[] {
  const isShorter = notAfter - notBefore < seconds(ttl) * 900;
  return isShorter
    ? [`it was issued for a shorter time than spec.${tier}.ttl ${ttl}, until ${rfc3339(notAfter).slice(0, 10)}`]
    : [];
}

/** The mount of the root has no root that could be checked, or its default issuer is none. */
function rootOfOthersAbsent(s: DerivedState): Problem | undefined {
  const { mount } = s.spec.root;
  const wanted = s.wantedIssuer;
  const before = s.checksOnly ? 'nothing' : wasPublished(s) ? 'nothing' : 'all';
  const absent = (what: string) => differs('RootReady', 'root', what, before);
  if (!wanted) return absent(`spec.root.mount: mount ${mount}/ has no default issuer, or does not exist`);
  if (!wanted.certificate.selfIssued)
    return absent(
      `spec.root.mount: the default issuer of mount ${mount}/, ${nameOf(wanted.certificate)}, is no root. For an issuing CA of others delete this resource (deletionPolicy: Retain), and create it anew with spec.root.source: Existing`,
    );
  return undefined;
}

/** Where the CA that others manage comes from, for the user. */
function placeOf({ spec: { delivery, intermediate, keyStore } }: DerivedState): string {
  const entry = `KV entry ${keyStore.mount}/${keyStore.path}`;
  return delivery.source === 'Bundle' ? entry : `mount ${intermediate.mount}/`;
}

/** The CA that others manage is not under the root that the spec names. */
function underOtherRoot(s: DerivedState): string | undefined {
  const ca = s.currentCa;
  const { root } = s.spec;
  if (!ca || !s.checksOnly) return undefined;
  const { givenRoots } = s.kubernetes;
  const isGiven = ({ fingerprint }: CertificateFacts) =>
    givenRoots?.certificates.some((one) => one.fingerprint === fingerprint) !== false;
  const notGiven = bundleFacts(ca.root).find((one) => !isGiven(one));
  if (notGiven) return `root-cert.pem has root ${nameOf(notGiven)}, which is not in ${givenRoots?.place ?? ''}`;
  // an imported CA is under no issuer of the mount
  if (s.rootSource !== 'Existing' || s.imports) return undefined;
  const wanted = s.wantedIssuer;
  const issuer = s.rootIsOthers ? 'its default issuer' : `issuer ${existingRef(root)}`;
  if (!wanted) return `spec.root.mount: mount ${root.mount}/ has not ${issuer}, or does not exist`;
  if (leadsTo(ca.certificate, s.knownCas, wanted.certificate)) return undefined;
  return `the intermediate ${nameOf(ca.certificate)} is not under ${nameOf(wanted.certificate)}, ${issuer} of mount ${root.mount}/`;
}

/**
 * Others hand out roots of which workloads trust none. istiod has the fields, and takes up the files by itself; the operator does not restart it onto them
 * unless the user confirms.
 */
function disjointRoots(s: DerivedState): Problem | undefined {
  const [first] = s.kubernetes.meshRoots ?? [];
  const { trusted } = s.rootRoles;
  if (!s.checksOnly || s.issuesRoot || !s.currentCa || !first || !trusted || !fieldsWereApplied(s)) return undefined;
  const inMesh = new Set(s.kubernetes.meshRoots?.map(({ fingerprint }) => fingerprint));
  if (trusted.some(({ fingerprint }) => inMesh.has(fingerprint))) return undefined;
  if (s.desired.annotations[known.confirmRootChange] === first.fingerprint) return undefined;
  const [root] = trusted;
  return {
    condition: 'RootReady',
    reason: 'CADiffers',
    message: `${placeOf(s)} has another root${root ? `, ${nameOf(root)},` : ''} than workloads trust, ${nameOf(first)}. The operator does not restart istiod onto it: workloads that trust only that root would fail. Have whoever manages the CA hand out both roots first, see docs/checks.md; or annotate this resource with ${known.confirmRootChange}=${first.fingerprint}.`,
    blocks: 'controlPlane',
  };
}

/** Whether the root of this CA is to be one that others generate in the mount of the spec. That of an imported CA comes along with it. */
const isOfMount = (s: DerivedState): boolean => s.rootIsOthers && !s.imports;

/** The root that others manage is absent, is no root, or is not as the spec asks for; or the CA of others has another one. */
export function rootDiffers(s: DerivedState): Problem | undefined {
  if (!isOfMount(s) && !s.checksOnly) return undefined;
  const absent = isOfMount(s) ? rootOfOthersAbsent(s) : undefined;
  if (absent) return absent;
  if (s.checksOnly && !s.signer)
    return {
      condition: 'RootReady',
      reason: 'CADiffers',
      message:
        'The root is not known, because others have not made a complete CA yet: IntermediateReady and KeyStored say what is missing.',
      blocks: 'nothing',
    };
  const disjoint = disjointRoots(s);
  if (disjoint) return disjoint;
  const other = underOtherRoot(s);
  if (other !== undefined) return differs('RootReady', 'root', other, 'nothing');
  // the root of a CA that was imported before has no issuer in the mount
  const root = s.signer?.id ? s.signer.certificate : s.wantedIssuer?.certificate;
  if (!isOfMount(s) || !root) return undefined;
  const differences = differencesOf(root, s.desired.root, 'root');
  return differences.length === 0
    ? undefined
    : differs('RootReady', 'root', `Root ${root.serial}: ${differences.join('; ')}. Correct spec.root, or the root`, 'nothing'); // prettier-ignore
}

/** Whether the mount of the intermediate must have it: that of a CA that was imported is in the key store alone. */
const isInMount = (s: DerivedState): boolean => s.spec.intermediate.source === 'Issue' && s.caEntry?.imported !== true;

/** Why the mount of the intermediate does not hold it; undefined: it does, or need not. */
function mountDefect(s: DerivedState): string | undefined {
  const { mount } = s.spec.intermediate;
  const { intermediateMount, intermediatePki } = s.vault;
  if (!isInMount(s)) return undefined;
  if (!intermediateMount) return `spec.intermediate.mount: mount ${mount}/ does not exist`;
  if (!intermediatePki) return `spec.intermediate.mount: mount ${mount}/ is of type ${intermediateMount.type}, not pki`;
  if (s.spec.delivery.source === 'PKI' && s.caEntry?.certificate === undefined)
    return `spec.intermediate.mount: mount ${mount}/ has no default issuer`;
  const { currentCa: ca } = s;
  if (ca && !s.currentIssuer)
    return `spec.intermediate.mount: mount ${mount}/ has no issuer with the certificate of the CA entry, serial ${ca.certificate.serial}`;
  return undefined;
}

/** The CAs from the intermediate up to its root; undefined: no path leads to a root. */
const pathOf = derivedOnce((s: DerivedState): CertificateFacts[] | undefined => {
  const entry = s.caEntry;
  return entry?.certificate && pathTo(entry.certificate, bundleFacts(entry.chain), bundleFacts(entry.root));
});

/** Why the intermediate that others manage cannot be istiod's CA; undefined: it can, or there is none. */
function intermediateDefect(s: DerivedState): string | undefined {
  const certificate = s.caEntry?.certificate;
  if (!certificate) return undefined;
  const path = pathOf(s);
  const name = `the intermediate ${nameOf(certificate)} of ${placeOf(s)}`;
  const { delivery, root } = s.spec;
  const roots = delivery.source === 'Bundle' ? 'a root of root-cert.pem by CAs of cert-chain.pem' : `the default issuer of mount ${root.mount}/`; // prettier-ignore
  if (!path) return `${name} is not signed by ${roots}`;
  const defect = defectOfCas(path, s.now);
  if (defect !== undefined) return `${name} cannot be istiod's CA: ${defect}`;
  const [own] = s.issuesRoot ? s.ownRoots : [];
  if (own && !s.ownRoots.some((one) => s.leads(certificate, one.certificate)))
    return `${name} is not under root ${nameOf(own.certificate)}, which this resource generated in mount ${root.mount}/`;
  return undefined;
}

/** The intermediate that others manage is absent, cannot be istiod's CA, is revoked, is not as the spec asks for, or ends soon. */
export function intermediateDiffers(s: DerivedState): Problem | undefined {
  if (!s.checksOnly) return undefined;
  const problem = (what: string, blocks: Problem['blocks']) =>
    differs('IntermediateReady', 'intermediate', what, blocks);
  const defect = intermediateDefect(s);
  if (defect !== undefined) return problem(defect, 'controlPlane');
  const ofMount = mountDefect(s);
  const ca = s.currentCa;
  if (ofMount !== undefined) return problem(ofMount, ca ? 'nothing' : 'controlPlane');
  if (!ca) return problem('There is no intermediate that istiod could use: KeyStored says what is missing', 'controlPlane'); // prettier-ignore
  const { serial, notAfter, maxPathLength } = ca.certificate;
  if (s.isRevoked) return { ...problem(`The intermediate ${serial} was revoked`, 'nothing'), reason: 'IssuerRevoked' };
  const { intermediate } = s.desired;
  const tooLong =
    maxPathLength !== undefined && maxPathLength > intermediate.maxPathLength
      ? [`spec.intermediate.maxPathLength is ${intermediate.maxPathLength}, and the certificate has ${maxPathLength}`]
      : [];
  const differences = [...differencesOf(ca.certificate, intermediate, 'intermediate'), ...tooLong];
  if (differences.length > 0 && !ca.imported && s.spec.intermediate.source === 'Issue')
    return problem(`Intermediate ${serial}: ${differences.join('; ')}. Correct spec.intermediate, or the intermediate`, 'nothing'); // prettier-ignore
  if (goesOn(s)) return undefined;
  return {
    condition: 'IntermediateReady',
    reason: 'IntermediateExpiresSoon',
    message: `The intermediate ${serial} ends on ${rfc3339(notAfter)}. With spec.intermediate.manage: false the operator does not renew it: have whoever manages it renew it, see docs/checks.md.`,
    blocks: 'nothing',
  };
}

/** Why the key store does not hold the key of the intermediate; undefined: it does. */
function keyDefect(s: DerivedState): string | undefined {
  const { keyStore, delivery, intermediate } = s.spec;
  const name = `KV entry ${keyStore.mount}/${keyStore.path}`;
  if (!s.vault.kvMount) return `spec.keyStore.mount: mount ${keyStore.mount}/ does not exist`;
  const entry = ownEntry(s.vault.live);
  if (!entry) return `${name} does not exist`;
  if (entry.publicKey === undefined) return `${name} has no ca-key.pem that is a private key`;
  if (entry.unreadableKey)
    return `ca-key.pem of ${name} has another block before the key, so that istiod cannot read it`;
  if (delivery.source === 'PKI') {
    const served = s.caEntry?.certificate?.publicKey;
    return served === undefined || served === entry.publicKey
      ? undefined
      : `ca-key.pem of ${name} is not the key of the default issuer of mount ${intermediate.mount}/`;
  }
  const missing = [
    ...(entry.certificate ? [] : ['ca-cert.pem']),
    ...(bundleFacts(entry.chain).length > 0 ? [] : ['cert-chain.pem']),
    ...(bundleFacts(entry.root).length > 0 ? [] : ['root-cert.pem']),
  ];
  if (missing.length > 0)
    return `${name} has no ${missing.join(', no ')} that holds a certificate. If istiod is to get them from the PKI mounts, set spec.delivery.source: PKI`;
  if (entry.publicKey !== entry.certificate?.publicKey)
    return `ca-key.pem of ${name} is not the key of its ca-cert.pem`;
  if (bundleFacts(entry.chain)[0]?.fingerprint !== entry.certificate.fingerprint)
    return `cert-chain.pem of ${name} does not begin with its ca-cert.pem`;
  return undefined;
}

/** The entry that others manage is absent, lacks a file, or holds the key of another certificate; or Vault is about to delete it. */
export function keyStoreDiffers(s: DerivedState): Problem | undefined {
  if (!s.checksOnly) return undefined;
  const defect = keyDefect(s);
  if (defect !== undefined) return differs('KeyStored', 'intermediate', defect, 'controlPlane');
  const { mount, path } = s.spec.keyStore;
  const { lifetime } = s.vault.live;
  if (!lifetime) return undefined;
  return differs('KeyStored', 'intermediate', `Vault deletes KV entry ${mount}/${path} on ${rfc3339(lifetime.to)}, since delete_version_after is set for the mount or the entry`, 'nothing'); // prettier-ignore
}

/** What an annotation asks for that is not done, as a clause; none: it asks for nothing. */
const ineffective = (s: DerivedState, annotation: string): string[] =>
  annotation in s.desired.annotations
    ? [`annotation ${annotation} has no effect while spec.intermediate.manage is false`]
    : [];

/** How a root that others manage differs without harm, and what is not done of it: clauses for the message of `RootReady`. */
export function rootNotes(s: DerivedState): string[] {
  if (!isOfMount(s) && !s.checksOnly) return [];
  const root = s.signer?.certificate;
  const wanted = s.wantedIssuer?.certificate;
  const isOther = isOfMount(s) && root && wanted && root.fingerprint !== wanted.fingerprint && !s.rotation;
  const { mount, ttl } = s.spec.root;
  return [
    ...(root && isOfMount(s) ? shorterLife(root, ttl, 'root') : []),
    ...(isOther
      ? [`the default issuer of mount ${mount}/ is another root, serial ${wanted.serial}: annotation ${known.rotateRoot} moves the mesh to it`] // prettier-ignore
      : []),
    ...(s.checksOnly ? ineffective(s, known.rotateRoot) : []),
  ];
}

/** As of `rootNotes`, for the message of `IntermediateReady`. */
export function intermediateNotes(s: DerivedState): string[] {
  const ca = s.currentCa?.certificate;
  if (!s.checksOnly || !ca) return [];
  return [...shorterLife(ca, s.spec.intermediate.ttl, 'intermediate'), ...ineffective(s, known.rotateIntermediate)];
}

/** How often a CA that others manage is read: no event shows that they renewed it. Milliseconds. */
const recheckMs = 60_000;

/** When a CA that others manage is read again, milliseconds since the epoch; undefined: this resource manages it. */
export const othersDueAt = (s: DerivedState): number | undefined => (s.checksOnly ? s.now + recheckMs : undefined);
