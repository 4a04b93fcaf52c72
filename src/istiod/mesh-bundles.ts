/**
 * Reads the trust bundles that an istiod publishes: ConfigMaps of one name in the namespaces that it discovers, or the ClusterTrustBundle. The
 * results are cached in memory, only to save requests: reading the ConfigMaps of a whole cluster is expensive.
 */
import { dig, isObject, str, type JsonObject } from '../api/json.ts';
import type { KubeClient } from '../kube/client.ts';
import { isKubeError, unless } from '../kube/errors.ts';
import { selects } from '../kube/selector.ts';
import type { IstiodDeployment, MeshBundle, PublishedBundles, UnknownBundles } from '../plan/facts/observed-istiod.ts';
import {
  clusterTrustBundleName,
  defaultRootConfigMap,
  describePlace,
  ignoredNamespaces,
  samePlace,
  type TrustPlace,
  type IstiodValues,
} from '../plan/facts/trust-places.ts';
import { recheckUnpublishedMs } from '../plan/proof/ready.ts';
import type { Clock } from '../runtime/clock.ts';
import { loadYaml } from '../runtime/yaml.ts';
import { bundleReader } from './bundles.ts';

const configMaps = { group: '', version: 'v1', plural: 'configmaps' };
const namespaces = { group: '', version: 'v1', plural: 'namespaces' };
/** Versions of the ClusterTrustBundle API, the newest first. An API server that serves the object serves it in each of its versions. */
const trustBundles = ['v1', 'v1beta1', 'v1alpha1'].map((version) => ({
  group: 'certificates.k8s.io',
  version,
  plural: 'clustertrustbundles',
}));

/** Lifetime of the cached labels of namespaces, in milliseconds. */
const labelsFreshMs = 5_000;
/** Lifetime of a cached result without any bundle, in milliseconds. */
const emptyFreshMs = recheckUnpublishedMs;
/** Bundles that were read longer ago than this, in milliseconds, are not kept. */
const longestKeptMs = 60_000;
/** Maximum number of discovery selectors that are evaluated; each is compared with every namespace. */
const mostSelectors = 100;

/** Which istiod's bundles to read. */
export interface BundleRequest {
  /** The namespace of istiod. */
  namespace: string;
  /** Values of the label `istio.io/rev`. */
  revisions: readonly string[];
  /** What the control plane object sets; counts while there is no Deployment of istiod, or no mesh configuration. */
  settings: IstiodValues;
}

/** Where istiods publish. */
export interface Places {
  known: TrustPlace[];
  /** Some setting that decides it is not known. */
  incomplete: boolean;
}

/** Returns where the istiods of these Deployments publish, or where the control plane object says if there is no Deployment. */
export function placesOf(
  deployments: readonly Pick<IstiodDeployment, 'publishesTo'>[],
  settings: IstiodValues,
): Places {
  const places = deployments.length > 0 ? deployments.map(({ publishesTo }) => publishesTo) : [settings.place];
  const known = places.filter((place) => place !== undefined);
  return {
    known: known.filter((place, i) => known.findIndex((other) => samePlace(place, other)) === i),
    incomplete: known.length < places.length,
  };
}

/**
 * Returns the `discoverySelectors` of a mesh configuration; undefined: it cannot be read. istiod discovers namespaces that any of them selects,
 * or all if there are none. Source: https://istio.io/latest/docs/reference/config/istio.mesh.v1alpha1/
 */
function discoverySelectors(configMap: JsonObject): unknown[] {
  const mesh = dig(configMap, 'data', 'mesh');
  if (typeof mesh !== 'string') return [];
  try {
    const selectors = dig(loadYaml(mesh), 'discoverySelectors');
    return Array.isArray(selectors) ? selectors : [];
  } catch {
    return []; // istiod also uses its defaults if the configuration is invalid, and logs an error
  }
}

/**
 * Returns the ClusterTrustBundle of istiod; undefined: it does not exist, or the API server does not serve its type.
 * @throws KubeError
 */
export async function readTrustBundle(
  kube: Pick<KubeClient, 'getObject'>,
  signal?: AbortSignal,
): Promise<JsonObject | undefined> {
  for (const gvr of trustBundles) {
    const found = await kube.getObject(gvr, undefined, clusterTrustBundleName, { signal });
    if (found) return found;
  }
  return undefined;
}

interface Cached<T> {
  atMs: number;
  value: T;
}

export class MeshBundleReader {
  readonly #kube: Pick<KubeClient, 'listObjects' | 'listCollection' | 'getObject'>;
  readonly #clock: Clock;
  /** Cached bundles of all namespaces, by place. */
  readonly #bundles = new Map<string, Cached<MeshBundle[] | UnknownBundles>>();
  /** Cached labels of namespaces; the value is `undefined` if the operator cannot list namespaces. */
  #labels: Cached<Map<string, JsonObject> | undefined> | undefined;

  constructor(kube: Pick<KubeClient, 'listObjects' | 'listCollection' | 'getObject'>, clock: Clock) {
    this.#kube = kube;
    this.#clock = clock;
  }

