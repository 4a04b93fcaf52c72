/**
 * Observes istiod. The observer reads Deployments, ReplicaSets and Pods, and performs a TLS handshake with running replicas. It also reads
 * logs that can explain a failure, and the trust bundles of the namespaces. It never writes.
 *
 * Expensive results are cached in memory, only to save requests: handshakes and logs until the Pod changes or `recheckMs` has passed, the
 * trust bundles for at most `recheckMs`. After a restart of the operator, everything is read again.
 */
import type { Gvr } from '../api/gvr.ts';
import type { JsonObject } from '../api/json.ts';
import type { KubeClient } from '../kube/client.ts';
import { isKubeError, unless } from '../kube/errors.ts';
import type { LogRequest } from '../plan/proof/log-requests.ts';
import { istiodContainer } from '../plan/proof/containers.ts';
import { isServed } from '../plan/proof/handshake.ts';
import { recheckMs } from '../plan/proof/ready.ts';
import {
  containerOf,
  type IstiodContainer,
  type IstiodDeployment,
  type IstiodPod,
  type MeshEvidence,
  type ObservedIstiod,
  type Served,
  type Unreachable,
} from '../plan/facts/observed-istiod.ts';
import type { Clock } from '../runtime/clock.ts';
import {
  deploymentFacts,
  endingPods,
  isIstiod,
  istiodDeployments,
  istiodLabel,
  podsOf,
  readyPodsOf,
  type FoundPod,
} from './discover.ts';
import { relevantLines } from './log-lines.ts';
import { MeshBundleReader, placesOf, type BundleRequest } from './mesh-bundles.ts';
import type { Secret } from '../observability/secret.ts';
import type { askToSign } from './certificate-request.ts';
import { istiodPort, type probe, type ProbeTarget } from './probe.ts';
import { readZtunnels } from './ztunnel.ts';

const deployments = { group: 'apps', version: 'v1', plural: 'deployments' };
const replicaSets = { group: 'apps', version: 'v1', plural: 'replicasets' };
const pods = { group: '', version: 'v1', plural: 'pods' };

/** Lifetime of cached handshakes and logs, in milliseconds. A change of the Pod ends it earlier. */
const freshMs = recheckMs;
/** Lifetime of the cached trust bundles after a handshake, in milliseconds. Reading the ConfigMaps of a whole cluster is expensive. */
const bundlesFreshMs = 5_000;
/** Timeout of a handshake, milliseconds. */
const probeTimeoutMs = 3_000;
/** Timeout of a request to sign a certificate, milliseconds. */
const signingTimeoutMs = 5_000;
/** Maximum number of parallel handshakes, log reads or requests to sign. */
const maxParallel = 16;
/** Number of lines and bytes that are read from a log. */
const logLines = 60;
const logBytes = 64 * 1024;

export interface IstiodObserverOptions {
  kube: Pick<KubeClient, 'listObjects' | 'listCollection' | 'getObject' | 'podLog'>;
  clock: Clock;
  probe: typeof probe;
  askToSign: typeof askToSign;
  /** Namespaces that `--namespaces` confines the operator to; empty: all. */
  namespaces: readonly string[];
  /** Returns the fingerprints of the roots of IstioVaultCAs in other namespaces. */
  rootsOfOthers: (namespace: string) => string[];
}

/** What to observe for one resource. */
export interface ObserveRequest extends BundleRequest {
  /** Set if replicas can be asked to sign a certificate. */
  signing?: SigningRequest | undefined;
  /** Reads the ztunnels if istiod is set up for an ambient mesh. */
  ztunnels?: boolean;
  /** Returns the logs to read, by Pod name, from an observation without logs. */
  logRequests: (observed: ObservedIstiod) => Map<string, LogRequest[]>;
}

/** Which replicas are asked to sign a certificate, with which trust and credentials. */
export interface SigningRequest {
  /** Whether a replica is asked, by the result of the handshake with it. */
  isAsked: (pod: IstiodPod) => boolean;
  /** PEM of the trusted roots. A replica whose certificate does not verify with them gets no token. */
  trusted: string;
  /** Returns a service account token with audience `istio-ca`. @throws KubeError */
  token: () => Promise<Secret>;
}

/** A cached result about a Pod. */
interface Cached<T> {
  /** resourceVersion of the Pod. */
  version: string;
  atMs: number;
  value: T;
}

/** Runs a function for each item, at most `most` in parallel. Rejects with the first failure. */
async function inParallel<T>(items: readonly T[], most: number, run: (item: T) => Promise<void>): Promise<void> {
  const rest = [...items];
  const work = async () => {
    for (let next = rest.shift(); next !== undefined; next = rest.shift()) await run(next);
  };
  await Promise.all(Array.from({ length: Math.min(most, items.length) }, work));
}

/** Lists Deployments and, unless there is none, ReplicaSets and Pods. */
async function listIstiod<T extends JsonObject[] | undefined>(list: (gvr: Gvr) => Promise<T>) {
  const deployed = await list(deployments);
  if (deployed?.length === 0) return [deployed, [], []] as const;
  return [deployed, ...(await Promise.all([list(replicaSets), list(pods)]))] as const;
}

