/**
 * Logged-in clients: one login for a token's life, renewed before its end, revoked when nobody needs it. A session is
 * keyed by everything that decides which server is spoken to and as whom, so that no token meets another server.
 */
import { createHash } from 'node:crypto';
import { z } from 'zod';
import type { Logger } from '../observability/logger.ts';
import { Secret } from '../observability/secret.ts';
import type { Clock } from '../runtime/clock.ts';
import { assertServing, VaultClient, type VaultClientOptions } from './client.ts';
import { VaultError } from './errors.ts';

/** How to log in: by a service account's token, or with a token somebody gave. */
export type Login =
  | { method: 'serviceAccount'; mount: string; role: string; identity: string; requestJwt: () => Promise<Secret> }
  | { method: 'token'; token: Secret };

export interface SessionRequest {
  /** The resource that uses it, `namespace/name`. */
  user: string;
  connection: VaultClientOptions;
  login: Login;
}

interface Session {
  key: string;
  client: VaultClient;
  /** When the token ends, ms since the epoch; undefined: never. */
  endsAt: number | undefined;
  /** Within this time of its end a token is not used any more, ms. */
  marginMs: number;
  /** A token that was given is not ours to revoke. */
  owned: boolean;
  /** Its renewal, or once it is replaced, its end. */
  timer: { cancel(): void } | undefined;
}

export interface SessionsOptions {
  clock: Clock;
  logger: Logger;
  onLogin: () => void;
}

/** How long a refusal must stand before it causes another login, or another look at a given token. */
const reloginIntervalMs = 5 * 60_000;
/** Longer than a reconcile takes. */
const retirementMs = 60_000;
const authSchema = z.object({ client_token: z.string(), lease_duration: z.number(), renewable: z.boolean() });
const lookupSchema = z.object({ ttl: z.number(), renewable: z.boolean().default(false) });

function keyOf({ connection, login }: SessionRequest): string {
  const { address, namespace, tls } = connection;
  const who = login.method === 'token' ? ['token', login.token.reveal()] : [login.mount, login.role, login.identity];
  return createHash('sha256')
    .update(JSON.stringify([address, namespace, tls, who]))
    .digest('hex');
}

/** Two thirds of a token's life, in milliseconds. */
const untilRenewal = (ttlSeconds: number): number => (ttlSeconds * 1000 * 2) / 3;

export class Sessions {
  readonly #options: SessionsOptions;
  readonly #sessions = new Map<string, Session>();
  /** Those that a refusal has replaced, and that others may still use. */
  readonly #retired = new Set<Session>();
  /** Who uses a session, or waits for its login, by session key. */
  readonly #users = new Map<string, Set<string>>();
  #closed = false;
  /** When a refusal last dropped a session, by session key. */
  readonly #refusedAt = new Map<string, number>();
  readonly #pending = new Map<string, Promise<Session>>();

  constructor(options: SessionsOptions) {
    this.#options = options;
  }

