/** Carries out the steps that concern Vault. Nothing is decided here; what must not be trusted is read again. */
import { isOwnMarker } from '../plan/facts/identity.ts';
import type { Step } from '../plan/steps.ts';
import { deletePolicy, deleteRole, writeAuthConfig, writePolicy, writeRole } from './access.ts';
import { parseLive, stateData } from './entries.ts';
import * as issuing from './issuing.ts';
import { deleteKv, destroyAfter, destroyVersions, readKv, writeKv, writeMaxVersions } from './kv.ts';
import { disableAuth, enableAudit, enableKubernetesAuth, mountKv, mountPki, tuneMount, unmount } from './mounts.ts';
import { kvPlace } from './observe.ts';
import * as pki from './pki.ts';

type ClusterStep = Extract<Step, { kind: `${string}ControlPlane` | `${string}Render` }>;
export type VaultStep = Exclude<Step, ClusterStep>;

const suffixOf = { live: '', staging: '-staging', state: '-state' } as const;

/** Deletes an entry that is still ours, or the empty shell of a staged one. */
async function deleteEntry(
  { client, desired }: issuing.ExecuteContext,
  step: issuing.StepOf<'DeleteEntry'>,
): Promise<void> {
  const place = kvPlace(desired, suffixOf[step.entry]);
  const entry = await readKv(client, place);
  const { mark } = parseLive(desired.identity, entry);
  const shell = step.entry === 'staging' && entry.data === undefined;
  if (!shell && !isOwnMarker(desired.identity, mark)) throw issuing.moved(`the ${step.entry} entry`);
  if (step.after === undefined) await deleteKv(client, place);
  else await destroyAfter(client, place, step.after, entry.casVersion);
}

/**
 * Carries out one step.
 * @throws VaultError, ProblemError
 */
export async function executeVaultStep(ctx: issuing.ExecuteContext, step: VaultStep): Promise<void> {
  const { client, desired } = ctx;
  switch (step.kind) {
    case 'EnableAudit': {
      await enableAudit(client, step.path, step.type, step.options);
      return;
    }
    case 'MountKV': {
      await mountKv(client, step.mount, step.version, step.description);
      return;
    }
    case 'WriteState': {
      await writeKv(client, kvPlace(desired, '-state'), stateData(desired.mark, step.state), step.cas);
      return;
    }
    case 'MountPKI': {
      await mountPki(client, step.mount, step.maxLeaseTtl, step.description);
      return;
    }
    case 'TuneMount': {
      await tuneMount(client, step.mount, step.maxLeaseTtl, step.description);
      return;
    }
    case 'EnableAuth': {
      await enableKubernetesAuth(client, step.mount, step.description);
      return;
    }
    case 'WriteAuthConfig': {
      await writeAuthConfig(client, step.mount, step.config, await ctx.reviewerJwt());
      return;
    }
    case 'WritePolicy': {
      await writePolicy(client, step.name, step.text);
      return;
    }
    case 'WriteRole': {
      await writeRole(client, step.mount, step.role, step.fields);
      return;
    }
    case 'GenerateRoot': {
      await pki.generateRoot(client, step.mount, step.name, step.spec, step.existingKey);
      return;
    }
    case 'StageKey': {
      await issuing.stageKey(ctx, step);
      return;
    }
    case 'RemoveStaging': {
      await issuing.removeStaging(ctx, step);
      return;
    }
    case 'ImportKey': {
      await pki.importKey(client, step.mount, step.name, await issuing.storedKey(ctx, step.from, step.generation));
      return;
    }
    case 'SignIntermediate': {
      await issuing.signIntermediate(ctx, step);
      return;
    }
    case 'InstallCertificate': {
      await issuing.installCertificate(ctx, step);
      return;
    }
    case 'PublishLive': {
      await issuing.publishLive(ctx, step);
      return;
    }
    case 'SetDefaultIssuer': {
      await pki.setDefaultIssuer(client, step.mount, step.issuerId);
      return;
    }
    case 'DestroyVersions': {
      await destroyVersions(client, kvPlace(desired, ''), step.versions);
      return;
    }
    case 'LimitVersions': {
      await writeMaxVersions(client, kvPlace(desired, ''), step.versions);
      return;
    }
    case 'Collect': {
      await issuing.collect(ctx, step);
      return;
    }
    case 'DeleteRole': {
      await deleteRole(client, step.mount, step.role);
      return;
    }
    case 'DeletePolicy': {
      await deletePolicy(client, step.name);
      return;
    }
    case 'DeleteEntry': {
      await deleteEntry(ctx, step);
      return;
    }
    case 'Unmount': {
      await unmount(client, step.mount);
      return;
    }
    case 'DisableAuth': {
      await disableAuth(client, step.mount);
      return;
    }
  }
}
