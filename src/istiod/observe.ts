/**
 * One look at istiod: reads Deployments, ReplicaSets and pods, asks running replicas for their certificate, reads the logs that tell more,
 * and `istio-ca-root-cert` of the namespaces. Never writes.
 *
 * What is costly is remembered for a short while, in memory and only to spare requests: a handshake and a log until the pod changes or 20
 * seconds are over, the ConfigMaps for 20 seconds. After a restart everything is asked anew.
 */
import { dig, isObject, type JsonObject } from '../api/json.ts';
import type { KubeClient } from '../kube/client.ts';
import { isKubeError, unless } from '../kube/errors.ts';
import { selects } from '../kube/selector.ts';
import { loadYaml } from '../runtime/yaml.ts';
import { bundleFacts } from '../plan/facts/certificate.ts';
import type { LogRequest } from '../plan/proof/log-requests.ts';
import { istiodContainer } from '../plan/proof/containers.ts';
import { recheckMs } from '../plan/proof/ready.ts';
import {
  containerOf,
  type IstiodContainer,
  type IstiodPod,
  type MeshBundle,
  type ObservedIstiod,
  type Served,
  type Unreachable,
} from '../plan/facts/observed-istiod.ts';
import type { Clock } from '../runtime/clock.ts';
import { deploymentFacts, endingPods, isIstiod, istiodLabel, podsOf, type FoundPod } from './discover.ts';
import { tellingLines } from './log-lines.ts';
import type { Secret } from '../observability/secret.ts';
import type { rootsHandedOut } from './handed-out-roots.ts';
import { istiodPort, type probe, type ProbeTarget } from './probe.ts';

const deployments = { group: 'apps', version: 'v1', plural: 'deployments' };
const replicaSets = { group: 'apps', version: 'v1', plural: 'replicasets' };
const pods = { group: '', version: 'v1', plural: 'pods' };
const configMaps = { group: '', version: 'v1', plural: 'configmaps' };
const namespaces = { group: '', version: 'v1', plural: 'namespaces' };
const rootConfigMap = 'istio-ca-root-cert';

/** Handshakes and logs are not asked for again sooner, in milliseconds, unless the pod has changed. */
const freshMs = recheckMs;
/** The ConfigMaps of a whole cluster are much to read: when pods change they are read again, but not sooner than this, in milliseconds. */
const bundlesFreshMs = 5_000;
/** A replica that does not answer within this is not reachable, milliseconds. */
const probeTimeoutMs = 3_000;
/** So long a replica may take to sign and to answer, milliseconds. */
const rootsTimeoutMs = 5_000;
/** Handshakes at a time. */
const probesAtOnce = 16;
const logLines = 60;
const logBytes = 64 * 1024;

export interface IstiodObserverOptions {
  kube: Pick<KubeClient, 'listObjects' | 'listCollection' | 'getObject' | 'podLog'>;
  clock: Clock;
  probe: typeof probe;
  roots: typeof rootsHandedOut;
  /** Those that the operator is confined to; empty: all. */
  namespaces: readonly string[];
  /** Fingerprints of the roots of IstioVaultCAs in other namespaces. */
  rootsOfOthers: (namespace: string) => string[];
}

export interface ObserveRequest {
  namespace: string;
  /** Values of the label `istio.io/rev`. */
  revisions: readonly string[];
  /** Set when replicas are to be asked which roots they hand out. */
  roots?: RootQuery | undefined;
  /** Which logs would tell more, judged by everything else that was seen. */
  logRequests: (seen: ObservedIstiod) => Map<string, LogRequest[]>;
}

/** What is needed to ask a replica for its roots. */
export interface RootQuery {
  /** PEM: a replica that none of them vouches for is not asked. */
  trusted: string;
  /** Of audience `istio-ca`. @throws KubeError */
  token: () => Promise<Secret>;
}

interface Remembered<T> {
  /** Of the pod. */
  version: string;
  atMs: number;
  value: T;
}

/** Which namespaces istiod looks at, by its mesh configuration: those that any of these selects; none: all. */
function discoverySelectors(configMap: JsonObject | undefined): unknown[] {
  const mesh = dig(configMap, 'data', 'mesh');
  if (typeof mesh !== 'string') return [];
  try {
    const selectors = dig(loadYaml(mesh), 'discoverySelectors');
    return Array.isArray(selectors) ? selectors : [];
  } catch {
    return []; // istiod goes on with its defaults too when it cannot read it, and says so in its log
  }
}

/** Runs so many at a time. */
async function inBatches<T>(items: readonly T[], most: number, run: (item: T) => Promise<void>): Promise<void> {
  const rest = [...items];
  const work = async () => {
    for (let next = rest.shift(); next !== undefined; next = rest.shift()) await run(next);
  };
  await Promise.all(Array.from({ length: Math.min(most, items.length) }, work));
}

