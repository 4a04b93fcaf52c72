/**
 * Adoption (`spec.adopt`): this resource becomes the owner of objects that users created, or that a deleted resource left, and keeps the CA.
 *
 * The planner decides on adoption once, before this resource has a state entry. The first write records the adopted objects in the state
 * entry. From then on this resource owns them, whether or not their markers are rewritten already.
 */
import { derivedOnce, type DerivedState } from '../facts/derived.ts';
import { splitPem } from '../../text/pem.ts';
import { bundleFacts, isSignedBy, type CertificateFacts } from '../facts/certificate.ts';
import { pathTo } from '../facts/certificate-path.ts';
import { defectOfCas, nameOfCertificate as nameOf } from '../facts/ca-defects.ts';
import { pathOfGiven, rootOfWantedIssuer } from '../facts/outside-roots.ts';
import { rootSourceOf, type Desired } from '../facts/desired.ts';
import { isOwnMarker } from '../facts/identity.ts';
import { ownEntry, type Issuer, type ObservedVault, type Pki } from '../facts/observed.ts';
import { adopting, ownsRole, roleFits, ownables, type Ownable } from './ownership.ts';

/** Objects at the paths of this resource that are to be adopted. */
export interface Adoption {
  /** Names of all objects, as `kind:path`. */
  objects: string[];
  /** undefined: neither a PKI mount nor the CA entry is to be adopted. */
  ca:
    | {
        /** The root that signed the intermediate; without an intermediate, the default issuer. undefined: there is none. */
        root: Issuer | undefined;
        /** The second root in root-cert.pem, if there is one: a root rotation is in progress. */
        retiring: Issuer | undefined;
        intermediate: Issuer | undefined;
        /** CA generation: as in the CA entry of a deleted resource, 1 for a CA that users created. */
        generation: number;
      }
    | undefined;
}

const defaultIssuer = (pki: Pki | undefined): Issuer | undefined =>
  pki?.issuers.find((issuer) => issuer.id === pki.defaultIssuerId);

/** Public key of the CA entry, which this resource owns or not; undefined: the entry does not exist or contains no private key. */
const caEntryKey = ({ live }: ObservedVault): string | undefined =>
  live.foreign?.publicKey ?? ownEntry(live)?.publicKey;

/** The intermediate with the key of the CA entry. Otherwise the default issuer, so that a message can name what does not match. */
function intermediateToAdopt(vault: ObservedVault): Issuer | undefined {
  const { intermediatePki } = vault;
  const preferred = defaultIssuer(intermediatePki);
  const key = caEntryKey(vault);
  if (preferred?.certificate.publicKey === key) return preferred;
  return intermediatePki?.issuers.find((i) => i.certificate.publicKey === key) ?? preferred;
}

/**
 * root-cert.pem of the CA entry, which this resource owns or not: `blocks` has every PEM block, `roots` each certificate that can be parsed,
 * without duplicates.
 */
function distributedRoots({ live }: ObservedVault): { blocks: string[]; roots: CertificateFacts[] } {
  const text = live.foreign?.root ?? ownEntry(live)?.root ?? '';
  const all = new Map(bundleFacts(text).map((root) => [root.fingerprint, root]));
  return { blocks: splitPem(text), roots: [...all.values()] };
}

/** The root to adopt: the one that signed the intermediate and, of several such roots, the one in root-cert.pem. */
function rootToAdopt(vault: ObservedVault, intermediate: Issuer | undefined): Issuer | undefined {
  const signed = intermediate?.certificate ?? ownEntry(vault.live)?.certificate;
  if (!signed) return defaultIssuer(vault.rootPki);
  const signers = (vault.rootPki?.issuers ?? []).filter((i) => isSignedBy(signed, i.certificate));
  const distributed = distributedRoots(vault).roots.map(({ fingerprint }) => fingerprint);
  return signers.find(({ certificate }) => distributed.includes(certificate.fingerprint)) ?? signers[0];
}