/**
 * The service accounts of ztunnels that these istiods trust; where one does not say, that of Istio's chart in the namespace of istiod. undefined:
 * any, because one of them is not known.
 */
function nodeAccounts(deployments: readonly IstiodDeployment[], namespace: string): string[] | undefined {
  const all = deployments.map((deployment) => deployment.nodeAccounts ?? [`${namespace}/ztunnel`]);
  const known = all.filter((accounts) => accounts !== 'unknown');
  return known.length < all.length ? undefined : [...new Set(known.flat())];
}

export class IstiodObserver {
  readonly #o: IstiodObserverOptions;
  /** Cached handshakes, by resource, then by UID of the Pod. */
  readonly #probes = new Map<string, Map<string, Cached<Served | Unreachable>>>();
  /** Cached logs, by resource, then by Pod and log request. */
  readonly #logs = new Map<string, Map<string, Cached<string[] | 'unreadable'>>>();
  readonly #bundles: MeshBundleReader;

  constructor(options: IstiodObserverOptions) {
    this.#o = options;
    this.#bundles = new MeshBundleReader(options.kube, options.clock);
  }

  /**
   * Observes istiod for one resource.
   * @param key the resource, `namespace/name`
   * @throws KubeError if Deployments cannot be read, or, where there is one, ReplicaSets or Pods
   */
  async observe(key: string, request: ObserveRequest, signal: AbortSignal): Promise<ObservedIstiod> {
    const { namespace, revisions } = request;
    const [deployed, sets, all] = await listIstiod((gvr) =>
      this.#o.kube.listObjects(gvr, namespace, istiodLabel, { signal }),
    );
    const istiods = deployed.filter((deployment) => isIstiod(deployment, revisions));
    const found = istiods.flatMap((deployment) => podsOf(deployment, sets, all));
    const { pods: probed, anyProbed } = await this.#withHandshakes(key, namespace, found, signal);
    const facts = istiods.map(deploymentFacts);
    const places = placesOf(facts, request.settings).known;
    const observed: ObservedIstiod = {
      deployments: facts,
      pods: request.signing ? await this.#withSigned(namespace, found, probed, request.signing, signal) : probed,
      places,
      ...(await this.#bundles.read(request, places, anyProbed ? bundlesFreshMs : freshMs, signal)),
      confinedTo: [...this.#o.namespaces],
      ending: endingPods(istiods, sets, all),
      rootsOfOthers: this.#o.rootsOfOthers(namespace),
      ...(request.ztunnels === true && facts.some(({ ambient }) => ambient)
        ? {
            ztunnels: await readZtunnels(this.#o.kube, { namespace, accounts: nodeAccounts(facts, namespace) }, signal),
          }
        : {}),
    };
    return {
      ...observed,
      pods: await this.#withLogs(key, namespace, found, observed, request.logRequests(observed), signal),
    };
  }

  /**
   * Reads what shows the roots that the mesh trusts: the trust bundles where this istiod publishes, and a handshake with every Ready replica.
   * Other revisions of istiod in the namespace count too, because only one of all revisions publishes.
   * @param key the resource, `namespace/name`
   * @throws KubeError, except for a missing right
   */
  async meshEvidence(key: string, request: BundleRequest, signal: AbortSignal): Promise<MeshEvidence> {
    const { namespace } = request;
    const [deployed, sets, all] = await listIstiod((gvr) =>
      unless('Forbidden', this.#o.kube.listObjects(gvr, namespace, istiodLabel, { signal })),
    );
    const facts = istiodDeployments(deployed ?? []);
    const { known, incomplete } = placesOf(facts, request.settings);
    const revisions = [...new Set([...request.revisions, ...facts.map(({ revision }) => revision)])];
    const found = (deployed ?? []).flatMap((deployment) => readyPodsOf(deployment, sets ?? [], all ?? []));
    const [published, { pods: probed }] = await Promise.all([
      this.#bundles.read({ ...request, revisions }, known, bundlesFreshMs, signal),
      this.#withHandshakes(`${key} evidence`, namespace, found, signal),
    ]);
    return {
      ...published,
      places: known,
      incomplete,
      podsUnreadable: !sets || !all,
      ready: deployed ? facts.reduce((sum, { replicas }) => sum + replicas.ready, 0) : 'unreadable',
      // a certificate of --tlsCertFile does not show with which CA istiod signs
      replicas: probed.flatMap(({ name, served, tlsCertFile }) => (served && !tlsCertFile ? [{ name, served }] : [])),
      rootsOfOthers: this.#o.rootsOfOthers(namespace),
      confinedTo: [...this.#o.namespaces],
    };
  }

  /** Removes the cached results of a deleted resource. */
  forget(key: string): void {
    this.#probes.delete(key);
    this.#probes.delete(`${key} evidence`);
    this.#logs.delete(key);
  }

  #isFresh(cached: Cached<unknown> | undefined, pod: FoundPod): boolean {
    const { clock } = this.#o;
    return cached?.version === pod.resourceVersion && clock.now() - cached.atMs < freshMs;
  }

  /**
   * Performs a handshake with every running replica whose cached result has expired.
   * @returns the Pods, and whether any handshake was performed
   */
  async #withHandshakes(
    key: string,
    namespace: string,
    found: FoundPod[],
    signal: AbortSignal,
  ): Promise<{ pods: IstiodPod[]; anyProbed: boolean }> {
    let anyProbed = false;
    const before = this.#probes.get(key) ?? new Map<string, Cached<Served | Unreachable>>();
    const now = new Map<string, Cached<Served | Unreachable>>();
    const running = found.filter(
      ({ ip, facts }) => ip !== '' && containerOf(facts, istiodContainer)?.state.kind === 'running',
    );
    await inParallel(running, maxParallel, async (pod) => {
      const cached = before.get(pod.uid);
      if (cached && this.#isFresh(cached, pod)) {
        now.set(pod.uid, cached);
        return;
      }
      anyProbed = true;
      const target: ProbeTarget = { host: pod.ip, port: istiodPort, servername: `istiod.${namespace}.svc` };
      const value = await this.#o.probe(target, { clock: this.#o.clock, timeoutMs: probeTimeoutMs, signal });
      now.set(pod.uid, { version: pod.resourceVersion, atMs: this.#o.clock.now(), value });
    });
    if (!signal.aborted) this.#probes.set(key, now);
    return { pods: found.map(({ uid, facts }) => ({ ...facts, served: now.get(uid)?.value })), anyProbed };
  }

  /**
   * Asks replicas to sign a certificate. The result is not cached: a replica that reloads its files does not change its Pod.
   */
  async #withSigned(
    namespace: string,
    found: FoundPod[],
    probed: IstiodPod[],
    { isAsked, trusted, token }: SigningRequest,
    signal: AbortSignal,
  ): Promise<IstiodPod[]> {
    const asked = probed.map((pod) => isServed(pod.served) && isAsked(pod));
    if (!asked.includes(true)) return probed;
    const istiodToken = await token().catch((error: unknown) => {
      if (!isKubeError(error)) throw error;
      return { unreachable: `no token of service account istio-vault-ca: ${error.kind}` };
    });
    if ('unreachable' in istiodToken) return probed.map((pod, i) => (asked[i] ? { ...pod, signed: istiodToken } : pod));
    const all = [...probed];
    await inParallel([...found.entries()], maxParallel, async ([i, { ip }]) => {
      const pod = all[i];
      if (!pod || !asked[i]) return;
      const target = { host: ip, port: istiodPort, servername: `istiod.${namespace}.svc` };
      const within = AbortSignal.any([signal, AbortSignal.timeout(signingTimeoutMs)]);
      all[i] = { ...pod, signed: await this.#o.askToSign(target, trusted, istiodToken, within) };
    });
    return all;
  }

  /** Reads the requested logs, unless a cached result is still fresh. */
  async #withLogs(
    key: string,
    namespace: string,
    found: FoundPod[],
    observed: ObservedIstiod,
    requests: Map<string, LogRequest[]>,
    signal: AbortSignal,
  ): Promise<IstiodPod[]> {
    const before = this.#logs.get(key) ?? new Map<string, Cached<string[] | 'unreadable'>>();
    const now = new Map<string, Cached<string[] | 'unreadable'>>();
    const wanted = found.flatMap((pod) => (requests.get(pod.facts.name) ?? []).map((request) => ({ pod, request })));
    const logs = new Map<string, string[] | 'unreadable'>();
    await inParallel(wanted, maxParallel, async ({ pod, request }) => {
      const id = JSON.stringify([pod.uid, request]);
      const cached = before.get(id);
      const fresh = cached && this.#isFresh(cached, pod);
      const value = fresh ? cached.value : await this.#log(namespace, pod.facts.name, request, signal);
      now.set(id, fresh ? cached : { version: pod.resourceVersion, atMs: this.#o.clock.now(), value });
      logs.set(`${pod.facts.name}/${request.container}`, value);
    });
    this.#logs.set(key, now);
    const withLog = (pod: IstiodPod, container: IstiodContainer): IstiodContainer => ({
      ...container,
      log: logs.get(`${pod.name}/${container.name}`),
    });
    return observed.pods.map((pod) => ({
      ...pod,
      containers: pod.containers.map((container) => withLog(pod, container)),
    }));
  }

  /** Returns the relevant lines of a log, none if the log does not exist (any more); `unreadable`: the operator lacks the permission. */
  async #log(
    namespace: string,
    pod: string,
    request: LogRequest,
    signal: AbortSignal,
  ): Promise<string[] | 'unreadable'> {
    const part = {
      previous: request.previous,
      limitBytes: logBytes,
      ...(request.from === 'end' ? { tailLines: logLines } : {}),
    };
    const of = request.container === istiodContainer ? 'discovery' : 'agent';
    try {
      return relevantLines(await this.#o.kube.podLog(namespace, pod, request.container, part, { signal }), of);
    } catch (error) {
      // logs only add detail to a message, so a failed read is not a problem
      if (isKubeError(error, 'Forbidden')) return 'unreadable';
      if (isKubeError(error)) return [];
      throw error;
    }
  }
}
