/**
 * Who owns what, and taking over what somebody made by hand or a gone resource left, without replacing the CA.
 *
 * Adoption is decided once, while `<path>-state` is not ours yet, and recorded there before anything else is touched: from then
 * on what it names is ours, whether its mark was rewritten already or not.
 */
import { annotations as known } from '../api/annotations.ts';
import { isSignedBy } from './certificate.ts';
import type { Desired } from './desired.ts';
import { isOwn, markOf, parseMark, type Origin } from './identity.ts';
import { own, type Issuer, type Observed, type ObservedVault, type Pki } from './observed.ts';

type VaultOnly = Pick<Observed, 'vault'>;

/** Something that carries a mark or is named in the state. */
export interface Thing {
  /** `kind:path`, as the state names it. */
  name: string;
  /** The text that would carry the mark. */
  text: string;
}

/** The first line of a policy carries its mark. */
const policyMark = (policy: string): string => policy.split('\n')[0] ?? '';

/** What of this resource's places is there, by place. */
export function things(d: Desired, vault: ObservedVault) {
  const { root, intermediate, keyStore, policy, kubernetesAuth } = d.spec;
  const thing = (present: unknown, name: string, text: string | undefined): Thing | undefined =>
    present === undefined ? undefined : { name, text: text ?? '' };
  return {
    rootMount: thing(vault.rootMount, `mount:${root.mount}`, vault.rootMount?.description),
    intermediateMount: thing(
      vault.intermediateMount,
      `mount:${intermediate.mount}`,
      vault.intermediateMount?.description,
    ),
    live: thing(vault.live.entry, `entry:${keyStore.path}`, vault.live.mark),
    state: thing(vault.state.entry, `entry:${keyStore.path}-state`, vault.state.mark),
    policy: thing(vault.policy, `policy:${policy.name}`, policyMark(vault.policy ?? '')),
    role: thing(vault.role, `role:${kubernetesAuth.role}`, ''),
    authMount: thing(vault.authMount, `auth:${kubernetesAuth.mount}`, vault.authMount?.description),
  };
}

/** Ours by its mark, or because the state says that it was taken over, or was ours before somebody wrote over its mark. */
export function owns(d: Desired, o: VaultOnly, thing: Thing): boolean {
  return (
    isOwn(d.identity, thing.text) ||
    own(o.vault.state)?.adopted.includes(thing.name) === true ||
    lostItsMark(d, o, thing)
  );
}

/** Seen with our mark before, and without any now. What lies in a mount must not be somebody else's. */
function lostItsMark(d: Desired, { vault }: VaultOnly, thing: Thing): boolean {
  const state = own(vault.state);
  if (parseMark(thing.text) || !state?.made.includes(thing.name)) return false;
  const contents = [
    { name: `mount:${d.spec.root.mount}`, pki: vault.rootPki, recorded: state.root?.fingerprint },
    {
      name: `mount:${d.spec.intermediate.mount}`,
      pki: vault.intermediatePki,
      recorded: state.intermediate?.fingerprint,
    },
  ].find(({ name }) => name === thing.name);
  if (!contents?.pki || contents.pki.issuers.length + contents.pki.keys.length === 0) return true;
  return contents.pki.issuers.some((issuer) => issuer.certificate.fingerprint === contents.recorded);
}

/** Names of what carries our mark as made by us. */
export function markedAsMade(d: Desired, vault: ObservedVault): string[] {
  const { rootMount, intermediateMount, live, policy } = things(d, vault);
  return [rootMount, intermediateMount, live, policy]
    .filter((thing) => thing !== undefined)
    .filter(({ text }) => isOwn(d.identity, text) && parseMark(text)?.origin === 'made')
    .map(({ name }) => name);
}

/** Whether we made a thing or took it over: its mark says it, and until that is written, the state. */
function originOf(d: Desired, o: VaultOnly, thing: Thing | undefined): Origin {
  if (!thing) return 'made';
  const mark = isOwn(d.identity, thing.text) ? parseMark(thing.text) : undefined;
  return mark?.origin ?? (own(o.vault.state)?.adopted.includes(thing.name) ? 'adopted' : 'made');
}

/** The mark that a thing must carry. */
export const markFor = (d: Desired, o: VaultOnly, thing: Thing | undefined): string =>
  markOf(d.identity, originOf(d, o, thing));

/** Whether the auth mount's configuration is ours to write. */
export function ownsAuthMount(d: Desired, vault: ObservedVault): boolean {
  const { authMount } = things(d, vault);
  return authMount !== undefined && owns(d, { vault }, authMount);
}

