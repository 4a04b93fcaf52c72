/**
 * Decides which objects in Vault this resource owns: by the ownership marker that an object carries, or because the state entry names the
 * object. Pure.
 */
import { rootSourceOf } from '../facts/desired.ts';
import { derivedOnce, type DerivedState } from '../facts/derived.ts';
import type { DerivedVault } from '../facts/derived-vault.ts';
import { annotations as known } from '../../api/annotations.ts';
import { isOwnMarker, markerOf, parseMarker, type Identity, type Origin } from '../facts/identity.ts';

/** An existing object in Vault that can carry an ownership marker, or that the state entry can name. */
export interface Ownable {
  /** `kind:path`, as the state entry names the object. */
  name: string;
  /** The part of the object that contains the marker, if there is one. */
  text: string;
}

/** The part of a policy that contains the marker: the first line. */
const policyMarker = (policy: string): string => policy.split('\n')[0] ?? '';

/**
 * The objects at the paths of this resource, owned by it or not; undefined: the path has no object, or one of the CA or its entries that the spec leaves
 * to others (`manage: false`).
 */
export const ownables = derivedOnce((s: DerivedVault) => {
  const { root, intermediate, keyStore, policy, kubernetesAuth } = s.spec;
  const ownable = (object: unknown, name: string, text: string | undefined): Ownable | undefined =>
    object === undefined ? undefined : { name, text: text ?? '' };
  return {
    rootMount: ownable(
      rootSourceOf(s.spec) === 'Generate' ? s.vault.rootMount : undefined,
      `mount:${root.mount}`,
      s.vault.rootMount?.description,
    ),
    intermediateMount: ownable(
      intermediate.manage ? s.vault.intermediateMount : undefined,
      `mount:${intermediate.mount}`,
      s.vault.intermediateMount?.description,
    ),
    live: ownable(intermediate.manage ? s.vault.live.entry : undefined, `entry:${keyStore.path}`, s.vault.live.mark),
    staging: ownable(
      intermediate.manage ? s.vault.staging.entry : undefined,
      `entry:${keyStore.path}-staging`,
      s.vault.staging.mark,
    ),
    state: ownable(
      keyStore.manage ? s.vault.state.entry : undefined,
      `entry:${keyStore.path}-state`,
      s.vault.state.mark,
    ),
    policy: ownable(s.vault.policy, `policy:${policy.name}`, policyMarker(s.vault.policy ?? '')),
    role: ownable(s.vault.role, `role:${kubernetesAuth.role}`, ''),
    authMount: ownable(s.vault.authMount, `auth:${kubernetesAuth.mount}`, s.vault.authMount?.description),
  };
});

/** Whether this resource owns an object: by the marker, because the state entry lists it as adopted, or because it lost its marker. */
export function owns(s: DerivedVault, object: Ownable): boolean {
  return (
    isOwnMarker(s.identity, object.text) ||
    s.stateEntry?.adopted.includes(object.name) === true ||
    lostItsMarker(s, object)
  );
}

/**
 * Whether the state entry lists an object as created by this resource although it carries no marker. A PKI mount must also be empty or contain
 * the recorded certificate: otherwise it is not the mount that the resource created.
 */
function lostItsMarker(s: DerivedVault, object: Ownable): boolean {
  const { vault, stateEntry: state } = s;
  if (parseMarker(object.text) || !state?.made.includes(object.name)) return false;
  const mount = [
    { name: `mount:${s.spec.root.mount}`, pki: vault.rootPki, recorded: state.root?.fingerprint },
    {
      name: `mount:${s.spec.intermediate.mount}`,
      pki: vault.intermediatePki,
      recorded: state.intermediate?.fingerprint,
    },
  ].find(({ name }) => name === object.name);
  if (!mount?.pki || mount.pki.issuers.length + mount.pki.keys.length === 0) return true;
  return mount.pki.issuers.some((issuer) => issuer.certificate.fingerprint === mount.recorded);
}

/** Whether this resource created an object: the marker says so, and the state entry does not list the object as adopted. */
export function created(s: DerivedVault, object: Ownable | undefined): boolean {
  if (!object || s.stateEntry?.adopted.includes(object.name) === true) return false;
  return isOwnMarker(s.identity, object.text) && parseMarker(object.text)?.origin === 'made';
}

