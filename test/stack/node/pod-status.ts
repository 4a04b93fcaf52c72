/** The status that the kubelet writes for a pod, from the states of its containers. Pure. */
import type { ContainerStatus } from './container.ts';
import type { Pod, PodCondition } from './objects.ts';
import type { PodAddress } from './volumes.ts';

export interface PodState {
  readonly init: readonly ContainerStatus[];
  readonly containers: readonly ContainerStatus[];
  /** Whether its volumes are mounted, and it has its address. */
  readonly sandboxReady: boolean;
  readonly startTime: string;
}

const succeeded = ({ state }: ContainerStatus): boolean => 'terminated' in state && state.terminated.exitCode === 0;
const neverRan = ({ state, lastState }: ContainerStatus): boolean =>
  'waiting' in state && lastState.terminated === undefined;

const namesOf = (statuses: readonly ContainerStatus[]): string => `[${statuses.map(({ name }) => name).join(' ')}]`;

/** By https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/, for restartPolicy Always. */
function phaseOf({ init, containers }: PodState): string {
  return init.every(succeeded) && !containers.some(neverRan) ? 'Running' : 'Pending';
}

type Wanted = Pick<PodCondition, 'type' | 'status' | 'reason' | 'message'>;

function wantedConditions({ init, containers, sandboxReady }: PodState): Wanted[] {
  const condition = (type: string, unmet: string | undefined, reason: string): Wanted =>
    unmet === undefined ? { type, status: 'True' } : { type, status: 'False', reason, message: unmet };
  const incomplete = init.filter((status) => !succeeded(status));
  const unready = containers.filter(({ ready }) => !ready);
  const unreadyText = unready.length === 0 ? undefined : `containers with unready status: ${namesOf(unready)}`;
  const incompleteText =
    incomplete.length === 0 ? undefined : `containers with incomplete status: ${namesOf(incomplete)}`;
  return [
    { type: 'PodReadyToStartContainers', status: sandboxReady ? 'True' : 'False' },
    condition('Initialized', incompleteText, 'ContainersNotInitialized'),
    condition('Ready', unreadyText, 'ContainersNotReady'),
    condition('ContainersReady', unreadyText, 'ContainersNotReady'),
  ];
}

/**
 * The whole status.
 * @param before its conditions as they were last written: a condition's time changes only with its status, and those
 * of others (`PodScheduled`) stay
 */
export function podStatus(
  pod: Pod,
  address: PodAddress,
  state: PodState,
  before: readonly PodCondition[],
  now: string,
): Record<string, unknown> & { conditions: PodCondition[] } {
  const wanted = wantedConditions(state);
  const ours = wanted.map((condition) => {
    const old = before.find(({ type }) => type === condition.type);
    const same = old?.status === condition.status && old.lastTransitionTime !== undefined;
    return { ...condition, lastTransitionTime: same ? old.lastTransitionTime : now };
  });
  const others = before.filter(({ type }) => !wanted.some((condition) => condition.type === type));
  return {
    observedGeneration: pod.metadata.generation ?? 0,
    phase: phaseOf(state),
    conditions: [...others, ...ours] as PodCondition[],
    hostIP: address.hostIP,
    hostIPs: [{ ip: address.hostIP }],
    ...(state.sandboxReady ? { podIP: address.podIP, podIPs: [{ ip: address.podIP }] } : {}),
    startTime: state.startTime,
    ...(state.init.length === 0 ? {} : { initContainerStatuses: state.init }),
    containerStatuses: state.containers,
  };
}
