/**
 * Which builds compile at the same time. Go's build cache has a package only once it is compiled, so two builds that
 * need the same package at the same time both compile it. A build therefore waits as long as another one still
 * compiles a package that it needs too. It does not wait while another one only links, which takes one core.
 */
import { availableParallelism, totalmem } from 'node:os';
import { leanEnv } from '../processes.ts';
import { pause } from '../wait.ts';

const gibibyte = 1024 ** 3;

/**
 * How many builds may compile or link at the same time: at least two, for linking takes one core, more with more than
 * eight cores. Each is reckoned to need 4 GiB, as much as linking the largest server takes together with compilers.
 * @param memory bytes
 */
export const buildLimit = (cores: number, memory: number): number =>
  Math.max(1, Math.min(Math.max(2, Math.floor(cores / 4)), Math.floor(memory / (4 * gibibyte))));

/**
 * Environment of a build: where there are 2 GiB for each compiler that runs at the same time, compilers collect garbage
 * only when they hold as much: 7% less processor time for gRPC with the standard library, more for larger packages.
 * @param memory bytes
 */
export const compilerEnv = (cores: number, memory: number): Readonly<Record<string, string>> =>
  memory >= 2 * gibibyte * cores * buildLimit(cores, memory) ? leanEnv : {};

/** Bytes of memory that this process and its children have. */
export function availableMemory(): number {
  // 0, or more than there is, where no control group limits this process
  const limit = process.constrainedMemory();
  return limit > 0 ? Math.min(limit, totalmem()) : totalmem();
}

/** A build that compiles or links. */
export interface Turn {
  /** Ids of the packages that it has not compiled yet. */
  unfinished: ReadonlySet<string>;
}

/** Whether a build may start beside the running ones: there is room, and none still compiles a package it needs. */
export const mayStart = (needed: ReadonlySet<string>, running: Iterable<Turn>, limit: number): boolean => {
  const others = [...running];
  return others.length < limit && others.every(({ unfinished }) => ![...needed].some((id) => unfinished.has(id)));
};

/** Makes a function that runs what it is given one at a time, in the order of the calls. */
export function oneAtATime(): <T>(work: () => Promise<T>) => Promise<T> {
  let last: Promise<unknown> = Promise.resolve();
  return (work) => {
    const result = last.then(work);
    last = result.catch(() => undefined);
    return result;
  };
}

/** The builds of this process that compile or link. */
const running = new Set<Turn>();
const inOrder = oneAtATime();
let waiting = 0;

/**
 * Waits until a build may start, in the order of the calls, and counts it among the running ones until `end` is called.
 * @param needed ids of the packages that it has to compile
 * @param onWait is called once when the build has to wait
 * @throws the signal's reason when it is aborted first
 */
export async function takeTurn(
  needed: ReadonlySet<string>,
  onWait: () => void,
  signal: AbortSignal,
): Promise<Turn & { readonly waited: boolean; end(): void }> {
  const limit = buildLimit(availableParallelism(), availableMemory());
  const waited = waiting > 0 || !mayStart(needed, running, limit);
  if (waited) onWait();
  waiting++;
  try {
    return await inOrder(async () => {
      for (;;) {
        signal.throwIfAborted();
        if (mayStart(needed, running, limit)) break;
        await pause(250);
      }
      const turn = { unfinished: needed, waited, end: () => void running.delete(turn) };
      running.add(turn);
      return turn;
    });
  } finally {
    waiting--;
  }
}
