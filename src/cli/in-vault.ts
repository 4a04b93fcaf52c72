/** The login of `backup` and `restore`: that of the operator for the resource, as in `plan`. */
import { sessionRequest, loginProblem } from '../controller/connection.ts';
import { refusals } from '../controller/dry-run.ts';
import { clusterUid } from '../controller/observe-kubernetes.ts';
import { asProblem } from '../controller/problems.ts';
import type { TargetConfig } from '../config.ts';
import { createLogger } from '../observability/logger.ts';
import { desire, type Desired } from '../plan/facts/desired.ts';
import type { Problem } from '../plan/facts/problem.ts';
import { BackupError } from '../vault/backup.ts';
import type { VaultClient } from '../vault/client.ts';
import { readTarget, withSessions } from './target.ts';

const errorOf = ({ reason, message }: Problem): BackupError => new BackupError(`${reason}: ${message}`);

/**
 * Logs in to Vault as the operator would for the resource of the manifest, and revokes the token at the end.
 * @param run its failures of servers become a `BackupError` with the reason and the remedy of the operator's conditions
 * @throws BackupError, ManifestError, ConfigError, KubeError
 */
export async function inVault(
  config: TargetConfig,
  run: (client: VaultClient, desired: Desired) => Promise<void>,
): Promise<void> {
  const { kube, resource, policy } = await readTarget(config);
  const { namespace, name, uid, annotations } = resource.metadata;
  const identity = { cluster: await clusterUid(kube), namespace, name, uid };
  const desired = desire(identity, resource.spec, annotations);
  const [refused] = refusals(resource, desired, policy);
  if (refused) throw errorOf(refused);
  const logger = createLogger({ level: config.logLevel, destination: process.stderr });
  await withSessions(config, logger, async (sessions, stop) => {
    try {
      const request = await sessionRequest(kube, resource, () => undefined);
      const client = await sessions.open(request, stop).catch((error: unknown) => {
        throw loginProblem(error, resource) ?? error;
      });
      await run(client, desired);
    } catch (error) {
      if (error instanceof BackupError) throw error;
      throw errorOf(asProblem(error, 'KeyStored'));
    }
  });
}
