/**
 * What is the matter with one istiod replica: pure. A handshake decides where there was one: it proves the CA, or shows another. Else the
 * states of the pod's containers are judged in the order in which they run, so that the first thing that is wrong is named. See
 * docs/adr/0005.
 */
import type { IstiodPhase } from '../../api/istiod.ts';
import type { DerivedState } from '../facts/derived.ts';
import type { Desired } from '../facts/desired.ts';
import { evaluateHandshake, type ExpectedCa } from './handshake.ts';
import {
  agentTrouble,
  initContainer,
  initTrouble,
  istiodContainer,
  agentContainer,
  istiodTrouble,
  type ContainerTrouble,
} from './containers.ts';
import {
  containerOf,
  digestOf,
  type IstiodDeployment,
  type IstiodPod,
  type Served,
  type Unreachable,
} from '../facts/observed-istiod.ts';

/** What is said of one replica. */
export interface ReplicaResult {
  pod: string;
  phase: IstiodPhase;
  /** Ours (`podReasons`), or the kubelet's word. */
  reason: string;
  container?: string;
  /** What was seen, the likely cause, and the next thing to do. No clocks, no counters. */
  message: string;
}

const longestMessage = 1500;
const cut = (text: string) =>
  text.length <= longestMessage ? text : `${text.slice(0, longestMessage - 1).toWellFormed()}…`;

/** What one replica is judged by besides itself. */
export interface EvaluationInput {
  s: DerivedState;
  deployment: IstiodDeployment | undefined;
  /** Absent while there is no valid CA. */
  ca: ExpectedCa | undefined;
}

const isServed = (served: Served | Unreachable | undefined): served is Served =>
  served !== undefined && 'leaf' in served;

const annotation = (pod: IstiodPod, name: string): string | undefined =>
  pod.settings.annotations[`vault.hashicorp.com/${name}`];
const asksForAgent = (pod: IstiodPod): boolean => annotation(pod, 'agent-inject') === 'true';

const logOf = (pod: IstiodPod, name: string): string[] => {
  const log = containerOf(pod, name)?.log;
  return Array.isArray(log) ? log : [];
};

const say = (...parts: (string | undefined)[]): string =>
  cut(parts.filter((part) => part !== undefined && part !== '').join('; '));

/** While the control plane's fields are not written, nothing is expected of istiod. */
function notConfigured(pod: IstiodPod, { s }: EvaluationInput): ReplicaResult | undefined {
  if (s.kubernetes.controlPlane?.carriesFields === true || asksForAgent(pod)) return undefined;
  const message = 'the control plane does not carry the fields for istiod yet: ControlPlanePatched says why';
  return { pod: pod.name, phase: 'Pending', reason: 'NotConfigured', message };
}

/** What the injector looks like now, for a pod that it has passed over. */
function injectorCause({ s }: EvaluationInput): string {
  const { injector } = s.kubernetes;
  if (!injector.found) return 'no webhook of the Vault agent injector is registered: install it, then delete the pod';
  if (!injector.selectsNamespace)
    return `its webhook ${injector.name} does not select namespace ${s.identity.namespace}: change its namespaceSelector or the namespace's labels, then delete the pod`;
  const policy =
    injector.failurePolicy === 'Fail'
      ? ''
      : ` (failurePolicy ${injector.failurePolicy ?? 'Ignore'} lets pods pass when it does not answer)`;
  return `the webhook ${injector.name} is there now, and was not, or did not answer, when the pod was made${policy}: see whether the injector runs, then delete the pod`;
}

/** Numbers of a version such as `1.26.1`; NaN-free, missing ones are 0. */
function versionNumbers(version: string): [number, number, number] | undefined {
  const match = /^v?(\d+)\.(\d+)(?:\.(\d+))?/.exec(version);
  return match ? [Number(match[1]), Number(match[2]), Number(match[3] ?? 0)] : undefined;
}

/** Whether Istio is known to be older. */
export function olderThan(version: string, minor: number, patch = 0): boolean {
  const numbers = versionNumbers(version);
  if (!numbers || numbers[0] !== 1) return false;
  return numbers[1] < minor || (numbers[1] === minor && numbers[2] < patch);
}

const signsBySelf = /Use self-signed certificate as the CA certificate/;
const signsByFiles = /Use local CA certificate/;

