/**
 * Result of one observation: plain data without secrets. A failed read is a `Problem` instead, or `unreadable` where a field allows it.
 * Unless a field says otherwise, `undefined` means that the object was read and does not exist. If `vault.missingCapabilities` is not empty,
 * most of Vault was not read, and the absence of an object means nothing.
 */
import type { CertificateFacts } from './certificate.ts';
import type { RevocationList } from './revocation-list.ts';
import type { IntermediateSpec, StateEntry } from './state-entry.ts';
import type { TrustPlace } from './trust-places.ts';
import type { ObservedInjector } from './observed-injector.ts';
import type { MeshEvidence, ObservedIstiod } from './observed-istiod.ts';

/** A secrets engine or auth mount. */
export interface Mount {
  type: string;
  description: string;
  /** Seconds; 0: the default of the server. */
  maxLeaseTtl: number;
  /** undefined: the mount has another type than `kv`. */
  kvVersion?: 1 | 2;
}

/** An issuer of a PKI mount. */
export interface Issuer {
  id: string;
  /** Empty: the mount does not contain the key of the issuer. */
  keyId: string;
  /** Empty: the key has no name, or the mount does not contain it. */
  keyName: string;
  certificate: CertificateFacts;
  /** Absent: Vault has not revoked the issuer. A revoked issuer signs nothing, and CRLs list its certificate. */
  revoked?: true;
  /** What the issuer is used for, if it may not sign certificates (usage `issuing-certificates`) and is not revoked. Absent: it may. */
  usages?: string[];
}

/** An issuer of a mount that others own (`root.source: Existing`), as Vault shows it to everybody. */
export interface ExistingIssuer {
  id: string;
  /** Empty: the issuer has no name. */
  name: string;
  certificate: CertificateFacts;
  /** The certificates above it that the mount knows, which can include a root, in no order. */
  above: CertificateFacts[];
}

/** What signs for this resource in a mount that others own. */
export interface ExistingIssuers {
  /**
   * The issuers that the state entry records, the one that the spec names, with `delivery.source: PKI` the default one, and those of `owners`; those
   * that exist.
   */
  found: ExistingIssuer[];
  /** Id of the issuer that the spec names; undefined: it does not exist. */
  wantedId: string | undefined;
  /** Id of the default issuer of the mount; undefined: not read, because neither `delivery.source: PKI` nor `owners` needs it, or there is none. */
  defaultId: string | undefined;
  /** Issuers that an IstioVaultCA, the owner of the mount, made there. Absent: no issuer that was found has a name that it would give one. */
  owners?: OwnersIssuers;
}

/** Issuers of a mount with names that an IstioVaultCA gives its roots. */
export interface OwnersIssuers {
  /** Ids, newest first. */
  ids: string[];
  /** Whether these are all that the mount has. False: it has more than are read, or could not be listed: those that are not among them can exist. */
  complete: boolean;
}

/** Certificates that a user or another controller put into an object of the cluster. */
export interface GivenCertificates {
  /** The object and its key, for messages: `ConfigMap istio-system/signed, key tls.crt`. */
  place: string;
  /** In their order. */
  certificates: CertificateFacts[];
  /** Some block could not be parsed, or there are more than are read. */
  incomplete?: true;
}

/** A CA that a user brings along, from a Secret. Its key is reduced to the hash of its public half. */
export interface GivenCa {
  /** The Secret, for messages: `Secret istio-system/cacerts`. */
  place: string;
  /** Name of the Secret. */
  secret: string;
  /** SHA-256 of the SubjectPublicKeyInfo of the key, hex; undefined: there is no key, or none that can be read, such as an encrypted one. */
  publicKey: string | undefined;
  /** The certificate of the CA first, then those of its chain, then its roots. */
  certificates: CertificateFacts[];
}

