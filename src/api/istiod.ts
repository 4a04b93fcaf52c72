/** Phases and reasons of `status.istiod[]`. A reason can also be one of the kubelet. */

/** Default of istiod's MAX_WORKLOAD_CERT_TTL, in milliseconds: 2160h. It limits the TTL that a workload asks for. */
export const defaultMaxWorkloadCertTtlMs = 2160 * 3_600_000;

/** Default of istiod's DEFAULT_WORKLOAD_CERT_TTL, in milliseconds: 24h. It is the TTL of a workload that asks for none. */
export const defaultWorkloadCertTtlMs = 24 * 3_600_000;

export const istiodPhases = [
  'Pending',
  'NotInjected',
  'VaultInitFailed',
  'VaultAgentFailed',
  'IstiodCrash',
  'SelfSignedFallback',
  'StaleCA',
  'Proven',
] as const;

export type IstiodPhase = (typeof istiodPhases)[number];

/**
 * Phases that a replica does not leave automatically, the most severe first. `IstiodReady` takes its reason from the first phase that a
 * replica has.
 */
export const failingPhases = [
  'SelfSignedFallback',
  'NotInjected',
  'VaultInitFailed',
  'VaultAgentFailed',
  'IstiodCrash',
  'StaleCA',
] as const satisfies readonly IstiodPhase[];

/** The reasons in `status.istiod[]` that the operator defines. docs/troubleshooting.md explains each. */
export const podReasons = [
  'Handshake',
  'Signature',
  // Pending
  'NotConfigured',
  'NoLiveCA',
  'Starting',
  'VaultInit',
  'Unschedulable',
  'NotProbed',
  'ProbeBlocked',
  'OtherCertificate',
  // injection of Vault Agent, and the consequences of a missing or wrong one
  'NotPropagated',
  'NotInjected',
  'WrongDirectory',
  'FilesMissing',
  // Vault Agent
  'LoginRefused',
  'ReadRefused',
  'SecretMissing',
  'VaultUnreachable',
  'VaultTLS',
  'VaultSealed',
  'Hanging',
  'NotReady',
  'RestartsAgain',
  // istiod
  'IncompleteBundle',
  'KeyMismatch',
  'ChainNotVerified',
  'CertificateNotYetValid',
  'ExtendedKeyUsage',
  'CALoadFailed',
  // an older CA
  'OlderIntermediate',
  'OtherRoot',
  'ChainMismatch',
  'CertificateExpired',
] as const;

export type PodReason = (typeof podReasons)[number];
