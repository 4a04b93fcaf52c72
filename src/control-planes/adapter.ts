/** The seam between the operator and the kinds of control plane: pure functions from an object to facts and to a patch. */
import type { IstiodFields } from '../plan/desired.ts';
import type { ControlPlaneFacts } from '../plan/observed.ts';

export type JsonObject = Record<string, unknown>;

export interface AdapterInput {
  /** The control plane as the API server has it. */
  object: JsonObject;
  revision: string | undefined;
  fields: IstiodFields;
}

export type ReleaseInput = Omit<AdapterInput, 'fields'>;

export interface ControlPlaneAdapter {
  gvr: { group: string; version: string; plural: string };
  /** What stands in the object, against what is wanted. */
  facts(input: AdapterInput): ControlPlaneFacts;
  /** A JSON merge patch that writes the fields, guarded by the resourceVersion of the object that was looked at. */
  patch(input: AdapterInput): JsonObject;
  /** A JSON merge patch that gives the fields back exactly as they stood before, guarded alike. */
  release(input: ReleaseInput): JsonObject;
}

export const isObject = (value: unknown): value is JsonObject =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** A value deep inside an object; undefined when the path ends early. */
export function dig(object: unknown, ...path: string[]): unknown {
  return path.reduce<unknown>((at, key) => (isObject(at) ? at[key] : undefined), object);
}

/** An annotation of an object. */
export function annotationOf(object: JsonObject, name: string): string | undefined {
  const value = dig(object, 'metadata', 'annotations', name);
  return typeof value === 'string' ? value : undefined;
}

/** A merge patch of annotations, guarded by resourceVersion; null takes one away. */
export function annotationPatch(object: JsonObject, annotations: Record<string, string | null>): JsonObject {
  return { metadata: { resourceVersion: dig(object, 'metadata', 'resourceVersion'), annotations } };
}
