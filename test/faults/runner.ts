/**
 * Runs a scenario with one failing request, many runs in parallel. Runs share kills: each run of a batch reaches its own point and is
 * frozen there, so that none of its requests passes. When all runs are frozen, the operator gets SIGKILL, and the next operator continues
 * all of them.
 */
import { isDeepStrictEqual } from 'node:util';
import type { Json } from '../support/cluster.ts';
import { isKill, type Counted, type Fault, type Side } from './point.ts';
import { Reader, unexcused, type Seen } from './reader.ts';
import type { Scenario } from './scenarios/index.ts';
import type { Configuration, Stage } from './stage.ts';
import type { World } from './world.ts';

/** The common options of a set of runs. */
export interface Series {
  scenario: Scenario;
  configuration: Configuration;
  side: Side;
  /** Which requests are counted. */
  counts: (request: Counted) => boolean;
}

export interface Run {
  /** The state at the end, or the reason why the run did not end. */
  end: Json;
  /** The counted requests, in order. */
  requests: readonly Counted[];
  injected: boolean;
  /** The number of logins of all operators of the run. */
  logins: number;
  seen: Seen;
  /** Snapshots whose files do not match, without an excuse. */
  mismatched: number;
}

/** Snapshots per second, of all readers together. */
const readRate = 15;

interface Kept {
  series: string;
  stage: Stage;
}

const keyOf = ({ scenario, configuration }: Series): string => JSON.stringify([scenario.name, configuration]);

export class Runner {
  readonly #world: World;
  readonly #kept = new Map<number, Kept>();
  readonly #readers = new Map<Stage, Reader>();
  #running = 0;

  constructor(world: World) {
    this.#world = world;
  }

  /** The scenario without a fault. */
  async undisturbed(series: Series): Promise<Run> {
    return await this.#run(0, series);
  }

  /**
   * One run for each of the given requests, each with that request failing.
   * @param width number of parallel runs
   */
  async disturbed(
    series: Series,
    fault: Fault,
    places: readonly number[],
    width: number,
    onRun: (at: number, run: Run) => void,
  ): Promise<void> {
    if (isKill(fault)) {
      for (let i = 0; i < places.length; i += width)
        await this.#batch(series, fault, places.slice(i, i + width), onRun);
      return;
    }
    const left = [...places];
    const worker = async (place: number) => {
      for (let at = left.shift(); at !== undefined; at = left.shift())
        onRun(at, await this.#run(place, series, { at, fault }));
    };
    await Promise.all(Array.from({ length: Math.min(width, places.length) }, (_, place) => worker(place)));
  }

  /** Removes the stages that are kept for further runs. */
  async close(): Promise<void> {
    await Promise.all([...this.#kept.values()].map(({ stage }) => this.#end(stage)));
    this.#kept.clear();
  }

  async #batch(series: Series, fault: Fault, places: number[], onRun: (at: number, run: Run) => void): Promise<void> {
    const stages = await Promise.all(places.map((_, place) => this.#stage(place, series)));
    const runs = stages.map((stage, place) => this.#runOn(stage, place, series, { at: places[place] ?? 0, fault }));
    await Promise.all(runs.map((run, i) => Promise.race([run, stages[i]?.point.frozen])));
    await this.#world.killOperator();
    for (const [i, run] of runs.entries()) onRun(places[i] ?? 0, await run);
  }

  async #run(place: number, series: Series, plan?: { at: number; fault: Fault }): Promise<Run> {
    return await this.#runOn(await this.#stage(place, series), place, series, plan);
  }

  /** A stage in its start state. @param place the number of the namespace */
  async #stage(place: number, series: Series): Promise<Stage> {
    const kept = this.#kept.get(place);
    this.#kept.delete(place);
    if (kept?.series === keyOf(series)) return kept.stage;
    if (kept) await this.#end(kept.stage);
    const { scenario, configuration } = series;
    const stage = await this.#world.makeStage(place, configuration, scenario.spec?.(configuration), scenario.rights);
    await scenario.prepare(stage);
    return stage;
  }

  async #runOn(stage: Stage, place: number, series: Series, plan?: { at: number; fault: Fault }): Promise<Run> {
    const { scenario, side, counts } = series;
    const { point } = stage;
    this.#running += 1;
    const reader = this.#readers.get(stage) ?? new Reader(stage, () => (this.#running * 1000) / readRate);
    this.#readers.set(stage, reader);
    point.arm(side, counts, plan);
    reader.start();
    let end: Json;
    try {
      end = await this.#tell(stage, scenario);
    } catch (error) {
      end = { failed: error instanceof Error ? error.message : String(error) };
    }
    point.disarm();
    this.#running -= 1;
    const { counted: requests, logins } = point;
    const injected = point.injectedAt !== undefined;
    const seen = await reader.stop();
    if (scenario.reusable && !('failed' in end)) this.#kept.set(place, { series: keyOf(series), stage });
    else await this.#end(stage);
    return { end, requests, injected, logins, seen, mismatched: unexcused(stage, seen).length };
  }

  async #end(stage: Stage): Promise<void> {
    await this.#readers.get(stage)?.dispose();
    this.#readers.delete(stage);
    await stage.close();
  }

  /** Runs from the action to the end state. If the fault occurred only in the last reconcile or after it, another reconcile follows. */
  async #tell(stage: Stage, scenario: Scenario): Promise<Json> {
    await scenario.act(stage);
    await scenario.settled(stage);
    for (;;) {
      const began = Date.now();
      await scenario.look(stage);
      const late = await stage.point.release();
      if (late) await scenario.look(stage);
      const end = await scenario.essence(stage);
      if ((stage.point.injectedAt ?? 0) < began) return end;
    }
  }
}

/** The promises that a run broke, compared with the undisturbed run. */
export function verdictOf(run: Run, undisturbed: Run): 'same' | 'key lost' | 'duplicate' | 'different' {
  const counts = ({ end }: Run) => [end['issuers'], end['keys'], end['versions']];
  if (isDeepStrictEqual(run.end, undisturbed.end)) return 'same';
  if (!isDeepStrictEqual(run.end['liveDefects'], undisturbed.end['liveDefects']) && !('failed' in run.end))
    return 'key lost';
  return isDeepStrictEqual(counts(run), counts(undisturbed)) || 'failed' in run.end ? 'different' : 'duplicate';
}

/** The differences between two end states. */
export function difference(run: Run, undisturbed: Run): Json {
  const keys = new Set([...Object.keys(run.end), ...Object.keys(undisturbed.end)]);
  const changed = [...keys].filter((key) => !isDeepStrictEqual(run.end[key], undisturbed.end[key]));
  if ('failed' in run.end) return { failed: run.end['failed'] };
  return Object.fromEntries(changed.map((key) => [key, { is: run.end[key], undisturbed: undisturbed.end[key] }]));
}
