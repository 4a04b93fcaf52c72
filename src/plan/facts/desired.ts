/** What the spec asks for, in the terms of Vault and of istiod's pod: pure. */
import { createHash } from 'node:crypto';
import { parseGoDuration } from '../../api/duration.ts';
import type { Spec } from '../../api/schema.ts';
import { markerOf, type Identity } from './identity.ts';
import type { IntermediateSpec, RootSpec } from './state-entry.ts';

export const seconds = (goDuration: string): number => Math.floor(parseGoDuration(goDuration) / 1000);

export interface Desired {
  identity: Identity;
  mark: string;
  spec: Spec;
  /** Annotations of the resource. */
  annotations: Record<string, string>;
  root: RootSpec;
  intermediate: IntermediateSpec;
}

export function desire(identity: Identity, spec: Spec, annotations: Record<string, string>): Desired {
  const { root, intermediate } = spec;
  return {
    identity,
    mark: markerOf(identity),
    spec,
    annotations,
    root: {
      commonName: root.commonName,
      organization: root.organization,
      ttl: seconds(root.ttl),
      keyType: root.key.type,
      keyBits: root.key.bits ?? (root.key.type === 'ec' ? 256 : 4096),
    },
    intermediate: {
      source: intermediate.source,
      importRef: intermediate.importRef?.secretRef.name ?? '',
      commonName: intermediate.commonName,
      organization: intermediate.organization,
      ttl: seconds(intermediate.ttl),
      maxPathLength: intermediate.maxPathLength,
      keyType: intermediate.key.type,
      keyBits: intermediate.key.bits ?? (intermediate.key.type === 'ec' ? 256 : 2048),
    },
  };
}

/** Texts of action annotations are compared and recorded up to this length; longer ones by their hash. */
const longestText = 256;

/** The text of an action annotation as the state records it once it is handled; undefined when it is not set. */
export function handledText(d: Desired, annotation: string): string | undefined {
  const text = d.annotations[annotation];
  if (text === undefined || text.length <= longestText) return text;
  return `sha256:${createHash('sha256').update(text).digest('hex')}`;
}

/** The text of an action annotation that is not handled yet. @param handled as the state has it; undefined: there is no state */
export function pendingRequest(
  d: Desired,
  handled: Record<string, string> | undefined,
  annotation: string,
): string | undefined {
  const text = handledText(d, annotation);
  return text === handled?.[annotation] ? undefined : text;
}

/** Whether a renewal makes a new key: with `PKI` delivery key and certificate change in two writes, so the key stays by default. */
export function newKeyAtRenewal(spec: Spec): boolean {
  const byDelivery = spec.delivery.source === 'Bundle' ? 'Always' : 'Never';
  return (spec.intermediate.key.rotationPolicy ?? byDelivery) === 'Always';
}

/** The longest workload certificate, in milliseconds: spec, else what istiod allows. */
export function maxWorkloadCertTtlMs(spec: Spec, fromIstiod: number | 'unknown'): number | 'unknown' {
  const asked = spec.intermediate.maxWorkloadCertTTL;
  return asked === undefined ? fromIstiod : parseGoDuration(asked);
}

/**
 * How long before its end an intermediate is renewed, in milliseconds; never less than the longest workload certificate. While it is not
 * known what istiod allows, that does not count: an istiod that is not there signs nothing, and to guess Istio's default would have many an
 * intermediate renewed at once because istiod is gone for a moment. Nor does more than half of the life that is asked for: else what is
 * issued would be due at once, again and again.
 */
export function renewBeforeMs(spec: Spec, lifeMs: number, fromIstiod: number | 'unknown'): number {
  const { renewBefore, ttl } = spec.intermediate;
  const longest = maxWorkloadCertTtlMs(spec, fromIstiod);
  const atLeast = longest === 'unknown' ? 0 : Math.min(longest, parseGoDuration(ttl) / 2);
  return Math.max(renewBefore === undefined ? lifeMs / 3 : parseGoDuration(renewBefore), atLeast);
}