  /**
   * A client that is logged in; several resources with the same identity share one.
   * @throws VaultError of the login; whatever `requestJwt` throws
   */
  async open(request: SessionRequest): Promise<VaultClient> {
    const key = keyOf(request);
    this.#leave(request.user, key);
    const users = this.#users.get(key) ?? new Set();
    this.#users.set(key, users.add(request.user));
    const current = this.#sessions.get(key);
    if (current && (current.endsAt === undefined || current.endsAt > this.#options.clock.now() + current.marginMs))
      return current.client;
    let pending = this.#pending.get(key);
    if (!pending) {
      pending = this.#login(key, request).finally(() => this.#pending.delete(key));
      this.#pending.set(key, pending);
    }
    return (await pending).client;
  }

  /**
   * After a refusal: drops the session, so that the next call logs in anew, or has a token that was given looked at anew; at most once in
   * five minutes.
   * @param what `token`: nothing is allowed, so the token may be worth nothing any more. `rights`: some are missing; another login may bring
   *   them, another look at a given token brings none
   * @returns whether it was dropped: then another try at once is worth it
   */
  dropRefusedSession(user: string, what: 'token' | 'rights'): boolean {
    const now = this.#options.clock.now();
    let dropped = false;
    for (const session of this.#sessions.values()) {
      if (this.#users.get(session.key)?.has(user) !== true || (what === 'rights' && !session.owned)) continue;
      if (now - (this.#refusedAt.get(session.key) ?? -Infinity) < reloginIntervalMs) continue;
      this.#refusedAt.set(session.key, now);
      this.#retire(session);
      dropped = true;
    }
    return dropped;
  }

  /** Out of use; others that share it may be in the middle of something, and get time to end it. */
  #retire(session: Session): void {
    if ((this.#users.get(session.key)?.size ?? 0) < 2) {
      void this.#end(session, true);
      return;
    }
    session.timer?.cancel();
    session.timer = this.#options.clock.setTimeout(() => void this.#end(session, true), retirementMs);
    this.#sessions.delete(session.key);
    this.#retired.add(session);
  }

  /** The resource is gone: its session ends when no other uses it. */
  release(user: string): void {
    this.#leave(user, undefined);
  }

  /** Revokes every token that was logged in for. */
  async close(): Promise<void> {
    this.#closed = true;
    await Promise.allSettled(this.#pending.values());
    const all = [...this.#sessions.values(), ...this.#retired];
    await Promise.all(all.map((session) => this.#end(session, true)));
  }

  #leave(user: string, exceptKey: string | undefined): void {
    for (const [key, users] of this.#users) {
      if (key === exceptKey || !users.delete(user) || users.size > 0) continue;
      this.#users.delete(key);
      const unused = [...this.#sessions.values(), ...this.#retired].filter((session) => session.key === key);
      for (const session of unused) void this.#end(session, true);
    }
  }

  async #login(key: string, request: SessionRequest): Promise<Session> {
    const stale = this.#sessions.get(key);
    const client = new VaultClient(request.connection);
    try {
      // tells Vault from something else before a token is sent; while it cannot serve, none is asked for
      assertServing(await client.health(), request.connection.address);
      const { login } = request;
      const token =
        login.method === 'token' ? await this.#given(client, login.token) : await this.#byServiceAccount(client, login);
      const session: Session = {
        key,
        client,
        owned: login.method !== 'token',
        timer: undefined,
        marginMs: Math.min(5_000, token.ttlSeconds * 100),
        endsAt: token.ttlSeconds === 0 ? undefined : this.#options.clock.now() + token.ttlSeconds * 1000,
      };
      if (stale) await this.#end(stale, false);
      if (this.#closed || !this.#users.has(key)) {
        await this.#end(session, true);
        throw new VaultError('Unreachable', 'login', 'auth', 0, 'nobody waits for this login any more');
      }
      this.#sessions.set(key, session);
      if (token.renewable) this.#scheduleRenewal(session, untilRenewal(token.ttlSeconds));
      return session;
    } catch (error) {
      client.close();
      throw error;
    }
  }

  async #byServiceAccount(client: VaultClient, login: Login & { method: 'serviceAccount' }) {
    const jwt = await login.requestJwt();
    this.#options.onLogin();
    const reply = await client.call('POST', `auth/${login.mount}/login`, { role: login.role, jwt: jwt.reveal() });
    const auth = authSchema.parse(reply.auth);
    client.useToken(new Secret(auth.client_token));
    return { ttlSeconds: auth.lease_duration, renewable: auth.renewable };
  }

  async #given(client: VaultClient, token: Secret) {
    client.useToken(token);
    const found = lookupSchema.parse((await client.read('auth/token/lookup-self')) ?? {});
    return { ttlSeconds: found.ttl, renewable: found.renewable };
  }

  /** @param delayMs from now */
  #scheduleRenewal(session: Session, delayMs: number): void {
    const { clock, logger } = this.#options;
    session.timer = clock.setTimeout(() => {
      this.#renew(session).catch((error: unknown) => {
        const left = (session.endsAt ?? 0) - clock.now();
        logger.warn('Vault token was not renewed', { err: error, secondsLeft: Math.round(left / 1000) });
        // a token that was given cannot be logged in for anew: it is tried until its end
        if (this.#sessions.get(session.key) === session && left > 1_000)
          this.#scheduleRenewal(session, Math.max(1_000, left / 4));
      });
    }, delayMs);
  }

  async #renew(session: Session): Promise<void> {
    const reply = await session.client.write('auth/token/renew-self', {});
    const auth = authSchema.parse(reply.auth);
    if (this.#sessions.get(session.key) !== session) return; // ended meanwhile
    const now = this.#options.clock.now();
    // near its maximum life a token is renewed by less and less: then it runs out, and a login follows
    const remaining = session.endsAt === undefined ? 0 : session.endsAt - now;
    session.endsAt = now + auth.lease_duration * 1000;
    if (auth.lease_duration * 1000 > remaining * 1.1) this.#scheduleRenewal(session, untilRenewal(auth.lease_duration));
  }

  async #end(session: Session, revoke: boolean): Promise<void> {
    session.timer?.cancel();
    this.#retired.delete(session);
    if (this.#sessions.get(session.key) === session) this.#sessions.delete(session.key);
    try {
      if (revoke && session.owned) await session.client.write('auth/token/revoke-self', {});
    } catch (error) {
      const known = error instanceof VaultError;
      this.#options.logger.warn('Vault token was not revoked; it runs out by itself', known ? { err: error } : {});
    } finally {
      session.client.close();
    }
  }
}
