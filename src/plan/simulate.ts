/**
 * Dry run: what a step would make of the observed world. `mode: Plan` shows all steps this way, deletion lists what it would still have done,
 * and the properties of the planner are tested on it.
 */
import type { Desired } from './facts/desired.ts';
import type { Observed } from './facts/observed.ts';
import { Refused } from './simulated-effects.ts';
import { applyTo } from './step-table.ts';
import type { Plan, Step } from './steps.ts';

/** A deep copy. structuredClone makes objects of another realm under Jest, which no deep comparison takes for equal. */
export function clone<T>(value: T): T {
  if (Array.isArray(value)) return value.map((item: unknown) => clone(item)) as T;
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, clone<unknown>(item)])) as T;
}

/**
 * The world after a step; the given one stays as it is.
 * @param now milliseconds since the epoch
 * @throws Error where the real server would refuse
 */
export function simulateStep(d: Desired, world: Observed, step: Step, now: number): Observed {
  const after = clone(world);
  applyTo({ d, now, ...after }, step);
  return after;
}

/** More iterations than any path needs. */
const mostRounds = 40;

/** All steps that would follow from here, iteration by iteration, as long as nothing else happens. */
export function simulate(d: Desired, world: Observed, next: (o: Observed) => Plan, now: number): Step[] {
  const steps: Step[] = [];
  let at = world;
  for (let round = 0; round < mostRounds; round += 1) {
    const following = next(at).steps;
    if (following.length === 0) return steps;
    steps.push(...following);
    try {
      for (const step of following) at = simulateStep(d, at, step, now);
    } catch (error) {
      if (error instanceof Refused) return steps; // further ahead nothing can be told
      throw error;
    }
  }
  return steps;
}
