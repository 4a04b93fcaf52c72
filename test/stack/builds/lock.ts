/** Lock files between processes. */
import { closeSync, openSync, readFileSync, rmSync, statSync, writeSync } from 'node:fs';
import { pause } from '../wait.ts';

/**
 * Takes a lock file, which holds its owner's process id. A lock whose owner has ended does not count.
 * @param onWait is called at the first failed attempt and every 30 seconds from then on
 * @returns the function that releases the lock
 * @throws the signal's reason when it is aborted first
 */
export async function lock(path: string, onWait: () => void, signal: AbortSignal): Promise<() => void> {
  for (let attempt = 0; ; attempt++) {
    signal.throwIfAborted();
    if (tryCreate(path)) return () => rmSync(path, { force: true });
    if (isStale(path)) {
      // Only one of several processes may remove the file, and only if it is still the stale one by then.
      const breaker = `${path}.break`;
      if (tryCreate(breaker)) {
        if (isStale(path)) rmSync(path, { force: true });
        rmSync(breaker, { force: true });
        continue;
      }
      if (isStale(breaker)) rmSync(breaker, { force: true });
    }
    if (attempt % 300 === 0) onWait();
    await pause(100);
  }
}

function tryCreate(path: string): boolean {
  try {
    const file = openSync(path, 'wx');
    writeSync(file, String(process.pid));
    closeSync(file);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw error;
  }
}

function isStale(path: string): boolean {
  try {
    const owner = Number(readFileSync(path, 'utf8'));
    // Between its creation and the writing of the id a lock is empty for a moment.
    if (owner === 0) return Date.now() - statSync(path).mtimeMs > 10_000;
    process.kill(owner, 0);
    return false;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ESRCH';
  }
}
