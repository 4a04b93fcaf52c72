/**
 * Whether the value is an error, of whatever realm: `instanceof` misses those of Node itself in a test's context, and
 * DOMException, which aborted requests end with.
 */
export function isError(value: unknown): value is Error {
  if (value instanceof Error) return true;
  return ['[object Error]', '[object DOMException]'].includes(Object.prototype.toString.call(value));
}