/** The ConfigMap with the certificate signing request. */
export interface ObservedRequestMap {
  /**
   * Its request, empty if it has none, and whether somebody has put other keys beside it. `none`: the ConfigMap does not exist; `foreign`: it is not
   * owned by this resource.
   */
  content: 'none' | 'foreign' | { csr: string; others: boolean };
  /** The right that the operator lacks to bring the ConfigMap about, or to remove it; undefined: none. */
  lacks: string | undefined;
}

/** What became of a CertificateRequest of cert-manager. Texts of cert-manager are cut to what a message can hold. */
export type ObservedCertificateRequest =
  /** The API server does not serve the type: cert-manager is not installed. */
  | { state: 'notServed' }
  | { state: 'absent'; name: string }
  /** `message` says who may not read or create it. */
  | { state: 'forbidden'; name: string; message: string }
  /** Somebody deletes it, and it has finalizers. */
  | { state: 'deleting'; name: string }
  /** `field` of an object of that name is not what this resource would have written. */
  | { state: 'other'; name: string; field: string }
  /** `said`: what cert-manager reports meanwhile; empty: nothing. */
  | { state: 'waiting'; name: string; approved: boolean; said: string }
  /** `what`: a clause. */
  | { state: 'failed'; name: string; what: string; said: string }
  | { state: 'signed'; name: string; given: GivenCertificates };

/** Revocation lists that a user put beside certificates, into key `ca-crl.pem` of an object of the cluster. */
export interface GivenLists {
  /** The object and its key, for messages: `ConfigMap istio-system/signed, key ca-crl.pem`. */
  place: string;
  /** In their order; none if the object or its key does not exist. */
  lists: RevocationList[];
  /** The certificates in the object: whose lists can be there. */
  certificates: CertificateFacts[];
  /** Why the object may not be read. Absent: it may. */
  unreadable?: string;
}

/** Public content of a PKI mount. */
export interface Pki {
  issuers: Issuer[];
  /** The name of a key without a name is empty. */
  keys: { id: string; name: string }[];
  /** Empty: the mount has no default issuer. */
  defaultIssuerId: string;
  /** Absent: a new issuer does not become the default issuer by itself (`default_follows_latest_issuer`). */
  followsLatest?: true;
}

/** Roles of a PKI mount: with each of them, others can have certificates signed by its issuers. */
export interface PkiRoles {
  mount: string;
  /** `unreadable`: the token may not list them. */
  names: string[] | 'unreadable';
}

/** When a version of a KV entry was written and when Vault deletes it: milliseconds since the epoch, by Vault's clock. */
export interface Lifetime {
  from: number;
  to: number;
}

/** A path in the KV mount: its entry, and the version that a check-and-set must name. */
export interface Slot<T> {
  /** KV 2: the current version, 0: never written. KV 1: always 0. */
  casVersion: number;
  /**
   * undefined: the path has no entry, or one that carries the marker of this resource and cannot be parsed. `foreign`: the entry does not
   * carry the marker of this resource.
   */
  entry: T | 'foreign' | undefined;
  /** The text in the marker field of the entry; empty: the field is missing. undefined: the path has no entry. */
  mark?: string;
  /** Set if Vault deletes the current version itself (`delete_version_after`). */
  lifetime?: Lifetime;
  /** CA entry only: content of a `foreign` entry. */
  foreign?: ForeignCaEntry;
}

/** Content of a CA entry that does not carry the marker of this resource. */
interface ForeignCaEntry {
  /** SHA-256 of the SubjectPublicKeyInfo of ca-key.pem, hex; undefined: ca-key.pem is missing or not a private key. */
  publicKey: string | undefined;
  /** CA generation; 0: the entry has none. */
  generation: number;
  /** The certificates in root-cert.pem, as PEM blocks; empty: none. */
  root: string;
  /** Names of fields that the operator does not write to a CA entry. In an entry without any marker these are all but the four files. */
  others: string[];
  /** ca-cert.pem and the certificates in cert-chain.pem; empty: neither is there. */
  certificates?: CertificateFacts[];
}

