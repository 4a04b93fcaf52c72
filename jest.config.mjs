/**
 * Three projects: `unit` runs beside the code and needs nothing; `real` runs against real servers that test/stack
 * starts, one stack for each worker; `mesh` too, with pods of istiod on a stand-in for a node.
 */
import { availableParallelism, totalmem } from 'node:os';

/**
 * Most tests wait for servers, so there are two workers for each core; with its stack and the istiods of its tests each takes up to
 * 3 GiB. TEST_WORKERS overrides it.
 */
const workers = Math.max(1, Math.min(availableParallelism() * 2, 8, Math.floor(totalmem() / 2 ** 30 / 3)));

const common = {
  testEnvironment: 'node',
  extensionsToTreatAsEsm: ['.ts'],
  transform: {
    '^.+\\.ts$': [
      '@swc/jest',
      { jsc: { target: 'es2024', parser: { syntax: 'typescript' } }, module: { type: 'es6' } },
    ],
  },
};

/** Against real servers. */
const onStack = {
  ...common,
  globalSetup: '<rootDir>/test/stack/global-setup.ts',
  globalTeardown: '<rootDir>/test/stack/global-teardown.ts',
  setupFiles: ['<rootDir>/test/stack/setup-worker.ts'],
};

export default {
  maxWorkers: Number(process.env.TEST_WORKERS ?? workers),
  testSequencer: '<rootDir>/test/run/sequencer.mjs',
  reporters: ['default', '<rootDir>/test/run/slowest.ts'],
  // each wait has a limit of its own, and says what it waited for: this one is only for what hangs
  testTimeout: 600_000,
  projects: [
    { ...common, displayName: 'unit', testMatch: ['<rootDir>/src/**/*.test.ts', '<rootDir>/test/unit/**/*.test.ts'] },
    {
      ...onStack,
      displayName: 'real',
      testMatch: ['<rootDir>/test/integration/**/*.test.ts', '<rootDir>/test/e2e/**/*.test.ts'],
    },
    {
      ...onStack,
      displayName: 'mesh',
      testMatch: ['<rootDir>/test/mesh/**/*.test.ts'],
      // an API server in a container reaches neither the webhook nor the node
      globals: { stackMode: 'processes' },
    },
  ],
};
