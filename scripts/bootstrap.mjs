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

/** Runs one Jest project and adds its results to the totals. */
async function jest(totals, project, args) {
  const dir = mkdtempSync(join(tmpdir(), 'istio-vault-ca-jest-'));
  try {
    const outputFile = join(dir, 'results.json');
    const code = await run([
      ...['--experimental-vm-modules', '--no-warnings', join(modules, 'jest', 'bin', 'jest.js')],
      ...['--selectProjects', project, '--json', `--outputFile=${outputFile}`, '--passWithNoTests', ...args],
    ]);
    if (code !== 0) totals.code = code;
    if (!existsSync(outputFile)) {
      // Global setup failed, or it was interrupted: nothing ran, which is no success.
      totals.failed++;
      totals.code ||= 1;
      return code > 128;
    }
    const results = JSON.parse(readFileSync(outputFile, 'utf8'));
    totals.passed += results.numPassedTests;
    // A suite that could not run at all has no tests to count.
    totals.failed += results.numFailedTests + results.numRuntimeErrorTestSuites;
    if (!results.success) totals.code ||= 1;
    return code > 128;
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

/** Runs everything, and adds up. */
async function test(totals, args) {
  const interrupted = await jest(totals, 'unit', args);
  if (interrupted || (await jest(totals, 'real', ['--runInBand', ...args]))) return;
  // pods of istiod need servers as processes; what takes minutes each is left to `npm run test:mesh`
  if (process.platform === 'linux') {
    process.env.TEST_STACK = 'processes';
    await jest(totals, 'mesh', ['--runInBand', '--testPathIgnorePatterns=/mesh/long/', ...args]);
  }
}

const [command, ...args] = process.argv.slice(2);
try {
  if (!['test', 'demo', 'install'].includes(command)) {
    throw new Error('usage: node scripts/bootstrap.mjs test [Jest arguments…] | demo [arguments…] | install');
  }
  install();
  if (command === 'test') {
    const totals = { passed: 0, failed: 0, code: 0 };
    await test(totals, args);
    console.log(`${totals.passed} passed, ${totals.failed} failed`);
    process.exitCode = totals.code;
  }
  if (command === 'demo') process.exitCode = await run([join('test', 'demo', 'main.ts'), ...args]);
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 2;
}
