/** Rows of the steps that issue certificates, publish the CA and collect what is unused. Pure. */
import { rfc3339 } from '../api/time.ts';
import { parseMarker } from './facts/identity.ts';
import * as effects from './simulated-effects.ts';
import type { StepRows } from './step-row.ts';
import type { StepOf } from './steps.ts';

const rootCount = ({ length }: readonly string[]): string => (length === 1 ? 'one root' : `${length} roots`);

const ownerIn = (marker: string): string => {
  const owner = parseMarker(marker);
  return owner ? `${owner.namespace}/${owner.name}` : 'another resource';
};

const listCount = ({ length }: readonly string[]): string =>
  length === 1 ? 'one revocation list' : `${length} revocation lists`;

const reasonForLists = {
  lists: 'the CAs above workload certificates changed',
  revoked: 'a certificate was revoked',
  listsDue: 'half of their time is over',
} as const;

/** What remains of lists that are taken out of the CA entry, for the user. */
export const keptLists = (listsEnd: number): string =>
  `the CA entry has no revocation lists any more, but the mesh keeps those that it has, in ConfigMap istio-ca-crl of each namespace. Sidecars refuse every connection when the first of them ends${listsEnd === Infinity ? '' : ` on ${rfc3339(listsEnd)}`}, and sooner if there is another intermediate or root before. Restart istiod, and delete these ConfigMaps (docs/compromise.md)`;

const forDays = ({ settings: { lifeMs } }: StepOf<'ConfigureCRL'>): string =>
  `for ${Math.floor(lifeMs / 86_400_000)} days, and to renew them by itself`;

const eventOf = ({ from, same, secret }: StepOf<'PublishLive'>): string => {
  if (secret !== undefined) return 'Imported';
  if (from === 'adopted') return 'Adopted';
  if (same === 'lists' || same === 'revoked' || same === 'listsDue') return 'CRLPublished';
  if (same) return 'PublishedAgain';
  return from === 'staging' ? 'Published' : 'RootsPublished';
};

const published = (step: StepOf<'PublishLive'>, verb: string): string => {
  if (step.secret !== undefined)
    return `${verb} the CA of Secret ${step.secret} as CA generation ${step.generation}: its key is in the key store then, and the Secret can be deleted. Keep a backup of it if it may be needed for a rollback of a root rotation`;
  if (step.from === 'adopted') return `${verb} the adopted CA: same key, same certificates`;
  if (step.same === 'lifetime') return `${verb} the CA entry unchanged, because Vault would delete its current version`;
  if (step.same === 'keyForm') return `${verb} the same CA with its key in a form that istiod reads`;
  if (step.same === 'withdrawn') return `${verb} the CA entry without revocation lists`;
  if (step.same !== undefined) return `${verb} ${listCount(step.lists)} (${reasonForLists[step.same]})`;
  return step.from === 'staging'
    ? `${verb} CA generation ${step.generation} for istiod`
    : `${verb} root-cert.pem with ${rootCount(step.roots)}`;
};

const removedStaging = (step: StepOf<'RemoveStaging'>, verb: string): string =>
  step.left === undefined
    ? `${verb} the staged key of CA generation ${step.generation}`
    : `${verb} the staged key that ${ownerIn(step.left)} never published: that resource no longer exists`;

export const issuingRows: StepRows<
  | 'GenerateRoot'
  | 'StageKey'
  | 'RemoveStaging'
  | 'ImportKey'
  | 'SignIntermediate'
  | 'ImportCA'
  | 'RecordCSR'
  | 'InstallSigned'
  | 'InstallCertificate'
  | 'PublishLive'
  | 'RotateCRL'
  | 'ConfigureCRL'
  | 'SetDefaultIssuer'
  | 'RestoreUsage'
  | 'LimitVersions'
  | 'DestroyVersions'
  | 'Collect'
