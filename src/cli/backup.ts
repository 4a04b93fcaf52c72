/**
 * `backup`: writes the CA of a resource, with its key, to one file that is encrypted with age. It logs in to Vault as the operator would for the
 * resource, and only reads.
 */
import { rfc3339 } from '../api/time.ts';
import { parseBackupConfig } from '../config.ts';
import { systemClock } from '../runtime/clock.ts';
import { BackupError, describeCa, readCa } from '../vault/backup.ts';
import { encrypt, encrypterFor, writeWhole } from './backup-file.ts';
import { inVault } from './in-vault.ts';

/** Writes to standard output, and waits until all of it is written. */
const print = (bytes: Uint8Array): Promise<void> =>
  new Promise((resolve, reject) => {
    process.stdout.write(bytes, (error) => (error ? reject(error) : resolve()));
  });

/** Runs the command. @returns the exit code @throws BackupError, ManifestError, ConfigError, KubeError */
export async function backup(argv: readonly string[]): Promise<number> {
  const config = parseBackupConfig(argv, process.env);
  if (config.output === undefined && process.stdout.isTTY)
    throw new BackupError('standard output is a terminal; write --output=FILE, or redirect the output');
  const encrypter = encrypterFor(config.recipients);
  await inVault(config, async (client, desired) => {
    const { facts, ...stored } = await readCa(client, desired);
    const { cluster, namespace, name } = desired.identity;
    const owner = { cluster, namespace, name };
    const madeAt = rfc3339(systemClock.now());
    const bytes = await encrypt(encrypter, { ...stored, madeAt, owner, rootSource: desired.spec.root.source });
    if (config.output === undefined) await print(bytes);
    else await writeWhole(config.output, bytes);
    process.stderr.write(
      `Backed up IstioVaultCA ${namespace}/${name}, ${describeCa(facts)}.\nEncrypted for ${config.recipients.length === 1 ? '1 recipient' : `${config.recipients.length} recipients`}. Whoever holds the private key and the file can issue any identity of the mesh: see docs/disaster-recovery.md.\n`,
    );
  });
  return 0;
}
