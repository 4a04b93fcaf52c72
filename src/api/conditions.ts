/** All condition types and reasons of the operator. docs/troubleshooting.md lists the same names. */

/** The conditions that `Ready` is derived from. The first one in this order that is not `True` determines its reason and message. */
export const readyChain = [
  'VaultReady',
  'RootReady',
  'IntermediateReady',
  'KeyStored',
  'AccessReady',
  'ControlPlanePatched',
  'IstiodReady',
] as const;

/** A condition that `Ready` is derived from. */
export type StageCondition = (typeof readyChain)[number];

/**
 * Who acts while a condition is not `True`. `stalled`: the user changes the resource or decides; the condition `Stalled` is then present.
 * `waiting`: the operator rechecks, and continues when the cause is gone, which passes by itself or lies outside of the resource.
 * `transient`: the operator retries with back-off.
 */
export type ReasonKind = 'stalled' | 'waiting' | 'transient';

/** Data of one reason: who acts, and when the resource is rechecked. */
export interface ReasonRow {
  kind: ReasonKind;
  /** Delay of the recheck in milliseconds; absent: at the next event or `--resync`, or, if `transient`, after the back-off. */
  recheckMs?: number;
}

const stalled = { kind: 'stalled' } as const;
const transient = { kind: 'transient' } as const;
/** The user must act, and no event shows that it happened, so the operator rechecks. */
const stalledRecheck = (seconds: number) => ({ kind: 'stalled' as const, recheckMs: seconds * 1000 });
const waiting = (seconds: number) => ({ kind: 'waiting' as const, recheckMs: seconds * 1000 });

/** Every reason of a condition that is not `True`. A `Problem` overrides `recheckMs` if the delay depends on what was observed. */
export const reasons = {
  // the operator rejects the spec
  InvalidSpec: stalled,
  NotYetSupported: stalled,
  IntermediateOutlivesRoot: stalled,
  IntermediateTTLTooShort: stalled,
  AgentCAMissing: stalled,
  AddressNotAllowed: stalled,
  KV1NeedsLeaderElection: stalled,
  AuthConfigNotOwned: stalled,
  // an object is not owned by this resource, or the user must decide
  MountNotOwned: stalled,
  MountTypeMismatch: stalled,
  MountRefused: stalledRecheck(60),
  KVVersionMismatch: stalled,
  ControlPlaneConflict: stalled,
  ControlPlaneUnfit: stalledRecheck(30),
  FieldConflict: stalledRecheck(30),
  // written again at increasing intervals: see src/controller/conflict-tracker.ts
  ContestedField: stalled,
  WouldReplaceRoot: stalled,
  RootNotServed: stalledRecheck(60),
  IssuerNotFound: stalledRecheck(60),
  RootLost: stalled,
  AdoptionMismatch: stalled,
  KeyUnsupported: stalled,
  RootSpecChanged: stalled,
  RootNearEnd: stalled,
  IssuerRevoked: stalled,
  RootRotationNeedsBundle: stalled,
  TTLTruncated: stalledRecheck(60),
  CertificateMismatch: stalled,
  VaultTooOld: stalled,
  AuditDeviceMissing: stalled,
  WrappingTokenInvalid: stalledRecheck(30),
  VaultNamespaceUnsupported: stalledRecheck(60),
  TooManyIssuers: stalledRecheck(300),
  // the operator continues automatically
  Sealed: waiting(15),
  Uninitialized: waiting(30),
  VaultNamespaceNotFound: waiting(30),
  VaultNamespaceSealed: waiting(15),
  VaultNamespaceLocked: waiting(15),
  Standby: waiting(15),
  Forbidden: waiting(30),
  LoginFailed: waiting(30),
  RateLimited: waiting(15),
  CADiffers: waiting(30),
  AccessDiffers: waiting(30),
  AuthConfigUnfit: waiting(30),
  AccessRestricted: waiting(60),
  ReferenceNotFound: waiting(30),
  MeshRootUnknown: waiting(15),
  AwaitingSignature: waiting(30),
  SignedCertificateRefused: waiting(30),
  AwaitingImport: waiting(30),
  ImportRefused: waiting(30),
  ControlPlaneNotFound: waiting(30),
  AwaitingCommit: waiting(30),
  NotReconciled: waiting(30),
  InjectorNotFound: waiting(30),
  IstiodNotFound: waiting(30),
  MultiRootDisabled: waiting(30),
  IstiodNotProven: waiting(20),
  // verification of istiod
  NotPropagated: waiting(20),
  PodCreateFailed: waiting(20),
  SelfSignedFallback: waiting(20),
  NotInjected: waiting(20),
  VaultInitFailed: waiting(20),
  VaultAgentFailed: waiting(20),
  IstiodCrash: waiting(20),
  StaleCA: waiting(20),
  ProbeBlocked: waiting(20),
  RolloutInProgress: waiting(20),
  RootNotDistributed: waiting(20),
  // other
  IntermediateExpiresSoon: waiting(30),
  CRLMissing: waiting(60),
  CRLNearEnd: waiting(60),
  ChangesPending: waiting(30),
  Deleting: waiting(5),
  Unreachable: transient,
  TLSFailed: waiting(30),
  VaultError: transient,
  KubernetesError: transient,
  Conflict: transient,
  InternalError: transient,
  Progressing: transient,
} as const satisfies Record<string, ReasonRow>;

export type Reason = keyof typeof reasons;

/** The reason of each condition while it is `True`. */
export const holdingReason = {
  VaultReady: 'VaultAnswers',
  RootReady: 'RootValid',
  IntermediateReady: 'IntermediateValid',
  KeyStored: 'KeyMatches',
  AccessReady: 'AccessConfigured',
  ControlPlanePatched: 'FieldsPresent',
  IstiodReady: 'IstiodProven',
} as const satisfies Record<StageCondition, string>;

/** The reason of `AccessReady` while it is `True` and the token may not read what others manage (`manage: false`). */
export const notVerifiedReason = 'NotVerified';

/** Reasons of `IntermediateReady` while it is `True` and a signature outside of Vault or a CA to import is missing, each reported once in a Warning Event. */
export const outsideReasons = [
  'AwaitingSignature',
  'SignedCertificateRefused',
  'AwaitingImport',
  'ImportRefused',
] as const satisfies readonly Reason[];

/**
 * Reasons for a certificate that expires soon, each reported once in a Warning Event. `RootReady` stays `True`. An intermediate should have
 * been renewed by then, so `IntermediateReady` is not `True`.
 */
export const expiryReason = {
  RootReady: 'RootExpiresSoon',
  IntermediateReady: 'IntermediateExpiresSoon',
} as const satisfies Partial<Record<StageCondition, string>>;
