/** What the Go command says about the packages that it compiles. Pure. */

/** A package that is not in Go's build cache. */
export interface StalePackage {
  readonly path: string;
  /** Path and version of the module: equal in two builds where both compile the same package. */
  readonly id: string;
  /** Paths of the packages that it imports. */
  readonly imports: readonly string[];
}

/**
 * Template for `go list -deps -f`: one line for each package that a build of the same packages would compile. The
 * reason that it leaves out is the one of a program whose package is compiled and only has to be linked.
 */
export const staleFormat =
  '{{if and .Stale (ne .StaleReason "not installed but available in build cache")}}' +
  'stale\t{{.ImportPath}}\t{{with .Module}}{{.Version}}{{end}}\t{{join .Imports " "}}{{end}}';

/** The packages in the output of `go list` with `staleFormat`, by path. Lines of other kinds do not count. */
export function stalePackages(output: string): ReadonlyMap<string, StalePackage> {
  const packages = new Map<string, StalePackage>();
  for (const line of output.split('\n')) {
    const [kind, path, version, imports] = line.split('\t');
    if (kind !== 'stale' || path === undefined || version === undefined || imports === undefined) continue;
    packages.set(path, { path, id: `${path}@${version}`, imports: imports.split(' ').filter(Boolean) });
  }
  return packages;
}

/** How many modules the Go command has begun to download. */
export const downloadsIn = (output: string): number => output.match(/^go: downloading /gm)?.length ?? 0;

/** Which of the packages `go build -v` has begun to compile: the command prints each path at that moment. */
export const begunIn = (output: string, packages: ReadonlyMap<string, StalePackage>): ReadonlySet<string> =>
  new Set(output.split('\n').filter((line) => packages.has(line)));

/** The output of `go build -v` without the paths of these packages: warnings and errors. */
export const withoutPaths = (output: string, packages: ReadonlyMap<string, StalePackage>): string =>
  output
    .split('\n')
    .filter((line) => !packages.has(line))
    .join('\n');

/**
 * Ids of the packages that a build has not compiled yet. A package is compiled once one that imports it has begun; the
 * Go command prints nothing when a compilation ends.
 */
export function unfinishedIds(
  packages: ReadonlyMap<string, StalePackage>,
  begun: ReadonlySet<string>,
): ReadonlySet<string> {
  const imported = new Set([...begun].flatMap((path) => packages.get(path)?.imports ?? []));
  return new Set([...packages.values()].filter(({ path }) => !imported.has(path)).map(({ id }) => id));
}
