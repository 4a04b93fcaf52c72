import type { ManagedProcess } from './processes.ts';

export interface WaitOptions {
  /** Timeout, milliseconds; default 30000. */
  readonly timeoutMs?: number;
  /** Interval between two checks, milliseconds; default 50, and 200 in a wait that has taken longer than 2 s. */
  readonly intervalMs?: number;
  /** The process whose log the error contains. */
  readonly log?: () => string;
  /** Gives up at once when this process ends. */
  readonly process?: ManagedProcess;
}

let watched: ManagedProcess | undefined;

/**
 * Every wait gives up at once when this process ends by itself: without it, each test of a file would wait for its whole timeout.
 * @param process undefined: none, because it is about to be stopped
 */
export function watchInEveryWait(process: ManagedProcess | undefined): void {
  watched = process;
}

/** The last lines of a log, for an error message. */
export function tail(log: string, lines = 25): string {
  return log.trimEnd().split('\n').slice(-lines).join('\n');
}

/** A pause between two checks of a condition; never a replacement for a check. */
export const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/**
 * Calls `check` until it returns something other than `undefined` or `false`, and returns that.
 * @param what completes "waited … s for …"
 * @throws after the timeout, or if the process has ended; the message contains the last error and the end of the log
 */
export async function waitFor<T>(
  what: string,
  check: () => Promise<T | undefined | false> | T | undefined | false,
  options: WaitOptions = {},
): Promise<T> {
  const { timeoutMs = 30_000 } = options;
  const log = options.log ?? options.process?.log;
  const started = Date.now();
  let lastError = '';
  const fail = (how: string): Error =>
    new Error(
      [`${how} ${what}`, lastError, log === undefined ? '' : `log:\n${tail(log())}`].filter(Boolean).join('\n'),
    );
  for (;;) {
    try {
      const result = await check();
      if (result !== undefined && result !== false) return result;
      lastError = '';
    } catch (error) {
      lastError = `last error: ${error instanceof Error ? error.message : String(error)}`;
    }
    const ended = [options.process, watched].find((process) => process?.ended() !== undefined);
    if (ended) throw fail(`${ended.name} ended (${ended.ended() ?? ''}):\n${tail(ended.log())}\nIt was waited for`);
    if (Date.now() - started > timeoutMs) throw fail(`waited ${timeoutMs / 1000} s in vain for`);
    // servers on the same machine have to answer each look
    await pause(options.intervalMs ?? (Date.now() - started < 2_000 ? 50 : 200));
  }
}
