/**
 * About how many seconds the longest test files take, with servers built, beside others on two cores. The sequencer starts the
 * longest files first, so that no long file runs alone at the end. A file that is not listed counts as a short one of its folder.
 * Reading: the reporter prints the ten longest files of each run.
 */
import { relative } from 'node:path';

const top = `${import.meta.dirname}/../..`;

const seconds: Readonly<Record<string, number>> = {
  'test/e2e/faults-issue-openbao.test.ts': 200,
  'test/e2e/faults-issue-vault.test.ts': 200,
  'test/e2e/faults-loop.test.ts': 180,
  'test/e2e/outages-vault.test.ts': 157,
  'test/e2e/faults-leave-openbao.test.ts': 110,
  'test/e2e/faults-leave-vault.test.ts': 110,
  'test/e2e/outages-kubernetes.test.ts': 105,
  'test/mesh/intermediate.test.ts': 100,
  'test/e2e/plan-command.test.ts': 100,
  'test/mesh/failures-older.test.ts': 100,
  'test/integration/gitops-health.test.ts': 95,
  'test/mesh/failures-start.test.ts': 95,
  'test/mesh/proof.test.ts': 90,
  'test/e2e/two-operators.test.ts': 90,
  'test/mesh/failures-running.test.ts': 85,
  'test/e2e/outages-raft-openbao.test.ts': 85,
  'test/e2e/outages-raft-vault.test.ts': 85,
  'test/e2e/order.test.ts': 80,
  'test/e2e/adoption.test.ts': 75,
  'test/e2e/bad-input.test.ts': 70,
  'test/e2e/control-planes.test.ts': 65,
  'test/unit/rotation.test.ts': 60,
  'test/e2e/istiod.test.ts': 55,
  'test/e2e/contest.test.ts': 52,
  'test/e2e/containers.test.ts': 50,
  'test/e2e/deletion.test.ts': 45,
  'test/mesh/node.test.ts': 40,
  'test/e2e/drift.test.ts': 30,
  'test/integration/overlays.test.ts': 30,
  'test/unit/lifecycle.test.ts': 15,
};

const shortFile = (file: string): number => {
  if (file.startsWith('test/mesh/')) return 60;
  return /^test\/(e2e|integration)\//.test(file) ? 20 : 1;
};

/** The expected seconds of a test file. @param path absolute */
export const expectedSeconds = (path: string): number => {
  const file = relative(top, path).replaceAll('\\', '/');
  return seconds[file] ?? shortFile(file);
};
