/**
 * What all replicas together mean: `IstiodReady`, `status.istiod`, when to look again, and what a root rotation may ask. Pure.
 */
import { failingPhases, type IstiodPhase } from '../api/istiod.ts';
import type { Reason } from '../api/conditions.ts';
import type { Status } from '../api/status-schema.ts';
import { istiodFields, type Desired } from './desired.ts';
import { intendedCa, issuerOfLeaf, judgeServed } from './evidence.ts';
import { classify, logWishes, type LogWish, type PodVerdict, type Scene } from './istiod.ts';
import { nextTurn } from './istiod-containers.ts';
import type { Observed } from './observed.ts';
import {
  digestOf,
  type IstiodDeployment,
  type IstiodPod,
  type MeshBundle,
  type ObservedIstiod,
} from './observed-istiod.ts';
import { ownIssuers } from './facts.ts';

/** While something is not proven it is looked at again after this, in milliseconds; handshakes are not repeated sooner. */
export const lookAgainMs = 20_000;

/** A condition's worth of `IstiodReady`. */
interface ReadyVerdict {
  status: 'True' | 'False' | 'Unknown';
  reason: Reason | 'IstiodProven';
  message: string;
}

export interface Proof {
  /** Every replica, those that fail first, then by name. */
  pods: PodVerdict[];
  /** So many replicas are asked for. */
  expected: number;
  proven: number;
  ready: ReadyVerdict;
}

const rank = (phase: IstiodPhase): number => {
  const at = (failingPhases as readonly IstiodPhase[]).indexOf(phase);
  return at >= 0 ? at : failingPhases.length + (phase === 'Proven' ? 1 : 0);
};

/** The scene of a pod. */
function sceneOf(d: Desired, o: Observed, istiod: ObservedIstiod, now: number) {
  const ca = intendedCa(d, o);
  return (pod: IstiodPod): Scene => ({
    d,
    o,
    ca,
    now,
    deployment: istiod.deployments.find(({ name }) => name === pod.deployment),
  });
}

/** For the look: the logs that would tell more of each pod, by its name. */
export function wishesOf(d: Desired, o: Observed, istiod: ObservedIstiod, now: number): Map<string, LogWish[]> {
  const scene = sceneOf(d, o, istiod, now);
  return new Map(istiod.pods.map((pod) => [pod.name, logWishes(pod, scene(pod))]));
}

/** Deployments that shall have replicas; those that were scaled to none count only when there is no other. */
const wanted = ({ deployments }: ObservedIstiod): IstiodDeployment[] =>
  deployments.filter(({ replicas }) => replicas.desired > 0);

/** Judges every replica; undefined while istiod was not looked at. */
export function proofOf(d: Desired, o: Observed, now: number): Proof | undefined {
  const { istiod } = o.kubernetes;
  if (!istiod) return undefined;
  const scene = sceneOf(d, o, istiod, now);
  const pods = istiod.pods
    .map((pod) => classify(pod, scene(pod)))
    .sort((a, b) => rank(a.phase) - rank(b.phase) || (a.pod < b.pod ? -1 : 1));
  const expected = wanted(istiod).reduce((sum, { replicas }) => sum + replicas.desired, 0);
  const proven = pods.filter(({ phase }) => phase === 'Proven').length;
  return { pods, expected, proven, ready: readiness(d, o, istiod, pods) };
}

const several = (names: string[], most = 5): string =>
  `${names.slice(0, most).join(', ')}${names.length > most ? ` and ${names.length - most} more` : ''}`;

const verdict = (status: ReadyVerdict['status'], reason: ReadyVerdict['reason'], message: string): ReadyVerdict => ({
  status,
  reason,
  message,
});

/** The first thing that keeps istiod from being proven, what explains others before what follows from it. */
function readiness(d: Desired, o: Observed, istiod: ObservedIstiod, pods: PodVerdict[]): ReadyVerdict {
  if (istiod.deployments.length === 0) return verdict('Unknown', 'IstiodNotFound', notFound);
  const deployments = wanted(istiod);
  if (deployments.length === 0) {
    const names = several(istiod.deployments.map(({ name }) => name));
    return verdict(
      'Unknown',
      'IstiodNotFound',
      `Deployment ${names} is scaled to 0 replicas: there is nothing to look at`,
    );
  }
  const found =
    notPropagated(d, o, deployments, pods) ??
    podsFail(pods, ['SelfSignedFallback']) ??
    podCreateFailed(d, deployments) ??
    podsFail(pods, failingPhases) ??
    rolloutInProgress(deployments, istiod, pods) ??
    notDistributed(d, o, istiod) ??
    podsWait(pods);
  if (found) return found;
  const names = several(deployments.map(({ name }) => name));
  return verdict('True', 'IstiodProven', `every replica of ${names} serves a certificate of the live intermediate`);
}

