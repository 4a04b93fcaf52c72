/**
 * What one look at istiod saw: plain data, public facts only. Texts of others (logs, kubelet messages) come in cleaned, see
 * `src/istiod/log-lines.ts`. `undefined` means: not there, or not looked for.
 */
import { digestAnnotation } from '../../api/annotations.ts';
import type { CertificateFacts } from './certificate.ts';

/** What a replica showed in a TLS handshake. It has proven to hold the leaf's key; all else is judged by the plan. */
export interface Served {
  leaf: CertificateFacts;
  /** What it sent along, in that order; whether it belongs together is for the plan to judge. */
  chain: CertificateFacts[];
  /** The issuer's name as the leaf gives it, on one line. */
  issuer: string;
}

/** A handshake that was tried and did not come about, in a few stable words. */
export interface Unreachable {
  unreachable: string;
}

export type ContainerState =
  | { kind: 'waiting'; reason: string; message: string }
  | { kind: 'running'; sinceMs: number }
  | { kind: 'terminated'; reason: string; exitCode: number; message: string };

/** A container as the kubelet tells of it. */
export interface IstiodContainer {
  name: string;
  init: boolean;
  ready: boolean;
  restarts: number;
  state: ContainerState;
  /** How its run before this one ended. */
  last: { reason: string; exitCode: number; endedMs: number } | undefined;
  /** Telling lines of its log; undefined: not asked for. */
  log: string[] | 'unreadable' | undefined;
}

/** What of a pod or a pod template concerns the CA. */
export interface IstiodSettings {
  /** Those under `vault.hashicorp.com/` and `istiovaultca.io/`. */
  annotations: Record<string, string>;
  /** Plain values of the container `discovery`. */
  env: Record<string, string>;
}

export interface IstiodDeployment {
  name: string;
  revision: string;
  serviceAccount: string;
  /** Istio's, such as `1.24.1`; empty when neither label nor image tells. */
  version: string;
  /** `ISTIO_MULTIROOT_MESH` is true. */
  multiRoot: boolean;
  /** The longest workload certificate that it allows, milliseconds; Istio's default where its template only says where that stands. */
  maxWorkloadCertTtlMs: number;
  settings: IstiodSettings;
  /** All of its pods; those of the newest template; those that serve. */
  replicas: { desired: number; current: number; updated: number; available: number };
  /** Its controller has seen the newest template. */
  observed: boolean;
  /** Why pods cannot be made: condition `ReplicaFailure`. */
  failure: string | undefined;
  /** Condition `Progressing` is False: `ProgressDeadlineExceeded`. */
  deadlinePassed: boolean;
}

/** A living pod of the newest ReplicaSet of a Deployment. */
export interface IstiodPod {
  name: string;
  deployment: string;
  /** Milliseconds since the epoch. */
  createdMs: number;
  settings: IstiodSettings;
  /** The injector has been at it. */
  injected: boolean;
  /** Why no node takes it. */
  unschedulable: string | undefined;
  containers: IstiodContainer[];
  /** undefined: not tried, since `discovery` does not run. */
  served: Served | Unreachable | undefined;
  /** Fingerprints of the roots that it hands out with a certificate; undefined: not asked, which is done only during a root rotation. */
  distributedRoots?: string[] | Unreachable;
}

/** `istio-ca-root-cert` of a namespace. */
export interface MeshBundle {
  namespace: string;
  /** Fingerprints of the certificates in it. */
  roots: string[];
}

export interface ObservedIstiod {
  deployments: IstiodDeployment[];
  pods: IstiodPod[];
  /** Names of pods that are being deleted and still run: until they are gone they may sign. */
  ending: string[];
  /** Of every namespace that may be read. */
  bundles: MeshBundle[] | 'unreadable';
  /** The namespaces whose resources the operator sees; empty: all. Of another namespace it is not known whose mesh it is of. */
  confinedTo: string[];
  /** Fingerprints of roots that belong to IstioVaultCAs of other namespaces: a namespace that has one of them is of another mesh. */
  rootsOfOthers: string[];
}

/** The CA's digest that a pod or template carries. */
export const digestOf = ({ annotations }: IstiodSettings): string | undefined => annotations[digestAnnotation];

export const containerOf = (pod: IstiodPod, name: string): IstiodContainer | undefined =>
  pod.containers.find((container) => container.name === name);
