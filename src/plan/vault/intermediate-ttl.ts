/** Checks the lifetime of an intermediate against the lifetime of workload certificates, which the spec alone does not determine. */
import type { DerivedState } from '../facts/derived.ts';
import { formatGoDuration, parseGoDuration } from '../../api/duration.ts';
import { defaultMaxWorkloadCertTtlMs } from '../../api/istiod.ts';
import { maxWorkloadCertTtlMs } from '../facts/desired.ts';
import type { Problem } from '../facts/problem.ts';

/**
 * Whether an intermediate with at most the desired lifetime exists, issued or adopted. Refusing the spec would not lengthen that lifetime, and
 * would only prevent the renewal.
 */
function hasIntermediate(s: DerivedState): boolean {
  const recorded = s.stateEntry?.intermediate;
  if (!recorded) return s.currentCa !== undefined;
  return recorded.fingerprint !== undefined && recorded.spec.ttl <= s.desired.intermediate.ttl;
}

/**
 * The lifetime of the intermediate is not more than twice the longest lifetime of a workload certificate, which leaves no time for a renewal.
 * Before the first intermediate, Istio's default counts if the lifetime that istiod allows is unknown, and the problem blocks all writes.
 * Afterwards, only the lifetime that istiod allows counts, and the problem blocks nothing.
 */
export function intermediateTtlTooShort(s: DerivedState): Problem | undefined {
  // others decide how long theirs lives
  if (s.checksOnly) return undefined;
  const known = maxWorkloadCertTtlMs(s.spec, s.kubernetes.maxWorkloadCertTtlMs);
  const issued = hasIntermediate(s);
  if (known === 'unknown' && issued) return undefined;
  const longest = known === 'unknown' ? defaultMaxWorkloadCertTtlMs : known;
  const { ttl } = s.spec.intermediate;
  if (parseGoDuration(ttl) > 2 * longest) return undefined;
  const source = known === 'unknown' ? ": Istio's default, since istiod is not there to tell, or may not be read" : '';
  const consequence = issued ? '. It is renewed all the same, but certificates of such a length may outlive it' : '';
  return {
    condition: 'IntermediateReady',
    reason: 'IntermediateTTLTooShort',
    message: `spec.intermediate.ttl ${ttl} must be more than twice the longest workload certificate (${formatGoDuration(longest)}${source}): lengthen it, or set spec.intermediate.maxWorkloadCertTTL, and istiod's MAX_WORKLOAD_CERT_TTL and DEFAULT_WORKLOAD_CERT_TTL, lower${consequence}`,
    blocks: issued ? 'nothing' : 'all',
  };
}
