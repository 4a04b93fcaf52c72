/**
 * Child processes that cannot outlive their parent.
 *
 * Every child leads a process group of its own, is recorded here, and is ended by that group's id: SIGTERM, then
 * SIGKILL after a grace period. What is left when this process exits, or gets SIGINT or SIGTERM, is ended then. For
 * the exits that no handler sees (SIGKILL, a crash) there is a watchdog: one small shell, in a session of its own,
 * that is told each group and temporary folder over a pipe. The pipe closes when this process is gone, however it
 * went; the shell then ends the groups and removes the folders. Nothing is ever ended by name.
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
  /** What messages call it. */
  readonly name: string;
  readonly command: string;
  readonly args: readonly string[];
  /** The whole environment but PATH and TMPDIR, which are passed on. Nothing else is inherited. */
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd: string;
  /** Receives standard output and standard error, appended. */
  readonly logPath: string;
  /** Milliseconds between SIGTERM and SIGKILL; 5000 unless given. */
  readonly graceMs?: number;
  /** Also at an abrupt end it gets SIGTERM first, and 20 seconds: it has something of its own to stop. */
  readonly gently?: boolean;
}

/** Environment of a Go server that serves very many requests: it collects garbage when it holds 2 GiB. */
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
    // The group is gone already.
  }
}

function cleanUpNow(): void {
  // The watchdog goes on where this cannot wait.
  for (const child of running) killGroup(child.pid, gentle.has(child) ? 'SIGTERM' : 'SIGKILL');
  if (gentle.size > 0) return;
  for (const dir of temporaryDirs) rmSync(dir, { recursive: true, force: true });
}

/** Ends by the signal that came, after everything else has ended; others that listen for it decide for themselves. */
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
    // A pipe is a socket to Node, and keeps the process alive unless told not to.
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
 * Has a process of somebody else, such as a Jest worker, end with this one: a worker that waits for something in a test would not
 * notice by itself. What it started ends with it.
 */
export function endsWithThis(pid: number): void {
  if (pid !== process.pid) tellWatchdog(`helper ${pid}`);
}

/** From now on only what this process started ends with it: others have ended by themselves, and their ids may be used again. */
export function endsAlone(): void {
  tellWatchdog('alone');
}

/**
 * Makes a temporary folder that only this user can read. It is removed by `removeTemporaryDir`, and at the latest
 * when this process ends, unless KEEP_STACK=1.
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

/** Removes a folder made by `makeTemporaryDir`; does nothing when folders are kept. */
export function removeTemporaryDir(dir: string): void {
  if (temporaryDirs.delete(dir)) rmSync(dir, { recursive: true, force: true, maxRetries: 3 });
}

/**
 * Starts a process of the kind that the head of this file describes. Returns at once; the caller waits for readiness.
 * @throws when the command cannot be started at all
 */
export function startProcess(options: ProcessOptions): ManagedProcess {
  const env: Record<string, string> = { ...options.env };
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

/** The whole text of a log file, or nothing where there is none yet. */
export function readLog(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}

/** Stops everything this process started, the youngest first, and removes its temporary folders. */
export async function stopAll(): Promise<void> {
  for (const child of [...running].reverse()) await child.stop();
  for (const dir of [...temporaryDirs]) removeTemporaryDir(dir);
}