/** istiod signs with another CA: the gravest, since nothing else in Kubernetes shows it. */
function selfSigned(pod: IstiodPod, scene: EvaluationInput): ReplicaResult | undefined {
  const { ca, s } = scene;
  const log = logOf(pod, istiodContainer);
  const shown = isServed(pod.served) && ca ? evaluateHandshake(pod.served, ca, s.now) : undefined;
  const said =
    !isServed(pod.served) && log.some((line) => signsBySelf.test(line)) && !log.some((line) => signsByFiles.test(line));
  if (shown?.kind !== 'Foreign' && !said) return undefined;
  const words = log.length > 0 ? `its log: ${log.map((line) => `"${line}"`).join(' · ')}` : undefined;
  const seen = [shown?.kind === 'Foreign' ? shown.seen : 'it says that it signs by itself', words]
    .filter((w) => w !== undefined)
    .join('; ');
  const { reason, cause } = fallbackCause(pod, scene);
  const effect = 'workload certificates that it signs are not of this CA';
  return {
    pod: pod.name,
    phase: 'SelfSignedFallback',
    reason,
    container: istiodContainer,
    message: say(seen, effect, cause),
  };
}

function fallbackCause(pod: IstiodPod, scene: EvaluationInput): { reason: string; cause: string } {
  const { s, deployment } = scene;
  if (!asksForAgent(pod))
    return {
      reason: 'NotPropagated',
      cause: 'the pod does not carry the fields that the control plane has: see IstiodReady',
    };
  if (!pod.injected) return { reason: 'NotInjected', cause: `the pod has no Vault agent: ${injectorCause(scene)}` };
  const reads = pod.settings.env['ROOT_CA_DIR'];
  const rendered = annotation(pod, 'secret-volume-path') ?? '/vault/secrets';
  if (reads !== rendered) {
    const cause = `istiod reads ${reads === undefined ? './etc/cacerts (ROOT_CA_DIR is not set)' : reads}, the agent renders to ${rendered} (vault.hashicorp.com/secret-volume-path): both come from spec.delivery.directory; find who sets the one that differs`;
    return { reason: 'WrongDirectory', cause };
  }
  const old = olderThan(deployment?.version ?? '', 26, 1)
    ? ' (before Istio 1.26.1 a missing ca-key.pem is enough)'
    : '';
  return {
    reason: 'FilesMissing',
    cause: `when istiod started, none of the files of the CA were in ${rendered}${old}. \`kubectl logs -n ${s.identity.namespace} ${pod.name} -c ${agentContainer}\` tells why; then delete the pod`,
  };
}

/** The injector passed the pod over, and what istiod serves is not known yet. */
function notInjected(pod: IstiodPod, scene: EvaluationInput): ReplicaResult | undefined {
  if (!asksForAgent(pod) || pod.injected || isServed(pod.served)) return undefined;
  const seen =
    'the pod asks for a Vault agent (vault.hashicorp.com/agent-inject) and has none; istiod then signs by itself';
  return { pod: pod.name, phase: 'NotInjected', reason: 'NotInjected', message: say(seen, injectorCause(scene)) };
}

const byContainer =
  (
    phase: IstiodPhase,
    find: (d: Desired, pod: IstiodPod, account: string, now: number) => ContainerTrouble | undefined,
  ) =>
  (pod: IstiodPod, { s, deployment }: EvaluationInput): ReplicaResult | undefined => {
    const found = find(s.desired, pod, deployment?.serviceAccount ?? 'istiod', s.now);
    return (
      found && {
        pod: pod.name,
        phase,
        reason: found.reason,
        container: found.container,
        message: say(found.seen, found.next),
      }
    );
  };

function staleCause(pod: IstiodPod, { s, ca, deployment }: EvaluationInput): string {
  const log = logOf(pod, istiodContainer);
  const said = log.length > 0 ? `; its log: ${log.map((line) => `"${line}"`).join(' · ')}` : '';
  if (ca?.digest !== undefined && digestOf(pod.settings) !== ca.digest)
    return `its pod template is of before the change: the Deployment is rolled when the control plane has passed the new istiovaultca.io/ca-digest on${said}`;
  const restart = `kubectl rollout restart -n ${s.identity.namespace} deployment/${pod.deployment}`;
  if (deployment && olderThan(deployment.version, 18))
    return `Istio ${deployment.version} reads new files only when it starts (AUTO_RELOAD_PLUGIN_CERTS is off before 1.18): ${restart}${said}`;
  return `the agent renders new files within ${s.spec.delivery.refreshInterval}, and istiod then reads them; if it lasts, see both logs, then ${restart}${said}`;
}

