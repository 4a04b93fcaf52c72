/** Helpers to read untyped JSON, such as Kubernetes objects and Vault responses. */

export type JsonObject = Record<string, unknown>;

export const isObject = (value: unknown): value is JsonObject =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** Returns the value at a path in an object; undefined if there is none. */
export function dig(object: unknown, ...path: string[]): unknown {
  return path.reduce<unknown>((at, key) => (isObject(at) ? at[key] : undefined), object);
}

/** Returns the value if it is a list; otherwise an empty list. */
export const items = (value: unknown): unknown[] => (Array.isArray(value) ? value : []);

/** Returns the value if it is a string; otherwise an empty string. */
export const str = (value: unknown): string => (typeof value === 'string' ? value : '');
