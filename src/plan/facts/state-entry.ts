/**
 * Data of the state entry, KV entry `<path>-state`, which must survive the loss of everything else: issued certificates, a root rotation in
 * progress, owned objects, handled annotation texts and history. No key material.
 */

/**
 * Properties of a root certificate. A change of any of them takes effect only with annotation `rotate-root`. Of a root that this resource does not
 * issue they are empty, or 0, except `issuerRef`.
 */
export interface RootSpec {
  commonName: string;
  organization: string;
  /** Seconds. */
  ttl: number;
  keyType: 'rsa' | 'ec';
  keyBits: number;
  /** With `root.source: Existing`: the name or id of the issuer in the spec; `default`: the default issuer of the mount. Absent: another source. */
  issuerRef?: string;
}

/** Properties of an intermediate certificate. A change of any of them starts a new CA generation. */
export interface IntermediateSpec extends RootSpec {
  source: 'Issue' | 'Import';
  /** Name of the Secret with the key to import; empty: none. */
  importRef: string;
  maxPathLength: number;
}

/** The record of a root. */
export interface IssuedRoot extends Issued<RootSpec> {
  /** Certificate of a root that no mount of this resource holds, PEM. Absent: the root mount of this resource holds it. */
  certificate?: string;
}

/** One issued certificate. Without `fingerprint`, only the intent to issue it is recorded. */
export interface Issued<S> {
  /** CA generation. */
  generation: number;
  /** The properties that the certificate was requested with. */
  spec: S;
  issuerId?: string;
  keyId?: string;
  serial?: string;
  fingerprint?: string;
}

export interface HistoryEntry {
  /** RFC 3339. */
  time: string;
  kind: 'Root' | 'Intermediate';
  serial: string;
  fingerprint: string;
  reason: string;
}

export type RotationPhase = 'Issuing' | 'Distributing' | 'Switching' | 'Retiring';

/** A root rotation in progress. Until the rotation ends, `StateEntry.root` is the root that it began with. */
export interface Rotation {
  phase: RotationPhase;
  /** RFC 3339. */
  startedAt: string;
  /**
   * When the change of the phase was first observed on every replica and in every namespace, RFC 3339. Workload certificates from before
   * expire from then on.
   */
  reachedAt?: string;
  /** The new root, with its ids once it is created. */
  to: IssuedRoot;
  /** The rotation is being rolled back to the root that it began with. */
  back: boolean;
  /**
   * This resource did not start the rotation, or lost the record of it. Which workloads trust the root that the rotation retires is unknown,
   * so the rotation is not rolled back while the new root exists.
   */
  found?: boolean;
  /** The longest lifetime of a workload certificate that istiod allowed at any observation of the rotation, milliseconds; 0: unknown. */
  longestMs: number;
  /**
   * With `root.shared`: the phase waits for annotation `members-ready`, and texts from before it did so are handled. Absent: it does not wait for
   * that yet, or `Distributing`, where texts since the rotation began count.
   */
  awaitsMembers?: true;
}

/** Since when the mesh trusts one of the roots of another resource under whose root this one signs. */
export interface TrustedRoot {
  /** When it was first observed on every replica and in every namespace, RFC 3339. Absent: not observed yet, or not any more. */
  reachedAt?: string;
  /** As in `Rotation`, since the root was first handed out. */
  longestMs: number;
}

/** Versions of the CA entry that the operator did not write. */
interface PreexistingVersions {
  /** The newest of them, which is the adopted one if the entry was adopted. The operator never destroys the versions before it. */
  version: number;
  /** SHA-256 of the SubjectPublicKeyInfo of the key in that version, hex; undefined: the version contains no private key. */
  publicKey?: string;
}

/**
 * The state entry without what it records of the CA, and of what the mesh trusts by it.
 * @param keepsRoot keeps the record of the root
 */
export function withoutCa(state: StateEntry, keepsRoot: boolean): StateEntry {
  const rest = { ...state };
  delete rest.intermediate;
  delete rest.rotation;
  delete rest.trustedRoots;
  if (!keepsRoot) delete rest.root;
  return rest;
}

/** Content of the state entry. */
export interface StateEntry {
  /** The highest CA generation of an intermediate that was used, whether published or given up. */
  highestGeneration: number;
  /** The current root; during a rotation, the root that it began with. A mere intent has the CA generation before that of the root to create. */
  root?: IssuedRoot;
  /** The current intermediate. A mere intent has the CA generation 0. */
  intermediate?: Issued<IntermediateSpec> & {
    /**
     * With `delivery.crl`: when every replica of istiod was first observed to serve this intermediate, RFC 3339. Workload certificates of the
     * intermediates before it expire from then on. Absent: not observed yet.
     */
    servedAt?: string;
  };
  /** undefined: no root rotation is in progress. */
  rotation?: Rotation;
  /** With `root.source: Existing` in the mount of another IstioVaultCA: its roots that are handed out, by fingerprint. Absent: another mount. */
  trustedRoots?: Record<string, TrustedRoot>;
  /** Name of the Kubernetes auth role that this resource owns, recorded before the role is written; empty: it owns none (`manage: false`). */
  role: string;
  /** SHA-256 of the token of the token reviewer in the configuration of the auth mount, hex; absent: none was written. */
  reviewer?: string;
  /** Names of objects that this resource created, as `kind:path`, and the flag `fields` (see `fieldsAppliedFlag` in `observed.ts`). */
  made: string[];
  /** Names of objects that this resource adopted, as `kind:path`. */
  adopted: string[];
  /** KV 2: set if the CA entry had versions that the operator did not write before the first publication. */
  stood?: PreexistingVersions;
  /** SHA-256 of the SubjectPublicKeyInfo of the intermediate keys, hex: the newest 200 CA generations, newest first. */
  publicKeys: string[];
  /** Texts of action annotations whose action was taken, by annotation. */
  handled: Record<string, string>;
  /** Newest first, at most ten. */
  history: HistoryEntry[];
}
