/**
 * `npm run test:faults`: each scenario × each request × each fault, on both products. Prints a table; the exit code is 1 when a
 * promise was broken. `--help` shows how to choose parts.
 */
import { parseArgs } from 'node:util';
import { startStack } from '../stack/index.ts';
import { loopRow } from './loop.ts';
import { allConfigurations, allFaults, configurationName, groupOf, isDone, runParts, type Part } from './parts.ts';
import type { Side } from './point.ts';
import { Runner } from './runner.ts';
import { scenarios } from './scenarios/index.ts';
import type { Configuration } from './stage.ts';
import { isBroken, keepRow, readRows, table, type Row } from './table.ts';
import { World } from './world.ts';

const help = `node test/faults/main.ts [options]; lists are separated by commas, and what is not given means all
  --scenario=…        ${scenarios.map(({ name }) => name).join(', ')}
  --configuration=…   ${allConfigurations.map(configurationName).join(', ')}
  --fault=…           ${allFaults.join(', ')}
  --server=…          Vault, Kubernetes: whose requests fail; Vault
  --requests=…        distinct: all, but where a fault cannot be told from another one; all, writes, or numbers such as 12 or 10-40
  --key=…             ec, rsa: of both certificates; ec
  --width=…           runs at a time; 12, for kills 40
  --rows=FILE         rows are appended to it, those in it are not run again, and the table shows them all
  --loop=N            instead: renewals one after another in each configuration, until N snapshots were taken
  --summary           one line a scenario and server`;

const { values } = parseArgs({
  options: {
    scenario: { type: 'string' },
    configuration: { type: 'string' },
    fault: { type: 'string' },
    server: { type: 'string', default: 'Vault' },
    requests: { type: 'string', default: 'distinct' },
    key: { type: 'string', default: 'ec' },
    width: { type: 'string' },
    rows: { type: 'string' },
    loop: { type: 'string' },
    summary: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
});

/** The members of a list that an option names. @throws for an unknown name */
function choose<T>(option: string, from: readonly T[], name: (one: T) => string, byDefault = from): T[] {
  const given = values[option as keyof typeof values];
  if (typeof given !== 'string') return [...byDefault];
  return given.split(',').map((word) => {
    const found = from.find((one) => name(one) === word);
    if (found === undefined)
      throw new Error(`--${option}: there is no ${word}; there are ${from.map(name).join(', ')}`);
    return found;
  });
}

function configurations(): Configuration[] {
  const keyType = values.key === 'rsa' ? 'rsa' : 'ec';
  return choose('configuration', allConfigurations, configurationName).map((one) => ({ ...one, keyType }));
}

function parts(): Part[] {
  const faults = choose(
    'fault',
    allFaults,
    String,
    allFaults.filter((fault) => fault !== 'timed out'),
  );
  const sides = choose<Side>('server', ['Vault', 'Kubernetes'], String);
  const width = values.width === undefined ? {} : { width: Number(values.width) };
  const { requests } = values;
  return choose('scenario', scenarios, ({ name }) => name).flatMap((scenario) =>
    configurations().flatMap((configuration) =>
      sides.flatMap((side) => faults.map((fault) => ({ scenario, configuration, side, fault, requests, ...width }))),
    ),
  );
}

/** Calls a function with a world on servers of its own, and stops them afterwards. */
async function inWorld(work: (world: World) => Promise<void>): Promise<void> {
  const stack = await startStack({ mode: 'processes', lean: true });
  const world = new World(stack);
  try {
    await world.start();
    await work(world);
  } catch (error) {
    // parallel runs fail when the servers stop: this failure came first
    console.error(error);
    throw error;
  } finally {
    await world.stop();
    await stack.stop();
  }
}

/** Each scenario and configuration gets new servers, because the servers keep their data in memory and do not free all of it. */
async function main(): Promise<Row[]> {
  const rows = readRows(values.rows);
  const onRow = (row: Row) => {
    rows.push(row);
    keepRow(values.rows, row);
    console.error(JSON.stringify(row));
  };
  if (values.loop !== undefined) {
    const snapshots = Number(values.loop);
    await inWorld(async (world) => {
      for (const [place, one] of configurations().entries()) onRow(await loopRow(world, place, one, snapshots));
    });
    return rows;
  }
  const left = parts().filter((part) => !isDone(part, rows));
  for (const group of Map.groupBy(left, groupOf).values()) {
    await inWorld(async (world) => {
      const runner = new Runner(world);
      await runParts(runner, group, async (row) => {
        onRow(row);
        await world.tidy();
      });
      await runner.close();
    });
  }
  return rows;
}

if (values.help) console.log(help);
else {
  const rows = await main();
  console.log(table(rows, values.summary));
  process.exitCode = rows.some(isBroken) ? 1 : 0;
}
