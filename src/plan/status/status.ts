/**
 * From the last observation and what stood in the way to `status`: pure. The previous status only gives what is shown while
 * nothing can be read, and the times of transitions; it never decides anything.
 */
import { caEntryDefect, caDigest, DerivedState } from '../facts/derived.ts';
import { isDeepStrictEqual } from 'node:util';
import { annotations as known } from '../../api/annotations.ts';
import { expiryReason, holdingReason, readyChain, type StageCondition } from '../../api/conditions.ts';
import type { IstioVaultCA } from '../../api/schema.ts';
import type { Condition, Status } from '../../api/status-schema.ts';
import { rfc3339 } from '../../api/time.ts';
import { changed, newGenerationReason } from '../vault/intermediate.ts';
import type { Desired } from '../facts/desired.ts';
import { hasDigest, objectName } from '../control-plane/istiod-fields.ts';
import { expiry, intermediateMessage, rootMessage, rootRenewAt } from './expiry.ts';
import { istiodStatus, notObserved, verificationOf } from '../proof/ready.ts';
import type { Observed } from '../facts/observed.ts';
import { accessSteps } from '../vault/access.ts';
import { rotationView } from '../rotation/view.ts';
import { kindOf, type Problem } from '../facts/problem.ts';
import { describePlanned } from '../step-table.ts';
import type { Step } from '../steps.ts';

export interface StatusInput {
  resource: IstioVaultCA;
  desired: Desired;
  /** undefined: nothing could be read. */
  observed: Observed | undefined;
  problems: Problem[];
  /** `mode: Plan`: the steps that would be taken. */
  pending?: Step[];
  /** Milliseconds since the epoch. */
  now: number;
}

type ConditionState = { status: 'True' | 'False' | 'Unknown'; reason: string; message: string };

const day = (ms: number) => rfc3339(ms).slice(0, 10);

/** Facts that make a stage not hold although nothing blocks: shown, and waiting for a person or for time. */
function lastingProblems(s: DerivedState): Problem[] {
  const state = s.stateEntry;
  const root = s.signer;
  const live = s.currentCa;
  const out: Problem[] = [];
  const add = (condition: StageCondition, reason: Problem['reason'], message: string) =>
    out.push({ condition, reason, message, blocks: 'nothing' });
  if (
    root &&
    !state?.rotation &&
    state?.root?.fingerprint !== undefined &&
    !isDeepStrictEqual(state.root.spec, s.desired.root)
  ) {
    add(
      'RootReady',
      'RootSpecChanged',
      `spec.root differs from what the root was issued for (${changed(state.root.spec, s.desired.root)}); restore it, or have the root replaced: annotation ${known.rotateRoot}, see docs/rotation.md`,
    );
  }
  // a rotation that goes on is what would be asked for
  const cured = state?.rotation?.back === false;
  if (root && !cured && root.certificate.notAfter <= s.now) {
    add(
      'RootReady',
      'RootNearEnd',
      `the root ended on ${day(root.certificate.notAfter)}; a new root is needed: annotation ${known.rotateRoot}, see docs/rotation.md`,
    );
  } else if (root && live && !cured && live.certificate.notAfter >= root.certificate.notAfter) {
    add(
      'RootReady',
      'RootNearEnd',
      `the intermediate ends with its root on ${day(root.certificate.notAfter)} and cannot be renewed past it; a new root is needed: annotation ${known.rotateRoot}, see docs/rotation.md`,
    );
  }
  return out;
}

/** What was seen of each stage, when it holds: the message; else undefined. */
function holds(stage: StageCondition, s: DerivedState): string | undefined {
  const { signer: root, currentCa: live, currentIssuer: issuer, now } = s;
  switch (stage) {
    case 'VaultReady':
      return `${s.vault.product} ${s.vault.version} at ${s.spec.vault.address}`;
    case 'RootReady':
      return root && root.certificate.notAfter > now ? rootMessage(s) : undefined;
    case 'IntermediateReady':
      return live && issuer && newGenerationReason(s) === undefined && live.certificate.notAfter > now
        ? intermediateMessage(s)
        : undefined;
    case 'KeyStored':
      return live
        ? `key of generation ${live.generation} in ${s.spec.keyStore.mount}/${s.spec.keyStore.path}`
        : undefined;
    case 'AccessReady':
      return accessSteps(s).length === 0 ? accessMessage(s) : undefined;
    case 'ControlPlanePatched':
      return s.kubernetes.controlPlane?.carriesFields ? carriesMessage(s) : undefined;
    case 'IstiodReady':
      return undefined; // evaluated in src/plan/proof/ready.ts
  }
}

const carriesMessage = (s: DerivedState): string =>
  s.spec.controlPlane.write === 'Render' && s.spec.controlPlane.kind === 'HelmValues'
    ? "istiod's Deployment has every field"
    : `${objectName(s.desired)} carries every field`;

