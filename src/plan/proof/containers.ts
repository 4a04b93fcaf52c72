/**
 * Explains the failure of a container of an istiod Pod: Vault Agent's init container, Vault Agent's sidecar container, or istiod. The rules
 * in `replica.ts` call these functions in the order in which the containers start. Pure.
 */
import { agentContainerName } from '../../api/injectors.ts';
import type { PodReason } from '../../api/istiod.ts';
import type { Desired } from '../facts/desired.ts';
import { containerOf, type IstiodContainer, type IstiodPod } from '../facts/observed-istiod.ts';

/** An init container that runs longer than this and has an error line in its log counts as failed. Milliseconds. */
export const hangsWithErrorMs = 10_000;
/**
 * An init container, or a Vault Agent container that is not ready, counts as failed after this, in milliseconds, whatever its log shows. A
 * connection that a NetworkPolicy drops takes this long to fail.
 */
const hangsMs = 45_000;
/** istiod becomes ready within this after its start, in milliseconds. Its chart sets a readiness probe period of 3 seconds. */
const startsWithinMs = 60_000;
/**
 * A crash longer ago than this, in milliseconds, no longer counts. The kubelet resets its restart back-off after the same time.
 * Source: https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/
 */
const crashForgottenMs = 600_000;

export const initContainer = 'vault-agent-init';
export const agentContainer = 'vault-agent';
export const istiodContainer = 'discovery';

/** Failure of a container. */
export interface ContainerFailure {
  container: string;
  /** One of `podReasons`, or the reason that the kubelet reports. */
  reason: string;
  /** State of the container and lines of its log. */
  symptom: string;
  /** The likely cause and the action to take. */
  action: string;
}

/** Returns whether the kubelet's waiting reason is a failure, not a passing state such as `PodInitializing`. */
const isFailureReason = (reason: string): boolean => /BackOff|Err|Invalid|Unavailable/.test(reason);

/** A known cause of a failure. */
interface Cause {
  /** Matches a line of the container's log. */
  pattern: RegExp;
  reason: PodReason;
  /** Returns the likely cause and the action to take. */
  action: (d: Desired, pod: IstiodPod, serviceAccount: string) => string;
}

const namespaceOf = (d: Desired): string => d.identity.namespace;

/**
 * Causes by Vault Agent's log, the most specific first. The operator itself writes the fields of the Vault role, so the action names the
 * commands that show them instead of fields to change.
 */
const agentCauses: readonly Cause[] = [
  {
    pattern:
      /service account name not authorized|namespace not authorized|invalid role name|(auth|login).*\b(403|400)\b|error authenticating.*permission denied/i,
    reason: 'LoginRefused',
    action: (d, _pod, account) => {
      const { mount, role } = d.spec.kubernetesAuth;
      return `Vault refuses the login of ServiceAccount ${account}. Compare \`vault read auth/${mount}/role/${role}\` and \`vault read auth/${mount}/config\`, and the pod's annotation vault.hashicorp.com/role`;
    },
  },
  {
    // not the word `sealed` alone: the name of a mount can contain it
    pattern: /\bis sealed\b/i,
    reason: 'VaultSealed',
    action: () => 'Vault is sealed; unseal it, the agent goes on by itself',
  },
  {
    pattern: /x509|certificate signed by unknown|tls:/i,
    reason: 'VaultTLS',
    action: () =>
      "the agent does not trust Vault's certificate, or its name is another. Give the CA with spec.vault.tls.caSecretRef, the name with spec.vault.tls.serverName",
  },
  {
    pattern: /permission denied|\b403\b/i,
    reason: 'ReadRefused',
    action: (d) =>
      `the agent is logged in and may not read. See \`vault policy read ${d.spec.policy.name}\`; AccessReady tells whether the policy is as it should be`,
  },
  {
    pattern: /no secret exists|missing dependency|\b404\b/i,
    reason: 'SecretMissing',
    action: (d) => {
      const { address, injectorAddress } = d.spec.vault;
      const where =
        injectorAddress === undefined
          ? 'in Vault'
          : `at ${injectorAddress} (spec.vault.injectorAddress), which must lead to the same Vault as ${address}`;
      return `what the templates read is not ${where}; see the conditions above, and \`vault kv get -field=root-cert.pem ${d.spec.keyStore.mount}/${d.spec.keyStore.path}\``;
    },
  },
  {
    pattern:
      /no such host|connection refused|i\/o timeout|deadline exceeded|no route to host|context canceled|dial tcp/i,
    reason: 'VaultUnreachable',
    action: (d) =>
      `the pod cannot reach Vault at ${d.spec.vault.injectorAddress ?? d.spec.vault.address}. Check DNS and network policies of namespace ${namespaceOf(d)}; if istiod needs another address than the operator: spec.vault.injectorAddress`,
  },
];

/**
 * Causes by istiod's log.
 * Source: https://github.com/istio/istio, pilot/pkg/bootstrap/istio_ca.go and security/pkg/pki/util/keycertbundle.go
 */
