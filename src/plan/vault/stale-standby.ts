/** Standbys that answer reads with older data than the active node has. Pure. */
import type { DerivedState } from '../facts/derived.ts';

/**
 * Versions of OpenBao whose standbys answer reads themselves and cannot be asked for the newest data; since 2.7 a request header does.
 * Source: https://openbao.org/docs/concepts/ha/
 */
const withoutHeader = /^v?2\.[56]\./;

/**
 * Describes that the address leads to such a standby, and so to a Service of several nodes. undefined: the node that answered is none. The
 * operator stays correct, since every write is guarded, but can report what was true a moment ago, or retry.
 */
export function describeStaleStandby({ vault, spec }: DerivedState): string | undefined {
  const { product, version, standby } = vault;
  if (!standby || product !== 'OpenBao' || !withoutHeader.test(version)) return undefined;
  return `a standby of OpenBao ${version} answered at ${spec.vault.address}: standbys of 2.5 and 2.6 answer reads with what was true a moment ago, and have no way to be asked for the newest. Give the address of a Service that selects the active node, or upgrade to 2.7`;
}
