/** Derives condition `IstiodReady`, `status.istiod` and the next recheck from the results of all istiod replicas. Pure. */
import { derivedOnce, type DerivedState } from '../facts/derived.ts';
import { missingPermission } from '../../api/permissions.ts';
import { failingPhases, type IstiodPhase } from '../../api/istiod.ts';
import { reasons, type Reason } from '../../api/conditions.ts';
import type { Status } from '../../api/status-schema.ts';
import { objectName } from '../control-plane/istiod-fields.ts';
import { expectedCa } from './handshake.ts';
import { classify, type ReplicaResult, type EvaluationInput } from './replica.ts';
import { logRequestsOf, type LogRequest } from './log-requests.ts';
import { nextChangeAt } from './containers.ts';
import { describeMissingFields, unfinishedRollout, scaledUp } from './mesh.ts';
import { listNames } from '../facts/list-names.ts';
import { bundlesOfThisMesh, unknownBundles } from '../facts/mesh-bundles.ts';
import type { Observed } from '../facts/observed.ts';
import type { IstiodDeployment, IstiodPod, ObservedIstiod } from '../facts/observed-istiod.ts';
import { describePlace } from '../facts/trust-places.ts';
import { kindOfControlPlane } from '../control-plane/kinds.ts';

/** istiod is rechecked after this time while a replica is not verified, and a handshake is not repeated sooner. Milliseconds. */
export const recheckMs = reasons.IstiodNotProven.recheckMs;

/** istiod is rechecked after this time while it has published no roots: it does so within seconds of its start. Milliseconds. */
export const recheckUnpublishedMs = 3_000;

/** Status, reason and message of condition `IstiodReady`. */
interface ReadyResult {
  status: 'True' | 'False' | 'Unknown';
  reason: Reason | 'IstiodProven';
  message: string;
}

/** Result of the verification of all istiod replicas. */
export interface Verification {
  /** Every observed replica: failing ones first, then pending ones, then verified ones; within a phase by name. */
  pods: ReplicaResult[];
  /** Number of desired replicas. */
  expected: number;
  /** Number of verified replicas. */
  proven: number;
  ready: ReadyResult;
}

/** Sort key of a phase: failing phases in order of severity, then other phases, then `Proven`. */
const rank = (phase: IstiodPhase): number => {
  const at = (failingPhases as readonly IstiodPhase[]).indexOf(phase);
  return at >= 0 ? at : failingPhases.length + (phase === 'Proven' ? 1 : 0);
};

/** Returns a function that gives the evaluation input of a Pod. */
function evaluationInputs(s: DerivedState, istiod: ObservedIstiod) {
  const ca = expectedCa(s);
  return (pod: IstiodPod): EvaluationInput => ({
    s,
    ca,
    deployment: istiod.deployments.find(({ name }) => name === pod.deployment),
  });
}

/** Returns the container logs to read, by Pod name. The observer of istiod calls this with what it has read without logs. */
export function logRequests(s: DerivedState, istiod: ObservedIstiod): Map<string, LogRequest[]> {
  const inputOf = evaluationInputs(s, istiod);
  return new Map(istiod.pods.map((pod) => [pod.name, logRequestsOf(pod, inputOf(pod))]));
}

/** Verifies every replica; `undefined`: istiod was not observed. */
export const verificationOf = derivedOnce((s: DerivedState): Verification | undefined => {
  const { istiod } = s.kubernetes;
  if (!istiod) return undefined;
  const inputOf = evaluationInputs(s, istiod);
  const pods = istiod.pods
    .map((pod) => classify(pod, inputOf(pod)))
    .sort((a, b) => rank(a.phase) - rank(b.phase) || (a.pod < b.pod ? -1 : 1));
  const expected = scaledUp(istiod).reduce((sum, { replicas }) => sum + replicas.desired, 0);
  const proven = pods.filter(({ phase }) => phase === 'Proven').length;
  return { pods, expected, proven, ready: readiness(s, istiod, pods) };
});

