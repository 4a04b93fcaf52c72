/** Steps that enable and tune the PKI mounts of this resource. Pure. */
import type { DerivedState } from '../facts/derived.ts';
import type { Mount } from '../facts/observed.ts';
import { markerFor, ownables, type Ownable } from '../ownership/ownership.ts';
import type { Step } from '../steps.ts';

/**
 * Steps for one PKI mount: enable it if it does not exist, or tune it if it drifted. The marker is written again if the mount was adopted or
 * if the resource was re-created with another UID.
 * @param ttl the lowest `max_lease_ttl`, seconds
 */
function pkiMountSteps(
  s: DerivedState,
  mount: string,
  current: Mount | undefined,
  object: Ownable | undefined,
  ttl: number,
): Step[] {
  if (!current) return [{ kind: 'MountPKI', mount, maxLeaseTtl: ttl, description: s.desired.mark }];
  const { maxLeaseTtl, description } = current;
  const marker = markerFor(s, object);
  // a longer limit than the spec requires stays: certificates that were issued under it can still be valid
  if (description.includes(marker) && maxLeaseTtl >= ttl) return [];
  return [{ kind: 'TuneMount', mount, maxLeaseTtl: Math.max(ttl, maxLeaseTtl), description: marker }];
}

/** Steps for the PKI mounts of this resource. */
export function mountSteps(s: DerivedState): Step[] {
  const { rootMount, intermediateMount } = ownables(s);
  const { root, intermediate } = s.desired;
  if (!s.usesPki) return [];
  // a root that is lost is not replaced without a request, so it needs no mount
  const needsRootMount = s.issuesRoot && (s.lostSigner === undefined || s.rotation !== undefined);
  return [
    ...(needsRootMount ? pkiMountSteps(s, s.spec.root.mount, s.vault.rootMount, rootMount, root.ttl) : []),
    ...(s.checksOnly
      ? []
      : pkiMountSteps(s, s.spec.intermediate.mount, s.vault.intermediateMount, intermediateMount, intermediate.ttl)),
  ];
}
