/** The parts of Kubernetes' objects that the stand-in for the node reads. */

export interface KeyToPath {
  readonly key: string;
  readonly path: string;
}

interface NamedSource {
  readonly name?: string;
  readonly items?: readonly KeyToPath[];
  readonly optional?: boolean;
}

interface FieldRef {
  readonly fieldPath: string;
}

export interface DownwardItem {
  readonly path: string;
  readonly fieldRef?: FieldRef;
}

export interface ProjectedSource {
  readonly serviceAccountToken?: {
    readonly audience?: string;
    readonly expirationSeconds?: number;
    readonly path: string;
  };
  readonly configMap?: NamedSource;
  readonly secret?: NamedSource;
  readonly downwardAPI?: { readonly items?: readonly DownwardItem[] };
  readonly clusterTrustBundle?: { readonly name?: string; readonly path: string; readonly optional?: boolean };
}

export interface Volume {
  readonly name: string;
  readonly emptyDir?: object;
  readonly secret?: { readonly secretName: string; readonly items?: readonly KeyToPath[]; readonly optional?: boolean };
  readonly configMap?: NamedSource;
  readonly projected?: { readonly sources?: readonly ProjectedSource[] };
  readonly downwardAPI?: { readonly items?: readonly DownwardItem[] };
}

export interface VolumeMount {
  readonly name: string;
  readonly mountPath: string;
  readonly readOnly?: boolean;
  readonly subPath?: string;
}

interface KeyRef {
  readonly name: string;
  readonly key: string;
  readonly optional?: boolean;
}

export interface EnvVar {
  readonly name: string;
  readonly value?: string;
  readonly valueFrom?: {
    readonly fieldRef?: FieldRef;
    readonly resourceFieldRef?: { readonly resource: string };
    readonly configMapKeyRef?: KeyRef;
    readonly secretKeyRef?: KeyRef;
  };
}

export interface Container {
  readonly name: string;
  readonly image?: string;
  readonly command?: readonly string[];
  readonly args?: readonly string[];
  readonly env?: readonly EnvVar[];
  readonly volumeMounts?: readonly VolumeMount[];
  readonly readinessProbe?: {
    readonly httpGet?: { readonly path?: string; readonly port: number | string };
    readonly periodSeconds?: number;
    readonly timeoutSeconds?: number;
    readonly failureThreshold?: number;
  };
}

export interface PodCondition {
  readonly type: string;
  readonly status: string;
  readonly reason?: string;
  readonly message?: string;
  readonly lastTransitionTime?: string;
}

export interface Pod {
  readonly metadata: {
    readonly name: string;
    readonly namespace: string;
    readonly uid: string;
    readonly resourceVersion: string;
    readonly generation?: number;
    readonly labels?: Readonly<Record<string, string>>;
    readonly annotations?: Readonly<Record<string, string>>;
    readonly deletionTimestamp?: string;
  };
  readonly spec: {
    readonly nodeName?: string;
    readonly serviceAccountName?: string;
    readonly terminationGracePeriodSeconds?: number;
    readonly volumes?: readonly Volume[];
    readonly initContainers?: readonly Container[];
    readonly containers: readonly Container[];
  };
  readonly status?: { readonly phase?: string; readonly conditions?: readonly PodCondition[] };
}

export const podKey = ({ metadata }: Pod): string => `${metadata.namespace}/${metadata.name}`;
