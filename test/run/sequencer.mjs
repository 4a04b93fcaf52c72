/**
 * The order of test files, from how long they take; with TEST_SEED=<text> a random one, the same for the same text. Records the files of the run for the global setup. Plain JavaScript, as the types of
 * Jest's sequencer do not fit its module.
 */
import Sequencer from '@jest/test-sequencer';
import { recordChosen } from './chosen.ts';
import { inOrder, shuffled } from './durations.ts';

export default class ByDuration extends Sequencer {
  sort(tests) {
    recordChosen(tests.map(({ path, context }) => ({ path, project: context.config.displayName?.name ?? '' })));
    const paths = tests.map(({ path }) => path);
    const seed = process.env.TEST_SEED;
    const ordered = seed === undefined ? inOrder(paths) : shuffled(paths, seed);
    const places = new Map(ordered.map((path, place) => [path, place]));
    return tests.toSorted((a, b) => places.get(a.path) - places.get(b.path));
  }
}
