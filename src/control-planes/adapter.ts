/** The seam between the operator and the kinds of control plane: pure functions from objects to facts and to writes. */
import type { z } from 'zod';
import { previousAnnotation } from '../api/annotations.ts';
import type { Gvr } from '../api/gvr.ts';
import { dig, type JsonObject } from '../api/json.ts';
import type { Spec } from '../api/schema.ts';
import type { IstiodFields } from '../plan/control-plane/istiod-fields.ts';
import type { ControlPlaneFacts, Unfit } from '../plan/facts/observed.ts';
import type { IstiodDeployment } from '../plan/facts/observed-istiod.ts';

/** What an adapter is given of the world. */
export interface Target {
  /** The control plane as the API server has it; undefined: it is not there. */
  object: JsonObject | undefined;
  /** Of the resource, and of istiod. */
  namespace: string;
  spec: Spec['controlPlane'];
  /** Objects of the adapter's `relatives`; undefined when they may not be read. */
  relatives: JsonObject[] | undefined;
  /** Deployments of istiod in the namespace, of whatever revision; undefined when they may not be read. */
  deployments: IstiodDeployment[] | undefined;
}

/**
 * One write. A `merge` is guarded by the resourceVersion of the object that was looked at, a `delete` too; an `apply` is a server-side
 * apply of all that this operator holds of the object, never forced, guarded by its uid, and with `exact` by the resourceVersion too.
 */
export type Write =
  { kind: 'merge'; patch: JsonObject } | { kind: 'apply'; object: JsonObject; exact?: true } | { kind: 'delete' };

export interface ControlPlaneAdapter {
  gvr: Gvr;
  clusterScoped: boolean;
  /** The operator makes the object itself. */
  makesIt: boolean;
  /** Other objects that tell more about the control plane, of the same scope. */
  relatives: Gvr | undefined;
  /** Values of the label `istio.io/rev` that istiod's Deployments of this control plane have. */
  revisions(target: Target): string[];
  /** What stands in the object, against what is wanted. Only called for one that is there, or that the operator makes. */
  look(target: Target, fields: IstiodFields): ControlPlaneFacts | Unfit;
  /** Sets the owner annotation. */
  claim(target: Target, owner: string): Write[];
  /** Writes the fields. */
  write(target: Target, fields: IstiodFields): Write[];
  /** Gives the fields back exactly as they stood before. In order: the last one takes the owner annotation off. */
  release(target: Target): Write[];
  /** What a person would commit to have the fields there: a part of the object, or Helm values. */
  render(target: Omit<Target, 'deployments'>, fields: IstiodFields): JsonObject;
}

/** A value under a path: `nest(['a', 'b'], 1)` is `{a: {b: 1}}`. */
export function nest(path: readonly string[], value: unknown): JsonObject {
  return path.reduceRight<unknown>((below, key) => ({ [key]: below }), value) as JsonObject;
}

/** An annotation of an object. */
export function annotationOf(object: JsonObject | undefined, name: string): string | undefined {
  const value = dig(object, 'metadata', 'annotations', name);
  return typeof value === 'string' ? value : undefined;
}

/** What was there before the first write, as annotation `istiovaultca.io/previous-…` has it; undefined: none, or edited by hand. */
export function previousOf<T>({ object, spec }: Pick<Target, 'object' | 'spec'>, schema: z.ZodType<T>): T | undefined {
  const text = annotationOf(object, previousAnnotation(spec.revision));
  if (text === undefined) return undefined;
  try {
    return schema.safeParse(JSON.parse(text)).data;
  } catch {
    return undefined; // what stands in the object is then judged like anybody's
  }
}

/** A path for people: keys that are no plain names in brackets. */
export const placeOf = (path: readonly PropertyKey[]): string =>
  path
    .map(String)
    .reduce((at, key) => (/^[A-Za-z_][\w-]*$/.test(key) ? (at === '' ? key : `${at}.${key}`) : `${at}[${key}]`), '');

/** A foreign value for people: short, on one line. */
export const show = (value: unknown): string => JSON.stringify(value ?? null).slice(0, 120);
