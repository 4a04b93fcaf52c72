/** Every write to Vault failing once while a CA is issued, with Vault and PKI delivery: see `test/faults/each-write.ts`. */
import { testEachWrite, useWorld } from '../faults/each-write.ts';
import { provisioning, renewal } from '../faults/scenarios/index.ts';

testEachWrite(useWorld().runner, [provisioning, renewal], { product: 'Vault', source: 'PKI', version: 1 });
