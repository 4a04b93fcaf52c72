import { randomInt } from 'node:crypto';
import { createServer } from 'node:net';

/**
 * Ports are below the range that systems use for outgoing connections (commonly 32768 and up): a port of that range could
 * be taken between this check and the start of the server.
 */
const bottom = 20_000;
const slots = 16;
const slotSize = 750;

/** Each Jest worker and Jest's own process have separate ranges, so that two processes of a run never try the same port. */
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
 * Returns the first of `count` adjacent TCP ports that are free on 127.0.0.1 and that this process has not returned before.
 * @throws if there are none
 */
export async function freePort(count = 1): Promise<number> {
  for (let attempt = 0; attempt < 200; attempt++) {
    const first = randomInt(lowest, highest - count);
    const ports = Array.from({ length: count }, (_, i) => first + i);
    if (ports.some((port) => handedOut.has(port))) continue;
    // Before the first await, so that two parallel callers do not get the same ports.
    for (const port of ports) handedOut.add(port);
    const free = await Promise.all(ports.map(isFree));
    if (free.every(Boolean)) return first;
  }
  throw new Error(`no ${count} free ports between ${lowest} and ${highest}`);
}

/** Whether the log of a server shows that its port was taken. */
const saysPortTaken = (log: string): boolean => /address already in use/i.test(log);

/**
 * Runs `start`, and repeats it while it fails because a port was taken, three attempts in total.
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
