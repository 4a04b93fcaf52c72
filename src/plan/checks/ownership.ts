/** Whose things stand in our places: found before the first write, so that nothing is half done. */
import { isOwn } from '../identity.ts';
import type { Desired } from '../desired.ts';
import { own, type Mount, type Observed } from '../observed.ts';
import type { Problem } from '../problem.ts';

const notOwned = (condition: Problem['condition'], message: string): Problem => ({
  condition,
  reason: 'MountNotOwned',
  message,
  blocks: 'all',
});

function foreignMount(
  d: Desired,
  condition: Problem['condition'],
  field: string,
  path: string,
  mount: Mount | undefined,
): Problem | undefined {
  if (!mount || isOwn(d.identity, mount.description)) return undefined;
  return notOwned(
    condition,
    `${field}: ${path} exists and is not marked as this resource's (type ${mount.type}); choose another mount, or remove it if nobody needs it`,
  );
}

export function rootMountNotOwned(d: Desired, o: Observed): Problem | undefined {
  return foreignMount(d, 'RootReady', 'spec.root.mount', d.spec.root.mount, o.vault.rootMount);
}

export function intermediateMountNotOwned(d: Desired, o: Observed): Problem | undefined {
  return foreignMount(
    d,
    'IntermediateReady',
    'spec.intermediate.mount',
    d.spec.intermediate.mount,
    o.vault.intermediateMount,
  );
}

/** A KV entry without our mark in one of our three places. */
export function keyStoreEntryNotOwned(d: Desired, o: Observed): Problem | undefined {
  const { mount, path } = d.spec.keyStore;
  const foreign = [
    ['', o.vault.live],
    ['-staging', o.vault.staging],
    ['-state', o.vault.state],
  ] as const;
  const hit = foreign.find(([, slot]) => slot.entry === 'foreign');
  if (!hit) return undefined;
  return notOwned(
    'KeyStored',
    `spec.keyStore.path: the entry ${mount}/${path}${hit[0]} exists and is not this resource's; choose another path, or remove it if nobody needs it`,
  );
}

export function policyNotOwned(d: Desired, o: Observed): Problem | undefined {
  const { policy } = o.vault;
  const firstLine = policy?.split('\n')[0];
  if (policy === undefined || isOwn(d.identity, firstLine)) return undefined;
  return notOwned(
    'AccessReady',
    `spec.policy.name: policy ${d.spec.policy.name} exists and is not this resource's; choose another name, or remove it if nobody needs it`,
  );
}

/** A role is ours if the state names it, or if its policies are exactly our marked policy. */
export function roleNotOwned(d: Desired, o: Observed): Problem | undefined {
  const { role } = o.vault;
  if (!role || own(o.vault.state)?.role === d.spec.kubernetesAuth.role) return undefined;
  const ourPolicy = o.vault.policy !== undefined && isOwn(d.identity, o.vault.policy.split('\n')[0]);
  if (ourPolicy && role.policies.length === 1 && role.policies[0] === d.spec.policy.name) return undefined;
  const { mount, role: name } = d.spec.kubernetesAuth;
  return notOwned(
    'AccessReady',
    `spec.kubernetesAuth.role: role ${name} of auth/${mount} exists and is not this resource's; choose another name, or remove it if nobody needs it`,
  );
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
