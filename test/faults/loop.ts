/** Renewals one after another, while a reader reads as fast as possible. */
import { isDeepStrictEqual } from 'node:util';
import { configurationName } from './parts.ts';
import { Reader, unexcused, type Mismatch, type Seen } from './reader.ts';
import { renewal } from './scenarios/index.ts';
import type { Configuration } from './stage.ts';
import { newRow, type Row } from './table.ts';
import type { World } from './world.ts';

interface Loop {
  renewals: number;
  seen: Seen;
  /** Snapshots whose files do not match, without an excuse. */
  unexcused: Mismatch[];
  logins: number;
  /** The state after the last renewal. */
  end: Awaited<ReturnType<typeof renewal.essence>>;
}

/**
 * Renews until the reader has taken the given number of snapshots, and at least the given number of times.
 * @param place the number of the namespace
 */
export async function renewInALoop(
  world: World,
  place: number,
  configuration: Configuration,
  snapshots: number,
  leastRenewals = 1,
): Promise<Loop> {
  const stage = await world.makeStage(place, configuration);
  await renewal.prepare(stage);
  stage.point.arm('Vault', () => false);
  const reader = new Reader(stage, () => 0);
  reader.start();
  let renewals = 0;
  while (reader.seen.snapshots < snapshots || renewals < leastRenewals) {
    await renewal.act(stage);
    await renewal.settled(stage);
    renewals += 1;
  }
  await renewal.look(stage);
  const seen = await reader.stop();
  const end = await renewal.essence(stage);
  const { logins } = stage.point;
  await reader.dispose();
  await stage.close();
  return { renewals, seen, unexcused: unexcused(stage, seen), logins, end };
}

/** The result as a row of the table. */
export async function loopRow(
  world: World,
  place: number,
  configuration: Configuration,
  snapshots: number,
): Promise<Row> {
  // with the same key, a mismatch of certificate and key would be invisible
  const always = { ...configuration, rotationPolicy: 'Always' as const };
  const began = Date.now();
  const { renewals, seen, unexcused, logins, end } = await renewInALoop(world, place, always, snapshots);
  const left =
    isDeepStrictEqual(end['liveDefects'], []) && isDeepStrictEqual(end['issuers'], renewal.expected['issuers']);
  const named = { scenario: 'renewals in a loop', configuration: configurationName(configuration) };
  return {
    ...newRow({ ...named, server: 'Vault', fault: 'none', requests: 0 }),
    runs: renewals,
    'other differences': left && seen.last?.length === 0 ? 0 : 1,
    snapshots: seen.snapshots,
    'mismatched reads': seen.mismatches.length,
    'of them unexcused': unexcused.length,
    'most logins': logins,
    seconds: Math.round((Date.now() - began) / 1000),
  };
}
