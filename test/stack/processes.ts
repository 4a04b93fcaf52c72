/**
 * Child processes that cannot outlive their parent.
 *
 * Every child leads a process group of its own, is recorded here, and is ended by the id of that group: SIGTERM, then
 * SIGKILL after a grace period. When this process exits, or gets SIGINT or SIGTERM, it ends the remaining groups. For
 * exits without a handler (SIGKILL, a crash) there is a watchdog: one small shell, in a session of its own, which gets
 * each group and temporary folder over a pipe. The pipe closes when this process ends, whatever the cause. The shell
 * then ends the groups and removes the folders. Nothing is ever ended by name.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, readFileSync, realpathSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { RunningServer } from './types.ts';

/** How a child ended: an exit code, or the signal's name. */
type Exit = number | string;

export interface ManagedProcess extends RunningServer {
  readonly name: string;
  readonly pid: number;
  readonly logPath: string;
  /** The exit code or signal once it has ended, `undefined` while it runs. */
  readonly ended: () => Exit | undefined;
  /** Settles when the process has ended. */
  readonly exited: Promise<Exit>;
}

export interface ProcessOptions {
  /** Its name in messages. */
  readonly name: string;
  readonly command: string;
  readonly args: readonly string[];
  /** The environment besides PATH and TMPDIR, which are inherited, and GOGC. Nothing else is inherited. */
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd: string;
  /** Receives standard output and standard error, appended. */
  readonly logPath: string;
  /** Milliseconds between SIGTERM and SIGKILL; default: 5000. */
  readonly graceMs?: number;
  /** Also at an abrupt end it gets SIGTERM first and 20 seconds, because it must stop processes of its own. */
  readonly gently?: boolean;
}

/**
 * Environment of every child: a Go program lets its heap grow to five times what is in use before it collects garbage, because tests
 * have more memory than processor time. Other programs do not know the variable.
 */
const commonEnv = { GOGC: '400' } as const;

/** Environment of a Go server that serves very many requests: it collects garbage only at 2 GiB. */
export const leanEnv = { GOGC: 'off', GOMEMLIMIT: '2GiB' } as const;

const watchdogScript = `
trap '' INT TERM HUP
groups= gentle= dirs= helpers=
while read -r verb value; do
  case $verb in
    add) groups="$groups $value" ;;
    gentle) gentle="$gentle $value" ;;
    del)
      rest=; for g in $groups; do [ "$g" = "$value" ] || rest="$rest $g"; done; groups=$rest
      rest=; for g in $gentle; do [ "$g" = "$value" ] || rest="$rest $g"; done; gentle=$rest ;;
    helper) helpers="$helpers $value" ;;
    alone) helpers= ;;
    dir) dirs="$dirs$value
" ;;
  esac
done
for h in $helpers; do kill -KILL "$h" 2>/dev/null; done
for g in $groups; do kill -KILL "-$g" 2>/dev/null; done
for g in $gentle; do
  kill -TERM "$g" 2>/dev/null
  left=100
  while [ $left -gt 0 ] && kill -0 "$g" 2>/dev/null && ! grep -q '^State:.Z' "/proc/$g/status" 2>/dev/null; do left=$((left - 1)); sleep 0.2; done
  kill -KILL "-$g" 2>/dev/null
done
printf '%s' "$dirs" | while read -r d; do rm -rf -- "$d"; done
`;

const running = new Set<ManagedProcess>();
const gentle = new Set<ManagedProcess>();
const temporaryDirs = new Set<string>();
let watchdog: ChildProcess | undefined;

const keep = (): boolean => process.env['KEEP_STACK'] === '1';

function killGroup(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(-pid, signal);
  } catch {
    // The group has already ended.
  }
}

function cleanUpNow(): void {
  // The watchdog continues, because this handler cannot wait.
  for (const child of running) killGroup(child.pid, gentle.has(child) ? 'SIGTERM' : 'SIGKILL');
  if (gentle.size > 0) return;
  for (const dir of temporaryDirs) rmSync(dir, { recursive: true, force: true });
}

/** Ends this process by the received signal after everything else has ended, unless other code listens for the signal. */
function onSignal(signal: NodeJS.Signals): void {
  if (process.listenerCount(signal) > 1) return;
  void stopAll().finally(() => {
    process.removeListener(signal, onSignal);
    process.kill(process.pid, signal);
  });
}