const notFound =
  'no Deployment labelled app=istiod with a container "discovery" in this namespace yet; nothing to do here until the control plane rolls istiod out';

/** Fields of ours that a template does not have, or has otherwise. */
function missingFields(d: Desired, deployment: IstiodDeployment, digest: string | undefined): string[] {
  const { env, podAnnotations } = istiodFields(d.spec, digest);
  const { settings } = deployment;
  const differs = ([name, value]: [string, string], has: Record<string, string>) => has[name]?.trim() !== value.trim();
  return [
    ...Object.entries(env)
      .filter((field) => differs(field, settings.env))
      .map(([name]) => `env ${name}`),
    ...Object.entries(podAnnotations)
      .filter((field) => differs(field, settings.annotations))
      .map(([name]) => name),
  ];
}

function notPropagated(
  d: Desired,
  o: Observed,
  deployments: IstiodDeployment[],
  pods: PodVerdict[],
): ReadyVerdict | undefined {
  const { controlPlane } = o.kubernetes;
  const ca = intendedCa(d, o);
  if (!controlPlane?.carriesFields || !ca) return undefined;
  const lacking = deployments
    .map((deployment) => ({ deployment, fields: missingFields(d, deployment, ca.digest) }))
    .filter(({ fields }) => fields.length > 0);
  const [first] = lacking;
  if (!first) return undefined;
  const { kind, name } = d.spec.controlPlane;
  const foreign = pods.some(({ phase }) => phase === 'SelfSignedFallback')
    ? ' Meanwhile istiod signs with a CA of its own.'
    : '';
  const message = `${kind} ${name} carries the fields, but Deployment ${several(lacking.map((l) => l.deployment.name))} does not have ${several(first.fields, 3)}.${foreign} It passes when the control plane's operator has rolled istiod out; if it lasts, look at that operator (with TSB: \`kubectl logs -n ${d.identity.namespace} deployment/tsb-operator-control-plane\`, and \`kubectl get istiooperators -n ${d.identity.namespace}\`), or at who else changes the Deployment`;
  return verdict('False', 'NotPropagated', message);
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

function podCreateFailed(d: Desired, deployments: IstiodDeployment[]): ReadyVerdict | undefined {
  const failed = deployments.find(({ failure }) => failure !== undefined);
  if (!failed) return undefined;
  const { namespace } = d.identity;
  const words = failed.failure ?? '';
  const next =
    createRemedies.find(([pattern]) => pattern.test(words))?.[1](namespace) ??
    `Look for a quota, Pod Security, or an admission webhook that refuses them: \`kubectl describe replicaset -n ${namespace} -l app=istiod\``;
  return verdict('False', 'PodCreateFailed', `pods of Deployment ${failed.name} cannot be made: ${words}. ${next}`);
}

function podsFail(pods: PodVerdict[], phases: readonly (typeof failingPhases)[number][]): ReadyVerdict | undefined {
  for (const phase of phases) {
    const those = pods.filter((pod) => pod.phase === phase);
    const [first] = those;
    if (first) return verdict('False', phase, messageOf(first, those));
  }
  return undefined;
}

const messageOf = (first: PodVerdict, those: PodVerdict[]): string =>
  `${several(those.map(({ pod }) => pod))}${first.container === undefined ? '' : ` (${first.container})`}: ${first.message}`;

function rolloutInProgress(
  deployments: IstiodDeployment[],
  istiod: ObservedIstiod,
  pods: PodVerdict[],
): ReadyVerdict | undefined {
  const unfinished = deployments.find((deployment) => rolloutLeft(deployment, istiod) !== undefined);
  if (!unfinished) return undefined;
  const waiting = pods.find(({ phase }) => phase === 'Pending');
  const left = rolloutLeft(unfinished, istiod) ?? '';
  const why = waiting ? `; ${waiting.pod}: ${waiting.message}` : '';
  return verdict('Unknown', 'RolloutInProgress', `Deployment ${unfinished.name}: ${left}${why}`);
}

/** What a rollout still lacks; undefined: every replica is of the newest template, is there, and no older one is. */
function rolloutLeft(deployment: IstiodDeployment, { pods }: ObservedIstiod): string | undefined {
  const { observed, deadlinePassed, replicas } = deployment;
  const late = deadlinePassed ? ' (its progress deadline has passed)' : '';
  if (!observed) return `its controller has not seen the newest template yet${late}`;
  const there = pods.filter((pod) => pod.deployment === deployment.name).length;
  if (replicas.updated < replicas.desired || there < replicas.desired)
    return `not every pod of the newest template is there${late}`;
  if (replicas.current > replicas.updated) return `pods of an older template are still there${late}`;
  if (replicas.available < replicas.desired) return `not every pod is available${late}`;
  return undefined;
}

const stillEnding = ({ ending }: ObservedIstiod): string | undefined =>
  ending.length === 0 ? undefined : `pods that are being deleted are still there: ${several(ending)}`;

/**
 * Bundles of the namespaces of this mesh: not of those that hold the root of another IstioVaultCA; and where not every IstioVaultCA is seen,
 * only of those that hold a root of ours.
 */
function bundlesOfMesh(d: Desired, o: Observed, istiod: ObservedIstiod): MeshBundle[] | 'unreadable' {
  const { bundles, rootsOfOthers, confinedTo } = istiod;
  if (bundles === 'unreadable') return 'unreadable';
  const ours = ownIssuers(d, 'root', o.vault).map(({ certificate }) => certificate.fingerprint);
  const holds = ({ roots }: MeshBundle, some: readonly string[]) => roots.some((root) => some.includes(root));
  return bundles.filter((bundle) => {
    if (bundle.namespace === d.identity.namespace) return true;
    if (holds(bundle, rootsOfOthers)) return false;
    return confinedTo.length === 0 || confinedTo.includes(bundle.namespace) || holds(bundle, ours);
  });
}

/** Namespaces of this mesh whose `istio-ca-root-cert` lacks a root that is to be trusted. */
function namespacesWithout(
  d: Desired,
  o: Observed,
  istiod: ObservedIstiod,
  roots: readonly string[],
): string[] | 'unreadable' {
  const bundles = bundlesOfMesh(d, o, istiod);
  if (bundles === 'unreadable') return 'unreadable';
  return bundles
    .filter((bundle) => !roots.every((root) => bundle.roots.includes(root)))
    .map(({ namespace }) => namespace)
    .sort();
}

function notDistributed(d: Desired, o: Observed, istiod: ObservedIstiod): ReadyVerdict | undefined {
  const ca = intendedCa(d, o);
  if (!ca) return undefined;
  const lacking = namespacesWithout(
    d,
    o,
    istiod,
    ca.roots.map((root) => root.fingerprint),
  );
  if (lacking === 'unreadable')
    return verdict(
      'Unknown',
      'Forbidden',
      'the operator may not list the ConfigMaps istio-ca-root-cert, so it is not known which root workloads get; see docs/rbac.md',
    );
  if (lacking.length === 0) return undefined;
  const message = `istio-ca-root-cert of namespace ${several(lacking)} does not hold the root of this CA: workloads there do not trust it. istiod writes it within seconds of its start; if it lasts, see istiod's log and what else writes it. Of a namespace that is of no mesh any more, delete the ConfigMap`;
  return verdict('False', 'RootNotDistributed', message);
}

/** Nothing fails, and not every replica is proven. */
function podsWait(pods: PodVerdict[]): ReadyVerdict | undefined {
  const waiting = pods.filter(({ phase }) => phase !== 'Proven');
  const first = waiting.find(({ reason }) => reason === 'ProbeBlocked') ?? waiting[0];
  if (!first) return undefined;
  const reason = first.reason === 'ProbeBlocked' ? 'ProbeBlocked' : 'IstiodNotProven';
  return verdict(
    'Unknown',
    reason,
    messageOf(
      first,
      waiting.filter((pod) => pod.reason === first.reason),
    ),
  );
}

/** `IstiodReady` while istiod was not looked at. */
export function notLookedAt(o: Observed | undefined): ReadyVerdict {
  const accounts = o?.kubernetes.istiodServiceAccounts ?? [];
  if (accounts === 'unreadable')
    return verdict('Unknown', 'Forbidden', 'the operator may not list Deployments of this namespace; see docs/rbac.md');
  if (accounts.length === 0) return verdict('Unknown', 'IstiodNotFound', notFound);
  return verdict('Unknown', 'IstiodNotProven', 'not looked at yet: that follows when nothing else is left to do');
}

const mostShown = 100;

/** The part of the status that is about replicas. */
export function istiodStatus(proof: Proof): Pick<Status, 'istiodProven' | 'istiod'> {
  const { pods, proven, expected } = proof;
  if (expected === 0 && pods.length === 0) return {};
  return { istiodProven: `${proven}/${expected}`, istiod: pods.slice(0, mostShown) };
}

/** How long until istiod is to be looked at again, in milliseconds; undefined: not before something changes, or the resync. */
export function lookAgainIn(d: Desired, o: Observed, now: number): number | undefined {
  const proof = proofOf(d, o, now);
  if (!proof || proof.ready.status === 'True' || proof.ready.reason === 'IstiodNotFound') return undefined;
  const turns = (o.kubernetes.istiod?.pods ?? []).flatMap((pod) => nextTurn(pod, now) ?? []);
  return Math.min(lookAgainMs, ...turns.map((at) => at - now));
}

/** What a root rotation waits for. Fingerprints are SHA-256 of the DER. */
export interface MeshView {
  replicas: {
    name: string;
    /** The intermediate whose certificate it was seen to serve; empty: one that it did not show; undefined: it did not answer. */
    serves: string | undefined;
    /** The roots that it holds; undefined: not known. */
    roots: string[] | undefined;
    /** Why they are not known, where it was asked. */
    why?: string;
  }[];
  /** What of a rollout is not done; undefined: every replica that is asked for is there. */
  unfinished: string | undefined;
  namespaces: { namespace: string; roots: string[] }[] | 'unreadable';
  istiods: { name: string; multiRoot: boolean; version: string }[];
}

/**
 * The mesh as a root rotation has to see it; undefined while istiod was not looked at. A replica is known to hold the live root bundle when
 * its pod was made with the digest of the live set, which is patched only after the live write, and it serves the live intermediate; where
 * no digest tells, when it hands that bundle out.
 */
export function meshView(d: Desired, o: Observed, now: number): MeshView | undefined {
  const { istiod } = o.kubernetes;
  if (!istiod) return undefined;
  const ca = intendedCa(d, o);
  const deployments = wanted(istiod);
  const replicas = istiod.pods.map((pod) => {
    const proven =
      ca !== undefined &&
      pod.served !== undefined &&
      'leaf' in pod.served &&
      judgeServed(pod.served, ca, now).kind === 'Proven';
    const withDigest = ca?.digest !== undefined && digestOf(pod.settings) === ca.digest;
    const served =
      pod.served !== undefined && 'leaf' in pod.served ? (issuerOfLeaf(pod.served)?.fingerprint ?? '') : undefined;
    const { handedOut } = pod;
    const roots = Array.isArray(handedOut) ? handedOut : undefined;
    const why = handedOut && 'unreachable' in handedOut ? handedOut.unreachable : undefined;
    return {
      name: pod.name,
      serves: proven ? ca.live.fingerprint : served,
      roots: proven && withDigest ? ca.roots.map((root) => root.fingerprint) : roots,
      ...(why === undefined ? {} : { why }),
    };
  });
  const lacking = deployments.filter((deployment) => missingFields(d, deployment, ca?.digest).length > 0);
  return {
    replicas,
    unfinished:
      deployments.length === 0
        ? 'there is no istiod'
        : lacking.length > 0
          ? `Deployment ${several(lacking.map(({ name }) => name))} has not got the fields of the live CA`
          : (deployments.flatMap((deployment) => rolloutLeft(deployment, istiod) ?? [])[0] ?? stillEnding(istiod)),
    namespaces: bundlesOfMesh(d, o, istiod),
    istiods: deployments.map(({ name, multiRoot, version }) => ({ name, multiRoot, version })),
  };
}
