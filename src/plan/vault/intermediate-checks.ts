/** Whether an intermediate lives long enough for the workload certificates that it signs: what the spec alone does not tell. */
import type { DerivedState } from '../facts/derived.ts';
import { formatGoDuration, parseGoDuration } from '../../api/duration.ts';
import { defaultMaxWorkloadCertTtlMs } from '../../api/istiod.ts';
import { maxWorkloadCertTtlMs } from '../facts/desired.ts';
import type { Problem } from '../facts/problem.ts';

/** One of no longer life was issued or taken over: to refuse another would not lengthen that one, and only keep it from being renewed. */
function issuedAlready(s: DerivedState): boolean {
  const recorded = s.stateEntry?.intermediate;
  if (!recorded) return s.currentCa !== undefined;
  return recorded.fingerprint !== undefined && recorded.spec.ttl <= s.desired.intermediate.ttl;
}

/**
 * A renewal needs room: the intermediate must outlive two workload certificates of the longest kind. Before it is issued Istio's default
 * counts where nobody knows better, and it is refused; afterwards only what istiod is seen to allow, and it is only said.
 */
export function intermediateTtlTooShort(s: DerivedState): Problem | undefined {
  const known = maxWorkloadCertTtlMs(s.spec, s.kubernetes.maxWorkloadCertTtlMs);
  const issued = issuedAlready(s);
  if (known === 'unknown' && issued) return undefined;
  const longest = known === 'unknown' ? defaultMaxWorkloadCertTtlMs : known;
  const { ttl } = s.spec.intermediate;
  if (parseGoDuration(ttl) > 2 * longest) return undefined;
  const whence = known === 'unknown' ? ": Istio's default, since istiod is not there to tell, or may not be read" : '';
  const sofar = issued ? '. It is renewed all the same, but certificates of such a length may outlive it' : '';
  return {
    condition: 'IntermediateReady',
    reason: 'IntermediateTTLTooShort',
    message: `spec.intermediate.ttl ${ttl} must be more than twice the longest workload certificate (${formatGoDuration(longest)}${whence}): lengthen it, or set spec.intermediate.maxWorkloadCertTTL and istiod's MAX_WORKLOAD_CERT_TTL lower${sofar}`,
    blocks: issued ? 'nothing' : 'all',
  };
}
