/**
 * `npm run test:matrix`: runs test/e2e/matrix.test.ts with all combinations, once for each pair of a version of OpenBao and one of Vault.
 * `--help` lists the options. Exit code: 0 if all hold, 1 if one fails or a version cannot be had.
 */
import { spawn } from 'node:child_process';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { environment, top } from '../bench/environment.ts';
import { versionVariable } from '../stack/builds/versions.ts';
import { makeTemporaryDir, removeTemporaryDir } from '../stack/processes.ts';
import { products, type Product } from '../stack/types.ts';
import { cells } from './cells.ts';
import { parseOptions, usage, UsageError, type MatrixOptions } from './options.ts';
import { merged, outcomesOf, tables, withTables, type JestResults, type VersionResult } from './report.ts';

const page = join(top, 'docs', 'compatibility.md');
const data = join(top, 'docs', 'compatibility', 'results.json');

/** Versions that run side by side; a product without one is not run. */
type Pair = Partial<Record<Product, string>>;

/** Each version once, those of the two products next to each other. */
const pairsOf = ({ versions }: MatrixOptions): Pair[] =>
  Array.from({ length: Math.max(...products.map((product) => versions[product].length)) }, (_, i) =>
    Object.fromEntries(
      products.flatMap((product) => (versions[product][i] ? [[product, versions[product][i]] as const] : [])),
    ),
  );

/** Runs Jest with the versions of a pair. @returns the content of its result file; undefined if it did not come so far */
async function runPair(pair: Pair): Promise<JestResults | undefined> {
  const dir = makeTemporaryDir('matrix');
  const outputFile = join(dir, 'results.json');
  const args = ['--selectProjects', 'real', '--ci', '--json', `--outputFile=${outputFile}`, 'test/e2e/matrix'];
  const env = {
    ...process.env,
    TEST_MATRIX: Object.keys(pair).join(','),
    ...(pair.OpenBao === undefined ? {} : { [versionVariable.openbao]: pair.OpenBao }),
    ...(pair.Vault === undefined ? {} : { [versionVariable.vault]: pair.Vault }),
  };
  try {
    const jest = join(top, 'node_modules', 'jest', 'bin', 'jest.js');
    const child = spawn(process.execPath, ['--experimental-vm-modules', '--no-warnings', jest, ...args], {
      cwd: top,
      env,
      stdio: ['ignore', 'ignore', 'inherit'],
    });
    await new Promise((resolve, reject) => child.on('exit', resolve).on('error', reject));
    return await readFile(outputFile, 'utf8').then(
      (text) => JSON.parse(text) as JestResults,
      () => undefined,
    );
  } finally {
    removeTemporaryDir(dir);
  }
}

/** Adds results to the page and its data. */
async function write(results: readonly VersionResult[]): Promise<void> {
  const all = merged(JSON.parse(await readFile(data, 'utf8')) as VersionResult[], results);
  await writeFile(data, `${JSON.stringify(all, undefined, 2)}\n`);
  await writeFile(page, withTables(await readFile(page, 'utf8'), tables(all)));
}

/** @returns the exit code */
async function run(options: MatrixOptions): Promise<number> {
  const { date, commit } = await environment();
  let complete = true;
  for (const pair of pairsOf(options)) {
    const answer = await runPair(pair);
    const results: VersionResult[] = [];
    for (const [product, version] of Object.entries(pair) as [Product, string][]) {
      const outcomes = answer === undefined ? {} : outcomesOf(answer, product, cells);
      const failed = Object.values(outcomes).filter((outcome) => outcome === 'failed').length;
      const count = Object.keys(outcomes).length;
      console.log(`${product} ${version}: ${count} of ${cells.length / products.length} ran, ${failed} failed`);
      complete &&= failed === 0 && count === cells.length / products.length;
      if (count > 0) results.push({ product, version, date, commit, cells: outcomes });
    }
    // at once, so that an interrupted run keeps what it has shown
    if (options.write && results.length > 0) await write(results);
  }
  return complete ? 0 : 1;
}

try {
  const options = parseOptions(process.argv.slice(2));
  if (options.help) process.stdout.write(usage);
  else process.exitCode = await run(options);
} catch (error) {
  if (!(error instanceof UsageError)) throw error;
  process.stderr.write(`test:matrix: ${error.message}\n\n${usage}`);
  process.exitCode = 1;
}
