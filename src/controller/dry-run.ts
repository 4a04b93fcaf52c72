/** What would be done for a resource, before anything is: shared by the reconciler and by the command `plan`. */
import type { IstioVaultCA } from '../api/schema.ts';
import type { Desired } from '../plan/facts/desired.ts';
import { checkSpec, plan } from '../plan/plan.ts';
import type { Problem } from '../plan/facts/problem.ts';
import { simulate } from '../plan/simulate.ts';
import type { Step } from '../plan/steps.ts';
import type { LoopResult, SpecPolicy } from './outcome.ts';
import type { ReconcileLoop } from './reconcile-loop.ts';

function addressProblem({ spec }: IstioVaultCA, { addressAllowed }: SpecPolicy): Problem[] {
  const { address } = spec.vault;
  if (addressAllowed(address)) return [];
  const message = `spec.vault.address ${address} is not on the operator's list (--vault-addresses); use one that is, or have it added`;
  return [{ condition: 'VaultReady', reason: 'AddressNotAllowed', message, blocks: 'all' }];
}

/** What of the spec itself is refused: with any of it no server is spoken to. */
export function refusals(resource: IstioVaultCA, desired: Desired, judge: SpecPolicy): Problem[] {
  return [...addressProblem(resource, judge), ...checkSpec(desired, judge.leaderElection)];
}

/** The steps that would follow from what was seen, to the end. @param now milliseconds since the epoch */
export function simulatedSteps(desired: Desired, { observed, unfinished }: LoopResult, now: number): Step[] {
  if (!observed || !unfinished) return [];
  return simulate(desired, observed, (o) => plan(desired, o, now), now);
}

/** What would be done, and what stands in the way. */
export interface DryRun {
  steps: Step[];
  problems: Problem[];
}

/** Looks once at everything, and carries out nothing. */
export async function dryRun(
  { rounds, judge, now }: { rounds: ReconcileLoop; judge: SpecPolicy; now: () => number },
  resource: IstioVaultCA,
  desired: Desired,
  signal: AbortSignal,
): Promise<DryRun> {
  const refused = refusals(resource, desired, judge);
  if (refused.length > 0) return { steps: [], problems: refused };
  const round = await rounds.run(resource, desired, { next: plan, deleting: false, readOnly: true }, signal);
  return { steps: simulatedSteps(desired, round, now()), problems: round.problems };
}
