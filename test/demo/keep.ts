/** With `--keep`: how to reach what runs, and some commands to try. */
import { execFile } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { promisify } from 'node:util';
import { makeTemporaryDir } from '../stack/index.ts';
import type { RunningOperator } from '../support/operator.ts';
import { namespace, resourceName } from './names.ts';
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

/** Commands of `kubectl` where it is installed, and of the server's own program wherever that is. */
async function commands({ vault }: Servers): Promise<string[]> {
  const name = basename(vault.agentBinary);
  const cli = (await installed(name)) ? name : vault.agentBinary;
  const kubectl = [
    `kubectl describe ivca -n ${namespace} ${resourceName}`,
    `kubectl get ivca -n ${namespace} ${resourceName} -o yaml`,
    `kubectl get controlplane -n ${namespace} controlplane -o yaml`,
    `kubectl annotate ivca -n ${namespace} ${resourceName} istiovaultca.io/reconcile-requested-at=now --overwrite`,
  ];
  return [
    ...((await installed('kubectl')) ? kubectl : []),
    `${cli} read pki/cert/ca`,
    `${cli} kv get -field=cert-chain.pem kv/istioca`,
    `${cli} policy delete istioca     # the operator brings it back when it looks again`,
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
  };
  for (const [name, value] of Object.entries(variables)) print(`export ${name}=${value}`);
  heading('To try');
  for (const command of await commands(servers)) print(`  ${paint('cyan', command)}`);
  heading('To look at');
  print(`  operator's log     ${operator.logPath}`);
  print(`  rendered files     ${rendered.dir}`);
  print(`  Vault's audit log  ${vault.auditLog}`);
}
