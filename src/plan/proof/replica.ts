/**
 * Classifies one istiod replica by the first matching rule. Order: not configured yet, certificate of another CA, Vault Agent not injected,
 * container failures in start order, handshake result (`StaleCA` or `Proven`). A container failure outranks a valid handshake. If no rule
 * matches, the replica is `Pending`. Pure. See docs/adr/0005.
 */
import type { IstiodPhase } from '../../api/istiod.ts';
import type { DerivedState } from '../facts/derived.ts';
import type { Desired } from '../facts/desired.ts';
import { injectorNotes, injectorObstacle } from '../control-plane/checks.ts';
import { evaluateHandshake, evidenceOf, hidesSigner, isServed, isSignerUnknown, type ExpectedCa } from './handshake.ts';
import {
  agentFailure,
  initContainer,
  initFailure,
  istiodContainer,
  agentContainer,
  istiodFailure,
  logLines,
  quoted,
  type ContainerFailure,
} from './containers.ts';
import { defaultPlace, describePlace } from '../facts/trust-places.ts';
import { containerOf, digestOf, type IstiodDeployment, type IstiodPod } from '../facts/observed-istiod.ts';

/** Classification of one replica: an entry of `status.istiod`. */
export interface ReplicaResult {
  pod: string;
  phase: IstiodPhase;
  /** One of `podReasons`, or the reason that the kubelet reports. */
  reason: string;
  /** The container that the reason is about. */
  container?: string;
  /** What was observed, the likely cause, and the action to take. Without times and counters, so that the text is stable. */
  message: string;
}

/** Maximum length of a message, in UTF-16 code units. */
const longestMessage = 1500;
const truncate = (text: string) =>
  text.length <= longestMessage ? text : `${text.slice(0, longestMessage - 1).toWellFormed()}…`;

/** Evaluation input of a replica, besides its Pod. */
export interface EvaluationInput {
  s: DerivedState;
  /** The Deployment that the Pod belongs to. */
  deployment: IstiodDeployment | undefined;
  /** `undefined`: there is no valid CA. */
  ca: ExpectedCa | undefined;
}

/** Value of an annotation of Vault Agent Injector; `undefined`: not set. */
const annotation = (pod: IstiodPod, name: string): string | undefined =>
  pod.settings.annotations[`vault.hashicorp.com/${name}`];
/** The Pod requests injection of Vault Agent. */
const requestsAgent = (pod: IstiodPod): boolean => annotation(pod, 'agent-inject') === 'true';

/** Joins the parts of a message that exist, and truncates it. */
const joinMessage = (...parts: (string | undefined)[]): string =>
  truncate(parts.filter((part) => part !== undefined && part !== '').join('; '));

/** The control plane does not carry the fields yet, so istiod is not expected to serve this CA. */
function notConfigured(pod: IstiodPod, { s }: EvaluationInput): ReplicaResult | undefined {
  if (s.kubernetes.controlPlane?.carriesFields === true || requestsAgent(pod)) return undefined;
  const message = 'the control plane does not carry the fields for istiod yet: ControlPlanePatched says why';
  return { pod: pod.name, phase: 'Pending', reason: 'NotConfigured', message };
}

/** Returns, for a message, why Vault Agent Injector did not inject Vault Agent into a Pod, by the present state of its webhook. */
function injectorCause({ s }: EvaluationInput): string {
  const { injector } = s.kubernetes;
  const obstacle = injectorObstacle(s);
  if (obstacle) return `${obstacle.cause}. ${obstacle.action}, then delete the pod`;
  const policy =
    injector.failurePolicy === 'Fail'
      ? ''
      : ` (failurePolicy ${injector.failurePolicy ?? 'Ignore'} lets pods pass when it does not answer)`;
  const then = `the webhook ${injector.name} is there now, and was not, or did not answer, when the pod was made${policy}: see whether the injector runs, then delete the pod`;
  return [then, ...injectorNotes(s)].join('; ');
}

