/**
 * The planner: derives problems and steps from the desired and the observed state. Pure; the time is an argument.
 *
 * Checks run first; each is named after the problem that it finds. If a problem blocks all writes, the plan has no steps. Otherwise it has the
 * steps whose preconditions hold now. Steps that depend on them follow in the next iteration, from a new observation.
 */
import { caDigest } from './facts/ca-entry.ts';
import { DerivedState } from './facts/derived.ts';
import type { Desired } from './facts/desired.ts';
import { accessRestricted, accessSteps, authConfigUnfit, authMountAbsent, reviewerSteps } from './vault/access.ts';
import { objectName, renderName } from './control-plane/istiod-fields.ts';
import * as ownership from './ownership/checks.ts';
import * as controlPlane from './control-plane/checks.ts';
import { keyStoreDeletes } from './vault/entry-lifetime.ts';
import { crlMissing, crlNearEnd, crlUnderSharedRoot } from './vault/revocation-list-checks.ts';
import { listSettingsSteps } from './vault/revocation-lists.ts';
import * as others from './vault/unmanaged-ca.ts';
import * as outside from './vault/outside-root-checks.ts';
import * as roots from './vault/root-checks.ts';
import { wouldReplaceRoot } from './vault/mesh-root-checks.ts';
import { intermediateTtlTooShort } from './vault/intermediate-ttl.ts';
import { accessDiffers } from './vault/unmanaged-access.ts';
import { contestedField } from './control-plane/field-ownership.ts';
import { rotationProblem } from './rotation/checks.ts';
import * as servers from './vault/server-checks.ts';
import { signatureRequestSteps } from './vault/signature-requests.ts';
import * as specChecks from './spec-checks.ts';
import { intermediateSteps } from './vault/intermediate.ts';
import type { Observed } from './facts/observed.ts';
import type { Problem } from './facts/problem.ts';
import type { Plan, Step } from './steps.ts';
import { mountSteps } from './vault/mounts.ts';
import { rootSteps } from './vault/root.ts';
import { foundationSteps, versionSteps } from './vault/foundation.ts';
import { renderSteps } from './control-plane/steps.ts';
import { kindOfControlPlane } from './control-plane/kinds.ts';

/** Problems that the spec alone shows. If there is one, the operator does not connect to Vault. */
export function checkSpec(d: Desired, leaderElection: boolean): Problem[] {
  return [
    specChecks.notYetSupported(d),
    specChecks.revisionNotSettable(d),
    specChecks.signedInRequestMap(d),
    specChecks.sharedRefused(d),
    specChecks.intermediateOutlivesRoot(d),
    specChecks.renewBeforeTooLong(d),
    specChecks.agentCaMissing(d),
    specChecks.deliveryAnnotationsRefused(d),
    specChecks.auditRefused(d),
    specChecks.kv1NeedsLeaderElection(d.spec, leaderElection),
  ].filter((problem) => problem !== undefined);
}

/** Problems of a root outside, and of a CA that comes from outside of Vault: none while others make the intermediate. */
const outsideProblems = (s: DerivedState): (Problem | undefined)[] =>
  s.checksOnly
    ? []
    : [
        outside.issuerNotFound(s),
        outside.rootNotServed(s),
        outside.outsideUnreadable(s),
        outside.rootAwaited(s),
        outside.outsideMissing(s),
        outside.importedCaLost(s),
        outside.importAwaitsRotation(s),
      ];

/** Problems that the observation shows, in the order in which a condition shows them. */
function checkObserved(s: DerivedState): Problem[] {
  // the other problems do not concern a resource that does not own the control plane
  const conflict = ownership.controlPlaneConflict(s);
  if (conflict) return [conflict];
  // without these capabilities most of Vault was not read, and objects only appear to be missing
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
    authMountAbsent(s),
    accessDiffers(s),
    authConfigUnfit(s),
    accessRestricted(s),
    ownership.adoptionMismatch(s),
    ownership.keyUnsupported(s),
    keyStoreDeletes(s),
    crlUnderSharedRoot(s),
    crlNearEnd(s),
    crlMissing(s),
    roots.rootLost(s),
    others.rootDiffers(s),
    others.intermediateDiffers(s),
    others.keyStoreDiffers(s),
    ...outsideProblems(s),
    controlPlane.istiodSignsNothing(s),
    wouldReplaceRoot(s),
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

/** Steps in Vault: foundation, mounts, then everything else in parallel. */
function vaultSteps(s: DerivedState): Step[] {
  const foundation = foundationSteps(s);
  if (foundation.length > 0) return foundation;
  const mounts = mountSteps(s);
  // Vault refuses to create a mount that exists, but overwrites a policy and a role: a resource that loses the race for a mount stops here
  if (mounts.length > 0) return mounts;
  // before the first issuer, whose list Vault signs at once
  const listSettings = listSettingsSteps(s);
  if (listSettings.length > 0) return listSettings;
  const reviewer = reviewerSteps(s);
  if (reviewer.length > 0) return reviewer;
  return [...rootSteps(s), ...accessSteps(s), ...versionSteps(s), ...intermediateSteps(s)];
}

/**
 * Plans the next iteration.
 * @param now milliseconds since the epoch
 */
export function plan(d: Desired, o: Observed, now: number): Plan {
  const s = new DerivedState(d, o, now);
  const problems = checkObserved(s);
  const steps = problems.some((p) => p.blocks === 'all') ? [] : allowedSteps(s, problems);
  return { problems, steps };
}

/** Steps if no problem blocks all writes: claim the control plane, then steps in Vault, then the fields of the control plane. */
function allowedSteps(s: DerivedState, problems: Problem[]): Step[] {
  const target = s.kubernetes.controlPlane;
  const patches = s.spec.controlPlane.write === 'Patch';
  // no claim while others revert the fields, or if others own the ConfigMap with Helm values; unclaimed, the oldest IstioVaultCA is the owner
  const { contest } = s.kubernetes;
  const foreign = kindOfControlPlane(s.spec).dedicated && (target?.conflicts.length ?? 0) > 0;
  if (patches && target && target.owner !== s.identity.name && !contest && !foreign)
    return [{ kind: 'ClaimControlPlane', target: objectName(s.desired) }];
  const steps = vaultSteps(s);
  if (steps.length > 0) return steps;
  // a request that cannot be shown keeps nothing else from being done
  return [...signatureRequestSteps(s), ...controlPlaneSteps(s, problems)];
}

/** Steps that give the fields to the control plane, or show them. */
function controlPlaneSteps(s: DerivedState, problems: Problem[]): Step[] {
  const target = s.kubernetes.controlPlane;
  const ca = s.currentCa;
  const blockers = problems.filter((p) => p.blocks === 'controlPlane').map((p) => p.reason);
  if (s.spec.controlPlane.write !== 'Patch') return ca ? renderSteps(s, blockers) : [];
  if (target && !target.carriesFields && blockers.length === 0 && ca)
    return [{ kind: 'PatchControlPlane', digest: caDigest(ca), target: objectName(s.desired) }];
  return ['current', 'other'].includes(s.kubernetes.rendered)
    ? [{ kind: 'RemoveRender', name: renderName(s.desired) }]
    : [];
}
