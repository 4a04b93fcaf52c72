/** A cache of computed values. */

/** Base of the two kinds of derived state: caches computed values. */
export class Memo {
  readonly #values = new Map<unknown, unknown>();

  /**
   * Returns the value of a key, which the first call computes.
   * @param key a name, or the function that computes the value
   * @param compute must not depend on anything that can change
   */
  once<T>(key: unknown, compute: () => T): T {
    if (!this.#values.has(key)) this.#values.set(key, compute());
    return this.#values.get(key) as T;
  }
}
