/**
 * The steps of a plan: plain data without secrets. Each step is idempotent or guarded by a check-and-set version. What each kind means is in
 * `step-table.ts`, one row a kind; how it is executed in Vault, in `src/vault/execute.ts`.
 */
import type { IntermediateSpec, RootSpec, StateEntry } from './facts/state-entry.ts';
import type { KubernetesAuthConfig, ListSettings, RoleFields } from './facts/observed.ts';
import type { Problem } from './facts/problem.ts';
import type { IssuerRef } from './facts/signature-request.ts';

/**
 * Why a CA is published again with the same key and certificates: Vault would delete the entry; istiod cannot read the key as it is stored; the
 * lists are of other CAs, have other serial numbers, or half of their time is over; the spec asks for no lists any more.
 */
export type RepeatReason = 'lifetime' | 'keyForm' | 'lists' | 'revoked' | 'listsDue' | 'withdrawn';

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
  | {
      kind: 'WriteAuthConfig';
      mount: string;
      config: KubernetesAuthConfig;
      /** SHA-256 of the token of the token reviewer, hex; undefined: not known, or none. */
      reviewer: string | undefined;
    }
  | { kind: 'WritePolicy'; name: string; text: string }
  | {
      kind: 'WriteRole';
      mount: string;
      role: string;
      fields: RoleFields;
      /** Fields that let in more than the role is for, with the value that undoes it, by their names in the API. */
      resets: Readonly<Record<string, string | number>>;
    }
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
      kind: 'ImportCA';
      generation: number;
      spec: IntermediateSpec;
      /** Name of the Secret. */
      secret: string;
      /** SHA-256 of the SubjectPublicKeyInfo of the key, hex. */
      publicKey: string;
      /** PEM: the certificate of the CA first, then those above it, without the root unless it is the CA itself. */
      chain: string[];
      /** PEM. */
      root: string;
      cas: number;
      reason: string;
    }
  | {
      kind: 'RemoveStaging';
      generation: number;
      version: number;
      /** KV 2: the version before it holds the same key, without the certificate signing request. */
      twice?: true;
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
  | {
      kind: 'RecordCSR';
      generation: number;
      /** Id of the key in the mount. */
      keyId: string;
      spec: IntermediateSpec;
      cas: number;
    }
  | {
      kind: 'InstallSigned';
      mount: string;
      generation: number;
      /** PEM: the certificate, then the CAs above it in ascending order, without the root. */
      chain: string[];
      /** Set when it is valid for clearly less than `intermediate.ttl`: its end, RFC 3339. */
      notAfter?: string;
    }
  | { kind: 'InstallCertificate'; mount: string; generation: number }
  | {
      kind: 'PublishLive';
      /** Where the key is: in staging, or in the CA entry itself, be it ours or taken over. */
      from: 'staging' | 'live' | 'adopted';
      generation: number;
      /** Empty: the CA was imported. */
      issuerId: string;
      /** Of an imported CA: its certificates, PEM, its own first. */
      chain?: string[];
      /** Of an imported CA that is published for the first time: the Secret that it is from. */
      secret?: string;
      /** The roots that istiod hands out, PEM, in their order in root-cert.pem. */
      roots: readonly string[];
      /** The revocation lists, PEM; none: the entry gets no ca-crl.pem. */
      lists: readonly string[];
      /** When they last got the list of another CA, RFC 3339. Absent: there are none. */
      listsSince?: string;
      /** Name or id of the key in the mount; empty: the generation's own name. */
      keyRef: string;
      mark: string;
      cas: number;
      /** Key and certificates stay the same: why they are written again. */
      same?: RepeatReason;
      /** Set if lists are taken out of the entry: when the first of them ends, milliseconds since the epoch; Infinity: never. */
      listsEnd?: number;
    }
  | { kind: 'RotateCRL'; mount: string }
  | { kind: 'ConfigureCRL'; mount: string; settings: ListSettings }
  | { kind: 'SetDefaultIssuer'; mount: string; issuerId: string }
  | { kind: 'RestoreUsage'; mount: string; issuerId: string; usages: string[] }
  | { kind: 'Collect'; mount: string; issuerIds: string[]; keyIds: string[]; what: string }
  | { kind: 'PatchControlPlane'; digest: string; target: string }
  | { kind: 'PublishRender'; name: string; again: boolean }
  | { kind: 'RemoveRender'; name: string }
  | { kind: 'PublishCSR'; name: string; csr: string; again: boolean }
  | {
      kind: 'RemoveCSR';
      name: string;
      /** Somebody has put other keys into the ConfigMap: only the request is removed. */
      others: boolean;
    }
  | { kind: 'RequestSignature'; name: string; csr: string; issuer: IssuerRef }
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

/** The step of one kind. */
export type StepOf<K extends StepKind> = Extract<Step, { kind: K }>;
