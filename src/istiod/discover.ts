/**
 * Reduces Kubernetes objects to the observed state of istiod: its Deployments, and the active Pods of each Deployment's newest ReplicaSet.
 * During a failed rollout, Pods of older ReplicaSets continue to serve, so only the newest ReplicaSet shows the result of a change. Pure.
 * Source: https://kubernetes.io/docs/concepts/workloads/controllers/deployment/
 */
import { parseAnyGoDuration } from '../api/duration.ts';
import { agentAnnotations, isAgentContainer } from '../api/injectors.ts';
import { defaultMaxWorkloadCertTtlMs, defaultWorkloadCertTtlMs } from '../api/istiod.ts';
import { dig, isObject, items, str, type JsonObject } from '../api/json.ts';
import type {
  ContainerState,
  IstiodContainer,
  IstiodDeployment,
  IstiodPod,
  IstiodSettings,
} from '../plan/facts/observed-istiod.ts';
import { isTrue, placeOf, settingThatSignsNothing } from '../plan/facts/trust-places.ts';
import { cleaned } from './log-lines.ts';

/**
 * Label of istiod's Deployments, ReplicaSets and Pods.
 * Source: https://github.com/istio/istio, manifests/charts/istio-control/istio-discovery
 */
export const istiodLabel = 'app=istiod';
const discovery = 'discovery';
const revisionLabel = 'istio.io/rev';

/** A number field, 0 if it is missing. */
export const num = (value: unknown): number => (typeof value === 'number' ? value : 0);
/** A time field in milliseconds since the epoch, 0 if it is missing or invalid. */
export const time = (value: unknown): number => {
  const ms = Date.parse(str(value));
  return Number.isNaN(ms) ? 0 : ms;
};
const named = (list: unknown, name: string): unknown => items(list).find((item) => dig(item, 'name') === name);
const condition = (object: unknown, type: string): unknown =>
  items(dig(object, 'status', 'conditions')).find((c) => dig(c, 'type') === type);

const revisionOf = (deployment: unknown): string =>
  str(dig(deployment, 'metadata', 'labels', revisionLabel)) || 'default';
const hasDiscovery = (deployment: unknown): boolean =>
  named(dig(deployment, 'spec', 'template', 'spec', 'containers'), discovery) !== undefined;

/**
 * Returns whether a Deployment is istiod of one of these revisions: values of label `istio.io/rev`, or `default` for a Deployment without
 * it.
 */
export function isIstiod(deployment: unknown, revisions: readonly string[]): boolean {
  return revisions.includes(revisionOf(deployment)) && hasDiscovery(deployment);
}

/**
 * Environment variables of istiod that concern the CA.
 * Source: https://istio.io/latest/docs/reference/commands/pilot-discovery/
 */
const settingNames = ['ROOT_CA_DIR', 'ISTIO_MULTIROOT_MESH'];

/** Items of `env` of container `discovery`. */
const envOf = (pod: unknown): unknown[] => items(dig(named(dig(pod, 'spec', 'containers'), discovery), 'env'));

/**
 * Returns the value of an environment variable of istiod. The last item of a name counts.
 * @returns null: the value stands in another object (`valueFrom`); undefined: the variable is not set
 */
const valueOf = (template: unknown, name: string): string | null | undefined => variableIn(envOf(template), name);

/**
 * Returns the value of a variable in a list of environment variables, of which the last item of a name counts.
 * @returns as of `valueOf`
 */
export function variableIn(env: readonly unknown[], name: string): string | null | undefined {
  const variable = env.findLast((item) => dig(item, 'name') === name);
  if (variable === undefined) return undefined;
  return dig(variable, 'valueFrom') === undefined ? str(dig(variable, 'value')) : null;
}

/**
 * Returns the longest lifetime of a workload certificate that istiod signs, in milliseconds: the longer of `MAX_WORKLOAD_CERT_TTL`, which
 * limits only what a workload asks for, and `DEFAULT_WORKLOAD_CERT_TTL`, which a workload that asks for nothing gets. An invalid duration means
 * istiod's default. A value that `valueFrom` takes from another object is not resolved, and counts as istiod's default.
 * Source: https://github.com/istio/istio, security/pkg/pki/ca/ca.go (sign) and pkg/env/var.go (DurationVar)
 */