/** Returns the numbers of a version such as `1.26.1`, a missing patch number as 0; `undefined`: the text is not a version. */
function versionNumbers(version: string): [number, number, number] | undefined {
  const match = /^v?(\d+)\.(\d+)(?:\.(\d+))?/.exec(version);
  return match ? [Number(match[1]), Number(match[2]), Number(match[3] ?? 0)] : undefined;
}

/** Returns whether an Istio version is older than `1.<minor>.<patch>`. An unknown version does not count as older. */
export function olderThan(version: string, minor: number, patch = 0): boolean {
  const numbers = versionNumbers(version);
  if (!numbers || numbers[0] !== 1) return false;
  return numbers[1] < minor || (numbers[1] === minor && numbers[2] < patch);
}

// Log lines of istiod at its start. Source: https://github.com/istio/istio, pilot/pkg/bootstrap/istio_ca.go
const selfSignedLine = /Use self-signed certificate as the CA certificate/;
const localFilesLine = /Use local CA certificate/;
const refusedUpdate = /Failed to update new Plug-in CA certs|updating new ROOT-CA|Multi root is disabled/;

/** The result of a handshake that shows the certificate of another CA; `undefined`: it does not. */
function foreignHandshake(pod: IstiodPod, { ca, s }: EvaluationInput): { seen: string } | undefined {
  const evidence = evidenceOf(pod);
  const result = evidence && ca ? evaluateHandshake(evidence, ca, s.now) : undefined;
  return result?.kind === 'Foreign' ? result : undefined;
}

/** The CA that istiod uses by its log: that in its files, or its own; `undefined`: the log does not show it, or was not read. */
function caInLog(pod: IstiodPod): 'files' | 'its own' | undefined {
  const log = logLines(containerOf(pod, istiodContainer));
  if (log.some((line) => localFilesLine.test(line))) return 'files';
  return log.some((line) => selfSignedLine.test(line)) ? 'its own' : undefined;
}

/** The directory that istiod reads its CA from, and the one that the agent renders to. */
const directories = (pod: IstiodPod) => ({
  istiod: pod.settings.env['ROOT_CA_DIR'],
  agent: annotation(pod, 'secret-volume-path') ?? '/vault/secrets',
});

/**
 * Returns, for a message, why a replica that serves the certificate of another CA may sign with this one; `undefined`: it does not. istiod serves
 * a certificate of somebody else if it is given one: by `--tlsCertFile`, or in Secret `istiod-tls`, which its chart mounts if it exists. Its log then
 * shows that it loaded a CA from its files, which are those of the agent. Source: https://github.com/istio/istio, pilot/pkg/bootstrap/server.go
 * (hasCustomTLSCerts)
 */
function otherCertificate(pod: IstiodPod, { s }: EvaluationInput): string | undefined {
  // a certificate that it signed shows its CA
  if (isServed(pod.signed)) return undefined;
  const { istiod, agent } = directories(pod);
  const log = logLines(containerOf(pod, istiodContainer));
  const published = (s.stateEntry?.history ?? []).map(({ fingerprint }) => fingerprint);
  const wasOwn = isServed(pod.served) && pod.served.chain.some((one) => published.includes(one.fingerprint));
  // without the files of the agent istiod signs by itself; with an update that it refused, or a CA that was lost, it signs with an older one
  if (!pod.injected || istiod !== agent || wasOwn || log.some((line) => refusedUpdate.test(line))) return undefined;
  const signs = caInLog(pod);
  const cause = pod.tlsCertFile ? 'it has the argument --tlsCertFile' : 'a Secret istiod-tls may give it another one';
  if (signs === 'files')
    return `${cause}, and its log says that it signs with the CA in its files, which the agent renders`;
  if (signs !== undefined || !(pod.tlsCertFile || !looksSelfSigned(pod))) return undefined;
  const unreadable = containerOf(pod, istiodContainer)?.log === 'unreadable';
  const why = unreadable
    ? 'the operator lacks permission to get pods/log (deploy/components/logs)'
    : 'its log does not say it';
  return `${cause}; which CA it signs with is not known, because ${why}`;
}

