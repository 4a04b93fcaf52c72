/**
 * Who owns what, and taking over what somebody made by hand or a gone resource left, without replacing the CA.
 *
 * Adoption is decided once, while `<path>-state` is not ours yet, and recorded there before anything else is touched: from then
 * on what it names is ours, whether its mark was rewritten already or not.
 */
import { derivedOnce, type DerivedState } from '../facts/derived.ts';
import { bundleFacts, isSignedBy, splitPem, type CertificateFacts } from '../facts/certificate.ts';
import type { Desired } from '../facts/desired.ts';
import { isOwnMarker } from '../facts/identity.ts';
import { ownEntry, type Issuer, type ObservedVault, type Pki } from '../facts/observed.ts';
import { adopting, ownsRole, roleFits, ownables, type Ownable } from './ownership.ts';

/** What stands in our places and would be taken over. */
export interface Adoption {
  /** Names of all of it. */
  things: string[];
  /** The CA itself; undefined when only things beside it are taken over. */
  ca:
    | {
        /** The root that signed the intermediate. */
        root: Issuer | undefined;
        /** A second root that is handed out: somebody was replacing the one by the other. */
        leaving: Issuer | undefined;
        intermediate: Issuer | undefined;
        /** Of what a gone resource left; 1 for what was made by hand. */
        generation: number;
      }
    | undefined;
}

const defaultIssuer = (pki: Pki | undefined): Issuer | undefined =>
  pki?.issuers.find((issuer) => issuer.id === pki.defaultIssuerId);

/** Public half of the key in the live entry, be that ours already or not. */
const liveKey = ({ live }: ObservedVault): string | undefined => live.foreign?.publicKey ?? ownEntry(live)?.publicKey;

/** The intermediate whose key lies in the live entry; else the default issuer, to say what does not fit. */
function intermediateToAdopt(vault: ObservedVault): Issuer | undefined {
  const { intermediatePki } = vault;
  const standing = defaultIssuer(intermediatePki);
  const key = liveKey(vault);
  if (standing?.certificate.publicKey === key) return standing;
  return intermediatePki?.issuers.find((i) => i.certificate.publicKey === key) ?? standing;
}

/** The certificates of root-cert.pem in the live entry, be that ours already or not: as they lie there, and those that can be read. */
function handedOut({ live }: ObservedVault): { blocks: string[]; roots: CertificateFacts[] } {
  const text = live.foreign?.root ?? ownEntry(live)?.root ?? '';
  const all = new Map(bundleFacts(text).map((root) => [root.fingerprint, root]));
  return { blocks: splitPem(text), roots: [...all.values()] };
}

/** The root of what is taken over: of several that verify the intermediate the one that is handed out. */
function rootToAdopt(vault: ObservedVault, intermediate: Issuer | undefined): Issuer | undefined {
  const signed = intermediate?.certificate ?? ownEntry(vault.live)?.certificate;
  if (!signed) return defaultIssuer(vault.rootPki);
  const signers = (vault.rootPki?.issuers ?? []).filter((i) => isSignedBy(signed, i.certificate));
  const given = handedOut(vault).roots.map(({ fingerprint }) => fingerprint);
  return signers.find(({ certificate }) => given.includes(certificate.fingerprint)) ?? signers[0];
}

/**
 * What would be taken over now.
 * @returns undefined when nothing is: not asked for, done already, or nothing of others stands in our places; a text when what is there
 *   does not fit together
 */
export const adoptionOf = derivedOnce((s: DerivedState): Adoption | string | undefined => {
  if (!adopting(s)) return undefined;
  const { vault } = s;
  const { rootMount, intermediateMount, live, policy, role, authMount } = ownables(s);
  const foreign = (found: (Ownable | undefined)[]) =>
    found.filter((thing) => thing !== undefined).filter((thing) => !isOwnMarker(s.identity, thing.text));
  const parts = foreign([rootMount, intermediateMount, live]);
  const shared = s.spec.kubernetesAuth.config.manage ? authMount : undefined;
  const beside = foreign([policy, ownsRole(s) || !roleFits(s) ? undefined : role, shared]);
  const names = [...parts, ...beside].map((thing) => thing.name);
  if (parts.length === 0) return names.length > 0 ? { things: names, ca: undefined } : undefined;
  const intermediate = intermediateToAdopt(vault);
  const root = rootToAdopt(vault, intermediate);
  const others = handedOut(vault).roots.filter((one) => one.fingerprint !== root?.certificate.fingerprint);
  const leaving = vault.rootPki?.issuers.find((i) => i.certificate.fingerprint === others[0]?.fingerprint);
  const ca = { root, leaving, intermediate, generation: Math.max(1, vault.live.foreign?.generation ?? 1) };
  const defect = defectOf(s.desired, ca, vault);
  if (defect !== undefined) return `${defect}; ${putBack}`;
  return fieldsDefect(s.desired, vault) ?? rootsDefect(s.desired, ca, others, vault) ?? { things: names, ca };
});