/** The CA entry (KV entry `<path>`), from which istiod's Vault Agent reads the four files. */
export interface CaEntry {
  /** CA generation. */
  generation: number;
  /** Name or id of the key in the intermediate mount; empty: the key has the name of the CA generation. */
  keyRef: string;
  /** ca-cert.pem; undefined: not a certificate. */
  certificate: CertificateFacts | undefined;
  /** cert-chain.pem, as stored. */
  chain: string;
  /** root-cert.pem, as stored. */
  root: string;
  /** SHA-256 of the SubjectPublicKeyInfo of ca-key.pem, hex; undefined: not a private key. */
  publicKey: string | undefined;
  /** The lists in ca-crl.pem, in their order. Absent: the entry has no such file. */
  lists?: RevocationList[];
  /** When ca-crl.pem last got the list of another CA, by Vault's clock, milliseconds since the epoch. Absent: an earlier version wrote the entry. */
  listsSince?: number;
  /** The CA was brought along by a user: Vault's PKI mounts have neither its key nor its certificate. Absent: it was issued. */
  imported?: true;
  /** istiod cannot read ca-key.pem, although it holds the key: something else stands before it. Absent: istiod can. */
  unreadableKey?: true;
}

/** The staging entry (KV entry `<path>-staging`): a key that the operator stored and has not published. */
export interface StagingEntry {
  /** CA generation. */
  generation: number;
  /** Name or id in the intermediate mount of a published key that is certified again; empty: a new key. */
  keyRef: string;
  /** What the key was staged for; undefined: cannot be parsed. */
  spec: IntermediateSpec | undefined;
  /** Ids of issuers that carried the key before it was staged. */
  before: string[];
  /** SHA-256 of the SubjectPublicKeyInfo of the key, hex; undefined: not a private key. */
  publicKey: string | undefined;
  /** Why the CA generation was started; the history records it. */
  reason: string;
  /** With `root.source: External`: the certificate signing request, PEM, and when it was made, RFC 3339. Absent: not made yet. */
  csr?: { pem: string; madeAt: string };
  /** With `intermediate.source: Import`: certificates of the CA, PEM, its own first, and the Secret that they are from. Absent: a key to be signed. */
  imported?: { chain: string[]; root: string; secret: string };
  /** The text of annotation `rotate-intermediate` that requested the CA generation; undefined: none did. */
  request: string | undefined;
}

/** The fields of a role of the Kubernetes auth method that the operator writes. */
export interface RoleFields {
  serviceAccountNames: string[];
  serviceAccountNamespaces: string[];
  policies: string[];
  /** Seconds. */
  tokenTtl: number;
  audience: string;
}

/** A role of the Kubernetes auth method. */
export interface KubernetesRole extends RoleFields {
  /** Names of the fields, as in the API, that the operator does not write and that have another value than the default; sorted. */
  otherFields: string[];
  /** `token_max_ttl`, seconds; absent: not set. The server refuses a longer `token_ttl`. */
  tokenMaxTtl?: number;
  /** One of the lists has more items than the operator reads. */
  more?: true;
}

/** Configuration of the Kubernetes auth method. */
export interface KubernetesAuthConfig {
  host: string;
  /** PEM. */
  caCert: string;
  disableLocalCaJwt: boolean;
  /** Whether `token_reviewer_jwt` is set; undefined: the server does not report it. */
  reviewerJwtSet: boolean | undefined;
  /** The issuer that a token must name, if the server checks it (`disable_iss_validation: false`). Absent: the server takes every issuer. */
  issuer?: string;
  /** Names of fields, as in the API, that the operator does not write and that have another value than the default; sorted. */
  otherFields: string[];
}

