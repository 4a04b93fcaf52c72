/**
 * Each scenario with every single write to Vault failing once: its answer lost, or the operator killed right after it. What is left
 * at the end must be what an undisturbed run leaves, and what istiod's agent could read meanwhile must fit together. The servers are
 * real; only the connection between is made to fail. `npm run test:faults` does it with every request and every fault.
 */
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { renewInALoop } from '../faults/loop.ts';
import { assertSound } from '../faults/parts.ts';
import { isVaultWrite, type Fault } from '../faults/point.ts';
import { difference, Runner, verdictOf, type Run, type Series } from '../faults/runner.ts';
import { scenarios } from '../faults/scenarios/index.ts';
import { World } from '../faults/world.ts';
import { sharedStack } from '../stack/index.ts';

const world = new World(sharedStack());
const runner = new Runner(world);

beforeAll(async () => {
  await world.start();
});

afterAll(async () => {
  await runner.close();
  await world.stop();
});

/** Runs with each write failing; what they did to the promises, but for those that ended like the undisturbed one. */
async function broken(series: Series, fault: Fault, undisturbed: Run, width: number): Promise<unknown[]> {
  const found: unknown[] = [];
  const places = undisturbed.requests.map((_, i) => i + 1);
  await runner.disturbed(series, fault, places, width, (at, run) => {
    const { injected, mismatched, seen } = run;
    if (verdictOf(run, undisturbed) === 'same' && injected && mismatched === 0) return;
    found.push({ request: undisturbed.requests[at - 1], injected, seen, ...difference(run, undisturbed) });
  });
  return found;
}

describe.each(
  scenarios.flatMap((scenario) => [
    { scenario, configuration: { product: 'OpenBao', source: 'Bundle', version: 2 } } as const,
    { scenario, configuration: { product: 'Vault', source: 'PKI', version: 1 } } as const,
  ]),
)(
  '$scenario.name, $configuration.product, $configuration.source delivery, KV $configuration.version',
  ({ scenario, configuration }) => {
    const series: Series = { scenario, configuration, side: 'Vault', counts: isVaultWrite };
    let undisturbed: Run;

    it('ends well undisturbed', async () => {
      undisturbed = await runner.undisturbed(series);
      assertSound(scenario, undisturbed);
      expect(undisturbed.requests.length).toBeGreaterThanOrEqual(scenario.leastWrites);
    });

    it.each([
      ['answer lost', 8],
      ['killed after', 40],
    ] as const)('each write %s: the end is the same', async (fault, width) => {
      expect(await broken(series, fault, undisturbed, width)).toEqual([]);
    });
  },
);

describe('renewals in a loop', () => {
  it('with Bundle delivery every snapshot is one matched set, and a hundred leave two generations', async () => {
    const configuration = { product: 'OpenBao', source: 'Bundle', version: 2 } as const;
    const loop = await renewInALoop(world, 100, configuration, 10_000, 100);
    expect(loop.seen.snapshots).toBeGreaterThanOrEqual(10_000);
    expect(loop.renewals).toBeGreaterThanOrEqual(100);
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
    const loop = await renewInALoop(world, 101, configuration, 2_500, 10);
    expect(loop.renewals).toBeGreaterThanOrEqual(10);
    expect(loop.unexcused).toEqual([]);
    expect(loop.seen.last).toEqual([]);
  });
});
