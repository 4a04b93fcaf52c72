/** The results of `npm run test:matrix`, as the table in docs/compatibility.md. Pure. */
import { products, type Product } from '../stack/types.ts';
import { cells as combinations, nameHead, nameOf, refusalOf, type Cell } from './cells.ts';

export type Outcome = 'works' | 'refused' | 'failed';

/** A run of all cells with one version of a product. */
export interface VersionResult {
  readonly product: Product;
  readonly version: string;
  /** ISO 8601. */
  readonly date: string;
  /** Abbreviated hash. */
  readonly commit: string;
  /** The outcome of each cell that ran, by `nameOf`. */
  readonly cells: Readonly<Record<string, Outcome>>;
}

/** The part of a result file of Jest that is used. */
export interface JestResults {
  readonly testResults: readonly {
    readonly assertionResults: readonly {
      readonly ancestorTitles: readonly string[];
      readonly title: string;
      readonly status: string;
    }[];
  }[];
}

/** The outcomes of the cells of a product in the results of a Jest run. Empty if none of them ran. */
export function outcomesOf(results: JestResults, product: Product, all: readonly Cell[]): Record<string, Outcome> {
  const assertions = results.testResults.flatMap(({ assertionResults }) => assertionResults);
  const ofProduct = assertions.filter(({ ancestorTitles }) => ancestorTitles.includes(product));
  const outcomes = all.flatMap((cell) => {
    const found = cell.product === product && ofProduct.find(({ title }) => title === nameOf(cell));
    if (!found || !['passed', 'failed'].includes(found.status)) return [];
    const passed: Outcome = refusalOf(cell) === undefined ? 'works' : 'refused';
    return [[nameOf(cell), found.status === 'passed' ? passed : 'failed'] as const];
  });
  return Object.fromEntries(outcomes);
}

const numbers = (version: string): number[] => version.split('.').map(Number);

/** Newest version first. */
const byVersion = (a: VersionResult, b: VersionResult): number =>
  numbers(b.version).reduce((order, number, i) => order || number - (numbers(a.version)[i] ?? 0), 0);

/** Earlier results, with those of the versions that ran now in the place of older ones. */
export function merged(before: readonly VersionResult[], now: readonly VersionResult[]): VersionResult[] {
  const isNew = ({ product, version }: VersionResult): boolean =>
    now.some((one) => one.product === product && one.version === version);
  const all = [...before.filter((one) => !isNew(one)), ...now];
  return products.flatMap((product) => all.filter((one) => one.product === product).sort(byVersion));
}

const shown: Record<Outcome, string> = { works: '✓', refused: 'refused', failed: '**fails**' };

const table = (head: readonly string[], rows: readonly (readonly string[])[]): string =>
  [head, head.map(() => '---'), ...rows].map((row) => `| ${row.join(' | ')} |`).join('\n');

/** Why combinations are refused, a line for each answer, of those that ran. */
function reasons(names: readonly string[]): string[] {
  const refused = combinations.filter((cell) => refusalOf(cell) !== undefined && names.includes(nameOf(cell)));
  const answers = new Set(refused.map((cell) => refusalOf(cell)!));
  return [...answers].map((says) => {
    const which = new Set(refused.filter((cell) => refusalOf(cell) === says).map(nameOf));
    return `Refused with "${says}": ${[...which].map((name) => name.split(' | ').join(' / ')).join('; ')}.`;
  });
}

/** What works with which version, why the rest is refused, and when each version ran. */
export function tables(results: readonly VersionResult[]): string {
  const names = [...new Set(results.flatMap(({ cells }) => Object.keys(cells)))];
  const rows = names.map((name) => [
    ...name.split(' | '),
    ...results.map(({ cells }) => (cells[name] === undefined ? '–' : shown[cells[name]])),
  ]);
  const titles = results.map(({ product, version }) => `${product} ${version}`);
  const runs = results.map(({ cells, date, commit }, i) => {
    const outcomes = Object.values(cells);
    const count = (outcome: Outcome): string => String(outcomes.filter((one) => one === outcome).length);
    return [titles[i]!, date, commit, count('works'), count('refused'), count('failed')];
  });
  return [
    table([...nameHead.split(' | '), ...titles], rows),
    ...reasons(names),
    table(['version', 'run on', 'commit', 'works', 'refused', 'fails'], runs),
  ].join('\n\n');
}

const [begin, end] = ['<!-- matrix: begin -->', '<!-- matrix: end -->'];

/** The page with other tables between its markers. @throws Error if it lacks a marker */
export function withTables(page: string, text: string): string {
  const [from, to] = [page.indexOf(begin), page.indexOf(end)];
  if (from === -1 || to < from) throw new Error(`the page lacks the markers ${begin} and ${end}`);
  return `${page.slice(0, from)}${begin}\n\n${text}\n\n${page.slice(to)}`;
}
