/**
 * Derives `status` from the last observation and the problems. The previous status provides only transition times and the fields that are
 * shown while nothing can be read. No decision depends on it. Pure.
 */
import { caEntryDefect, caDigest } from '../facts/ca-entry.ts';
import { DerivedState } from '../facts/derived.ts';
import { isRevoked } from '../facts/revoked.ts';
import { isDeepStrictEqual } from 'node:util';
import { annotations as known } from '../../api/annotations.ts';
import { expiryReason, readyChain, type StageCondition } from '../../api/conditions.ts';
import type { IstioVaultCA } from '../../api/schema.ts';
import type { Condition, Status } from '../../api/status-schema.ts';
import { rfc3339 } from '../../api/time.ts';
import { cut } from '../../text/bounded.ts';
import { changed, newGenerationReason } from '../vault/intermediate.ts';
import { awaitedCsr } from '../facts/outside-roots.ts';
import type { Desired } from '../facts/desired.ts';
import { hasDigest } from '../control-plane/istiod-fields.ts';
import { day, expiry, intermediateMessage, rootRenewAt } from './expiry.ts';
import { istiodStatus, notObserved, verificationOf } from '../proof/ready.ts';
import type { Observed } from '../facts/observed.ts';
import { holdingMessage, reasonWhileTrue } from './holding.ts';
import { rotationView } from '../rotation/view.ts';
import { kindOf, type Problem } from '../facts/problem.ts';
import { describePlanned } from '../step-table.ts';
import type { Step } from '../steps.ts';

export interface StatusInput {
  resource: IstioVaultCA;
  desired: Desired;
  /** Result of the last observation; `undefined`: nothing could be read. */
  observed: Observed | undefined;
  problems: Problem[];
  /** With `spec.mode: Plan`: the steps that the operator would execute. */
  pending?: Step[];
  /** Milliseconds since the epoch. */
  now: number;
}

type ConditionState = { status: 'True' | 'False' | 'Unknown'; reason: string; message: string };

/** How a new root comes, for the user. */
function newRootRemedy({ checksOnly, issuesRoot, rootIsOthers, imports, spec }: DerivedState): string {
  if (checksOnly && !issuesRoot) return 'whoever manages the CA must replace it, see docs/checks.md';
  if (checksOnly)
    return `spec.intermediate.manage: true, without which the operator rotates no root, then annotation ${known.rotateRoot}, see docs/rotation.md`;
  const before =
    rootIsOthers && !imports
      ? `whoever manages mount ${spec.root.mount}/ makes it there and makes it the default issuer, then `
      : '';
  return `${before}annotation ${known.rotateRoot}, see docs/rotation.md`;
}

/** Returns problems of certificates that block nothing: a changed root spec, and a root that expired or limits the intermediate. */
function lastingProblems(s: DerivedState): Problem[] {
  const state = s.stateEntry;
  const root = s.signer;
  const ca = s.currentCa;
  const lasting: Problem[] = [];
  const add = (condition: StageCondition, reason: Problem['reason'], message: string) =>
    lasting.push({ condition, reason, message, blocks: 'nothing' });
  if (
    root &&
    !state?.rotation &&
    !s.imports &&
    !s.awaitsFirstIssue &&
    // what others made is compared with the certificate itself
    !s.rootIsOthers &&
    state?.root?.fingerprint !== undefined &&
    !isDeepStrictEqual(state.root.spec, s.desired.root)
  ) {
    add(
      'RootReady',
      'RootSpecChanged',
      `spec.root differs from what the root was issued for (${changed(state.root.spec, s.desired.root)}); restore it, or have the root replaced: ${newRootRemedy(s)}`,
    );
  }
  // a rotation toward a new root is already the action that the message would ask for
  const replacing = state?.rotation?.back === false;
  const next = replacing && state.rotation ? s.findRoot(state.rotation.to) : undefined;
  if (next?.revoked) {
    add(
      'RootReady',
      'IssuerRevoked',
      `the new root ${next.certificate.serial} was revoked in ${s.spec.root.mount}: the rotation stops. Roll it back (annotation ${known.rollbackRotation}), then have the root replaced again, see docs/rotation.md`,
    );
  } else if (root?.revoked && !replacing) {
    add(
      'RootReady',
      'IssuerRevoked',
      `the root ${root.certificate.serial} was revoked in ${s.spec.root.mount} and signs nothing any more; istiod goes on with the intermediate that it has, which cannot be renewed. A new root is needed: ${newRootRemedy(s)}`,
    );
  }
  if (root && !replacing && root.certificate.notAfter <= s.now) {
    add(
      'RootReady',
      'RootNearEnd',
      `the root ended on ${day(root.certificate.notAfter)}; a new root is needed: ${newRootRemedy(s)}`,
    );
  } else if (root && ca && !ca.imported && !replacing && ca.certificate.notAfter >= (s.signingEnd ?? Infinity)) {
    const end = day(s.signingEnd ?? root.certificate.notAfter);
    const what = s.signingEnd === root.certificate.notAfter ? 'its root' : 'the issuer that signed it';
    const needed = s.signingEnd === root.certificate.notAfter ? 'a new root' : 'another issuer';
    add(
      'RootReady',
      'RootNearEnd',
      `the intermediate ends with ${what} on ${end} and cannot be renewed past it; ${needed} is needed: ${newRootRemedy(s)}`,
    );
  }
  return lasting;
}

