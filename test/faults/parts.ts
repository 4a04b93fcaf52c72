/** A part of the suite: one scenario, configuration, server and fault, over the chosen requests; it gives one row of the table. */
import { isDeepStrictEqual } from 'node:util';
import { products } from '../stack/index.ts';
import {
  differsOnlyWhereSomethingChanges,
  isKill,
  isKubernetesWrite,
  isVaultWrite,
  mayChange,
  type Counted,
  type Fault,
  type Side,
} from './point.ts';
import { difference, verdictOf, type Run, type Runner, type Series } from './runner.ts';
import type { Scenario } from './scenarios/index.ts';
import type { Configuration } from './stage.ts';
import { newRow, sameRow, type Row } from './table.ts';

export const allFaults: readonly Fault[] = [
  ...(['dropped', 'answer lost', 'reset', 'delayed', 'late', 'timed out', 429, 500, 503] as const),
  ...(['killed before', 'killed after'] as const),
];

export const allConfigurations: readonly Configuration[] = products.flatMap((product) =>
  (['Bundle', 'PKI'] as const).flatMap((source) => ([1, 2] as const).map((version) => ({ product, source, version }))),
);

/** Such as `OpenBao/Bundle/2`; names RSA, but not P-256. */
export const configurationName = ({ product, source, version, keyType = 'ec' }: Configuration): string =>
  `${product}/${source}/${version}${keyType === 'rsa' ? '/RSA' : ''}`;

export interface Part {
  scenario: Scenario;
  configuration: Configuration;
  side: Side;
  fault: Fault;
  /** `distinct`, `all`, `writes`, or numbers such as `12` and `10-40`. */
  requests: string;
  /** Number of parallel runs. */
  width?: number;
}

const everyRequest = () => true;

/** Returns the function that decides whether a request is counted. */
function counter({ side, requests, fault }: Part): (request: Counted) => boolean {
  if (requests === 'distinct' && differsOnlyWhereSomethingChanges(fault)) return mayChange;
  if (requests !== 'writes') return everyRequest;
  return side === 'Vault' ? isVaultWrite : isKubernetesWrite;
}

/** The chosen numbers among the requests. */
function places(requests: string, count: number): number[] {
  const all = Array.from({ length: count }, (_, i) => i + 1);
  const range = /^(\d+)(?:-(\d+))?$/.exec(requests);
  if (!range) return all;
  const [first, last] = [Number(range[1]), Number(range[2] ?? range[1])];
  return all.filter((at) => at >= first && at <= last);
}

/** @throws if the undisturbed run is no valid reference for the others */
export function assertSound({ name, expected }: Scenario, { end }: Run): void {
  const wrong = Object.keys(expected).filter((key) => !isDeepStrictEqual(end[key], expected[key]));
  if ('failed' in end || wrong.length > 0)
    throw new Error(`${name}, undisturbed: ${JSON.stringify(end['failed'] ?? wrong.map((key) => [key, end[key]]))}`);
}

/** Adds the result of one run to its row. */
function add(row: Row, run: Run, undisturbed: Run): void {
  const verdict = verdictOf(run, undisturbed);
  row.runs += 1;
  row.injected += run.injected ? 1 : 0;
  row['keys lost'] += verdict === 'key lost' ? 1 : 0;
  row['duplicate issuers or keys'] += verdict === 'duplicate' ? 1 : 0;
  row['other differences'] += verdict === 'different' ? 1 : 0;
  row.snapshots += run.seen.snapshots;
  row['mismatched reads'] += run.seen.mismatches.length;
  row['of them unexcused'] += run.mismatched;
  row['most logins'] = Math.max(row['most logins'], run.logins);
}

function say(part: Part, at: number, run: Run, undisturbed: Run): void {
  const same = verdictOf(run, undisturbed) === 'same';
  if (same && run.mismatched === 0) return;
  const { scenario, configuration, fault } = part;
  const request = run.requests[at - 1];
  const what = `${request?.method ?? ''} ${request?.path ?? ''}`;
  const seen = run.mismatched === 0 ? '' : ` ${run.mismatched} mismatched: ${JSON.stringify(run.seen.mismatches[0])}`;
  const end = same ? '' : ` ${JSON.stringify(difference(run, undisturbed))}`;
  console.error(`${scenario.name} ${configurationName(configuration)} ${fault} at ${at} (${what}):${end}${seen}`);
}

/** Number of requests to try beyond those of the undisturbed run, in steps, as long as runs reach them. */
const beyond = 24;
const step = 3;

/** Executes a part. */
async function runPart(runner: Runner, part: Part, undisturbed: Run): Promise<Row> {
  const { fault, requests } = part;
  const series = seriesOf(part);
  const began = Date.now();
  const row = newRow({ ...nameOf(part), requests: undisturbed.requests.length });
  const width = part.width ?? (isKill(fault) || fault === 'timed out' ? 40 : 12);
  const onRun = (at: number, run: Run) => {
    add(row, run, undisturbed);
    say(part, at, run, undisturbed);
  };
  const count = undisturbed.requests.length;
  await runner.disturbed(series, fault, places(requests, count), width, onRun);
  // parallel runs make slightly different numbers of requests, so only trying finds the last ones
  for (let next = count; next < count + beyond && !/^\d/.test(requests); next += step) {
    const reached = row.injected;
    const more = Array.from({ length: step }, (_, i) => next + 1 + i);
    await runner.disturbed(series, fault, more, width, onRun);
    if (row.injected === reached) break;
  }
  row.seconds = Math.round((Date.now() - began) / 1000);
  return row;
}

const nameOf = ({ scenario, configuration, side, fault }: Part) => ({
  scenario: scenario.name,
  configuration: configurationName(configuration),
  server: side,
  fault: String(fault),
});

const seriesOf = (part: Part): Series => ({
  scenario: part.scenario,
  configuration: part.configuration,
  side: part.side,
  counts: counter(part),
});

/** Returns whether a row of the part exists. */
export const isDone = (part: Part, rows: readonly Row[]): boolean => rows.some((row) => sameRow(row, nameOf(part)));

/** Parts with the same key can share servers. */
export const groupOf = ({ scenario, configuration }: Part): string =>
  `${scenario.name} ${configurationName(configuration)}`;

/** Executes parts of one scenario and configuration. Each way of counting gets one undisturbed run. */
export async function runParts(
  runner: Runner,
  parts: readonly Part[],
  onRow: (row: Row) => Promise<void>,
): Promise<void> {
  const undisturbed = new Map<string, Run>();
  for (const part of parts) {
    const series = seriesOf(part);
    const way = `${part.side} ${series.counts.name}`;
    const run = undisturbed.get(way) ?? (await runner.undisturbed(series));
    undisturbed.set(way, run);
    assertSound(part.scenario, run);
    await onRow(await runPart(runner, part, run));
  }
}
