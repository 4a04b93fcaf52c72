/** The output of `plan`: text or JSON, and the exit code. Pure. */
import type { DryRun } from '../controller/dry-run.ts';
import { printable } from '../text/bounded.ts';
import { redact } from '../text/redact.ts';
import { kindOf, type Problem } from '../plan/facts/problem.ts';
import { describePlanned } from '../plan/step-table.ts';

/** The result of `plan`. */
export interface PlanResult extends DryRun {
  /** Whether `spec.suspend` is true. Nothing was then read, and the operator would write nothing. */
  suspended?: boolean;
}

/** Whether a problem prevents success: it blocks every write, requires user action, or is a failed read. Others resolve automatically. */
const isObstacle = (problem: Problem): boolean => problem.blocks === 'all' || kindOf(problem) !== 'waiting';

/** The exit code: 1 if a problem prevents success; otherwise 2 if there are steps, and 0 if there are none. */
export function exitCode({ steps, problems }: PlanResult): 0 | 1 | 2 {
  if (problems.some(isObstacle)) return 1;
  return steps.length > 0 ? 2 : 0;
}

const count = (n: number, what: string): string => `${n} ${what}${n === 1 ? '' : 's'}`;
const reasons = (problems: Problem[]): string => [...new Set(problems.map(({ reason }) => reason))].join(', ');

function summary({ steps, problems, suspended = false }: PlanResult): string {
  if (suspended) return 'nothing to do while spec.suspend is true. Nothing was changed.';
  const obstacles = problems.filter(isObstacle);
  const awaited = problems.filter((problem) => !isObstacle(problem));
  const first = steps.length > 0 ? `${count(steps.length, 'step')} to take` : 'nothing to do';
  const parts = obstacles.some(({ blocks }) => blocks === 'all') ? [] : [first];
  if (obstacles.length > 0) parts.push(`in the way: ${reasons(obstacles)}`);
  if (awaited.length > 0) parts.push(`waits for: ${reasons(awaited)}`);
  return `${parts.join('; ')}. Nothing was changed.`;
}

/** Aligns the cells of rows. The last column is not padded. */
function columns(rows: string[][]): string[] {
  const width = (i: number) => Math.max(...rows.map((row) => row[i]?.length ?? 0));
  return rows.map((row) => row.map((cell, i) => (i < row.length - 1 ? cell.padEnd(width(i)) : cell)).join('  '));
}

/** The text on one line, without characters that a terminal would act on. */
function oneLine(text: string): string {
  const [first = '', ...rest] = text.split('\n');
  const joined = [first.trimEnd(), ...rest.map((line) => line.trim())].filter((line) => line !== '').join(' ');
  return printable(joined);
}

/** Formats a result as text: one line per step in order, one line per problem, and a summary. */
export function planText(result: PlanResult): string {
  const steps = result.steps.map((step) => describePlanned(step));
  const lines = [
    ...columns(steps.map(({ action, target, message }) => [action, target, message])),
    ...columns(result.problems.map(({ condition, reason, message }) => [condition, reason, message])),
    summary(result),
  ];
  return redact(lines.map((line) => `${oneLine(line)}\n`).join(''));
}

/** Formats a result as JSON. */
export function planJson(result: PlanResult): string {
  const body = {
    steps: result.steps.map((step) => {
      const { action, target, message } = describePlanned(step);
      return { action, target, message };
    }),
    problems: result.problems.map(({ condition, reason, message, blocks }) => ({
      condition,
      reason,
      message,
      blocks,
    })),
    summary: summary(result),
  };
  return redact(`${JSON.stringify(body, undefined, 2)}\n`);
}
