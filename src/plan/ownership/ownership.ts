/**
 * Which objects in Vault this resource owns: by the ownership marker that an object carries, or because the state entry names the object.
 * Pure.
 */
import { derivedOnce, type DerivedState, type DerivedVault } from '../facts/derived.ts';
import { annotations as known } from '../../api/annotations.ts';
import { isOwnMarker, markerOf, parseMarker, type Identity, type Origin } from '../facts/identity.ts';

/** An object that carries an ownership marker, or that the state entry names. */
export interface Ownable {
  /** `kind:path`, as the state names it. */
  name: string;
  /** The text that would carry the mark. */
  text: string;
}

/** The first line of a policy carries its mark. */
const policyMarker = (policy: string): string => policy.split('\n')[0] ?? '';

/** Objects at the paths of this resource, by role; undefined: there is none. */
export const ownables = derivedOnce((s: DerivedVault) => {
  const { root, intermediate, keyStore, policy, kubernetesAuth } = s.spec;
  const thing = (present: unknown, name: string, text: string | undefined): Ownable | undefined =>
    present === undefined ? undefined : { name, text: text ?? '' };
  return {
    rootMount: thing(s.vault.rootMount, `mount:${root.mount}`, s.vault.rootMount?.description),
    intermediateMount: thing(
      s.vault.intermediateMount,
      `mount:${intermediate.mount}`,
      s.vault.intermediateMount?.description,
    ),
    live: thing(s.vault.live.entry, `entry:${keyStore.path}`, s.vault.live.mark),
    staging: thing(s.vault.staging.entry, `entry:${keyStore.path}-staging`, s.vault.staging.mark),
    state: thing(s.vault.state.entry, `entry:${keyStore.path}-state`, s.vault.state.mark),
    policy: thing(s.vault.policy, `policy:${policy.name}`, policyMarker(s.vault.policy ?? '')),
    role: thing(s.vault.role, `role:${kubernetesAuth.role}`, ''),
    authMount: thing(s.vault.authMount, `auth:${kubernetesAuth.mount}`, s.vault.authMount?.description),
  };
});

/** Ours by its mark, or because the state says that it was taken over, or was ours before somebody wrote over its mark. */
export function owns(s: DerivedVault, thing: Ownable): boolean {
  return (
    isOwnMarker(s.identity, thing.text) ||
    s.stateEntry?.adopted.includes(thing.name) === true ||
    lostItsMarker(s, thing)
  );
}

/** Seen with our mark before, and without any now. What lies in a mount must not be somebody else's. */

function lostItsMarker(s: DerivedVault, thing: Ownable): boolean {
  const { vault, stateEntry: state } = s;
  if (parseMarker(thing.text) || !state?.made.includes(thing.name)) return false;
  const contents = [
    { name: `mount:${s.spec.root.mount}`, pki: vault.rootPki, recorded: state.root?.fingerprint },
    {
      name: `mount:${s.spec.intermediate.mount}`,
      pki: vault.intermediatePki,
      recorded: state.intermediate?.fingerprint,
    },
  ].find(({ name }) => name === thing.name);
  if (!contents?.pki || contents.pki.issuers.length + contents.pki.keys.length === 0) return true;
  return contents.pki.issuers.some((issuer) => issuer.certificate.fingerprint === contents.recorded);
}

/** Names of what carries our mark as made by us, or as taken over. */
export function markedAs(s: DerivedVault, origin: Origin): string[] {
  const { rootMount, intermediateMount, live, policy } = ownables(s);
  return [rootMount, intermediateMount, live, policy]
    .filter((thing) => thing !== undefined)
    .filter(({ text }) => isOwnMarker(s.identity, text) && parseMarker(text)?.origin === origin)
    .map(({ name }) => name);
}

