/** The steps a plan is made of: plain data without secrets, each one idempotent or guarded by a check-and-set. */
import type { StageCondition } from '../api/conditions.ts';
import type { IntermediateSpec, RootSpec, StateEntry } from './facts/state-entry.ts';
import { parseMarker } from './facts/identity.ts';
import type { KubernetesAuthConfig, KubernetesRole } from './facts/observed.ts';
import type { Problem } from './facts/problem.ts';

export type Step =
  | { kind: 'ClaimControlPlane'; target: string }
  | { kind: 'EnableAudit'; path: string; type: string; options: Record<string, string> }
  | { kind: 'MountKV'; mount: string; version: 1 | 2; description: string }
  | {
      kind: 'WriteState';
      state: StateEntry;
      cas: number;
      reason: string;
      /** Reason of the Event where it is not `StateRecorded`. */
      event?: string;
    }
  | { kind: 'MountPKI'; mount: string; maxLeaseTtl: number; description: string }
  | { kind: 'TuneMount'; mount: string; maxLeaseTtl: number; description: string }
  | { kind: 'EnableAuth'; mount: string; description: string }
  | { kind: 'WriteAuthConfig'; mount: string; config: KubernetesAuthConfig }
  | { kind: 'WritePolicy'; name: string; text: string }
  | { kind: 'WriteRole'; mount: string; role: string; fields: KubernetesRole }
  | { kind: 'GenerateRoot'; mount: string; name: string; spec: RootSpec; existingKey: boolean }
  | { kind: 'LimitVersions'; versions: number }
  | { kind: 'DestroyVersions'; versions: number[] }
  | {
      kind: 'StageKey';
      generation: number;
      spec: IntermediateSpec;
      /** Name or id in the mount of the published key that is signed again; undefined makes a new key. */
      reuse: string | undefined;
      /** Ids of issuers that carry the reused key already: none of them answers this request. */
      before: string[];
      cas: number;
      reason: string;
      /** The text of `rotate-intermediate` that it answers. */
      request: string | undefined;
    }
  | {
      kind: 'RemoveStaging';
      generation: number;
      version: number;
      /** The mark of the gone resource that left it; undefined: it is ours. */
      left?: string;
    }
  | { kind: 'ImportKey'; mount: string; from: 'staging' | 'live'; generation: number; name: string }
  | {
      kind: 'SignIntermediate';
      generation: number;
      /** Id of the key in the mount. */
      keyId: string;
      spec: IntermediateSpec;
      rootIssuerId: string;
      /** Set when the root ends before the intermediate would: the end to ask for, RFC 3339. */
      notAfter: string | undefined;
    }
  | { kind: 'InstallCertificate'; mount: string; generation: number }
  | {
      kind: 'PublishLive';
      /** Where the key is: in staging, or in the live entry itself, be it ours or taken over. */
      from: 'staging' | 'live' | 'adopted';
      generation: number;
      issuerId: string;
      /** The roots that istiod hands out, PEM, in their order in root-cert.pem. */
      roots: readonly string[];
      /** Name or id of the key in the mount; empty: the generation's own name. */
      keyRef: string;
      mark: string;
      cas: number;
      /** Nothing of it changes: Vault would delete what stands there. */
      same?: boolean;
    }
  | { kind: 'SetDefaultIssuer'; mount: string; issuerId: string }
  | { kind: 'Collect'; mount: string; issuerIds: string[]; keyIds: string[]; what: string }
  | { kind: 'PatchControlPlane'; digest: string; target: string }
  | { kind: 'PublishRender'; name: string; again: boolean }
  | { kind: 'RemoveRender'; name: string }
  | { kind: 'ReleaseControlPlane'; target: string }
  | { kind: 'DeleteRole'; mount: string; role: string }
  | { kind: 'DeletePolicy'; name: string }
  | {
      kind: 'DeleteEntry';
      entry: 'live' | 'staging' | 'state';
      /** KV 2: versions up to this one are a person's, and stay. */
      after?: number;
    }
  | { kind: 'Unmount'; mount: string; type: 'pki' | 'kv' }
  | { kind: 'DisableAuth'; mount: string };

/** What the planner decides: what stands in the way, and the steps whose preconditions hold now. */
export interface Plan {
  problems: Problem[];
  /** Independent of each other: they run in parallel. */
  steps: Step[];
}

export type StepKind = Step['kind'];

