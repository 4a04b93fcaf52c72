/**
 * The order of test files: the longest first. Records the files of the run for the global setup. Plain JavaScript, as the types of
 * Jest's sequencer do not fit its module.
 */
import Sequencer from '@jest/test-sequencer';
import { recordChosen } from './chosen.ts';
import { expectedSeconds } from './durations.ts';

export default class LongestFirst extends Sequencer {
  sort(tests) {
    recordChosen(tests.map(({ path, context }) => ({ path, project: context.config.displayName?.name ?? '' })));
    return [...tests].sort((a, b) => expectedSeconds(b.path) - expectedSeconds(a.path) || (a.path < b.path ? -1 : 1));
  }
}