function stale(pod: IstiodPod, scene: EvaluationInput): ReplicaResult | undefined {
  const { ca, s } = scene;
  if (!isServed(pod.served) || !ca) return undefined;
  const evidence = evaluateHandshake(pod.served, ca, s.now);
  if (evidence.kind !== 'Stale') return undefined;
  const message = say(evidence.seen, staleCause(pod, scene));
  return { pod: pod.name, phase: 'StaleCA', reason: evidence.reason, container: istiodContainer, message };
}

function proven(pod: IstiodPod, { ca, s }: EvaluationInput): ReplicaResult | undefined {
  if (!isServed(pod.served) || !ca || evaluateHandshake(pod.served, ca, s.now).kind !== 'Proven') return undefined;
  const message = `serves a certificate of generation ${ca.generation}`;
  return { pod: pod.name, phase: 'Proven', reason: 'Handshake', message };
}

/** A handshake that did not come about with an istiod that is ready: the ConfigMap speaks, but does not prove. */
function blocked(pod: IstiodPod, unreachable: string, { s, ca }: EvaluationInput): ReplicaResult {
  const mesh = s.kubernetes.meshRoots;
  const agrees =
    ca !== undefined && mesh !== undefined && ca.roots.every((r) => mesh.some((m) => m.fingerprint === r.fingerprint));
  const weaker = agrees
    ? 'weaker evidence speaks for it: istio-ca-root-cert of this namespace holds exactly what this CA wants, but any one replica may have written it'
    : 'istio-ca-root-cert of this namespace does not hold the root of this CA';
  const next = `allow the operator's pods to reach port 15012 of istiod (NetworkPolicies of namespace ${s.identity.namespace} and of the operator's), or look: \`kubectl logs -n ${s.identity.namespace} ${pod.name} -c ${istiodContainer}\``;
  return {
    pod: pod.name,
    phase: 'Pending',
    reason: 'ProbeBlocked',
    container: istiodContainer,
    message: say(`istiod is ready, but no TLS handshake with it on port 15012: ${unreachable}`, weaker, next),
  };
}

/** Nothing is wrong yet. */
function pending(pod: IstiodPod, scene: EvaluationInput): ReplicaResult {
  const is = (reason: string, message: string, container?: string): ReplicaResult => ({
    pod: pod.name,
    phase: 'Pending',
    reason,
    ...(container === undefined ? {} : { container }),
    message: cut(message),
  });
  if (pod.unschedulable !== undefined) return is('Unschedulable', `no node takes the pod: ${pod.unschedulable}`);
  const discovery = containerOf(pod, istiodContainer);
  if (discovery?.state.kind === 'running') {
    if (!scene.ca) return is('NoLiveCA', 'there is no sound CA in Vault to compare with; see the conditions above');
    if (!discovery.ready) return is('Starting', 'istiod is starting', istiodContainer);
    if (pod.served && 'unreachable' in pod.served) return blocked(pod, pod.served.unreachable, scene);
    return is('NotProbed', 'istiod is ready; what it serves was not looked at yet', istiodContainer);
  }
  if (containerOf(pod, initContainer)?.state.kind === 'running')
    return is('VaultInit', 'the Vault agent gets the files of the CA', initContainer);
  const waiting = pod.containers.find(({ state }) => state.kind === 'waiting' && state.reason !== '');
  if (waiting?.state.kind !== 'waiting') return is('Starting', 'its containers are being made');
  const { reason, message } = waiting.state;
  return is(
    reason,
    `${waiting.name} waits: ${[reason, message].filter((word) => word !== '').join(', ')}`,
    waiting.name,
  );
}

const rules = [
  notConfigured,
  selfSigned,
  notInjected,
  byContainer('VaultInitFailed', initTrouble),
  byContainer('VaultAgentFailed', agentTrouble),
  byContainer('IstiodCrash', istiodTrouble),
  stale,
  proven,
];

/** The phase of one replica; the first rule that fits decides. */
export function classify(pod: IstiodPod, scene: EvaluationInput): ReplicaResult {
  for (const rule of rules) {
    const verdict = rule(pod, scene);
    if (verdict) return verdict;
  }
  return pending(pod, scene);
}
