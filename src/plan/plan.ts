/**
 * The planner: from what is wanted and what is there to what to do now. Pure; time comes in.
 *
 * Checks come first, named after the fact they find. One that blocks everything empties the steps. Then come the steps whose
 * preconditions hold now; what depends on them follows in the next round, from a new observation.
 */
import { isDeepStrictEqual } from 'node:util';
import { annotations } from '../api/annotations.ts';
import type { Desired, RootSpec } from './desired.ts';
import { desiredAuthConfig, desiredRole, objectName, policyText, renderName } from './desired.ts';
import * as ownership from './checks/ownership.ts';
import * as controlPlane from './checks/control-plane.ts';
import { keyStoreDeletes, writtenAnew } from './checks/lifetime.ts';
import * as roots from './checks/roots.ts';
import { intermediateTtlTooShort } from './checks/intermediate.ts';
import { contestedField } from './checks/peace.ts';
import { rotationProblem } from './checks/rotation.ts';
import * as servers from './checks/servers.ts';
import * as specChecks from './checks/spec.ts';
import { currentRoot, liveDigest, ownIssuers, soundLive } from './facts.ts';
import { markFor, ownsAuthMount, things, type Thing } from './adoption.ts';
import { generationName } from './identity.ts';
import { intermediateSteps } from './intermediate.ts';
import {
  fieldsOnceThere,
  own,
  type KubernetesAuthConfig,
  type Mount,
  type Observed,
  type StateEntry,
} from './observed.ts';
import type { Problem } from './problem.ts';
import { intendedState } from './state.ts';
import type { Step } from './steps.ts';

export interface Plan {
  problems: Problem[];
  /** May run side by side. */
  steps: Step[];
}

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

/** A mount as it must be: made if absent, tuned back if it drifted, its mark written when it was taken over or its uid is another. */
function pkiMountSteps(
  d: Desired,
  o: Observed,
  mount: string,
  found: { mount: Mount; thing: Thing } | undefined,
  ttl: number,
): Step[] {
  if (!found) return [{ kind: 'MountPKI', mount, maxLeaseTtl: ttl, description: d.mark }];
  const { maxLeaseTtl, description } = found.mount;
  const mark = markFor(d, o, found.thing);
  // a longer limit than the spec asks is left: certificates issued under it may still live
  if (description.includes(mark) && maxLeaseTtl >= ttl) return [];
  return [{ kind: 'TuneMount', mount, maxLeaseTtl: Math.max(ttl, maxLeaseTtl), description: mark }];
}

function mountSteps(d: Desired, o: Observed): Step[] {
  const { rootMount, intermediateMount } = things(d, o.vault);
  const found = (mount: Mount | undefined, thing: Thing | undefined) => (mount && thing ? { mount, thing } : undefined);
  const { root, intermediate } = d.spec;
  return [
    ...pkiMountSteps(d, o, root.mount, found(o.vault.rootMount, rootMount), d.root.ttl),
    ...pkiMountSteps(d, o, intermediate.mount, found(o.vault.intermediateMount, intermediateMount), d.intermediate.ttl),
  ];
}

function rootSteps(d: Desired, o: Observed): Step[] {
  const { rootPki } = o.vault;
  const { mount } = d.spec.root;
  if (!rootPki) return [];
  const root = currentRoot(d, o);
  const state = own(o.vault.state);
  const generate = (generation: number, spec: RootSpec): Step => {
    const name = generationName(d.identity, 'root', generation);
    return { kind: 'GenerateRoot', mount, name, spec, existingKey: rootPki.keys.some((key) => key.name === name) };
  };
  if (!root) return [generate((state?.root?.generation ?? 0) + 1, d.root)];
  const steps: Step[] = [];
  // with PKI delivery istiod's root-cert.pem is the default issuer; in a mount that was taken over others may sign by it
  const fixed = d.spec.delivery.source === 'PKI' || !state?.adopted.includes(`mount:${mount}`);
  if (fixed && rootPki.defaultIssuerId !== root.id) steps.push({ kind: 'SetDefaultIssuer', mount, issuerId: root.id });
  const next = state?.rotation?.phase === 'Issuing' ? state.rotation.to : undefined;
  if (next && !ownIssuers(d, 'root', o.vault).some((issuer) => issuer.generation === next.generation))
    steps.push(generate(next.generation, next.spec));
  return steps;
}

function sameAuthConfig(a: KubernetesAuthConfig, b: KubernetesAuthConfig): boolean {
  return (
    a.host === b.host &&
    a.caCert.trim() === b.caCert.trim() &&
    a.disableLocalCaJwt === b.disableLocalCaJwt &&
    (a.reviewerJwtSet === undefined || b.reviewerJwtSet === undefined || a.reviewerJwtSet === b.reviewerJwtSet)
  );
}

export function accessSteps(d: Desired, o: Observed): Step[] {
  const steps: Step[] = [];
  const { mount, role } = d.spec.kubernetesAuth;
  const text = policyText(d, markFor(d, o, things(d, o.vault).policy));
  if (o.vault.policy?.trim() !== text.trim()) steps.push({ kind: 'WritePolicy', name: d.spec.policy.name, text });
  if (!o.vault.authMount) return [...steps, { kind: 'EnableAuth', mount, description: d.mark }];
  if (ownsAuthMount(d, o.vault) && o.kubernetes.kubernetesCa !== undefined) {
    const config = desiredAuthConfig(d, o.kubernetes.kubernetesCa);
    if (!o.vault.authConfig || !sameAuthConfig(o.vault.authConfig, config))
      steps.push({ kind: 'WriteAuthConfig', mount, config });
  }
  const fields = desiredRole(d, o.kubernetes, o.vault.role);
  const current = o.vault.role;
  if (!current || JSON.stringify(fields) !== JSON.stringify({ ...fields, ...current })) {
    steps.push({ kind: 'WriteRole', mount, role, fields });
  }
  return steps;
}

