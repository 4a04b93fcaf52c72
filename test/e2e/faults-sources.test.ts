/**
 * Every write to Vault failing once while a root outside of Vault is taken into use: see `test/faults/each-write.ts`. The other sources, which have fewer
 * steps: `npm run test:faults`.
 */
import { testEachWrite, useWorld } from '../faults/each-write.ts';
import { external } from '../faults/scenarios/index.ts';

testEachWrite(useWorld().runner, [external], { product: 'OpenBao', source: 'Bundle', version: 2 });
