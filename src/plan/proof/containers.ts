/**
 * Why a container of an istiod pod does not do its work: the agent's init container, its sidecar, istiod itself. Pure; the tests and their
 * order are those of the classifier in `istiod.ts`.
 */
import type { PodReason } from '../../api/istiod.ts';
import type { Desired } from '../facts/desired.ts';
import { containerOf, type IstiodContainer, type IstiodPod } from '../facts/observed-istiod.ts';

/** With an error line in its log a hanging init container is called failed after this, in milliseconds. */
export const hangsWithErrorMs = 10_000;
/** Without one, or without the right to read it. A connection that is dropped by a network policy takes so long to show. */
const hangsMs = 45_000;
/** istiod starts within this, in milliseconds; its readiness is asked for every three seconds. */
const startsWithinMs = 60_000;
/** A crash this long ago, in milliseconds, is over: Kubernetes forgets it alike. https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/ */
const crashForgottenMs = 600_000;

export const initContainer = 'vault-agent-init';
export const agentContainer = 'vault-agent';
export const istiodContainer = 'discovery';

/** What is wrong with a container. */
export interface ContainerTrouble {
  container: string;
  /** Ours, or the kubelet's word. */
  reason: string;
  /** What was seen. */
  seen: string;
  /** The likely cause and the next thing to do. */
  next: string;
}

/** A word of the kubelet for a container that will not start by waiting a moment. */
const failingWord = (reason: string): boolean => /BackOff|Err|Invalid|Unavailable/.test(reason);

interface Cause {
  pattern: RegExp;
  reason: PodReason;
  next: (d: Desired, pod: IstiodPod, serviceAccount: string) => string;
}

const namespaceOf = (d: Desired): string => d.identity.namespace;

