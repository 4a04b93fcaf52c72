/** The controllers of cert-manager that answer a CertificateRequest with a CA issuer (`modules/cert-manager`), and cert-manager's CRDs. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { loadAllYaml } from '../../src/runtime/yaml.ts';
import { makeTemporaryDir, removeTemporaryDir, startProcess } from './processes.ts';
import { certManagerModuleDir, ensureServer } from './servers.ts';
import type { KubeServer, RunningServer } from './types.ts';

/** The CRDs of cert-manager's own API group, from its Go module. */
export async function certManagerCrds(): Promise<Record<string, unknown>[]> {
  const folder = join(await certManagerModuleDir(), 'deploy', 'crds');
  return readdirSync(folder)
    .filter((file) => file.startsWith('cert-manager.io_'))
    .flatMap((file) => loadAllYaml(readFileSync(join(folder, file), 'utf8')) as Record<string, unknown>[]);
}

/** Starts the controllers with the rights of an administrator. Their CRDs must be served. Does not wait. */
export async function startCertManager(kube: Pick<KubeServer, 'adminKubeconfig'>): Promise<RunningServer> {
  const { binary } = await ensureServer('cert-manager');
  const dir = makeTemporaryDir('cert-manager');
  const logPath = join(dir, 'log');
  const child = startProcess({
    name: 'cert-manager',
    command: binary,
    args: [kube.adminKubeconfig],
    cwd: dir,
    logPath,
  });
  return {
    log: () => child.log(),
    stop: async () => {
      await child.stop();
      removeTemporaryDir(dir);
    },
  };
}
