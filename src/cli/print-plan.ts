/** How `plan` shows what would be done: lines for people, or JSON. Pure. */
import type { DryRun } from '../controller/dry-run.ts';
import { scrub } from '../observability/scrub.ts';
import { kindOf, type Problem } from '../plan/facts/problem.ts';
import { describePlanned } from '../plan/step-table.ts';

/** What is shown. */
export interface Shown extends DryRun {
  /** Nothing is read or written while `spec.suspend` is true. */
  suspended?: boolean;
}

/** Whether nothing gets past it, or a person must act, or it could not be seen; what is only waited for is none. */
const standsInTheWay = (problem: Problem): boolean => problem.blocks === 'all' || kindOf(problem) !== 'waiting';

/** 0: nothing to do, 2: something, 1: something stands in the way. */
export function exitCode({ steps, problems }: Shown): 0 | 1 | 2 {
  if (problems.some(standsInTheWay)) return 1;
  return steps.length > 0 ? 2 : 0;
}

const count = (n: number, what: string): string => `${n} ${what}${n === 1 ? '' : 's'}`;
const reasons = (problems: Problem[]): string => [...new Set(problems.map(({ reason }) => reason))].join(', ');

function summary({ steps, problems, suspended = false }: Shown): string {
  if (suspended) return 'nothing to do while spec.suspend is true. Nothing was changed.';
  const inTheWay = problems.filter(standsInTheWay);
  const awaited = problems.filter((problem) => !standsInTheWay(problem));
  const first = steps.length > 0 ? `${count(steps.length, 'step')} to take` : 'nothing to do';
  const parts = inTheWay.some(({ blocks }) => blocks === 'all') ? [] : [first];
  if (inTheWay.length > 0) parts.push(`in the way: ${reasons(inTheWay)}`);
  if (awaited.length > 0) parts.push(`waits for: ${reasons(awaited)}`);
  return `${parts.join('; ')}. Nothing was changed.`;
}

/** Columns as wide as their widest text; the last one as it is. */
function columns(rows: string[][]): string[] {
  const width = (i: number) => Math.max(...rows.map((row) => row[i]?.length ?? 0));
  return rows.map((row) => row.map((cell, i) => (i < row.length - 1 ? cell.padEnd(width(i)) : cell)).join('  '));
}

/** One line for people, whatever is in it. */
const oneLine = (text: string): string => text.replace(/\s*\n\s*/g, ' ');

/** A line a step in order, then what stands in the way, then how it is in all. */
export function planText(shown: Shown): string {
  const steps = shown.steps.map((step) => describePlanned(step));
  const lines = [
    ...columns(steps.map(({ action, target, message }) => [action, target, message])),
    ...columns(shown.problems.map(({ condition, reason, message }) => [condition, reason, message])),
    summary(shown),
  ];
  return scrub(lines.map((line) => `${oneLine(line)}\n`).join(''));
}

/** The same as JSON. */
export function planJson(shown: Shown): string {
  const body = {
    steps: shown.steps.map((step) => {
      const { action, target, message } = describePlanned(step);
      return { action, target, message };
    }),
    problems: shown.problems.map(({ condition, reason, message, blocks }) => ({
      condition,
      reason,
      message,
      blocks,
    })),
    summary: summary(shown),
  };
  return scrub(`${JSON.stringify(body, undefined, 2)}\n`);
}
