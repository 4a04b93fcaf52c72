/** The interface between the operator and the kinds of control plane: pure functions that derive observed state and writes from objects. */
import type { z } from 'zod';
import { previousAnnotation } from '../api/annotations.ts';
import type { Gvr } from '../api/gvr.ts';
import { dig, type JsonObject } from '../api/json.ts';
import type { Spec } from '../api/schema.ts';
import type { IstiodFields } from '../plan/control-plane/istiod-fields.ts';
import type { ControlPlaneFacts, Unfit } from '../plan/facts/observed.ts';
import type { IstiodDeployment } from '../plan/facts/observed-istiod.ts';
import type { IstiodValues } from '../plan/facts/trust-places.ts';

/** The input of an adapter. */
export interface Target {
  /** The control plane object; undefined: it does not exist. */
  object: JsonObject | undefined;
  /** The namespace of the resource and of istiod. */
  namespace: string;
  spec: Spec['controlPlane'];
  /** Objects of the type in `relatives` of the adapter; undefined: the operator lacks the permission to list them. */
  relatives: JsonObject[] | undefined;
  /** The istiod Deployments in the namespace, of all revisions; undefined: the operator lacks the permission to list them. */
  deployments: IstiodDeployment[] | undefined;
}

/**
 * One write. `merge` (merge patch) and `delete` are conditional on the resourceVersion of the observed object. `apply` is a server-side apply
 * of all fields that the operator owns in the object. It is never forced, and conditional on the UID, with `exact` also on the resourceVersion.
 */
export type Write =
  { kind: 'merge'; patch: JsonObject } | { kind: 'apply'; object: JsonObject; exact?: true } | { kind: 'delete' };

/** One kind of control plane. */
export interface ControlPlaneAdapter {
  gvr: Gvr;
  clusterScoped: boolean;
  /** Whether the operator creates the object. */
  makesIt: boolean;
  /** The type of other objects with information about the control plane, of the same scope; undefined: none. */
  relatives: Gvr | undefined;
  /** Returns the values of the label `istio.io/rev` on the istiod Deployments of this control plane. */
  revisions(target: Target): string[];
  /** Compares the object with the desired fields. Called only if the object exists or the operator creates it. */
  look(target: Target, fields: IstiodFields): ControlPlaneFacts | Unfit;
  /** Returns the writes that set the owner annotation. */
  claim(target: Target, owner: string): Write[];
  /** Returns the writes that set the fields. */
  write(target: Target, fields: IstiodFields): Write[];
  /** Returns the writes that restore the previous values, to execute in this order. The last one removes the owner annotation. */
  release(target: Target): Write[];
  /** Returns what the object says of its istiod; used while istiod has no Deployment. */
  istiodValues(target: Pick<Target, 'object' | 'spec' | 'relatives'>): IstiodValues;
  /** Returns what the user commits to set the fields: a part of the object, or Helm values. */
  render(target: Omit<Target, 'deployments'>, fields: IstiodFields): JsonObject;
}

/** Returns an object with a value at a path: `nest(['a', 'b'], 1)` is `{a: {b: 1}}`. */
export function nest(path: readonly string[], value: unknown): JsonObject {
  return path.reduceRight<unknown>((below, key) => ({ [key]: below }), value) as JsonObject;
}

/** Returns an annotation of an object; undefined if the object does not have it. */
export function annotationOf(object: JsonObject | undefined, name: string): string | undefined {
  const value = dig(object, 'metadata', 'annotations', name);
  return typeof value === 'string' ? value : undefined;
}

/**
 * Parses the annotation `istiovaultca.io/previous-…`, the record of the object before the first write. undefined: the object has no such
 * annotation, or it is invalid because a user edited it.
 */
export function previousOf<T>({ object, spec }: Pick<Target, 'object' | 'spec'>, schema: z.ZodType<T>): T | undefined {
  const text = annotationOf(object, previousAnnotation(spec.revision));
  if (text === undefined) return undefined;
  try {
    return schema.safeParse(JSON.parse(text)).data;
  } catch {
    return undefined; // fields in the object are then treated as those of other field managers
  }
}

/** Formats a path for messages. Keys that are not identifiers are in brackets. */
export const formatPath = (path: readonly PropertyKey[]): string =>
  path
    .map(String)
    .reduce((at, key) => (/^[A-Za-z_][\w-]*$/.test(key) ? (at === '' ? key : `${at}.${key}`) : `${at}[${key}]`), '');

/** Formats a value for messages: JSON on one line, at most 120 characters. */
export const formatValue = (value: unknown): string => JSON.stringify(value ?? null).slice(0, 120);
