import { adoption } from './adoption.ts';
import { deletion, deletionWithRoot } from './deletion.ts';
import { provisioning } from './provisioning.ts';
import { renewal } from './renewal.ts';
import type { Scenario } from './scenario.ts';
import { certManager, existing, external, imported } from './sources.ts';

export { adoption, certManager, deletion, deletionWithRoot, external, provisioning, renewal };
export type { Scenario } from './scenario.ts';

export const scenarios: readonly Scenario[] = [
  ...[provisioning, renewal, deletion, deletionWithRoot, adoption],
  ...[existing, external, certManager, imported],
];