/** Whether a replica serves a certificate as an istiod with a CA of its own makes it: alone, and issued by an organization without a common name. */
const looksSelfSigned = ({ served }: IstiodPod): boolean =>
  isServed(served) && served.chain.length === 0 && /^O=[^,/\n]+$/.test(served.issuer);

/**
 * Returns, for a message, why it is not known which CA a replica signs with that serves a certificate under a root of this CA; `undefined`: it is
 * known. With `mode: Plan` no replica is asked.
 */
function notAsked(pod: IstiodPod, { s }: EvaluationInput): string | undefined {
  if (!isSignerUnknown(pod, s)) return undefined;
  const { signed } = pod;
  return signed && !isServed(signed) ? signed.unreachable : 'with mode: Plan no replica is asked to sign one';
}

/** A replica serves the certificate of another CA, and that does not show with which CA it signs. */
function servesOther(pod: IstiodPod, input: EvaluationInput): ReplicaResult | undefined {
  const result = foreignHandshake(pod, input);
  const cause = result ? otherCertificate(pod, input) : notAsked(pod, input);
  const seen = result?.seen ?? 'it serves a certificate under the root of this CA';
  if (cause === undefined) return undefined;
  return {
    pod: pod.name,
    phase: 'Pending',
    reason: 'OtherCertificate',
    container: istiodContainer,
    message: joinMessage(seen, cause, 'a handshake cannot show which CA it signs with'),
  };
}

/**
 * istiod signs with another CA: a handshake shows a foreign certificate or, without a handshake, istiod's log reports its self-signed CA.
 * This is the most severe failure, because nothing else in Kubernetes shows it.
 */
function selfSigned(pod: IstiodPod, input: EvaluationInput): ReplicaResult | undefined {
  const log = logLines(containerOf(pod, istiodContainer));
  const result = foreignHandshake(pod, input);
  if (result && otherCertificate(pod, input) !== undefined) return undefined;
  const isOpen = !isServed(pod.served) || (result && pod.tlsCertFile) || notAsked(pod, input) !== undefined;
  const logged = isOpen && caInLog(pod) === 'its own';
  if (!result && !logged) return undefined;
  const quotedLog = log.length > 0 ? `its log: ${quoted(log)}` : undefined;
  const symptom = [logged ? 'it says that it signs by itself' : result?.seen, quotedLog]
    .filter((part) => part !== undefined)
    .join('; ');
  const { reason, cause } = fallbackCause(pod, input);
  const effect = 'workload certificates that it signs are not of this CA';
  return {
    pod: pod.name,
    phase: 'SelfSignedFallback',
    reason,
    container: istiodContainer,
    message: joinMessage(symptom, effect, cause),
  };
}

/** Returns why istiod uses its self-signed CA, by the settings of the Pod. */
function fallbackCause(pod: IstiodPod, input: EvaluationInput): { reason: string; cause: string } {
  const { s, deployment } = input;
  if (!requestsAgent(pod))
    return {
      reason: 'NotPropagated',
      cause: 'the pod does not carry the fields that the control plane has: see IstiodReady',
    };
  if (!pod.injected) return { reason: 'NotInjected', cause: `the pod has no Vault agent: ${injectorCause(input)}` };
  const { istiod: istiodDirectory, agent: agentDirectory } = directories(pod);
  if (istiodDirectory !== agentDirectory) {
    const cause = `istiod reads ${istiodDirectory === undefined ? './etc/cacerts (ROOT_CA_DIR is not set)' : istiodDirectory}, the agent renders to ${agentDirectory} (vault.hashicorp.com/secret-volume-path): both come from spec.delivery.directory; find who sets the one that differs`;
    return { reason: 'WrongDirectory', cause };
  }
  const oldIstio = olderThan(deployment?.version ?? '', 26, 1)
    ? ' (before Istio 1.26.1 a missing ca-key.pem is enough)'
    : '';
  return {
    reason: 'FilesMissing',
    cause: `when istiod started, none of the files of the CA were in ${agentDirectory}${oldIstio}. \`kubectl logs -n ${s.identity.namespace} ${pod.name} -c ${containerOf(pod, agentContainer)?.name ?? agentContainer}\` tells why; then delete the pod`,
  };
}

