/** Steps that enable and tune the PKI mounts of this resource. Pure. */
import type { Desired } from '../facts/desired.ts';
import type { Observed, Mount } from '../facts/observed.ts';
import { markerFor, ownables, type Ownable } from '../ownership/ownership.ts';
import type { Step } from '../steps.ts';

/** A mount as it must be: made if absent, tuned back if it drifted, its mark written when it was taken over or its uid is another. */
function pkiMountSteps(
  d: Desired,
  o: Observed,
  mount: string,
  found: { mount: Mount; thing: Ownable } | undefined,
  ttl: number,
): Step[] {
  if (!found) return [{ kind: 'MountPKI', mount, maxLeaseTtl: ttl, description: d.mark }];
  const { maxLeaseTtl, description } = found.mount;
  const mark = markerFor(d, o, found.thing);
  // a longer limit than the spec asks is left: certificates issued under it may still live
  if (description.includes(mark) && maxLeaseTtl >= ttl) return [];
  return [{ kind: 'TuneMount', mount, maxLeaseTtl: Math.max(ttl, maxLeaseTtl), description: mark }];
}

/** Steps for both PKI mounts. */
export function mountSteps(d: Desired, o: Observed): Step[] {
  const { rootMount, intermediateMount } = ownables(d, o.vault);
  const found = (mount: Mount | undefined, thing: Ownable | undefined) =>
    mount && thing ? { mount, thing } : undefined;
  const { root, intermediate } = d.spec;
  return [
    ...pkiMountSteps(d, o, root.mount, found(o.vault.rootMount, rootMount), d.root.ttl),
    ...pkiMountSteps(d, o, intermediate.mount, found(o.vault.intermediateMount, intermediateMount), d.intermediate.ttl),
  ];
}
