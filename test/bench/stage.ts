/** The servers and the operator of a scenario: real processes on loopback, with nothing else in them. */
import { ensureServers, startKube, startVault } from '../stack/index.ts';
import { Board } from '../support/board.ts';
import type { Cleanup } from '../support/cleanup.ts';
import { installOperator, registerInjector, type Kube } from '../support/cluster.ts';
import { startOperator, type RunningOperator } from '../support/operator.ts';
import { prepareVault, type Vault } from '../support/scene.ts';
import type { RunOptions } from './scenario.ts';

export interface Stage {
  readonly kube: Kube;
  /** An OpenBao with Kubernetes auth enabled. */
  readonly vault: Vault;
  readonly operator: RunningOperator;
  /** All IstioVaultCAs, by a watch: what waits for a condition learns of it at once. */
  readonly board: Board;
}

/**
 * The heap that Node gives itself in the container of the Deployment, whose memory limit is 512Mi: half of it, and semi-spaces of 1 MiB.
 * On a machine with much memory, Node collects garbage so late that the memory of the process says nothing about the operator.
 */
const heapOfContainer = ['--max-old-space-size=256', '--max-semi-space-size=1'];

/**
 * Starts an API server, OpenBao and the operator, and registers them for the end. The servers write no audit log and rarely collect
 * garbage, so that they disturb the measurement less. The operator has its default flags, metrics included, besides its addresses, and the
 * heap that it has in the container of the Deployment.
 * @throws Error if one of them does not start
 */
export async function startStage({ cleanup, progress }: Pick<RunOptions, 'cleanup' | 'progress'>): Promise<Stage> {
  await ensureServers(['etcd', 'kube-apiserver', 'openbao'], { onProgress: progress });
  progress('starting etcd, kube-apiserver and OpenBao');
  const [kube, vault] = await Promise.all([startKube({ lean: true }), startVault('OpenBao', { lean: true })]);
  cleanup.add(kube);
  cleanup.add(vault);
  const kubeconfig = await installOperator(kube);
  await registerInjector(kube);
  await prepareVault(kube, vault);
  progress('bundling and starting the operator');
  const operator = cleanup.add(await startOperator(kubeconfig, ['--log-level=info'], { nodeFlags: heapOfContainer }));
  return { kube, vault, operator, board: await startBoard(kube, cleanup) };
}

async function startBoard(kube: Kube, cleanup: Cleanup): Promise<Board> {
  const board = new Board(kube);
  cleanup.add({
    stop: () => {
      board.stop();
      return Promise.resolve();
    },
  });
  await board.start();
  return board;
}