/** Whether we made a thing or took it over: its mark says it, and until that is written, the state. */
function originOf(s: DerivedVault, thing: Ownable | undefined): Origin {
  if (!thing) return 'made';
  const mark = isOwnMarker(s.identity, thing.text) ? parseMarker(thing.text) : undefined;
  return mark?.origin ?? (s.stateEntry?.adopted.includes(thing.name) ? 'adopted' : 'made');
}

/** The mark that a thing must carry. */
export const markerFor = (s: DerivedVault, thing: Ownable | undefined): string =>
  markerOf(s.identity, originOf(s, thing));

/** Whether the auth mount's configuration is ours to write. */
export function ownsAuthMount(s: DerivedVault): boolean {
  const { authMount } = ownables(s);
  return authMount !== undefined && owns(s, authMount);
}

/** A role carries no mark: it is ours if the state names it, or if its policies are exactly our marked policy. */
export function ownsRole(s: DerivedVault): boolean {
  const { role, policy } = s.vault;
  if (!role) return false;
  if (s.stateEntry?.role === s.spec.kubernetesAuth.role) return true;
  const ourPolicy = policy !== undefined && isOwnMarker(s.identity, policyMarker(policy));
  return ourPolicy && role.policies.length === 1 && role.policies[0] === s.spec.policy.name;
}

/**
 * A role names no owner. One that is for another policy or another namespace is somebody's who lives, and is never taken over; whose the
 * policy is tells its mark.
 */
export function roleFits(s: DerivedVault): boolean {
  const { namespace } = s.identity;
  const { role } = s.vault;
  return (
    role?.policies.includes(s.spec.policy.name) === true &&
    role.serviceAccountNamespaces.every((name) => name === namespace || name === '*')
  );
}

/** Names of what was taken over, as far as marks tell when the memory is lost; a role is told by its policy. */
export function adoptedByMarker(s: DerivedVault): string[] {
  const { policy, role } = ownables(s);
  const marked = markedAs(s, 'adopted');
  return role && policy && marked.includes(policy.name) && ownsRole(s) ? [...marked, role.name] : marked;
}

/** Owners of this cluster that marks in our places name, as `namespace/name`: whether they are gone must be asked. */
export function otherOwners(s: DerivedVault): string[] {
  const marks = Object.values(ownables(s)).map((thing) => thing && parseMarker(thing.text));
  const others = marks.filter(
    (mark) => mark?.cluster === s.identity.cluster && !isOwnMarker(s.identity, markerOf(mark)),
  );
  return [...new Set(others.map((mark) => `${mark?.namespace ?? ''}/${mark?.name ?? ''}`))];
}

/** Adoption happens once, before the state is ours. */
export const adopting = (s: DerivedVault): boolean => s.spec.adopt && s.stateEntry === undefined;

/** The resource that a mark names is gone: the operator has looked, or, in another cluster, a person says so. */
function isGone(s: DerivedState, mark: Identity): boolean {
  const owner = `${mark.namespace}/${mark.name}`;
  if (mark.cluster === s.identity.cluster) return s.kubernetes.goneOwners.includes(owner);
  return s.desired.annotations[known.takeOver] === `${mark.cluster}/${owner}`;
}

/**
 * Whether a thing may be taken over: `adopt` allows what is unmarked or of a gone resource of this cluster; what another cluster
 * left needs the `take-over` annotation that names it.
 */
export function adoptable(s: DerivedState, thing: Ownable): boolean {
  if (!adopting(s)) return false;
  const mark = parseMarker(thing.text);
  return !mark || isGone(s, mark);
}

/**
 * The mark of what a gone resource has staged, where it may be destroyed: a key that was never published serves nobody. One without a mark is a
 * person's, and stays.
 */
export function abandonedStagingMarker(s: DerivedState): string | undefined {
  const { mark, entry } = s.vault.staging;
  const owner = parseMarker(mark);
  return s.spec.adopt && entry === 'foreign' && owner && isGone(s, owner) ? mark : undefined;
}
