/** The combinations of the matrix, its command line, and what it writes. */
import { describe, expect, it } from '@jest/globals';
import { cells, covering, nameOf, refusalOf, type Cell } from '../matrix/cells.ts';
import { parseOptions } from '../matrix/options.ts';
import { merged, outcomesOf, tables, withTables, type VersionResult } from '../matrix/report.ts';
import { chosenVersion, findVersion } from '../stack/builds/versions.ts';

const valuesOf = (cell: Cell): string[] => Object.entries(cell).map(([name, value]) => `${name}=${value}`);

describe('the combinations', () => {
  it('are every one, each with a name of its own', () => {
    const names = cells.map((cell) => `${cell.product} ${nameOf(cell)}`);
    expect(new Set(names).size).toBe(cells.length);
  });

  it('have few that cover every value, in one that has to work unless no such one exists', () => {
    const few = covering(cells);
    expect(few.length).toBeLessThanOrEqual(cells.length / 4);
    const works = (all: readonly Cell[]) => new Set(all.filter((cell) => !refusalOf(cell)).flatMap(valuesOf));
    expect(works(few)).toEqual(works(cells));
    expect(new Set(few.flatMap(valuesOf))).toEqual(new Set(cells.flatMap(valuesOf)));
  });

  it('are refused where one of the table says so, also with values that this version does not have', () => {
    const cell: Cell = { product: 'Vault', auth: 'Kubernetes', root: 'External', delivery: 'PKI', kv: 2 };
    expect(refusalOf(cell)).toContain('PKI reads the root');
    expect(refusalOf({ ...cell, delivery: 'Bundle' })).toBeUndefined();
  });
});

describe('versions', () => {
  it('are found by their beginning, at a dot', () => {
    expect(findVersion('openbao', '2.6')).toBe('2.6.2');
    expect(findVersion('openbao', '2.6.1')).toBe('2.6.1');
    expect(() => findVersion('vault', '1.1')).toThrow('there is no vault 1.1; there are 1.19.5, ');
  });

  it('are chosen by the environment', () => {
    const before = process.env['TEST_OPENBAO_VERSION'] ?? '';
    try {
      process.env['TEST_OPENBAO_VERSION'] = '2.6';
      expect(chosenVersion('openbao')).toBe('2.6.2');
      process.env['TEST_OPENBAO_VERSION'] = '';
      expect(chosenVersion('openbao')).toBe('2.7.2');
    } finally {
      // empty means the default too
      process.env['TEST_OPENBAO_VERSION'] = before;
    }
  });

  it('are all of them, those of one product, or the named ones', () => {
    expect(parseOptions([]).versions.Vault.length).toBeGreaterThan(1);
    expect(parseOptions(['--product', 'openbao']).versions.Vault).toEqual([]);
    const { versions } = parseOptions(['--product', 'vault', '--version', '1.18', '--version', '1.19']);
    expect(versions).toEqual({ OpenBao: [], Vault: [findVersion('vault', '1.18'), '1.19.5'] });
    expect(() => parseOptions(['--version', '1.18'])).toThrow('--version needs --product');
    expect(() => parseOptions(['--product', 'vault', '--version', '9'])).toThrow('there is no vault 9');
    expect(() => parseOptions(['--product', 'consul'])).toThrow('--product is openbao or vault');
  });
});

describe('results', () => {
  const [one, refused] = [cells.find((cell) => !refusalOf(cell))!, cells.find((cell) => refusalOf(cell))!];
  const { product } = one;
  const assertion = (cell: Cell, status: string) => ({ ancestorTitles: [product], title: nameOf(cell), status });
  const of = (...assertionResults: ReturnType<typeof assertion>[]) =>
    outcomesOf({ testResults: [{ assertionResults }] }, product, cells);
  const result = (version: string, outcomes: VersionResult['cells']): VersionResult => ({
    product,
    version,
    date: '2026-01-02',
    commit: 'abc',
    cells: outcomes,
  });

  it('are those of the cells that ran', () => {
    expect(of(assertion(one, 'passed'), assertion(refused, 'passed'))).toEqual({
      [nameOf(one)]: 'works',
      [nameOf(refused)]: 'refused',
    });
    expect(of(assertion(one, 'failed'), assertion(refused, 'pending'))).toEqual({ [nameOf(one)]: 'failed' });
  });

  it('replace those of the same version, newest first', () => {
    const before = [result('2.7.0', {}), result('2.6.10', {})];
    const now = [result('2.6.9', {}), result('2.7.0', { [nameOf(one)]: 'works' })];
    expect(merged(before, now).map(({ version }) => version)).toEqual(['2.7.0', '2.6.10', '2.6.9']);
    expect(merged(before, now)[0]?.cells).toEqual({ [nameOf(one)]: 'works' });
  });

  it('are written between the markers, with what did not run left open', () => {
    const all = [result('2.7.0', { [nameOf(one)]: 'works' }), result('2.6.9', { [nameOf(refused)]: 'refused' })];
    const text = tables(all);
    expect(text).toContain(`| ${nameOf(one)} | ✓ | – |`);
    expect(text).toContain(`| ${nameOf(refused)} | – | refused |`);
    expect(text).toContain(`Refused with "${refusalOf(refused)}": ${nameOf(refused).replaceAll(' | ', ' / ')}.`);
    expect(text).toContain(`| ${product} 2.7.0 | 2026-01-02 | abc | 1 | 0 | 0 |`);
    const page = 'a\n<!-- matrix: begin -->\nold\n<!-- matrix: end -->\nb\n';
    expect(withTables(page, 'new')).toBe('a\n<!-- matrix: begin -->\n\nnew\n\n<!-- matrix: end -->\nb\n');
    expect(() => withTables('a', 'new')).toThrow('lacks the markers');
  });
});
