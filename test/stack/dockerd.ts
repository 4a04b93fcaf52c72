/**
 * A separate Docker daemon for machines where none runs. It needs root and the program `dockerd`. If the program is
 * missing, it is installed with apt-get if possible (Debian package docker.io). Data, sockets and pidfile are in a temporary
 * folder. The daemon is stopped by its process id with SIGTERM, so that it stops its containers too.
 */
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { call } from './http.ts';
import { makeTemporaryDir, startProcess } from './processes.ts';
import type { RunningServer } from './types.ts';
import { waitFor } from './wait.ts';

const run = promisify(execFile);

export interface Dockerd extends RunningServer {
  /** For the variable DOCKER_HOST: `unix://…`. */
  readonly host: string;
}

async function has(program: string): Promise<boolean> {
  try {
    await run('/bin/sh', ['-c', 'command -v "$1"', 'sh', program]);
    return true;
  } catch {
    return false;
  }
}

let started: Promise<Dockerd> | undefined;

/**
 * Starts the daemon, once for this process: it runs until `stop`, or until this process ends.
 * @throws if this user is not root, or dockerd is missing and cannot be installed, or does not start; the message names the cause
 */
export function startDockerd(onProgress: (line: string) => void = () => undefined): Promise<Dockerd> {
  started ??= start(onProgress).catch((error: unknown) => {
    started = undefined;
    throw error;
  });
  return started;
}

async function start(onProgress: (line: string) => void): Promise<Dockerd> {
  if (process.getuid?.() !== 0) throw new Error('no Docker daemon answers, and only root can start one');
  if (!(await has('dockerd'))) {
    if (!(await has('apt-get'))) throw new Error('no Docker daemon answers, and dockerd is not installed');
    onProgress('installing docker.io with apt-get …');
    const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
    try {
      await run('apt-get', ['update', '-qq'], { env });
      await run('apt-get', ['install', '-y', '-qq', 'docker.io'], { env, maxBuffer: 1 << 24 });
    } catch {
      throw new Error('no Docker daemon answers, and the package docker.io cannot be installed');
    }
  }
  const dir = makeTemporaryDir('docker');
  const socket = join(dir, 'docker.sock');
  const host = `unix://${socket}`;
  const dockerd = startProcess({
    name: 'dockerd',
    command: 'dockerd',
    args: [
      ...['--data-root', join(dir, 'data'), '--exec-root', join(dir, 'exec')],
      ...['--host', host, '--pidfile', join(dir, 'docker.pid')],
    ],
    env: { HOME: dir },
    cwd: dir,
    logPath: join(dir, 'dockerd.log'),
    graceMs: 20_000,
    gently: true,
  });
  const answers = async (): Promise<boolean> =>
    (await call('http://localhost/_ping', { socketPath: socket })).status === 200;
  try {
    await waitFor('dockerd to answer', answers, { timeoutMs: 30_000, process: dockerd });
  } catch (error) {
    await dockerd.stop();
    throw error;
  }
  return {
    host,
    log: dockerd.log,
    stop: async () => {
      started = undefined;
      await dockerd.stop();
    },
  };
}