const istiodFound = (s: DerivedState): boolean => {
  const accounts = s.kubernetes.istiodServiceAccounts;
  return accounts !== 'unreadable' && accounts.length > 0;
};

function accessMessage(s: DerivedState): string {
  const accounts = (s.vault.role?.serviceAccountNames ?? []).join(', ');
  const assumed = s.spec.kubernetesAuth.serviceAccountNames === undefined && !istiodFound(s);
  const note = assumed ? ' (assumed, until there is an istiod Deployment)' : '';
  return `policy ${s.spec.policy.name}, role ${s.spec.kubernetesAuth.role} for ${accounts}${note}`;
}

/** What could not be read of istiod is not known; all else comes from its replicas. */
function istiodState(s: DerivedState | undefined, problems: Problem[]): ConditionState | undefined {
  const problem = problems.find((p) => p.condition === 'IstiodReady');
  if (problem) return { status: 'Unknown', reason: problem.reason, message: problem.message };
  return s && verificationOf(s)?.ready;
}

function conditionState(
  stage: StageCondition,
  s: DerivedState | undefined,
  { problems, pending }: Pick<StatusInput, 'problems' | 'pending'>,
): ConditionState {
  const istiod = stage === 'IstiodReady' ? istiodState(s, problems) : undefined;
  if (istiod) return istiod;
  const problem = problems.find((p) => p.condition === stage);
  if (problem) return { status: 'False', reason: problem.reason, message: problem.message };
  const message = s && holds(stage, s);
  const soon = s && expiry(stage, s);
  if (message !== undefined) return { status: 'True', reason: soon ?? holdingReason[stage], message };
  const blocker = problems.find((p) => p.blocks === 'all');
  if (s && soon === expiryReason.IntermediateReady) {
    const keeps = blocker ? `; ${blocker.condition} keeps it: ${blocker.reason}: ${blocker.message}` : '';
    return { status: 'False', reason: soon, message: `${intermediateMessage(s) ?? ''}${keeps}` };
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
    reason: 'Progressing',
    message: (s && undone(stage, s)) ?? 'not done yet',
  };
}

/** What of a stage is not done, where more than that is known. */
function undone(stage: StageCondition, s: DerivedState): string | undefined {
  if (stage === 'KeyStored') return caEntryDefect(s.caEntry);
  if (stage !== 'IntermediateReady' || !s.currentCa) return undefined;
  const reason = newGenerationReason(s);
  return reason && `a new intermediate is due: ${reason}`;
}

/** `Ready`: the first stage that does not hold. A blocker that explains stages before its own comes first. */
function readyState(stages: Map<StageCondition, ConditionState>, problems: Problem[]): ConditionState {
  const first = readyChain.find((stage) => stages.get(stage)?.status !== 'True');
  const found = first && stages.get(first);
  if (!first || !found) return { status: 'True', reason: 'Ready', message: 'every istiod replica serves this CA' };
  const blocker = problems.find((p) => p.blocks === 'all');
  if (found.status === 'Unknown' && blocker)
    return { status: 'False', reason: blocker.reason, message: blocker.message };
  return found;
}

function certificates(s: DerivedState): Pick<Status, 'root' | 'intermediate'> {
  const { signer: root, currentCa: live, currentIssuer: issuer } = s;
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
            issuerId: root.id,
            generation: root.generation,
            renewAt: rfc3339(rootRenewAt(root)),
          },
        }
      : {}),
    ...(live
      ? {
          intermediate: {
            ...facts(live.certificate),
            ...(issuer ? { issuerId: issuer.id, keyId: issuer.keyId } : {}),
            generation: live.generation,
            ...(due !== undefined ? { renewAt: rfc3339(due) } : {}),
          },
        }
      : {}),
  };
}

function controlPlaneStatus({ spec }: Desired, s: DerivedState | undefined): NonNullable<Status['controlPlane']> {
  const { kind, name, revision } = spec.controlPlane;
  const live = s?.currentCa;
  return {
    kind,
    name,
    ...(revision !== undefined ? { revision } : {}),
    ...(live && hasDigest(spec) ? { digest: caDigest(live) } : {}),
  };
}

function condition(type: string, verdictNow: ConditionState, input: Pick<StatusInput, 'resource' | 'now'>): Condition {
  const previous = input.resource.status?.conditions?.find((c) => c.type === type);
  return {
    type,
    ...verdictNow,
    observedGeneration: input.resource.metadata.generation,
    lastTransitionTime: previous?.status === verdictNow.status ? previous.lastTransitionTime : rfc3339(input.now),
  };
}

function provisioned(stages: Map<StageCondition, ConditionState>): ConditionState {
  const first = readyChain
    .filter((stage) => stage !== 'IstiodReady')
    .map((stage) => stages.get(stage))
    .find((v) => v?.status !== 'True' && v?.reason !== 'ControlPlaneNotFound' && v?.reason !== 'AwaitingCommit');
  return first ?? { status: 'True', reason: 'Provisioned', message: 'Vault and the control plane are as specified' };
}

