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
import { rotateLists, writeListSettings } from './pki-lists.ts';
import { withField } from './refused-mount.ts';

type ClusterStep = Extract<
  Step,
  { kind: `${string}ControlPlane` | `${string}Render` | 'PublishCSR' | 'RemoveCSR' | 'RequestSignature' }
>;
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

/** One row a kind of step. */
type Executors = { [K in VaultStep['kind']]: (ctx: issuing.ExecuteContext, step: issuing.StepOf<K>) => Promise<void> };

const executors: Executors = {
  EnableAudit: ({ client }, step) => enableAudit(client, step.path, step.type, step.options),
  MountKV: ({ client }, step) => mountKv(client, step.mount, step.version, step.description),
  WriteState: ({ client, desired }, step) =>
    writeKv(client, kvPlace(desired, '-state'), stateData(desired.mark, step.state), step.cas),
  MountPKI: ({ client }, step) => mountPki(client, step.mount, step.maxLeaseTtl, step.description),
  TuneMount: ({ client }, step) => tuneMount(client, step.mount, step.maxLeaseTtl, step.description),
  EnableAuth: ({ client }, step) => enableKubernetesAuth(client, step.mount, step.description),
  WriteAuthConfig: async (ctx, step) =>
    await writeAuthConfig(ctx.client, step.mount, step.config, await ctx.reviewerJwt()),
  WritePolicy: ({ client }, step) => writePolicy(client, step.name, step.text),
  WriteRole: ({ client }, step) => writeRole(client, step.mount, step.role, step.fields, step.resets),
  GenerateRoot: ({ client }, step) => pki.generateRoot(client, step.mount, step.name, step.spec, step.existingKey),
  StageKey: issuing.stageKey,
  RemoveStaging: issuing.removeStaging,
  ImportKey: async (ctx, step) =>
    await pki.importKey(ctx.client, step.mount, step.name, await issuing.storedKey(ctx, step.from, step.generation)),
  SignIntermediate: issuing.signIntermediate,
  ImportCA: issuing.importCa,
  RecordCSR: issuing.recordCsr,
  InstallSigned: issuing.installSigned,
  InstallCertificate: issuing.installCertificate,
  PublishLive: issuing.publishLive,
  SetDefaultIssuer: ({ client }, step) => pki.setDefaultIssuer(client, step.mount, step.issuerId),
  ConfigureCRL: ({ client }, step) => writeListSettings(client, step.mount, step.settings),
  RotateCRL: ({ client }, step) => rotateLists(client, step.mount),
  RestoreUsage: ({ client }, step) => pki.addIssuingUsage(client, step.mount, step.issuerId, step.usages),
  DestroyVersions: ({ client, desired }, step) => destroyVersions(client, kvPlace(desired, ''), step.versions),
  LimitVersions: ({ client, desired }, step) => writeMaxVersions(client, kvPlace(desired, ''), step.versions),
  Collect: issuing.collect,
  DeleteRole: ({ client }, step) => deleteRole(client, step.mount, step.role),
  DeletePolicy: ({ client }, step) => deletePolicy(client, step.name),
  DeleteEntry: deleteEntry,
  Unmount: ({ client }, step) => unmount(client, step.mount),
  DisableAuth: ({ client }, step) => disableAuth(client, step.mount),
};

/**
 * Carries out one step.
 * @throws VaultError, ProblemError
 */
export async function executeVaultStep(ctx: issuing.ExecuteContext, step: VaultStep): Promise<void> {
  // the type checker does not see that an executor belongs to the kind it stands under
  const execute = executors[step.kind] as (ctx: issuing.ExecuteContext, step: VaultStep) => Promise<void>;
  try {
    await execute(ctx, step);
  } catch (error) {
    throw withField(error, ctx.desired.spec);
  }
}
