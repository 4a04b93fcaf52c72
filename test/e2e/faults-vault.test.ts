/** Every write to Vault failing once, with Vault and PKI delivery: see `test/faults/each-write.ts`. */
import { testEachWrite, useWorld } from '../faults/each-write.ts';
import { scenarios } from '../faults/scenarios/index.ts';

testEachWrite(useWorld().runner, scenarios, { product: 'Vault', source: 'PKI', version: 1 });