const istiodCauses: readonly Cause[] = [
  {
    pattern: /incomplete signing CA bundle/i,
    reason: 'IncompleteBundle',
    action: (d, pod) => {
      const requested = Object.keys(pod.settings.annotations).filter((name) =>
        /agent-inject-secret-.*\.pem$/.test(name),
      );
      return `some of the four files are missing in ${pod.settings.env['ROOT_CA_DIR'] ?? d.spec.delivery.directory}; the pod asks the agent for ${requested.length} of them. See the agent's log, and the pod's annotations vault.hashicorp.com/agent-inject-secret-…`;
    },
  },
  {
    pattern: /does not match (the |public |private )*key|cert does not match/i,
    reason: 'KeyMismatch',
    action: (d) =>
      `ca-key.pem and ca-cert.pem are of two generations. It passes when the agent has rendered both (spec.delivery.refreshInterval ${d.spec.delivery.refreshInterval}); if it lasts, the agent does not run`,
  },
  // Go's x509 prints one text for both ends of the validity, then which of them it is
  {
    pattern: /has expired or is not yet valid.* is after /i,
    reason: 'CertificateExpired',
    action: (d) =>
      `a certificate of the CA has run out: IntermediateReady and RootReady say which, and what is done about it. If they are True, the agent rendered older files (spec.delivery.refreshInterval ${d.spec.delivery.refreshInterval}), or the clock of the pod's node is ahead`,
  },
  {
    pattern: /has expired or is not yet valid.* is before /i,
    reason: 'CertificateNotYetValid',
    action: () =>
      "a certificate of the CA is not valid yet by the clock of the pod's node, which is behind Vault's: set the clock right; istiod then starts by itself",
  },
  {
    pattern: /incompatible key usage/i,
    reason: 'ExtendedKeyUsage',
    action: () =>
      'a certificate of the CA is limited to extended key usages without server authentication, and istiod takes no such CA: have it issued without an extended key usage',
  },
  {
    pattern: /cannot verify the cert|certificate signed by unknown authority/i,
    reason: 'ChainNotVerified',
    action: () =>
      'ca-cert.pem does not verify against root-cert.pem: the files are of two CAs. See the agent’s log for a file it could not render',
  },
  {
    pattern: /failed to create.*\bCA\b/,
    reason: 'CALoadFailed',
    action: () => 'istiod refuses the files of the CA; the lines say why',
  },
];

/** Lines of a container's log; empty if the container does not exist, or its log was not read or is unreadable. */
export const logLines = (container: IstiodContainer | undefined): string[] =>
  Array.isArray(container?.log) ? container.log : [];

export const quoted = (lines: string[]): string => lines.map((line) => `"${line}"`).join(' · ');

/** Returns whether the log of the previous container instance explains a failure: that instance crashed, and the current one runs. */
export const previousCrashed = ({ state, last }: IstiodContainer): boolean =>
  state.kind === 'running' && last !== undefined && last.exitCode !== 0;

/** Returns the kubectl command that shows the complete log. */
function logCommand(d: Desired, pod: IstiodPod, container: IstiodContainer): string {
  const previous = previousCrashed(container) ? ' --previous' : '';
  return `kubectl logs -n ${namespaceOf(d)} ${pod.name} -c ${container.name}${previous}`;
}

/** Returns the container's state in words, as the kubelet reports it: without times and counters, so that the text is stable. */
function describeState({ name, state, last }: IstiodContainer): string {
  const ended = last && last.exitCode !== 0 ? `, after it ended with code ${last.exitCode}` : '';
  switch (state.kind) {
    case 'waiting':
      return `${name} waits: ${[state.reason, state.message].filter((word) => word !== '').join(', ')}${ended}`;
    case 'terminated':
      return `${name} has ended with code ${state.exitCode}${state.reason === '' ? '' : ` (${state.reason})`}${state.message === '' ? '' : `: ${state.message}`}`;
    case 'running':
      return `${name} runs${ended}`;
  }
}

/**
 * Returns the failure of a container. The first cause that matches the log determines reason and action; without a match, the fallback does.
 * @param serviceAccount name of the ServiceAccount with which Vault Agent logs in
 */
function containerFailure(
  d: Desired,
  pod: IstiodPod,
  container: IstiodContainer,
  causes: readonly Cause[],
  fallback: { reason: string; action: string },
  serviceAccount: string,
): ContainerFailure {
  const lines = logLines(container);
  const cause = causes.find(({ pattern }) => lines.some((line) => pattern.test(line)));
  const log =
    lines.length > 0
      ? `; its log: ${quoted(lines)}`
      : container.log === 'unreadable'
        ? '; the operator lacks permission to get pods/log (deploy/components/logs)'
        : '';
  const action = cause ? cause.action(d, pod, serviceAccount) : fallback.action;
  const command = lines.length > 0 && cause ? '' : `; see \`${logCommand(d, pod, container)}\``;
  return {
    container: container.name,
    reason: cause?.reason ?? fallback.reason,
    symptom: `${describeState(container)}${log}`,
    action: `${action}${command}`,
  };
}

