/** The table of fault runs: a row for each scenario, configuration, side and fault, kept in a file so that a run can be split. */
import { appendFileSync, existsSync, readFileSync } from 'node:fs';

export interface Row {
  scenario: string;
  configuration: string;
  /** The server whose requests failed. */
  server: string;
  fault: string;
  /** Requests of the undisturbed run. */
  requests: number;
  runs: number;
  injected: number;
  'keys lost': number;
  'duplicate issuers or keys': number;
  'other differences': number;
  snapshots: number;
  'mismatched reads': number;
  /** Mismatches without an excuse: must be 0. */
  'of them unexcused': number;
  'most logins': number;
  seconds: number;
}

/** A row without runs so far. */
export const newRow = (known: Identity & Pick<Row, 'requests'>): Row => ({
  ...known,
  runs: 0,
  injected: 0,
  'keys lost': 0,
  'duplicate issuers or keys': 0,
  'other differences': 0,
  snapshots: 0,
  'mismatched reads': 0,
  'of them unexcused': 0,
  'most logins': 0,
  seconds: 0,
});

type Identity = Pick<Row, 'scenario' | 'configuration' | 'server' | 'fault'>;

const identity = (row: Identity): string => [row.scenario, row.configuration, row.server, row.fault].join(' ');

/** Returns whether two rows belong to the same part. */
export const sameRow = (one: Identity, other: Identity): boolean => identity(one) === identity(other);

/** Returns whether a row shows a broken promise. */
export const isBroken = (row: Row): boolean =>
  row['keys lost'] + row['duplicate issuers or keys'] + row['other differences'] + row['of them unexcused'] > 0;

/** Rows of earlier runs; if a part was run again, the last row counts. */
export function readRows(path: string | undefined): Row[] {
  if (path === undefined || !existsSync(path)) return [];
  const lines = readFileSync(path, 'utf8').split('\n').filter(Boolean);
  const rows = lines.map((line) => JSON.parse(line) as Row);
  return [...new Map(rows.map((row) => [identity(row), row])).values()];
}

export function keepRow(path: string | undefined, row: Row): void {
  if (path !== undefined) appendFileSync(path, `${JSON.stringify(row)}\n`);
}

/** One row for each scenario and server: sums, the maximum of logins, and the range of requests. */
function summed(rows: readonly Row[]): Record<string, string | number>[] {
  const groups = Map.groupBy(rows, (row) => `${row.scenario} ${row.server}`);
  return [...groups.values()].map((group) => {
    const sum = (column: keyof Row) => group.reduce((total, row) => total + Number(row[column]), 0);
    const requests = group.map((row) => row.requests);
    const [least, most] = [Math.min(...requests), Math.max(...requests)];
    const distinct = (column: keyof Row) => new Set(group.map((row) => row[column])).size;
    return {
      scenario: group[0]?.scenario ?? '',
      server: group[0]?.server ?? '',
      configurations: distinct('configuration'),
      faults: distinct('fault'),
      requests: least === most ? least : `${least} to ${most}`,
      runs: sum('runs'),
      injected: sum('injected'),
      'keys lost': sum('keys lost'),
      'duplicate issuers or keys': sum('duplicate issuers or keys'),
      'other differences': sum('other differences'),
      snapshots: sum('snapshots'),
      'mismatched reads': sum('mismatched reads'),
      'of them unexcused': sum('of them unexcused'),
      'most logins': Math.max(...group.map((row) => row['most logins'])),
      minutes: Math.round(sum('seconds') / 60),
    };
  });
}

/** The table as Markdown. */
export function table(rows: readonly Row[], summary = false): string {
  const records: Record<string, string | number>[] = summary ? summed(rows) : rows.map((row) => ({ ...row }));
  const columns = Object.keys(records[0] ?? {});
  const line = (cells: (string | number | undefined)[]) => `| ${cells.join(' | ')} |`;
  const body = records.map((record) => line(columns.map((column) => record[column])));
  return [line(columns), `|${columns.map(() => '---').join('|')}|`, ...body].join('\n');
}
