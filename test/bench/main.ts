/**
 * `npm run bench`: measures the operator against real servers on this machine. `--help` lists the scenarios. Exit code: 0 if every target
 * is met, 1 if one is missed or something fails, and after an interruption the one of the signal (130 for Ctrl-C).
 */
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { mute, paint, print, step, table, title } from '../demo/terminal.ts';
import { Cleanup, interruption } from '../support/cleanup.ts';
import { environment, top, type Environment } from './environment.ts';
import { parseOptions, usage, UsageError, type BenchOptions } from './options.ts';
import { cellsOf, headOf, missedTargets, section, withSection } from './report.ts';
import type { Row, Scenario } from './scenario.ts';
import { scenarios } from './scenarios.ts';

const page = join(top, 'docs', 'performance.md');

/** Writes the result of a scenario into docs/performance.md. */
async function keep(scenario: Scenario, rows: readonly Row[], where: Environment, minutes: number): Promise<void> {
  const text = section(scenario, rows, where, minutes);
  await writeFile(page, withSection(await readFile(page, 'utf8'), scenario.name, text));
}

/** Runs the chosen scenarios one after the other. @returns the missed targets, a line each */
async function measure({ scenarios, minutes, write }: BenchOptions, cleanup: Cleanup): Promise<string[]> {
  // before a result is written, which changes a file
  const where = await environment();
  const missed: string[] = [];
  for (const scenario of scenarios) {
    title(scenario.name);
    const rows = await scenario.run({ minutes, cleanup, progress: (line) => step(line) });
    await cleanup.run();
    print();
    table(rows.map(cellsOf), headOf(scenario));
    if (write) await keep(scenario, rows, where, minutes);
    missed.push(...missedTargets(scenario.name, rows));
  }
  print();
  print(`${where.date}, commit ${where.commit}: ${where.machine}; ${where.versions}`);
  return missed;
}

/** @returns the exit code */
async function run(options: BenchOptions): Promise<number> {
  // The servers do not keep Node running, and at times a scenario waits for nothing else.
  setInterval(() => undefined, 60_000);
  const cleanup = new Cleanup();
  try {
    const end = await Promise.race([measure(options, cleanup), interruption()]);
    if (typeof end === 'number') {
      print('Interrupted; stopping everything …');
      mute(true);
      return end;
    }
    for (const line of end) print(paint('red', line));
    return end.length > 0 ? 1 : 0;
  } catch (error) {
    print(paint('red', error instanceof Error ? error.message : String(error)));
    return 1;
  } finally {
    await cleanup.run();
  }
}

try {
  const options = parseOptions(process.argv.slice(2), scenarios);
  if (options.help) process.stdout.write(usage(scenarios));
  // An interrupted scenario can still wait for something.
  else process.exit(await run(options));
} catch (error) {
  if (!(error instanceof UsageError)) throw error;
  process.stderr.write(`bench: ${error.message}\n\n${usage(scenarios)}`);
  process.exitCode = 1;
}