/** A role carries no mark: it is ours if the state names it, or if its policies are exactly our marked policy. */
export function ownsRole(d: Desired, o: VaultOnly): boolean {
  const { role, policy } = o.vault;
  if (!role) return false;
  if (own(o.vault.state)?.role === d.spec.kubernetesAuth.role) return true;
  const ourPolicy = policy !== undefined && isOwn(d.identity, policyMark(policy));
  return ourPolicy && role.policies.length === 1 && role.policies[0] === d.spec.policy.name;
}

/**
 * A role names no owner. One that is for another policy or another namespace is somebody's who lives, and is never taken over; whose the
 * policy is tells its mark.
 */
export function roleFits(d: Desired, { vault: { role } }: VaultOnly): boolean {
  const { namespace } = d.identity;
  return (
    role?.policies.includes(d.spec.policy.name) === true &&
    role.serviceAccountNamespaces.every((name) => name === namespace || name === '*')
  );
}

/** Owners of this cluster that marks in our places name, as `namespace/name`: whether they are gone must be asked. */
export function otherOwners(d: Desired, vault: ObservedVault): string[] {
  const marks = Object.values(things(d, vault)).map((thing) => thing && parseMark(thing.text));
  const others = marks.filter((mark) => mark?.cluster === d.identity.cluster && !isOwn(d.identity, markOf(mark)));
  return [...new Set(others.map((mark) => `${mark?.namespace ?? ''}/${mark?.name ?? ''}`))];
}

/**
 * Whether a thing may be taken over: `adopt` allows what is unmarked or of a gone resource of this cluster; what another cluster
 * left needs the `take-over` annotation that names it.
 */
export function adoptable(d: Desired, o: Observed, thing: Thing): boolean {
  if (!adopting(d, o)) return false;
  const mark = parseMark(thing.text);
  if (!mark) return true;
  const owner = `${mark.namespace}/${mark.name}`;
  if (mark.cluster === d.identity.cluster) return o.kubernetes.goneOwners.includes(owner);
  return d.annotations[known.takeOver] === `${mark.cluster}/${owner}`;
}

/** Adoption happens once, before the state is ours. */
const adopting = (d: Desired, o: VaultOnly): boolean => d.spec.adopt && own(o.vault.state) === undefined;

/** What stands in our places and would be taken over. */
export interface Adoption {
  /** Names of all of it. */
  things: string[];
  /** The CA itself; undefined when only things beside it are taken over. */
  ca:
    | {
        root: Issuer | undefined;
        intermediate: Issuer | undefined;
        /** Of what a gone resource left; 1 for what was made by hand. */
        generation: number;
      }
    | undefined;
}

const defaultIssuer = (pki: Pki | undefined): Issuer | undefined =>
  pki?.issuers.find((issuer) => issuer.id === pki.defaultIssuerId);

/** Public half of the key in the live entry, be that ours already or not. */
const liveKey = ({ live }: ObservedVault): string | undefined => live.foreign?.publicKey ?? own(live)?.publicKey;

/** The intermediate whose key lies in the live entry; else the default issuer, to say what does not fit. */
function intermediateFound(vault: ObservedVault): Issuer | undefined {
  const { intermediatePki } = vault;
  const standing = defaultIssuer(intermediatePki);
  const key = liveKey(vault);
  if (standing?.certificate.publicKey === key) return standing;
  return intermediatePki?.issuers.find((i) => i.certificate.publicKey === key) ?? standing;
}

/**
 * What would be taken over now.
 * @returns undefined when nothing is: not asked for, done already, or nothing of others stands in our places; a text when what is there
 *   does not fit together
 */
export function adoptionOf(d: Desired, o: Observed): Adoption | string | undefined {
  if (!adopting(d, o)) return undefined;
  const { vault } = o;
  const { rootMount, intermediateMount, live, policy, role, authMount } = things(d, vault);
  const foreign = (found: (Thing | undefined)[]) =>
    found.filter((thing) => thing !== undefined).filter((thing) => !isOwn(d.identity, thing.text));
  const parts = foreign([rootMount, intermediateMount, live]);
  const shared = d.spec.kubernetesAuth.config.manage ? authMount : undefined;
  const beside = foreign([policy, ownsRole(d, o) || !roleFits(d, o) ? undefined : role, shared]);
  const names = [...parts, ...beside].map((thing) => thing.name);
  if (parts.length === 0) return names.length > 0 ? { things: names, ca: undefined } : undefined;
  const intermediate = intermediateFound(vault);
  const root = intermediate
    ? vault.rootPki?.issuers.find((i) => isSignedBy(intermediate.certificate, i.certificate))
    : defaultIssuer(vault.rootPki);
  const ca = { root, intermediate, generation: Math.max(1, vault.live.foreign?.generation ?? 1) };
  return defectOf(d, ca, vault) ?? { things: names, ca };
}

function defectOf(
  d: Desired,
  { root, intermediate }: NonNullable<Adoption['ca']>,
  vault: ObservedVault,
): string | undefined {
  const { spec } = d;
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