  /**
   * Returns the trust bundles in these places, of the namespaces that istiod discovers.
   * @param freshMs lifetime of cached bundles, milliseconds
   * @throws KubeError, except for a missing right
   */
  async read(
    request: BundleRequest,
    places: readonly TrustPlace[],
    freshMs: number,
    signal: AbortSignal,
  ): Promise<PublishedBundles> {
    const selectors = await this.#selectors(request, signal);
    const select = async (fresh: number) => await this.#select(request.namespace, selectors, places, fresh, signal);
    const found = await select(freshMs);
    // istiod publishes within seconds of its start
    return found.bundles.length > 0 ? found : await select(Math.min(freshMs, emptyFreshMs));
  }

  /** The bundles of the namespaces that these selectors take in; none: of all. @param home the namespace of istiod */
  async #select(
    home: string,
    selectors: readonly unknown[],
    places: readonly TrustPlace[],
    freshMs: number,
    signal: AbortSignal,
  ): Promise<PublishedBundles> {
    const all = await Promise.all(places.map((place) => this.#cached(place, freshMs, signal)));
    const needsLabels = selectors.length > 0 && places.some(({ kind }) => kind === 'ConfigMap');
    const labels = needsLabels ? await this.#namespaceLabels(signal) : undefined;
    const unknown = all.find((one) => typeof one === 'string');
    if (unknown !== undefined) return { bundles: unknown, homeDiscovered: true };
    if (needsLabels && !labels) return { bundles: 'unselectable', homeDiscovered: true };
    const discovered = (name: string) =>
      !ignoredNamespaces.includes(name) &&
      (selectors.length === 0 || selectors.some((selector) => selects(selector, labels?.get(name) ?? {})));
    const bundles = all
      .flatMap((one) => (typeof one === 'string' ? [] : one))
      .filter(({ namespace }) => namespace === undefined || discovered(namespace));
    return { bundles, homeDiscovered: discovered(home) };
  }

  /**
   * The discovery selectors of the mesh configurations of these revisions; empty: every namespace is discovered, also if only one istiod discovers
   * all of them.
   */
  async #selectors({ namespace, revisions, settings }: BundleRequest, signal: AbortSignal): Promise<unknown[]> {
    const names = revisions.map((revision) => (revision === 'default' ? 'istio' : `istio-${revision}`));
    const configs = await Promise.all(
      names.map((name) => unless('Forbidden', this.#kube.getObject(configMaps, namespace, name, { signal }))),
    );
    const found = configs.filter((config) => config !== undefined);
    const lists = found.length > 0 ? found.map(discoverySelectors) : [settings.discoverySelectors];
    return lists.some((list) => list.length === 0) ? [] : lists.flat().slice(0, mostSelectors);
  }

  async #cached(place: TrustPlace, freshMs: number, signal: AbortSignal): Promise<MeshBundle[] | UnknownBundles> {
    const key = describePlace(place);
    const cached = this.#bundles.get(key);
    if (cached && this.#clock.now() - cached.atMs < freshMs) return cached.value;
    const value = await this.#published(place, signal).catch((error: unknown) => {
      if (!isKubeError(error, 'Forbidden')) throw error;
      return place.kind === 'ConfigMap' && place.name === defaultRootConfigMap
        ? ('unreadable' as const)
        : ('unreadableElsewhere' as const);
    });
    const now = this.#clock.now();
    // a control plane object chooses the name of its ConfigMap, so names that are not used any more are forgotten
    for (const [name, { atMs }] of this.#bundles) if (now - atMs > longestKeptMs) this.#bundles.delete(name);
    this.#bundles.set(key, { atMs: now, value });
    return value;
  }

  async #published(place: TrustPlace, signal: AbortSignal): Promise<MeshBundle[]> {
    const rootsOf = bundleReader();
    if (place.kind === 'ClusterTrustBundle') {
      const object = await readTrustBundle(this.#kube, signal);
      if (object === undefined) return [];
      return [bundleOf(place, undefined, rootsOf(str(dig(object, 'spec', 'trustBundle'))))];
    }
    // RBAC with resourceNames allows a list whose field selector names exactly this ConfigMap; the list is cluster-wide also with
    // --namespaces
    const selector = { fieldSelector: `metadata.name=${place.name}` };
    const { items } = await this.#kube.listCollection(configMaps, undefined, selector, { signal });
    return items.map((object) =>
      bundleOf(place, str(dig(object, 'metadata', 'namespace')), rootsOf(str(dig(object, 'data', 'root-cert.pem')))),
    );
  }

  /** Returns the labels of all namespaces; `undefined`: the operator cannot list namespaces. */
  async #namespaceLabels(signal: AbortSignal): Promise<Map<string, JsonObject> | undefined> {
    if (this.#labels && this.#clock.now() - this.#labels.atMs < labelsFreshMs) return this.#labels.value;
    const listed = await unless('Forbidden', this.#kube.listObjects(namespaces, undefined, undefined, { signal }));
    const labels = listed?.map((object): [string, JsonObject] => {
      const own = dig(object, 'metadata', 'labels');
      return [String(dig(object, 'metadata', 'name')), isObject(own) ? own : {}];
    });
    this.#labels = { atMs: this.#clock.now(), value: labels && new Map(labels) };
    return this.#labels.value;
  }
}

/** A bundle whose roots are read when they are used: those of namespaces that do not belong to the mesh are not. */
const bundleOf = (
  place: TrustPlace,
  namespace: string | undefined,
  read: ReturnType<ReturnType<typeof bundleReader>>,
): MeshBundle => ({
  place,
  namespace,
  get roots() {
    return read.roots;
  },
  get certificates() {
    return read.certificates;
  },
});