/** The Pod requests Vault Agent and has none, and no handshake shows what istiod serves. */
function notInjected(pod: IstiodPod, input: EvaluationInput): ReplicaResult | undefined {
  if (!requestsAgent(pod) || pod.injected || isServed(pod.served)) return undefined;
  const symptom =
    'the pod asks for a Vault agent (vault.hashicorp.com/agent-inject) and has none; istiod then signs by itself';
  return {
    pod: pod.name,
    phase: 'NotInjected',
    reason: 'NotInjected',
    message: joinMessage(symptom, injectorCause(input)),
  };
}

/** Turns a check of one container into a rule. @param find returns the failure of the container; `undefined`: no failure */
const containerRule =
  (
    phase: IstiodPhase,
    find: (d: Desired, pod: IstiodPod, account: string, now: number) => ContainerFailure | undefined,
  ) =>
  (pod: IstiodPod, { s, deployment }: EvaluationInput): ReplicaResult | undefined => {
    const failure = find(s.desired, pod, deployment?.serviceAccount ?? 'istiod', s.now);
    return (
      failure && {
        pod: pod.name,
        phase,
        reason: failure.reason,
        container: failure.container,
        message: joinMessage(failure.symptom, failure.action),
      }
    );
  };

/** Returns, for a message, why a replica serves outdated certificates of this CA, and the action to take. */
function staleCause(pod: IstiodPod, { s, ca, deployment }: EvaluationInput): string {
  const log = logLines(containerOf(pod, istiodContainer));
  const quotedLog = log.length > 0 ? `; its log: ${quoted(log)}` : '';
  if (ca?.digest !== undefined && digestOf(pod.settings) !== ca.digest)
    return `its pod template is of before the change: the Deployment is rolled when the control plane has passed the new istiovaultca.io/ca-digest on${quotedLog}`;
  const restart = `kubectl rollout restart -n ${s.identity.namespace} deployment/${pod.deployment}`;
  if (deployment && olderThan(deployment.version, 18))
    return `Istio ${deployment.version} reads new files only when it starts (AUTO_RELOAD_PLUGIN_CERTS is off before 1.18): ${restart}${quotedLog}`;
  return `the agent renders new files within ${s.spec.delivery.refreshInterval}, and istiod then reads them; if it lasts, see both logs, then ${restart}${quotedLog}`;
}

/** A handshake shows certificates of this CA that are not the current ones. */
function stale(pod: IstiodPod, input: EvaluationInput): ReplicaResult | undefined {
  const { ca, s } = input;
  const evidence = evidenceOf(pod);
  if (!evidence || !ca) return undefined;
  const result = evaluateHandshake(evidence, ca, s.now);
  if (result.kind !== 'Stale') return undefined;
  const message = joinMessage(result.seen, staleCause(pod, input));
  return { pod: pod.name, phase: 'StaleCA', reason: result.reason, container: istiodContainer, message };
}

/** A handshake shows the current CA. */
function verified(pod: IstiodPod, { ca, s }: EvaluationInput): ReplicaResult | undefined {
  const evidence = evidenceOf(pod);
  if (!evidence || !ca || evaluateHandshake(evidence, ca, s.now).kind !== 'Proven') return undefined;
  const bySignature = evidence !== pod.served && hidesSigner(pod, s);
  return {
    pod: pod.name,
    phase: 'Proven',
    reason: bySignature ? 'Signature' : 'Handshake',
    message: `${bySignature ? 'serves a certificate that does not show its CA, and signed one' : 'serves a certificate'} of generation ${ca.generation}`,
  };
}

