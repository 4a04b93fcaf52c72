/**
 * Data recorded in the state entry, KV entry `<path>-state`: what must survive the loss of everything else. Issued certificates, a root
 * rotation in progress, handled annotation texts and history, without key material.
 */
/** What a root is issued for; a change of any of these waits for `rotate-root`. TTL in seconds. */
export interface RootSpec {
  commonName: string;
  organization: string;
  ttl: number;
  keyType: 'rsa' | 'ec';
  keyBits: number;
}

/** What an intermediate is issued for; a change of any of these asks for a new generation. TTL in seconds. */
export interface IntermediateSpec extends RootSpec {
  source: 'Issue' | 'Import';
  importRef: string;
  maxPathLength: number;
}

/** What is recorded of one issued certificate. */
export interface Issued<S> {
  generation: number;
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
/** A root rotation under way. `StateEntry.root` is the root that it began with, until its end. */
export interface Rotation {
  phase: RotationPhase;
  /** RFC 3339. */
  startedAt: string;
  /** When every replica was first seen to have what the phase brought, RFC 3339: from then on older workload certificates run out. */
  reachedAt?: string;
  /** The root that it leads to; with its ids once that is made. */
  to: Issued<RootSpec>;
  /** It was called off, and leads back to the root that it began with. */
  back: boolean;
  /** It was found under way, and who trusts the root that it leads away from is not known: it is not rolled back. */
  found?: boolean;
  /** The longest workload certificate that istiod was seen to allow since it began, milliseconds; 0: not seen yet. */
  longestMs: number;
}

/** Versions of the live entry that a person wrote. */
interface PreexistingVersions {
  /** The last of them, which was taken over: the ones before it are none of our business. */
  version: number;
  /** Hash of the public half of the key in it; undefined when it holds none. */
  publicKey?: string;
}

/** `<path>-state`: what must survive the loss of everything else. No key material. */
export interface StateEntry {
  highestGeneration: number;
  root?: Issued<RootSpec>;
  intermediate?: Issued<IntermediateSpec>;
  rotation?: Rotation;
  /** The Kubernetes auth role that is ours, recorded before it is written. */
  role: string;
  /** Names of shared things that we made, as `kind:path`. */
  made: string[];
  /** Names of what was taken over from somebody else, as `kind:path`. */
  adopted: string[];
  /** KV 2: what stood in the live entry before the first publication, where it was not an operator's. */
  stood?: PreexistingVersions;
  /** Public halves (SHA-256 of the SubjectPublicKeyInfo) of the intermediate keys of all generations, newest first. */
  publicKeys: string[];
  /** Texts of action annotations that are done, by annotation. */
  handled: Record<string, string>;
  /** Newest first, ten at most. */
  history: HistoryEntry[];
}
