/**
 * Stand-in for a Deployment's controllers and for istiod itself: the test writes Deployment, ReplicaSet and Pods with their statuses, and a
 * plain TLS server acts as istiod's port 15012. The operator's reads and handshakes are real. The certificates that istiod would present are
 * not tested here.
 */
import { randomInt } from 'node:crypto';
import { createServer, type Server } from 'node:tls';
import { applyOk, type Json, type Kube } from './cluster.ts';
import type { PodTemplate } from './istiod-pod.ts';
import type { Scene } from './scene.ts';

export interface Identity {
  /** PEM. */
  key: string;
  /** PEM, the leaf first. */
  chain: string;
}

/** A certificate of istiod's kind, from the intermediate that the mount serves by default. */
export async function issueLeaf({ vault, namespace }: Scene): Promise<Identity> {
  const mount = `${namespace}-ca`;
  const role = { allow_any_name: true, enforce_hostnames: false, key_type: 'ec', key_bits: 256, max_ttl: '24h' };
  await vault.request('POST', `${mount}/roles/leaf`, role);
  const name = `istiod.${namespace}.svc`;
  const { body } = await vault.request('POST', `${mount}/issue/leaf`, { common_name: name });
  const { data } = body as { data: { certificate: string; issuing_ca: string; private_key: string } };
  return { key: data.private_key, chain: `${data.certificate}\n${data.issuing_ca}\n` };
}

/** A server that acts as port 15012 of an istiod Pod. */
export interface PlayedIstiod {
  /** The address that the Pod is to have. */
  readonly address: string;
  /** Changes the certificate. */
  show(next: Identity): void;
  readonly server: Server;
}

/** Acts as port 15012 on an address of 127.0.0.0/8 that nobody else uses: another run of the tests on this machine has others. */
export async function playIstiod(shows: Identity): Promise<PlayedIstiod> {
  const server = createServer({ key: shows.key, cert: shows.chain, ALPNProtocols: ['h2'] });
  for (let attempt = 1; ; attempt += 1) {
    const address = `127.${randomInt(1, 255)}.${randomInt(1, 255)}.${randomInt(1, 255)}`;
    const error = await new Promise<NodeJS.ErrnoException | undefined>((resolve) => {
      server.once('error', resolve);
      server.listen(15012, address, () => resolve(undefined));
    });
    if (!error)
      return { address, server, show: (next) => server.setSecureContext({ key: next.key, cert: next.chain }) };
    if (error.code !== 'EADDRINUSE' || attempt === 10) throw error;
  }
}

const apps = (namespace: string, plural: string, name = '') => `/apis/apps/v1/namespaces/${namespace}/${plural}${name}`;
const uidOf = (object: Json) => (object['metadata'] as { uid: string }).uid;
const owner = (kind: string, name: string, uid: string) => [
  { apiVersion: 'apps/v1', kind, name, uid, controller: true },
];

async function request(kube: Kube, method: string, path: string, body: Json, type?: string): Promise<Json> {
  const answer = await kube.request(method, path, JSON.stringify(body), type ?? 'application/json');
  if (answer.status >= 300) throw new Error(`${method} ${path}: ${answer.status} ${JSON.stringify(answer.body)}`);
  return answer.body as Json;
}

const hash = 'newest';
const labels = { app: 'istiod', 'istio.io/rev': 'default', 'pod-template-hash': hash };

/** A Pod after injection: the operator's annotations and the containers of Vault Agent. */
const podTemplate = ({ env, annotations }: PodTemplate): Json => ({
  metadata: { labels, annotations },
  spec: {
    serviceAccountName: 'istiod',
    containers: [
      {
        name: 'discovery',
        image: 'istio/pilot:1.30.0',
        env: Object.entries(env).map(([name, value]) => ({ name, value })),
      },
    ],
  },
});

/** Replicas that the test writes itself. The Deployment is paused, so that a running controller does not change it. */
export class Replicas {
  readonly #kube: Kube;
  readonly #namespace: string;
  readonly #template: PodTemplate;
  #replicaSetUid = '';

  constructor({ kube, namespace }: Scene, template: PodTemplate) {
    this.#kube = kube;
    this.#namespace = namespace;
    this.#template = template;
  }