const conditionOfKind = {
  ClaimControlPlane: 'ControlPlanePatched',
  EnableAudit: 'VaultReady',
  MountKV: 'KeyStored',
  WriteState: 'KeyStored',
  MountPKI: 'IntermediateReady',
  TuneMount: 'IntermediateReady',
  EnableAuth: 'AccessReady',
  WriteAuthConfig: 'AccessReady',
  WritePolicy: 'AccessReady',
  WriteRole: 'AccessReady',
  GenerateRoot: 'RootReady',
  StageKey: 'KeyStored',
  RemoveStaging: 'KeyStored',
  ImportKey: 'IntermediateReady',
  SignIntermediate: 'IntermediateReady',
  InstallCertificate: 'IntermediateReady',
  PublishLive: 'KeyStored',
  SetDefaultIssuer: 'IntermediateReady',
  LimitVersions: 'KeyStored',
  DestroyVersions: 'KeyStored',
  Collect: 'IntermediateReady',
  PatchControlPlane: 'ControlPlanePatched',
  PublishRender: 'ControlPlanePatched',
  RemoveRender: 'ControlPlanePatched',
  ReleaseControlPlane: 'ControlPlanePatched',
  DeleteRole: 'AccessReady',
  DeletePolicy: 'AccessReady',
  DeleteEntry: 'KeyStored',
  Unmount: 'IntermediateReady',
  DisableAuth: 'AccessReady',
} as const satisfies Record<StepKind, StageCondition>;

/** The condition in which a failed step shows. */
export const conditionOfStep = (step: Step): StageCondition => conditionOfKind[step.kind];

/** How a step shows in `status.plan`, in events and in the log. */
export interface StepDescription {
  action: 'Create' | 'Update' | 'Delete' | 'Sign' | 'Publish';
  target: string;
  /** What was done, in the past tense: the event says it when it happened. */
  message: string;
  /** Reason of the event. */
  event: string;
}

/** What is written at first, and again when it is gone or differs. */
const repairable: ReadonlySet<StepKind> = new Set<StepKind>([
  'MountKV',
  'MountPKI',
  'TuneMount',
  'EnableAuth',
  'WriteAuthConfig',
  'WritePolicy',
  'WriteRole',
  'ImportKey',
  'SetDefaultIssuer',
  'PatchControlPlane',
]);

/**
 * Describes a step for people.
 * @param again it was done before: what it makes was gone, or differed from what is wanted
 */
export function describeStep(step: Step, again = false): StepDescription {
  const described = describe(step);
  if (!again || !repairable.has(step.kind)) return described;
  return { ...described, message: `${described.message} again: it was gone or differed from what is wanted` };
}

const ownerIn = (mark: string): string => {
  const owner = parseMarker(mark);
  return owner ? `${owner.namespace}/${owner.name}` : 'somebody';
};

const rootCount = ({ length }: readonly string[]): string => (length === 1 ? 'one root' : `${length} roots`);

