/**
 * The one request of a run that fails. Both proxies consult the point about each request of the run. It counts the requests and decides which
 * one fails and how. For a kill, it lets no request of the run pass until the operator is dead.
 */
import type { Socket } from 'node:net';

/** The effect on the one request. */
export type Fault =
  /** The connection is closed before the request is passed on. */
  | 'dropped'
  /** The server executes the request, and the connection is closed instead of an answer. */
  | 'answer lost'
  /** The server executes the request, and the answer is cut in the middle. */
  | 'reset'
  /** The request is passed on after a pause shorter than any timeout. */
  | 'delayed'
  /** The connection is closed at once, and the server executes the request when everything else has settled, as if the network had held it. */
  | 'late'
  /** The request is held until the caller gives up, and the server executes it then. */
  | 'timed out'
  /** The proxy answers, without the server. */
  | 429
  | 500
  | 503
  /** The caller's process is killed before the request is passed on, or after the server executed it. */
  | 'killed before'
  | 'killed after';

export const isKill = (fault: Fault | undefined): boolean => fault === 'killed before' || fault === 'killed after';

/**
 * Faults that equal another one if the request changes nothing: a lost answer and a late execution then equal a dropped request, and a kill
 * before the request equals a kill after it.
 */
export const differsOnlyWhereSomethingChanges = (fault: Fault): boolean =>
  fault === 'answer lost' || fault === 'late' || fault === 'killed before';

/** Returns whether a request can change something, even if only a token. */
export const mayChange = ({ method }: Counted): boolean => !/^(GET|LIST|HEAD)$/.test(method);

/** The server of the operator that a request goes to. */
export type Side = 'Vault' | 'Kubernetes';

export interface Counted {
  method: string;
  path: string;
}

interface FaultPlan {
  /** The number of the counted request, from 1. */
  at: number;
  fault: Fault;
}

/** Writes to Vault as the project counts them: no logins, no token calls, no capability queries. */
export const isVaultWrite = ({ method, path }: Counted): boolean =>
  /^(POST|PUT|PATCH|DELETE)$/.test(method) &&
  !/^\/v1\/(auth\/[^/]+\/login|auth\/token\/.*|sys\/capabilities-self)$/.test(path);

/** Writes to Kubernetes as the project counts them: no TokenRequests. */
export const isKubernetesWrite = ({ method, path }: Counted): boolean =>
  /^(POST|PUT|PATCH|DELETE)$/.test(method) && !path.endsWith('/token');

export class FaultPoint {
  #side: Side = 'Vault';
  #counts: (request: Counted) => boolean = () => false;
  #plan: FaultPlan | undefined;
  #counted: Counted[] = [];
  #injectedAt: number | undefined;
  #logins = 0;
  #held: Set<Socket> | undefined;
  #frozen = Promise.withResolvers<undefined>();
  #settled = Promise.withResolvers<undefined>();
  readonly #late = new Set<Promise<unknown>>();

  /** Restarts the count; without a plan nothing fails. */
  arm(side: Side, counts: (request: Counted) => boolean, plan?: FaultPlan): void {
    [this.#side, this.#counts, this.#plan] = [side, counts, plan];
    [this.#counted, this.#injectedAt, this.#logins] = [[], undefined, 0];
    this.#frozen = Promise.withResolvers();
    this.#settled = Promise.withResolvers();
  }

  /** Ends the run: nothing fails any more, also if the operator still reconciles. */
  disarm(): void {
    this.#plan = undefined;
  }

  /** Requests counted since `arm`. */
  get counted(): readonly Counted[] {
    return this.#counted;
  }

  /** Logins seen since `arm`. */
  get logins(): number {
    return this.#logins;
  }

  /** The time of the fault, milliseconds since the epoch; undefined: it has not occurred yet. */
  get injectedAt(): number | undefined {
    return this.#injectedAt;
  }

  /** Resolves when the run has reached the point where the operator is to be killed. */
  get frozen(): Promise<undefined> {
    return this.#frozen.promise;
  }

  /** Whether no request of this run passes, as if the operator were dead. */
  get isFrozen(): boolean {
    return this.#held !== undefined;
  }

  /** Records a request that is about to be passed on. @returns the fault to apply to it */
  next(side: Side, request: Counted): Fault | undefined {
    if (side === 'Vault' && /^\/v1\/auth\/[^/]+\/login$/.test(request.path)) this.#logins += 1;
    if (side !== this.#side || !this.#counts(request)) return undefined;
    this.#counted.push(request);
    if (this.#injectedAt !== undefined || this.#plan?.at !== this.#counted.length) return undefined;
    this.#injectedAt = Date.now();
    return this.#plan.fault;
  }

  /** Lets no request pass from now on. */
  freeze(): void {
    this.#held ??= new Set();
    this.#frozen.resolve(undefined);
  }

  /** Keeps a connection open without an answer, until `thaw`. */
  hold(socket: Socket): void {
    this.#held?.add(socket);
  }

  /** Called when the operator is dead: closes its connections, and lets those of the next operator pass. */
  thaw(): void {
    for (const socket of this.#held ?? []) socket.destroy();
    this.#held = undefined;
  }

  /** Schedules an action for the time when everything else has settled. */
  later(action: () => Promise<unknown>): void {
    const done = this.#settled.promise.then(action).catch(() => undefined);
    this.track(done);
  }

  /** Registers a promise that the end of the run waits for. */
  track(done: Promise<unknown>): void {
    this.#late.add(done);
    void done.finally(() => this.#late.delete(done));
  }

  /** Called when everything else has settled: executes the late actions. Resolves when they are finished, with whether there were any. */
  async release(): Promise<boolean> {
    const any = this.#late.size > 0;
    this.#settled.resolve(undefined);
    await Promise.all(this.#late);
    return any;
  }
}
