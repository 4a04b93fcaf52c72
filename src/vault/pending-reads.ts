/** Reads whose failure may be of no consequence. */
import { VaultError } from './errors.ts';

/** A read that is under way. Whether its failure matters is known only when others have answered. */
export interface Pending<T> {
  /** The value. @throws what the read failed with */
  take(): Promise<T>;
  /** The value; undefined when the read is forbidden: the capabilities say more precisely what is missing. */
  takeUnlessForbidden(): Promise<T | undefined>;
}

export function start<T>(read: Promise<T>): Pending<T> {
  read.catch(() => undefined); // taken later, or of no consequence because its mount is not there
  return {
    take: () => read,
    takeUnlessForbidden: () =>
      read.catch((error: unknown) => {
        if (error instanceof VaultError && error.kind === 'Forbidden') return undefined;
        throw error;
      }),
  };
}

/** A read that needs a right which the operator can do without: `unreadable` without it. */
export const optional = <T>(read: Promise<T>): Promise<T | 'unreadable'> =>
  read.catch((error: unknown) => {
    if (error instanceof VaultError && error.kind === 'Forbidden') return 'unreadable' as const;
    throw error;
  });

/** A read that is needed if the operator manages the object, and otherwise one that it can do without. */
export async function optionalUnless<T>(managed: boolean, read: Promise<T>): Promise<{ value: T } | 'unreadable'> {
  const value = read.then((found) => ({ value: found }));
  return managed ? await value : await optional(value);
}
