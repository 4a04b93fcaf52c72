/**
 * Runs before each test file of the projects "real" and "mesh": `sharedStack()` then has the stack of this Jest worker. The project
 * says which mode it needs in `globals` (jest.config.mjs).
 */
import { poolVariable, stackOf } from './pool.ts';
import { factsVariable } from './shared.ts';
import type { StackMode } from './types.ts';

const socketPath = process.env[poolVariable];
if (socketPath === undefined) throw new Error(`${poolVariable} is not set: Jest's global setup has not run`);
const { stackMode } = globalThis as { stackMode?: StackMode };
process.env[factsVariable] = await stackOf(socketPath, process.env['JEST_WORKER_ID'] ?? '1', stackMode);
