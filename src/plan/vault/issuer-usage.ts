/** What the issuers of this resource are used for: a current issuer must be allowed to sign certificates. Pure. */
import type { DerivedState } from '../facts/derived.ts';
import type { Issuer } from '../facts/observed.ts';
import type { Step } from '../steps.ts';

/** The path whose capability `patch` the operator needs to change what an issuer is used for. */
const pathOf = (mount: string): string => `${mount}/issuer/+`;

const mayChange = ({ vault }: DerivedState, mount: string): boolean =>
  !vault.missingOptional.some(({ path, missing }) => path === pathOf(mount) && missing.includes('patch'));

/** The step that lets an issuer sign certificates; none if it may, or if the token may not change it. */
export function restoreUsage(s: DerivedState, mount: string, { id, usages }: Issuer): Step[] {
  return usages && mayChange(s, mount) ? [{ kind: 'RestoreUsage', mount, issuerId: id, usages }] : [];
}

/** Describes an issuer that may not sign certificates and that the operator may not change, for the user; undefined: it is no such issuer. */
export function describeUsage(s: DerivedState, mount: string, issuer: Issuer | undefined): string | undefined {
  if (!issuer?.usages || mayChange(s, mount)) return undefined;
  return `the issuer lacks usage issuing-certificates, so it signs nothing, and the token may not restore it (patch on ${pathOf(mount)}): \`vault patch ${mount}/issuer/${issuer.id} usage=${[...issuer.usages, 'issuing-certificates'].join(',')}\``;
}
