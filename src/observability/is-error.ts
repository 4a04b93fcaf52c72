/**
 * Whether a value is an error, also one of another realm. In the context of a Jest test, `instanceof` does not match the errors of Node itself,
 * nor DOMException, the error of an aborted request.
 */
export function isError(value: unknown): value is Error {
  if (value instanceof Error) return true;
  return ['[object Error]', '[object DOMException]'].includes(Object.prototype.toString.call(value));
}