/**
 * Returns the result of a replica that is ready but does not answer a handshake. ConfigMap `istio-ca-root-cert` is only an indirect
 * indication of its CA, because any replica can have written it.
 * @param unreachable why the handshake failed
 */
function blocked(pod: IstiodPod, unreachable: string, { s, ca }: EvaluationInput): ReplicaResult {
  const { meshRoots, meshRootsPlace = defaultPlace } = s.kubernetes;
  const where = `${describePlace(meshRootsPlace)}${meshRootsPlace.kind === 'ConfigMap' ? ' of this namespace' : ''}`;
  const matches =
    ca !== undefined &&
    meshRoots !== undefined &&
    ca.roots.every((root) => meshRoots.some(({ fingerprint }) => fingerprint === root.fingerprint));
  const indication = matches
    ? `weaker evidence speaks for it: ${where} holds exactly what this CA wants, but any one replica may have written it`
    : `${where} does not hold the root of this CA`;
  const action = `allow the operator's pods to reach port 15012 of istiod (NetworkPolicies of namespace ${s.identity.namespace} and of the operator's), or look: \`kubectl logs -n ${s.identity.namespace} ${pod.name} -c ${istiodContainer}\``;
  return {
    pod: pod.name,
    phase: 'Pending',
    reason: 'ProbeBlocked',
    container: istiodContainer,
    message: joinMessage(
      `istiod is ready, but no TLS handshake with it on port 15012: ${unreachable}`,
      indication,
      action,
    ),
  };
}

/** Returns the result of a replica that no rule matches: what it waits for. */
function pending(pod: IstiodPod, input: EvaluationInput): ReplicaResult {
  const pendingBecause = (reason: string, message: string, container?: string): ReplicaResult => ({
    pod: pod.name,
    phase: 'Pending',
    reason,
    ...(container === undefined ? {} : { container }),
    message: truncate(message),
  });
  if (pod.unschedulable !== undefined)
    return pendingBecause('Unschedulable', `no node takes the pod: ${pod.unschedulable}`);
  const discovery = containerOf(pod, istiodContainer);
  if (discovery?.state.kind === 'running') {
    if (!input.ca)
      return pendingBecause('NoLiveCA', 'there is no sound CA in Vault to compare with; see the conditions above');
    if (!discovery.ready) return pendingBecause('Starting', 'istiod is starting', istiodContainer);
    if (pod.served && 'unreachable' in pod.served) return blocked(pod, pod.served.unreachable, input);
    return pendingBecause('NotProbed', 'istiod is ready; what it serves was not looked at yet', istiodContainer);
  }
  const init = containerOf(pod, initContainer);
  if (init?.state.kind === 'running')
    return pendingBecause('VaultInit', 'the Vault agent gets the files of the CA', init.name);
  const waitingContainer = pod.containers.find(({ state }) => state.kind === 'waiting' && state.reason !== '');
  if (waitingContainer?.state.kind !== 'waiting') return pendingBecause('Starting', 'its containers are being made');
  const { reason, message } = waitingContainer.state;
  return pendingBecause(
    reason,
    `${waitingContainer.name} waits: ${[reason, message].filter((part) => part !== '').join(', ')}`,
    waitingContainer.name,
  );
}

/** Rules in order of precedence. */
const rules = [
  notConfigured,
  selfSigned,
  notInjected,
  containerRule('VaultInitFailed', initFailure),
  containerRule('VaultAgentFailed', agentFailure),
  containerRule('IstiodCrash', istiodFailure),
  servesOther,
  stale,
  verified,
];

/** Classifies one replica by the first matching rule. */
export function classify(pod: IstiodPod, input: EvaluationInput): ReplicaResult {
  for (const rule of rules) {
    const result = rule(pod, input);
    if (result) return result;
  }
  return pending(pod, input);
}
