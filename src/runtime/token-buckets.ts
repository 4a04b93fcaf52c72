/** Token buckets by key: each key may do something a number of times at once, and after that at a steady rate. */
export interface TokenBucketsOptions {
  /** How often a key may do it at once. */
  burst: number;
  /** How often a second after that. */
  perSecond: number;
}

interface Bucket {
  tokens: number;
  /** When `tokens` was computed, milliseconds. */
  atMs: number;
}

/** With fewer buckets than this, full ones stay in memory. */
const leastSwept = 1000;

export class TokenBuckets {
  readonly #options: TokenBucketsOptions;
  readonly #buckets = new Map<string, Bucket>();
  #sweepAt = leastSwept;

  constructor(options: TokenBucketsOptions) {
    this.#options = options;
  }

  /** The number of keys with a bucket that was not full when it was last looked at. */
  get size(): number {
    return this.#buckets.size;
  }

  /**
   * Takes a token of a key.
   * @param nowMs milliseconds of a clock that does not go back
   * @returns 0 if there was one; otherwise the time until there is one, in milliseconds, and none is taken
   */
  take(key: string, nowMs: number): number {
    this.#sweep(nowMs);
    const tokens = this.#tokens(this.#buckets.get(key), nowMs);
    const taken = tokens >= 1;
    this.#buckets.set(key, { tokens: taken ? tokens - 1 : tokens, atMs: nowMs });
    return taken ? 0 : Math.ceil(((1 - tokens) * 1000) / this.#options.perSecond);
  }

  #tokens(bucket: Bucket | undefined, nowMs: number): number {
    const { burst, perSecond } = this.#options;
    return bucket ? Math.min(burst, bucket.tokens + ((nowMs - bucket.atMs) * perSecond) / 1000) : burst;
  }

  /** Forgets full buckets, which are as good as none. */
  #sweep(nowMs: number): void {
    if (this.#buckets.size < this.#sweepAt) return;
    for (const [key, bucket] of this.#buckets)
      if (this.#tokens(bucket, nowMs) >= this.#options.burst) this.#buckets.delete(key);
    this.#sweepAt = Math.max(leastSwept, 2 * this.#buckets.size);
  }
}
