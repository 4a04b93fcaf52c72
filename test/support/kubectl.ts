/** The real kubectl with the rights of the stack's administrator. */
import { execFile } from 'node:child_process';
import { ensureServer } from '../stack/servers.ts';
import { makeTemporaryDir } from '../stack/processes.ts';
import type { Kube } from './cluster.ts';

let home: string | undefined;

/** Runs kubectl and returns its output. @throws with the output if the exit code is not 0 */
export async function kubectl(kube: Kube, ...args: string[]): Promise<string> {
  const { binary } = await ensureServer('kubectl');
  home ??= makeTemporaryDir('kubectl');
  const env = { HOME: home, KUBECONFIG: kube.adminKubeconfig };
  return await new Promise((resolve, reject) => {
    execFile(binary, args, { env }, (error, stdout, stderr) => {
      if (error) reject(new Error(`kubectl ${args.join(' ')}: ${stderr}`));
      else resolve(stdout);
    });
  });
}
