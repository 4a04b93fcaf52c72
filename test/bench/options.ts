/** The command line of the benchmarks. */
import { parseArgs } from 'node:util';
import type { Scenario } from './scenario.ts';

export interface BenchOptions {
  readonly scenarios: readonly Scenario[];
  readonly minutes: number;
  readonly write: boolean;
  readonly help: boolean;
}

/** An invalid command line; the message contains the reason. */
export class UsageError extends Error {}

const indented = (text: string): string => text.replaceAll(/(.{1,90})(?: |$)/g, '      $1\n').trimEnd();

/** The text of `--help`. */
export const usage = (known: readonly Scenario[]): string => `usage: npm run bench -- [scenarios] [options]

Measures the operator against real servers, which it starts on this machine and stops at its end. Without a name, all scenarios run.
The exit code is 1 if a target is missed. Measure on an idle machine.

scenarios:
${known.map(({ name, description }) => `  ${name}\n${indented(description)}`).join('\n')}

options:
  --minutes N            how long the state that a scenario is about lasts (default: 10)
  --write                also writes the results into docs/performance.md
  --help                 this text

environment:
  ISTIO_VAULT_CA_CACHE   folder of the servers that are built or downloaded once
  KEEP_STACK=1           keep the folders with logs
`;

/** @param known all scenarios @throws UsageError */
export function parseOptions(args: readonly string[], known: readonly Scenario[]): BenchOptions {
  const { values, positionals } = parse(args);
  const minutes = Number(values.minutes);
  if (!(minutes > 0 && minutes < Infinity))
    throw new UsageError(`--minutes is a number above 0, not "${values.minutes}"`);
  const unknown = positionals.filter((name) => known.every((scenario) => scenario.name !== name));
  if (unknown.length > 0)
    throw new UsageError(
      `there is no scenario ${unknown.join(', ')}; there are ${known.map(({ name }) => name).join(', ')}`,
    );
  const scenarios = known.filter(({ name }) => positionals.length === 0 || positionals.includes(name));
  return { scenarios, minutes, write: values.write, help: values.help };
}

function parse(args: readonly string[]) {
  try {
    return parseArgs({
      args: [...args],
      allowPositionals: true,
      options: {
        minutes: { type: 'string', default: '10' },
        write: { type: 'boolean', default: false },
        help: { type: 'boolean', short: 'h', default: false },
      },
    });
  } catch (error) {
    // Node's message continues after the first sentence with advice about positional arguments.
    throw new UsageError(error instanceof Error ? error.message.replace(/\. .*/s, '') : String(error));
  }
}
