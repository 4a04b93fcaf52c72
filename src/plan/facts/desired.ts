/** Desired state: what the spec and the annotations of a resource request, with defaults and in the units of Vault. Pure. */
import { createHash } from 'node:crypto';
import { parseGoDuration } from '../../api/duration.ts';
import type { Spec } from '../../api/schema.ts';
import { markerOf, type Identity } from './identity.ts';
import type { IntermediateSpec, RootSpec } from './state-entry.ts';

/** A Go duration in whole seconds, rounded down. */
export const seconds = (goDuration: string): number => Math.floor(parseGoDuration(goDuration) / 1000);

export interface Desired {
  identity: Identity;
  /** The ownership marker of objects that this resource creates. */
  mark: string;
  spec: Spec;
  /** Annotations of the resource. */
  annotations: Record<string, string>;
  root: RootSpec;
  intermediate: IntermediateSpec;
  /** With `delivery.crl`: how long the list of a new intermediate is in the mesh before istiod signs with it, milliseconds. */
  crlLeadMs: number;
}

/**
 * The default of `Desired.crlLeadMs`: the agent reads every minute, istiod takes up the file and writes a ConfigMap in each namespace, and a kubelet
 * updates mounted ConfigMaps within a minute and a half.
 */
const defaultCrlLeadMs = 5 * 60_000;

/** A root that others issue has no properties of its own in the spec. */
function rootSpecOf(root: Spec['root']): RootSpec {
  if (root.source === 'Generate')
    return {
      commonName: root.commonName,
      organization: root.organization,
      ttl: seconds(root.ttl),
      keyType: root.key.type,
      keyBits: root.key.bits ?? (root.key.type === 'ec' ? 256 : 4096),
    };
  const none: RootSpec = { commonName: '', organization: '', ttl: 0, keyType: 'rsa', keyBits: 0 };
  return root.source === 'External' ? none : { ...none, issuerRef: existingRef(root) };
}

/**
 * Where the root comes from, for the planner. One that others generate in the mount (`Generate` with `manage: false`) is like one of others that exists:
 * the default issuer of the mount.
 */
export const rootSourceOf = ({ root }: Pick<Spec, 'root'>): Spec['root']['source'] =>
  root.source === 'Generate' && !root.manage ? 'Existing' : root.source;

/** With `root.source: Existing`: name or id of the issuer, or `default`, as Vault calls the default issuer of a mount. */
export const existingRef = ({ existing }: Spec['root']): string => existing?.issuerRef ?? 'default';

/**
 * Derives the desired state.
 * @param annotations of the resource
 * @param crlLeadMs as in `Desired`
 */
export function desire(
  identity: Identity,
  spec: Spec,
  annotations: Record<string, string>,
  crlLeadMs = defaultCrlLeadMs,
): Desired {
  const { root, intermediate } = spec;
  return {
    identity,
    mark: markerOf(identity),
    spec,
    annotations,
    crlLeadMs,
    root: rootSpecOf(root),
    intermediate: {
      source: intermediate.source,
      // with another source only the revocation lists in the Secret count
      importRef: (intermediate.source === 'Import' ? intermediate.importRef?.secretRef.name : undefined) ?? '',
      commonName: intermediate.commonName,
      organization: intermediate.organization,
      ttl: seconds(intermediate.ttl),
      maxPathLength: intermediate.maxPathLength,
      keyType: intermediate.key.type,
      keyBits: intermediate.key.bits ?? (intermediate.key.type === 'ec' ? 256 : 2048),
    },
  };
}

/** Characters. A longer text of an action annotation is compared and recorded by its hash. */
const longestText = 256;

/** The text of an action annotation as the state entry records it after the action; undefined: the annotation is not set. */
export function handledText(d: Desired, annotation: string): string | undefined {
  const text = d.annotations[annotation];
  if (text === undefined || text.length <= longestText) return text;
  return `sha256:${createHash('sha256').update(text).digest('hex')}`;
}

/**
 * The text of an action annotation that requests an action not yet taken; undefined: the annotation requests none.
 * @param handled handled texts by annotation, as the state entry records them; undefined: there is no state entry
 */
export function pendingRequest(
  d: Desired,
  handled: Record<string, string> | undefined,
  annotation: string,
): string | undefined {
  const text = handledText(d, annotation);
  return text === handled?.[annotation] ? undefined : text;
}

/**
 * Whether a renewal generates a new key. With `delivery.source: PKI` the key and the certificate change in two writes, so the default is to
 * keep the key.
 */
export function newKeyAtRenewal(spec: Spec): boolean {
  const byDelivery = spec.delivery.source === 'Bundle' ? 'Always' : 'Never';
  return (spec.intermediate.key.rotationPolicy ?? byDelivery) === 'Always';
}

/** The longest lifetime of a workload certificate, in milliseconds: as the spec says, else as istiod allows. */
export function maxWorkloadCertTtlMs(spec: Spec, fromIstiod: number | 'unknown'): number | 'unknown' {
  const fromSpec = spec.intermediate.maxWorkloadCertTTL;
  return fromSpec === undefined ? fromIstiod : parseGoDuration(fromSpec);
}

/**
 * How long before it expires an intermediate is renewed, in milliseconds: `renewBefore`, by default a third of the lifetime, and at least
 * the longest lifetime of a workload certificate.
 *
 * That minimum has two limits. It is zero while the lifetime that istiod allows is unknown: a missing istiod signs nothing, and Istio's
 * default in its place would have many intermediates renewed at once whenever istiod is missing for a moment. It is at most half of
 * `spec.intermediate.ttl`: otherwise each new intermediate would be due for renewal immediately.
 * @param lifetimeMs lifetime of the current intermediate
 * @param fromIstiod the longest lifetime that istiod allows, in milliseconds
 */
export function renewBeforeMs(spec: Spec, lifetimeMs: number, fromIstiod: number | 'unknown'): number {
  const { renewBefore, ttl } = spec.intermediate;
  const longest = maxWorkloadCertTtlMs(spec, fromIstiod);
  const atLeast = longest === 'unknown' ? 0 : Math.min(longest, parseGoDuration(ttl) / 2);
  return Math.max(renewBefore === undefined ? lifetimeMs / 3 : parseGoDuration(renewBefore), atLeast);
}
