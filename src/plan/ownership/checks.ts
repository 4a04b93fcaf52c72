/** Whose things stand in our places: found before the first write, so that nothing is half done. */
import { annotations as known } from '../../api/annotations.ts';
import { adoptionOf } from './adoption.ts';
import { abandonedStagingMarker, adoptable, ownables, owns, ownsRole, roleFits, type Ownable } from './ownership.ts';
import type { Desired } from '../facts/desired.ts';
import { parseMarker } from '../facts/identity.ts';
import { ownEntry, type Mount, type Observed } from '../facts/observed.ts';
import type { Problem } from '../facts/problem.ts';

const problem = (condition: Problem['condition'], reason: Problem['reason'], message: string): Problem => ({
  condition,
  reason,
  message,
  blocks: 'all',
});

/** What can be done about a thing of somebody else, by whose it is. */
function remedy(d: Desired, o: Observed, thing: Ownable | undefined, other: string): string {
  const mark = parseMarker(thing?.text);
  const otherwise = `${other}, or remove it if nobody needs it`;
  const named = thing && ownEntry(o.vault.state)?.made.includes(thing.name);
  if (!mark && named)
    return `it was, and holds something else now: restore it; do not remove it before you know what it holds`;
  if (!mark) return d.spec.adopt ? otherwise : `set spec.adopt: true to take it over as it is; else ${otherwise}`;
  const owner = `${mark.cluster}/${mark.namespace}/${mark.name}`;
  if (mark.cluster !== d.identity.cluster)
    return `it is marked for ${owner} of another cluster; when that is gone, set spec.adopt: true and annotation ${known.takeOver}=${owner}; else ${otherwise}`;
  return o.kubernetes.goneOwners.includes(`${mark.namespace}/${mark.name}`)
    ? `it is marked for ${mark.namespace}/${mark.name}, which is gone: set spec.adopt: true to take it over; else ${otherwise}`
    : `it belongs to IstioVaultCA ${mark.namespace}/${mark.name}: ${other}`;
}

/** What can be done about an entry in the place of ours for a key that is not published yet: it is never taken over. */
function stagedRemedy(d: Desired, o: Observed, thing: Ownable): string {
  const { mount, path, version } = d.spec.keyStore;
  const mark = parseMarker(thing.text);
  const other = 'choose another path';
  const remove = `\`vault kv ${version === 2 ? 'metadata delete' : 'delete'} -mount=${mount} ${path}-staging\``;
  if (!mark) return `${other}, or remove it if nobody needs it: ${remove}`;
  const inCluster = mark.cluster === d.identity.cluster;
  const owner = `${mark.namespace}/${mark.name}`;
  const what = `it is a key of IstioVaultCA ${owner} that was never published`;
  if (inCluster && !o.kubernetes.goneOwners.includes(owner)) return `${what}: ${other}`;
  const destroyed = `and it is destroyed; or remove it: ${remove}`;
  if (inCluster) return `${what}, and that resource is gone: set spec.adopt: true, ${destroyed}`;
  const named = `${mark.cluster}/${owner}`;
  return `${what}, of another cluster; when that resource is gone, set spec.adopt: true and annotation ${known.takeOver}=${named}, ${destroyed}`;
}

function notOwned(
  d: Desired,
  o: Observed,
  condition: Problem['condition'],
  place: string,
  thing: Ownable | undefined,
  other: string,
): Problem {
  return notOurs(condition, place, remedy(d, o, thing, other));
}

const notOurs = (condition: Problem['condition'], place: string, what: string): Problem =>
  problem(condition, 'MountNotOwned', `${place} exists and is not this resource's; ${what}`);

function foreignMount(
  d: Desired,
  o: Observed,
  condition: Problem['condition'],
  field: string,
  path: string,
  found: { mount: Mount | undefined; thing: Ownable | undefined },
): Problem | undefined {
  const { mount, thing } = found;
  if (!mount || !thing || owns(d, o, thing)) return undefined;
  if (!adoptable(d, o, thing)) {
    return notOwned(d, o, condition, `${field}: ${path} (type ${mount.type})`, thing, 'choose another mount');
  }
  if (mount.type === 'pki') return undefined;
  return problem(
    condition,
    'MountTypeMismatch',
    `${field}: ${path} is of type ${mount.type}, not pki; choose another mount`,
  );
}