const readyResult = (status: ReadyResult['status'], reason: ReadyResult['reason'], message: string): ReadyResult => ({
  status,
  reason,
  message,
});

/** Returns the state of `IstiodReady`. A cause takes precedence over its consequences, so that the condition reports the cause. */
function readiness(s: DerivedState, istiod: ObservedIstiod, pods: ReplicaResult[]): ReadyResult {
  if (istiod.deployments.length === 0) return readyResult('Unknown', 'IstiodNotFound', notFound(s));
  const deployments = scaledUp(istiod);
  if (deployments.length === 0) {
    const names = listNames(istiod.deployments.map(({ name }) => name));
    return readyResult(
      'Unknown',
      'IstiodNotFound',
      `Deployment ${names} is scaled to 0 replicas: there is nothing to look at`,
    );
  }
  const problem =
    notPropagated(s, deployments, pods) ??
    podsFail(pods, ['SelfSignedFallback']) ??
    podCreateFailed(s, deployments) ??
    podsFail(pods, failingPhases) ??
    rolloutInProgress(deployments, istiod, pods) ??
    notDistributed(s, istiod, pods) ??
    podsWait(pods);
  if (problem) return problem;
  const names = listNames(deployments.map(({ name }) => name));
  return readyResult('True', 'IstiodProven', `every replica of ${names} serves a certificate of the live intermediate`);
}

/** Returns the message of `IstiodNotFound`. @param o `undefined`: nothing was read */
function notFound(o: Observed | undefined): string {
  const others = o?.kubernetes.otherRevisions ?? [];
  if (others.length > 0)
    return `no Deployment of istiod in this namespace is of this resource's revision; there are those of ${others.join(', ')} (label istio.io/rev). If one of them is meant, create this resource anew with spec.controlPlane.revision`;
  return 'no Deployment labelled app=istiod with a container "discovery" in this namespace yet; nothing to do here until the control plane rolls istiod out';
}

/**
 * Reports istiod Deployments that lack fields which the control plane has; `undefined`: there are none, or the control plane has no fields
 * yet.
 */
function notPropagated(
  s: DerivedState,
  deployments: IstiodDeployment[],
  pods: ReplicaResult[],
): ReadyResult | undefined {
  const { controlPlane } = s.kubernetes;
  const ca = expectedCa(s);
  if (!controlPlane?.carriesFields || !ca) return undefined;
  const lacking = deployments
    .map((deployment) => ({ deployment, fields: describeMissingFields(s, deployment, ca.digest) }))
    .filter(({ fields }) => fields.length > 0);
  const [first] = lacking;
  if (!first) return undefined;
  const fallback = pods.some(({ phase }) => phase === 'SelfSignedFallback')
    ? ' Meanwhile istiod signs with a CA of its own.'
    : '';
  const message = `${objectName(s.desired)} carries the fields, but Deployment ${listNames(lacking.map((l) => l.deployment.name))} does not have ${listNames(first.fields, 3)}.${fallback} It passes when ${kindOfControlPlane(s.spec).propagator(s.spec.controlPlane, s.identity.namespace)}; or look who else changes the Deployment`;
  return readyResult('False', 'NotPropagated', message);
}

/** Actions by the error text of the API server when a Pod cannot be created. The ReplicaSet controller retries automatically. */
const createRemedies: readonly (readonly [RegExp, (namespace: string) => string])[] = [
  [
    /exceeded quota|status unknown for quota/,
    (namespace) => `Raise the quota, or free what it counts: \`kubectl describe resourcequota -n ${namespace}\``,
  ],
  [
    /violates PodSecurity/,
    (namespace) =>
      `The label pod-security.kubernetes.io/enforce of namespace ${namespace} asks for more than istiod or the agent beside it has. The containers that the words name come from Istio's chart (discovery) and from the injector (vault-agent…): give them what is missing there, or set the label to baseline`,
  ],
  [
    /failed calling webhook/,
    () =>
      'That webhook does not answer, and its failurePolicy lets nothing pass without it: see whether its program runs',
  ],
  [
    /unable to validate against any security context constraint/,
    () =>
      'OpenShift chooses the user of a container, and the injector sets one for the agent: set spec.delivery.annotations vault.hashicorp.com/agent-set-security-context: "false". If the words name a container of Istio\'s, its SecurityContextConstraints are missing for istiod\'s ServiceAccount',
  ],
  [/denied the request/, () => 'That webhook refuses them: its words say why, or its log does'],
];