/**
 * Objects that are to be adopted now.
 * @returns undefined: adoption is not requested or took place before, or the paths have no object of another owner. A text: why the
 *   objects cannot be adopted, for the user
 */
export const adoptionOf = derivedOnce((s: DerivedState): Adoption | string | undefined => {
  if (!adopting(s)) return undefined;
  const { vault } = s;
  const { rootMount, intermediateMount, live, policy, role } = ownables(s);
  const foreign = (objects: (Ownable | undefined)[]) =>
    objects.filter((object) => object !== undefined).filter((object) => !isOwnMarker(s.identity, object.text));
  const ofCa = foreign([rootMount, intermediateMount, live]);
  const adoptsRole = s.spec.kubernetesAuth.manage && !ownsRole(s) && roleFits(s);
  const ofAccess = foreign([s.spec.policy.manage ? policy : undefined, adoptsRole ? role : undefined]);
  const objects = [...ofCa, ...ofAccess].map((object) => object.name);
  if (ofCa.length === 0) return objects.length > 0 ? { objects, ca: undefined } : undefined;
  const intermediate = s.imports ? importedToAdopt(vault) : intermediateToAdopt(vault);
  const root = s.issuesRoot ? rootToAdopt(vault, intermediate) : outsideRootToAdopt(s, intermediate);
  // the roots of the owner of the mount are all handed out, whatever they were handed out for
  const known = [root, ...(s.sharedRoots?.roots ?? [])].map((one) => one?.certificate.fingerprint);
  const others = distributedRoots(vault).roots.filter(({ fingerprint }) => !known.includes(fingerprint));
  const retiring = retiringRoot(s, others[0]);
  const ca = { root, retiring, intermediate, generation: Math.max(1, vault.live.foreign?.generation ?? 1) };
  const defect = s.imports ? importedDefect(s, ca) : caDefect(s.desired, ca, vault);
  if (defect !== undefined) return `${defect}; ${s.imports ? importRemedy : caRemedy}`;
  return fieldsDefect(s.desired, vault) ?? rootsDefect(s.desired, ca, others, vault) ?? { objects, ca };
});

/** The certificates of the CA entry to adopt: its own first, then its chain and its roots. */
const certificatesIn = (vault: ObservedVault): CertificateFacts[] => [
  ...(vault.live.foreign?.certificates ?? []),
  ...distributedRoots(vault).roots,
];

/** With `intermediate.source: Import`: the CA in the CA entry to adopt, which is in no mount; undefined: the entry has no certificate. */
function importedToAdopt(vault: ObservedVault): Issuer | undefined {
  const [certificate] = vault.live.foreign?.certificates ?? [];
  return certificate && outside(certificate);
}

/** Why the CA entry is not one CA that could have been imported; undefined: it is. */
function importedDefect(s: DerivedState, { root, intermediate }: NonNullable<Adoption['ca']>): string | undefined {
  const { keyStore } = s.spec;
  const entry = `${keyStore.mount}/${keyStore.path}`;
  const key = caEntryKey(s.vault);
  if (key === undefined) return `${entry} holds no ca-key.pem with a private key`;
  if (!intermediate) return `${entry} holds a key, and no certificate in ca-cert.pem`;
  const { certificate } = intermediate;
  if (certificate.publicKey !== key) return `ca-key.pem of ${entry} is not the key of ca-cert.pem`;
  const path = root && pathOfGiven(s, certificate, certificatesIn(s.vault));
  if (!path)
    return `ca-cert.pem of ${entry}, ${nameOf(certificate)}, does not lead through cert-chain.pem to a self-signed root in ${s.kubernetes.givenRoots?.place ?? 'root-cert.pem'}`;
  const defect = defectOfCas(path, s.now);
  return defect === undefined ? undefined : `of ca-cert.pem in ${entry}, ${nameOf(certificate)}: ${defect}`;
}

