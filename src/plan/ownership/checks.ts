/** Whose things stand in our places: found before the first write, so that nothing is half done. */
import type { DerivedState } from '../facts/derived.ts';
import { annotations as known } from '../../api/annotations.ts';
import { adoptionOf } from './adoption.ts';
import { abandonedStagingMarker, adoptable, ownables, owns, ownsRole, roleFits, type Ownable } from './ownership.ts';
import { parseMarker } from '../facts/identity.ts';
import type { Mount } from '../facts/observed.ts';
import type { Problem } from '../facts/problem.ts';

const problem = (condition: Problem['condition'], reason: Problem['reason'], message: string): Problem => ({
  condition,
  reason,
  message,
  blocks: 'all',
});

/** What can be done about a thing of somebody else, by whose it is. */
function remedy(s: DerivedState, thing: Ownable | undefined, other: string): string {
  const mark = parseMarker(thing?.text);
  const otherwise = `${other}, or remove it if nobody needs it`;
  const named = thing && s.stateEntry?.made.includes(thing.name);
  if (!mark && named)
    return `it was, and holds something else now: restore it; do not remove it before you know what it holds`;
  if (!mark) return s.spec.adopt ? otherwise : `set spec.adopt: true to take it over as it is; else ${otherwise}`;
  const owner = `${mark.cluster}/${mark.namespace}/${mark.name}`;
  if (mark.cluster !== s.identity.cluster)
    return `it is marked for ${owner} of another cluster; when that is gone, set spec.adopt: true and annotation ${known.takeOver}=${owner}; else ${otherwise}`;
  return s.kubernetes.goneOwners.includes(`${mark.namespace}/${mark.name}`)
    ? `it is marked for ${mark.namespace}/${mark.name}, which is gone: set spec.adopt: true to take it over; else ${otherwise}`
    : `it belongs to IstioVaultCA ${mark.namespace}/${mark.name}: ${other}`;
}

/** What can be done about an entry in the place of ours for a key that is not published yet: it is never taken over. */
function stagedRemedy(s: DerivedState, thing: Ownable): string {
  const { mount, path, version } = s.spec.keyStore;
  const mark = parseMarker(thing.text);
  const other = 'choose another path';
  const remove = `\`vault kv ${version === 2 ? 'metadata delete' : 'delete'} -mount=${mount} ${path}-staging\``;
  if (!mark) return `${other}, or remove it if nobody needs it: ${remove}`;
  const inCluster = mark.cluster === s.identity.cluster;
  const owner = `${mark.namespace}/${mark.name}`;
  const what = `it is a key of IstioVaultCA ${owner} that was never published`;
  if (inCluster && !s.kubernetes.goneOwners.includes(owner)) return `${what}: ${other}`;
  const destroyed = `and it is destroyed; or remove it: ${remove}`;
  if (inCluster) return `${what}, and that resource is gone: set spec.adopt: true, ${destroyed}`;
  const named = `${mark.cluster}/${owner}`;
  return `${what}, of another cluster; when that resource is gone, set spec.adopt: true and annotation ${known.takeOver}=${named}, ${destroyed}`;
}

function notOwned(
  s: DerivedState,
  condition: Problem['condition'],
  place: string,
  thing: Ownable | undefined,
  other: string,
): Problem {
  return notOurs(condition, place, remedy(s, thing, other));
}

const notOurs = (condition: Problem['condition'], place: string, what: string): Problem =>
  problem(condition, 'MountNotOwned', `${place} exists and is not this resource's; ${what}`);

function foreignMount(
  s: DerivedState,
  condition: Problem['condition'],
  field: string,
  path: string,
  found: { mount: Mount | undefined; thing: Ownable | undefined },
): Problem | undefined {
  const { mount, thing } = found;
  if (!mount || !thing || owns(s, thing)) return undefined;
  if (!adoptable(s, thing)) {
    return notOwned(s, condition, `${field}: ${path} (type ${mount.type})`, thing, 'choose another mount');
  }
  if (mount.type === 'pki') return undefined;
  return problem(
    condition,
    'MountTypeMismatch',
    `${field}: ${path} is of type ${mount.type}, not pki; choose another mount`,
  );
}

export function rootMountNotOwned(s: DerivedState): Problem | undefined {
  const found = { mount: s.vault.rootMount, thing: ownables(s).rootMount };
  return foreignMount(s, 'RootReady', 'spec.root.mount', s.spec.root.mount, found);
}

export function intermediateMountNotOwned(s: DerivedState): Problem | undefined {
  const found = { mount: s.vault.intermediateMount, thing: ownables(s).intermediateMount };
  return foreignMount(s, 'IntermediateReady', 'spec.intermediate.mount', s.spec.intermediate.mount, found);
}

/** A KV entry without our mark in one of our three places. */
export function keyStoreEntryNotOwned(s: DerivedState): Problem | undefined {
  const { mount, path } = s.spec.keyStore;
  const { live, staging, state } = ownables(s);
  const place = `spec.keyStore.path: the entry ${mount}/${path}`;
  const foreign = [
    { suffix: '', slot: s.vault.live, thing: live },
    { suffix: '-state', slot: s.vault.state, thing: state },
  ].find(({ slot, thing }) => slot.entry === 'foreign' && !(thing && (owns(s, thing) || adoptable(s, thing))));
  if (foreign) return notOwned(s, 'KeyStored', `${place}${foreign.suffix}`, foreign.thing, 'choose another path');
  if (!staging || s.vault.staging.entry !== 'foreign' || abandonedStagingMarker(s) !== undefined) return undefined;
  return notOurs('KeyStored', `${place}-staging`, stagedRemedy(s, staging));
}

export function policyNotOwned(s: DerivedState): Problem | undefined {
  const { policy } = ownables(s);
  if (!policy || owns(s, policy) || adoptable(s, policy)) return undefined;
  const place = `spec.policy.name: policy ${s.spec.policy.name}`;
  return notOwned(s, 'AccessReady', place, policy, 'choose another name');
}

export function roleNotOwned(s: DerivedState): Problem | undefined {
  const { role } = ownables(s);
  if (!role || ownsRole(s) || (roleFits(s) && adoptable(s, role))) return undefined;
  const { mount, role: name } = s.spec.kubernetesAuth;
  const place = `spec.kubernetesAuth.role: role ${name} of auth/${mount}`;
  if (roleFits(s)) return notOwned(s, 'AccessReady', place, role, 'choose another name');
  const whose = `it is for policies ${s.vault.role?.policies.join(', ')} in namespaces ${s.vault.role?.serviceAccountNamespaces.join(', ')}`;
  return problem('AccessReady', 'MountNotOwned', `${place} is somebody else's (${whose}): choose another name`);
}

/** What is to be taken over must be one CA: a key, its certificate, and the root that signed it. */
export function adoptionMismatch(s: DerivedState): Problem | undefined {
  const found = adoptionOf(s);
  if (typeof found !== 'string') return undefined;
  return problem('KeyStored', 'AdoptionMismatch', `spec.adopt: ${found}`);
}

/** Two resources for one control plane: the other one wins, and this one writes nothing anywhere. */
export function controlPlaneConflict(s: DerivedState): Problem | undefined {
  const { ownerIs } = s.kubernetes;
  if (ownerIs === 'us') return undefined;
  const { kind, name, revision } = s.spec.controlPlane;
  return {
    condition: 'ControlPlanePatched',
    reason: 'ControlPlaneConflict',
    message: `${kind} ${name} (revision ${revision ?? 'default'}) belongs to IstioVaultCA ${ownerIs.name}; delete one of the two or give this one another spec.controlPlane`,
    blocks: 'all',
  };
}
