/** Memory and processor time of another process, as Linux shows them in /proc and a Node process in its metrics. */
import { readFileSync } from 'node:fs';

export interface Usage {
  /** When it was read, in milliseconds of `performance.now()`. */
  readonly atMs: number;
  /** Resident memory (VmRSS), bytes. */
  readonly rssBytes: number;
  /** The most resident memory since the start of the process (VmHWM), bytes. */
  readonly peakRssBytes: number;
  /** Processor time since the start of the process, user and system, milliseconds. */
  readonly cpuMs: number;
}

/** Milliseconds of a clock tick in /proc/<pid>/stat: Linux shows 100 ticks a second to programs, whatever its own clock. */
const tickMs = 10;

/**
 * Returns a size of /proc/<pid>/status, in bytes.
 * @param field such as `VmRSS`
 * @throws Error if the text does not have the field; a zombie has none
 */
export function sizeIn(status: string, field: string): number {
  const kibibytes = new RegExp(`^${field}:\\s*(\\d+) kB$`, 'm').exec(status)?.[1];
  if (kibibytes === undefined) throw new Error(`/proc/<pid>/status has no ${field}: the process has ended`);
  return Number(kibibytes) * 1024;
}

/** Returns the processor time in /proc/<pid>/stat, in milliseconds. @throws Error if the text is not of that file */
export function cpuMsIn(stat: string): number {
  // the second field is the name of the program in parentheses, which can contain spaces and parentheses itself
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const ticks = Number(fields[11]) + Number(fields[12]);
  if (!Number.isFinite(ticks)) throw new Error('/proc/<pid>/stat has no processor time');
  return ticks * tickMs;
}

/** Reads what a process uses. @throws Error if the process has ended, or this system has no /proc */
export function usageOf(pid: number): Usage {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  return {
    atMs: performance.now(),
    rssBytes: sizeIn(status, 'VmRSS'),
    peakRssBytes: sizeIn(status, 'VmHWM'),
    cpuMs: cpuMsIn(readFileSync(`/proc/${pid}/stat`, 'utf8')),
  };
}

/**
 * Returns the heap in use, garbage included, from the metrics of a Node process, in bytes.
 * @param metrics in the text format of Prometheus, with the default metrics of prom-client
 * @throws Error if the metric is missing
 */
export function heapBytesIn(metrics: string): number {
  const bytes = /^nodejs_heap_size_used_bytes (\S+)$/m.exec(metrics)?.[1];
  if (bytes === undefined) throw new Error('the metrics have no nodejs_heap_size_used_bytes');
  return Number(bytes);
}

/**
 * Returns the readings at both ends of a run. A single reading would not do, because garbage collection makes it a matter of chance.
 * @param readings in the order of time
 * @param longestMs the length of each part, milliseconds; at most a quarter of the run
 */
export function bothEnds<T extends Pick<Usage, 'atMs'>>(
  readings: readonly T[],
  longestMs: number,
): { readonly first: T[]; readonly last: T[] } {
  const [startMs, endMs] = [readings.at(0)?.atMs ?? 0, readings.at(-1)?.atMs ?? 0];
  const windowMs = Math.min(longestMs, (endMs - startMs) / 4);
  return {
    first: readings.filter(({ atMs }) => atMs - startMs <= windowMs),
    last: readings.filter(({ atMs }) => endMs - atMs <= windowMs),
  };
}

/** Returns the share of one core that a process used between two readings: 1 is a whole core. */
export const cpuShare = (from: Usage, to: Usage): number => (to.cpuMs - from.cpuMs) / (to.atMs - from.atMs);
