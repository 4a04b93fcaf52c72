/** Output of the demo: numbered titles, lines with the seconds since its start, tables. Colors only on a terminal. */
import { styleText } from 'node:util';

type Style = 'bold' | 'dim' | 'green' | 'yellow' | 'red' | 'cyan';

const started = performance.now();
const colours = process.stdout.isTTY && (process.env['NO_COLOR'] ?? '') === '';
const indent = '  ';
let titles = 0;
let current = 'start';
let muted = false;

/** Colors a text if the output supports it. */
export const paint = (style: Style, text: string): string =>
  colours ? styleText(style, text, { validateStream: false }) : text;

/** Maximum columns of a line; limited for readability. */
function width(): number {
  const columns = process.stdout.isTTY ? process.stdout.columns : 0;
  return columns > 0 ? Math.min(Math.max(columns, 60), 100) : 100;
}

export const seconds = (ms: number): string => `${(ms / 1000).toFixed(1)} s`;

/** The current title, which an error message names. */
export const currentTitle = (): string => current;

/** Suppresses all further output, or resumes it. */
export function mute(quiet: boolean): void {
  muted = quiet;
}

/** Prints one line unchanged. */
export function print(text = ''): void {
  if (!muted) process.stdout.write(`${text}\n`);
}

/** Breaks a text into lines at spaces; a word too long for a line is broken anywhere. */
function wrap(text: string, columns: number): string[] {
  const lines: string[] = [];
  let line = '';
  for (let word of text.split(/\s+/)) {
    if (line !== '' && line.length + 1 + word.length > columns) {
      lines.push(line);
      line = '';
    }
    line = line === '' ? word : `${line} ${word}`;
    for (word = line; word.length > columns; word = word.slice(columns)) lines.push(word.slice(0, columns));
    line = word;
  }
  return line === '' && lines.length > 0 ? lines : [...lines, line];
}

/** A cell of a table: plain, or with a color. */
export type Cell = string | { readonly text: string; readonly style: Style };

const textOf = (cell: Cell | undefined): string => (typeof cell === 'object' ? cell.text : (cell ?? ''));
const painted = (cell: Cell | undefined, text: string): string =>
  typeof cell === 'object' ? paint(cell.style, text) : text;

/** Starts a part of the demo. */
export function title(text: string): void {
  titles += 1;
  current = text;
  print();
  print(paint('bold', `${titles}. ${text}`));
}

/** Prints a line with the seconds since the start of the demo, or with another time, and a word before the text. */
export function step(text: string, atMs = performance.now() - started, label?: Cell): void {
  const time = `${indent}${seconds(atMs).padStart(7)}  `;
  const word = label === undefined ? '' : textOf(label).padEnd(22);
  const before = time.length + word.length;
  wrap(text, width() - before).forEach((line, i) => {
    print(i === 0 ? `${paint('dim', time)}${painted(label, word)}${line}` : `${' '.repeat(before)}${line}`);
  });
}

/** An explanation, wrapped. */
export function note(text: string): void {
  for (const line of wrap(text, width() - indent.length)) print(`${indent}${paint('dim', line)}`);
}

/** Prints `name: value` as in YAML; a value that is too long continues indented on the next line. */
export function entry(name: string, value: string): void {
  const before = '    ';
  wrap(`${name}: ${value}`, width() - before.length - 2).forEach((line, i) => {
    print(
      i === 0
        ? `${before}${paint('cyan', line.slice(0, name.length + 1))}${line.slice(name.length + 1)}`
        : `${before}  ${line}`,
    );
  });
}

/** A heading within a part. */
export function heading(text: string): void {
  print();
  print(`${indent}${paint('bold', text)}`);
}

/** Prints rows in columns; the last column uses the rest of the line and is wrapped. */
export function table(rows: readonly (readonly Cell[])[], head?: readonly string[]): void {
  const all = head === undefined ? rows : [head, ...rows];
  const last = Math.max(...all.map((row) => row.length)) - 1;
  const widths = Array.from({ length: last }, (_, i) => Math.max(...all.map((row) => textOf(row[i]).length)) + 2);
  const before = indent.length + widths.reduce((sum, one) => sum + one, 0);
  all.forEach((row, at) => {
    const isHead = at === 0 && head !== undefined;
    wrap(textOf(row[last]), Math.max(width() - before, 20)).forEach((end, i) => {
      const cells = widths.map((columns, c) => {
        const text = i === 0 ? textOf(row[c]) : '';
        return `${painted(row[c], text)}${' '.repeat(columns - text.length)}`;
      });
      const line = `${indent}${cells.join('')}${painted(row[last], end)}`.trimEnd();
      print(isHead ? paint('dim', line) : line);
    });
  });
}

/** Prints rows whose columns do not fit into a line as several tables. */
export function wideTable(rows: readonly (readonly string[])[], head: readonly string[]): void {
  const widths = head.map((name, c) => Math.max(name.length, ...rows.map((row) => row[c]?.length ?? 0)) + 2);
  for (let from = 0; from < head.length;) {
    let to = from;
    for (let sum = indent.length; to < head.length; to += 1) {
      sum += widths[to] ?? 0;
      if (to > from && sum > width()) break;
    }
    table(
      rows.map((row) => row.slice(from, to)),
      head.slice(from, to),
    );
    from = to;
  }
}
