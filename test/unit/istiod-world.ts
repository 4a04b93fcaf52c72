/** Worlds with istiod: replicas in every state, with a CA that the plan has created. */
import { defaultMaxWorkloadCertTtlMs } from '../../src/api/istiod.ts';
import { plannedCertificate, type CertificateFacts } from '../../src/plan/facts/certificate.ts';
import type { Desired } from '../../src/plan/facts/desired.ts';
import { istiodFields } from '../../src/plan/control-plane/istiod-fields.ts';
import { caDigest } from '../../src/plan/facts/ca-entry.ts';
import type { Observed } from '../../src/plan/facts/observed.ts';
import type {
  ContainerState,
  IstiodContainer,
  IstiodDeployment,
  IstiodPod,
  IstiodSettings,
  MeshBundle,
  ObservedIstiod,
  Served,
} from '../../src/plan/facts/observed-istiod.ts';
import { defaultIstiodValues } from '../../src/plan/facts/trust-places.ts';
import { converge, desiredOf, emptyWorld, someCa, start, derived } from './model.ts';

export const d = desiredOf();
export const now = start + 3_600_000;

const hour = 3_600_000;

/** istiod's serving certificate, issued by `issuer`; by default it expires 24 hours after `now`. */
export const leafOf = (issuer: CertificateFacts, endsMs = now + 24 * hour): CertificateFacts =>
  plannedCertificate(
    {
      publicKey: 'key of istiod',
      notBefore: start,
      notAfter: endsMs,
      subject: { commonName: '', organization: '' },
      selfIssued: false,
      isCa: false,
      maxPathLength: undefined,
      canSignCertificates: false,
      keyType: 'rsa',
      keyBits: 2048,
    },
    issuer.fingerprint,
  );

/** Returns the world after a first reconcile. */
export function provisioned(desired: Desired = d): Observed {
  const world = emptyWorld();
  world.kubernetes.istiodServiceAccounts = ['istiod'];
  return converge(desired, world).world;
}

export const liveOf = (world: Observed, desired: Desired = d) => derived(desired, world).currentCa!;
export const rootOf = (world: Observed): CertificateFacts => world.vault.rootPki!.issuers[0]!.certificate;

/** The handshake data of a replica that serves the current CA. */
export const servesLive = (world: Observed, desired: Desired = d): Served => {
  const { certificate } = liveOf(world, desired);
  return { leaf: leafOf(certificate), chain: [certificate], issuer: 'CN=Istio Intermediate CA' };
};

/** The handshake data of an istiod with its self-signed CA: a leaf without a chain. */
export const servesItself = (): Served => ({
  leaf: leafOf(someCa('cluster.local', undefined)),
  chain: [],
  issuer: 'O=cluster.local',
});

export const running = (sinceMs = start): ContainerState => ({ kind: 'running', sinceMs });
export const waiting = (reason: string, message = ''): ContainerState => ({ kind: 'waiting', reason, message });
export const ended = (exitCode: number, reason = 'Error'): ContainerState => ({
  kind: 'terminated',
  reason,
  exitCode,
  message: '',
});

export const container = (name: string, over: Partial<IstiodContainer> = {}): IstiodContainer => ({
  name,
  init: name === 'vault-agent-init',
  ready: true,
  restarts: 0,
  state: name === 'vault-agent-init' ? ended(0, 'Completed') : running(),
  last: undefined,
  log: undefined,
  ...over,
});

/** The settings of a Pod that carries all fields of the operator. */
export const settingsOf = (world: Observed, desired: Desired = d): IstiodSettings => {
  const { env, podAnnotations } = istiodFields(desired.spec, caDigest(liveOf(world, desired)));
  return { env, annotations: podAnnotations };
};

/** Returns a healthy replica with the given changes; `containers` holds changes by container name. */
export const podOf = (
  world: Observed,
  name: string,
  over: Partial<Omit<IstiodPod, 'containers'>> & { containers?: Record<string, Partial<IstiodContainer>> } = {},
  desired: Desired = d,
): IstiodPod => {
  const { containers = {}, ...rest } = over;
  return {
    name,
    deployment: 'istiod',
    createdMs: start,
    settings: settingsOf(world, desired),
    injected: true,
    tlsCertFile: false,
    unschedulable: undefined,
    served: servesLive(world, desired),
    ...rest,
    containers: ['vault-agent-init', 'discovery', 'vault-agent'].map((one) => container(one, containers[one])),
  };
};

/** Changes for a Pod whose init container still runs, so that the other containers wait. */
export const initialising = (over: Partial<IstiodContainer>) => ({
  served: undefined,
  containers: {
    'vault-agent-init': { ready: false, ...over },
    discovery: { ready: false, state: waiting('PodInitializing') },
    'vault-agent': { ready: false, state: waiting('PodInitializing') },
  },
});

export const deploymentOf = (
  world: Observed,
  replicas: number,
  over: Partial<IstiodDeployment> = {},
  desired: Desired = d,
): IstiodDeployment => ({
  name: 'istiod',
  revision: 'default',
  serviceAccount: 'istiod',
  version: '1.30.0',
  multiRoot: false,
  ambient: false,
  nodeAccounts: undefined,
  publishesTo: defaultIstiodValues.place,
  maxWorkloadCertTtlMs: defaultMaxWorkloadCertTtlMs,
  signsNothing: undefined,
  podLabels: { app: 'istiod' },
  settings: settingsOf(world, desired),
  replicas: { desired: replicas, current: replicas, updated: replicas, available: replicas, ready: replicas },
  observed: true,
  failure: undefined,
  deadlinePassed: false,
  ...over,
});

/** ConfigMap `istio-ca-root-cert` of a namespace. @param roots fingerprints, or certificates */
export function meshBundle(namespace: string | undefined, roots: (string | CertificateFacts)[]): MeshBundle {
  const certificates = roots.filter((root) => typeof root !== 'string');
  return {
    place: namespace === undefined ? { kind: 'ClusterTrustBundle' } : { kind: 'ConfigMap', name: 'istio-ca-root-cert' },
    namespace,
    roots: roots.map((root) => (typeof root === 'string' ? root : root.fingerprint)),
    certificates,
  };
}

/** Returns the world with these replicas. */
export function withIstiod(
  world: Observed,
  pods: IstiodPod[],
  over: Partial<ObservedIstiod> = {},
  desired: Desired = d,
): Observed {
  const roots = over.bundles ? [] : [rootOf(world).fingerprint];
  const istiod: ObservedIstiod = {
    deployments: [deploymentOf(world, pods.length, {}, desired)],
    pods,
    ending: [],
    confinedTo: [],
    bundles: [meshBundle(desired.identity.namespace, roots), meshBundle('bookinfo', roots)],
    places: [{ kind: 'ConfigMap', name: 'istio-ca-root-cert' }],
    homeDiscovered: true,
    rootsOfOthers: [],
    ...over,
  };
  return { ...world, kubernetes: { ...world.kubernetes, istiod } };
}
