/** Selects the container logs to read for an istiod replica: those that can explain its state. Pure. */
import { type IstiodPod, containerOf } from '../facts/observed-istiod.ts';
import { previousCrashed, initContainer, hangsWithErrorMs, istiodContainer } from './containers.ts';
import { classify, type EvaluationInput } from './replica.ts';

/** Request to read the log of one container. */
export interface LogRequest {
  container: string;
  /** Read the log of the previous container instance, because the current one has just started. */
  previous: boolean;
  /** istiod logs at its start which CA it uses; every other relevant line is at the end of the log. */
  from: 'start' | 'end';
}

/** Returns the logs to read for a Pod, by its classification without logs. */
export function logRequestsOf(pod: IstiodPod, input: EvaluationInput): LogRequest[] {
  const { phase, reason, container } = classify(pod, input);
  const request = (name: string, from: LogRequest['from']): LogRequest[] => {
    const target = containerOf(pod, name);
    if (!target) return [];
    return [
      {
        container: target.name,
        from,
        previous: from === 'end' && previousCrashed(target) && name !== initContainer,
      },
    ];
  };
  const init = containerOf(pod, initContainer);
  if (init?.state.kind === 'running' && input.s.now - init.state.sinceMs >= hangsWithErrorMs)
    return request(initContainer, 'end');
  switch (phase) {
    case 'VaultInitFailed':
    case 'VaultAgentFailed':
    case 'IstiodCrash':
      return container === undefined ? [] : request(container, 'end');
    case 'StaleCA':
      return request(istiodContainer, 'end').map((one) => ({ ...one, previous: false }));
    case 'NotInjected':
      return containerOf(pod, istiodContainer)?.state.kind === 'running' ? request(istiodContainer, 'start') : [];
    case 'Pending':
      return reason === 'ProbeBlocked' || reason === 'OtherCertificate' ? request(istiodContainer, 'start') : [];
    case 'SelfSignedFallback':
      return request(istiodContainer, 'start');
    case 'Proven':
      return [];
  }
}
