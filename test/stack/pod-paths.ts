/** Maps paths inside a container to paths on this machine, because there is no mount namespace. */

const escape = (text: string): string => text.replaceAll(/[.*+?^${}()|[\]\\]/g, '\\$&');

/**
 * Replaces the mount paths of a container everywhere in a text: alone, nested, or within a command.
 * @param mounts mount path to folder of this machine
 */
export function mapPaths(mounts: ReadonlyMap<string, string>): (text: string) => string {
  // the longest first: one can be below another
  const paths = [...mounts.keys()].sort((a, b) => b.length - a.length);
  if (paths.length === 0) return (text) => text;
  const found = new RegExp(`(?<![\\w./-])(${paths.map(escape).join('|')})(?![\\w.-])`, 'g');
  return (text) => text.replaceAll(found, (path) => mounts.get(path) ?? path);
}

/** Applies `map` to every string within a value. */
export function mapStrings(value: unknown, map: (text: string) => string): unknown {
  if (typeof value === 'string') return map(value);
  if (Array.isArray(value)) return value.map((item) => mapStrings(item, map));
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, mapStrings(item, map)]));
}