export class IstiodObserver {
  readonly #o: IstiodObserverOptions;
  /** By resource, then by pod. */
  readonly #probes = new Map<string, Map<string, Remembered<Served | Unreachable>>>();
  readonly #logs = new Map<string, Map<string, Remembered<string[] | 'unreadable'>>>();
  #bundles: { atMs: number; value: MeshBundle[] | 'unreadable' } | undefined;
  #labels: { atMs: number; value: Map<string, JsonObject> | undefined } | undefined;

  constructor(options: IstiodObserverOptions) {
    this.#o = options;
  }

  /**
   * @param key of the resource
   * @throws KubeError when Deployments, ReplicaSets or pods cannot be read
   */
  async observe(key: string, request: ObserveRequest, signal: AbortSignal): Promise<ObservedIstiod> {
    const { namespace, revisions } = request;
    const list = (gvr: typeof deployments) => this.#o.kube.listObjects(gvr, namespace, istiodLabel, { signal });
    const [deployed, sets, all] = await Promise.all([list(deployments), list(replicaSets), list(pods)]);
    const istiods = deployed.filter((deployment) => isIstiod(deployment, revisions));
    const found = istiods.flatMap((deployment) => podsOf(deployment, sets, all));
    const { pods: served, asked } = await this.#serve(key, namespace, found, signal);
    const seen: ObservedIstiod = {
      deployments: istiods.map(deploymentFacts),
      pods: request.roots ? await this.#withRoots(namespace, found, served, request.roots, signal) : served,
      bundles: await this.#ofThisMesh(
        request,
        await this.#meshBundles(asked ? bundlesFreshMs : freshMs, signal),
        signal,
      ),
      confinedTo: [...this.#o.namespaces],
      ending: endingPods(istiods, sets, all),
      rootsOfOthers: this.#o.rootsOfOthers(namespace),
    };
    return { ...seen, pods: await this.#withLogs(key, namespace, found, seen, request.logRequests(seen), signal) };
  }

  /** Forgets a resource that is gone. */
  forget(key: string): void {
    this.#probes.delete(key);
    this.#logs.delete(key);
  }

  #isFresh(remembered: Remembered<unknown> | undefined, pod: FoundPod): boolean {
    const { clock } = this.#o;
    return remembered?.version === pod.resourceVersion && clock.now() - remembered.atMs < freshMs;
  }

