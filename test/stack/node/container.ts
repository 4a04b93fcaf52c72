/** A container of the stand-in for the kubelet: its process, which is restarted whenever it ends, and the state in the status of the Pod. */
import { randomBytes } from 'node:crypto';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as timer } from 'node:timers/promises';
import { readLog, type ManagedProcess } from '../processes.ts';
import type { Container } from './objects.ts';
import { CannotStart } from './runtime.ts';

interface Terminated {
  readonly exitCode: number;
  readonly reason: 'Completed' | 'Error';
  readonly startedAt: string;
  readonly finishedAt: string;
  readonly containerID: string;
}

type State =
  | { readonly waiting: { readonly reason: string; readonly message?: string } }
  | { readonly running: { readonly startedAt: string } }
  | { readonly terminated: Terminated };

/** An entry of `containerStatuses` or `initContainerStatuses`. */
export interface ContainerStatus {
  readonly name: string;
  readonly image: string;
  readonly imageID: string;
  readonly containerID?: string;
  readonly state: State;
  readonly lastState: { readonly terminated?: Terminated };
  readonly ready: boolean;
  readonly started: boolean;
  readonly restartCount: number;
}

export interface ContainerOptions {
  readonly spec: Container;
  /** An init container, which is finished after exit code 0. */
  readonly init: boolean;
  /** The Pod's name in messages: `name_namespace(uid)`. */
  readonly podLabel: string;
  /** Folder for its logs, one file per instance. */
  readonly dir: string;
  /** The first back-off, milliseconds; it doubles up to a factor of 32, like the kubelet's from 10 seconds to 5 minutes. */
  readonly backOffMs: number;
  readonly start: (logPath: string) => Promise<ManagedProcess>;
  /** The readiness probe; default: ready as soon as it runs. */
  readonly probe?: () => Promise<boolean>;
  readonly probeMs: number;
  readonly changed: () => void;
}

const now = (): string => new Date().toISOString().replace(/\.\d+Z$/, 'Z');

/** The exit code for a signal, as shells and containerd report it. */
const signalCodes: Readonly<Record<string, number>> = {
  SIGHUP: 129,
  SIGINT: 130,
  SIGABRT: 134,
  SIGKILL: 137,
  SIGTERM: 143,
};
const exitCodeOf = (end: number | string): number => (typeof end === 'number' ? end : (signalCodes[end] ?? 128));

export class ContainerRunner {
  readonly #options: ContainerOptions;
  readonly #stopping = new AbortController();
  #state: State;
  #last: Terminated | undefined;
  #process: ManagedProcess | undefined;
  #id: string | undefined;
  #restarts = 0;
  #ready = false;

  constructor(options: ContainerOptions, waitingReason: string) {
    this.#options = options;
    this.#state = { waiting: { reason: waitingReason } };
    mkdirSync(options.dir, { recursive: true, mode: 0o700 });
  }

  get name(): string {
    return this.#options.spec.name;
  }

