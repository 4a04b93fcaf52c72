/** Every write to Vault failing once while a CA from elsewhere is taken into use: see `test/faults/each-write.ts`. */
import { testEachWrite, useWorld } from '../faults/each-write.ts';
import { existing, external, imported } from '../faults/scenarios/index.ts';

testEachWrite(useWorld().runner, [existing, external, imported], { product: 'OpenBao', source: 'Bundle', version: 2 });
