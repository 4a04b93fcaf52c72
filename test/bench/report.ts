/** The results as Markdown, within docs/performance.md, and the missed targets. Pure. */
import type { Environment } from './environment.ts';
import type { Row, Scenario } from './scenario.ts';

/** The head of the table of a scenario. */
export const headOf = ({ columns }: Pick<Scenario, 'columns'>): string[] => ['measure', ...columns, 'target'];

/** The cells of a row, as many as the head has. */
export const cellsOf = ({ measure, cells, target }: Row): string[] => [
  measure,
  ...cells,
  target === undefined ? '' : `${target.text}${target.met ? '' : ': missed'}`,
];

/** Returns one line for each missed target. */
export const missedTargets = (name: string, rows: readonly Row[]): string[] =>
  rows.flatMap(({ measure, cells, target }) =>
    target === undefined || target.met
      ? []
      : [`${name}: target missed: ${measure}: ${cells.filter(Boolean).join(', ')}; target: ${target.text}`],
  );

/** Returns the section of a scenario, without the markers. @param minutes as given on the command line */
export function section(
  { name, description, columns }: Pick<Scenario, 'name' | 'description' | 'columns'>,
  rows: readonly Row[],
  { date, commit, machine, versions }: Environment,
  minutes: number,
): string {
  const head = headOf({ columns });
  const line = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`;
  return [
    `## ${name}`,
    description,
    [line(head), `|${'---|'.repeat(head.length)}`, ...rows.map((row) => line(cellsOf(row)))].join('\n'),
    `Measured on ${date} with \`npm run bench -- ${name} --minutes ${minutes}\`, commit ${commit}: ${machine}; ${versions}.`,
  ].join('\n\n');
}

/**
 * Replaces the section of a scenario between its markers; a page without the markers gets it at its end.
 * @throws Error if only one of the two markers is there, or the end precedes the beginning
 */
export function withSection(page: string, name: string, text: string): string {
  const [begin, end] = [`<!-- bench ${name}: begin -->`, `<!-- bench ${name}: end -->`];
  const block = `${begin}\n\n${text}\n\n${end}`;
  const [from, to] = [page.indexOf(begin), page.indexOf(end)];
  if (from === -1 && to === -1) return `${page.trimEnd()}\n\n${block}\n`;
  if (from === -1 || to < from) throw new Error(`the markers of section ${name} do not match`);
  return `${page.slice(0, from)}${block}${page.slice(to + end.length)}`;
}
