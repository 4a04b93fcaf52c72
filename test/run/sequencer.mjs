/**
 * The order of test files, from how long they take. Records the files of the run for the global setup. Plain JavaScript, as the types of
 * Jest's sequencer do not fit its module.
 */
import Sequencer from '@jest/test-sequencer';
import { recordChosen } from './chosen.ts';
import { inOrder } from './durations.ts';

export default class ByDuration extends Sequencer {
  sort(tests) {
    recordChosen(tests.map(({ path, context }) => ({ path, project: context.config.displayName?.name ?? '' })));
    const places = new Map(inOrder(tests.map(({ path }) => path)).map((path, place) => [path, place]));
    return tests.toSorted((a, b) => places.get(a.path) - places.get(b.path));
  }
}