function maxWorkloadCertTtlOf(template: unknown): number {
  const ttl = (name: string, byDefault: number) => parseAnyGoDuration(valueOf(template, name) ?? '') ?? byDefault;
  return Math.max(
    ttl('MAX_WORKLOAD_CERT_TTL', defaultMaxWorkloadCertTtlMs),
    ttl('DEFAULT_WORKLOAD_CERT_TTL', defaultWorkloadCertTtlMs),
  );
}

/** Returns the labels of a Pod template. */
function labelsOf(template: unknown): Record<string, string> {
  const labels = dig(template, 'metadata', 'labels');
  return Object.fromEntries(Object.entries(isObject(labels) ? labels : {}).map(([name, value]) => [name, str(value)]));
}

/** Returns the settings of a Pod or a Pod template that concern the CA. */
function settingsOf(pod: unknown): IstiodSettings {
  const annotations = dig(pod, 'metadata', 'annotations');
  return {
    annotations: Object.fromEntries(
      Object.entries(
        agentAnnotations(isObject(annotations) ? annotations : {}, (name) => name.startsWith('istiovaultca.io/')),
      ).map(([name, value]) => [name, str(value)]),
    ),
    env: Object.fromEntries(
      envOf(pod)
        .filter((one) => settingNames.includes(str(dig(one, 'name'))))
        .map((one) => [str(dig(one, 'name')), str(dig(one, 'value'))]),
    ),
  };
}

/**
 * Returns Istio's version of a Deployment or a DaemonSet, from the label of its Helm charts, else from the image tag; empty if neither is a
 * version. Charts that are not a release have version 1.0.0, so versions before 1.5, the first with istiod, do not count.
 */
const versionOf = (workload: unknown): string => versionsOf(workload)[0] ?? '';

/** Returns the versions that its labels and its image show, in this order. */
export function versionsOf(workload: unknown): string[] {
  const template = dig(workload, 'spec', 'template');
  const containers = items(dig(template, 'spec', 'containers'));
  const image = str(dig(named(containers, discovery) ?? containers[0], 'image'));
  const candidates = [
    str(dig(workload, 'metadata', 'labels', 'app.kubernetes.io/version')),
    str(dig(template, 'metadata', 'labels', 'app.kubernetes.io/version')),
    /:([^/:@]+)(?:@|$)/.exec(image)?.[1] ?? '',
  ];
  const versions = candidates.map((text) => /^v?(\d+\.\d+(?:\.\d+)?)/.exec(text)?.[1] ?? '');
  return versions.filter((version) => version !== '' && !/^1\.[0-4](?:\.|$)/.test(version));
}

/**
 * Maximum length of a `ReplicaFailure` message. The list of Pod Security violations is long, and its end matters as much as its beginning.
 */
const longestFailure = 1000;

/** A value that stands in another object can be true. */
const isAmbient = (value: string | null | undefined): boolean => value === null || isTrue(value);

/** The longest list of accounts that is read, UTF-16 code units; a chart sets one account, of at most 317. */
const longestNodeAccounts = 4096;

/** Source: https://github.com/istio/istio, pilot/pkg/features/security.go (CA_TRUSTED_NODE_ACCOUNTS) */
function nodeAccountsOf(value: string | null | undefined): IstiodDeployment['nodeAccounts'] {
  if (value === null || (value?.length ?? 0) > longestNodeAccounts) return 'unknown';
  const accounts = (value ?? '')
    .split(',')
    .map((account) => account.trim())
    .filter((account) => account !== '');
  return accounts.length === 0 ? undefined : accounts;
}