/**
 * Returns the state of `IstiodReady`: `Unknown` if istiod is unreadable, else the result of its replicas. `undefined`: istiod was not
 * observed.
 */
function istiodState(s: DerivedState | undefined, problems: Problem[]): ConditionState | undefined {
  const problem = problems.find((p) => p.condition === 'IstiodReady');
  if (problem) return { status: 'Unknown', reason: problem.reason, message: problem.message };
  return s && verificationOf(s)?.ready;
}

/** Returns the state of a stage condition. @param s `undefined`: nothing could be read */
function conditionState(
  stage: StageCondition,
  s: DerivedState | undefined,
  { problems, pending }: Pick<StatusInput, 'problems' | 'pending'>,
): ConditionState {
  const istiod = stage === 'IstiodReady' ? istiodState(s, problems) : undefined;
  if (istiod) return istiod;
  const problem = problems.find((p) => p.condition === stage);
  if (problem) return { status: 'False', reason: problem.reason, message: problem.message };
  const message = s && holdingMessage(stage, s);
  const expiring = s && expiry(stage, s);
  if (s && message !== undefined) return { status: 'True', reason: expiring ?? reasonWhileTrue(stage, s), message };
  const blocker = problems.find((p) => p.blocks === 'all');
  if (s && expiring === expiryReason.IntermediateReady) {
    const cause = blocker ? `; ${blocker.condition} keeps it: ${blocker.reason}: ${blocker.message}` : '';
    return { status: 'False', reason: expiring, message: `${intermediateMessage(s) ?? ''}${cause}` };
  }
  if (blocker)
    return {
      status: 'Unknown',
      reason: blocker.reason,
      message: `not done or not known: ${blocker.condition} says why`,
    };
  if (stage === 'IstiodReady') return notObserved(s?.observed);
  if (pending) return { status: 'False', reason: 'ChangesPending', message: 'not done: spec.mode is Plan' };
  return {
    status: 'False',
    reason: stage === 'IntermediateReady' && s && isRevoked(s) ? 'IssuerRevoked' : 'Progressing',
    message: (s && progressMessage(stage, s)) ?? 'not done yet',
  };
}

/** Returns what a stage still lacks, for its message; `undefined`: no detail is known. */
function progressMessage(stage: StageCondition, s: DerivedState): string | undefined {
  if (stage === 'KeyStored') return caEntryDefect(s.caEntry);
  if (stage !== 'IntermediateReady' || !s.currentCa) return undefined;
  const reason = newGenerationReason(s);
  return reason && `a new intermediate is due: ${reason}`;
}

/**
 * Returns the state of `Ready`: the state of the first condition that is not `True`. If that condition is `Unknown` and a problem blocks
 * everything, `Ready` shows the problem.
 */
function readyState(stages: Map<StageCondition, ConditionState>, problems: Problem[]): ConditionState {
  const first = readyChain.find((stage) => stages.get(stage)?.status !== 'True');
  const state = first && stages.get(first);
  if (!first || !state) return { status: 'True', reason: 'Ready', message: 'every istiod replica serves this CA' };
  const blocker = problems.find((p) => p.blocks === 'all');
  if (state.status === 'Unknown' && blocker)
    return { status: 'False', reason: blocker.reason, message: blocker.message };
  return state;
}

