/**
 * What one round of reading saw: public facts only, as plain data. A read that failed is not in here; it is a
 * `Problem` of that observation. `undefined` always means: read, and not there.
 */
import type { CertificateFacts } from './certificate.ts';
import type { IntermediateSpec, StateEntry } from './state-entry.ts';
import type { ObservedIstiod } from './observed-istiod.ts';

/** A secrets engine or auth mount. */
export interface Mount {
  type: string;
  description: string;
  /** Seconds; 0 means the server's default. */
  maxLeaseTtl: number;
  /** KV version; undefined for other types. */
  kvVersion?: 1 | 2;
}

export interface Issuer {
  id: string;
  /** Empty for an issuer without a key. */
  keyId: string;
  /** Name of its key; empty when it has none. */
  keyName: string;
  certificate: CertificateFacts;
}

/** What a PKI mount holds. */
export interface Pki {
  issuers: Issuer[];
  keys: { id: string; name: string }[];
  defaultIssuerId: string;
}

/** From when to when Vault keeps what was written, milliseconds since the epoch by its clock. */
export interface Lifetime {
  from: number;
  to: number;
}

/** A place in the KV mount: what stands there, and the version that a check-and-set must name. */
export interface Slot<T> {
  /** KV 2: the current version, 0 for never written. KV 1: always 0. */
  casVersion: number;
  /** undefined: nothing there. `foreign`: an entry without our mark. */
  entry: T | 'foreign' | undefined;
  /** The mark in the entry; empty when it has none. */
  mark?: string;
  /** Vault deletes what stands there by itself; undefined: it stays. */
  lifetime?: Lifetime;
  /** What a foreign live entry shows of itself. */
  foreign?: ForeignCaEntry;
}

/** What is looked at in a live entry without our mark. */
interface ForeignCaEntry {
  /** Hash of the public half of its ca-key.pem; undefined when that is no private key. */
  publicKey: string | undefined;
  generation: number;
  /** The certificates of its root-cert.pem; empty when it has none. */
  root: string;
  /** Names of its fields that an operator's live entry does not have; without any mark, all but the four files. */
  others: string[];
}

/** The live entry: what istiod reads. */
export interface CaEntry {
  generation: number;
  /** Name or id of the key in the mount; empty: the generation's own name. */
  keyRef: string;
  certificate: CertificateFacts | undefined;
  /** PEM texts of the public files, as stored. */
  chain: string;
  root: string;
  /** Hash of the public half of the stored key; undefined when it is no private key. */
  publicKey: string | undefined;
}

/** The staging entry: a key made by us that istiod may not see yet. */
export interface StagingEntry {
  generation: number;
  /** Of a key that is signed again: its name or id in the mount; else empty. */
  keyRef: string;
  spec: IntermediateSpec | undefined;
  /** Ids of issuers that carried the key before it was staged. */
  before: string[];
  publicKey: string | undefined;
  /** Why it was begun: goes into the history. */
  reason: string;
  /** The text of `rotate-intermediate` that it answers. */
  request: string | undefined;
}

export interface KubernetesRole {
  serviceAccountNames: string[];
  serviceAccountNamespaces: string[];
  policies: string[];
  /** Seconds. */
  tokenTtl: number;
  audience: string;
}

export interface KubernetesAuthConfig {
  host: string;
  caCert: string;
  disableLocalCaJwt: boolean;
  /** undefined: the server does not say. */
  reviewerJwtSet: boolean | undefined;
}

export interface ObservedVault {
  product: 'Vault' | 'OpenBao';
  version: string;
  /** Its clock when this look began, milliseconds since the epoch. */
  time: number;
  /** Paths and capabilities that the token lacks. */
  missingCapabilities: { path: string; missing: string[] }[];
  /** Only read when the spec asks for a device. */
  auditDevice: { type: string; options: Record<string, string> } | undefined;
  kvMount: Mount | undefined;
  rootMount: Mount | undefined;
  intermediateMount: Mount | undefined;
  authMount: Mount | undefined;
  /** undefined: the mount is absent or not of type pki. */
  rootPki: Pki | undefined;
  intermediatePki: Pki | undefined;
  /** How many versions KV 2 keeps of the live entry; undefined: KV 1, or never set. */
  liveVersions: number | undefined;
  /** Versions of the live entry before the one that stands that still hold something (KV 2). */
  liveOlder: number[];
  live: Slot<CaEntry>;
  staging: Slot<StagingEntry>;
  state: Slot<StateEntry>;
  policy: string | undefined;
  role: KubernetesRole | undefined;
  /** Only read when the configuration is ours to write. */
  authConfig: KubernetesAuthConfig | undefined;
  /** Only read during deletion. */
  remains: Remains | undefined;
}

