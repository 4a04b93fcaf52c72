/** Rows of the steps for mounts, the state entry and access in Vault, and of the cleanup. Pure. */
import * as effects from './simulated-effects.ts';
import { Refused } from './simulated-effects.ts';
import type { StepRows } from './step-row.ts';
import type { StepOf } from './steps.ts';

/** Names the fields of a role that a step resets; empty: none. */
function resetOf({ resets }: StepOf<'WriteRole'>): string {
  const names = Object.keys(resets);
  return names.length === 0 ? '' : `, without ${names.join(', ')}, which let in more`;
}

const pkiMounts = [
  'rootMount',
  'intermediateMount',
  'rootPki',
  'intermediatePki',
  'rootListSettings',
  'intermediateListSettings',
] as const;

export const vaultRows: StepRows<
  | 'EnableAudit'
  | 'MountKV'
  | 'WriteState'
  | 'MountPKI'
  | 'TuneMount'
  | 'EnableAuth'
  | 'WriteAuthConfig'
  | 'WritePolicy'
  | 'WriteRole'
  | 'DeleteRole'
  | 'DeletePolicy'
  | 'DeleteEntry'
  | 'Unmount'
  | 'DisableAuth'
> = {
  EnableAudit: {
    condition: 'VaultReady',
    action: 'Create',
    target: (step) => `vault:sys/audit/${step.path}`,
    event: 'AuditDeviceEnabled',
    planned: (step) => `Enable audit device ${step.path} of type ${step.type}`,
    done: (step) => `Enabled audit device ${step.path} of type ${step.type}`,
    rereads: ['auditDevice'],
    simulate: ({ vault }, step) => {
      vault.auditDevice = { type: step.type, options: step.options };
    },
  },
  MountKV: {
    condition: 'KeyStored',
    action: 'Create',
    target: (step) => `vault:sys/mounts/${step.mount}`,
    event: 'MountCreated',
    planned: (step) => `Enable KV version ${step.version} at mount ${step.mount}/`,
    done: (step) => `Enabled KV version ${step.version} at mount ${step.mount}/`,
    restores: (step) => `mount ${step.mount}/`,
    rereads: ['kvMount', 'live', 'staging', 'state'],
    simulate: ({ vault }, step) => {
      if (vault.kvMount) throw new Refused('path is already in use');
      vault.kvMount = { type: 'kv', description: step.description, maxLeaseTtl: 0, kvVersion: step.version };
    },
  },
  WriteState: {
    condition: 'KeyStored',
    action: 'Update',
    target: 'vault:state',
    event: (step) => step.event ?? 'StateRecorded',
    planned: (step) => `Record in the state entry: ${step.reason}`,
    done: (step) => `Recorded in the state entry: ${step.reason}`,
    rereads: ['state'],
    simulate: ({ d, vault }, step) => effects.set(vault.state, step.cas, step.state, d.mark, d.spec.keyStore.version),
  },
  MountPKI: {
    condition: 'IntermediateReady',
    action: 'Create',
    target: (step) => `vault:sys/mounts/${step.mount}`,
    event: 'MountCreated',
    planned: (step) => `Enable PKI at mount ${step.mount}/`,
    done: (step) => `Enabled PKI at mount ${step.mount}/`,
    restores: (step) => `mount ${step.mount}/`,
    rereads: pkiMounts,
    simulate: effects.mountPki,
  },
  TuneMount: {
    condition: 'IntermediateReady',
    action: 'Update',
    target: (step) => `vault:sys/mounts/${step.mount}/tune`,
    event: 'MountTuned',
    planned: (step) => `Tune mount ${step.mount}/ to max_lease_ttl ${step.maxLeaseTtl}s`,
    done: (step) => `Tuned mount ${step.mount}/ to max_lease_ttl ${step.maxLeaseTtl}s`,
    restores: (step) => `the tuning of mount ${step.mount}/`,
    rereads: pkiMounts,
    simulate: effects.tune,
  },
  EnableAuth: {
    condition: 'AccessReady',
    action: 'Create',
    target: (step) => `vault:sys/auth/${step.mount}`,
    event: 'MountCreated',
    planned: (step) => `Enable Kubernetes auth at auth/${step.mount}`,
    done: (step) => `Enabled Kubernetes auth at auth/${step.mount}`,
    restores: (step) => `auth/${step.mount}`,
    rereads: ['authMount', 'role', 'authConfig'],
    simulate: ({ vault }, step) => {
      vault.authMount = { type: 'kubernetes', description: step.description, maxLeaseTtl: 0 };
    },
  },
  WriteAuthConfig: {
    condition: 'AccessReady',
    action: 'Update',
    target: (step) => `vault:auth/${step.mount}/config`,
    event: 'AuthConfigWritten',
    planned: (step) => `Configure auth/${step.mount} for ${step.config.host}`,
    done: (step) => `Configured auth/${step.mount} for ${step.config.host}`,
    restores: (step) => `auth/${step.mount}/config`,
    rereads: ['authConfig'],
    simulate: ({ vault }, step) => {
      vault.authConfig = step.config;
      vault.reviewerWritten = step.reviewer;
    },
  },
  WritePolicy: {
    condition: 'AccessReady',
    action: 'Update',
    target: (step) => `vault:sys/policies/acl/${step.name}`,
    event: 'PolicyWritten',
    planned: (step) => `Write policy ${step.name}`,
    done: (step) => `Wrote policy ${step.name}`,
    restores: (step) => `policy ${step.name}`,
    rereads: ['policy'],
    simulate: ({ vault }, step) => {
      vault.policy = step.text;
    },
  },
  WriteRole: {
    condition: 'AccessReady',
    action: 'Update',
    target: (step) => `vault:auth/${step.mount}/role/${step.role}`,
    event: 'RoleWritten',
    planned: (step) =>
      `Write role ${step.role}, bound to ${step.fields.serviceAccountNames.join(', ')}${resetOf(step)}`,
    done: (step) => `Wrote role ${step.role}, bound to ${step.fields.serviceAccountNames.join(', ')}${resetOf(step)}`,
    restores: (step) => `role ${step.role}, bound to ${step.fields.serviceAccountNames.join(', ')}${resetOf(step)}`,
    rereads: ['role'],
    simulate: ({ vault }, step) => {
      const otherFields = (vault.role?.otherFields ?? []).filter((name) => !(name in step.resets));
      vault.role = { ...step.fields, otherFields };
    },
  },
  DeleteRole: {
    condition: 'AccessReady',
    action: 'Delete',
    target: (step) => `vault:auth/${step.mount}/role/${step.role}`,
    event: 'RoleDeleted',
    planned: (step) => `Delete role ${step.role} of auth/${step.mount}`,
    done: (step) => `Deleted role ${step.role} of auth/${step.mount}`,
    rereads: ['role', 'authRoles'],
    simulate: ({ vault }) => {
      vault.role = undefined;
    },
  },
  DeletePolicy: {
    condition: 'AccessReady',
    action: 'Delete',
    target: (step) => `vault:sys/policies/acl/${step.name}`,
    event: 'PolicyDeleted',
    planned: (step) => `Delete policy ${step.name}`,
    done: (step) => `Deleted policy ${step.name}`,
    rereads: ['policy'],
    simulate: ({ vault }) => {
      vault.policy = undefined;
    },
  },
  DeleteEntry: {
    condition: 'KeyStored',
    action: 'Delete',
    target: (step) => `vault:${step.entry}`,
    event: 'EntryDeleted',
    planned: (step) => `Delete the ${step.entry} entry from the key store`,
    done: (step) => `Deleted the ${step.entry} entry from the key store`,
    rereads: ['live', 'staging', 'state', 'keyStoreEntries'],
    simulate: ({ vault }, step) => effects.unset(vault[step.entry], step.after === undefined),
  },
  Unmount: {
    condition: 'IntermediateReady',
    action: 'Delete',
    target: (step) => `vault:sys/mounts/${step.mount}`,
    event: 'MountRemoved',
    planned: (step) => `Disable mount ${step.mount}/ of type ${step.type}`,
    done: (step) => `Disabled mount ${step.mount}/ of type ${step.type}`,
    rereads: [...pkiMounts, 'kvMount', 'keyStoreEntries', 'rootMountRoles', 'signed'],
    simulate: (world, step) => effects.unmount(world, step.mount),
  },
  DisableAuth: {
    condition: 'AccessReady',
    action: 'Delete',
    target: (step) => `vault:sys/auth/${step.mount}`,
    event: 'MountRemoved',
    planned: (step) => `Disable auth/${step.mount}`,
    done: (step) => `Disabled auth/${step.mount}`,
    rereads: ['authMount', 'role', 'authRoles'],
    simulate: ({ vault }) => {
      vault.authMount = undefined;
    },
  },
};