  /** Asks every replica that runs, unless it was asked a moment ago; and whether any was asked. */
  async #serve(
    key: string,
    namespace: string,
    found: FoundPod[],
    signal: AbortSignal,
  ): Promise<{ pods: IstiodPod[]; asked: boolean }> {
    let asked = false;
    const before = this.#probes.get(key) ?? new Map<string, Remembered<Served | Unreachable>>();
    const now = new Map<string, Remembered<Served | Unreachable>>();
    const running = found.filter(
      ({ ip, facts }) => ip !== '' && containerOf(facts, istiodContainer)?.state.kind === 'running',
    );
    await inBatches(running, probesAtOnce, async (pod) => {
      const remembered = before.get(pod.uid);
      if (remembered && this.#isFresh(remembered, pod)) {
        now.set(pod.uid, remembered);
        return;
      }
      asked = true;
      const target: ProbeTarget = { host: pod.ip, port: istiodPort, servername: `istiod.${namespace}.svc` };
      const value = await this.#o.probe(target, { clock: this.#o.clock, timeoutMs: probeTimeoutMs, signal });
      now.set(pod.uid, { version: pod.resourceVersion, atMs: this.#o.clock.now(), value });
    });
    if (!signal.aborted) this.#probes.set(key, now);
    return { pods: found.map(({ uid, facts }) => ({ ...facts, served: now.get(uid)?.value })), asked };
  }

  /** Never remembered: that a replica has taken up another bundle changes nothing of its pod. */
  async #withRoots(
    namespace: string,
    found: FoundPod[],
    served: IstiodPod[],
    { trusted, token }: RootQuery,
    signal: AbortSignal,
  ): Promise<IstiodPod[]> {
    const own = await token().catch((error: unknown) => {
      if (!isKubeError(error)) throw error;
      return { unreachable: `no token of service account istio-vault-ca: ${error.kind}` };
    });
    if ('unreachable' in own) return served.map((pod) => ({ ...pod, handedOut: own }));
    const all = [...served];
    await inBatches([...found.entries()], probesAtOnce, async ([i, { ip }]) => {
      const pod = all[i];
      if (!pod?.served || 'unreachable' in pod.served) return;
      const target = { host: ip, port: istiodPort, servername: `istiod.${namespace}.svc` };
      const within = AbortSignal.any([signal, AbortSignal.timeout(rootsTimeoutMs)]);
      all[i] = { ...pod, handedOut: await this.#o.roots(target, trusted, own, within) };
    });
    return all;
  }

  async #withLogs(
    key: string,
    namespace: string,
    found: FoundPod[],
    seen: ObservedIstiod,
    wishes: Map<string, LogRequest[]>,
    signal: AbortSignal,
  ): Promise<IstiodPod[]> {
    const before = this.#logs.get(key) ?? new Map<string, Remembered<string[] | 'unreadable'>>();
    const now = new Map<string, Remembered<string[] | 'unreadable'>>();
    const asked = found.flatMap((pod) => (wishes.get(pod.facts.name) ?? []).map((wish) => ({ pod, wish })));
    const logs = new Map<string, string[] | 'unreadable'>();
    await inBatches(asked, probesAtOnce, async ({ pod, wish }) => {
      const id = JSON.stringify([pod.uid, wish]);
      const remembered = before.get(id);
      const fresh = remembered && this.#isFresh(remembered, pod);
      const value = fresh ? remembered.value : await this.#log(namespace, pod.facts.name, wish, signal);
      now.set(id, fresh ? remembered : { version: pod.resourceVersion, atMs: this.#o.clock.now(), value });
      logs.set(`${pod.facts.name}/${wish.container}`, value);
    });
    this.#logs.set(key, now);
    const withLog = (pod: IstiodPod, container: IstiodContainer): IstiodContainer => ({
      ...container,
      log: logs.get(`${pod.name}/${container.name}`),
    });
    return seen.pods.map((pod) => ({ ...pod, containers: pod.containers.map((container) => withLog(pod, container)) }));
  }

  /** The telling lines of a log. One that is not there (any more) has none. */
  async #log(namespace: string, pod: string, wish: LogRequest, signal: AbortSignal): Promise<string[] | 'unreadable'> {
    const part = {
      previous: wish.previous,
      limitBytes: logBytes,
      ...(wish.from === 'end' ? { tailLines: logLines } : {}),
    };
    const of = wish.container === istiodContainer ? 'discovery' : 'agent';
    try {
      return tellingLines(await this.#o.kube.podLog(namespace, pod, wish.container, part, { signal }), of);
    } catch (error) {
      // logs are a help, never a condition: without them less is said
      if (isKubeError(error, 'Forbidden')) return 'unreadable';
      if (isKubeError(error)) return [];
      throw error;
    }
  }

  async #meshBundles(fresh: number, signal: AbortSignal): Promise<MeshBundle[] | 'unreadable'> {
    const { clock } = this.#o;
    if (this.#bundles && clock.now() - this.#bundles.atMs < fresh) return this.#bundles.value;
    const value = await this.#readBundles(signal).catch((error: unknown) => {
      if (isKubeError(error, 'Forbidden')) return 'unreadable' as const;
      throw error;
    });
    this.#bundles = { atMs: clock.now(), value };
    return value;
  }

  /**
   * Without those of namespaces that istiod is told to leave alone: it does not write there, and what lies there is of another mesh.
   * https://istio.io/latest/docs/reference/config/istio.mesh.v1alpha1/, `discoverySelectors`
   */
  async #ofThisMesh(
    { namespace, revisions }: ObserveRequest,
    bundles: MeshBundle[] | 'unreadable',
    signal: AbortSignal,
  ): Promise<MeshBundle[] | 'unreadable'> {
    if (bundles === 'unreadable' || bundles.length === 0) return bundles;
    const names = revisions.map((revision) => (revision === 'default' ? 'istio' : `istio-${revision}`));
    const configs = await Promise.all(
      names.map((name) => unless('Forbidden', this.#o.kube.getObject(configMaps, namespace, name, { signal }))),
    );
    const selected = configs.map(discoverySelectors);
    // one istiod that looks everywhere is enough
    const selectors = selected.some((of) => of.length === 0) ? [] : selected.flat();
    const labels = selectors.length > 0 ? await this.#namespaceLabels(signal) : undefined;
    if (!labels) return bundles;
    const discovered = (of: string) => selectors.some((selector) => selects(selector, labels.get(of) ?? {}));
    return bundles.filter((bundle) => bundle.namespace === namespace || discovered(bundle.namespace));
  }

  /** Labels of all namespaces; undefined when these may not be listed. */
  async #namespaceLabels(signal: AbortSignal): Promise<Map<string, JsonObject> | undefined> {
    const { clock, kube } = this.#o;
    if (this.#labels && clock.now() - this.#labels.atMs < bundlesFreshMs) return this.#labels.value;
    const found = await unless('Forbidden', kube.listObjects(namespaces, undefined, undefined, { signal }));
    const labels = found?.map((object): [string, JsonObject] => {
      const of = dig(object, 'metadata', 'labels');
      return [String(dig(object, 'metadata', 'name')), isObject(of) ? of : {}];
    });
    this.#labels = { atMs: clock.now(), value: labels && new Map(labels) };
    return this.#labels.value;
  }

  async #readBundles(signal: AbortSignal): Promise<MeshBundle[]> {
    // RBAC by resourceNames allows a list that selects exactly this name; it stays cluster-wide with --namespaces
    const selector = { fieldSelector: `metadata.name=${rootConfigMap}` };
    const { items } = await this.#o.kube.listCollection(configMaps, undefined, selector, { signal });
    return items.map((object) => ({
      namespace: String(dig(object, 'metadata', 'namespace')),
      roots: bundleFacts(String(dig(object, 'data', 'root-cert.pem'))).map(({ fingerprint }) => fingerprint),
    }));
  }
}