/** Returns the observed state of an istiod Deployment. */
export function deploymentFacts(deployment: unknown): IstiodDeployment {
  const template = dig(deployment, 'spec', 'template');
  const settings = settingsOf(template);
  const status = (name: string) => num(dig(deployment, 'status', name));
  const failure = condition(deployment, 'ReplicaFailure');
  const desired = dig(deployment, 'spec', 'replicas');
  return {
    name: str(dig(deployment, 'metadata', 'name')),
    revision: revisionOf(deployment),
    serviceAccount: str(dig(template, 'spec', 'serviceAccountName')) || 'default',
    version: versionOf(deployment),
    multiRoot: isTrue(settings.env['ISTIO_MULTIROOT_MESH']),
    ambient: isAmbient(valueOf(template, 'PILOT_ENABLE_AMBIENT')),
    nodeAccounts: nodeAccountsOf(valueOf(template, 'CA_TRUSTED_NODE_ACCOUNTS')),
    publishesTo: placeOf((name) => valueOf(template, name)),
    signsNothing: settingThatSignsNothing((name) => valueOf(template, name)),
    maxWorkloadCertTtlMs: maxWorkloadCertTtlOf(template),
    podLabels: labelsOf(template),
    settings,
    replicas: {
      desired: desired === undefined ? 1 : num(desired),
      current: status('replicas'),
      updated: status('updatedReplicas'),
      available: status('availableReplicas'),
      ready: status('readyReplicas'),
    },
    observed: status('observedGeneration') >= num(dig(deployment, 'metadata', 'generation')),
    failure: dig(failure, 'status') === 'True' ? cleaned(str(dig(failure, 'message')), longestFailure) : undefined,
    deadlinePassed: dig(condition(deployment, 'Progressing'), 'status') === 'False',
  };
}

/** Returns the observed state of the Deployments that are istiod, of any revision. */
export const istiodDeployments = (candidates: readonly JsonObject[]): IstiodDeployment[] =>
  candidates.filter(hasDiscovery).map(deploymentFacts);

/** Whether an object's controller reference names this owner. */
export const ownedBy = (object: unknown, owner: unknown): boolean =>
  items(dig(object, 'metadata', 'ownerReferences')).some(
    (ref) => dig(ref, 'controller') === true && dig(ref, 'uid') === dig(owner, 'metadata', 'uid'),
  );

const deploymentRevision = (replicaSet: unknown): number =>
  Number(str(dig(replicaSet, 'metadata', 'annotations', 'deployment.kubernetes.io/revision'))) || 0;

/**
 * Returns the ReplicaSet of a Deployment's current template, which has the highest revision; `undefined`: there is none. A rollback gives
 * an older ReplicaSet the highest revision again.
 */
function newestReplicaSet(deployment: unknown, replicaSets: readonly JsonObject[]): JsonObject | undefined {
  return replicaSets
    .filter((replicaSet) => ownedBy(replicaSet, deployment))
    .sort((a, b) => deploymentRevision(b) - deploymentRevision(a))[0];
}

/** Returns the state of a container. A status without a state counts as waiting. */
function stateOf(status: unknown): ContainerState {
  const running = dig(status, 'state', 'running');
  if (running !== undefined) return { kind: 'running', sinceMs: time(dig(running, 'startedAt')) };
  const terminated = dig(status, 'state', 'terminated');
  if (terminated !== undefined) {
    return {
      kind: 'terminated',
      reason: cleaned(str(dig(terminated, 'reason')), 100),
      exitCode: num(dig(terminated, 'exitCode')),
      message: cleaned(str(dig(terminated, 'message'))),
    };
  }
  const waiting = dig(status, 'state', 'waiting');
  return {
    kind: 'waiting',
    reason: cleaned(str(dig(waiting, 'reason')), 100),
    // the message of a back-off contains its growing delay
    message: /BackOff$/.test(str(dig(waiting, 'reason'))) ? '' : cleaned(str(dig(waiting, 'message'))),
  };
}

function containersOf(pod: unknown): IstiodContainer[] {
  const of = (specs: unknown, statuses: unknown, init: boolean) =>
    items(specs).map((spec): IstiodContainer => {
      const name = str(dig(spec, 'name'));
      const status = named(statuses, name);
      const last = dig(status, 'lastState', 'terminated');
      return {
        name,
        init,
        ready: dig(status, 'ready') === true,
        restarts: num(dig(status, 'restartCount')),
        state: stateOf(status),
        last:
          last === undefined
            ? undefined
            : {
                reason: cleaned(str(dig(last, 'reason')), 100),
                exitCode: num(dig(last, 'exitCode')),
                endedMs: time(dig(last, 'finishedAt')),
              },
        log: undefined,
      };
    });
  return [
    ...of(dig(pod, 'spec', 'initContainers'), dig(pod, 'status', 'initContainerStatuses'), true),
    ...of(dig(pod, 'spec', 'containers'), dig(pod, 'status', 'containerStatuses'), false),
  ];
}

