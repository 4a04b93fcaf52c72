/**
 * The planner: from what is wanted and what is there to what to do now. Pure; time comes in.
 *
 * Checks come first, named after the fact they find. One that blocks everything empties the steps. Then come the steps whose
 * preconditions hold now; what depends on them follows in the next round, from a new observation.
 */
import { caDigest, DerivedState } from './facts/derived.ts';
import type { Desired } from './facts/desired.ts';
import { accessSteps } from './vault/access.ts';
import { objectName, renderName } from './control-plane/istiod-fields.ts';
import * as ownership from './ownership/checks.ts';
import * as controlPlane from './control-plane/checks.ts';
import { keyStoreDeletes } from './vault/entry-lifetime.ts';
import * as roots from './vault/root-checks.ts';
import { intermediateTtlTooShort } from './vault/intermediate-checks.ts';
import { contestedField } from './control-plane/field-ownership.ts';
import { rotationProblem } from './rotation/checks.ts';
import * as servers from './vault/server-checks.ts';
import * as specChecks from './spec-checks.ts';
import { intermediateSteps } from './vault/intermediate.ts';
import type { Observed } from './facts/observed.ts';
import type { Problem } from './facts/problem.ts';
import type { Plan, Step } from './steps.ts';
import { mountSteps } from './vault/mounts.ts';
import { rootSteps } from './vault/root.ts';
import { foundationSteps, versionSteps } from './vault/foundation.ts';
import { renderSteps } from './control-plane/steps.ts';

/** Checks of the spec that need nothing but the spec; a refused spec never reaches Vault. */
export function checkSpec(d: Desired, leaderElection: boolean): Problem[] {
  return [
    specChecks.notYetSupported(d),
    specChecks.revisionOfSail(d),
    specChecks.intermediateOutlivesRoot(d),
    specChecks.renewBeforeTooLong(d),
    specChecks.agentCaMissing(d),
    specChecks.deliveryAnnotationsRefused(d),
    specChecks.kv1NeedsLeaderElection(d.spec, leaderElection),
  ].filter((problem) => problem !== undefined);
}

function checkObserved(s: DerivedState): Problem[] {
  // whoever does not own the control plane has nothing to say about the rest
  const conflict = ownership.controlPlaneConflict(s);
  if (conflict) return [conflict];
  // nothing else was read then: what is unknown must not look absent
  const denied = servers.forbidden(s);
  if (denied) return [denied];
  return [
    intermediateTtlTooShort(s),
    servers.vaultTooOld(s),
    servers.auditDeviceMissing(s),
    ownership.rootMountNotOwned(s),
    ownership.intermediateMountNotOwned(s),
    servers.keyStoreUnfit(s),
    ownership.keyStoreEntryNotOwned(s),
    servers.authMountUnfit(s),
    servers.authConfigNotOwned(s),
    ownership.policyNotOwned(s),
    ownership.roleNotOwned(s),
    ownership.adoptionMismatch(s),
    keyStoreDeletes(s),
    roots.rootLost(s),
    roots.wouldReplaceRoot(s),
    rotationProblem(s),
    controlPlane.controlPlaneNotFound(s),
    controlPlane.fieldConflict(s),
    controlPlane.injectorNotFound(s),
    controlPlane.renderNotOwned(s),
    controlPlane.awaitingCommit(s),
    controlPlane.notReconciled(s),
    contestedField(s),
  ].filter((problem) => problem !== undefined);
}

function vaultSteps(s: DerivedState): Step[] {
  const foundation = foundationSteps(s);
  if (foundation.length > 0) return foundation;
  const mounts = mountSteps(s);
  // policy and role are written blindly, the mounts are not: whoever loses the race for a mount stops before them
  if (mounts.length > 0) return mounts;
  return [...rootSteps(s), ...accessSteps(s), ...versionSteps(s), ...intermediateSteps(s)];
}

/**
 * Decides what to do now.
 * @param now milliseconds since the epoch
 */
export function plan(d: Desired, o: Observed, now: number): Plan {
  const s = new DerivedState(d, o, now);
  const problems = checkObserved(s);
  const steps = problems.some((p) => p.blocks === 'all') ? [] : allowedSteps(s, problems);
  return { problems, steps };
}

function allowedSteps(s: DerivedState, problems: Problem[]): Step[] {
  const target = s.kubernetes.controlPlane;
  const patches = s.spec.controlPlane.write === 'Patch';
  // what is taken back is not claimed again and again, nor is somebody else's ConfigMap: then the oldest resource wins, as without any
  const { contest } = s.kubernetes;
  const foreign = s.spec.controlPlane.kind === 'HelmValues' && (target?.conflicts.length ?? 0) > 0;
  if (patches && target && target.owner !== s.identity.name && !contest && !foreign)
    return [{ kind: 'ClaimControlPlane', target: objectName(s.desired) }];
  const steps = vaultSteps(s);
  if (steps.length > 0) return steps;
  const live = s.currentCa;
  const blockers = problems.filter((p) => p.blocks === 'controlPlane').map((p) => p.reason);
  if (!patches) return live ? renderSteps(s, blockers) : [];
  if (target && !target.carriesFields && blockers.length === 0 && live)
    return [{ kind: 'PatchControlPlane', digest: caDigest(live), target: objectName(s.desired) }];
  return ['current', 'other'].includes(s.kubernetes.rendered)
    ? [{ kind: 'RemoveRender', name: renderName(s.desired) }]
    : [];
}