/** A phase of a rotation is worth an Event of its own, and so is a roll-back that is not done. */
function whyRecorded(before: StateEntry | undefined, after: StateEntry): { reason: string; event?: string } {
  const [was, is] = [before?.rotation, after.rotation];
  if (before && !before.made.includes(fieldsOnceThere) && after.made.includes(fieldsOnceThere))
    return { reason: 'the control plane carries the fields' };
  if (was?.phase === is?.phase && was?.back === is?.back && was?.reachedAt === is?.reachedAt) {
    const answered = before?.handled[annotations.rollbackRotation] !== after.handled[annotations.rollbackRotation];
    if (is && !is.back && answered)
      return { reason: `root rotation goes on: ${is.phase}, and no way back`, event: 'RootRotationNotRolledBack' };
    return { reason: 'what is about to be made' };
  }
  if (!is)
    return {
      reason: `root rotation ${was?.back ? 'rolled back' : 'finished'}`,
      event: was?.back ? 'RootRotationRolledBack' : 'RootRotated',
    };
  if (!before) return { reason: 'a root rotation that was found goes on', event: 'RootRotationPhase' };
  if (!was) return { reason: 'root rotation begins', event: 'RootRotationStarted' };
  if (was.back && !is.back)
    return { reason: 'root rotation turns forward again: the root before cannot sign', event: 'RootRotationPhase' };
  const way = is.back ? ', on its way back' : '';
  const reached = is.reachedAt === undefined ? '' : ' is everywhere; workload certificates run out';
  return {
    reason: `root rotation: ${is.phase}${way}${reached}`,
    event: is.back && !was.back ? 'RootRotationCalledOff' : 'RootRotationPhase',
  };
}

/** The key store, the memory in it, then what the memory must know of beforehand; strictly in this order. */
function foundationSteps(d: Desired, o: Observed, now: number): Step[] {
  const { keyStore, audit } = d.spec;
  if (!o.vault.kvMount) {
    return [{ kind: 'MountKV', mount: keyStore.mount, version: keyStore.version, description: d.mark }];
  }
  const state = intendedState(d, o, now);
  if (!isDeepStrictEqual(state, own(o.vault.state))) {
    return [{ kind: 'WriteState', state, cas: o.vault.state.casVersion, ...whyRecorded(own(o.vault.state), state) }];
  }
  if (writtenAnew(o.vault.state, o))
    return [{ kind: 'WriteState', state, cas: o.vault.state.casVersion, reason: 'Vault would have deleted it' }];
  if (!audit || o.vault.auditDevice) return [];
  return [{ kind: 'EnableAudit', path: audit.path, type: audit.type, options: audit.options }];
}

function vaultSteps(d: Desired, o: Observed, now: number): Step[] {
  const foundation = foundationSteps(d, o, now);
  if (foundation.length > 0) return foundation;
  const mounts = mountSteps(d, o);
  // policy and role are written blindly, the mounts are not: whoever loses the race for a mount stops before them
  if (mounts.length > 0) return mounts;
  return [...rootSteps(d, o), ...accessSteps(d, o), ...versionSteps(d, o), ...intermediateSteps(d, o, now)];
}

/** istiod's policy reads older versions of the live entry too: only the one before it is kept. */
const keptVersions = 2;

/** Vault then deletes those that are too many at the next write: not where a person's are among them. */
function versionSteps(d: Desired, o: Observed): Step[] {
  const limited = d.spec.keyStore.version === 1 || o.vault.liveVersions === keptVersions;
  if (limited || own(o.vault.state)?.stood) return [];
  return [{ kind: 'LimitVersions', versions: keptVersions }];
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

/** How the target is does not matter for what is shown: it may come from the same repository. */
const aboutTarget: ReadonlySet<string> = new Set(['ControlPlaneNotFound', 'ControlPlaneUnfit', 'FieldConflict']);

/**
 * What is to be committed is shown when it would be written otherwise: not before istiod could use it. What this operator has written
 * itself before stays until others hold it too, and then goes.
 */
function renderSteps(d: Desired, { kubernetes }: Observed, blockers: string[]): Step[] {
  const { rendered, controlPlane } = kubernetes;
  if (rendered !== 'foreign' && rendered !== 'current' && blockers.every((reason) => aboutTarget.has(reason)))
    return [{ kind: 'PublishRender', name: renderName(d), again: rendered === 'other' }];
  if (!controlPlane?.superfluous || controlPlane.owner !== d.identity.name) return [];
  return [{ kind: 'ReleaseControlPlane', target: objectName(d) }];
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
  const live = soundLive(d, o);
  const blockers = problems.filter((p) => p.blocks === 'controlPlane').map((p) => p.reason);
  if (!patches) return live ? renderSteps(d, o, blockers) : [];
  if (target && !target.carriesFields && blockers.length === 0 && live)
    return [{ kind: 'PatchControlPlane', digest: liveDigest(live), target: objectName(d) }];
  return ['current', 'other'].includes(o.kubernetes.rendered) ? [{ kind: 'RemoveRender', name: renderName(d) }] : [];
}
