/**
 * Result of one observation of istiod: plain data without secrets. `src/istiod/log-lines.ts` sanitizes foreign texts (log lines, kubelet
 * messages). Unless a field says otherwise, `undefined` means that the value does not exist or was not read.
 */
import { agentContainerName } from '../../api/injectors.ts';
import { digestAnnotation } from '../../api/annotations.ts';
import type { Permission } from '../../api/permissions.ts';
import type { CertificateFacts } from './certificate.ts';
import type { TrustPlace } from './trust-places.ts';

/** Certificates that a replica sent in a TLS handshake. The handshake verified only that the replica has the key of `leaf`. */
export interface Served {
  leaf: CertificateFacts;
  /** Further certificates, in the order in which the replica sent them. They need not form a chain. */
  chain: CertificateFacts[];
  /** Issuer name in `leaf`, on one line. */
  issuer: string;
}

/** A certificate that a replica signed, with what came along. */
export interface Signed extends Served {
  /** Fingerprints of the roots that the replica distributes. */
  roots: string[];
}

/** A request to a replica that failed: the cause in a few words, equal for equal causes. */
export interface Unreachable {
  unreachable: string;
}

/** State of a container in the status of a Pod. https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#container-states */
export type ContainerState =
  | { kind: 'waiting'; reason: string; message: string }
  | { kind: 'running'; sinceMs: number }
  | { kind: 'terminated'; reason: string; exitCode: number; message: string };

/** A container, as the status of its Pod reports it. */
export interface IstiodContainer {
  name: string;
  init: boolean;
  ready: boolean;
  restarts: number;
  state: ContainerState;
  /** How the previous run of the container ended; undefined: there was none. `endedMs`: milliseconds since the epoch. */
  last: { reason: string; exitCode: number; endedMs: number } | undefined;
  /** Lines of the container's log that indicate a cause; undefined: the log was not requested. */
  log: string[] | 'unreadable' | undefined;
}

/** Settings of a Pod or a Pod template that concern the CA. */
export interface IstiodSettings {
  /** Annotations under `vault.hashicorp.com/` and `istiovaultca.io/`. */
  annotations: Record<string, string>;
  /** Environment variables of container `discovery` that concern the CA. A value from another source (`valueFrom`) is empty. */
  env: Record<string, string>;
}

export interface IstiodDeployment {
  name: string;
  /** Label `istio.io/rev`, by default `default`. */
  revision: string;
  serviceAccount: string;
  /** Version of Istio, such as `1.24.1`; empty: neither a label nor the image shows it. */
  version: string;
  /** `ISTIO_MULTIROOT_MESH` is true. */
  multiRoot: boolean;
  /** `PILOT_ENABLE_AMBIENT` is true, or its value stands in another object: the mesh can have ztunnels. */
  ambient: boolean;
  /**
   * Service accounts, as `namespace/name`, that may request certificates for others (`CA_TRUSTED_NODE_ACCOUNTS`), so those of its ztunnels;
   * `unknown`: the value stands in another object, or is too long; undefined: not set.
   */
  nodeAccounts: string[] | 'unknown' | undefined;
  /** Where istiod publishes the roots that workloads trust; undefined: a setting that decides it is not known. */
  publishesTo: TrustPlace | undefined;
  /**
   * The longest lifetime of a workload certificate that istiod signs, milliseconds: the longer of `MAX_WORKLOAD_CERT_TTL` and
   * `DEFAULT_WORKLOAD_CERT_TTL`. Istio's default counts for one that is not set or has its value from another source.
   */
  maxWorkloadCertTtlMs: number;
  /** The setting by which istiod signs no workload certificates; undefined: it signs. */
  signsNothing: string | undefined;
  /** Labels of the Pod template. */
  podLabels: Record<string, string>;
  /** Of the Pod template. */
  settings: IstiodSettings;
  /**
   * `desired`: `spec.replicas`. `current`: all Pods; `updated`: Pods of the newest template; `available`: available Pods; `ready`: Ready Pods.
   */
  replicas: { desired: number; current: number; updated: number; available: number; ready: number };
  /** The Deployment controller has observed the newest template. */
  observed: boolean;
  /** Message of condition `ReplicaFailure`: why Pods cannot be created. undefined: the condition is not `True`. */
  failure: string | undefined;
  /** Condition `Progressing` is `False` (`ProgressDeadlineExceeded`). */
  deadlinePassed: boolean;
}

/** A Pod of the newest ReplicaSet of a Deployment that has not ended and is not being deleted. */
export interface IstiodPod {
  name: string;
  deployment: string;
  /** Milliseconds since the epoch. */
  createdMs: number;
  settings: IstiodSettings;
  /** The Pod has the annotation or a container of Vault Agent Injector. */
  injected: boolean;
  /** Container `discovery` has the arguments `--tlsCertFile`, `--tlsKeyFile` and `--caCertFile`: what it serves is not signed by the CA that it signs with. */
  tlsCertFile: boolean;
  /** Why the Pod cannot be scheduled; undefined: it is scheduled, or the scheduler has not tried. */
  unschedulable: string | undefined;
  containers: IstiodContainer[];
  /** Result of the TLS handshake; undefined: not tried, because container `discovery` does not run. */
  served: Served | Unreachable | undefined;
  /**
   * What the replica answered when it was asked to sign a certificate; undefined: not asked. The operator asks only for a root rotation, or if
   * the handshake does not show with which CA the replica signs.
   */
  signed?: Signed | Unreachable;
}

