/** Jest's global setup of the project "real": starts the stack that all its test files share. */
import { ensureServers, startStack } from './index.ts';
import { factsVariable, share } from './shared.ts';

export interface SharedStackHandle {
  stop(): Promise<void>;
}

/** Where setup leaves the handle for teardown: Jest gives them the same global object and nothing else. */
export const handleKey: unique symbol = Symbol.for('istio-vault-ca.test-stack');

export default async function setUp(): Promise<void> {
  const stack = await startStack();
  try {
    // Now, as a test's time limit is shorter than its first build.
    await ensureServers(['istiod']);
  } catch (error) {
    await stack.stop();
    throw error;
  }
  const { path, close } = await share(stack);
  process.env[factsVariable] = path;
  const handle: SharedStackHandle = {
    stop: async () => {
      await close();
      await stack.stop();
    },
  };
  (globalThis as Record<symbol, unknown>)[handleKey] = handle;
}
