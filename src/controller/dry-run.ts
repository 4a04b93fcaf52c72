/** Dry run of a resource: which specs are refused and which steps would follow. The reconciler and the command `plan` share it. */
import type { IstioVaultCA } from '../api/schema.ts';
import type { Desired } from '../plan/facts/desired.ts';
import { checkSpec, plan } from '../plan/plan.ts';
import type { Problem } from '../plan/facts/problem.ts';
import { simulate } from '../plan/simulate.ts';
import type { Step } from '../plan/steps.ts';
import type { LoopResult, SpecPolicy } from './outcome.ts';
import type { ReconcileLoop } from './reconcile-loop.ts';

/** The addresses of the spec that the flags of the operator do not permit. */
function addressProblems({ spec }: IstioVaultCA, policy: SpecPolicy): Problem[] {
  const { address, injectorAddress } = spec.vault;
  const refuse = (condition: Problem['condition'], field: string, value: string, flag: string): Problem => ({
    condition,
    reason: 'AddressNotAllowed',
    message: `spec.vault.${field} ${value} is not on the operator's list (${flag}); use one that is, or have it added`,
    blocks: 'all',
  });
  if (!policy.addressAllowed(address)) return [refuse('VaultReady', 'address', address, '--vault-addresses')];
  // without an address of its own, the agent is given that of the operator
  const given = injectorAddress ?? address;
  const field = injectorAddress === undefined ? 'address' : 'injectorAddress';
  return policy.injectorAddressAllowed(given) ? [] : [refuse('VaultReady', field, given, '--injector-addresses')];
}

/** Returns the problems of the spec itself. With any of them, the operator sends no request to a Vault server. */
export function refusals(resource: IstioVaultCA, desired: Desired, policy: SpecPolicy): Problem[] {
  return [...addressProblems(resource, policy), ...checkSpec(desired, policy.leaderElection)];
}

/**
 * Returns all steps that would follow from an observation; empty if nothing could be read or nothing is to be done.
 * @param now milliseconds since the epoch
 */
export function simulatedSteps(desired: Desired, { observed, unfinished }: LoopResult, now: number): Step[] {
  if (!observed || !unfinished) return [];
  return simulate(desired, observed, (o) => plan(desired, o, now), now);
}

/** Result of a dry run: the steps that the operator would execute, and the problems. */
export interface DryRun {
  steps: Step[];
  problems: Problem[];
}

/** Observes a resource once and returns the steps that would follow. Nothing is written. */
export async function dryRun(
  { loop, policy, now }: { loop: ReconcileLoop; policy: SpecPolicy; now: () => number },
  resource: IstioVaultCA,
  desired: Desired,
  signal: AbortSignal,
): Promise<DryRun> {
  const refused = refusals(resource, desired, policy);
  if (refused.length > 0) return { steps: [], problems: refused };
  const result = await loop.run(resource, desired, { next: plan, deleting: false, readOnly: true }, signal);
  return { steps: simulatedSteps(desired, result, now()), problems: result.problems };
}
