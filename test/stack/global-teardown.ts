/** Jest's global teardown of the projects "real" and "mesh". */
import { handleKey, type SharedStackHandle } from './global-setup.ts';
import { stopAll } from './index.ts';

export default async function tearDown(): Promise<void> {
  await ((globalThis as Record<symbol, unknown>)[handleKey] as SharedStackHandle | undefined)?.stop();
  await stopAll();
}
