/** The operator as users run it: the bundled program, as a process of its own, under the shipped RBAC. */
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { makeTemporaryDir, startProcess, type ManagedProcess } from '../stack/processes.ts';
import { freePort } from '../stack/ports.ts';
import { waitFor } from '../stack/wait.ts';

const top = join(import.meta.dirname, '..', '..');
let built: Promise<unknown> | undefined;

/** Names the bundled program where it is built already: Jest's global setup does it once for all files. */
export const operatorVariable = 'TEST_OPERATOR';

/** The path of `dist/main.js`, which is bundled first, once a process, unless the environment names one. */
export async function buildOperator(): Promise<string> {
  const given = process.env[operatorVariable];
  if (given !== undefined) return given;
  built ??= promisify(execFile)(process.execPath, [join(top, 'scripts', 'build.ts')], { cwd: top });
  await built;
  return join(top, 'dist', 'main.js');
}

export interface RunningOperator extends ManagedProcess {
  /** The text of /metrics. */
  metrics(): Promise<string>;
}

/** Starts `run` with a kubeconfig; returns when it is ready to work. */
export async function startOperator(kubeconfig: string, flags: string[] = []): Promise<RunningOperator> {
  const main = await buildOperator();
  const dir = makeTemporaryDir('operator');
  const [metricsPort, healthPort] = [await freePort(), await freePort()];
  const operator = startProcess({
    name: 'operator',
    command: process.execPath,
    args: [
      '--enable-source-maps',
      main,
      'run',
      `--kubeconfig=${kubeconfig}`,
      '--leader-election-namespace=istio-vault-ca',
      '--vault-addresses=https://127.0.0.1:*',
      `--metrics-address=127.0.0.1:${metricsPort}`,
      `--health-address=127.0.0.1:${healthPort}`,
      '--log-level=debug',
      ...flags,
    ],
    cwd: dir,
    logPath: join(dir, 'operator.log'),
    graceMs: 25_000,
  });
  await waitFor(
    'the operator to be ready',
    async () => (await fetch(`http://127.0.0.1:${healthPort}/readyz`).catch(() => undefined))?.status === 200,
    { process: operator },
  );
  const metrics = async () => await (await fetch(`http://127.0.0.1:${metricsPort}/metrics`)).text();
  return Object.assign(operator, { metrics });
}

/** How a command of the program ended, and what it said. */
export interface Said {
  code: number;
  stdout: string;
  stderr: string;
}

/** Runs a command of the program to its end. @param stdin what it can read there */
export async function runProgram(args: string[], stdin = ''): Promise<Said> {
  const main = await buildOperator();
  return await new Promise((resolve, reject) => {
    const child = execFile(process.execPath, [main, ...args], { env: {} }, (error, stdout, stderr) => {
      const code = error === null ? 0 : error.code;
      if (typeof code === 'number') resolve({ code, stdout, stderr });
      else reject(error ?? new Error('it did not run'));
    });
    child.stdin?.end(stdin);
  });
}
