/** What all replicas together mean: `IstiodReady`, `status.istiod`, and when to look again. Pure. */
import { derivedOnce, type DerivedState } from '../facts/derived.ts';
import { failingPhases, type IstiodPhase } from '../../api/istiod.ts';
import { reasons, type Reason } from '../../api/conditions.ts';
import type { Status } from '../../api/status-schema.ts';
import type { Desired } from '../facts/desired.ts';
import { objectName } from '../control-plane/istiod-fields.ts';
import { expectedCa } from './handshake.ts';
import { classify, type ReplicaResult, type EvaluationInput } from './replica.ts';
import { logRequestsOf, type LogRequest } from './log-requests.ts';
import { nextTurn } from './containers.ts';
import { bundlesOfMesh, lackedBy, rolloutLeft, several, wanted } from './mesh.ts';
import type { Observed } from '../facts/observed.ts';
import type { IstiodDeployment, IstiodPod, ObservedIstiod } from '../facts/observed-istiod.ts';

/** While something is not proven it is looked at again after this, in milliseconds; handshakes are not repeated sooner. */
export const recheckMs = reasons.IstiodNotProven.recheckMs;

/** A condition's worth of `IstiodReady`. */
interface ReadyResult {
  status: 'True' | 'False' | 'Unknown';
  reason: Reason | 'IstiodProven';
  message: string;
}

export interface Verification {
  /** Every replica, those that fail first, then by name. */
  pods: ReplicaResult[];
  /** So many replicas are asked for. */
  expected: number;
  proven: number;
  ready: ReadyResult;
}

const rank = (phase: IstiodPhase): number => {
  const at = (failingPhases as readonly IstiodPhase[]).indexOf(phase);
  return at >= 0 ? at : failingPhases.length + (phase === 'Proven' ? 1 : 0);
};

/** The scene of a pod. */
function evaluationInput(s: DerivedState, istiod: ObservedIstiod) {
  const ca = expectedCa(s);
  return (pod: IstiodPod): EvaluationInput => ({
    s,
    ca,
    deployment: istiod.deployments.find(({ name }) => name === pod.deployment),
  });
}

/** For the look: the logs that would tell more of each pod, by its name. */
export function logRequests(s: DerivedState, istiod: ObservedIstiod): Map<string, LogRequest[]> {
  const scene = evaluationInput(s, istiod);
  return new Map(istiod.pods.map((pod) => [pod.name, logRequestsOf(pod, scene(pod))]));
}

/** Judges every replica; undefined while istiod was not looked at. */
export const verificationOf = derivedOnce((s: DerivedState): Verification | undefined => {
  const { istiod } = s.kubernetes;
  if (!istiod) return undefined;
  const scene = evaluationInput(s, istiod);
  const pods = istiod.pods
    .map((pod) => classify(pod, scene(pod)))
    .sort((a, b) => rank(a.phase) - rank(b.phase) || (a.pod < b.pod ? -1 : 1));
  const expected = wanted(istiod).reduce((sum, { replicas }) => sum + replicas.desired, 0);
  const proven = pods.filter(({ phase }) => phase === 'Proven').length;
  return { pods, expected, proven, ready: readiness(s, istiod, pods) };
});

const readyResult = (status: ReadyResult['status'], reason: ReadyResult['reason'], message: string): ReadyResult => ({
  status,
  reason,
  message,
});

/** The first thing that keeps istiod from being proven, what explains others before what follows from it. */
function readiness(s: DerivedState, istiod: ObservedIstiod, pods: ReplicaResult[]): ReadyResult {
  if (istiod.deployments.length === 0) return readyResult('Unknown', 'IstiodNotFound', notFound(s));
  const deployments = wanted(istiod);
  if (deployments.length === 0) {
    const names = several(istiod.deployments.map(({ name }) => name));
    return readyResult(
      'Unknown',
      'IstiodNotFound',
      `Deployment ${names} is scaled to 0 replicas: there is nothing to look at`,
    );
  }
  const found =
    notPropagated(s, deployments, pods) ??
    podsFail(pods, ['SelfSignedFallback']) ??
    podCreateFailed(s, deployments) ??
    podsFail(pods, failingPhases) ??
    rolloutInProgress(deployments, istiod, pods) ??
    notDistributed(s, istiod) ??
    podsWait(pods);
  if (found) return found;
  const names = several(deployments.map(({ name }) => name));
  return readyResult('True', 'IstiodProven', `every replica of ${names} serves a certificate of the live intermediate`);
}