/** A root outside, as an issuer without a key; its id is that of the issuer of others that signs. */
const outside = (certificate: CertificateFacts, id = ''): Issuer => ({ id, keyId: '', keyName: '', certificate });

/**
 * The root outside to adopt: the one above the issuer of others if that signed the intermediate; for one outside of Vault, the distributed root that the
 * intermediate leads to.
 */
function outsideRootToAdopt(s: DerivedState, intermediate: Issuer | undefined): Issuer | undefined {
  const { wantedIssuer: wanted, vault } = s;
  if (s.imports) {
    const top = intermediate && pathOfGiven(s, intermediate.certificate, certificatesIn(vault))?.at(-1);
    return top && outside(top);
  }
  if (s.rootSource === 'Existing') {
    const root = rootOfWantedIssuer(s);
    const signed = intermediate === undefined || (wanted && isSignedBy(intermediate.certificate, wanted.certificate));
    return root && wanted && signed ? outside(root, wanted.id) : undefined;
  }
  const known = vault.intermediatePki?.issuers.map(({ certificate }) => certificate) ?? [];
  const path = intermediate && pathTo(intermediate.certificate, known, distributedRoots(vault).roots);
  const root = path?.at(-1);
  return root && outside(root);
}

/** The second distributed root. Outside, what it was distributed for is not known: it is retired like the rest of a rotation. */
function retiringRoot({ vault, issuesRoot }: DerivedState, other: CertificateFacts | undefined): Issuer | undefined {
  if (!issuesRoot) return other && outside(other);
  return vault.rootPki?.issuers.find((i) => i.certificate.fingerprint === other?.fingerprint);
}

const caRemedy =
  'nothing was changed. Put the matching parts back, or choose other mounts and paths and let a new CA be made';

const importRemedy =
  'nothing was changed. Put the matching parts into the entry, or choose another path and let the CA be imported from its Secret';

/** Why key, intermediate and root are not one CA; undefined: they are, or there is neither an intermediate nor a CA entry to adopt. */
function caDefect(
  { spec }: Desired,
  { root, intermediate }: NonNullable<Adoption['ca']>,
  vault: ObservedVault,
): string | undefined {
  const entry = `${spec.keyStore.mount}/${spec.keyStore.path}`;
  if (!intermediate) {
    if (vault.live.entry !== 'foreign') return undefined;
    const held =
      vault.live.foreign?.publicKey === undefined ? 'something else than ca-key.pem with a private key' : 'a key';
    return `the key store entry ${entry} holds ${held}, and mount ${spec.intermediate.mount} has no issuer${held === 'a key' ? ' for it' : ''}`;
  }
  const name = `the intermediate ${intermediate.certificate.serial} of ${spec.intermediate.mount}`;
  const key = caEntryKey(vault);
  if (key === undefined) return `${entry} holds no ca-key.pem that is the private key of ${name}`;
  if (key !== intermediate.certificate.publicKey) {
    return `ca-key.pem of ${entry} is not the key of ${name}`;
  }
  if (!root) return unsignedBy(spec, name);
  const isOwn = rootSourceOf(spec) === 'Generate';
  const tier = isOwn && !root.certificate.selfIssued;
  if (tier)
    return `the issuer ${nameOf(root.certificate)} of ${spec.root.mount}, which signed ${name}, is no root: set spec.root.source: Existing (with spec.root.existing.rootCertRef, if the mount does not have the root above it)`;
  if (isOwn && root.keyId === '') return `the root ${root.certificate.serial} in ${spec.root.mount} has no key there`;
  if (intermediate.keyId === '') return `${name} has no key there`;
  return undefined;
}

