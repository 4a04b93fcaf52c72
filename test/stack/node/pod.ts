/** One pod of the stand-in for the kubelet: from its binding to the removal of its object. */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { call } from '../http.ts';
import type { KubeServer } from '../types.ts';
import { pause } from '../wait.ts';
import { ContainerRunner } from './container.ts';
import { podKey, type Container, type Pod, type PodCondition } from './objects.ts';
import { podStatus } from './pod-status.ts';
import { mountsOf, startContainer, type PodSandbox, type Runtime } from './runtime.ts';
import { mountVolumes, type PodAddress } from './volumes.ts';

export interface PodOptions {
  readonly kube: Pick<KubeServer, 'request'>;
  readonly runtime: Runtime;
  readonly address: PodAddress;
  readonly dir: string;
  readonly backOffMs: number;
  readonly probeMs: number;
  readonly say: (line: string) => void;
}

/** The access of a test to a running Pod, beyond its object. */
export interface RunningPod {
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
  /** Its address; its containers listen on their usual ports there. */
  readonly ip: string;
  /**
   * The folder of this machine for a mount path of a container (default `discovery`), to read rendered files or to
   * remove a file.
   */
  folder(mountPath: string, container?: string): string;
  /** Sends a signal to the processes of a container; default SIGKILL. @throws if it does not run */
  kill(container: string, signal?: NodeJS.Signals): void;
  /** The output of the last instance of a container, or with `previous` of the one before; empty if it never ran. */
  log(container: string, previous?: boolean): string;
}

const now = (): string => new Date().toISOString().replace(/\.\d+Z$/, 'Z');

export class PodRunner implements RunningPod {
  readonly #options: PodOptions;
  readonly #startTime = now();
  readonly #init: readonly ContainerRunner[];
  readonly #containers: readonly ContainerRunner[];
  readonly #life: Promise<void>;
  #pod: Pod;
  #conditions: readonly PodCondition[];
  #sandbox: PodSandbox | undefined;
  #ended = false;
  #givenUp = false;
  #dirty = false;
  #writing: Promise<void> = Promise.resolve();
  #ending: Promise<void> | undefined;

  constructor(pod: Pod, options: PodOptions) {
    this.#pod = pod;
    this.#options = options;
    this.#conditions = pod.status?.conditions ?? [];
    const { spec } = pod;
    const inits = spec.initContainers ?? [];
    this.#init = inits.map((container) => this.#runner(container, true, 'PodInitializing'));
    const reason = inits.length === 0 ? 'ContainerCreating' : 'PodInitializing';
    this.#containers = spec.containers.map((container) => this.#runner(container, false, reason));
    this.#life = this.#live();
  }

  get namespace(): string {
    return this.#pod.metadata.namespace;
  }

  get name(): string {
    return this.#pod.metadata.name;
  }

  get uid(): string {
    return this.#pod.metadata.uid;
  }

  get ip(): string {
    return this.#options.address.podIP;
  }

