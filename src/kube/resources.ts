/** URL paths of resources on the API server. */
import type { Gvr } from '../api/gvr.ts';

/** Returns the path of an API group and version, which lists its resource types. */
export function groupVersionPath(gvr: Pick<Gvr, 'group' | 'version'>): string {
  const version = encodeURIComponent(gvr.version);
  return gvr.group === '' ? `/api/${version}` : `/apis/${encodeURIComponent(gvr.group)}/${version}`;
}

/**
 * Returns the path of a collection, or of one object in it.
 * @param namespace undefined for cluster-scoped objects, and for collections of all namespaces
 */
export function resourcePath(gvr: Gvr, namespace?: string, name?: string): string {
  const parts = [groupVersionPath(gvr)];
  if (namespace !== undefined) parts.push('namespaces', segment(namespace));
  parts.push(segment(gvr.plural));
  if (name !== undefined) parts.push(segment(name));
  return parts.join('/');
}

/** Escapes a path segment. @throws RangeError for the segments ``, `.` and `..`, which URL parsers resolve */
function segment(text: string): string {
  if (text === '' || text === '.' || text === '..') throw new RangeError(`"${text}" is not a name`);
  return encodeURIComponent(text);
}
