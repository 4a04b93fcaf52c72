/** A Jest reporter that prints which ten test files took longest. */
import { relative } from 'node:path';

/** What Jest hands over of a finished test file. */
interface FileResult {
  readonly testFilePath: string;
  readonly perfStats: { readonly start: number; readonly end: number };
}

const shown = 10;

export default class Slowest {
  onRunComplete(_: unknown, results: { readonly testResults: readonly FileResult[] }): void {
    if (results.testResults.length < 2) return;
    const files = results.testResults
      .map(({ testFilePath, perfStats: { start, end } }) => ({
        file: relative(process.cwd(), testFilePath),
        seconds: Math.round((end - start) / 1000),
      }))
      .sort((a, b) => b.seconds - a.seconds);
    const lines = files.slice(0, shown).map(({ file, seconds }) => `${String(seconds).padStart(5)} s  ${file}`);
    process.stderr.write(`\nThe longest of ${files.length} test files:\n${lines.join('\n')}\n`);
  }
}