/** What lines of the agent's log mean, the more telling first. The role's fields are the operator's to write, so it says where to look. */
const agentCauses: readonly Cause[] = [
  {
    pattern:
      /service account name not authorized|namespace not authorized|invalid role name|(auth|login).*\b(403|400)\b|error authenticating.*permission denied/i,
    reason: 'LoginRefused',
    next: (d, _pod, account) => {
      const { mount, role } = d.spec.kubernetesAuth;
      return `Vault refuses the login of ServiceAccount ${account}. Compare \`vault read auth/${mount}/role/${role}\` and \`vault read auth/${mount}/config\`, and the pod's annotation vault.hashicorp.com/role`;
    },
  },
  {
    // not the word alone: it may stand in the name of a mount
    pattern: /\bis sealed\b/i,
    reason: 'VaultSealed',
    next: () => 'Vault is sealed; unseal it, the agent goes on by itself',
  },
  {
    pattern: /x509|certificate signed by unknown|tls:/i,
    reason: 'VaultTLS',
    next: () =>
      "the agent does not trust Vault's certificate, or its name is another. Give the CA with spec.vault.tls.caSecretRef, the name with spec.vault.tls.serverName",
  },
  {
    pattern: /permission denied|\b403\b/i,
    reason: 'ReadRefused',
    next: (d) =>
      `the agent is logged in and may not read. See \`vault policy read ${d.spec.policy.name}\`; AccessReady tells whether the policy is as it should be`,
  },
  {
    pattern: /no secret exists|missing dependency|\b404\b/i,
    reason: 'SecretMissing',
    next: (d) => {
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
    next: (d) =>
      `the pod cannot reach Vault at ${d.spec.vault.injectorAddress ?? d.spec.vault.address}. Check DNS and network policies of namespace ${namespaceOf(d)}; if istiod needs another address than the operator: spec.vault.injectorAddress`,
  },
];

/** What lines of istiod's log mean. pilot/pkg/bootstrap/istio_ca.go, security/pkg/pki/util/keycertbundle.go */
const istiodCauses: readonly Cause[] = [
  {
    pattern: /incomplete signing CA bundle/i,
    reason: 'IncompleteBundle',
    next: (d, pod) => {
      const asked = Object.keys(pod.settings.annotations).filter((name) => /agent-inject-secret-.*\.pem$/.test(name));
      return `some of the four files are missing in ${pod.settings.env['ROOT_CA_DIR'] ?? d.spec.delivery.directory}; the pod asks the agent for ${asked.length} of them. See the agent's log, and the pod's annotations vault.hashicorp.com/agent-inject-secret-…`;
    },
  },
  {
    pattern: /does not match (the |public |private )*key|cert does not match/i,
    reason: 'KeyMismatch',
    next: (d) =>
      `ca-key.pem and ca-cert.pem are of two generations. It passes when the agent has rendered both (spec.delivery.refreshInterval ${d.spec.delivery.refreshInterval}); if it lasts, the agent does not run`,
  },
  {
    pattern: /cannot verify the cert|certificate signed by unknown authority/i,
    reason: 'ChainNotVerified',
    next: () =>
      'ca-cert.pem does not verify against root-cert.pem: the files are of two CAs. See the agent’s log for a file it could not render',
  },
  {
    pattern: /failed to create.*\bCA\b|failed to create discovery service/i,
    reason: 'CALoadFailed',
    next: () => 'istiod refuses the files of the CA; the lines say why',
  },
];

const lines = (container: IstiodContainer): string[] => (Array.isArray(container.log) ? container.log : []);

const quoted = (of: string[]): string => of.map((line) => `"${line}"`).join(' · ');

/** Whether what is wrong was said by the instance before: it ended badly, and the one that is there has just begun. */
export const saidBefore = ({ state, last }: IstiodContainer): boolean =>
  state.kind === 'running' && last !== undefined && last.exitCode !== 0;

/** The command that shows what the operator may not read, or has cut. */
function logCommand(d: Desired, pod: IstiodPod, container: IstiodContainer): string {
  const previous = saidBefore(container) ? ' --previous' : '';
  return `kubectl logs -n ${namespaceOf(d)} ${pod.name} -c ${container.name}${previous}`;
}

/** What the kubelet says of a container. No times, no counters. */
function stateWords({ name, state, last }: IstiodContainer): string {
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

/** Names the cause by what the log says, else by the kubelet's word. */
function trouble(
  d: Desired,
  pod: IstiodPod,
  container: IstiodContainer,
  causes: readonly Cause[],
  fallback: { reason: string; next: string },
  serviceAccount: string,
): ContainerTrouble {
  const said = lines(container);
  const cause = causes.find(({ pattern }) => said.some((line) => pattern.test(line)));
  const log =
    said.length > 0
      ? `; its log: ${quoted(said)}`
      : container.log === 'unreadable'
        ? '; its log may not be read (deploy/components/logs)'
        : '';
  const next = cause ? cause.next(d, pod, serviceAccount) : fallback.next;
  const more = said.length > 0 && cause ? '' : `; see \`${logCommand(d, pod, container)}\``;
  return {
    container: container.name,
    reason: cause?.reason ?? fallback.reason,
    seen: `${stateWords(container)}${log}`,
    next: `${next}${more}`,
  };
}

const wordOf = ({ state, last }: IstiodContainer): string =>
  (state.kind === 'running' ? last?.reason : state.reason) || 'Error';

/** The agent before istiod: it crashed, or it hangs. An agent that cannot log in tries for ever and does not exit. */
export function initTrouble(d: Desired, pod: IstiodPod, account: string, now: number): ContainerTrouble | undefined {
  const container = containerOf(pod, initContainer);
  if (!container) return undefined;
  const { state, last } = container;
  if (state.kind === 'terminated' && state.exitCode === 0) return undefined;
  const failed =
    state.kind === 'terminated' ||
    (state.kind === 'waiting' && failingWord(state.reason)) ||
    (last !== undefined && last.exitCode !== 0);
  const fallback = { next: 'the agent does not get the files of the CA, and istiod is not started before it has them' };
  if (failed) return trouble(d, pod, container, agentCauses, { reason: wordOf(container), ...fallback }, account);
  if (state.kind !== 'running') return undefined;
  const runs = now - state.sinceMs;
  if (runs < hangsMs && !(runs >= hangsWithErrorMs && lines(container).length > 0)) return undefined;
  return trouble(d, pod, container, agentCauses, { reason: 'Hanging', ...fallback }, account);
}

/** The agent beside istiod. One that was restarted once and runs again is well. */
export function agentTrouble(d: Desired, pod: IstiodPod, account: string, now: number): ContainerTrouble | undefined {
  const container = containerOf(pod, agentContainer);
  if (!container) return undefined;
  const { state, last, ready, restarts } = container;
  const next =
    'istiod goes on with the files it has, and gets no renewed ones; the token is not renewed, or the policy was changed';
  if (state.kind === 'terminated' || (state.kind === 'waiting' && failingWord(state.reason)))
    return trouble(d, pod, container, agentCauses, { reason: wordOf(container), next }, account);
  if (state.kind !== 'running') return undefined;
  if (!ready && now - state.sinceMs >= hangsMs)
    return trouble(d, pod, container, agentCauses, { reason: 'NotReady', next }, account);
  const again = restarts > 1 && last !== undefined && last.exitCode !== 0 && now - last.endedMs < crashForgottenMs;
  return again ? trouble(d, pod, container, agentCauses, { reason: 'RestartsAgain', next }, account) : undefined;
}

/** istiod itself: it ended, or it runs and does not become ready. */
export function istiodTrouble(d: Desired, pod: IstiodPod, account: string, now: number): ContainerTrouble | undefined {
  const container = containerOf(pod, istiodContainer);
  if (!container) return undefined;
  const { state, last, ready } = container;
  const next = 'istiod does not start';
  const ended = last !== undefined && last.exitCode !== 0;
  if (state.kind === 'terminated' || (state.kind === 'waiting' && failingWord(state.reason)))
    return trouble(d, pod, container, istiodCauses, { reason: wordOf(container), next }, account);
  if (state.kind !== 'running' || ready) return undefined;
  if (ended) return trouble(d, pod, container, istiodCauses, { reason: wordOf(container), next }, account);
  if (now - state.sinceMs < startsWithinMs) return undefined;
  return trouble(
    d,
    pod,
    container,
    istiodCauses,
    {
      reason: 'NotReady',
      next: 'it has not become ready within a minute; when its log does not say why, it hangs: delete the pod',
    },
    account,
  );
}

/** When, in milliseconds since the epoch, time alone will change what is said of a pod's containers; none: undefined. */
export function nextTurn(pod: IstiodPod, now: number): number | undefined {
  const turns = pod.containers.flatMap(({ name, state, ready, last }) => {
    if (state.kind !== 'running') return [];
    if (name === initContainer) return [state.sinceMs + hangsWithErrorMs, state.sinceMs + hangsMs];
    if (name === istiodContainer && !ready) return [state.sinceMs + startsWithinMs];
    if (name !== agentContainer) return [];
    return [...(ready ? [] : [state.sinceMs + hangsMs]), ...(last ? [last.endedMs + crashForgottenMs] : [])];
  });
  const ahead = turns.filter((at) => at > now);
  return ahead.length > 0 ? Math.min(...ahead) : undefined;
}
