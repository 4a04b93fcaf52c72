/** JSON as data: objects of Kubernetes and answers of Vault, and what reads them. */

export type JsonObject = Record<string, unknown>;

export const isObject = (value: unknown): value is JsonObject =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
