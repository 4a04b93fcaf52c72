/**
 * Starts the tests or the demo on a machine with nothing but Node 18 or newer and npm:
 * `node scripts/bootstrap.mjs test [Jest arguments…]` and `node scripts/bootstrap.mjs demo [arguments…]`;
 * `node scripts/bootstrap.mjs install` only does what the others do first.
 *
 * Installs the dependencies when they are missing or not those of package-lock.json, then goes on with the Node
 * version that they bring along. Plain JavaScript on purpose: this runs before anything is installed.
 */
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { constants, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const modules = join(root, 'node_modules');
const node = join(modules, '.bin', 'node');

/** Whether npm's own record of what is installed has every version that package-lock.json asks for. */
function isInstalled() {
  const record = join(modules, '.package-lock.json');
  if (!existsSync(record) || !existsSync(node)) return false;
  const installed = JSON.parse(readFileSync(record, 'utf8')).packages;
  const wanted = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8')).packages;
  return Object.entries(wanted).every(([path, { version, optional, devOptional }]) => {
    if (path === '') return true;
    const found = installed[path];
    // Optional ones are there only where they fit the platform.
    return found === undefined ? Boolean(optional || devOptional) : found.version === version;
  });
}

/** Runs `npm ci` unless what is installed is what package-lock.json asks for. */
function install() {
  if (isInstalled()) return;
  console.error('installing dependencies (npm ci) …');
  const result = spawnSync('npm', ['ci', '--no-audit', '--no-fund'], { cwd: root, stdio: ['ignore', 2, 2] });
  if (result.error !== undefined) throw new Error(`npm could not be started: ${result.error.message}`);
  if (result.status !== 0) throw new Error(`npm ci failed (exit code ${String(result.status ?? result.signal)})`);
}

/**
 * Runs the project's own Node with standard input and output passed on, hands signals on to it, and gives its exit
 * code. It is waited for even then: it has servers to stop.
 */
function run(args) {
  return new Promise((resolve, reject) => {
    const child = spawn(node, args, { cwd: root, stdio: 'inherit' });
    const forward = (signal) => {
      // Ctrl-C reaches everything in the terminal's foreground by itself; twice could mean more than once.
      if (!(signal === 'SIGINT' && process.stdin.isTTY)) child.kill(signal);
    };
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, forward);
    child.on('error', reject);
    child.on('exit', (code, signal) => resolve(code ?? 128 + (constants.signals[signal] ?? 1)));
  });
}

/**
 * The Jest projects that can run here. Pods of istiod need an address each, which only Linux gives without being asked; what takes
 * minutes each is left to `npm run test:mesh`.
 */
const projects = ['unit', 'real', ...(process.platform === 'linux' ? ['mesh'] : [])];

/** Runs all tests, or those that Jest's arguments choose, in one run. Gives the totals and the exit code. */
async function test(args) {
  const dir = mkdtempSync(join(tmpdir(), 'istio-vault-ca-jest-'));
  try {
    const outputFile = join(dir, 'results.json');
    const code = await run([
      ...['--experimental-vm-modules', '--no-warnings', join(modules, 'jest', 'bin', 'jest.js')],
      ...['--json', `--outputFile=${outputFile}`, '--passWithNoTests', '--testPathIgnorePatterns=/mesh/long/'],
      // last, as it takes all names that follow, which a path among the arguments must not be
      ...args,
      ...['--selectProjects', ...projects],
    ]);
    // Global setup failed, or it was interrupted: nothing ran to its end, which is no success.
    if (!existsSync(outputFile)) return { passed: 0, failed: 1, code: code || 1 };
    const results = JSON.parse(readFileSync(outputFile, 'utf8'));
    return {
      passed: results.numPassedTests,
      // A suite that could not run at all has no tests to count.
      failed: results.numFailedTests + results.numRuntimeErrorTestSuites,
      code: code || (results.success ? 0 : 1),
    };
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

const [command, ...args] = process.argv.slice(2);
try {
  if (!['test', 'demo', 'install'].includes(command)) {
    throw new Error('usage: node scripts/bootstrap.mjs test [Jest arguments…] | demo [arguments…] | install');
  }
  install();
  if (command === 'test') {
    const { passed, failed, code } = await test(args);
    console.log(`${passed} passed, ${failed} failed`);
    process.exitCode = code;
  }
  if (command === 'demo') process.exitCode = await run([join('test', 'demo', 'main.ts'), ...args]);
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 2;
}
