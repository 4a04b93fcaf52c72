/** Condition types and every reason of the operator, in one place. docs/troubleshooting lists the same names. */

/** The chain that `Ready` is derived from, in order: the first that does not hold gives reason and message. */
export const readyChain = [
  'VaultReady',
  'RootReady',
  'IntermediateReady',
  'KeyStored',
  'AccessReady',
  'ControlPlanePatched',
  'IstiodReady',
] as const;

/** The conditions that describe a stage. */
export type StageCondition = (typeof readyChain)[number];

/**
 * What an unfulfilled reason asks for.
 * `stalled`: a person must act, nothing is tried until something changes. `waiting`: looked at again by itself after a
 * while. `transient`: tried again with back-off.
 */
export type ReasonKind = 'stalled' | 'waiting' | 'transient';

/** Reasons of conditions that do not hold, with what they ask for. */
export const reasonKinds = {
  // refused spec
  InvalidSpec: 'stalled',
  NotYetSupported: 'stalled',
  IntermediateOutlivesRoot: 'stalled',
  IntermediateTTLTooShort: 'stalled',
  AgentCAMissing: 'stalled',
  AddressNotAllowed: 'stalled',
  KV1NeedsLeaderElection: 'stalled',
  AuthConfigNotOwned: 'stalled',
  // somebody else's, or a person's decision
  MountNotOwned: 'stalled',
  MountTypeMismatch: 'stalled',
  KVVersionMismatch: 'stalled',
  ControlPlaneConflict: 'stalled',
  ControlPlaneUnfit: 'stalled',
  FieldConflict: 'stalled',
  ContestedField: 'stalled',
  WouldReplaceRoot: 'stalled',
  RootLost: 'stalled',
  AdoptionMismatch: 'stalled',
  RootSpecChanged: 'stalled',
  RootNearEnd: 'stalled',
  RootRotationNeedsBundle: 'stalled',
  TTLTruncated: 'stalled',
  CertificateMismatch: 'stalled',
  VaultTooOld: 'stalled',
  AuditDeviceMissing: 'stalled',
  // it goes on by itself
  Sealed: 'waiting',
  Uninitialized: 'waiting',
  Standby: 'waiting',
  Forbidden: 'waiting',
  LoginFailed: 'waiting',
  RateLimited: 'waiting',
  ReferenceNotFound: 'waiting',
  ControlPlaneNotFound: 'waiting',
  AwaitingCommit: 'waiting',
  NotReconciled: 'waiting',
  InjectorNotFound: 'waiting',
  IstiodNotFound: 'waiting',
  MultiRootDisabled: 'waiting',
  IstiodNotProven: 'waiting',
  // what replicas of istiod show; each is looked at again every 20 s
  NotPropagated: 'waiting',
  PodCreateFailed: 'waiting',
  SelfSignedFallback: 'waiting',
  NotInjected: 'waiting',
  VaultInitFailed: 'waiting',
  VaultAgentFailed: 'waiting',
  IstiodCrash: 'waiting',
  StaleCA: 'waiting',
  ProbeBlocked: 'waiting',
  RolloutInProgress: 'waiting',
  RootNotDistributed: 'waiting',
  IntermediateExpiresSoon: 'waiting',
  ChangesPending: 'waiting',
  Deleting: 'waiting',
  Unreachable: 'transient',
  TLSFailed: 'waiting',
  VaultError: 'transient',
  KubernetesError: 'transient',
  Conflict: 'transient',
  InternalError: 'transient',
  Progressing: 'transient',
} as const satisfies Record<string, ReasonKind>;

export type Reason = keyof typeof reasonKinds;

/** Reasons of conditions that hold. */
export const holdingReason = {
  VaultReady: 'VaultAnswers',
  RootReady: 'RootValid',
  IntermediateReady: 'IntermediateValid',
  KeyStored: 'KeyMatches',
  AccessReady: 'AccessConfigured',
  ControlPlanePatched: 'FieldsPresent',
  IstiodReady: 'IstiodProven',
} as const satisfies Record<StageCondition, string>;

/** A certificate comes near its end: each is told once in a Warning. A root still holds then; an intermediate should have been renewed. */
export const expiryReason = {
  RootReady: 'RootExpiresSoon',
  IntermediateReady: 'IntermediateExpiresSoon',
} as const satisfies Partial<Record<StageCondition, string>>;
