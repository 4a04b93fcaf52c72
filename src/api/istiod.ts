/** Words of `status.istiod[]`: the phases of the contract, and our own reasons. The kubelet's words may stand as reason too. */

/** The longest workload certificate that istiod allows where MAX_WORKLOAD_CERT_TTL does not say otherwise: 2160h, in milliseconds. */
export const defaultMaxWorkloadCertTtlMs = 2160 * 3_600_000;

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

/** Phases that a replica does not leave by waiting, the gravest first: `IstiodReady` takes its reason from the first that is there. */
export const failingPhases = [
  'SelfSignedFallback',
  'NotInjected',
  'VaultInitFailed',
  'VaultAgentFailed',
  'IstiodCrash',
  'StaleCA',
] as const satisfies readonly IstiodPhase[];

/** Every reason of ours in `status.istiod[]`; docs/troubleshooting.md explains each. */
export const podReasons = [
  'Handshake',
  // Pending
  'NotConfigured',
  'NoLiveCA',
  'Starting',
  'VaultInit',
  'Unschedulable',
  'NotProbed',
  'ProbeBlocked',
  // what the injector did not do, and what follows
  'NotPropagated',
  'NotInjected',
  'WrongDirectory',
  'FilesMissing',
  // the Vault agent
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
  'CALoadFailed',
  // an older CA
  'OlderIntermediate',
  'OtherRoot',
  'ChainMismatch',
  'CertificateExpired',
] as const;

export type PodReason = (typeof podReasons)[number];
