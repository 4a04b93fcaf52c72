/**
 * Jest's global setup of the projects "real" and "mesh", once for both: makes sure of the servers that the chosen files need,
 * bundles the operator, and opens the pool out of which each worker gets a stack of servers.
 */
import { chosenFiles, serversNamedIn, type ChosenFile } from '../run/chosen.ts';
import { buildOperator, operatorVariable } from '../support/operator.ts';
import { chooseMode, ensureServers, stackServers } from './index.ts';
import { openPool, poolVariable, type Pool } from './pool.ts';
import { isServerName, type ServerName } from './servers.ts';
import type { StackMode } from './types.ts';

/** Where setup leaves the pool for teardown: Jest gives them the same global object and nothing else. */
export const poolKey: unique symbol = Symbol.for('istio-vault-ca.stack-pool');

/** What the files need beyond a stack; every state of a resource is checked by `gitops-health`. */
function moreServers(files: readonly ChosenFile[]): ServerName[] {
  const names = files.flatMap(({ path, project }) =>
    project === 'mesh' ? ['istiod', 'helm', 'kube-controller-manager'] : serversNamedIn(path),
  );
  const unknown = names.filter((name) => !isServerName(name));
  if (unknown.length > 0) throw new Error(`@servers: there is no ${unknown.join(', ')}`);
  return ['gitops-health', ...new Set(names.filter(isServerName))];
}

export default async function setUp(): Promise<void> {
  const files = chosenFiles().filter(({ project }) => project !== 'unit');
  const mode: StackMode = files.some(({ project }) => project === 'real') ? await chooseMode() : 'processes';
  const needsProcesses = mode === 'processes' || files.some(({ project }) => project === 'mesh');
  // Now, as a test's time limit is shorter than its first build.
  await ensureServers([...(needsProcesses ? stackServers : []), ...moreServers(files)]);
  process.env[operatorVariable] = await buildOperator();
  const pool: Pool = await openPool(mode);
  process.env[poolVariable] = pool.socketPath;
  (globalThis as Record<symbol, unknown>)[poolKey] = pool;
}
