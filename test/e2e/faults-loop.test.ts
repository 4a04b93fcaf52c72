/** Renewals one after another while a reader reads the live CA as fast as it can. `npm run test:faults` takes more snapshots, of more configurations. */
import { describe, expect, it } from '@jest/globals';
import { useWorld } from '../faults/each-write.ts';
import { renewInALoop } from '../faults/loop.ts';

const { world } = useWorld();

describe('renewals in a loop', () => {
  it('with Bundle delivery every snapshot is one matched set, and thirty renewals leave two generations', async () => {
    const configuration = { product: 'OpenBao', source: 'Bundle', version: 2 } as const;
    const loop = await renewInALoop(world, 100, configuration, 2_500, 30);
    expect(loop.seen.snapshots).toBeGreaterThanOrEqual(2_500);
    expect(loop.renewals).toBeGreaterThanOrEqual(30);
    expect(loop.seen.mismatches).toEqual([]);
    expect(loop.end).toMatchObject({ issuers: { root: 1, intermediate: 2 }, keys: { root: 1, intermediate: 2 } });
  });

  it('with PKI delivery a mismatch lies between the two writes of a publication, and none stays', async () => {
    const configuration = {
      product: 'Vault',
      source: 'PKI',
      version: 1,
      rotationPolicy: 'Always',
    } as const;
    const loop = await renewInALoop(world, 101, configuration, 1_000, 10);
    expect(loop.renewals).toBeGreaterThanOrEqual(10);
    expect(loop.unexcused).toEqual([]);
    expect(loop.seen.last).toEqual([]);
  });
});
