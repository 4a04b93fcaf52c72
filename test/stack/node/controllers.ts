/** The real kube-controller-manager, with the controllers that turn a Deployment into pods and clean up after it. */
import { join } from 'node:path';
import { makeServingCertificate } from '../certificates.ts';
import { call } from '../http.ts';
import { freePort, retryTakenPorts } from '../ports.ts';
import { startProcess, type ManagedProcess } from '../processes.ts';
import { ensureServer } from '../servers.ts';
import type { KubeServer } from '../types.ts';
import { waitFor } from '../wait.ts';

const controllers = ['deployment', 'replicaset', 'garbage-collector', 'namespace', 'resourcequota', 'serviceaccount'];

/** @param dir for its files */
export async function startControllerManager(
  kube: Pick<KubeServer, 'adminKubeconfig'>,
  dir: string,
): Promise<ManagedProcess> {
  const { binary } = await ensureServer('kube-controller-manager');
  const serving = await makeServingCertificate(dir, ['127.0.0.1']);
  return await retryTakenPorts(async () => {
    const port = await freePort();
    const manager = startProcess({
      name: 'kube-controller-manager',
      command: binary,
      args: [
        `--kubeconfig=${kube.adminKubeconfig}`,
        `--controllers=${controllers.map((name) => `${name}-controller`).join(',')}`,
        '--leader-elect=false',
        '--bind-address=127.0.0.1',
        `--secure-port=${port}`,
        `--tls-cert-file=${serving.certFile}`,
        `--tls-private-key-file=${serving.keyFile}`,
      ],
      env: { HOME: dir },
      cwd: dir,
      logPath: join(dir, 'kube-controller-manager.log'),
    });
    const healthy = async (): Promise<boolean> =>
      (await call(`https://127.0.0.1:${port}/healthz`, { ca: serving.caPem })).status === 200;
    await waitFor('kube-controller-manager to be healthy', healthy, { process: manager });
    return manager;
  });
}
