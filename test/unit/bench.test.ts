/** The benchmarks' own code: statistics, what is read in /proc, the command line, and the page with the results. */
import { describe, expect, it } from '@jest/globals';
import { parseOptions, usage, UsageError } from '../bench/options.ts';
import { bothEnds, cpuMsIn, cpuShare, heapBytesIn, sizeIn, type Usage } from '../bench/process-usage.ts';
import { cellsOf, headOf, missedTargets, section, withSection } from '../bench/report.ts';
import type { Row, Scenario } from '../bench/scenario.ts';
import { median, quantile, ratiosOfPairs } from '../bench/statistics.ts';

describe('statistics', () => {
  it.each<[number, number[], number]>([
    [0.5, [3, 1, 2], 2],
    [0.5, [4, 1, 3, 2], 2.5],
    [0.5, [7], 7],
    [0.95, [7], 7],
    [0, [3, 1, 2], 1],
    [1, [3, 1, 2], 3],
    [0.95, Array.from({ length: 101 }, (_, i) => 100 - i), 95],
    [0.95, [10, 20], 19.5],
    // by value, not by text
    [0.5, [9, 10, 100], 10],
  ])('the quantile %d of %j is %d', (share, values, expected) => {
    expect(quantile(values, share)).toBeCloseTo(expected);
  });

  it('nothing has no median', () => {
    expect(() => median([])).toThrow(RangeError);
  });

  it('leaves the order of the values as it is', () => {
    const values = [3, 1, 2];
    median(values);
    expect(values).toEqual([3, 1, 2]);
  });

  it('compares the medians within each pair', () => {
    const pairs = [
      { base: [100, 100, 900], other: [150] },
      { base: [1000], other: [1000, 1100, 1200] },
    ];
    expect(ratiosOfPairs(pairs)).toEqual([1.5, 1.1]);
  });
});

describe('what a process uses', () => {
  const status = 'Name:\tnode\nVmPeak:\t 1224180 kB\nVmHWM:\t   98304 kB\nVmRSS:\t   65536 kB\nRssAnon:\t   23456 kB\n';

  it('memory', () => {
    expect(sizeIn(status, 'VmRSS')).toBe(64 * 1024 ** 2);
    expect(sizeIn(status, 'VmHWM')).toBe(96 * 1024 ** 2);
  });

  it('a process that has ended has no memory', () => {
    expect(() => sizeIn('Name:\tnode\nState:\tZ (zombie)\n', 'VmRSS')).toThrow(/has ended/);
  });

  it.each(['node', 'a) b (c', 'Main Thread'])('processor time of a program that is named "%s"', (name) => {
    const stat = `4711 (${name}) S 1 4711 4711 0 -1 4194304 9000 0 12 0 250 75 3 4 20 0 11 0 1234567 1100000 16384\n`;
    expect(cpuMsIn(stat)).toBe(3250);
  });

  it('refuses another text', () => {
    expect(() => cpuMsIn('')).toThrow('no processor time');
  });

  it('the heap, from metrics', () => {
    const help = '# HELP nodejs_heap_size_used_bytes Process heap size used from Node.js in bytes.\n';
    const metrics = `nodejs_heap_size_total_bytes 44\n${help}nodejs_heap_size_used_bytes 2.5e+7\n`;
    expect(heapBytesIn(metrics)).toBe(25_000_000);
    expect(() => heapBytesIn(help)).toThrow('no nodejs_heap_size_used_bytes');
  });

  it('the share of a core', () => {
    const usage = (atMs: number, cpuMs: number): Usage => ({ atMs, rssBytes: 0, peakRssBytes: 0, cpuMs });
    expect(cpuShare(usage(1000, 500), usage(3000, 1000))).toBe(0.25);
  });

  const at = (...times: number[]) => times.map((atMs) => ({ atMs }));

  it('both ends of a run are as long as is said', () => {
    const readings = at(1000, 1010, 1060, 1061, 1200, 1339, 1340, 1400);
    expect(bothEnds(readings, 60)).toEqual({ first: at(1000, 1010, 1060), last: at(1340, 1400) });
  });

  it('both ends are at most a quarter of a short run', () => {
    expect(bothEnds(at(0, 25, 26, 74, 75, 100), 60)).toEqual({ first: at(0, 25), last: at(75, 100) });
  });
});