  /** Writes the Deployment and its ReplicaSet, with all replicas available. */
  async deploy(replicas: number): Promise<void> {
    const [kube, namespace] = [this.#kube, this.#namespace];
    await kube.request('POST', `/api/v1/namespaces/${namespace}/serviceaccounts`, { metadata: { name: 'istiod' } });
    const selector = { matchLabels: { app: 'istiod' } };
    const template = podTemplate(this.#template);
    const metadata = { name: 'istiod', namespace, labels: { app: 'istiod', 'istio.io/rev': 'default' } };
    const spec = { replicas, paused: true, selector, template };
    const deployment = await request(kube, 'POST', apps(namespace, 'deployments'), {
      apiVersion: 'apps/v1',
      kind: 'Deployment',
      metadata: { ...metadata, annotations: { 'deployment.kubernetes.io/revision': '1' } },
      spec,
    });
    const replicaSet = await request(kube, 'POST', apps(namespace, 'replicasets'), {
      apiVersion: 'apps/v1',
      kind: 'ReplicaSet',
      metadata: {
        name: `istiod-${hash}`,
        namespace,
        labels,
        annotations: { 'deployment.kubernetes.io/revision': '1' },
        ownerReferences: owner('Deployment', 'istiod', uidOf(deployment)),
      },
      spec: { replicas, selector: { matchLabels: labels }, template },
    });
    this.#replicaSetUid = uidOf(replicaSet);
    const status = { observedGeneration: 1, replicas, updatedReplicas: replicas, readyReplicas: replicas, availableReplicas: replicas }; // prettier-ignore
    const path = apps(namespace, 'deployments', '/istiod/status');
    await request(kube, 'PATCH', path, { status }, 'application/merge-patch+json');
  }

  /** Writes a Pod, injected by default, with the status that a kubelet would write. */
  async pod(name: string, status: Json, injected = true): Promise<void> {
    const template = podTemplate(this.#template) as { metadata: { annotations: Json }; spec: { containers: Json[] } };
    const agent = (of: string) => ({ name: of, image: 'vault' });
    const spec = injected
      ? { ...template.spec, initContainers: [agent('vault-agent-init')], containers: [...template.spec.containers, agent('vault-agent')] }
      : template.spec; // prettier-ignore
    const annotations = { ...template.metadata.annotations, ...(injected ? { 'vault.hashicorp.com/agent-inject-status': 'injected' } : {}) }; // prettier-ignore
    const path = `/api/v1/namespaces/${this.#namespace}/pods`;
    const ownerReferences = owner('ReplicaSet', `istiod-${hash}`, this.#replicaSetUid);
    await request(this.#kube, 'POST', path, {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name, namespace: this.#namespace, labels, annotations, ownerReferences },
      spec,
    });
    await this.status(name, status);
  }

  async status(name: string, status: Json): Promise<void> {
    const path = `/api/v1/namespaces/${this.#namespace}/pods/${name}/status`;
    await request(this.#kube, 'PATCH', path, { status }, 'application/merge-patch+json');
  }

  async remove(name: string): Promise<void> {
    await this.#kube.request('DELETE', `/api/v1/namespaces/${this.#namespace}/pods/${name}?gracePeriodSeconds=0`);
  }
}

const startedAt = '2026-01-01T00:00:00Z';
const containerStatus = (name: string, state: Json, over: Json = {}) => ({
  name,
  image: 'x',
  imageID: 'x',
  restartCount: 0,
  ready: 'running' in state,
  state,
  ...over,
});

/** The status of a healthy Pod. */
export const wellAt = (podIP: string): Json => ({
  phase: 'Running',
  podIP,
  podIPs: [{ ip: podIP }],
  initContainerStatuses: [containerStatus('vault-agent-init', { terminated: { exitCode: 0, reason: 'Completed' } })],
  containerStatuses: ['discovery', 'vault-agent'].map((name) => containerStatus(name, { running: { startedAt } })),
});

/** The status of a Pod whose Vault Agent has tried to log in for a long time. */
export const hangingInit = (): Json => ({
  phase: 'Pending',
  initContainerStatuses: [containerStatus('vault-agent-init', { running: { startedAt } }, { ready: false })],
  containerStatuses: ['discovery', 'vault-agent'].map((name) =>
    containerStatus(name, { waiting: { reason: 'PodInitializing' } }),
  ),
});

/** Writes `istio-ca-root-cert` like istiod. */
export async function writeMeshRoot(kube: Kube, namespace: string, pem: string): Promise<void> {
  await applyOk(kube, {
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: { name: 'istio-ca-root-cert', namespace },
    data: { 'root-cert.pem': pem },
  });
}
