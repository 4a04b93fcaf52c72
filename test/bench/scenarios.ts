/** The scenarios of `npm run bench`, in the order in which they run. */
import { hostile } from './hostile.ts';
import type { Scenario } from './scenario.ts';

export const scenarios: readonly Scenario[] = [hostile];
