/** Go durations, as Kubernetes and Vault users write them (`90s`, `10m`, `1h30m`, `87600h`). */

/** The pattern of durations in fields and flags: whole numbers of h, m, s and ms. The CRD contains it, so its syntax must be valid in RE2. */
export const durationPattern = '^([0-9]{1,9}(h|m|s|ms))+$';

const unitMs: Record<string, number> = { h: 3_600_000, m: 60_000, s: 1_000, ms: 1 };

/**
 * Parses a duration of a field or flag.
 * @returns milliseconds
 * @throws RangeError if the text does not match `durationPattern`
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
/** The upper limit of Go durations in milliseconds: Go stores nanoseconds in 63 bits. */
const goLongestMs = 2 ** 63 / 1e6;

/**
 * Parses any duration that Go accepts, such as a setting of istiod: also with fractions, a sign and smaller units.
 * https://pkg.go.dev/time#ParseDuration
 * @returns whole milliseconds, rounded up; undefined if Go rejects the text
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
 * Formats a duration as Go accepts it, in h, m, s and ms (`87600h`, `1m30s`, `1h30m`).
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