/** How a PKI mount signs its revocation lists. https://developer.hashicorp.com/vault/api-docs/secret/pki#set-revocation-configuration */
export interface ListSettings {
  /** Time from `thisUpdate` to `nextUpdate`, milliseconds. */
  lifeMs: number;
  /** Lists are empty. */
  disabled: boolean;
  /** Lists are renewed before they end, and a revocation is added only then. */
  autoRebuild: boolean;
  /** With `autoRebuild`: how long before its end a list is renewed, milliseconds. */
  graceMs: number;
}

/** Capabilities that the operator's token lacks on a path. */
interface MissingCapability {
  path: string;
  missing: string[];
}

export interface ObservedVault {
  product: 'Vault' | 'OpenBao';
  version: string;
  /** The node that answered is a standby. The next connection can reach another node. */
  standby: boolean;
  /** Vault's clock at the first observation of the reconcile, milliseconds since the epoch. */
  time: number;
  /** Capabilities that the operator's token lacks, by path. */
  missingCapabilities: MissingCapability[];
  /** Capabilities that it lacks and that the operator can do without. */
  missingOptional: MissingCapability[];
  /** undefined: does not exist, or `spec.audit` is not set. */
  auditDevice: { type: string; options: Record<string, string> } | undefined;
  kvMount: Mount | undefined;
  rootMount: Mount | undefined;
  intermediateMount: Mount | undefined;
  authMount: Mount | undefined;
  /** undefined: the mount does not exist, has another type, or is not owned by this resource and `spec.adopt` is not set. */
  rootPki: Pki | undefined;
  /** undefined: as for `rootPki`. */
  intermediatePki: Pki | undefined;
  /** With `root.source: Existing`: the issuers of that mount; undefined: another source. */
  existing?: ExistingIssuers;
  /** Roles of the two PKI mounts, as far as this resource owns them. */
  pkiRoles: PkiRoles[];
  /** Whether the certificate in the CA entry is revoked in the root mount. */
  liveRevoked: boolean;
  /**
   * With `delivery.crl`: Vault's present revocation lists of roots and intermediates of this resource, and of the CAs in a mount of others that sign
   * for it, by fingerprint of the certificate.
   */
  lists: Readonly<Record<string, RevocationList>>;
  /** With `delivery.crl`: how the two PKI mounts sign their lists. Absent: the mount is not there, or its content is not read. */
  listSettings: { root?: ListSettings; intermediate?: ListSettings };
  /** With `delivery.crl`: serial numbers of published intermediates, as far as they are recorded, that the root mount has revoked. */
  revokedIntermediates: string[];
  /** KV 2: `max_versions` of the CA entry; undefined: not set, or KV 1. */
  liveVersions: number | undefined;
  /** KV 2: versions of the CA entry before the current one that are not destroyed. */
  liveOlder: number[];
  /** The CA entry, KV entry `<path>`. This entry and the next two count as missing if the mount has another KV version than the spec. */
  live: Slot<CaEntry>;
  /** The staging entry, KV entry `<path>-staging`. */
  staging: Slot<StagingEntry>;
  /** The state entry, KV entry `<path>-state`. */
  state: Slot<StateEntry>;
  /** Text of istiod's policy. */
  policy: string | undefined;
  /** undefined: does not exist, or the auth mount of a managed role does not have the type `kubernetes`. */
  role: KubernetesRole | undefined;
  /** What is not managed (`manage: false`) and the token may not read; `policy` and `role` are then undefined. */
  unreadable: ('policy' | 'role')[];
  /** undefined: does not exist, or the auth mount is not owned by this resource and the token may not read its configuration. */
  authConfig: KubernetesAuthConfig | undefined;
  /** SHA-256 of the token of the token reviewer that this reconcile wrote, hex; undefined: it wrote none. */
  reviewerWritten: string | undefined;
  /** undefined: the resource is not being deleted. */
  remains: Remains | undefined;
}