/** Returns `status.root` and `status.intermediate`, each only if it exists. */
function certificates(s: DerivedState): Pick<Status, 'root' | 'intermediate'> {
  const { signer: root, currentCa: ca, currentIssuer: issuer } = s;
  const facts = (c: { serial: string; fingerprint: string; notBefore: number; notAfter: number }) => ({
    serial: c.serial,
    fingerprint: c.fingerprint,
    notBefore: rfc3339(c.notBefore),
    notAfter: rfc3339(c.notAfter),
  });
  const due = s.renewAt;
  return {
    ...(root
      ? {
          root: {
            ...facts(root.certificate),
            ...(root.id === '' ? {} : { issuerId: root.id }),
            generation: root.generation,
            renewAt: rfc3339(rootRenewAt(root)),
          },
        }
      : {}),
    ...(ca
      ? {
          intermediate: {
            ...facts(ca.certificate),
            ...(issuer ? { issuerId: issuer.id, keyId: issuer.keyId } : {}),
            generation: ca.generation,
            ...(due !== undefined ? { renewAt: rfc3339(due) } : {}),
          },
        }
      : {}),
  };
}

/** Returns `status.csr` while a signature outside of Vault is missing. @param s `undefined`: nothing could be read */
function csrOf(s: DerivedState | undefined, { status }: IstioVaultCA): Pick<Status, 'csr'> {
  const csr = s ? awaitedCsr(s) : status?.csr;
  return csr === undefined ? {} : { csr };
}

/** Returns `status.controlPlane`. @param s `undefined`: nothing could be read */
function controlPlaneStatus({ spec }: Desired, s: DerivedState | undefined): NonNullable<Status['controlPlane']> {
  const { kind, name, revision } = spec.controlPlane;
  const ca = s?.currentCa;
  return {
    kind,
    name,
    ...(revision !== undefined ? { revision } : {}),
    ...(ca && hasDigest(spec) ? { digest: caDigest(ca) } : {}),
  };
}

/** Maximum length of a message, in UTF-16 code units. The API server would refuse a status with a message of more than 32768 characters. */
const longestMessage = 8192;

/** Returns a condition; its transition time changes only with its status. */
function condition(type: string, state: ConditionState, input: Pick<StatusInput, 'resource' | 'now'>): Condition {
  const previous = input.resource.status?.conditions?.find((c) => c.type === type);
  return {
    type,
    ...state,
    message: cut(state.message, longestMessage),
    observedGeneration: input.resource.metadata.generation,
    lastTransitionTime: previous?.status === state.status ? previous.lastTransitionTime : rfc3339(input.now),
  };
}

/** Returns the state of `Provisioned`: `Ready` without istiod, without a missing control plane, and without fields that await a commit. */
function provisioned(stages: Map<StageCondition, ConditionState>): ConditionState {
  const first = readyChain
    .filter((stage) => stage !== 'IstiodReady')
    .map((stage) => stages.get(stage))
    .find(
      (state) =>
        state?.status !== 'True' && state?.reason !== 'ControlPlaneNotFound' && state?.reason !== 'AwaitingCommit',
    );
  return first ?? { status: 'True', reason: 'Provisioned', message: 'Vault and the control plane are as specified' };
}

/** Returns the complete status. */
export function statusOf(input: StatusInput): Status {
  const { resource, desired, problems, now } = input;
  // if capabilities are missing, little was read, so the status keeps the fields of the last complete observation
  const observed = input.observed?.vault.missingCapabilities.length === 0 ? input.observed : undefined;
  const s = observed && new DerivedState(desired, observed, now);
  const all = [...problems, ...(s ? lastingProblems(s) : [])];
  const stages = new Map(readyChain.map((stage) => [stage, conditionState(stage, s, { ...input, problems: all })]));
  const pending = pendingState(input, all);
  const ready = pending ?? readyState(stages, all);
  const stalling = all.filter((p) => kindOf(p) === 'stalled');
  const stalled = stalling.find((p) => p.reason === ready.reason) ?? stalling[0];
  const conditions = [
    condition('Ready', ready, input),
    ...readyChain.map((stage) => condition(stage, stages.get(stage) ?? ready, input)),
    condition('Provisioned', provisioned(stages), input),
  ];
  if (stalled)
    conditions.push(condition('Stalled', { status: 'True', reason: stalled.reason, message: stalled.message }, input));
  // with pending steps and mode: Plan, the operator does not continue automatically
  else if (ready.status !== 'True' && !pending)
    conditions.push(condition('Reconciling', { ...ready, status: 'True' }, input));
  const requested = resource.metadata.annotations[known.reconcileRequestedAt];
  const verification = s && verificationOf(s);
  const history = s?.stateEntry?.history;
  const rotation = s ? rotationView(s) : resource.status?.rotation;
  return {
    observedGeneration: resource.metadata.generation,
    ...(requested !== undefined ? { lastHandledReconcileAt: requested.slice(0, 256) } : {}),
    conditions,
    ...(s ? { vault: { product: s.vault.product, version: s.vault.version } } : previousField(resource, 'vault')),
    ...(s ? certificates(s) : { ...previousField(resource, 'root'), ...previousField(resource, 'intermediate') }),
    ...csrOf(s, resource),
    controlPlane: s
      ? controlPlaneStatus(desired, s)
      : (resource.status?.controlPlane ?? controlPlaneStatus(desired, undefined)),
    ...(rotation ? { rotation } : {}),
    ...(input.pending?.length ? { plan: input.pending.slice(0, mostPlanned).map(planned) } : {}),
    ...(history ? { history } : previousField(resource, 'history')),
    ...(verification
      ? istiodStatus(verification)
      : s
        ? {}
        : { ...previousField(resource, 'istiodProven'), ...previousField(resource, 'istiod') }),
  };
}

