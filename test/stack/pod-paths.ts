/** Paths inside a container, as they are on this machine: there is no mount namespace here. */

const escape = (text: string): string => text.replaceAll(/[.*+?^${}()|[\]\\]/g, '\\$&');

/**
 * Replaces the mount paths of a container wherever they stand in a text: alone, below one another, within a command.
 * @param mounts mount path to folder of this machine
 */
export function mapPaths(mounts: ReadonlyMap<string, string>): (text: string) => string {
  // the longest first: one may lie below another
  const paths = [...mounts.keys()].sort((a, b) => b.length - a.length);
  if (paths.length === 0) return (text) => text;
  const found = new RegExp(`(?<![\\w./-])(${paths.map(escape).join('|')})(?![\\w.-])`, 'g');
  return (text) => text.replaceAll(found, (path) => mounts.get(path) ?? path);
}

/** Does to every string within a value what `map` does to one. */
export function mapStrings(value: unknown, map: (text: string) => string): unknown {
  if (typeof value === 'string') return map(value);
  if (Array.isArray(value)) return value.map((item) => mapStrings(item, map));
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, mapStrings(item, map)]));
}