> = {
  GenerateRoot: {
    condition: 'RootReady',
    action: 'Create',
    target: (step) => `vault:${step.mount}/root/generate`,
    event: 'RootGenerated',
    planned: (step) => `Generate root ${step.name} in mount ${step.mount}/; its key stays in Vault`,
    done: (step) => `Generated root ${step.name} in mount ${step.mount}/; its key stays in Vault`,
    rereads: ['rootPki'],
    simulate: effects.generateRoot,
  },
  StageKey: {
    condition: 'KeyStored',
    action: 'Create',
    target: 'vault:staging',
    event: 'KeyStaged',
    planned: (step) =>
      step.reuse === undefined
        ? `Create and stage the key of CA generation ${step.generation} (${step.reason})`
        : `Stage CA generation ${step.generation} with the same key (${step.reason})`,
    done: (step) =>
      step.reuse === undefined
        ? `Created and staged the key of CA generation ${step.generation} (${step.reason})`
        : `Staged CA generation ${step.generation} with the same key (${step.reason})`,
    rereads: ['staging'],
    simulate: effects.stageKey,
  },
  RemoveStaging: {
    condition: 'KeyStored',
    action: 'Delete',
    target: 'vault:staging',
    event: 'StagingRemoved',
    planned: (step) => removedStaging(step, 'Destroy'),
    done: (step) => removedStaging(step, 'Destroyed'),
    rereads: ['staging'],
    simulate: ({ d, vault }, step) => {
      if (d.spec.keyStore.version === 2 && vault.staging.casVersion !== step.version) return;
      effects.unset(vault.staging, false);
    },
  },
  ImportKey: {
    condition: 'IntermediateReady',
    action: 'Create',
    target: (step) => `vault:${step.mount}/key/${step.name}`,
    event: 'KeyImported',
    planned: (step) => `Import key ${step.name} into mount ${step.mount}/`,
    done: (step) => `Imported key ${step.name} into mount ${step.mount}/`,
    rereads: ['intermediatePki'],
    simulate: (world, step) => effects.addKey(effects.pkiOf(world, step.mount), step.name),
  },
  SignIntermediate: {
    condition: 'IntermediateReady',
    action: 'Sign',
    target: (step) => `vault:issuer/${step.rootIssuerId}`,
    event: 'IntermediateSigned',
    planned: (step) => `Sign the intermediate of CA generation ${step.generation} with the root`,
    done: (step) => `Signed the intermediate of CA generation ${step.generation} with the root`,
    rereads: ['intermediatePki'],
    simulate: effects.signIntermediate,
  },
  ImportCA: {
    condition: 'KeyStored',
    action: 'Create',
    target: 'vault:staging',
    event: 'CAStaged',
    planned: (step) =>
      `Take the CA of Secret ${step.secret} into the key store as CA generation ${step.generation} (${step.reason})`,
    done: (step) =>
      `Took the CA of Secret ${step.secret} into the key store as CA generation ${step.generation} (${step.reason})`,
    rereads: ['staging'],
    simulate: effects.importCa,
  },
  RecordCSR: {
    condition: 'IntermediateReady',
    action: 'Create',
    target: 'vault:staging',
    event: 'CSRCreated',
    planned: (step) =>
      `Create the certificate signing request of CA generation ${step.generation} for a signature outside of Vault`,
    done: (step) =>
      `Created the certificate signing request of CA generation ${step.generation}, see status.csr: it waits for a signature outside of Vault`,
    rereads: ['staging'],
    simulate: effects.recordCsr,
  },
  InstallSigned: {
    condition: 'IntermediateReady',
    action: 'Update',
    target: (step) => `vault:${step.mount}/intermediate/set-signed`,
    event: 'SignedCertificateInstalled',
    planned: (step) => `Install the signed certificate of CA generation ${step.generation} in mount ${step.mount}/`,
    done: (step) => `Installed the signed certificate of CA generation ${step.generation} in mount ${step.mount}/`,
    rereads: ['intermediatePki'],
    simulate: effects.installSigned,
  },
  InstallCertificate: {
    condition: 'IntermediateReady',
    action: 'Update',
    target: (step) => `vault:${step.mount}/intermediate/set-signed`,
    event: 'IntermediateRestored',
    planned: (step) => `Restore the intermediate of CA generation ${step.generation} in mount ${step.mount}/`,
    done: (step) => `Restored the intermediate of CA generation ${step.generation} in mount ${step.mount}/`,
    rereads: ['intermediatePki'],
    simulate: effects.installCertificate,
  },
  PublishLive: {
    condition: 'KeyStored',
    action: 'Publish',
    target: 'vault:live',
    event: eventOf,
    planned: (step) => published(step, 'Publish'),
    done: (step) => published(step, 'Published'),
    rereads: ['live', 'liveRevoked', 'liveVersions', 'intermediatePki'],
    simulate: effects.publishLive,
  },
  RotateCRL: {
    condition: 'IntermediateReady',
    action: 'Sign',
    target: (step) => `vault:${step.mount}/crl/rotate`,
    event: 'CRLRotated',
    planned: (step) => `Have the revocation lists of mount ${step.mount}/ signed again`,
    done: (step) => `Had the revocation lists of mount ${step.mount}/ signed again`,
    rereads: ['lists'],
    simulate: (world, step) => effects.rotateLists(world, step.mount),
  },
  ConfigureCRL: {
    condition: 'IntermediateReady',
    action: 'Update',
    target: (step) => `vault:${step.mount}/config/crl`,
    event: 'CRLConfigured',
    planned: (step) => `Have mount ${step.mount}/ sign revocation lists ${forDays(step)}`,
    done: (step) => `Configured mount ${step.mount}/ to sign revocation lists ${forDays(step)}`,
    restores: (step) => `${step.mount}/config/crl`,
    rereads: ['rootListSettings', 'intermediateListSettings'],
    simulate: ({ d, vault }, { mount, settings }) => {
      const tier = mount === d.spec.root.mount ? 'root' : 'intermediate';
      vault.listSettings = { ...vault.listSettings, [tier]: settings };
    },
  },
  SetDefaultIssuer: {
    condition: 'IntermediateReady',
    action: 'Update',
    target: (step) => `vault:${step.mount}/config/issuers`,
    event: 'DefaultIssuerSet',
    planned: (step) => `Make the current issuer of mount ${step.mount}/ its default`,
    done: (step) => `Made the current issuer of mount ${step.mount}/ its default`,
    rereads: ['rootPki', 'intermediatePki'],
    simulate: (world, step) => {
      const pki = effects.pkiOf(world, step.mount);
      pki.defaultIssuerId = step.issuerId;
      delete pki.followsLatest;
    },
  },
  RestoreUsage: {
    condition: 'IntermediateReady',
    action: 'Update',
    target: (step) => `vault:${step.mount}/issuer/${step.issuerId}`,
    event: 'IssuerUsageRestored',
    planned: (step) => `Let the current issuer of mount ${step.mount}/ sign certificates (usage issuing-certificates)`,
    done: (step) =>
      `Let the current issuer of mount ${step.mount}/ sign certificates again (usage issuing-certificates)`,
    rereads: ['rootPki', 'intermediatePki'],
    simulate: (world, step) => {
      for (const issuer of effects.pkiOf(world, step.mount).issuers)
        if (issuer.id === step.issuerId) delete issuer.usages;
    },
  },
  LimitVersions: {
    condition: 'KeyStored',
    action: 'Update',
    target: 'vault:live/metadata',
    event: 'VersionsLimited',
    planned: (step) => `Limit the CA entry to ${step.versions} versions`,
    done: (step) => `Limited the CA entry to ${step.versions} versions`,
    rereads: ['liveVersions'],
    simulate: ({ vault }, step) => {
      vault.liveVersions = step.versions;
    },
  },
  DestroyVersions: {
    condition: 'KeyStored',
    action: 'Delete',
    target: 'vault:live/versions',
    event: 'OldVersionsDestroyed',
    planned: (step) => `Destroy older versions of the CA entry (${step.versions.join(', ')})`,
    done: (step) =>
      `Destroyed older versions of the CA entry (${step.versions.join(', ')}): every replica has the current one`,
    rereads: ['liveVersions'],
    simulate: ({ vault }, step) => {
      vault.liveOlder = vault.liveOlder.filter((number) => !step.versions.includes(number));
    },
  },
  Collect: {
    condition: 'IntermediateReady',
    action: 'Delete',
    target: (step) => `vault:${step.mount}`,
    event: 'GenerationCollected',
    planned: (step) => `Remove ${step.what} from mount ${step.mount}/`,
    done: (step) => `Removed ${step.what} from mount ${step.mount}/`,
    rereads: ['intermediatePki'],
    simulate: effects.collect,
  },
};
