/**
 * `npm run test:faults`: provisioning × every request to Vault × every fault, on both products. Prints a table; the exit code is
 * 1 when a run ended otherwise than the undisturbed one. Arguments choose configurations and faults, such as `OpenBao/Bundle/2 'answer lost'`.
 */
import { isDeepStrictEqual } from 'node:util';
import { products, startStack } from '../stack/index.ts';
import { Provisioning, type Configuration, type Run } from './provisioning.ts';
import type { Fault } from './proxy.ts';

const faults: Fault[] = ['dropped', 'answer lost', 'reset', 429, 500, 503, 'killed before', 'killed after'];
const all: Configuration[] = products.flatMap((product) =>
  (['Bundle', 'PKI'] as const).flatMap((source) => ([1, 2] as const).map((version) => ({ product, source, version }))),
);
const nameOf = ({ product, source, version }: Configuration) => `${product}/${source}/${version}`;

interface Row {
  scenario: string;
  fault: string;
  requests: number;
  runs: number;
  injected: number;
  'keys lost': number;
  'duplicate issuers or keys': number;
  'other differences': number;
  'most logins': number;
}

const counts = (end: Run['end']) => JSON.stringify([end['issuers'], end['keys']]);

async function suite(provisioning: Provisioning, configuration: Configuration, fault: Fault): Promise<Row> {
  const undisturbed = await provisioning.run(configuration, () => true);
  const row: Row = {
    scenario: `provision ${nameOf(configuration)}`,
    fault: String(fault),
    requests: undisturbed.requests.length,
    runs: 0,
    injected: 0,
    'keys lost': 0,
    'duplicate issuers or keys': 0,
    'other differences': 0,
    'most logins': 0,
  };
  for (let at = 1; at <= undisturbed.requests.length; at += 1) {
    const { end, injected, logins } = await provisioning.run(configuration, () => true, { at, fault });
    row.runs += 1;
    row.injected += injected ? 1 : 0;
    row['most logins'] = Math.max(row['most logins'], logins);
    if (JSON.stringify(end['liveDefects']) !== '[]') row['keys lost'] += 1;
    else if (counts(end) !== counts(undisturbed.end)) row['duplicate issuers or keys'] += 1;
    else if (!isDeepStrictEqual(end, undisturbed.end)) row['other differences'] += 1;
    if (!isDeepStrictEqual(end, undisturbed.end)) console.error(nameOf(configuration), fault, at, JSON.stringify(end));
  }
  return row;
}

/** Those that the arguments name; all when they name none. */
const choose = <T>(from: T[], name: (one: T) => string): T[] => {
  const named = from.filter((one) => process.argv.slice(2).includes(name(one)));
  return named.length > 0 ? named : from;
};
const chosen = choose(all, nameOf);
const chosenFaults = choose(faults, String);
const unknown = process.argv.slice(2).filter((arg) => ![...all.map(nameOf), ...faults.map(String)].includes(arg));
if (unknown.length > 0)
  throw new Error(`unknown: ${unknown.join(', ')}; there are ${[...all.map(nameOf), ...faults].join(', ')}`);
const stack = await startStack();
const provisioning = new Provisioning(stack);
const rows: Row[] = [];
try {
  await provisioning.start();
  for (const configuration of chosen) {
    for (const fault of chosenFaults) {
      rows.push(await suite(provisioning, configuration, fault));
      console.error(JSON.stringify(rows.at(-1)));
    }
  }
} finally {
  await provisioning.stop();
  await stack.stop();
}
const columns = Object.keys(rows[0] ?? {}) as (keyof Row)[];
console.log(`| ${columns.join(' | ')} |\n|${columns.map(() => '---').join('|')}|`);
for (const row of rows) console.log(`| ${columns.map((column) => row[column]).join(' | ')} |`);
process.exitCode = rows.some(
  (row) => row['keys lost'] + row['duplicate issuers or keys'] + row['other differences'] > 0,
)
  ? 1
  : 0;