function notFound(o: Observed | undefined): string {
  const others = o?.kubernetes.otherRevisions ?? [];
  if (others.length > 0)
    return `no Deployment of istiod in this namespace is of this resource's revision; there are those of ${others.join(', ')} (label istio.io/rev). If one of them is meant, create this resource anew with spec.controlPlane.revision`;
  return 'no Deployment labelled app=istiod with a container "discovery" in this namespace yet; nothing to do here until the control plane rolls istiod out';
}

/** Who carries the fields to istiod, and where to look when it does not. */
function carrier({ spec, identity: { namespace } }: Desired): string {
  const { kind, name } = spec.controlPlane;
  switch (kind) {
    case 'TetrateControlPlane':
      return `TSB's operator has rolled istiod out; if it lasts, look at that operator (\`kubectl logs -n ${namespace} deployment/tsb-operator-control-plane\`, and \`kubectl get istiooperators -n ${namespace}\`)`;
    case 'IstioOperator':
      return `Istio's operator has rolled istiod out; if it lasts, look at that operator (\`kubectl describe istiooperator -n ${namespace} ${name}\`, and the log of its Deployment istio-operator): the status may be left from one that is gone, as Istio has none since 1.24`;
    case 'Sail':
      return `the Sail operator has rolled istiod out; if it lasts, look at that operator (\`kubectl describe istio ${name}\`, \`kubectl get istiorevisions\`)`;
    case 'HelmValues':
      return spec.controlPlane.write === 'Render'
        ? 'the release is installed with these values'
        : `the release is upgraded with the values of ConfigMap ${name}; if it lasts, see that the HelmRelease names it in valuesFrom, and what \`kubectl describe helmrelease -n ${namespace}\` says`;
  }
}

function notPropagated(
  s: DerivedState,
  deployments: IstiodDeployment[],
  pods: ReplicaResult[],
): ReadyResult | undefined {
  const { controlPlane } = s.kubernetes;
  const ca = expectedCa(s);
  if (!controlPlane?.carriesFields || !ca) return undefined;
  const lacking = deployments
    .map((deployment) => ({ deployment, fields: lackedBy(s, deployment, ca.digest) }))
    .filter(({ fields }) => fields.length > 0);
  const [first] = lacking;
  if (!first) return undefined;
  const foreign = pods.some(({ phase }) => phase === 'SelfSignedFallback')
    ? ' Meanwhile istiod signs with a CA of its own.'
    : '';
  const message = `${objectName(s.desired)} carries the fields, but Deployment ${several(lacking.map((l) => l.deployment.name))} does not have ${several(first.fields, 3)}.${foreign} It passes when ${carrier(s.desired)}; or look who else changes the Deployment`;
  return readyResult('False', 'NotPropagated', message);
}

/** What to do about the words of the API server; the ReplicaSet tries again by itself. */
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
  [/denied the request/, () => 'That webhook refuses them: its words say why, or its log does'],
];

function podCreateFailed(s: DerivedState, deployments: IstiodDeployment[]): ReadyResult | undefined {
  const failed = deployments.find(({ failure }) => failure !== undefined);
  if (!failed) return undefined;
  const { namespace } = s.identity;
  const words = failed.failure ?? '';
  const next =
    createRemedies.find(([pattern]) => pattern.test(words))?.[1](namespace) ??
    `Look for a quota, Pod Security, or an admission webhook that refuses them: \`kubectl describe replicaset -n ${namespace} -l app=istiod\``;
  return readyResult('False', 'PodCreateFailed', `pods of Deployment ${failed.name} cannot be made: ${words}. ${next}`);
}

function podsFail(pods: ReplicaResult[], phases: readonly (typeof failingPhases)[number][]): ReadyResult | undefined {
  for (const phase of phases) {
    const those = pods.filter((pod) => pod.phase === phase);
    const [first] = those;
    if (first) return readyResult('False', phase, messageOf(first, those));
  }
  return undefined;
}

const messageOf = (first: ReplicaResult, those: ReplicaResult[]): string =>
  `${several(those.map(({ pod }) => pod))}${first.container === undefined ? '' : ` (${first.container})`}: ${first.message}`;

