/** Jest's global setup of the projects "real" and "mesh": starts the stack that all test files of a project share. */
import { join } from 'node:path';
import { checkRecorded, recordStates, statesFile } from './gitops-health.ts';
import { ensureServers, startStack } from './index.ts';
import { factsVariable, share } from './shared.ts';

export interface SharedStackHandle {
  stop(): Promise<void>;
}

/** Where setup leaves the handle for teardown: Jest gives them the same global object and nothing else. */
export const handleKey: unique symbol = Symbol.for('istio-vault-ca.test-stack');

/** What Jest hands over of a project. */
interface Project {
  readonly displayName?: { readonly name: string };
}

export default async function setUp(_: unknown, project: Project): Promise<void> {
  const stack = await startStack();
  try {
    // Now, as a test's time limit is shorter than its first build.
    const pods = project.displayName?.name === 'mesh';
    const more = pods ? (['kube-controller-manager'] as const) : (['kubectl', 'istio-overlay'] as const);
    await ensureServers(['istiod', 'gitops-health', 'helm', ...more]);
  } catch (error) {
    await stack.stop();
    throw error;
  }
  const { path, close } = await share(stack);
  process.env[factsVariable] = path;
  const states = join(stack.dir, statesFile);
  const recording = recordStates(stack.kube, states);
  const handle: SharedStackHandle = {
    stop: async () => {
      await recording.stop();
      try {
        console.error(`health for GitOps tools: as promised in ${await checkRecorded(states)} states`);
      } finally {
        await close();
        await stack.stop();
      }
    },
  };
  (globalThis as Record<symbol, unknown>)[handleKey] = handle;
}
