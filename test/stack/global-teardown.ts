/**
 * Jest's global teardown of the projects "real" and "mesh". It fails the run when a tool has taken a state of a resource
 * for something else than documented.
 */
import { poolKey } from './global-setup.ts';
import { stopAll } from './index.ts';
import type { Pool } from './pool.ts';

export default async function tearDown(): Promise<void> {
  try {
    const pool = (globalThis as Record<symbol, unknown>)[poolKey] as Pool | undefined;
    if (pool !== undefined) console.error(`health for GitOps tools: as promised in ${await pool.stop()} states`);
  } finally {
    await stopAll();
  }
}