/** Reports a Deployment whose Pods cannot be created (Deployment condition `ReplicaFailure`); `undefined`: there is none. */
function podCreateFailed(s: DerivedState, deployments: IstiodDeployment[]): ReadyResult | undefined {
  const failed = deployments.find(({ failure }) => failure !== undefined);
  if (!failed) return undefined;
  const { namespace } = s.identity;
  const error = failed.failure ?? '';
  const next =
    createRemedies.find(([pattern]) => pattern.test(error))?.[1](namespace) ??
    `Look for a quota, Pod Security, or an admission webhook that refuses them: \`kubectl describe replicaset -n ${namespace} -l app=istiod\``;
  return readyResult('False', 'PodCreateFailed', `pods of Deployment ${failed.name} cannot be made: ${error}. ${next}`);
}

/** Reports the replicas in the first of these phases that any replica is in; `undefined`: no replica is in one of them. */
function podsFail(pods: ReplicaResult[], phases: readonly (typeof failingPhases)[number][]): ReadyResult | undefined {
  for (const phase of phases) {
    const failing = pods.filter((pod) => pod.phase === phase);
    const [first] = failing;
    if (first) return readyResult('False', phase, messageOf(first, failing));
  }
  return undefined;
}

/** Returns a message that names all given replicas and quotes the result of the first. */
const messageOf = (first: ReplicaResult, all: ReplicaResult[]): string =>
  `${listNames(all.map(({ pod }) => pod))}${first.container === undefined ? '' : ` (${first.container})`}: ${first.message}`;

/** Reports a Deployment whose rollout is not complete, with the reason why a replica is pending; `undefined`: all rollouts are complete. */
function rolloutInProgress(
  deployments: IstiodDeployment[],
  istiod: ObservedIstiod,
  pods: ReplicaResult[],
): ReadyResult | undefined {
  const unfinished = deployments.find((deployment) => unfinishedRollout(deployment, istiod) !== undefined);
  if (!unfinished) return undefined;
  const pending = pods.find(({ phase }) => phase === 'Pending');
  const state = unfinishedRollout(unfinished, istiod) ?? '';
  const why = pending ? `; ${pending.pod}: ${pending.message}` : '';
  return readyResult('Unknown', 'RolloutInProgress', `Deployment ${unfinished.name}: ${state}${why}`);
}

/**
 * Reports trust bundles without the roots of this CA; `undefined`: there are none, or there is no valid CA. An istiod that serves a certificate of
 * somebody else publishes the roots of that one, and workloads get those of this CA with their certificates.
 */
function notDistributed(s: DerivedState, istiod: ObservedIstiod, pods: ReplicaResult[]): ReadyResult | undefined {
  const ca = expectedCa(s);
  if (!ca || pods.some(({ reason }) => reason === 'OtherCertificate')) return undefined;
  const bundles = bundlesOfThisMesh(s, istiod);
  if (typeof bundles === 'string') return readyResult('Unknown', 'Forbidden', unknownBundles(bundles, istiod.places));
  if (bundles.length === 0) return nothingPublished(istiod);
  const roots = ca.roots.map((root) => root.fingerprint);
  const lacking = bundles.filter((bundle) => !roots.every((root) => bundle.roots.includes(root)));
  const [first] = lacking;
  if (!first) return undefined;
  const namespaces = lacking.flatMap(({ namespace }) => namespace ?? []).sort();
  const of = namespaces.length === 0 ? '' : ` of namespace ${listNames(namespaces)}`;
  const remedy = namespaces.length === 0 ? '' : '. Of a namespace that is of no mesh any more, delete the ConfigMap';
  const message = `${describePlace(first.place)}${of} does not hold the root of this CA: workloads there do not trust it. istiod writes it within seconds of its start; if it lasts, see istiod's log and what else writes it${remedy}`;
  return readyResult('False', 'RootNotDistributed', message);
}