/** Decides during cleanup whether shared mounts and the root mount can be removed. */
export interface Remains {
  /** Names of entries in the KV mount, except the three of this resource. */
  otherEntries: string[];
  /** Names of roles of the auth mount, except the role of this resource. */
  otherRoles: string[];
  /** Names of roles of the root mount, with which others can have certificates signed; undefined: removal of the root mount is not requested. */
  rootMountRoles: string[] | undefined;
  /** Valid certificates that the root mount issued; undefined: removal of the root mount is not requested, or there are too many to read. */
  signed: { serial: string; publicKey: string; selfIssued: boolean }[] | undefined;
}

/** Value in `StateEntry.made`: the control plane has carried the fields at least once, so istiod distributes the roots of this CA. */
export const fieldsAppliedFlag = 'fields';

/** Another field manager of a field of the control plane. */
export interface OtherManager {
  /** Name of the field manager. */
  name: string;
  /** The tool that the name of the field manager, or labels and annotations of the object, indicate. */
  tool?: 'Argo CD' | 'Flux' | 'Flux Helm' | 'Helm';
}

/** State of the control plane object, as an adapter reports it. */
export interface ControlPlaneFacts {
  /** Name of the IstioVaultCA in the owner annotation; undefined: the annotation is not set. */
  owner: string | undefined;
  /** With `write: Patch`: the operator has set every desired field. With `write: Render`: every desired field is committed. */
  carriesFields: boolean;
  /** The object contains at least one field that the operator wrote. */
  writtenBefore: boolean;
  /** Other values at the paths of desired fields, or values that override a desired field. `place` is the path. */
  conflicts: { place: string; value: string; manager?: string }[];
  /** With `write: Render`: paths of desired fields that are not committed yet. */
  missing?: string[];
  /** With `write: Render`: all desired fields are committed, so fields that the operator wrote before can be released. */
  superfluous?: boolean;
  /** Revisions of istiod that run but that the object no longer configures. */
  leftBehind?: string[];
  /** The tool that labels and annotations of the object indicate. */
  tool?: OtherManager['tool'];
  /** Field by which the object has its own operator issue a CA for istiod; undefined: it does not. */
  rivalCa?: string;
  /** Why it appears that no controller applies the object to istiod: a text for the user. undefined: no indication of it. */
  unreconciled?: string;
  /** Another field manager of a field that the operator writes. */
  managedBy?: OtherManager;
  /** Another field manager that has set such a field to the desired value. The field stays when the operator releases its own. */
  sharedWith?: OtherManager;
}

/** The object exists, but the fields cannot be written to it, for example because it is being deleted. */
export interface Unfit {
  unfit: {
    reason: 'ControlPlaneNotFound' | 'ControlPlaneUnfit' | 'Forbidden';
    /** A text for the user. */
    message: string;
    /** Name in the owner annotation. The object can carry fields from a time when it was fit. */
    owner?: string | undefined;
  };
}

/** Another field manager has reverted the operator's write too often: the operator pauses writing. */
export interface RepeatedConflict {
  /** When the operator retries, milliseconds since the epoch. */
  untilMs: number;
  /** A retry was reverted, which extends the pause. Otherwise the writes of a short time were. */
  retried: boolean;
  /** The field manager that reverted the write; undefined: unknown. */
  by: OtherManager | undefined;
}

