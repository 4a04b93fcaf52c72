/** With `--keep`: prints the addresses of the running servers, and commands to try. */
import { execFile } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { makeTemporaryDir } from '../stack/index.ts';
import type { RunningOperator } from '../support/operator.ts';
import { controlPlaneName, namespace, resourceName } from './names.ts';
import type { Servers } from './servers.ts';
import type { Rendered } from './show-files.ts';
import { heading, note, paint, print, title } from './terminal.ts';

async function installed(program: string): Promise<boolean> {
  try {
    await promisify(execFile)('/bin/sh', ['-c', 'command -v "$1"', 'sh', program]);
    return true;
  } catch {
    return false;
  }
}

/** Commands of `kubectl` where it is installed, and of the server's own program, which is in PATH by then. */
async function commands({ vault }: Servers): Promise<string[]> {
  const resource = `-n ${namespace} ${resourceName}`;
  const cli = basename(vault.agentBinary);
  const drift = `${cli} policy delete istioca`;
  if (!(await installed('kubectl'))) return [`${cli} read pki/cert/ca`, drift];
  return [
    `kubectl describe ivca ${resource}`,
    `kubectl get ivca ${resource} -o yaml`,
    `kubectl get controlplane -n ${namespace} ${controlPlaneName} -o yaml`,
    `${cli} read pki/cert/ca`,
    `${drift}   # drift; the next command has the operator look at once`,
    `kubectl annotate ivca ${resource} --overwrite istiovaultca.io/reconcile-requested-at=$(date +%s)`,
  ];
}

export async function showAccess(servers: Servers, operator: RunningOperator, rendered: Rendered): Promise<void> {
  const { kube, vault } = servers;
  const caFile = join(makeTemporaryDir('vault-ca'), 'ca.pem');
  await writeFile(caFile, vault.caPem ?? '');
  title('Everything runs until Ctrl-C');
  note('For another terminal; the token is the root token of this run, and is gone with it:');
  print();
  const variables = {
    KUBECONFIG: kube.adminKubeconfig,
    VAULT_ADDR: vault.address,
    VAULT_CACERT: caFile,
    VAULT_TOKEN: vault.rootToken,
    ...((await installed(basename(vault.agentBinary))) ? {} : { PATH: `${dirname(vault.agentBinary)}:$PATH` }),
  };
  for (const [name, value] of Object.entries(variables)) print(`export ${name}=${value}`);
  heading('To try');
  for (const command of await commands(servers)) print(`  ${paint('cyan', command)}`);
  heading('To look at');
  print(`  operator's log     ${operator.logPath}`);
  print(`  rendered files     ${rendered.dir}`);
  print(`  audit log          ${vault.auditLog}`);
}