function rolloutInProgress(
  deployments: IstiodDeployment[],
  istiod: ObservedIstiod,
  pods: ReplicaResult[],
): ReadyResult | undefined {
  const unfinished = deployments.find((deployment) => rolloutLeft(deployment, istiod) !== undefined);
  if (!unfinished) return undefined;
  const waiting = pods.find(({ phase }) => phase === 'Pending');
  const left = rolloutLeft(unfinished, istiod) ?? '';
  const why = waiting ? `; ${waiting.pod}: ${waiting.message}` : '';
  return readyResult('Unknown', 'RolloutInProgress', `Deployment ${unfinished.name}: ${left}${why}`);
}

/** Namespaces of this mesh whose `istio-ca-root-cert` lacks a root that is to be trusted. */
function namespacesWithout(s: DerivedState, istiod: ObservedIstiod, roots: readonly string[]): string[] | 'unreadable' {
  const bundles = bundlesOfMesh(s, istiod);
  if (bundles === 'unreadable') return 'unreadable';
  return bundles
    .filter((bundle) => !roots.every((root) => bundle.roots.includes(root)))
    .map(({ namespace }) => namespace)
    .sort();
}

function notDistributed(s: DerivedState, istiod: ObservedIstiod): ReadyResult | undefined {
  const ca = expectedCa(s);
  if (!ca) return undefined;
  const lacking = namespacesWithout(
    s,
    istiod,
    ca.roots.map((root) => root.fingerprint),
  );
  if (lacking === 'unreadable')
    return readyResult(
      'Unknown',
      'Forbidden',
      'the operator may not list the ConfigMaps istio-ca-root-cert, so it is not known which root workloads get; see docs/rbac.md',
    );
  if (lacking.length === 0) return undefined;
  const message = `istio-ca-root-cert of namespace ${several(lacking)} does not hold the root of this CA: workloads there do not trust it. istiod writes it within seconds of its start; if it lasts, see istiod's log and what else writes it. Of a namespace that is of no mesh any more, delete the ConfigMap`;
  return readyResult('False', 'RootNotDistributed', message);
}

/** Nothing fails, and not every replica is proven. */
function podsWait(pods: ReplicaResult[]): ReadyResult | undefined {
  const waiting = pods.filter(({ phase }) => phase !== 'Proven');
  const first = waiting.find(({ reason }) => reason === 'ProbeBlocked') ?? waiting[0];
  if (!first) return undefined;
  const reason = first.reason === 'ProbeBlocked' ? 'ProbeBlocked' : 'IstiodNotProven';
  return readyResult(
    'Unknown',
    reason,
    messageOf(
      first,
      waiting.filter((pod) => pod.reason === first.reason),
    ),
  );
}

/** `IstiodReady` while istiod was not looked at. */
export function notObserved(o: Observed | undefined): ReadyResult {
  const accounts = o?.kubernetes.istiodServiceAccounts ?? [];
  if (accounts === 'unreadable')
    return readyResult(
      'Unknown',
      'Forbidden',
      'the operator may not list Deployments of this namespace; see docs/rbac.md',
    );
  if (accounts.length === 0) return readyResult('Unknown', 'IstiodNotFound', notFound(o));
  return readyResult('Unknown', 'IstiodNotProven', 'not looked at yet: that follows when nothing else is left to do');
}

const mostShown = 100;

/** The part of the status that is about replicas. */
export function istiodStatus(proof: Verification): Pick<Status, 'istiodProven' | 'istiod'> {
  const { pods, proven, expected } = proof;
  if (expected === 0 && pods.length === 0) return {};
  return { istiodProven: `${proven}/${expected}`, istiod: pods.slice(0, mostShown) };
}

/** How long until istiod is to be looked at again, in milliseconds; undefined: not before something changes, or the resync. */
export function recheckIn(s: DerivedState): number | undefined {
  const proof = verificationOf(s);
  if (!proof || proof.ready.status === 'True' || proof.ready.reason === 'IstiodNotFound') return undefined;
  const turns = (s.kubernetes.istiod?.pods ?? []).flatMap((pod) => nextTurn(pod, s.now) ?? []);
  return Math.min(recheckMs, ...turns.map((at) => at - s.now));
}
