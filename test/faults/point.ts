/**
 * The one place of a run where something fails. Both proxies ask it about each request of the run: it counts, says which
 * request fails and how, and, for a kill, lets nothing of the run pass any more until the operator is dead.
 */
import type { Socket } from 'node:net';

/** What happens to the one request. */
export type Fault =
  /** The connection is closed before the request is passed on. */
  | 'dropped'
  /** The request is carried out, and the connection closed instead of an answer. */
  | 'answer lost'
  /** The request is carried out, and the answer cut in its middle. */
  | 'reset'
  /** The request is passed on after a pause shorter than any timeout. */
  | 'delayed'
  /** The connection is closed at once, and the request carried out when all else has settled: stuck somewhere on its way. */
  | 'late'
  /** The request is held until the caller gives it up, and carried out then. */
  | 'timed out'
  /** Answered by the proxy, without the server. */
  | 429
  | 500
  | 503
  /** The caller's process is killed before the request is passed on, or after it was carried out. */
  | 'killed before'
  | 'killed after';

export const isKill = (fault: Fault | undefined): boolean => fault === 'killed before' || fault === 'killed after';

/**
 * Faults that nobody can tell from another one when the request changes nothing: an answer lost and a request carried out late are then
 * a dropped one, and killed before is killed after.
 */
export const differsOnlyWhereSomethingChanges = (fault: Fault): boolean =>
  fault === 'answer lost' || fault === 'late' || fault === 'killed before';

/** Whether a request may change something, be it only a token. */
export const mayChange = ({ method }: Counted): boolean => !/^(GET|LIST|HEAD)$/.test(method);

/** Which of the operator's servers a request goes to. */
export type Side = 'Vault' | 'Kubernetes';

export interface Counted {
  method: string;
  path: string;
}

interface FaultPlan {
  /** Which of the counted requests, from 1. */
  at: number;
  fault: Fault;
}

/** Writes of Vault as the project counts them: no logins, no token calls, no questions about capabilities. */
export const isVaultWrite = ({ method, path }: Counted): boolean =>
  /^(POST|PUT|PATCH|DELETE)$/.test(method) &&
  !/^\/v1\/(auth\/[^/]+\/login|auth\/token\/.*|sys\/capabilities-self)$/.test(path);

/** Writes of Kubernetes as the project counts them: no TokenRequests. */
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

  /** Counts anew from here on; without a plan nothing fails. */
  arm(side: Side, counts: (request: Counted) => boolean, plan?: FaultPlan): void {
    [this.#side, this.#counts, this.#plan] = [side, counts, plan];
    [this.#counted, this.#injectedAt, this.#logins] = [[], undefined, 0];
    this.#frozen = Promise.withResolvers();
    this.#settled = Promise.withResolvers();
  }

  /** The run is over: nothing fails any more, be it that the operator still looks. */
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

  /** When the fault happened, milliseconds since the epoch; undefined: not yet. */
  get injectedAt(): number | undefined {
    return this.#injectedAt;
  }

  /** Resolves when the run has come to the place where the operator is to be killed. */
  get frozen(): Promise<undefined> {
    return this.#frozen.promise;
  }

  /** Whether nothing of this run passes: the operator is as good as dead. */
  get isFrozen(): boolean {
    return this.#held !== undefined;
  }

  /** Notes a request that is about to be passed on. @returns what is to happen to it */
  next(side: Side, request: Counted): Fault | undefined {
    if (side === 'Vault' && /^\/v1\/auth\/[^/]+\/login$/.test(request.path)) this.#logins += 1;
    if (side !== this.#side || !this.#counts(request)) return undefined;
    this.#counted.push(request);
    if (this.#injectedAt !== undefined || this.#plan?.at !== this.#counted.length) return undefined;
    this.#injectedAt = Date.now();
    return this.#plan.fault;
  }

  /** From now on nothing passes. */
  freeze(): void {
    this.#held ??= new Set();
    this.#frozen.resolve(undefined);
  }

  /** Keeps a connection open without an answer, until `thaw`. */
  hold(socket: Socket): void {
    this.#held?.add(socket);
  }

  /** The operator is dead: its connections are closed, and those of the next one pass. */
  thaw(): void {
    for (const socket of this.#held ?? []) socket.destroy();
    this.#held = undefined;
  }

  /** Carries something out when all else has settled. */
  later(action: () => Promise<unknown>): void {
    const done = this.#settled.promise.then(action).catch(() => undefined);
    this.track(done);
  }

  /** Remembers something that the run's end waits for. */
  track(done: Promise<unknown>): void {
    this.#late.add(done);
    void done.finally(() => this.#late.delete(done));
  }

  /** Everything else has settled: what is late happens now. Resolves when it has; gives whether there was anything. */
  async release(): Promise<boolean> {
    const any = this.#late.size > 0;
    this.#settled.resolve(undefined);
    await Promise.all(this.#late);
    return any;
  }
}
