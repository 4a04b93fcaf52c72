/**
 * Jest's global teardown of the projects "real" and "mesh". It fails the run when a tool has taken a state of a resource
 * for something else than documented.
 */
import { handleKey, type SharedStackHandle } from './global-setup.ts';
import { stopAll } from './index.ts';

export default async function tearDown(): Promise<void> {
  try {
    await ((globalThis as Record<symbol, unknown>)[handleKey] as SharedStackHandle | undefined)?.stop();
  } finally {
    await stopAll();
  }
}
