/**
 * `restore`: puts a backup into a Vault that has lost the CA: the KV mount if it is absent, the CA entry and the state entry. It logs in to Vault as the
 * operator would for the resource, and overwrites nothing.
 */
import { annotations } from '../api/annotations.ts';
import { rfc3339 } from '../api/time.ts';
import { parseRestoreConfig, type RestoreConfig } from '../config.ts';
import type { Desired } from '../plan/facts/desired.ts';
import { systemClock } from '../runtime/clock.ts';
import { BackupError, describeCa, restoreCa } from '../vault/backup.ts';
import { readBackup, type Backup } from './backup-file.ts';
import { inVault } from './in-vault.ts';

/** Refuses a backup that is not of this resource. @throws BackupError */
function refuseOther({ owner, rootSource, facts }: Backup, desired: Desired, config: RestoreConfig): void {
  const { identity, spec } = desired;
  const file = config.backup;
  if (owner.namespace !== identity.namespace || owner.name !== identity.name)
    throw new BackupError(
      `${file}: is of IstioVaultCA ${owner.namespace}/${owner.name}, and the manifest is of ${identity.namespace}/${identity.name}. Nothing was written; take the manifest that belongs to the backup`,
    );
  if (owner.cluster !== identity.cluster && owner.cluster !== config.fromCluster)
    throw new BackupError(
      `${file}: is of a resource of this name in cluster ${owner.cluster}, and this is cluster ${identity.cluster}. Nothing was written. If that cluster is gone for good and this one replaces it, add --from-cluster=${owner.cluster}`,
    );
  if (rootSource !== spec.root.source)
    throw new BackupError(
      `${file}: was made with spec.root.source: ${rootSource}, and the manifest has ${spec.root.source}. Nothing was written; correct the manifest`,
    );
  const { serial } = facts.root;
  if (desired.annotations[annotations.allowReissue]?.toLowerCase() === serial)
    throw new BackupError(
      `annotation ${annotations.allowReissue} of the resource gives up root ${serial}, which the backup is under: the operator would replace it at once. Nothing was written; remove the annotation`,
    );
}

/** What follows from the restore, for the user. */
function whatFollows({ facts }: Backup, { spec }: Desired): string {
  const end = rfc3339(facts.entry.certificate.notAfter);
  if (facts.entry.certificate.notAfter <= systemClock.now())
    return `The intermediate ended on ${end}: no workload can verify it any more. See docs/disaster-recovery.md, "The root is lost".`;
  if (spec.root.source !== 'Generate' || facts.state.root?.certificate !== undefined)
    return 'The operator sets up the rest when it reconciles.';
  return `The operator sets up the rest when it reconciles, and istiod signs on until ${end}. The key of the root is in no backup: unless the root mount ${spec.root.mount}/ still exists, RootReady is RootLost, and a new root is needed before that date: annotation ${annotations.rotateRoot}, see docs/disaster-recovery.md.`;
}

/** Runs the command. @returns the exit code @throws BackupError, ManifestError, ConfigError, KubeError */
export async function restore(argv: readonly string[]): Promise<number> {
  const config = parseRestoreConfig(argv, process.env);
  const content = await readBackup(config.backup, config.identity);
  await inVault(config, async (client, desired) => {
    refuseOther(content, desired, config);
    const sameCluster = content.owner.cluster === desired.identity.cluster;
    const done = await restoreCa(client, desired, content, sameCluster);
    const { mount, path } = desired.spec.keyStore;
    const lines = [
      `Mount ${mount}/: ${done.mount}. KV entry ${mount}/${path}: ${done.ca}. KV entry ${mount}/${path}-state: ${done.state}.`,
      `Restored from ${content.madeAt}, ${describeCa(content.facts)}.`,
      whatFollows(content, desired),
    ];
    process.stdout.write(`${lines.join('\n')}\n`);
  });
  return 0;
}
