/** Every write to Vault failing once while a CA is adopted or deleted, with Vault and PKI delivery: see `test/faults/each-write.ts`. */
import { testEachWrite, useWorld } from '../faults/each-write.ts';
import { adoption, deletion, deletionWithRoot } from '../faults/scenarios/index.ts';

testEachWrite(useWorld().runner, [adoption, deletion, deletionWithRoot], {
  product: 'Vault',
  source: 'PKI',
  version: 1,
});
