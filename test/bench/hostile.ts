/** Scenario `hostile`: what four resources with hostile Vaults cost a fifth one. */
import { HostileFour } from './hostile-four.ts';
import { bothEnds, cpuShare, heapBytesIn, usageOf, type Usage } from './process-usage.ts';
import { Provisioning } from './provisioning.ts';
import type { Row, RunOptions, Scenario, Target } from './scenario.ts';
import { startStage, type Stage } from './stage.ts';
import { median, quantile, ratiosOfPairs } from './statistics.ts';

const mostRatio = 1.5;
const mostGrowthMB = 60;

/** Provisionings before the measurement, in each of the two states. */
const warmUps = 30;

/** How long the beginning and the end of a run are, whose memory is compared. Milliseconds. */
const windowMs = 60_000;

/** What the operator uses at one moment. */
interface Reading extends Usage {
  /** JavaScript objects, garbage included. */
  readonly heapBytes: number;
}

/** What was measured during one block. */
interface Block {
  readonly tookMs: readonly number[];
  /** Provisionings at whose start a request to a hostile server hung. */
  readonly underHang: number;
  /** At the start of the block, and after each provisioning. */
  readonly readings: readonly Reading[];
}

/** Two adjacent blocks. */
interface BlockPair {
  readonly alone: Block;
  readonly hostile: Block;
}

const read = async ({ operator }: Stage): Promise<Reading> => ({
  heapBytes: heapBytesIn(await operator.metrics()),
  ...usageOf(operator.pid),
});

/** Provisions one resource after the other. @param lastMs no other one starts after this time, milliseconds */
async function block(stage: Stage, fifth: Provisioning, four: HostileFour | undefined, lastMs: number): Promise<Block> {
  const untilMs = performance.now() + lastMs;
  const tookMs: number[] = [];
  const readings = [await read(stage)];
  let underHang = 0;
  do {
    await four?.keepHanging();
    tookMs.push(await fifth.once(() => (underHang += four !== undefined && four.hanging() > 0 ? 1 : 0)));
    readings.push(await read(stage));
  } while (performance.now() < untilMs);
  return { tookMs, underHang, readings };
}

/** The same while the four are there. */
async function hostileBlock(stage: Stage, fifth: Provisioning, four: HostileFour, lastMs: number): Promise<Block> {
  await four.create();
  const result = await block(stage, fifth, four, lastMs);
  await four.delete();
  return result;
}

async function warmUp(fifth: Provisioning, four: HostileFour): Promise<void> {
  for (let i = 0; i < warmUps; i += 1) await fifth.once();
  await four.create();
  for (let i = 0; i < warmUps; i += 1) {
    await four.keepHanging();
    await fifth.once();
  }
  await four.delete();
}

/** @returns the pairs, and all readings in the order of time */
async function measure(
  stage: Stage,
  four: HostileFour,
  { minutes, progress }: RunOptions,
): Promise<{ pairs: BlockPair[]; readings: Reading[] }> {
  const fifth = new Provisioning(stage, 'fifth');
  progress(`warming up: ${warmUps} provisionings alone and ${warmUps} with the four`);
  await warmUp(fifth, four);
  // an even number: the run then ends in the state in which it begins
  const count = Math.max(2, 2 * Math.round(minutes / 2));
  const hostileMs = (minutes * 60_000) / count;
  const pairs: BlockPair[] = [];
  const readings: Reading[] = [];
  for (let i = 1; i <= count; i += 1) {
    // the order alternates, so that what changes steadily during the run affects both states alike
    let alone: Block | undefined;
    if (i % 2 === 1) alone = await block(stage, fifth, undefined, hostileMs / 2);
    const hostile = await hostileBlock(stage, fifth, four, hostileMs);
    alone ??= await block(stage, fifth, undefined, hostileMs / 2);
    pairs.push({ alone, hostile });
    readings.push(...[alone, hostile].flatMap((one) => one.readings));
    const medians = [alone, hostile].map(({ tookMs }) => `${ms(median(tookMs))} (${tookMs.length})`);
    progress(`pair ${i} of ${count}: alone ${medians[0] ?? ''}, with the four ${medians[1] ?? ''}`);
  }
  return { pairs, readings: readings.sort((a, b) => a.atMs - b.atMs) };
}

const ms = (value: number): string => `${Math.round(value)} ms`;
const mb = (bytes: number): string => `${(bytes / 1e6).toFixed(1)} MB`;
const percent = (share: number): string => `${(share * 100).toFixed(0)} %`;

