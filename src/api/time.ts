/** Formats a time as Kubernetes and Vault do: RFC 3339, in UTC, with whole seconds. @param ms milliseconds since the epoch */
export const rfc3339 = (ms: number): string => new Date(ms).toISOString().replace(/\.\d+Z$/, 'Z');
