/**
 * Which objects in Vault this resource owns: by the ownership marker that an object carries, or because the state entry names the object.
 * Pure.
 */
import { annotations as known } from '../../api/annotations.ts';
import type { Desired } from '../facts/desired.ts';
import { isOwnMarker, markerOf, parseMarker, type Identity, type Origin } from '../facts/identity.ts';
import { ownEntry, type Observed, type ObservedVault } from '../facts/observed.ts';

type VaultOnly = Pick<Observed, 'vault'>;

/** An object that carries an ownership marker, or that the state entry names. */
export interface Ownable {
  /** `kind:path`, as the state names it. */
  name: string;
  /** The text that would carry the mark. */
  text: string;
}

/** The first line of a policy carries its mark. */
const policyMarker = (policy: string): string => policy.split('\n')[0] ?? '';

/** What of this resource's places is there, by place. */
export function ownables(d: Desired, vault: ObservedVault) {
  const { root, intermediate, keyStore, policy, kubernetesAuth } = d.spec;
  const thing = (present: unknown, name: string, text: string | undefined): Ownable | undefined =>
    present === undefined ? undefined : { name, text: text ?? '' };
  return {
    rootMount: thing(vault.rootMount, `mount:${root.mount}`, vault.rootMount?.description),
    intermediateMount: thing(
      vault.intermediateMount,
      `mount:${intermediate.mount}`,
      vault.intermediateMount?.description,
    ),
    live: thing(vault.live.entry, `entry:${keyStore.path}`, vault.live.mark),
    staging: thing(vault.staging.entry, `entry:${keyStore.path}-staging`, vault.staging.mark),
    state: thing(vault.state.entry, `entry:${keyStore.path}-state`, vault.state.mark),
    policy: thing(vault.policy, `policy:${policy.name}`, policyMarker(vault.policy ?? '')),
    role: thing(vault.role, `role:${kubernetesAuth.role}`, ''),
    authMount: thing(vault.authMount, `auth:${kubernetesAuth.mount}`, vault.authMount?.description),
  };
}

/** Ours by its mark, or because the state says that it was taken over, or was ours before somebody wrote over its mark. */
export function owns(d: Desired, o: VaultOnly, thing: Ownable): boolean {
  return (
    isOwnMarker(d.identity, thing.text) ||
    ownEntry(o.vault.state)?.adopted.includes(thing.name) === true ||
    lostItsMarker(d, o, thing)
  );
}

/** Seen with our mark before, and without any now. What lies in a mount must not be somebody else's. */

function lostItsMarker(d: Desired, { vault }: VaultOnly, thing: Ownable): boolean {
  const state = ownEntry(vault.state);
  if (parseMarker(thing.text) || !state?.made.includes(thing.name)) return false;
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

/** Names of what carries our mark as made by us, or as taken over. */
export function markedAs(d: Desired, vault: ObservedVault, origin: Origin): string[] {
  const { rootMount, intermediateMount, live, policy } = ownables(d, vault);
  return [rootMount, intermediateMount, live, policy]
    .filter((thing) => thing !== undefined)
    .filter(({ text }) => isOwnMarker(d.identity, text) && parseMarker(text)?.origin === origin)
    .map(({ name }) => name);
}

/** Whether we made a thing or took it over: its mark says it, and until that is written, the state. */
function originOf(d: Desired, o: VaultOnly, thing: Ownable | undefined): Origin {
  if (!thing) return 'made';
  const mark = isOwnMarker(d.identity, thing.text) ? parseMarker(thing.text) : undefined;
  return mark?.origin ?? (ownEntry(o.vault.state)?.adopted.includes(thing.name) ? 'adopted' : 'made');
}

/** The mark that a thing must carry. */
export const markerFor = (d: Desired, o: VaultOnly, thing: Ownable | undefined): string =>
  markerOf(d.identity, originOf(d, o, thing));

/** Whether the auth mount's configuration is ours to write. */
export function ownsAuthMount(d: Desired, vault: ObservedVault): boolean {
  const { authMount } = ownables(d, vault);
  return authMount !== undefined && owns(d, { vault }, authMount);
}

/** A role carries no mark: it is ours if the state names it, or if its policies are exactly our marked policy. */
export function ownsRole(d: Desired, o: VaultOnly): boolean {
  const { role, policy } = o.vault;
  if (!role) return false;
  if (ownEntry(o.vault.state)?.role === d.spec.kubernetesAuth.role) return true;
  const ourPolicy = policy !== undefined && isOwnMarker(d.identity, policyMarker(policy));
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

/** Names of what was taken over, as far as marks tell when the memory is lost; a role is told by its policy. */
export function adoptedByMarker(d: Desired, o: VaultOnly): string[] {
  const { policy, role } = ownables(d, o.vault);
  const marked = markedAs(d, o.vault, 'adopted');
  return role && policy && marked.includes(policy.name) && ownsRole(d, o) ? [...marked, role.name] : marked;
}

/** Owners of this cluster that marks in our places name, as `namespace/name`: whether they are gone must be asked. */
export function otherOwners(d: Desired, vault: ObservedVault): string[] {
  const marks = Object.values(ownables(d, vault)).map((thing) => thing && parseMarker(thing.text));
  const others = marks.filter(
    (mark) => mark?.cluster === d.identity.cluster && !isOwnMarker(d.identity, markerOf(mark)),
  );
  return [...new Set(others.map((mark) => `${mark?.namespace ?? ''}/${mark?.name ?? ''}`))];
}

/** Adoption happens once, before the state is ours. */
export const adopting = (d: Desired, o: VaultOnly): boolean => d.spec.adopt && ownEntry(o.vault.state) === undefined;

/** The resource that a mark names is gone: the operator has looked, or, in another cluster, a person says so. */
function isGone(d: Desired, o: Observed, mark: Identity): boolean {
  const owner = `${mark.namespace}/${mark.name}`;
  if (mark.cluster === d.identity.cluster) return o.kubernetes.goneOwners.includes(owner);
  return d.annotations[known.takeOver] === `${mark.cluster}/${owner}`;
}

/**
 * Whether a thing may be taken over: `adopt` allows what is unmarked or of a gone resource of this cluster; what another cluster
 * left needs the `take-over` annotation that names it.
 */
export function adoptable(d: Desired, o: Observed, thing: Ownable): boolean {
  if (!adopting(d, o)) return false;
  const mark = parseMarker(thing.text);
  return !mark || isGone(d, o, mark);
}

/**
 * The mark of what a gone resource has staged, where it may be destroyed: a key that was never published serves nobody. One without a mark is a
 * person's, and stays.
 */
export function abandonedStagingMarker(d: Desired, o: Observed): string | undefined {
  const { mark, entry } = o.vault.staging;
  const owner = parseMarker(mark);
  return d.spec.adopt && entry === 'foreign' && owner && isGone(d, o, owner) ? mark : undefined;
}