function tellWatchdog(line: string): void {
  if (watchdog === undefined) {
    watchdog = spawn('/bin/sh', ['-c', watchdogScript], {
      stdio: ['pipe', 'ignore', 'ignore'],
      detached: true,
      cwd: '/',
    });
    watchdog.unref();
    // A pipe is a socket to Node, which keeps the process alive unless it is unreferenced.
    (watchdog.stdin as unknown as { unref(): void }).unref();
    watchdog.stdin?.on('error', () => undefined);
    watchdog.on('error', () => undefined);
    process.on('exit', cleanUpNow);
    process.on('SIGINT', onSignal);
    process.on('SIGTERM', onSignal);
  }
  watchdog.stdin?.write(`${line}\n`);
}

/**
 * Ends a process that this one did not start, such as a Jest worker, together with this one: a worker that waits in a test would not
 * notice the end. The children of that process end with it.
 */
export function endsWithThis(pid: number): void {
  if (pid !== process.pid) tellWatchdog(`helper ${pid}`);
}

/** From now on, only processes that this one started end with it: the others have ended, and their ids can be reused. */
export function endsAlone(): void {
  tellWatchdog('alone');
}

/**
 * Creates a temporary folder that only this user can read. `removeTemporaryDir` removes it, or at the latest the end of
 * this process, unless KEEP_STACK=1.
 * @param label a word for its name
 */
export function makeTemporaryDir(label: string): string {
  const dir = mkdtempSync(join(realpathSync(tmpdir()), `istio-vault-ca-${label}-`));
  if (!keep()) {
    temporaryDirs.add(dir);
    tellWatchdog(`dir ${dir}`);
  }
  return dir;
}

/** Removes a folder that `makeTemporaryDir` created; does nothing if folders are kept. */
export function removeTemporaryDir(dir: string): void {
  if (temporaryDirs.delete(dir)) rmSync(dir, { recursive: true, force: true, maxRetries: 3 });
}

/**
 * Starts a process as the head of this file describes. Returns at once; the caller waits for readiness.
 * @throws if the command cannot be started
 */
export function startProcess(options: ProcessOptions): ManagedProcess {
  const env: Record<string, string> = { ...commonEnv, ...options.env };
  for (const name of ['PATH', 'TMPDIR']) {
    const value = process.env[name];
    if (value !== undefined) env[name] ??= value;
  }
  const log = openSync(options.logPath, 'a', 0o600);
  let child: ChildProcess;
  try {
    child = spawn(options.command, [...options.args], {
      cwd: options.cwd,
      env,
      detached: true,
      stdio: ['ignore', log, log],
    });
  } finally {
    closeSync(log);
  }
  const { pid } = child;
  if (pid === undefined) {
    child.on('error', () => undefined);
    throw new Error(`${options.name} could not be started: no such program, or not executable: ${options.command}`);
  }
  tellWatchdog(`${options.gently === true ? 'gentle' : 'add'} ${String(pid)}`);
  child.unref();

  let end: Exit | undefined;
  const exited = new Promise<Exit>((resolve) => {
    child.once('exit', (code, signal) => {
      end = code ?? signal ?? 'unknown';
      killGroup(pid, 'SIGKILL');
      tellWatchdog(`del ${String(pid)}`);
      running.delete(managed);
      gentle.delete(managed);
      resolve(end);
    });
  });
  const managed: ManagedProcess = {
    name: options.name,
    pid,
    logPath: options.logPath,
    ended: () => end,
    exited,
    log: () => readLog(options.logPath),
    stop: async () => {
      if (end !== undefined) return;
      killGroup(pid, 'SIGTERM');
      const timer = setTimeout(() => {
        killGroup(pid, 'SIGKILL');
      }, options.graceMs ?? 5000);
      await exited;
      clearTimeout(timer);
    },
  };
  running.add(managed);
  if (options.gently === true) gentle.add(managed);
  return managed;
}

/** The whole text of a log file; empty: there is none yet. */
export function readLog(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}

/** Stops everything that this process started, the newest first, and removes its temporary folders. */
export async function stopAll(): Promise<void> {
  for (const child of [...running].reverse()) await child.stop();
  for (const dir of [...temporaryDirs]) removeTemporaryDir(dir);
}