/**
 * Names of the objects whose marker says that this resource created them, or adopted them. A policy that this resource does not manage is not
 * among them: it can still carry the marker from before.
 */
export function markedAs(s: DerivedVault, origin: Origin): string[] {
  const { rootMount, intermediateMount, live, policy } = ownables(s);
  return [rootMount, intermediateMount, live, s.spec.policy.manage ? policy : undefined]
    .filter((object) => object !== undefined)
    .filter(({ text }) => isOwnMarker(s.identity, text) && parseMarker(text)?.origin === origin)
    .map(({ name }) => name);
}

/** Whether this resource created or adopted an object: by the marker or, until the marker is written, by the state entry. */
function originOf(s: DerivedVault, object: Ownable | undefined): Origin {
  if (!object) return 'made';
  const marker = isOwnMarker(s.identity, object.text) ? parseMarker(object.text) : undefined;
  return marker?.origin ?? (s.stateEntry?.adopted.includes(object.name) ? 'adopted' : 'made');
}

/** The marker that an object must carry. @param object undefined: this resource is about to create it */
export const markerFor = (s: DerivedVault, object: Ownable | undefined): string =>
  markerOf(s.identity, originOf(s, object));

/**
 * Whether this resource made the auth mount, and so writes its configuration. A mount that somebody else made is shared: its configuration
 * decides for everybody's logins, so it is not adopted.
 */
export function ownsAuthMount(s: DerivedVault): boolean {
  const { authMount } = ownables(s);
  if (!s.spec.kubernetesAuth.manage || !s.spec.keyStore.manage) return false;
  return authMount !== undefined && owns(s, authMount) && originOf(s, authMount) === 'made';
}

/**
 * Names of the objects that the spec leaves to others (`manage: false`). The state entry does not keep these names: when this resource is to manage such
 * an object again, what others made of it must be adopted first.
 */
export function unmanagedObjects({ spec }: DerivedVault): string[] {
  const { root, intermediate, keyStore, policy, kubernetesAuth } = spec;
  return [
    ...(root.manage ? [] : [`mount:${root.mount}`]),
    ...(intermediate.manage ? [] : [`mount:${intermediate.mount}`, `entry:${keyStore.path}`]),
    ...(policy.manage ? [] : [`policy:${policy.name}`]),
    ...(kubernetesAuth.manage ? [] : [`role:${kubernetesAuth.role}`]),
  ];
}

/**
 * Whether this resource owns the role. A role cannot carry a marker: the state entry decides. If the state entry is lost, the resource owns a
 * role whose only policy is the policy with its marker. It does not own a role that it does not manage.
 */
export function ownsRole(s: DerivedVault): boolean {
  const { role, policy } = s.vault;
  if (!role || !s.spec.kubernetesAuth.manage) return false;
  if (s.stateEntry) return s.stateEntry.role === s.spec.kubernetesAuth.role;
  const ownsPolicy = policy !== undefined && isOwnMarker(s.identity, policyMarker(policy));
  return ownsPolicy && role.policies.length === 1 && role.policies[0] === s.spec.policy.name;
}

/**
 * Whether the role can be adopted as far as its content shows: it is for the policy and the namespace of this resource. A role for another
 * policy or namespace is in use by others. The marker of the policy shows the owner.
 */
export function roleFits(s: DerivedVault): boolean {
  const { namespace } = s.identity;
  const { role } = s.vault;
  return (
    role?.policies.includes(s.spec.policy.name) === true &&
    role.serviceAccountNamespaces.every((name) => name === namespace || name === '*')
  );
}

/** Names of adopted objects, for a lost state entry: as markers show. A role counts as adopted with its policy. */
export function adoptedByMarker(s: DerivedVault): string[] {
  const { policy, role } = ownables(s);
  const adopted = markedAs(s, 'adopted');
  const adoptedPolicy = policy !== undefined && originOf(s, policy) === 'adopted';
  return role && adoptedPolicy && ownsRole(s) ? [...adopted, role.name] : adopted;
}

/**
 * Other IstioVaultCAs of this cluster that markers at the paths of this resource name, as `namespace/name`. The caller finds out whether they
 * exist.
 */
