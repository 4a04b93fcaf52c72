/** Helpers of the tests of failing istiod replicas, `test/mesh/failures-*.test.ts`. */
import type { Json } from './cluster.ts';
import type { Vault } from './scene.ts';

/** Makes a call and returns the body of the response. @throws on an error status */
export const insist = async (server: Vault, method: string, path: string, body?: unknown): Promise<Json> => {
  const answer = await server.request(method, path, body);
  if (answer.status >= 300) throw new Error(`${method} ${path}: ${answer.status}`);
  return (answer.body ?? {}) as Json;
};

/** A namespace selector that excludes one namespace. */
export const notThis = (namespace: string) => ({
  matchExpressions: [{ key: 'kubernetes.io/metadata.name', operator: 'NotIn', values: [namespace] }],
});
