/** Roles that somebody else made in the PKI mounts of this resource. The operator makes none, and deletes none. Pure. */
import type { DerivedState } from '../facts/derived.ts';

/** A message names at most this many roles. */
const mostNamed = 5;

/**
 * Describes the roles, for the user: whoever may use one gets certificates signed by the CA of the mesh, so any workload identity. undefined:
 * there are none, as far as they may be listed.
 */
export function describeForeignRoles(s: DerivedState): string | undefined {
  const all = s.vault.pkiRoles.flatMap(({ mount, names }) =>
    names === 'unreadable' ? [] : names.map((name) => `${mount}/roles/${name}`),
  );
  if (all.length === 0) return undefined;
  const more = all.length > mostNamed ? ` and ${all.length - mostNamed} more` : '';
  return `${all.slice(0, mostNamed).join(', ')}${more} ${all.length === 1 ? 'is' : 'are'} not of this resource: whoever may use it gets certificates signed by this CA, with any identity. It stays; delete it if nobody should`;
}

/** What could not be verified of the mounts, because the token may not read it: capability and path. */
export function unverified({ spec, vault }: DerivedState): string[] {
  const config = `auth/${spec.kubernetesAuth.mount}/config`;
  return [
    ...vault.pkiRoles.filter(({ names }) => names === 'unreadable').map(({ mount }) => `list ${mount}/roles`),
    ...(vault.missingOptional.some(({ path }) => path === config) ? [`read ${config}`] : []),
  ];
}