/** Maximum number of entries in `status.plan`. */
const mostPlanned = 64;

/** Returns the entry of a step in `status.plan`. */
function planned(step: Step): NonNullable<Status['plan']>[number] {
  const { action, target, message } = describePlanned(step);
  return { action, target: target.slice(0, 512), message: message.slice(0, 1024) };
}

/** Returns the state of `Ready` with `spec.mode: Plan` and pending steps; `undefined`: no step is pending, or a problem blocks everything. */
function pendingState({ pending }: StatusInput, problems: Problem[]): ConditionState | undefined {
  if (!pending?.length || problems.some((p) => p.blocks === 'all')) return undefined;
  const message = `spec.mode is Plan: ${pending.length} steps would be taken, see status.plan; set mode: Enforce to take them`;
  return { status: 'False', reason: 'ChangesPending', message };
}

/** Returns a field of the previous status, to show while nothing can be read; empty if it was not set. */
function previousField<K extends 'vault' | 'root' | 'intermediate' | 'history' | 'istiodProven' | 'istiod'>(
  resource: IstioVaultCA,
  key: K,
): Pick<Status, K> | Record<string, never> {
  const value = resource.status?.[key];
  return value === undefined ? {} : ({ [key]: value } as Pick<Status, K>);
}

/** Returns the conditions of the previous status except `Ready`, `Reconciling` and `Stalled`. */
const stageConditions = ({ status }: IstioVaultCA): Condition[] =>
  (status?.conditions ?? []).filter(({ type }) => !['Ready', 'Reconciling', 'Stalled'].includes(type));

/** Returns the status of a resource that is being deleted: the problem that its cleanup waits for, and otherwise the last fields. */
export function deletingStatus(resource: IstioVaultCA, problem: Problem, now: number): Status {
  const state: ConditionState = { status: 'False', reason: problem.reason, message: problem.message };
  const input = { resource, now };
  return {
    ...resource.status,
    observedGeneration: resource.metadata.generation,
    conditions: [
      condition('Ready', state, input),
      ...stageConditions(resource),
      condition('Reconciling', { ...state, status: 'True' }, input),
    ],
  };
}

/** Returns the status with `spec.suspend`: all fields stay, and `Ready` keeps its status and gets the reason `Suspended`. */
export function suspendedStatus(resource: IstioVaultCA, now: number): Status {
  const before = resource.status?.conditions?.find((c) => c.type === 'Ready');
  const ready: Condition = {
    type: 'Ready',
    status: before?.status ?? 'Unknown',
    reason: 'Suspended',
    message: 'spec.suspend is true: nothing is read or written until it is false',
    observedGeneration: resource.metadata.generation,
    lastTransitionTime: before?.lastTransitionTime ?? rfc3339(now),
  };
  return {
    ...resource.status,
    observedGeneration: resource.metadata.generation,
    conditions: [ready, ...stageConditions(resource)],
  };
}

/**
 * Returns the first status of a new resource generation, with condition `Reconciling`. kstatus considers an object without conditions as
 * reconciled.
 * Source: https://github.com/kubernetes-sigs/cli-utils/blob/master/pkg/kstatus/README.md
 */
export function startingStatus(input: StatusInput): Status {
  const progressing: ConditionState = { status: 'Unknown', reason: 'Progressing', message: 'reconciling' };
  return {
    ...input.resource.status,
    observedGeneration: input.resource.metadata.generation,
    conditions: [
      condition('Ready', progressing, input),
      ...stageConditions(input.resource),
      condition('Reconciling', { ...progressing, status: 'True' }, input),
    ],
  };
}