export function otherOwners(s: DerivedVault): string[] {
  const markers = Object.values(ownables(s)).map((object) => object && parseMarker(object.text));
  const others = markers.filter(
    (marker) => marker?.cluster === s.identity.cluster && !isOwnMarker(s.identity, markerOf(marker)),
  );
  return [...new Set(others.map((marker) => `${marker?.namespace ?? ''}/${marker?.name ?? ''}`))];
}

/**
 * Whether others managed the CA, and this resource is to manage it again: its mount or its entry is not its own any more, and not recorded as such. What
 * stands there is adopted, or stays.
 */
function wasHandedOver(s: DerivedVault): boolean {
  const { live, intermediateMount } = ownables(s);
  const isOthers = (object: Ownable | undefined) =>
    object !== undefined && s.stateEntry?.made.includes(object.name) === false && !owns(s, object);
  return live !== undefined && (isOthers(live) || isOthers(intermediateMount));
}

/** Whether adoption of a CA can take place: before this resource has a state entry, and when others have managed the CA since. */
export const adopting = (s: DerivedVault): boolean => s.spec.adopt && (s.stateEntry === undefined || wasHandedOver(s));

/** Whether others managed the root mount, which `manage: false` left to them, as the record of its root shows. */
export const rootWasOthers = ({ stateEntry, rootSource }: DerivedVault): boolean =>
  rootSource === 'Generate' && stateEntry?.root?.certificate !== undefined && stateEntry.root.issuerId !== undefined;

/** Whether the root mount can be adopted after others managed it: the root that signs is in it, with its key. */
const rootIsBack = (s: DerivedVault): boolean =>
  rootWasOthers(s) &&
  s.vault.rootPki?.issuers.some(
    ({ keyId, certificate }) => keyId !== '' && certificate.fingerprint === s.stateEntry?.root?.fingerprint,
  ) === true;

/** Whether the resource that a marker names does not exist: observed in this cluster, confirmed by annotation `take-over` for another. */
function isDeleted(s: DerivedState, marker: Identity): boolean {
  const owner = `${marker.namespace}/${marker.name}`;
  if (marker.cluster === s.identity.cluster) return s.kubernetes.goneOwners.includes(owner);
  return s.desired.annotations[known.takeOver] === `${marker.cluster}/${owner}`;
}

/**
 * Whether an object can be adopted. `spec.adopt` allows objects without a marker and objects of a deleted resource of this cluster. An object
 * of a resource of another cluster also needs annotation `take-over`, which names that resource. Policy and role can be adopted later than the
 * CA: they could have been somebody else's before (`manage: false`).
 */
export function adoptable(s: DerivedState, object: Ownable): boolean {
  const { policy, role, rootMount } = ownables(s);
  const isLate = [policy?.name, role?.name].includes(object.name) || (object.name === rootMount?.name && rootIsBack(s));
  if (!s.spec.adopt || (!adopting(s) && !isLate)) return false;
  const marker = parseMarker(object.text);
  return !marker || isDeleted(s, marker);
}

/** Names of the policy, the role and the root mount, each if it is to be adopted after the CA was issued or adopted. */
export function adoptedLater(s: DerivedState): string[] {
  const { policy, role, rootMount } = ownables(s);
  const { spec } = s;
  const objects = [
    rootMount && rootWasOthers(s) && !owns(s, rootMount) ? rootMount : undefined,
    spec.policy.manage && policy && !owns(s, policy) ? policy : undefined,
    spec.kubernetesAuth.manage && role && !ownsRole(s) && roleFits(s) ? role : undefined,
  ];
  return objects.flatMap((object) => (object && adoptable(s, object) ? [object.name] : []));
}

/**
 * The marker of a staging entry that a deleted resource left, if the entry can be destroyed: nothing uses a key that was never published. An
 * entry without a marker was not written by the operator, and stays. undefined: there is no such entry, or `spec.adopt` is not set.
 */
export function abandonedStagingMarker(s: DerivedState): string | undefined {
  const { mark: marker, entry } = s.vault.staging;
  const owner = parseMarker(marker);
  return s.spec.adopt && entry === 'foreign' && owner && isDeleted(s, owner) ? marker : undefined;
}
