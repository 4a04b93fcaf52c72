/**
 * From objects of the API server to facts about istiod: its Deployments, the newest ReplicaSet of each, and that one's living pods. Pure.
 * Old pods serve on during a rollout that fails, so only the newest ReplicaSet's are of interest.
 * https://kubernetes.io/docs/concepts/workloads/controllers/deployment/
 */
import { parseAnyGoDuration } from '../api/duration.ts';
import { defaultMaxWorkloadCertTtlMs } from '../api/istiod.ts';
import { dig, isObject, items, str, type JsonObject } from '../api/json.ts';
import type {
  ContainerState,
  IstiodContainer,
  IstiodDeployment,
  IstiodPod,
  IstiodSettings,
} from '../plan/facts/observed-istiod.ts';
import { cleaned } from './log-lines.ts';

/** On Deployments, ReplicaSets and pods of istiod alike. manifests/charts/istio-control/istio-discovery */
export const istiodLabel = 'app=istiod';
const discovery = 'discovery';
const revisionLabel = 'istio.io/rev';

const num = (value: unknown): number => (typeof value === 'number' ? value : 0);
const time = (value: unknown): number => {
  const ms = Date.parse(str(value));
  return Number.isNaN(ms) ? 0 : ms;
};
const named = (of: unknown, name: string): unknown => items(of).find((one) => dig(one, 'name') === name);
const condition = (object: unknown, type: string): unknown =>
  items(dig(object, 'status', 'conditions')).find((c) => dig(c, 'type') === type);

const revisionOf = (deployment: unknown): string =>
  str(dig(deployment, 'metadata', 'labels', revisionLabel)) || 'default';
const hasDiscovery = (deployment: unknown): boolean =>
  named(dig(deployment, 'spec', 'template', 'spec', 'containers'), discovery) !== undefined;

/** Whether a Deployment is istiod of one of these revisions, as the label `istio.io/rev` has them; `default` is the one without. */
export function isIstiod(deployment: unknown, revisions: readonly string[]): boolean {
  return revisions.includes(revisionOf(deployment)) && hasDiscovery(deployment);
}

/** Env variables of istiod that concern the CA. https://istio.io/latest/docs/reference/commands/pilot-discovery/ */
const settingNames = ['ROOT_CA_DIR', 'ISTIO_MULTIROOT_MESH'];

/** Env items of istiod's container. */
const envOf = (pod: unknown): unknown[] => items(dig(named(dig(pod, 'spec', 'containers'), discovery), 'env'));

/**
 * As istiod reads it: what is no duration leaves its default. A value that stands elsewhere is not looked up; the default is the safe reading.
 * https://github.com/istio/istio, pkg/env/var.go, DurationVar
 */
function maxWorkloadCertTtlOf(template: unknown): number {
  const set = envOf(template).findLast((one) => dig(one, 'name') === 'MAX_WORKLOAD_CERT_TTL');
  return parseAnyGoDuration(str(dig(set, 'value'))) ?? defaultMaxWorkloadCertTtlMs;
}

/** What of a pod, or of a pod template, concerns the CA. */
function settingsOf(pod: unknown): IstiodSettings {
  const annotations = dig(pod, 'metadata', 'annotations');
  return {
    annotations: Object.fromEntries(
      Object.entries(isObject(annotations) ? annotations : {})
        .filter(([name]) => /^(vault\.hashicorp\.com|istiovaultca\.io)\//.test(name))
        .map(([name, value]) => [name, str(value)]),
    ),
    env: Object.fromEntries(
      envOf(pod)
        .filter((one) => settingNames.includes(str(dig(one, 'name'))))
        .map((one) => [str(dig(one, 'name')), str(dig(one, 'value'))]),
    ),
  };
}

/**
 * Istio's version by the label of its charts, else by the image's tag; empty when neither looks like one. Charts that are no release call
 * themselves 1.0.0; istiod came with 1.5.
 */
function versionOf(deployment: unknown): string {
  const template = dig(deployment, 'spec', 'template');
  const image = str(dig(named(dig(template, 'spec', 'containers'), discovery), 'image'));
  const candidates = [
    str(dig(deployment, 'metadata', 'labels', 'app.kubernetes.io/version')),
    str(dig(template, 'metadata', 'labels', 'app.kubernetes.io/version')),
    /:([^/:@]+)(?:@|$)/.exec(image)?.[1] ?? '',
  ];
  const versions = candidates.map((text) => /^v?(\d+\.\d+(?:\.\d+)?)/.exec(text)?.[1] ?? '');
  return versions.find((version) => version !== '' && !/^1\.[0-4](?:\.|$)/.test(version)) ?? '';
}

/** What Pod Security forbids is a long list, and its end as telling as its beginning. */
const longestFailure = 1000;

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
    multiRoot: /^(1|t|T|TRUE|true|True)$/.test(settings.env['ISTIO_MULTIROOT_MESH'] ?? ''),
    maxWorkloadCertTtlMs: maxWorkloadCertTtlOf(template),
    settings,
    replicas: {
      desired: desired === undefined ? 1 : num(desired),
      current: status('replicas'),
      updated: status('updatedReplicas'),
      available: status('availableReplicas'),
    },
    observed: status('observedGeneration') >= num(dig(deployment, 'metadata', 'generation')),
    failure: dig(failure, 'status') === 'True' ? cleaned(str(dig(failure, 'message')), longestFailure) : undefined,
    deadlinePassed: dig(condition(deployment, 'Progressing'), 'status') === 'False',
  };
}

