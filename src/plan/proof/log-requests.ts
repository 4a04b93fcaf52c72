/** Which container logs of a replica to read: those that can explain its state. Pure. */
import { type IstiodPod, containerOf } from '../facts/observed-istiod.ts';
import { saidBefore, initContainer, hangsWithErrorMs, istiodContainer } from './containers.ts';
import { classify, type EvaluationInput } from './replica.ts';

/** Which log of a pod would tell more. */
export interface LogRequest {
  container: string;
  /** Of the run before: the one that is there has just begun. */
  previous: boolean;
  /** istiod says at its start which CA it uses; all else stands at the end. */
  from: 'start' | 'end';
}

/** The logs that are worth reading for a pod, judged without them. */

export function logRequestsOf(pod: IstiodPod, scene: EvaluationInput): LogRequest[] {
  const { phase, reason, container } = classify(pod, scene);
  const wish = (name: string, from: LogRequest['from']): LogRequest[] => {
    const found = containerOf(pod, name);
    if (!found) return [];
    return [
      {
        container: name,
        from,
        previous: from === 'end' && saidBefore(found) && name !== initContainer,
      },
    ];
  };
  const init = containerOf(pod, initContainer);
  if (init?.state.kind === 'running' && scene.s.now - init.state.sinceMs >= hangsWithErrorMs)
    return wish(initContainer, 'end');
  switch (phase) {
    case 'VaultInitFailed':
    case 'VaultAgentFailed':
    case 'IstiodCrash':
      return container === undefined ? [] : wish(container, 'end');
    case 'StaleCA':
      return wish(istiodContainer, 'end').map((w) => ({ ...w, previous: false }));
    case 'NotInjected':
      return containerOf(pod, istiodContainer)?.state.kind === 'running' ? wish(istiodContainer, 'start') : [];
    case 'Pending':
      return reason === 'ProbeBlocked' ? wish(istiodContainer, 'start') : [];
    case 'SelfSignedFallback':
      return wish(istiodContainer, 'start');
    case 'Proven':
      return [];
  }
}