/** What an intermediate is not signed by. @param name of the intermediate, for the user */
function unsignedBy(spec: Desired['spec'], name: string): string {
  const { mount, existing } = spec.root;
  const source = rootSourceOf(spec);
  if (source === 'External')
    return `${name} does not lead to a root in root-cert.pem: the CAs above it must be issuers of its mount (\`vault write <mount>/intermediate/set-signed certificate=@chain.pem\`), and the root in root-cert.pem`;
  if (source === 'Generate') return `${name} is not signed by an issuer of ${mount}`;
  return `${name} is not signed by issuer ${existing?.issuerRef ?? 'default'} of ${mount}, or no root is known above that: name the issuer that signed it in spec.root.existing.issuerRef`;
}

/** A message names at most this many fields. */
const mostNamed = 5;

/**
 * Why the CA entry cannot be adopted: it contains fields of others. The operator writes the whole entry, so these fields would be lost. The
 * text has their names, never their values. undefined: there is no such field.
 */
function fieldsDefect({ spec: { keyStore } }: Desired, { live }: ObservedVault): string | undefined {
  // on KV 1, field `ttl` sets how often Vault Agent reads the entry again, and the operator sets it
  const others = (live.foreign?.others ?? []).filter((name) => name !== 'ttl' || keyStore.version === 2);
  if (others.length === 0) return undefined;
  const more = others.length > mostNamed ? ` and ${others.length - mostNamed} more` : '';
  const names = others.slice(0, mostNamed).map((name) => JSON.stringify(name.slice(0, 100)));
  return `${keyStore.mount}/${keyStore.path} also holds ${names.join(', ')}${more}, which would be lost: this resource writes the whole entry; nothing was changed. Move that to another entry, and leave in this one the four files of istiod's CA, or ca-key.pem alone`;
}

/**
 * Why the distributed roots cannot be adopted, with the remedy; undefined: they can. Two roots with their keys in the root mount are a
 * rotation, which continues. Any other root can be trusted for an unknown reason, and this resource would remove it from root-cert.pem.
 * @param others distributed roots, except the one to adopt and those of the owner of the mount
 */
function rootsDefect(
  desired: Desired,
  { root, retiring }: NonNullable<Adoption['ca']>,
  others: CertificateFacts[],
  vault: ObservedVault,
): string | undefined {
  const { keyStore, root: spec, delivery, intermediate } = desired.spec;
  const { blocks, roots } = distributedRoots(vault);
  const file = `root-cert.pem of ${keyStore.mount}/${keyStore.path}`;
  const alternative = 'or take root-cert.pem out of the entry, if istiod does not read it there';
  if (blocks.some((block) => bundleFacts(block).length === 0))
    return `${file} holds a certificate that cannot be read; nothing was changed. Put it right, ${alternative}`;
  if (!root) return undefined;
  if (roots.length > 0 && !roots.some(({ fingerprint }) => fingerprint === root.certificate.fingerprint))
    return `${file} does not hold the root ${root.certificate.serial}, which signed the intermediate; nothing was changed. Put that root into it, ${alternative}`;
  const [first] = others;
  if (!first) return undefined;
  const takeOut = (what: string) =>
    `nothing was changed. Take ${what} out of the entry once no workload certificate is left under it, ${alternative}`;
  if (others.length > 1)
    return `${file} hands out ${roots.length} roots, and a rotation has two: besides the one that signs, ${others.map(nameOf).join(', ')}; ${takeOut('each but one')}`;
  const issuesRoot = rootSourceOf(desired.spec) === 'Generate' && intermediate.source === 'Issue';
  if (!retiring || (retiring.keyId === '' && issuesRoot))
    return `${file} also hands out the root ${nameOf(first)}, whose key is not in ${spec.mount}: this resource hands out only its own, and who trusts only that one would fail; ${takeOut('it')}`;
  if (delivery.source === 'PKI')
    return `${file} hands out two roots, and with spec.delivery.source: PKI istiod gets one; nothing was changed. Set spec.delivery.source: Bundle until the root ${nameOf(first)} has left it, ${alternative}`;
  return undefined;
}