/** A trust bundle that istiod published: a ConfigMap of a namespace, or the ClusterTrustBundle. */
export interface MeshBundle {
  place: TrustPlace;
  /** undefined: of the ClusterTrustBundle, which every namespace can use. */
  namespace: string | undefined;
  /** Fingerprints of the certificates in the bundle. */
  readonly roots: string[];
  readonly certificates: CertificateFacts[];
}

/**
 * Why the trust bundles of the mesh are unknown. `unreadable`: the operator cannot list ConfigMaps `istio-ca-root-cert`. `unreadableElsewhere`:
 * istiod publishes a ConfigMap of another name or a ClusterTrustBundle, and the operator cannot read that. `unselectable`: istiod has
 * `discoverySelectors`, and the operator cannot list namespaces, whose labels they select.
 */
export type UnknownBundles = 'unreadable' | 'unreadableElsewhere' | 'unselectable';

/** The trust bundles of the namespaces that istiod discovers. */
export interface PublishedBundles {
  bundles: MeshBundle[] | UnknownBundles;
  /** istiod discovers its own namespace, and so publishes a ConfigMap in it. */
  homeDiscovered: boolean;
}

/**
 * What shows which roots the workloads of a mesh trust. The operator looks at it before it writes istiod's fields for the first time.
 */
export interface MeshEvidence extends PublishedBundles {
  /** Where istiod publishes. */
  places: TrustPlace[];
  /** A setting of istiod that decides where it publishes is not known, because its value stands in another object. */
  incomplete: boolean;
  /** The number of Ready replicas; `unreadable`: the operator cannot list Deployments. */
  ready: number | 'unreadable';
  /** The operator cannot list Pods or ReplicaSets; without a Deployment they are not read. */
  podsUnreadable: boolean;
  /** Handshakes with Ready replicas. */
  replicas: { name: string; served: Served | Unreachable }[];
  /** Fingerprints of roots of IstioVaultCAs in other namespaces. */
  rootsOfOthers: string[];
  /** Namespaces whose IstioVaultCAs the operator sees; empty: all. */
  confinedTo: string[];
}

/** A DaemonSet of ztunnel, the node proxy of an ambient mesh. */
export interface Ztunnel {
  namespace: string;
  name: string;
  /** Version of Istio in its template, such as `1.29.1`; empty: neither a label nor the image shows it. The lower one if they differ. */
  version: string;
  /** There can be Pods of an older template. */
  outdated: boolean;
  /** It is told not to take up other roots without a restart (`CA_CERT_WATCHER`), or that is not known. */
  watchesNoRoots: boolean;
  /** What its rollout still waits for; undefined: every Pod is of the newest template and available. */
  unfinished: string | undefined;
  /** Its oldest Pod that has not ended, with its creation in milliseconds since the epoch; undefined: it has no Pod. */
  oldestPod: { name: string; createdMs: number } | undefined;
}

export interface ObservedIstiod {
  deployments: IstiodDeployment[];
  pods: IstiodPod[];
  /** Names of Pods that are being deleted and still run. They can sign workload certificates until they end. */
  ending: string[];
  /** Where istiod publishes the roots. */
  places: TrustPlace[];
  /** Trust bundles of all namespaces, except namespaces that istiod's `discoverySelectors` exclude. */
  bundles: MeshBundle[] | UnknownBundles;
  /** istiod discovers its own namespace, and so publishes a ConfigMap in it. */
  homeDiscovered: boolean;
  /** Namespaces whose IstioVaultCAs the operator sees; empty: all. For any other namespace, the mesh that it belongs to is unknown. */
  confinedTo: string[];
  /** Fingerprints of roots of IstioVaultCAs in other namespaces. A namespace whose ConfigMap contains one of them belongs to another mesh. */
  rootsOfOthers: string[];
  /**
   * The ztunnels of this mesh, or the permission without which they are unknown; undefined: not read, because no root rotation is requested
   * or in progress, or because istiod is not set up for an ambient mesh.
   */
  ztunnels?: Ztunnel[] | { lacking: Permission };
}

/** The digest of the CA in the annotations of a Pod or a Pod template; undefined: the annotation is not set. */
export const digestOf = ({ annotations }: IstiodSettings): string | undefined => annotations[digestAnnotation];

/** A container of a Pod by its name, for an agent by the name that vault-k8s gives it; undefined: the Pod does not have it. */
export const containerOf = (pod: IstiodPod, name: string): IstiodContainer | undefined =>
  pod.containers.find((container) => agentContainerName(container.name) === name);