/** The whole status. */
export function statusOf(input: StatusInput): Status {
  const { resource, desired, problems, now } = input;
  // while capabilities are missing, little was read: what was last seen stays
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
  // with mode: Plan nothing goes on by itself
  else if (ready.status !== 'True' && !pending)
    conditions.push(condition('Reconciling', { ...ready, status: 'True' }, input));
  const requested = resource.metadata.annotations[known.reconcileRequestedAt];
  const proof = s && verificationOf(s);
  const history = s?.stateEntry?.history;
  const rotation = s ? rotationView(s) : resource.status?.rotation;
  return {
    observedGeneration: resource.metadata.generation,
    ...(requested !== undefined ? { lastHandledReconcileAt: requested.slice(0, 256) } : {}),
    conditions,
    ...(s ? { vault: { product: s.vault.product, version: s.vault.version } } : shown(resource, 'vault')),
    ...(s ? certificates(s) : { ...shown(resource, 'root'), ...shown(resource, 'intermediate') }),
    controlPlane: s
      ? controlPlaneStatus(desired, s)
      : (resource.status?.controlPlane ?? controlPlaneStatus(desired, undefined)),
    ...(rotation ? { rotation } : {}),
    ...(input.pending?.length ? { plan: input.pending.slice(0, mostPlanned).map(planned) } : {}),
    ...(history ? { history } : shown(resource, 'history')),
    ...(proof ? istiodStatus(proof) : s ? {} : { ...shown(resource, 'istiodProven'), ...shown(resource, 'istiod') }),
  };
}

const mostPlanned = 64;

function planned(step: Step): NonNullable<Status['plan']>[number] {
  const { action, target, message } = describePlanned(step);
  return { action, target: target.slice(0, 512), message: message.slice(0, 1024) };
}

/** `mode: Plan` with steps to take: that is what `Ready` waits for. */
function pendingState({ pending }: StatusInput, problems: Problem[]): ConditionState | undefined {
  if (!pending?.length || problems.some((p) => p.blocks === 'all')) return undefined;
  const message = `spec.mode is Plan: ${pending.length} steps would be taken, see status.plan; set mode: Enforce to take them`;
  return { status: 'False', reason: 'ChangesPending', message };
}

/** What is shown while nothing can be read: the last that was seen. */
function shown<K extends 'vault' | 'root' | 'intermediate' | 'history' | 'istiodProven' | 'istiod'>(
  resource: IstioVaultCA,
  key: K,
): Pick<Status, K> | Record<string, never> {
  const value = resource.status?.[key];
  return value === undefined ? {} : ({ [key]: value } as Pick<Status, K>);
}

/** While the resource is being deleted: what it waits for; the rest as it was last seen. */
export function deletingStatus(resource: IstioVaultCA, problem: Problem, now: number): Status {
  const verdictNow: ConditionState = { status: 'False', reason: problem.reason, message: problem.message };
  const input = { resource, now };
  const kept = (resource.status?.conditions ?? []).filter((c) => !['Ready', 'Reconciling', 'Stalled'].includes(c.type));
  return {
    ...resource.status,
    observedGeneration: resource.metadata.generation,
    conditions: [
      condition('Ready', verdictNow, input),
      ...kept,
      condition('Reconciling', { ...verdictNow, status: 'True' }, input),
    ],
  };
}

/** `spec.suspend`: everything stays, and `Ready` keeps its status with reason `Suspended`. */
export function suspendedStatus(resource: IstioVaultCA, now: number): Status {
  const previous = resource.status?.conditions ?? [];
  const before = previous.find((c) => c.type === 'Ready');
  const ready: Condition = {
    type: 'Ready',
    status: before?.status ?? 'Unknown',
    reason: 'Suspended',
    message: 'spec.suspend is true: nothing is read or written until it is false',
    observedGeneration: resource.metadata.generation,
    lastTransitionTime: before?.lastTransitionTime ?? rfc3339(now),
  };
  const rest = previous.filter((c) => !['Ready', 'Reconciling', 'Stalled'].includes(c.type));
  return { ...resource.status, observedGeneration: resource.metadata.generation, conditions: [ready, ...rest] };
}

/** The first status of a new generation: kstatus must never take an object without conditions for finished. */
export function startingStatus(input: StatusInput): Status {
  const progressing: ConditionState = { status: 'Unknown', reason: 'Progressing', message: 'reconciling' };
  const kept = (input.resource.status?.conditions ?? []).filter(
    (c) => !['Ready', 'Reconciling', 'Stalled'].includes(c.type),
  );
  return {
    ...input.resource.status,
    observedGeneration: input.resource.metadata.generation,
    conditions: [
      condition('Ready', progressing, input),
      ...kept,
      condition('Reconciling', { ...progressing, status: 'True' }, input),
    ],
  };
}
