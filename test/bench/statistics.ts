/** Statistics of measured values. Pure. */

/**
 * Returns the value below which a share of the values lies; between two values, it interpolates linearly.
 * @param share from 0 to 1; 0.95 for the 95th percentile
 * @throws RangeError if there are no values
 */
export function quantile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  const place = (sorted.length - 1) * share;
  const [below, above] = [sorted[Math.floor(place)], sorted[Math.ceil(place)]];
  if (below === undefined || above === undefined) throw new RangeError('there are no values');
  return below + (above - below) * (place - Math.floor(place));
}

/** Returns the median. @throws RangeError if there are no values */
export const median = (values: readonly number[]): number => quantile(values, 0.5);

/** Values that were measured one after the other, under two conditions: what is compared with, and what is compared. */
export interface Pair {
  readonly base: readonly number[];
  readonly other: readonly number[];
}

/**
 * Returns the ratio of the medians of each pair, `other` to `base`, in the order of the pairs. What disturbs the machine for longer than a
 * pair cancels out.
 * @throws RangeError if a side has no values
 */
export const ratiosOfPairs = (pairs: readonly Pair[]): number[] =>
  pairs.map(({ base, other }) => median(other) / median(base));