const putBack =
  'nothing was changed. Put the matching parts back, or choose other mounts and paths and let a new CA be made';

function defectOf(
  { spec }: Desired,
  { root, intermediate }: NonNullable<Adoption['ca']>,
  vault: ObservedVault,
): string | undefined {
  const entry = `${spec.keyStore.mount}/${spec.keyStore.path}`;
  if (!intermediate) {
    if (vault.live.entry !== 'foreign') return undefined;
    return `the key store entry ${entry} holds a key, but mount ${spec.intermediate.mount} has no issuer for it`;
  }
  const name = `the intermediate ${intermediate.certificate.serial} of ${spec.intermediate.mount}`;
  const key = liveKey(vault);
  if (key === undefined) return `${entry} holds no ca-key.pem that is the private key of ${name}`;
  if (key !== intermediate.certificate.publicKey) {
    return `ca-key.pem of ${entry} is not the key of ${name}`;
  }
  if (!root) return `${name} is not signed by an issuer of ${spec.root.mount}`;
  if (root.keyId === '') return `the root ${root.certificate.serial} in ${spec.root.mount} has no key there`;
  if (intermediate.keyId === '') return `${name} has no key there`;
  return undefined;
}

const mostNamed = 5;

/** What somebody keeps beside the key: the entry is written as a whole from then on, so that it would be gone. Names only, never what they hold. */
function fieldsDefect({ spec: { keyStore } }: Desired, { live }: ObservedVault): string | undefined {
  // on KV 1 it says how often agents look, and is ours to set
  const others = (live.foreign?.others ?? []).filter((name) => name !== 'ttl' || keyStore.version === 2);
  if (others.length === 0) return undefined;
  const more = others.length > mostNamed ? ` and ${others.length - mostNamed} more` : '';
  const names = others.slice(0, mostNamed).map((name) => JSON.stringify(name.slice(0, 100)));
  return `${keyStore.mount}/${keyStore.path} also holds ${names.join(', ')}${more}, which would be lost: this resource writes the whole entry; nothing was changed. Move that to another entry, and leave in this one the four files of istiod's CA, or ca-key.pem alone`;
}

/**
 * Why the roots that are handed out cannot be taken over, with what to do. Two that have their keys in the root mount are a rotation, which goes on.
 * Any other may be trusted for a reason that is not known here, and this resource would take it out.
 */
function rootsDefect(
  desired: Desired,
  { root, leaving }: NonNullable<Adoption['ca']>,
  others: CertificateFacts[],
  vault: ObservedVault,
): string | undefined {
  const { keyStore, root: spec, delivery } = desired.spec;
  const { blocks, roots } = handedOut(vault);
  const file = `root-cert.pem of ${keyStore.mount}/${keyStore.path}`;
  const unread = 'or take root-cert.pem out of the entry, if istiod does not read it there';
  if (blocks.some((block) => bundleFacts(block).length === 0))
    return `${file} holds a certificate that cannot be read; nothing was changed. Put it right, ${unread}`;
  const [first] = others;
  if (!first || !root) return undefined;
  if (others.length === roots.length)
    return `${file} does not hold the root ${root.certificate.serial}, which signed the intermediate; nothing was changed. Put that root into it, ${unread}`;
  const takeOut = (what: string) =>
    `nothing was changed. Take ${what} out of the entry once no workload certificate is left under it, ${unread}`;
  if (others.length > 1)
    return `${file} hands out ${roots.length} roots, and a rotation has two: besides the one that signs, ${others.map(nameOf).join(', ')}; ${takeOut('each but one')}`;
  if (!leaving?.keyId)
    return `${file} also hands out the root ${nameOf(first)}, whose key is not in ${spec.mount}: this resource hands out only its own, and who trusts only that one would fail; ${takeOut('it')}`;
  if (delivery.source === 'PKI')
    return `${file} hands out two roots, and with spec.delivery.source: PKI istiod gets one; nothing was changed. Set spec.delivery.source: Bundle until the root ${nameOf(first)} has left it, ${unread}`;
  return undefined;
}

/** A root for people. */
const nameOf = ({ subject, serial, fingerprint }: CertificateFacts): string =>
  `"${subject.commonName || subject.organization}" (serial ${serial}, SHA-256 ${fingerprint})`;