/** A Pod as the API server shows it, with the data that a handshake and the caches need. */
export interface FoundPod {
  uid: string;
  resourceVersion: string;
  /** Pod IP; empty until it is assigned. */
  ip: string;
  /** Observed state without handshake, distributed roots and logs. */
  facts: IstiodPod;
}

/** The arguments that give istiod a certificate; it ignores them unless all three are there. */
const certificateArguments = ['--tlsCertFile', '--tlsKeyFile', '--caCertFile'];

const hasOwnCertificate = (pod: unknown): boolean => {
  const args = items(dig(named(dig(pod, 'spec', 'containers'), discovery), 'args')).map(str);
  return certificateArguments.every((name) => args.some((arg) => arg === name || arg.startsWith(`${name}=`)));
};

function podFacts(pod: unknown, deployment: string): FoundPod {
  const settings = settingsOf(pod);
  const scheduled = condition(pod, 'PodScheduled');
  const containers = containersOf(pod);
  return {
    uid: str(dig(pod, 'metadata', 'uid')),
    resourceVersion: str(dig(pod, 'metadata', 'resourceVersion')),
    ip: str(dig(pod, 'status', 'podIP')),
    facts: {
      name: str(dig(pod, 'metadata', 'name')),
      deployment,
      createdMs: time(dig(pod, 'metadata', 'creationTimestamp')),
      settings,
      injected:
        settings.annotations['vault.hashicorp.com/agent-inject-status'] === 'injected' ||
        containers.some(({ name }) => isAgentContainer(name)),
      tlsCertFile: hasOwnCertificate(pod),
      unschedulable: dig(scheduled, 'status') === 'False' ? cleaned(str(dig(scheduled, 'message'))) : undefined,
      containers,
      served: undefined,
    },
  };
}

/** Whether a Pod has ended. Evicted Pods stay with phase `Failed`. */
export const hasEnded = (pod: unknown): boolean => /^(Succeeded|Failed)$/.test(str(dig(pod, 'status', 'phase')));

/** Whether a Pod is a replica: neither deleted nor ended. */
const isActive = (pod: unknown): boolean => dig(pod, 'metadata', 'deletionTimestamp') === undefined && !hasEnded(pod);

/**
 * Returns the Ready Pods of a Deployment, of any template: what they serve is what the mesh has now. A Deployment without container `discovery`
 * is not istiod, and has none.
 */
export function readyPodsOf(
  deployment: JsonObject,
  replicaSets: readonly JsonObject[],
  pods: readonly JsonObject[],
): FoundPod[] {
  if (!hasDiscovery(deployment)) return [];
  const own = replicaSets.filter((replicaSet) => ownedBy(replicaSet, deployment));
  return pods
    .filter((pod) => isActive(pod) && own.some((replicaSet) => ownedBy(pod, replicaSet)))
    .filter((pod) => dig(condition(pod, 'Ready'), 'status') === 'True')
    .map((pod) => podFacts(pod, str(dig(deployment, 'metadata', 'name'))));
}

/** Returns the names of Pods of these Deployments, of any template, that are being deleted and still run. */
export const endingPods = (
  deployments: readonly JsonObject[],
  replicaSets: readonly JsonObject[],
  pods: readonly JsonObject[],
): string[] =>
  pods
    .filter((pod) => {
      const owner = replicaSets.find((replicaSet) => ownedBy(pod, replicaSet));
      return owner !== undefined && deployments.some((deployment) => ownedBy(owner, deployment));
    })
    .filter((pod) => dig(pod, 'metadata', 'deletionTimestamp') !== undefined)
    .filter((pod) => !hasEnded(pod))
    .map((pod) => str(dig(pod, 'metadata', 'name')))
    .sort();

/**
 * Returns the active Pods of a Deployment's newest ReplicaSet, sorted by name. A Pod belongs to a ReplicaSet by its controller reference,
 * not by its labels, because anybody can set labels.
 */
export function podsOf(
  deployment: unknown,
  replicaSets: readonly JsonObject[],
  pods: readonly JsonObject[],
): FoundPod[] {
  const newest = newestReplicaSet(deployment, replicaSets);
  if (!newest) return [];
  return pods
    .filter((pod) => ownedBy(pod, newest) && isActive(pod))
    .map((pod) => podFacts(pod, str(dig(deployment, 'metadata', 'name'))))
    .sort((a, b) => (a.facts.name < b.facts.name ? -1 : 1));
}
