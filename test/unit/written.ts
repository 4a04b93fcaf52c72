/** An object after the writes of a control plane adapter, and who has set what of it, without a server. */
import { isObject, type JsonObject } from '../../src/api/json.ts';
import { type Write } from '../../src/control-planes/adapter.ts';

/** What the API server makes of a JSON merge patch. https://www.rfc-editor.org/rfc/rfc7386 */
export function mergePatch(target: unknown, patch: JsonObject): JsonObject {
  const out: JsonObject = isObject(target) ? { ...target } : {};
  for (const [name, value] of Object.entries(patch)) {
    if (value === null) Reflect.deleteProperty(out, name);
    else out[name] = isObject(value) ? mergePatch(out[name], value) : value;
  }
  return out;
}

/** Carries out those that are merge patches. */
export const written = (object: JsonObject, writes: Write[]): JsonObject =>
  writes.reduce((at, write) => (write.kind === 'merge' ? mergePatch(at, write.patch) : at), object);

const fieldsOf = (value: unknown): JsonObject =>
  isObject(value)
    ? Object.fromEntries(Object.entries(value).map(([name, below]) => [`f:${name}`, fieldsOf(below)]))
    : {};

/** An entry of `managedFields`: this manager has applied these fields. */
export const applied = (manager: string, spec: JsonObject): JsonObject => ({
  manager,
  operation: 'Apply',
  time: '2030-01-01T00:00:00Z',
  fieldsV1: { 'f:spec': fieldsOf(spec) },
});
