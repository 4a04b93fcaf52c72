import { randomInt } from 'node:crypto';
import { createServer } from 'node:net';

/**
 * Ports come from below the range out of which systems serve outgoing connections (32768 and up, commonly): a port
 * from there could be taken again between this look and the server's start.
 */
const bottom = 20_000;
const slots = 16;
const slotSize = 750;

/** Each Jest worker has a range of its own, and so has Jest's own process: two of one run never look for the same port. */
const lowest = bottom + (Number(process.env['JEST_WORKER_ID'] ?? 0) % slots) * slotSize;
const highest = lowest + slotSize;
const handedOut = new Set<number>();

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = createServer();
    probe.once('error', () => resolve(false));
    probe.listen({ port, host: '127.0.0.1', exclusive: true }, () => probe.close(() => resolve(true)));
  });
}

/**
 * The first of `count` adjoining TCP ports that are free on 127.0.0.1 and were not handed out before by this process.
 * @throws when none is found
 */
export async function freePort(count = 1): Promise<number> {
  for (let attempt = 0; attempt < 200; attempt++) {
    const first = randomInt(lowest, highest - count);
    const ports = Array.from({ length: count }, (_, i) => first + i);
    if (ports.some((port) => handedOut.has(port))) continue;
    // Before the first await: two callers at once must not get the same ones.
    for (const port of ports) handedOut.add(port);
    const free = await Promise.all(ports.map(isFree));
    if (free.every(Boolean)) return first;
  }
  throw new Error(`no ${count} free ports between ${lowest} and ${highest}`);
}

/** Whether a server's log says that a port it wanted was taken. */
const saysPortTaken = (log: string): boolean => /address already in use/i.test(log);

/**
 * Runs `start` again, up to three times in all, while it fails because a port was taken.
 * @throws the last failure
 */
export async function retryTakenPorts<T>(start: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await start();
    } catch (error) {
      if (attempt === 3 || !(error instanceof Error) || !saysPortTaken(error.message)) throw error;
    }
  }
}