export function rootMountNotOwned(d: Desired, o: Observed): Problem | undefined {
  const found = { mount: o.vault.rootMount, thing: ownables(d, o.vault).rootMount };
  return foreignMount(d, o, 'RootReady', 'spec.root.mount', d.spec.root.mount, found);
}

export function intermediateMountNotOwned(d: Desired, o: Observed): Problem | undefined {
  const found = { mount: o.vault.intermediateMount, thing: ownables(d, o.vault).intermediateMount };
  return foreignMount(d, o, 'IntermediateReady', 'spec.intermediate.mount', d.spec.intermediate.mount, found);
}

/** A KV entry without our mark in one of our three places. */
export function keyStoreEntryNotOwned(d: Desired, o: Observed): Problem | undefined {
  const { mount, path } = d.spec.keyStore;
  const { live, staging, state } = ownables(d, o.vault);
  const place = `spec.keyStore.path: the entry ${mount}/${path}`;
  const foreign = [
    { suffix: '', slot: o.vault.live, thing: live },
    { suffix: '-state', slot: o.vault.state, thing: state },
  ].find(({ slot, thing }) => slot.entry === 'foreign' && !(thing && (owns(d, o, thing) || adoptable(d, o, thing))));
  if (foreign) return notOwned(d, o, 'KeyStored', `${place}${foreign.suffix}`, foreign.thing, 'choose another path');
  if (!staging || o.vault.staging.entry !== 'foreign' || abandonedStagingMarker(d, o) !== undefined) return undefined;
  return notOurs('KeyStored', `${place}-staging`, stagedRemedy(d, o, staging));
}

export function policyNotOwned(d: Desired, o: Observed): Problem | undefined {
  const { policy } = ownables(d, o.vault);
  if (!policy || owns(d, o, policy) || adoptable(d, o, policy)) return undefined;
  const place = `spec.policy.name: policy ${d.spec.policy.name}`;
  return notOwned(d, o, 'AccessReady', place, policy, 'choose another name');
}

export function roleNotOwned(d: Desired, o: Observed): Problem | undefined {
  const { role } = ownables(d, o.vault);
  if (!role || ownsRole(d, o) || (roleFits(d, o) && adoptable(d, o, role))) return undefined;
  const { mount, role: name } = d.spec.kubernetesAuth;
  const place = `spec.kubernetesAuth.role: role ${name} of auth/${mount}`;
  if (roleFits(d, o)) return notOwned(d, o, 'AccessReady', place, role, 'choose another name');
  const whose = `it is for policies ${o.vault.role?.policies.join(', ')} in namespaces ${o.vault.role?.serviceAccountNamespaces.join(', ')}`;
  return problem('AccessReady', 'MountNotOwned', `${place} is somebody else's (${whose}): choose another name`);
}

/** What is to be taken over must be one CA: a key, its certificate, and the root that signed it. */
export function adoptionMismatch(d: Desired, o: Observed): Problem | undefined {
  const found = adoptionOf(d, o);
  if (typeof found !== 'string') return undefined;
  return problem('KeyStored', 'AdoptionMismatch', `spec.adopt: ${found}`);
}

/** Two resources for one control plane: the other one wins, and this one writes nothing anywhere. */
export function controlPlaneConflict(d: Desired, o: Observed): Problem | undefined {
  const { ownerIs } = o.kubernetes;
  if (ownerIs === 'us') return undefined;
  const { kind, name, revision } = d.spec.controlPlane;
  return {
    condition: 'ControlPlanePatched',
    reason: 'ControlPlaneConflict',
    message: `${kind} ${name} (revision ${revision ?? 'default'}) belongs to IstioVaultCA ${ownerIs.name}; delete one of the two or give this one another spec.controlPlane`,
    blocks: 'all',
  };
}
