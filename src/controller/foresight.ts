/** What would be done for a resource, before anything is: shared by the reconciler and by the command `plan`. */
import type { IstioVaultCA } from '../api/schema.ts';
import type { Desired } from '../plan/desired.ts';
import { checkSpec, plan } from '../plan/plan.ts';
import type { Problem } from '../plan/problem.ts';
import { rehearse } from '../plan/rehearse.ts';
import type { Step } from '../plan/steps.ts';
import type { Round, Rounds } from './rounds.ts';

export interface Judge {
  addressAllowed: (address: string) => boolean;
  leaderElection: boolean;
}

function addressProblem({ spec }: IstioVaultCA, { addressAllowed }: Judge): Problem[] {
  const { address } = spec.vault;
  if (addressAllowed(address)) return [];
  const message = `spec.vault.address ${address} is not on the operator's list (--vault-addresses); use one that is, or have it added`;
  return [{ condition: 'VaultReady', reason: 'AddressNotAllowed', message, blocks: 'all' }];
}

/** What of the spec itself is refused: with any of it no server is spoken to. */
export function refusals(resource: IstioVaultCA, desired: Desired, judge: Judge): Problem[] {
  return [...addressProblem(resource, judge), ...checkSpec(desired, judge.leaderElection)];
}

/** The steps that would follow from what was seen, to the end. @param now milliseconds since the epoch */
export function stepsAhead(desired: Desired, { observed, unfinished }: Round, now: number): Step[] {
  if (!observed || !unfinished) return [];
  return rehearse(desired, observed, (o) => plan(desired, o, now), now);
}

/** What would be done, and what stands in the way. */
export interface Foresight {
  steps: Step[];
  problems: Problem[];
}

/** Looks once at everything, and carries out nothing. */
export async function foresee(
  { rounds, judge, now }: { rounds: Rounds; judge: Judge; now: () => number },
  resource: IstioVaultCA,
  desired: Desired,
  signal: AbortSignal,
): Promise<Foresight> {
  const refused = refusals(resource, desired, judge);
  if (refused.length > 0) return { steps: [], problems: refused };
  const round = await rounds.run(resource, desired, { next: plan, deleting: false, lookOnly: true }, signal);
  return { steps: stepsAhead(desired, round, now()), problems: round.problems };
}