/** The share of a core that the operator uses, the median of these blocks. */
function cpuOf(blocks: readonly Block[]): number {
  const spans = blocks.map(({ readings }) => [readings.at(0), readings.at(-1)] as const);
  return median(spans.flatMap(([from, to]) => (from && to ? [cpuShare(from, to)] : [])));
}

function rowsOf(pairs: readonly BlockPair[], readings: readonly Reading[], stage: Stage, four: HostileFour): Row[] {
  const sides = [pairs.map(({ alone }) => alone), pairs.map(({ hostile }) => hostile)];
  const both = (of: (blocks: readonly Block[]) => string): string[] => [...sides.map(of), ''];
  const times = (blocks: readonly Block[]): number[] => blocks.flatMap(({ tookMs }) => tookMs);
  const [aloneMs = NaN, hostileMs = NaN] = sides.map((blocks) => median(times(blocks)));
  const ratios = ratiosOfPairs(pairs.map(({ alone, hostile }) => ({ base: alone.tookMs, other: hostile.tookMs })));
  const rssOf = (some: readonly Reading[]): number => median(some.map(({ rssBytes }) => rssBytes));
  const leastHeap = (some: readonly Reading[]): number => Math.min(...some.map(({ heapBytes }) => heapBytes));
  const { first, last } = bothEnds(readings, windowMs);
  const grown = rssOf(last) - rssOf(first);
  const whole = (measure: string, text: string, target?: Target): Row => ({
    measure,
    cells: ['', '', text],
    ...(target && { target }),
  });
  const atMost = (most: string, met: boolean): Target => ({ text: `at most ${most}`, met });
  const ratio = hostileMs / aloneMs;
  const ended = stage.operator.ended();
  return [
    { measure: 'provisionings', cells: both((blocks) => String(times(blocks).length)) },
    {
      measure: 'of them begun while a request hung',
      cells: both((blocks) => String(blocks.reduce((sum, { underHang }) => sum + underHang, 0))),
    },
    { measure: 'apply until Provisioned, median', cells: both((blocks) => ms(median(times(blocks)))) },
    { measure: 'apply until Provisioned, p95', cells: both((blocks) => ms(quantile(times(blocks), 0.95))) },
    whole('ratio of the medians', ratio.toFixed(2), atMost(String(mostRatio), ratio <= mostRatio)),
    whole(
      `ratio in ${pairs.length} pairs of blocks, median (lowest to highest)`,
      `${median(ratios).toFixed(2)} (${Math.min(...ratios).toFixed(2)} to ${Math.max(...ratios).toFixed(2)})`,
    ),
    { measure: 'processor time of the operator, of one core', cells: both((blocks) => percent(cpuOf(blocks))) },
    {
      measure: 'memory of the operator (RSS), median',
      cells: both((blocks) => mb(rssOf(blocks.flatMap((one) => one.readings)))),
    },
    whole('RSS, first minute to last minute', `${mb(rssOf(first))} to ${mb(rssOf(last))}`),
    whole('growth of the RSS', mb(grown), atMost(`${mostGrowthMB} MB`, grown <= mostGrowthMB * 1e6)),
    whole('highest RSS, warm-up included', mb(Math.max(...readings.map(({ peakRssBytes }) => peakRssBytes)))),
    whole('smallest heap, first minute to last minute', `${mb(leastHeap(first))} to ${mb(leastHeap(last))}`),
    whole('restarts of the operator', ended === undefined ? '0' : `ended: ${ended}`, {
      text: '0',
      met: ended === undefined,
    }),
    ...four
      .received()
      .map(([hostility, count]) => whole(`requests to the ${hostility} server, warm-up included`, String(count))),
  ];
}

export const hostile: Scenario = {
  name: 'hostile',
  description:
    'Four resources, each in its own namespace, name hostile servers. One server never answers, one answers byte by byte without end, ' +
    'one answers with 5 MiB, and one with a text that is not from Vault. Meanwhile, a fifth resource in another namespace, with a real ' +
    'OpenBao, is repeatedly created, provisioned and deleted. Each time, the benchmark also requests a reconcile of the two whose requests ' +
    'hang, so that they hang all the time. In blocks half as long, the four do not exist. The time runs from the apply until condition ' +
    'Provisioned is True.',
  columns: ['alone', 'with the four', 'whole run'],
  async run(options) {
    const stage = await startStage(options);
    const four = await HostileFour.start(stage, options);
    const ended = stage.operator.exited.then((exit) => {
      throw new Error(`target missed: restarts of the operator: it ended (${exit}); target: 0`);
    });
    const { pairs, readings } = await Promise.race([measure(stage, four, options), ended]);
    return rowsOf(pairs, readings, stage, four);
  },
};