/** Those Deployments that are istiod, of whatever revision. */
export const istiodDeployments = (found: readonly JsonObject[]): IstiodDeployment[] =>
  found.filter(hasDiscovery).map(deploymentFacts);

const ownedBy = (object: unknown, owner: unknown): boolean =>
  items(dig(object, 'metadata', 'ownerReferences')).some(
    (ref) => dig(ref, 'controller') === true && dig(ref, 'uid') === dig(owner, 'metadata', 'uid'),
  );

const deploymentRevision = (replicaSet: unknown): number =>
  Number(str(dig(replicaSet, 'metadata', 'annotations', 'deployment.kubernetes.io/revision'))) || 0;

/** The ReplicaSet of a Deployment's newest template: a roll-back gives an old one the highest number again. */
function newestReplicaSet(deployment: unknown, replicaSets: readonly JsonObject[]): JsonObject | undefined {
  return replicaSets
    .filter((replicaSet) => ownedBy(replicaSet, deployment))
    .sort((a, b) => deploymentRevision(b) - deploymentRevision(a))[0];
}

function stateOf(status: unknown): ContainerState {
  const running = dig(status, 'state', 'running');
  if (running !== undefined) return { kind: 'running', sinceMs: time(dig(running, 'startedAt')) };
  const ended = dig(status, 'state', 'terminated');
  if (ended !== undefined) {
    return {
      kind: 'terminated',
      reason: cleaned(str(dig(ended, 'reason')), 100),
      exitCode: num(dig(ended, 'exitCode')),
      message: cleaned(str(dig(ended, 'message'))),
    };
  }
  const waiting = dig(status, 'state', 'waiting');
  return {
    kind: 'waiting',
    reason: cleaned(str(dig(waiting, 'reason')), 100),
    // the kubelet counts the back-off here
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

/** A pod before anything was asked of it, and what is needed to ask. */
export interface FoundPod {
  uid: string;
  resourceVersion: string;
  /** Empty as long as it has none. */
  ip: string;
  facts: IstiodPod;
}

function podFacts(pod: unknown, deployment: string): FoundPod {
  const annotations = dig(pod, 'metadata', 'annotations');
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
      settings: settingsOf(pod),
      injected:
        dig(annotations, 'vault.hashicorp.com/agent-inject-status') === 'injected' ||
        containers.some(({ name }) => name === 'vault-agent' || name === 'vault-agent-init'),
      unschedulable: dig(scheduled, 'status') === 'False' ? cleaned(str(dig(scheduled, 'message'))) : undefined,
      containers,
      served: undefined,
    },
  };
}

/** Gone or going: evicted pods stay as `Failed` and are no replicas any more. */
const isLiving = (pod: unknown): boolean =>
  dig(pod, 'metadata', 'deletionTimestamp') === undefined &&
  !/^(Succeeded|Failed)$/.test(str(dig(pod, 'status', 'phase')));

/** Names of these Deployments' pods, of whatever template, that are being deleted and still run. */
export const endingPods = (
  deployments: readonly JsonObject[],
  replicaSets: readonly JsonObject[],
  pods: readonly JsonObject[],
): string[] =>
  pods
    .filter((pod) => {
      const set = replicaSets.find((one) => ownedBy(pod, one));
      return set !== undefined && deployments.some((deployment) => ownedBy(set, deployment));
    })
    .filter((pod) => dig(pod, 'metadata', 'deletionTimestamp') !== undefined)
    .filter((pod) => !/^(Succeeded|Failed)$/.test(str(dig(pod, 'status', 'phase'))))
    .map((pod) => str(dig(pod, 'metadata', 'name')))
    .sort();

/**
 * The living pods of a Deployment's newest ReplicaSet, by name. A pod counts by its controller, not by its labels: these anybody may set.
 */
export function podsOf(
  deployment: unknown,
  replicaSets: readonly JsonObject[],
  pods: readonly JsonObject[],
): FoundPod[] {
  const newest = newestReplicaSet(deployment, replicaSets);
  if (!newest) return [];
  return pods
    .filter((pod) => ownedBy(pod, newest) && isLiving(pod))
    .map((pod) => podFacts(pod, str(dig(deployment, 'metadata', 'name'))))
    .sort((a, b) => (a.facts.name < b.facts.name ? -1 : 1));
}