/** Reports an istiod that publishes no roots: workloads that start get none. */
function nothingPublished({ places }: ObservedIstiod): ReadyResult {
  const api = places.some(({ kind }) => kind === 'ClusterTrustBundle')
    ? 'An API server that does not serve ClusterTrustBundles (certificates.k8s.io, by feature gate ClusterTrustBundle and --runtime-config) leaves istiod without a place to publish in: enable the API there, or take ENABLE_CLUSTER_TRUST_BUNDLE_API from istiod'
    : "see istiod's log";
  const where = places.length === 0 ? 'a place that is not known' : places.map(describePlace).join(' or ');
  return readyResult(
    'False',
    'RootNotDistributed',
    `istiod has published no roots as ${where}: workloads that start do not trust this CA. istiod writes them within seconds of its start; if it lasts: ${api}`,
  );
}

/** Reports replicas that are pending although none fails; `undefined`: every replica is verified. */
function podsWait(pods: ReplicaResult[]): ReadyResult | undefined {
  const pending = pods.filter(({ phase }) => phase !== 'Proven');
  const first = pending.find(({ reason }) => reason === 'ProbeBlocked') ?? pending[0];
  if (!first) return undefined;
  const reason = first.reason === 'ProbeBlocked' ? 'ProbeBlocked' : 'IstiodNotProven';
  return readyResult(
    'Unknown',
    reason,
    messageOf(
      first,
      pending.filter((pod) => pod.reason === first.reason),
    ),
  );
}

/** Returns the state of `IstiodReady` while istiod was not observed. @param o `undefined`: nothing was read */
export function notObserved(o: Observed | undefined): ReadyResult {
  const accounts = o?.kubernetes.istiodServiceAccounts ?? [];
  if (accounts === 'unreadable')
    return readyResult(
      'Unknown',
      'Forbidden',
      o?.kubernetes.controlPlaneUnfit?.reason === 'Forbidden'
        ? o.kubernetes.controlPlaneUnfit.message
        : missingPermission({ verb: 'list', group: 'apps', resource: 'deployments' }),
    );
  if (accounts.length === 0) return readyResult('Unknown', 'IstiodNotFound', notFound(o));
  return readyResult('Unknown', 'IstiodNotProven', 'not looked at yet: that follows when nothing else is left to do');
}

/** Maximum number of replicas in `status.istiod`. */
const mostShown = 100;

/** Returns the status fields about replicas; empty if no replica exists or is desired. */
export function istiodStatus(verification: Verification): Pick<Status, 'istiodProven' | 'istiod'> {
  const { pods, proven, expected } = verification;
  if (expected === 0 && pods.length === 0) return {};
  return { istiodProven: `${proven}/${expected}`, istiod: pods.slice(0, mostShown) };
}

/**
 * Returns when istiod must be rechecked, in milliseconds from now. `undefined`: not before something changes or the next resync, because
 * all replicas are verified, there is no istiod, or istiod was not observed.
 */
export function recheckIn(s: DerivedState): number | undefined {
  const verification = verificationOf(s);
  if (!verification || verification.ready.status === 'True' || verification.ready.reason === 'IstiodNotFound')
    return undefined;
  const changes = (s.kubernetes.istiod?.pods ?? []).flatMap((pod) => nextChangeAt(pod, s.now) ?? []);
  const { bundles } = s.kubernetes.istiod ?? {};
  const unpublished = verification.ready.reason === 'RootNotDistributed' && bundles?.length === 0;
  return Math.min(unpublished ? recheckUnpublishedMs : recheckMs, ...changes.map((at) => at - s.now));
}
