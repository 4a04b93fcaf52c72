/** Reads a growing log, one JSON object per line, from the position where the last read stopped. */
import { open } from 'node:fs/promises';

const chunkBytes = 1 << 20;

/** Returns all entries of one log so far. Text after the last newline is incomplete and is left for the next read. */
function growingLog<T>(path: string, keep: (line: unknown) => T | undefined): () => Promise<readonly T[]> {
  const found: T[] = [];
  let offset = 0;
  let rest = Buffer.alloc(0);
  const take = (chunk: Buffer): void => {
    const bytes = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    const end = bytes.lastIndexOf(0x0a);
    // a copy, because the buffer of the chunk is reused
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
  // reads run one after another: two at once would read the same bytes twice
  let reading: Promise<void> = Promise.resolve();
  return async () => {
    reading = reading.catch(() => undefined).then(readOn);
    await reading;
    return found;
  };
}

/**
 * Returns the entries of a log so far, by its path. Each byte of a log is read once, however often the function is called.
 * @param keep selects the data to keep from the object of a line; undefined: the line is dropped
 * @throws if the file does not exist, or a line is not JSON
 */
export function growingLogs<T>(keep: (line: unknown) => T | undefined): (path: string) => Promise<readonly T[]> {
  const logs = new Map<string, () => Promise<readonly T[]>>();
  return async (path) => {
    const entries = logs.get(path) ?? growingLog(path, keep);
    logs.set(path, entries);
    return await entries();
  };
}
