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
 * Who acts while a condition has an unfulfilled reason. `stalled`: the user; the condition `Stalled` is then present. `waiting`: the operator
 * continues by itself. `transient`: the operator retries with back-off.
 */
export type ReasonKind = 'stalled' | 'waiting' | 'transient';

/** One reason: who acts, and when the resource is reconciled again without an event. */
export interface ReasonRow {
  kind: ReasonKind;
  /** Milliseconds; absent: at the next event or `--resync`, or, if `transient`, after the back-off. */
  recheckMs?: number;
}

const stalled = { kind: 'stalled' } as const;
const transient = { kind: 'transient' } as const;
/** The user must act, and the operator sees only by reading again that it happened. */
const stalledRecheck = (seconds: number) => ({ kind: 'stalled' as const, recheckMs: seconds * 1000 });
const waiting = (seconds: number) => ({ kind: 'waiting' as const, recheckMs: seconds * 1000 });

/** Every reason of a condition that does not hold. A `Problem` overrides `recheckMs` where the time depends on what was observed. */
export const reasons = {
  // the spec is refused
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
  KVVersionMismatch: stalled,
  ControlPlaneConflict: stalled,
  ControlPlaneUnfit: stalledRecheck(30),
  FieldConflict: stalledRecheck(30),
  // rechecked at increasing intervals: see src/controller/conflict-tracker.ts
  ContestedField: stalled,
  WouldReplaceRoot: stalled,
  RootLost: stalled,
  AdoptionMismatch: stalled,
  RootSpecChanged: stalled,
  RootNearEnd: stalled,
  RootRotationNeedsBundle: stalled,
  TTLTruncated: stalledRecheck(60),
  CertificateMismatch: stalled,
  VaultTooOld: stalled,
  AuditDeviceMissing: stalled,
  // the operator continues by itself
  Sealed: waiting(15),
  Uninitialized: waiting(30),
  Standby: waiting(15),
  Forbidden: waiting(30),
  LoginFailed: waiting(30),
  RateLimited: waiting(15),
  ReferenceNotFound: waiting(30),
  ControlPlaneNotFound: waiting(30),
  AwaitingCommit: waiting(30),
  NotReconciled: waiting(30),
  InjectorNotFound: waiting(30),
  IstiodNotFound: waiting(30),
  MultiRootDisabled: waiting(30),
  IstiodNotProven: waiting(20),
  // what replicas of istiod show
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
  IntermediateExpiresSoon: waiting(30),
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
