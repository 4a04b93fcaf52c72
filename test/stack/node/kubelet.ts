/**
 * A stand-in for the kubelet, and for the scheduler of a single node: it binds every pending Pod to its node, runs the
 * containers as processes of this machine (`runtime.ts`), and writes their real status. Every Pod has a separate address in
 * 127.0.0.0/8, so that all can use the same ports; this needs Linux.
 *
 * It supports only volumes with files of the API server and HTTP readiness probes. It has no resources, no lifecycle
 * hooks, no static Pods and no Events. Its times are shorter than the kubelet's: the back-off and the interval of probes
 * are options.
 */
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { expectStatus } from '../http.ts';
import type { KubeServer } from '../types.ts';
import { pause } from '../wait.ts';
import { watchObjects, type Watch } from '../watch.ts';
import { podKey, type Pod } from './objects.ts';
import { PodRunner } from './pod.ts';
import type { Runtime } from './runtime.ts';

export interface KubeletOptions {
  readonly kube: Pick<KubeServer, 'request' | 'url' | 'caPem' | 'adminKubeconfig'>;
  readonly runtime: Runtime;
  readonly nodeName: string;
  /** The first three bytes of its pods' addresses; the node's own ends in 1. */
  readonly subnet: string;
  readonly dir: string;
  /** Namespaces whose pods it takes; default: all. */
  readonly namespaces: readonly string[] | undefined;
  readonly backOffMs: number;
  readonly probeMs: number;
  readonly say: (line: string) => void;
}

export class Kubelet {
  readonly #options: KubeletOptions;
  readonly #pods = new Map<string, PodRunner>();
  readonly #binding = new Map<string, Promise<void>>();
  readonly #leaving = new Set<Promise<void>>();
  #watch: Watch | undefined;
  #stopped = false;
  #lastByte = 1;

  constructor(options: KubeletOptions) {
    this.#options = options;
  }

  get pods(): readonly PodRunner[] {
    return [...this.#pods.values()];
  }

  /** Registers the node and starts to run Pods. @param port of its HTTPS server */
  async start(port: number): Promise<void> {
    const { kube, nodeName: name, subnet, say } = this.#options;
    const capacity = { cpu: String(availableParallelism()), memory: '8Gi', pods: '250' };
    const at = new Date().toISOString();
    const ready = {
      type: 'Ready',
      status: 'True',
      reason: 'KubeletReady',
      lastHeartbeatTime: at,
      lastTransitionTime: at,
    };
    const answer = await kube.request('POST', '/api/v1/nodes', {
      metadata: { name, labels: { 'kubernetes.io/hostname': name, 'kubernetes.io/os': 'linux' } },
      status: {
        capacity,
        allocatable: capacity,
        conditions: [ready],
        addresses: [{ type: 'InternalIP', address: `${subnet}.1` }],
        daemonEndpoints: { kubeletEndpoint: { Port: port } },
      },
    });
    expectStatus(answer, [201], `register node ${name}`);
    this.#watch = watchObjects<Pod>(kube, '/api/v1/pods', {
      seen: (pod) => this.#seen(pod),
      gone: (pod) => this.#gone(pod),
      failed: (error) => say(`watch of pods: ${error instanceof Error ? error.message : String(error)}`),
    });
  }

  /** Ends the processes of its Pods, and removes their objects and the Node object. */
  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#watch?.stop();
    await Promise.all(this.#binding.values());
    await Promise.all(
      this.pods.map(async (pod) => {
        await pod.settled(true);
        await pod.abandon();
        await this.#request('DELETE', `/api/v1/namespaces/${pod.namespace}/pods/${pod.name}`, {
          gracePeriodSeconds: 0,
          preconditions: { uid: pod.uid },
        });
      }),
    );
    await Promise.all(this.#leaving);
    await this.#request('DELETE', `/api/v1/nodes/${this.#options.nodeName}`);
  }

  /** At the end of a test, the API server can stop before the node: this is logged and no failure. */
  async #request(method: string, path: string, body?: unknown): Promise<void> {
    const { kube, say } = this.#options;
    try {
      const { status } = await kube.request(method, path, body);
      if (![200, 202, 404, 409].includes(status)) say(`${method} ${path}: HTTP ${status}`);
    } catch (error) {
      say(`${method} ${path}: ${error instanceof Error ? error.message : String(error)}`);
    }
  }

  #seen(pod: Pod): void {
    const { namespaces, nodeName } = this.#options;
    const { uid, namespace, deletionTimestamp } = pod.metadata;
    if (namespaces !== undefined && !namespaces.includes(namespace)) return;
    if (pod.spec.nodeName === undefined) {
      if (deletionTimestamp === undefined && !this.#binding.has(uid))
        this.#binding.set(
          uid,
          this.#bind(pod).finally(() => this.#binding.delete(uid)),
        );
      return;
    }
    if (pod.spec.nodeName !== nodeName) return;
    const known = this.#pods.get(uid);
    if (known !== undefined) return known.update(pod);
    const runner = this.#run(pod);
    this.#pods.set(uid, runner);
    runner.update(pod);
  }

  #gone(pod: Pod): void {
    const runner = this.#pods.get(pod.metadata.uid);
    if (runner === undefined) return;
    this.#pods.delete(pod.metadata.uid);
    const leaving = runner.settled().then(() => runner.abandon());
    this.#leaving.add(leaving);
    void leaving.finally(() => this.#leaving.delete(leaving));
  }

  #run(pod: Pod): PodRunner {
    const { kube, runtime, subnet, dir, backOffMs, probeMs, say } = this.#options;
    const address = { hostIP: `${subnet}.1`, podIP: this.#freeAddress() };
    return new PodRunner(pod, { kube, runtime, address, dir: join(dir, pod.metadata.uid), backOffMs, probeMs, say });
  }

  #freeAddress(): string {
    const taken = new Set(this.pods.map(({ ip }) => ip));
    for (let i = 0; i < 253; i++) {
      this.#lastByte = this.#lastByte === 254 ? 2 : this.#lastByte + 1;
      const address = `${this.#options.subnet}.${this.#lastByte}`;
      if (!taken.has(address)) return address;
    }
    throw new Error('the stand-in for the node has no more addresses for pods');
  }

  async #bind(pod: Pod): Promise<void> {
    const { kube, nodeName, say } = this.#options;
    const { namespace, name, uid } = pod.metadata;
    while (!this.#stopped) {
      try {
        const { status, body } = await kube.request('POST', `/api/v1/namespaces/${namespace}/pods/${name}/binding`, {
          apiVersion: 'v1',
          kind: 'Binding',
          metadata: { name, namespace, uid },
          target: { apiVersion: 'v1', kind: 'Node', name: nodeName },
        });
        // deleted, or already bound
        if (status === 201 || status === 404 || status === 409) return;
        say(`${podKey(pod)}: binding: HTTP ${status}: ${JSON.stringify(body)}`);
      } catch (error) {
        say(`${podKey(pod)}: binding: ${error instanceof Error ? error.message : String(error)}`);
      }
      await pause(200);
    }
  }
}
