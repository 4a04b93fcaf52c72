/**
 * About how many seconds the longest test files take, with servers built, on two cores with others beside them. `inOrder` makes the
 * order of a run from it. A file that is not listed counts as a short one of its folder. The reporter prints the ten longest of each run.
 */
import { createHash } from 'node:crypto';
import { relative } from 'node:path';

const top = `${import.meta.dirname}/../..`;

/** Files that keep a core busy: their own code, the operator's, or a server's. */
const busy: Readonly<Record<string, number>> = {
  'test/e2e/faults-loop.test.ts': 125,
  'test/e2e/faults-issue-openbao.test.ts': 85,
  'test/mesh/intermediate.test.ts': 60,
  'test/unit/rotation.test.ts': 50,
  'test/e2e/faults-issue-vault.test.ts': 50,
  'test/e2e/adoption.test.ts': 45,
  'test/unit/foreign-text.test.ts': 40,
  'test/e2e/faults-leave-openbao.test.ts': 40,
  'test/e2e/plan-command.test.ts': 35,
  'test/e2e/faults-leave-vault.test.ts': 35,
  'test/e2e/faults-sources.test.ts': 35,
  'test/integration/gitops-health.test.ts': 30,
  'test/unit/lifecycle.test.ts': 20,
  'test/integration/overlays.test.ts': 20,
  'src/vault/client.test.ts': 6,
};

/** Files that mostly wait: for a timeout, a retry, a start, a failure to show. */
const waiting: Readonly<Record<string, number>> = {
  'test/e2e/outages-vault.test.ts': 180,
  'test/mesh/failures-older.test.ts': 105,
  'test/e2e/outages-raft-vault.test.ts': 85,
  'test/e2e/outages-raft-openbao.test.ts': 80,
  'test/e2e/order.test.ts': 80,
  'test/e2e/bad-input.test.ts': 75,
  'test/mesh/failures-start.test.ts': 75,
  'test/e2e/outages-kubernetes.test.ts': 70,
  'test/mesh/proof.test.ts': 60,
  'test/e2e/deletion.test.ts': 55,
  'test/e2e/istiod.test.ts': 55,
  'test/integration/rights.test.ts': 55,
  'test/mesh/failures-running.test.ts': 55,
  'test/e2e/hostile-vaults.test.ts': 50,
  'test/e2e/contest.test.ts': 45,
  'test/mesh/mesh-roots.test.ts': 45,
  'test/e2e/containers.test.ts': 40,
  'test/e2e/least-rights.test.ts': 40,
  'test/e2e/control-planes.test.ts': 35,
  'test/e2e/drift.test.ts': 35,
  'test/e2e/two-operators.test.ts': 35,
  'test/e2e/external-cert-manager.test.ts': 30,
  'test/mesh/node.test.ts': 30,
  'test/e2e/idempotence.test.ts': 20,
  'test/e2e/main.test.ts': 20,
  'test/integration/builds.test.ts': 20,
  'test/integration/deploy.test.ts': 20,
};

const name = (path: string): string => relative(top, path).replaceAll('\\', '/');

const seconds = (file: string): number =>
  busy[file] ?? waiting[file] ?? (/^test\/(e2e|integration|mesh)\//.test(file) ? 15 : 1);

/** A random order of test files that is the same for the same seed. @param paths absolute */
export const shuffled = (paths: readonly string[], seed: string): string[] => {
  const key = (path: string) =>
    createHash('sha256')
      .update(`${seed} ${name(path)}`)
      .digest('hex');
  return paths.toSorted((a, b) => (key(a) < key(b) ? -1 : 1));
};

/**
 * The order in which test files start. Of each kind the longest start first, so that no long file runs alone at the end; the two kinds
 * are mixed so that both last until the end. Otherwise busy files would share the cores at first, which slows each of them down, and
 * files that wait would leave the cores idle later.
 * @param paths absolute
 */
export function inOrder(paths: readonly string[]): string[] {
  const sorted = paths.toSorted((a, b) => seconds(name(b)) - seconds(name(a)) || (a < b ? -1 : 1));
  const kinds = [
    sorted.filter((path) => !(name(path) in waiting)),
    sorted.filter((path) => name(path) in waiting),
  ].filter(({ length }) => length > 0);
  /** Each file, with the share of its kind's time that lies before its middle. */
  const placed = kinds.flatMap((kind) => {
    const total = kind.reduce((sum, path) => sum + seconds(name(path)), 0);
    let before = 0;
    return kind.map((path) => {
      const own = seconds(name(path));
      before += own;
      return { path, share: (before - own / 2) / total };
    });
  });
  return placed.sort((a, b) => a.share - b.share).map(({ path }) => path);
}
