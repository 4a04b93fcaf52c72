/** Reads a log that grows, one JSON object a line, from where the last reading stopped. */
import { open } from 'node:fs/promises';

const chunkBytes = 1 << 20;

/** Gives all entries of one log so far. What follows the last newline is still being written, and left for the next time. */
function growingLog<T>(path: string, keep: (line: unknown) => T | undefined): () => Promise<readonly T[]> {
  const found: T[] = [];
  let offset = 0;
  let rest = Buffer.alloc(0);
  const take = (chunk: Buffer): void => {
    const bytes = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    const end = bytes.lastIndexOf(0x0a);
    // a copy: the chunk's memory is used again
    rest = Buffer.from(bytes.subarray(end + 1));
    if (end < 0) return;
    for (const line of bytes.toString('utf8', 0, end).split('\n')) {
      const kept = keep(JSON.parse(line));
      if (kept !== undefined) found.push(kept);
    }
  };
  const readOn = async (): Promise<void> => {
    const file = await open(path, 'r');
    try {
      const buffer = Buffer.alloc(chunkBytes);
      for (;;) {
        const { bytesRead } = await file.read(buffer, 0, chunkBytes, offset);
        if (bytesRead === 0) return;
        offset += bytesRead;
        take(buffer.subarray(0, bytesRead));
      }
    } finally {
      await file.close();
    }
  };
  // one reading after another: two at once would take the same bytes twice
  let reading: Promise<void> = Promise.resolve();
  return async () => {
    reading = reading.catch(() => undefined).then(readOn);
    await reading;
    return found;
  };
}

/**
 * Gives the entries of a log so far, by its path. Each log is read once, however often it is asked for.
 * @param keep what is kept of a line's object; undefined: nothing
 * @throws when there is no such file, or a line is no JSON
 */
export function growingLogs<T>(keep: (line: unknown) => T | undefined): (path: string) => Promise<readonly T[]> {
  const logs = new Map<string, () => Promise<readonly T[]>>();
  return async (path) => {
    const entries = logs.get(path) ?? growingLog(path, keep);
    logs.set(path, entries);
    return await entries();
  };
}
