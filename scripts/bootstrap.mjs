/**
 * Starts the tests, the demo or the benchmarks on a machine that has only Node 18 or newer and npm: `node scripts/bootstrap.mjs test
 * [Jest arguments…]`, `node scripts/bootstrap.mjs demo [arguments…]` or `node scripts/bootstrap.mjs bench [arguments…]`.
 * `node scripts/bootstrap.mjs install` only installs the dependencies.
 *
 * Installs the dependencies if they are missing or differ from package-lock.json. Then uses the Node version that is one of the dependencies.
 * This file is plain JavaScript, because it runs before anything is installed.
 */
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { constants, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const modules = join(root, 'node_modules');
const node = join(modules, '.bin', 'node');

/** Whether node_modules/.package-lock.json, the record of npm, has every version of package-lock.json. */
function isInstalled() {
  const record = join(modules, '.package-lock.json');
  if (!existsSync(record) || !existsSync(node)) return false;
  const installed = JSON.parse(readFileSync(record, 'utf8')).packages;
  const wanted = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8')).packages;
  return Object.entries(wanted).every(([path, { version, optional, devOptional }]) => {
    if (path === '') return true;
    const entry = installed[path];
    // npm installs optional dependencies only on their platform.
    return entry === undefined ? Boolean(optional || devOptional) : entry.version === version;
  });
}

/** Runs `npm ci` unless the installed dependencies are those of package-lock.json. @throws Error if it fails */
function install() {
  if (isInstalled()) return;
  console.error('installing dependencies (npm ci) …');
  const result = spawnSync('npm', ['ci', '--no-audit', '--no-fund'], { cwd: root, stdio: ['ignore', 2, 2] });
  if (result.error !== undefined) throw new Error(`npm could not be started: ${result.error.message}`);
  if (result.status !== 0) throw new Error(`npm ci failed (exit code ${String(result.status ?? result.signal)})`);
}

/**
 * Runs the Node of the dependencies with the standard streams of this process. Forwards signals, and still waits for the child process, which
 * has servers to stop.
 * @returns the exit code of the child process; 128 + the signal number if a signal ended it
 */
function run(args) {
  return new Promise((resolve, reject) => {
    const child = spawn(node, args, { cwd: root, stdio: 'inherit' });
    const forward = (signal) => {
      // The terminal sends Ctrl-C to all foreground processes. To forward it too would interrupt the child process twice.
      if (!(signal === 'SIGINT' && process.stdin.isTTY)) child.kill(signal);
    };
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, forward);
    child.on('error', reject);
    child.on('exit', (code, signal) => resolve(code ?? 128 + (constants.signals[signal] ?? 1)));
  });
}

/**
 * The Jest projects that can run on this platform. The project `mesh` needs one loopback address per Pod, which only Linux has without
 * configuration. Its tests that take minutes run only with `npm run test:mesh`.
 */
const projects = ['unit', 'real', ...(process.platform === 'linux' ? ['mesh'] : [])];

/** Runs all tests, or those that the Jest arguments select, in one run. Returns the totals and the exit code. */
async function test(args) {
  const dir = mkdtempSync(join(tmpdir(), 'istio-vault-ca-jest-'));
  try {
    const outputFile = join(dir, 'results.json');
    const code = await run([
      ...['--experimental-vm-modules', '--no-warnings', join(modules, 'jest', 'bin', 'jest.js')],
      ...['--json', `--outputFile=${outputFile}`, '--passWithNoTests'],
      ...args,
      // Last: each of the two takes all arguments up to the next flag as its values, also a path to run.
      ...['--testPathIgnorePatterns=/mesh/long/', '--selectProjects', ...projects],
    ]);
    // Without results, the global setup failed or Jest was interrupted. This is no success.
    if (!existsSync(outputFile)) return { passed: 0, failed: 1, code: code || 1 };
    const results = JSON.parse(readFileSync(outputFile, 'utf8'));
    return {
      passed: results.numPassedTests,
      // A test file that could not run has no tests to count.
      failed: results.numFailedTests + results.numRuntimeErrorTestSuites,
      code: code || (results.success ? 0 : 1),
    };
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

const [command, ...args] = process.argv.slice(2);
try {
  if (!['test', 'demo', 'bench', 'install'].includes(command)) {
    throw new Error(
      'usage: node scripts/bootstrap.mjs test [Jest arguments…] | demo [arguments…] | bench [arguments…] | install',
    );
  }
  install();
  if (command === 'test') {
    const { passed, failed, code } = await test(args);
    console.log(`${passed} passed, ${failed} failed`);
    process.exitCode = code;
  }
  if (command === 'demo' || command === 'bench')
    process.exitCode = await run([join('test', command, 'main.ts'), ...args]);
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 2;
}
