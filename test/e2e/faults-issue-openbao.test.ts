/** Every write to Vault failing once while a CA is issued, with OpenBao and Bundle delivery: see `test/faults/each-write.ts`. */
import { testEachWrite, useWorld } from '../faults/each-write.ts';
import { provisioning, renewal } from '../faults/scenarios/index.ts';

testEachWrite(useWorld().runner, [provisioning, renewal], { product: 'OpenBao', source: 'Bundle', version: 2 });
