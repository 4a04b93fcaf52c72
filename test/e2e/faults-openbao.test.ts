/** Every write to Vault failing once, with OpenBao and Bundle delivery: see `test/faults/each-write.ts`. */
import { testEachWrite, useWorld } from '../faults/each-write.ts';
import { scenarios } from '../faults/scenarios/index.ts';

testEachWrite(useWorld().runner, scenarios, { product: 'OpenBao', source: 'Bundle', version: 2 });
