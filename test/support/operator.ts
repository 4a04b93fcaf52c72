/** The operator as users run it: the bundled program as a separate process, with the shipped RBAC. */
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { makeTemporaryDir, startProcess, type ManagedProcess } from '../stack/processes.ts';
import { freePort } from '../stack/ports.ts';
import { waitFor } from '../stack/wait.ts';

const top = join(import.meta.dirname, '..', '..');
let built: Promise<unknown> | undefined;

/** Environment variable with the path of the bundled program, which Jest's global setup builds once for all files. */
export const operatorVariable = 'TEST_OPERATOR';

/** The path of `dist/main.js`. If the environment names no path, the program is bundled first, once per process. */
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

/**
 * Starts `run` with a kubeconfig; returns when it is ready to work.
 * @param nodeFlags flags of Node, before the program
 * @param env its environment
 */
export async function startOperator(
  kubeconfig: string,
  flags: string[] = [],
  { nodeFlags = [], env = {} }: { nodeFlags?: readonly string[]; env?: Readonly<Record<string, string>> } = {},
): Promise<RunningOperator> {
  const main = await buildOperator();
  const dir = makeTemporaryDir('operator');
  const [metricsPort, healthPort] = [await freePort(), await freePort()];
  const operator = startProcess({
    name: 'operator',
    command: process.execPath,
    // the image also has source maps: they only change stack traces, and parsing them takes half of the time of a start
    args: [
      ...nodeFlags,
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
    env,
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

/** The exit code of a command of the program, and its output. */
export interface Said {
  code: number;
  stdout: string;
  stderr: string;
}

/** Runs a command of the program to its end. @param stdin its standard input */
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