/** What decides during deletion whether shared mounts, and a root, may go. */
export interface Remains {
  /** Names in the key store besides our three. */
  otherEntries: string[];
  /** Roles of the auth mount besides ours. */
  otherRoles: string[];
  /** Roles of the root mount, by which others have certificates signed; undefined: not asked for. */
  rootRoles: string[] | undefined;
  /** Valid certificates that the root mount has issued; undefined: not asked for, or too many to read. */
  signed: { serial: string; publicKey: string; selfIssued: boolean }[] | undefined;
}

/** In `made`: the control plane has carried the fields once, so istiod hands this CA's certificates out. */
export const fieldsAppliedFlag = 'fields';

/** Somebody else who manages a field of the control plane. */
export interface OtherManager {
  /** The name by which it writes: its field manager. */
  name: string;
  /** Whose mark it, or the object, bears. */
  tool?: 'Argo CD' | 'Flux' | 'Flux Helm' | 'Helm';
}

/** What a control plane adapter says about its object. */
export interface ControlPlaneFacts {
  /** Name in the owner annotation. */
  owner: string | undefined;
  /** Every field stands as desired. */
  carriesFields: boolean;
  /** At least one field of ours was written before. */
  writtenBefore: boolean;
  /** Somebody else's values at exactly our places. */
  conflicts: { place: string; value: string; manager?: string }[];
  /** With `write: Render`: places where nobody else has set the wanted value. */
  missing?: string[];
  /** With `write: Render`: what this operator wrote before stands by others too, and can be given back. */
  superfluous?: boolean;
  /** Revisions of istiod that the object does not reach any more. */
  leftBehind?: string[];
  /** The tool whose mark the object bears. */
  tool?: OtherManager['tool'];
  /** Why nothing seems to carry out what the object says. */
  unreconciled?: string;
  /** Who else manages the fields that are ours to write. */
  managedBy?: OtherManager;
  /** Who else has set such a field to what is wanted: that stays when ours are given back. */
  sharedWith?: OtherManager;
}

/** The object is there, and is none that the fields can be written to. */
export interface Unfit {
  unfit: {
    reason: 'ControlPlaneNotFound' | 'ControlPlaneUnfit' | 'Forbidden';
    message: string;
    /** Name in the owner annotation, where fields may have been written while it was fit. */
    owner?: string | undefined;
  };
}

/** The fields were taken back too often: they are left alone for a while. */
export interface RepeatedConflict {
  /** When it is tried again, milliseconds since the epoch. */
  untilMs: number;
  /** Who took them back, as far as it is known. */
  by: OtherManager | undefined;
}

export interface ObservedKubernetes {
  /** undefined: the object or its CRD is not there, or it is unfit. */
  controlPlane: ControlPlaneFacts | undefined;
  controlPlaneUnfit?: Unfit['unfit'];
  /** Somebody takes the fields back again and again. */
  contest?: RepeatedConflict;
  /** The ConfigMap with what is to be committed: as it must be, otherwise, not there, or somebody else's. */
  rendered: 'current' | 'other' | 'none' | 'foreign';
  controlPlaneServed: boolean;
  /** Whether this resource may own the control plane; else the name of the one that does. */
  ownerIs: 'us' | { name: string };
  /** Service accounts of istiod's Deployments; `unreadable` when that is forbidden. */
  istiodServiceAccounts: string[] | 'unreadable';
  /** Revisions of istiod's Deployments in the namespace that are not of this control plane. */
  otherRevisions?: string[];
  /** The longest workload certificate that istiod allows, milliseconds; `unknown`: it is not there, or may not be read. */
  maxWorkloadCertTtlMs: number | 'unknown';
  /** Certificates of `istio-ca-root-cert` in this namespace; undefined when the ConfigMap is not there. */
  meshRoots: CertificateFacts[] | undefined;
  injector: { found: boolean; selectsNamespace: boolean; name: string; failurePolicy?: string };
  /** PEM of the API server's CA for the auth mount's configuration; undefined when not needed. */
  kubernetesCa: string | undefined;
  /** Resources of this cluster, as `namespace/name`, that marks in our places name and that are not there any more. */
  goneOwners: string[];
  /** Only read during deletion: pods and Deployments of istiod that carry our annotations. */
  istiodUses: string[];
  /** istiod's replicas. undefined: not looked at, which is done only when nothing else is left to do, or unreadable. */
  istiod: ObservedIstiod | undefined;
}

export interface Observed {
  vault: ObservedVault;
  kubernetes: ObservedKubernetes;
}

/** The entry in a slot if it is ours. */
export function ownEntry<T>(slot: Slot<T>): T | undefined {
  return slot.entry === 'foreign' ? undefined : slot.entry;
}
