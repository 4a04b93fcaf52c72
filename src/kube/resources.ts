/** Names of API resources and their paths on the API server. */

import type { Gvr } from '../api/gvr.ts';

/** The path of a group and version. */
export function groupVersionPath(gvr: Pick<Gvr, 'group' | 'version'>): string {
  const version = encodeURIComponent(gvr.version);
  return gvr.group === '' ? `/api/${version}` : `/apis/${encodeURIComponent(gvr.group)}/${version}`;
}

/**
 * The path of a collection, or of one object in it.
 * @param namespace undefined for cluster-scoped objects, and for collections of all namespaces
 */
export function resourcePath(gvr: Gvr, namespace?: string, name?: string): string {
  const parts = [groupVersionPath(gvr)];
  if (namespace !== undefined) parts.push('namespaces', segment(namespace));
  parts.push(segment(gvr.plural));
  if (name !== undefined) parts.push(segment(name));
  return parts.join('/');
}

/** One path segment; text that would change the path is refused, since URL parsers resolve it. */
function segment(text: string): string {
  if (text === '' || text === '.' || text === '..') throw new RangeError(`"${text}" is not a name`);
  return encodeURIComponent(text);
}
