/** JSON as plain data: objects of Kubernetes and answers of Vault, and how foreign values in them are read. */

export type JsonObject = Record<string, unknown>;

export const isObject = (value: unknown): value is JsonObject =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** A value deep inside an object; undefined when the path ends early. */
export function dig(object: unknown, ...path: string[]): unknown {
  return path.reduce<unknown>((at, key) => (isObject(at) ? at[key] : undefined), object);
}

/** A foreign value as a list; what is none is an empty one. */
export const items = (value: unknown): unknown[] => (Array.isArray(value) ? value : []);

/** A foreign value as text; what is none is empty. */
export const str = (value: unknown): string => (typeof value === 'string' ? value : '');
