/** What the tests of failing istiods share: see `test/mesh/failures-*.test.ts`. */
import type { Json } from './cluster.ts';
import type { Vault } from './scene.ts';

/** A call that has to succeed; gives the answer's body. @throws on an error status */
export const insist = async (server: Vault, method: string, path: string, body?: unknown): Promise<Json> => {
  const answer = await server.request(method, path, body);
  if (answer.status >= 300) throw new Error(`${method} ${path}: ${answer.status}`);
  return (answer.body ?? {}) as Json;
};

/** A selector of namespaces that leaves one out. */
export const notThis = (namespace: string) => ({
  matchExpressions: [{ key: 'kubernetes.io/metadata.name', operator: 'NotIn', values: [namespace] }],
});
