/**
 * About how many seconds the longest test files take, with servers built, beside others on two cores. The sequencer starts the
 * longest files first, so that no long file runs alone at the end. A file that is not listed counts as a short one of its folder.
 * Reading: the reporter prints the ten longest files of each run.
 */
import { relative } from 'node:path';

const top = `${import.meta.dirname}/../..`;

const seconds: Readonly<Record<string, number>> = {
  'test/e2e/faults-openbao.test.ts': 400,
  'test/e2e/faults-vault.test.ts': 400,
  'test/e2e/faults-loop.test.ts': 300,
  'test/e2e/outages-vault.test.ts': 268,
  'test/mesh/failures-running.test.ts': 217,
  'test/mesh/intermediate.test.ts': 216,
  'test/e2e/plan-command.test.ts': 195,
  'test/integration/gitops-health.test.ts': 194,
  'test/mesh/failures-older.test.ts': 173,
  'test/e2e/adoption.test.ts': 173,
  'test/e2e/control-planes.test.ts': 160,
  'test/mesh/failures-start.test.ts': 159,
  'test/mesh/proof.test.ts': 156,
  'test/e2e/two-operators.test.ts': 147,
  'test/e2e/containers.test.ts': 143,
  'test/e2e/outages-kubernetes.test.ts': 142,
  'test/mesh/node.test.ts': 115,
  'test/e2e/bad-input.test.ts': 115,
  'test/e2e/outages-raft-openbao.test.ts': 113,
  'test/e2e/outages-raft-vault.test.ts': 113,
  'test/e2e/deletion.test.ts': 104,
  'test/e2e/order.test.ts': 103,
  'test/integration/deploy.test.ts': 102,
  'test/e2e/contest.test.ts': 101,
  'test/e2e/gitops.test.ts': 93,
  'test/unit/rotation.test.ts': 87,
  'test/e2e/drift.test.ts': 74,
  'test/integration/overlays.test.ts': 71,
};

const shortFile = (file: string): number => {
  if (file.startsWith('test/mesh/')) return 90;
  return /^test\/(e2e|integration)\//.test(file) ? 25 : 1;
};

/** The expected seconds of a test file. @param path absolute */
export const expectedSeconds = (path: string): number => {
  const file = relative(top, path).replaceAll('\\', '/');
  return seconds[file] ?? shortFile(file);
};
