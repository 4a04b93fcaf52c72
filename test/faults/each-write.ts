/**
 * For Jest: runs each scenario with every single write to Vault failing once: its response is lost, or the operator is killed directly after
 * it. The end state must equal that of an undisturbed run, and the CA files that Vault Agent could read meanwhile must match. The servers are
 * real; only the connection to them fails. `npm run test:faults` does the same with every request and every fault.
 */
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { sharedStack } from '../stack/index.ts';
import { assertSound } from './parts.ts';
import { isVaultWrite, type Fault } from './point.ts';
import { difference, Runner, verdictOf, type Run, type Series } from './runner.ts';
import type { Scenario } from './scenarios/index.ts';
import type { Configuration } from './stage.ts';
import { World } from './world.ts';

/** Creates a world on this worker's stack before the tests of a file, and removes it after them. */
export function useWorld(): { world: World; runner: Runner } {
  const world = new World(sharedStack());
  const runner = new Runner(world);
  beforeAll(() => world.start());
  afterAll(async () => {
    await runner.close();
    await world.stop();
  });
  return { world, runner };
}

/** Runs with each write failing. Returns the broken promises of each run that differs from the undisturbed one. */
async function broken(
  runner: Runner,
  series: Series,
  fault: Fault,
  undisturbed: Run,
  width: number,
): Promise<unknown[]> {
  const found: unknown[] = [];
  const places = undisturbed.requests.map((_, i) => i + 1);
  await runner.disturbed(series, fault, places, width, (at, run) => {
    const { injected, mismatched, seen } = run;
    if (verdictOf(run, undisturbed) === 'same' && injected && mismatched === 0) return;
    found.push({ request: undisturbed.requests[at - 1], injected, seen, ...difference(run, undisturbed) });
  });
  return found;
}

/** The requests that fail, and how many there are at least in a run; undefined: as many as the scenario says. */
type FailingRequests = Pick<Series, 'side' | 'counts'> & { least?: number };

/** The tests of these scenarios in one configuration. @param failing default: every write to Vault */
export function testEachWrite(
  runner: Runner,
  scenarios: readonly Scenario[],
  configuration: Configuration,
  { side, counts, least }: FailingRequests = { side: 'Vault', counts: isVaultWrite },
): void {
  describe.each(scenarios.map((scenario) => ({ scenario, configuration })))(
    `$scenario.name, $configuration.product, $configuration.source delivery, KV $configuration.version, requests to ${side}`,
    ({ scenario }) => {
      const series: Series = { scenario, configuration, side, counts };
      let undisturbed: Run;

      it('ends well undisturbed', async () => {
        undisturbed = await runner.undisturbed(series);
        assertSound(scenario, undisturbed);
        expect(undisturbed.requests.length).toBeGreaterThanOrEqual(least ?? scenario.leastWrites);
      });

      it.each([
        ['answer lost', 8],
        ['killed after', 40],
      ] as const)('each write %s: the end is the same', async (fault, width) => {
        expect(await broken(runner, series, fault, undisturbed, width)).toEqual([]);
      });
    },
  );
}
