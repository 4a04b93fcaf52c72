/**
 * Where istiod publishes the roots that workloads trust: as a ConfigMap in every namespace that it discovers, or as one ClusterTrustBundle. The
 * environment of istiod decides. Pure.
 * Source: https://github.com/istio/istio, pilot/pkg/features (PILOT_CA_CERT_CONFIGMAP, ENABLE_CLUSTER_TRUST_BUNDLE_API),
 * pilot/pkg/serviceregistry/kube/controller/namespacecontroller.go and pilot/pkg/config/kube/clustertrustbundle/controller.go
 */

/** The name of the ConfigMap unless `PILOT_CA_CERT_CONFIGMAP` is set. */
export const defaultRootConfigMap = 'istio-ca-root-cert';

/** The name of the ClusterTrustBundle. istiod has no setting for it, so all meshes of a cluster that use the API share it. */
export const clusterTrustBundleName = 'istio.io:istiod-ca:root-cert';

/** Where istiod publishes unless it is told otherwise. */
export const defaultPlace = { kind: 'ConfigMap', name: defaultRootConfigMap } as const;

/** An object, or in every namespace an object of the same name, with the roots that workloads trust. */
export type TrustPlace = { kind: 'ConfigMap'; name: string } | { kind: 'ClusterTrustBundle' };

/** Names a place in a message, as kind and name. */
export const describePlace = (place: TrustPlace): string =>
  place.kind === 'ConfigMap' ? `ConfigMap ${place.name}` : `ClusterTrustBundle ${clusterTrustBundleName}`;

export const samePlace = (one: TrustPlace, other: TrustPlace): boolean => describePlace(one) === describePlace(other);

/** Environment variables that decide where istiod publishes. */
const placeVariables = ['PILOT_CA_CERT_CONFIGMAP', 'ENABLE_CLUSTER_TRUST_BUNDLE_API'] as const;

/** The value of an environment variable of istiod; null: it stands in another object (`valueFrom`); undefined: it is not set. */
export type EnvironmentLookup = (name: string) => string | null | undefined;

/**
 * Returns whether istiod takes the value of an environment variable for true. Every other value, also one that is no boolean, counts as false
 * here. Source: https://pkg.go.dev/strconv#ParseBool
 */
export const isTrue = (value: string | null | undefined): boolean => /^(1|t|T|TRUE|true|True)$/.test(value ?? '');

/**
 * Returns the setting by which an istiod with this environment signs no workload certificates with the CA in its files; undefined: it signs.
 * Source: https://github.com/istio/istio, pilot/pkg/bootstrap/server.go (maybeCreateCA) and security/pkg/pki/ra/common.go
 */
export function settingThatSignsNothing(valueOf: EnvironmentLookup): string | undefined {
  const server = valueOf('ENABLE_CA_SERVER');
  if (/^(0|f|F|FALSE|false|False)$/.test(server ?? '')) return `ENABLE_CA_SERVER=${server}`;
  const external = valueOf('EXTERNAL_CA');
  return external === 'ISTIOD_RA_KUBERNETES_API' ? `EXTERNAL_CA=${external}` : undefined;
}

/** A value that Kubernetes or istiod would change: it refers to another variable, or it is empty, which istiod does not replace by its default. */
const isUnknown = (value: string | null | undefined): boolean =>
  value === null || value === '' || (value ?? '').includes('$(');

/** Returns where an istiod with this environment publishes; undefined: a value that decides it is not known. */
export function placeOf(valueOf: EnvironmentLookup): TrustPlace | undefined {
  const [name, api] = placeVariables.map(valueOf);
  if (api === null || api?.includes('$(')) return undefined;
  if (isTrue(api)) return { kind: 'ClusterTrustBundle' };
  if (name === undefined) return defaultPlace;
  return isUnknown(name) ? undefined : { kind: 'ConfigMap', name: name ?? '' };
}

/**
 * The namespaces that istiod never publishes to. Source: https://github.com/istio/istio, pkg/kube/inject/initializer.go
 * (IgnoredNamespaces, from which the publisher takes kube-system out)
 */
export const ignoredNamespaces: readonly string[] = ['kube-public', 'kube-node-lease', 'local-path-storage'];

/** What the control plane object says of its istiod. It counts while istiod has no Deployment. */
export interface IstiodValues {
  /** undefined: a setting that decides it is not known. */
  place: TrustPlace | undefined;
  /** Label selectors, as in the object. */
  discoverySelectors: unknown[];
  /** The setting by which this istiod signs no workload certificates; undefined: the object has none. */
  signsNothing: string | undefined;
  /** The setting by which it only injects, and workloads use a remote istiod; undefined: the object has none. */
  localInjector: string | undefined;
  /** Labels that it adds to those of Istio's chart on istiod's Pods. */
  podLabels: Record<string, string>;
}

/** The settings of a control plane object that says nothing of them. */
export const defaultIstiodValues: IstiodValues = {
  place: defaultPlace,
  discoverySelectors: [],
  signsNothing: undefined,
  localInjector: undefined,
  podLabels: {},
};
