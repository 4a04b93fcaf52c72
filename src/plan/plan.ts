/**
 * The planner: from what is wanted and what is there to what to do now. Pure; time comes in.
 *
 * Checks come first, named after the fact they find. One that blocks everything empties the steps. Then come the steps whose
 * preconditions hold now; what depends on them follows in the next round, from a new observation.
 */
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
import { caDigest, currentCa } from './facts/derived.ts';
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

function checkObserved(d: Desired, o: Observed, now: number): Problem[] {
  // whoever does not own the control plane has nothing to say about the rest
  const conflict = ownership.controlPlaneConflict(d, o);
  if (conflict) return [conflict];
  // nothing else was read then: what is unknown must not look absent
  const denied = servers.forbidden(d, o);
  if (denied) return [denied];
  return [
    intermediateTtlTooShort(d, o),
    servers.vaultTooOld(d, o),
    servers.auditDeviceMissing(d, o),
    ownership.rootMountNotOwned(d, o),
    ownership.intermediateMountNotOwned(d, o),
    servers.keyStoreUnfit(d, o),
    ownership.keyStoreEntryNotOwned(d, o),
    servers.authMountUnfit(d, o),
    servers.authConfigNotOwned(d, o),
    ownership.policyNotOwned(d, o),
    ownership.roleNotOwned(d, o),
    ownership.adoptionMismatch(d, o),
    keyStoreDeletes(d, o),
    roots.rootLost(d, o, now),
    roots.wouldReplaceRoot(d, o),
    rotationProblem(d, o),
    controlPlane.controlPlaneNotFound(d, o),
    controlPlane.fieldConflict(d, o),
    controlPlane.injectorNotFound(d, o),
    controlPlane.renderNotOwned(d, o),
    controlPlane.awaitingCommit(d, o),
    controlPlane.notReconciled(d, o),
    contestedField(d, o, now),
  ].filter((problem) => problem !== undefined);
}

function vaultSteps(d: Desired, o: Observed, now: number): Step[] {
  const foundation = foundationSteps(d, o, now);
  if (foundation.length > 0) return foundation;
  const mounts = mountSteps(d, o);
  // policy and role are written blindly, the mounts are not: whoever loses the race for a mount stops before them
  if (mounts.length > 0) return mounts;
  return [...rootSteps(d, o), ...accessSteps(d, o), ...versionSteps(d, o), ...intermediateSteps(d, o, now)];
}

/**
 * Decides what to do now.
 * @param now milliseconds since the epoch
 */
export function plan(d: Desired, o: Observed, now: number): Plan {
  const problems = checkObserved(d, o, now);
  const steps = problems.some((p) => p.blocks === 'all') ? [] : allowedSteps(d, o, now, problems);
  return { problems, steps };
}

function allowedSteps(d: Desired, o: Observed, now: number, problems: Problem[]): Step[] {
  const target = o.kubernetes.controlPlane;
  const patches = d.spec.controlPlane.write === 'Patch';
  // what is taken back is not claimed again and again, nor is somebody else's ConfigMap: then the oldest resource wins, as without any
  const { contest } = o.kubernetes;
  const foreign = d.spec.controlPlane.kind === 'HelmValues' && (target?.conflicts.length ?? 0) > 0;
  if (patches && target && target.owner !== d.identity.name && !contest && !foreign)
    return [{ kind: 'ClaimControlPlane', target: objectName(d) }];
  const steps = vaultSteps(d, o, now);
  if (steps.length > 0) return steps;
  const live = currentCa(d, o);
  const blockers = problems.filter((p) => p.blocks === 'controlPlane').map((p) => p.reason);
  if (!patches) return live ? renderSteps(d, o, blockers) : [];
  if (target && !target.carriesFields && blockers.length === 0 && live)
    return [{ kind: 'PatchControlPlane', digest: caDigest(live), target: objectName(d) }];
  return ['current', 'other'].includes(o.kubernetes.rendered) ? [{ kind: 'RemoveRender', name: renderName(d) }] : [];
}