function describe(step: Step): StepDescription {
  const say = (action: StepDescription['action'], target: string, event: string, message: string) => ({
    action,
    target,
    event,
    message,
  });
  switch (step.kind) {
    case 'ClaimControlPlane':
      return say('Update', 'controlPlane:owner', 'ControlPlaneClaimed', `owner annotation set on ${step.target}`);
    case 'EnableAudit':
      return say('Create', `vault:sys/audit/${step.path}`, 'AuditDeviceEnabled', `audit device ${step.type} enabled`);
    case 'MountKV':
      return say(
        'Create',
        `vault:sys/mounts/${step.mount}`,
        'MountCreated',
        `KV version ${step.version} mounted at ${step.mount}`,
      );
    case 'WriteState':
      return say('Update', 'vault:state', step.event ?? 'StateRecorded', `state recorded: ${step.reason}`);
    case 'MountPKI':
      return say('Create', `vault:sys/mounts/${step.mount}`, 'MountCreated', `PKI mounted at ${step.mount}`);
    case 'TuneMount':
      return say(
        'Update',
        `vault:sys/mounts/${step.mount}/tune`,
        'MountTuned',
        `mount ${step.mount} tuned to max_lease_ttl ${step.maxLeaseTtl} s`,
      );
    case 'EnableAuth':
      return say('Create', `vault:sys/auth/${step.mount}`, 'MountCreated', `Kubernetes auth enabled at ${step.mount}`);
    case 'WriteAuthConfig':
      return say(
        'Update',
        `vault:auth/${step.mount}/config`,
        'AuthConfigWritten',
        `Kubernetes auth at ${step.mount} configured for ${step.config.host}`,
      );
    case 'WritePolicy':
      return say('Update', `vault:sys/policies/acl/${step.name}`, 'PolicyWritten', `policy ${step.name} written`);
    case 'WriteRole':
      return say(
        'Update',
        `vault:auth/${step.mount}/role/${step.role}`,
        'RoleWritten',
        `role ${step.role} bound to ${step.fields.serviceAccountNames.join(', ')}`,
      );
    case 'GenerateRoot':
      return say(
        'Create',
        `vault:${step.mount}/root/generate`,
        'RootGenerated',
        `root ${step.name} generated in ${step.mount}; its key stays in Vault`,
      );
    case 'StageKey':
      return say(
        'Create',
        'vault:staging',
        'KeyStaged',
        step.reuse === undefined
          ? `key of generation ${step.generation} made and staged (${step.reason})`
          : `generation ${step.generation} staged with the same key (${step.reason})`,
      );
    case 'RemoveStaging':
      return say(
        'Delete',
        'vault:staging',
        'StagingRemoved',
        step.left === undefined
          ? `staged key of generation ${step.generation} removed from staging`
          : `what ${ownerIn(step.left)} had staged and not published is destroyed: that resource is gone`,
      );
    case 'ImportKey':
      return say(
        'Create',
        `vault:${step.mount}/key/${step.name}`,
        'KeyImported',
        `key ${step.name} imported into ${step.mount} from ${step.from}`,
      );
    case 'SignIntermediate':
      return say(
        'Sign',
        `vault:issuer/${step.rootIssuerId}`,
        'IntermediateSigned',
        `intermediate of generation ${step.generation} signed by the root`,
      );
    case 'InstallCertificate':
      return say(
        'Update',
        `vault:${step.mount}/intermediate/set-signed`,
        'IntermediateRestored',
        `intermediate of generation ${step.generation} put back into ${step.mount}`,
      );
    case 'PublishLive':
      if (step.from === 'adopted')
        return say(
          'Publish',
          'vault:live',
          'Adopted',
          'the CA that was found is taken over: same key, same certificates',
        );
      if (step.same)
        return say('Publish', 'vault:live', 'PublishedAgain', 'published anew as it was: Vault would have deleted it');
      return step.from === 'staging'
        ? say('Publish', 'vault:live', 'Published', `generation ${step.generation} published for istiod`)
        : say('Publish', 'vault:live', 'RootsPublished', `root-cert.pem published anew with ${rootCount(step.roots)}`);
    case 'SetDefaultIssuer':
      return say(
        'Update',
        `vault:${step.mount}/config/issuers`,
        'DefaultIssuerSet',
        `default issuer of ${step.mount} set to the published one`,
      );
    case 'LimitVersions':
      return say(
        'Update',
        'vault:live/metadata',
        'VersionsLimited',
        `the key store keeps ${step.versions} versions of the live entry`,
      );
    case 'DestroyVersions':
      return say(
        'Delete',
        'vault:live/versions',
        'OldVersionsDestroyed',
        `older versions of the live entry destroyed (${step.versions.join(', ')}): every replica has the current one`,
      );
    case 'Collect':
      return say('Delete', `vault:${step.mount}`, 'GenerationCollected', `${step.what} removed from ${step.mount}`);
    case 'PatchControlPlane':
      return say('Update', 'controlPlane:fields', 'ControlPlanePatched', `fields of istiod written to ${step.target}`);
    case 'PublishRender':
      return say(
        step.again ? 'Update' : 'Create',
        `configmap:${step.name}`,
        'Rendered',
        `what to commit is in ConfigMap ${step.name}`,
      );
    case 'RemoveRender':
      return say(
        'Delete',
        `configmap:${step.name}`,
        'RenderRemoved',
        `ConfigMap ${step.name} removed: nothing is to be committed`,
      );
    case 'ReleaseControlPlane':
      return say(
        'Update',
        'controlPlane:fields',
        'ControlPlaneReleased',
        `fields of istiod given back on ${step.target}`,
      );
    case 'DeleteRole':
      return say(
        'Delete',
        `vault:auth/${step.mount}/role/${step.role}`,
        'RoleDeleted',
        `role ${step.role} of auth/${step.mount} deleted`,
      );
    case 'DeletePolicy':
      return say('Delete', `vault:sys/policies/acl/${step.name}`, 'PolicyDeleted', `policy ${step.name} deleted`);
    case 'DeleteEntry':
      return say('Delete', `vault:${step.entry}`, 'EntryDeleted', `${step.entry} entry deleted from the key store`);
    case 'Unmount':
      return say(
        'Delete',
        `vault:sys/mounts/${step.mount}`,
        'MountRemoved',
        `${step.type} mount ${step.mount} removed`,
      );
    case 'DisableAuth':
      return say('Delete', `vault:sys/auth/${step.mount}`, 'MountRemoved', `auth mount ${step.mount} removed`);
  }
}
