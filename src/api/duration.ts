/**
 * Go durations, as Kubernetes and Vault users write them (`90s`, `10m`, `1h30m`, `87600h`).
 * Only whole numbers of h, m, s and ms: the same language the CRD's pattern accepts.
 */

/** RE2-safe pattern of a duration; the CRD carries the same text. */
export const durationPattern = '^([0-9]{1,9}(h|m|s|ms))+$';

const unitMs: Record<string, number> = { h: 3_600_000, m: 60_000, s: 1_000, ms: 1 };

/**
 * Parses a Go duration.
 * @returns milliseconds
 * @throws RangeError when the text is not a duration
 */
export function parseGoDuration(text: string): number {
  if (!new RegExp(durationPattern).test(text)) {
    throw new RangeError(`"${text}" is not a duration; write it like 90s, 10m or 87600h`);
  }
  let total = 0;
  for (const [, amount, unit] of text.matchAll(/([0-9]+)(ms|h|m|s)/g)) {
    total += Number(amount) * (unitMs[unit ?? ''] ?? 0);
  }
  return total;
}

const goUnitMs: Record<string, number> = { ...unitMs, ns: 1e-6, us: 1e-3, µs: 1e-3, μs: 1e-3 };
const goPart = String.raw`(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)`;
const goPattern = new RegExp(`^[+-]?(0|(${goPart})+)$`);
/** Go counts nanoseconds in 63 bits. */
const goLongestMs = 2 ** 63 / 1e6;

/**
 * A duration that somebody else has written for a program in Go: also with fractions, a sign and smaller units.
 * https://pkg.go.dev/time#ParseDuration
 * @returns whole milliseconds, rounded up; undefined for what Go does not take
 */
export function parseAnyGoDuration(text: string): number | undefined {
  if (!goPattern.test(text)) return undefined;
  let total = 0;
  for (const [, amount, unit] of text.matchAll(new RegExp(goPart, 'g'))) {
    total += Number(amount) * (goUnitMs[unit ?? ''] ?? 0);
  }
  if (total >= goLongestMs) return undefined;
  return text.startsWith('-') ? -Math.floor(total) : Math.ceil(total);
}

/**
 * Prints milliseconds in the shortest Go form with one unit where possible (`87600h`, `90s`, `1h30m`).
 * @param ms a whole, non-negative number of milliseconds
 */
export function formatGoDuration(ms: number): string {
  if (ms === 0) return '0s';
  let rest = ms;
  let text = '';
  for (const unit of ['h', 'm', 's', 'ms']) {
    const size = unitMs[unit] ?? 1;
    const amount = Math.floor(rest / size);
    if (amount > 0) text += `${amount}${unit}`;
    rest -= amount * size;
  }
  return text;
}