/**
 * Returns the reason that the kubelet reports for the failure, of the previous instance if the container runs again; `Error` if there is
 * none.
 */
const kubeletReason = ({ state, last }: IstiodContainer): string =>
  (state.kind === 'running' ? last?.reason : state.reason) || 'Error';

/**
 * Returns the failure of Vault Agent's init container: a crash, or no end in time. A Vault Agent that cannot log in retries without end and
 * does not exit. `undefined`: no failure.
 */
export function initFailure(d: Desired, pod: IstiodPod, account: string, now: number): ContainerFailure | undefined {
  const container = containerOf(pod, initContainer);
  if (!container) return undefined;
  const { state, last } = container;
  if (state.kind === 'terminated' && state.exitCode === 0) return undefined;
  const failed =
    state.kind === 'terminated' ||
    (state.kind === 'waiting' && isFailureReason(state.reason)) ||
    (last !== undefined && last.exitCode !== 0);
  const fallback = {
    action: 'the agent does not get the files of the CA, and istiod is not started before it has them',
  };
  if (failed)
    return containerFailure(d, pod, container, agentCauses, { reason: kubeletReason(container), ...fallback }, account);
  if (state.kind !== 'running') return undefined;
  const runs = now - state.sinceMs;
  if (runs < hangsMs && !(runs >= hangsWithErrorMs && logLines(container).length > 0)) return undefined;
  return containerFailure(d, pod, container, agentCauses, { reason: 'Hanging', ...fallback }, account);
}

/**
 * Returns the failure of Vault Agent's sidecar container; `undefined`: no failure. A container that was restarted once and runs is healthy.
 */
export function agentFailure(d: Desired, pod: IstiodPod, account: string, now: number): ContainerFailure | undefined {
  const container = containerOf(pod, agentContainer);
  if (!container) return undefined;
  const { state, last, ready, restarts } = container;
  const action =
    'istiod goes on with the files it has, and gets no renewed ones; the token is not renewed, or the policy was changed';
  if (state.kind === 'terminated' || (state.kind === 'waiting' && isFailureReason(state.reason)))
    return containerFailure(d, pod, container, agentCauses, { reason: kubeletReason(container), action }, account);
  if (state.kind !== 'running') return undefined;
  if (!ready && now - state.sinceMs >= hangsMs)
    return containerFailure(d, pod, container, agentCauses, { reason: 'NotReady', action }, account);
  const again = restarts > 1 && last !== undefined && last.exitCode !== 0 && now - last.endedMs < crashForgottenMs;
  return again
    ? containerFailure(d, pod, container, agentCauses, { reason: 'RestartsAgain', action }, account)
    : undefined;
}

/** Returns the failure of container `discovery`: istiod exited, or it does not become ready in time. `undefined`: no failure. */
export function istiodFailure(d: Desired, pod: IstiodPod, account: string, now: number): ContainerFailure | undefined {
  const container = containerOf(pod, istiodContainer);
  if (!container) return undefined;
  const { state, last, ready } = container;
  const action = 'istiod does not start';
  const crashed = last !== undefined && last.exitCode !== 0;
  if (state.kind === 'terminated' || (state.kind === 'waiting' && isFailureReason(state.reason)))
    return containerFailure(d, pod, container, istiodCauses, { reason: kubeletReason(container), action }, account);
  if (state.kind !== 'running' || ready) return undefined;
  if (crashed)
    return containerFailure(d, pod, container, istiodCauses, { reason: kubeletReason(container), action }, account);
  if (now - state.sinceMs < startsWithinMs) return undefined;
  return containerFailure(
    d,
    pod,
    container,
    istiodCauses,
    {
      reason: 'NotReady',
      action: 'it has not become ready within a minute; when its log does not say why, it hangs: delete the pod',
    },
    account,
  );
}

/**
 * Returns when the passing of time alone changes the result for a Pod's containers, in milliseconds since the epoch; `undefined`: never.
 * @param now milliseconds since the epoch
 */
export function nextChangeAt(pod: IstiodPod, now: number): number | undefined {
  const changes = pod.containers.flatMap(({ name, state, ready, last }) => {
    if (state.kind !== 'running') return [];
    if (agentContainerName(name) === initContainer) return [state.sinceMs + hangsWithErrorMs, state.sinceMs + hangsMs];
    if (name === istiodContainer && !ready) return [state.sinceMs + startsWithinMs];
    if (agentContainerName(name) !== agentContainer) return [];
    return [...(ready ? [] : [state.sinceMs + hangsMs]), ...(last ? [last.endedMs + crashForgottenMs] : [])];
  });
  const ahead = changes.filter((at) => at > now);
  return ahead.length > 0 ? Math.min(...ahead) : undefined;
}
