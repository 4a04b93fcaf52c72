/** Steps that enable and tune the PKI mounts of this resource. Pure. */
import type { DerivedState } from '../facts/derived.ts';
import type { Mount } from '../facts/observed.ts';
import { markerFor, ownables, type Ownable } from '../ownership/ownership.ts';
import type { Step } from '../steps.ts';

/** A mount as it must be: made if absent, tuned back if it drifted, its mark written when it was taken over or its uid is another. */
function pkiMountSteps(
  s: DerivedState,
  mount: string,
  found: { mount: Mount; thing: Ownable } | undefined,
  ttl: number,
): Step[] {
  if (!found) return [{ kind: 'MountPKI', mount, maxLeaseTtl: ttl, description: s.desired.mark }];
  const { maxLeaseTtl, description } = found.mount;
  const mark = markerFor(s, found.thing);
  // a longer limit than the spec asks is left: certificates issued under it may still live
  if (description.includes(mark) && maxLeaseTtl >= ttl) return [];
  return [{ kind: 'TuneMount', mount, maxLeaseTtl: Math.max(ttl, maxLeaseTtl), description: mark }];
}

/** Steps for both PKI mounts. */
export function mountSteps(s: DerivedState): Step[] {
  const { rootMount, intermediateMount } = ownables(s);
  const found = (mount: Mount | undefined, thing: Ownable | undefined) =>
    mount && thing ? { mount, thing } : undefined;
  const { root, intermediate } = s.spec;
  return [
    ...pkiMountSteps(s, root.mount, found(s.vault.rootMount, rootMount), s.desired.root.ttl),
    ...pkiMountSteps(
      s,
      intermediate.mount,
      found(s.vault.intermediateMount, intermediateMount),
      s.desired.intermediate.ttl,
    ),
  ];
}