  folder(mountPath: string, container = 'discovery'): string {
    const spec = [...this.#pod.spec.containers, ...(this.#pod.spec.initContainers ?? [])].find(
      ({ name }) => name === container,
    );
    if (spec === undefined || this.#sandbox === undefined)
      throw new Error(`${this.name} has no container ${container} yet`);
    const folder = mountsOf(this.#sandbox, spec).get(mountPath);
    if (folder === undefined) throw new Error(`container ${container} of ${this.name} mounts nothing at ${mountPath}`);
    return folder;
  }

  kill(container: string, signal: NodeJS.Signals = 'SIGKILL'): void {
    const runner = this.container(container);
    if (runner === undefined) throw new Error(`${this.name} has no container ${container}`);
    runner.kill(signal);
  }

  log(container: string, previous = false): string {
    return this.container(container)?.log(previous) ?? '';
  }

  container(name: string): ContainerRunner | undefined {
    return [...this.#init, ...this.#containers].find((runner) => runner.name === name);
  }

  /** Applies a newer version of the object; executes a deletion. */
  update(pod: Pod): void {
    this.#pod = pod;
    if (pod.metadata.deletionTimestamp === undefined || this.#ending !== undefined) return;
    this.#ending = this.#remove();
  }

  /** Ends its processes and removes its files, but not its object. */
  async abandon(): Promise<void> {
    this.#ended = true;
    await Promise.all([...this.#init, ...this.#containers].map((runner) => runner.stop()));
    await this.#life;
    await this.#writing;
    if (process.env['KEEP_STACK'] !== '1') rmSync(this.#options.dir, { recursive: true, force: true, maxRetries: 3 });
  }

  /** Settles when a deletion in progress is finished. @param giveUp aborts the wait for an API server that does not answer */
  async settled(giveUp = false): Promise<void> {
    this.#givenUp ||= giveUp;
    await this.#ending;
  }

  #runner(spec: Container, init: boolean, waitingReason: string): ContainerRunner {
    const { dir, runtime, backOffMs, probeMs } = this.#options;
    const { namespace, name, uid } = this.#pod.metadata;
    const get = spec.readinessProbe?.httpGet;
    const url = `http://${this.ip}:${get?.port ?? 0}${get?.path ?? '/'}`;
    const timeoutMs = (spec.readinessProbe?.timeoutSeconds ?? 1) * 1000;
    return new ContainerRunner(
      {
        spec,
        init,
        podLabel: `${name}_${namespace}(${uid})`,
        dir: join(dir, 'logs', spec.name),
        backOffMs,
        probeMs,
        // no answer counts as not ready
        ...(get === undefined
          ? {}
          : {
              probe: () =>
                call(url, { timeoutMs }).then(
                  ({ status }) => status >= 200 && status < 400,
                  () => false,
                ),
            }),
        start: (logPath) => {
          if (this.#sandbox === undefined) throw new Error(`${name} has no volumes yet`);
          return startContainer(runtime, this.#sandbox, spec, logPath);
        },
        changed: () => this.#changed(),
      },
      waitingReason,
    );
  }

  async #live(): Promise<void> {
    this.#changed();
    const { kube, address, dir, say } = this.#options;
    let told = '';
    while (!this.#ended && this.#sandbox === undefined) {
      try {
        const volumes = await mountVolumes(kube, this.#pod, address, join(dir, 'volumes'));
        this.#sandbox = { pod: this.#pod, address, dir, volumes };
      } catch (error) {
        const line = `${podKey(this.#pod)}: FailedMount: ${error instanceof Error ? error.message : String(error)}`;
        if (line !== told) say(line);
        told = line;
        await pause(this.#options.backOffMs);
      }
    }
    for (const runner of this.#init) {
      if (this.#ended) return;
      await runner.run();
    }
    if (this.#ended) return;
    await Promise.all(this.#containers.map((runner) => runner.run()));
  }

  async #remove(): Promise<void> {
    await this.abandon();
    const { kube, say } = this.#options;
    const path = `/api/v1/namespaces/${this.namespace}/pods/${this.name}`;
    for (;;) {
      try {
        const body = { gracePeriodSeconds: 0, preconditions: { uid: this.uid } };
        const { status } = await kube.request('DELETE', path, body);
        // deleted, or replaced by another Pod with the same name
        if (status === 200 || status === 404 || status === 409) return;
        say(`${podKey(this.#pod)}: delete: HTTP ${status}`);
      } catch (error) {
        say(`${podKey(this.#pod)}: delete: ${error instanceof Error ? error.message : String(error)}`);
      }
      if (this.#givenUp) return;
      await pause(200);
    }
  }

  /** Schedules a write of the status. Changes during a write result in one further write. */
  #changed(): void {
    if (this.#dirty) return;
    this.#dirty = true;
    this.#writing = this.#writing.then(() => this.#write());
  }

  async #write(): Promise<void> {
    const { kube, address, say } = this.#options;
    const path = `/api/v1/namespaces/${this.namespace}/pods/${this.name}/status`;
    for (;;) {
      this.#dirty = false;
      const state = {
        init: this.#init.map((runner) => runner.status()),
        containers: this.#containers.map((runner) => runner.status()),
        sandboxReady: this.#sandbox !== undefined,
        startTime: this.#startTime,
      };
      const status = podStatus(this.#pod, address, state, this.#conditions, now());
      this.#conditions = status.conditions;
      try {
        const answer = await kube.request('PATCH', path, { metadata: { uid: this.uid }, status });
        if (answer.status === 200 || answer.status === 404) return;
        say(`${podKey(this.#pod)}: status: HTTP ${answer.status}: ${JSON.stringify(answer.body)}`);
      } catch (error) {
        say(`${podKey(this.#pod)}: status: ${error instanceof Error ? error.message : String(error)}`);
      }
      if (this.#ended) return;
      await pause(200);
    }
  }
}