  #isStopped(): boolean {
    return this.#stopping.signal.aborted;
  }

  /** True for an init container that has ended with exit code 0, and for any other container that is ready. */
  get done(): boolean {
    const { state, ready } = this.status();
    return this.#options.init ? 'terminated' in state && state.terminated.exitCode === 0 : ready;
  }

  status(): ContainerStatus {
    const { spec, init } = this.#options;
    const image = spec.image ?? '';
    const ended = 'terminated' in this.#state && this.#state.terminated.exitCode === 0;
    return {
      name: spec.name,
      image,
      imageID: this.#id === undefined ? '' : image,
      ...(this.#id === undefined ? {} : { containerID: this.#id }),
      state: this.#state,
      lastState: this.#last === undefined ? {} : { terminated: this.#last },
      ready: init ? ended : this.#ready,
      started: 'running' in this.#state,
      restartCount: this.#restarts,
    };
  }

  /** The output of the running or last instance; with `previous`, of the instance before it. */
  log(previous = false): string | undefined {
    const instance = this.#restarts - (previous ? 1 : 0);
    return instance < 0 || this.#id === undefined ? undefined : readLog(this.#logPath(instance));
  }

  /** Sends a signal to all processes of the running instance. @throws if none runs */
  kill(signal: NodeJS.Signals): void {
    if (this.#process === undefined || this.#process.ended() !== undefined)
      throw new Error(`container ${this.name} of ${this.#options.podLabel} does not run`);
    process.kill(-this.#process.pid, signal);
  }

  /** Runs the container until it is stopped; an init container until it has ended with exit code 0. */
  async run(): Promise<void> {
    let failures = 0;
    let instance = 0;
    while (!this.#isStopped()) {
      const started = Date.now();
      const ended = await this.#runOnce(instance);
      if (ended === undefined || this.#isStopped()) continue;
      instance++;
      if (this.#options.init && ended.exitCode === 0) return;
      const { backOffMs, podLabel } = this.#options;
      // the kubelet resets the back-off after ten minutes, which is sixty times its first back-off
      failures = Date.now() - started > 60 * backOffMs ? 1 : failures + 1;
      this.#last = ended;
      // the first restart has no delay
      if (failures === 1) continue;
      const wait = backOffMs * Math.min(32, 2 ** (failures - 2));
      const message = `back-off ${wait / 1000}s restarting failed container=${this.name} pod=${podLabel}`;
      this.#set({ waiting: { reason: 'CrashLoopBackOff', message } });
      await this.#pause(wait);
    }
  }

  /** Stops the container permanently. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#process?.stop();
  }

  #logPath(instance: number): string {
    return join(this.#options.dir, `${instance}.log`);
  }

  #set(state: State): void {
    this.#state = state;
    if (!('running' in state)) this.#ready = false;
    this.#options.changed();
  }

  async #pause(ms: number): Promise<void> {
    const { signal } = this.#stopping;
    await timer(ms, undefined, { signal }).catch((error: unknown) => {
      if (!signal.aborted) throw error;
    });
  }

  /** @returns undefined if it did not start */
  async #runOnce(instance: number): Promise<Terminated | undefined> {
    let child: ManagedProcess;
    try {
      child = await this.#options.start(this.#logPath(instance));
    } catch (error) {
      const reason = error instanceof CannotStart ? error.reason : 'CreateContainerError';
      const message = error instanceof Error ? error.message : String(error);
      this.#set({ waiting: { reason, message } });
      await this.#pause(this.#options.backOffMs);
      return undefined;
    }
    this.#process = child;
    this.#restarts = instance;
    this.#id = `process://${randomBytes(16).toString('hex')}`;
    const startedAt = now();
    this.#ready = this.#options.probe === undefined && !this.#options.init;
    this.#set({ running: { startedAt } });
    // it was stopped during its start
    if (this.#isStopped()) await child.stop();
    const probing = this.#watchReadiness(child);
    const exitCode = exitCodeOf(await child.exited);
    const terminated: Terminated = {
      exitCode,
      reason: exitCode === 0 ? 'Completed' : 'Error',
      startedAt,
      finishedAt: now(),
      containerID: this.#id,
    };
    this.#set({ terminated });
    await probing;
    return terminated;
  }

  /** Probes until the instance has ended. */
  async #watchReadiness(child: ManagedProcess): Promise<void> {
    const { probe, probeMs, spec } = this.#options;
    if (probe === undefined) return;
    let failures = 0;
    while (child.ended() === undefined) {
      const answers = await probe();
      if (child.ended() !== undefined) return;
      failures = answers ? 0 : failures + 1;
      const ready = answers || (this.#ready && failures < (spec.readinessProbe?.failureThreshold ?? 3));
      if (ready !== this.#ready) {
        this.#ready = ready;
        this.#options.changed();
      }
      await Promise.race([this.#pause(probeMs), child.exited]);
    }
  }
}
