/** The test files of a run. The sequencer learns them from Jest; the global setup prepares the servers that they need. */
import { readFileSync } from 'node:fs';

/** A test file, and the Jest project that runs it. */
export interface ChosenFile {
  readonly path: string;
  readonly project: string;
}

/** The sequencer and the global setup have different module registries, but the same global object. */
const key: unique symbol = Symbol.for('istio-vault-ca.chosen-test-files');

/** Records the files of this run for `chosenFiles`. */
export function recordChosen(files: readonly ChosenFile[]): void {
  (globalThis as Record<symbol, unknown>)[key] = files;
}

/** The files of this run. @throws when the sequencer of this project has not run */
export function chosenFiles(): readonly ChosenFile[] {
  const files = (globalThis as Record<symbol, unknown>)[key] as readonly ChosenFile[] | undefined;
  if (files === undefined) throw new Error('jest.config.mjs has to name test/run/sequencer.mjs as testSequencer');
  return files;
}

/** The servers that a test file names in a comment line `@servers kubectl, helm`, besides those of every stack. */
export function serversNamedIn(path: string): string[] {
  const line = /^ \* @servers (.+)$/m.exec(readFileSync(path, 'utf8'))?.[1] ?? '';
  return line.split(/[ ,]+/).filter(Boolean);
}