const scenarioNamed = (name: string): Scenario => ({
  name,
  description: `what ${name} is`,
  columns: ['before', 'after'],
  run: () => Promise.resolve([]),
});
const known = [scenarioNamed('first'), scenarioNamed('second')];

describe('the command line', () => {
  const parsed = (...args: string[]) => {
    const { scenarios, ...rest } = parseOptions(args, known);
    return { names: scenarios.map(({ name }) => name), ...rest };
  };

  it('without arguments runs all scenarios for ten minutes', () => {
    expect(parsed()).toEqual({ names: ['first', 'second'], minutes: 10, write: false, help: false });
  });

  it('chooses', () => {
    expect(parsed('second', '--minutes', '0.5', '--write')).toEqual({
      names: ['second'],
      minutes: 0.5,
      write: true,
      help: false,
    });
  });

  it.each([
    [['third'], 'there is no scenario third; there are first, second'],
    [['--minutes=0'], '--minutes is a number above 0, not "0"'],
    [['--minutes', 'ten'], '--minutes is a number above 0, not "ten"'],
    [['--hours=1'], "Unknown option '--hours'"],
  ])('refuses %j', (args, message) => {
    expect(() => parseOptions(args, known)).toThrow(UsageError);
    expect(() => parseOptions(args, known)).toThrow(message);
  });

  it('--help names each scenario', () => {
    expect(usage(known)).toMatch(/^ {2}first\n {6}what first is\n {2}second\n {6}what second is$/m);
  });
});

describe('the results', () => {
  const rows: Row[] = [
    { measure: 'time', cells: ['10 ms', '20 ms'] },
    { measure: 'ratio', cells: ['', '2.00'], target: { text: 'at most 1.5', met: false } },
    { measure: 'restarts', cells: ['', '0'], target: { text: '0', met: true } },
  ];
  const [first = scenarioNamed('')] = known;
  const where = { date: '2026-01-31', commit: 'abc', machine: '2 cores', versions: 'Node 24' };
  const text = section(first, rows, where, 10);

  it('have as many cells as the head', () => {
    for (const row of rows) expect(cellsOf(row)).toHaveLength(headOf(first).length);
  });

  it('name the missed targets', () => {
    expect(missedTargets('first', rows)).toEqual(['first: target missed: ratio: 2.00; target: at most 1.5']);
  });

  it('are a section', () => {
    expect(text).toBe(`## first

what first is

| measure | before | after | target |
|---|---|---|---|
| time | 10 ms | 20 ms |  |
| ratio |  | 2.00 | at most 1.5: missed |
| restarts |  | 0 | 0 |

Measured on 2026-01-31 with \`npm run bench -- first --minutes 10\`, commit abc: 2 cores; Node 24.`);
  });

  it('go to the end of the page at first, and then replace only their own section', () => {
    const page = withSection(withSection('# Title\n', 'first', 'one'), 'second', 'two');
    expect(withSection(page, 'first', text)).toBe(
      `# Title\n\n<!-- bench first: begin -->\n\n${text}\n\n<!-- bench first: end -->\n\n<!-- bench second: begin -->\n\ntwo\n\n<!-- bench second: end -->\n`,
    );
    expect(withSection(page, 'first', 'one')).toBe(page);
  });

  it.each(['<!-- bench first: begin -->', '<!-- bench first: end -->'])('refuse a page with %s alone', (marker) => {
    expect(() => withSection(`# Title\n${marker}\n`, 'first', text)).toThrow('do not match');
  });
});