export interface ObservedKubernetes {
  /** undefined: the object does not exist, its CRD is not installed, or the object is unfit. */
  controlPlane: ControlPlaneFacts | undefined;
  /** Set if the object is unfit. */
  controlPlaneUnfit?: Unfit['unfit'];
  /** Set while the operator pauses writing. */
  contest?: RepeatedConflict;
  /**
   * The ConfigMap with the content to commit. `current`: has the desired content; `other`: has other content; `none`: does not exist;
   * `foreign`: is not owned by this resource.
   */
  rendered: 'current' | 'other' | 'none' | 'foreign';
  /** Whether the API server serves the kind of the control plane. */
  controlPlaneServed: boolean;
  /** `us`: this resource owns or can claim the control plane. Otherwise the name of the IstioVaultCA that does. */
  ownerIs: 'us' | { name: string };
  /**
   * Service accounts of istiod's Deployments; `unreadable`: the operator lacks the permission to list them, or to list what shows which of
   * them belong to the control plane.
   */
  istiodServiceAccounts: string[] | 'unreadable';
  /** Revisions of istiod's Deployments in the namespace that do not belong to this control plane. */
  otherRevisions?: string[];
  /**
   * The longest lifetime of a workload certificate that istiod allows, milliseconds; `unknown`: istiod has no Deployment, or the operator
   * lacks the permission to list Deployments.
   */
  maxWorkloadCertTtlMs: number | 'unknown';
  /**
   * Certificates in the trust bundle that istiod publishes for this namespace (its ConfigMap, or the ClusterTrustBundle); undefined: it does
   * not exist.
   */
  meshRoots: CertificateFacts[] | undefined;
  /** Where they were read; absent: in ConfigMap `istio-ca-root-cert`. */
  meshRootsPlace?: TrustPlace | undefined;
  /** With `delivery.crl`: the lists that istiod publishes for this namespace, and the name of the ConfigMap; absent: it does not exist. */
  meshLists?: { name: string; lists: RevocationList[] } | undefined;
  /** undefined: not observed, because istiod has had the fields of this resource before. */
  mesh?: MeshEvidence;
  /**
   * With `root.source: External`: the signed certificate with its chain. Absent: the object does not exist, or another source. `unreadable`: why it
   * may not be read.
   */
  signed?: GivenCertificates | { unreadable: string };
  /** With `root.source: External`: the ConfigMap that shows the request. Absent: another source. */
  requestMap?: ObservedRequestMap;
  /** The CertificateRequest for the request that waits. Absent: the spec names no issuer of cert-manager, or nothing waits. */
  certificateRequest?: ObservedCertificateRequest;
  /** With `intermediate.source: Import`: the CA in the Secret. Absent: the Secret does not exist, or another source. `unreadable`: why it may not be read. */
  given?: GivenCa | { unreadable: string };
  /** Certificates in `rootCertRef`: roots that the CAs of others may lead to; none if the object does not exist. Absent: the spec has no such reference. */
  givenRoots?: GivenCertificates;
  /** With `delivery.crl`: the revocation lists beside the certificates that users hand in. Absent: the spec names no such object. */
  givenLists?: GivenLists[];
  injector: ObservedInjector;
  /** The setting by which istiod signs no workload certificates, in its Deployment or in the control plane object. */
  signsNothing?: string;
  /** PEM of the API server's CA for the configuration of the auth mount; undefined: this resource does not write that configuration. */
  kubernetesCa: string | undefined;
  /**
   * SHA-256 of the token of the token reviewer that the spec names, hex; undefined: the spec names none, this resource does not write the
   * configuration, or the Secret could not be read. A write of the configuration reports why.
   */
  reviewerHash: string | undefined;
  /** Issuer of the tokens of service accounts, by the API server; undefined: Vault does not check it, or it could not be read. */
  tokenIssuer: string | undefined;
  /** IstioVaultCAs of this cluster, as `namespace/name`, that markers on objects at the paths of this resource name and that do not exist. */
  goneOwners: string[];
  /** Pods and Deployments of istiod that carry the annotations of this resource; empty unless the resource is being deleted. */
  istiodUses: string[];
  /**
   * undefined: not observed, or the observation failed, which is a `Problem`. The operator observes istiod's replicas only if no step is left
   * or if it does not write (`mode: Plan`).
   */
  istiod: ObservedIstiod | undefined;
}

export interface Observed {
  vault: ObservedVault;
  kubernetes: ObservedKubernetes;
}

/** The entry of a slot; undefined: there is none, or it does not carry the marker of this resource. */
export function ownEntry<T>(slot: Slot<T>): T | undefined {
  return slot.entry === 'foreign' ? undefined : slot.entry;
}
