/**
 * About how many seconds the longest test files take, with servers built, beside others on two cores. The sequencer starts the
 * longest files first, so that no long file runs alone at the end. A file that is not listed counts as a short one of its folder.
 * Reading: the reporter prints the ten longest files of each run.
 */
import { relative } from 'node:path';

const top = `${import.meta.dirname}/../..`;

const seconds: Readonly<Record<string, number>> = {};

const shortFile = (file: string): number => {
  if (file.startsWith('test/mesh/')) return 90;
  return /^test\/(e2e|integration)\//.test(file) ? 25 : 1;
};

/** The expected seconds of a test file. @param path absolute */
export const expectedSeconds = (path: string): number => {
  const file = relative(top, path).replaceAll('\\', '/');
  return seconds[file] ?? shortFile(file);
};
