/**
 * Sessions: logged-in Vault clients. A session logs in once for the lifetime of a token, renews the token before it expires, and revokes it
 * when no resource uses it. The session key covers server, TLS settings, Vault namespace and identity, so that a token is sent to its own
 * server only.
 */
import { createHash } from 'node:crypto';
import { z } from 'zod';
import type { JsonObject } from '../api/json.ts';
import type { Logger } from '../observability/logger.ts';
import { Secret } from '../observability/secret.ts';
import { sleep, type Clock } from '../runtime/clock.ts';
import { abortable } from '../runtime/deadline.ts';
import type { Proxy, ProxyFor } from '../runtime/proxy.ts';
import { assertServing, VaultClient, type VaultClientOptions } from './client.ts';
import { errorOfTransport, isRefusal, VaultError } from './errors.ts';
import { SecretIds, type AppRoleLogin } from './secret-ids.ts';
import { aborted } from './transport.ts';

/** The login: with the token of a Kubernetes service account, with an AppRole, or with a given Vault token. */
export type Login =
  | AppRoleLogin
  | { method: 'serviceAccount'; mount: string; role: string; identity: string; requestJwt: () => Promise<Secret> }
  | { method: 'token'; token: Secret };

export interface SessionRequest {
  /** The resource that uses the session, as `namespace/name`. */
  user: string;
  connection: VaultClientOptions;
  login: Login;
}

interface Session {
  key: string;
  client: VaultClient;
  /** When the token expires, in milliseconds since the epoch; undefined: never. */
  expiresAt: number | undefined;
  /** A token that expires within this time is not used any more; in milliseconds. */
  marginMs: number;
  /** Whether the session created the token by a login. It never revokes a given token. */
  owned: boolean;
  /** The timer of the next renewal; of a replaced session, the timer of its end. */
  timer: { cancel(): void } | undefined;
}

export interface SessionsOptions {
  clock: Clock;
  logger: Logger;
  /** Called before each login request. */
  onLogin: () => void;
  /** How long other resources can use a dropped session, in milliseconds: at least as long as a reconcile takes. */
  retirementMs: number;
  /** The proxy for the address of a server. */
  proxyFor: ProxyFor;
  /** Whether wrapping tokens are unwrapped, which only one process can do. */
  unwraps: boolean;
}

/** A refused AppRole login. */
interface Refusal {
  error: VaultError;
  /** When the login may be repeated, in milliseconds since the epoch. */
  untilMs: number;
  /** What each resource asked for an attempt with when it last met the refusal, by `namespace/name`. */
  readonly attempts: Map<string, string>;
}

/** The shortest time between two drops of a session because of denied requests, in milliseconds. */
const reloginIntervalMs = 5 * 60_000;
/**
 * The shortest time between two AppRole logins with the same refused secret ID, in milliseconds. Vault and OpenBao lock a role ID for 15 minutes
 * after five refused logins with less than 15 minutes between them, also for a valid secret ID.
 * https://developer.hashicorp.com/vault/docs/concepts/user-lockout
 */
const refusedAppRoleMs = 16 * 60_000;
/** How long the end waits for logins that are in progress, and for the revocation of tokens, in milliseconds. */
const closingMs = 10_000;
const authSchema = z.object({ client_token: z.string(), lease_duration: z.number(), renewable: z.boolean() });
const lookupSchema = z.object({ ttl: z.number(), renewable: z.boolean().default(false) });

/** What tells the identity of a login from others. */
function whoOf(login: Login): string[] {
  if (login.method === 'token') return ['token', login.token.reveal()];
  if (login.method === 'appRole')
    return ['appRole', login.namespace, login.mount, login.roleId, login.secretId.reveal()];
  return [login.mount, login.role, login.identity];
}

const serverOf = ({ address, namespace }: VaultClientOptions): string => JSON.stringify([address, namespace]);

function keyOf({ connection, login }: SessionRequest): string {
  const { address, namespace, tls, tlsSources } = connection;
  const who = whoOf(login);
  return createHash('sha256')
    .update(JSON.stringify([address, namespace, tls, tlsSources, who]))
    .digest('hex');
}

/** A path that every namespace has, and that needs no token. */
const namespacedPath = 'sys/internal/ui/mounts';
/** The name of a namespace that does not exist. */
const impossibleNamespace = 'istio-vault-ca-asks-for-what-does-not-exist';

const answersWithoutToken = async (client: VaultClient): Promise<boolean> =>
  (await client.call('GET', namespacedPath, undefined, { allow: [400, 401, 403, 404, 405] })).status === 200;

/** The delay before a token is renewed, in milliseconds: two thirds of its TTL. */
const untilRenewal = (ttlSeconds: number): number => (ttlSeconds * 1000 * 2) / 3;

export class Sessions {
  readonly #options: SessionsOptions;
  readonly #sessions = new Map<string, Session>();
  /** Dropped sessions that other resources can still use. */
  readonly #retired = new Set<Session>();
  /** The resources that use a session or wait for its login, by session key. */
  readonly #users = new Map<string, Set<string>>();
  #closed = false;
  /** When a session was last dropped because of denied requests, in milliseconds since the epoch, by session key. */
  readonly #droppedAt = new Map<string, number>();
  /** Logins in progress, by session key. */
  readonly #pending = new Map<string, Promise<Session>>();

  /** Refused AppRole logins, by session key. */
  readonly #refusals = new Map<string, Refusal>();
  readonly #secretIds: SecretIds;

  constructor(options: SessionsOptions) {
    this.#options = options;
    this.#secretIds = new SecretIds(options.unwraps);
  }

  /**
   * Returns a logged-in client. Resources with the same session key share one, and wait for the same login.
   * @param signal if it aborts, the call and every request of the client fail. The login goes on, because others can wait for it too; each
   *   of its requests has a time limit of its own
   * @throws VaultError if the login fails; any error of `requestJwt`
   */
  async open(request: SessionRequest, signal: AbortSignal): Promise<VaultClient> {
    const key = keyOf(request);
    this.#leave(request.user, key);
    const users = this.#users.get(key) ?? new Set();
    this.#users.set(key, users.add(request.user));
    if (request.login.method === 'appRole')
      this.#secretIds.use(serverOf(request.connection), request.user, request.login);
    const current = this.#sessions.get(key);
    if (
      current &&
      (current.expiresAt === undefined || current.expiresAt > this.#options.clock.now() + current.marginMs)
    )
      return current.client.within(signal);
    this.#throwRefusal(key, request);
    let pending = this.#pending.get(key);
    if (!pending) {
      pending = this.#login(key, request).finally(() => this.#pending.delete(key));
      this.#pending.set(key, pending);
    }
    const session = await abortable(pending, signal).catch((error: unknown) => {
      throw signal.aborted ? errorOfTransport('login', 'auth', Object.assign(new Error(), { code: aborted })) : error;
    });
    return session.client.within(signal);
  }

  /**
   * Drops the session of a resource after denied requests, at most once in five minutes. The next `open` then logs in again, or looks up the
   * given token again.
   * @param denied `token`: every request, so the token is possibly invalid. `rights`: some requests. A login can then bring more policies;
   *   a lookup of a given token cannot, so its session is kept
   * @returns whether a session was dropped; if so, the caller can retry immediately
   */
  dropRefusedSession(user: string, denied: 'token' | 'rights'): boolean {
    const now = this.#options.clock.now();
    let dropped = false;
    for (const session of this.#sessions.values()) {
      if (this.#users.get(session.key)?.has(user) !== true || (denied === 'rights' && !session.owned)) continue;
      if (now - (this.#droppedAt.get(session.key) ?? -Infinity) < reloginIntervalMs) continue;
      this.#droppedAt.set(session.key, now);
      this.#retire(session);
      dropped = true;
    }
    return dropped;
  }

  /** Drops a session. If several resources share it, it ends after `retirementMs` of the options, so that their running reconciles can finish. */
  #retire(session: Session): void {
    if ((this.#users.get(session.key)?.size ?? 0) < 2) {
      void this.#end(session, true);
      return;
    }
    session.timer?.cancel();
    session.timer = this.#options.clock.setTimeout(() => void this.#end(session, true), this.#options.retirementMs);
    this.#sessions.delete(session.key);
    this.#retired.add(session);
  }

  /** Ends the session of a resource that makes no requests for now, unless other resources use it. */
  release(user: string): void {
    this.#leave(user, undefined);
  }

  /** The same for a deleted resource, whose unwrapped secret ID is forgotten too. */
  forget(user: string): void {
    this.release(user);
    this.#secretIds.forget(user);
  }

  /** Throws the refusal of an AppRole login that may not be repeated yet. */
  #throwRefusal(key: string, { user, login }: SessionRequest): void {
    const refusal = this.#refusals.get(key);
    if (login.method !== 'appRole' || !refusal || refusal.untilMs <= this.#options.clock.now()) return;
    const met = refusal.attempts.get(user);
    if (met !== undefined && met !== login.attempt) return;
    refusal.attempts.set(user, login.attempt);
    throw refusal.error;
  }

  /**
   * Ends all sessions and revokes their tokens, except given ones. A server that does not answer delays neither the others nor the end: after
   * ten seconds the tokens are left to run out.
   */
  async close(): Promise<void> {
    this.#closed = true;
    const all = [...this.#sessions.values(), ...this.#retired];
    const revoked = all.map((session) => this.#end(session, true));
    // a login that completes now revokes its own token
    const done = Promise.allSettled([...revoked, ...this.#pending.values()]);
    const over = new AbortController();
    await Promise.race([done, sleep(this.#options.clock, closingMs, over.signal)]);
    over.abort();
  }

  /** Removes a resource from its sessions. Sessions without users end. @param exceptKey a session that the resource keeps */
  #leave(user: string, exceptKey: string | undefined): void {
    for (const [key, users] of this.#users) {
      if (key === exceptKey || !users.delete(user) || users.size > 0) continue;
      this.#users.delete(key);
      this.#refusals.delete(key);
      const unused = [...this.#sessions.values(), ...this.#retired].filter((session) => session.key === key);
      for (const session of unused) void this.#end(session, true);
    }
  }

  async #login(key: string, request: SessionRequest): Promise<Session> {
    const stale = this.#sessions.get(key);
    const proxy = this.#options.proxyFor(request.connection.address);
    const client = new VaultClient({ ...request.connection, proxy });
    try {
      // The health check comes first: a token is sent only to a Vault server, and no token is requested while it cannot respond.
      assertServing(await client.health(), request.connection.address);
      await this.#assertNamespace(client, request.connection, proxy);
      const token = await this.#authenticate(client, key, request);
      const session: Session = {
        key,
        client,
        owned: request.login.method !== 'token',
        timer: undefined,
        marginMs: Math.min(5_000, token.ttlSeconds * 100),
        expiresAt: token.ttlSeconds === 0 ? undefined : this.#options.clock.now() + token.ttlSeconds * 1000,
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

  /**
   * Checks that the server uses the Vault namespace, before anything is sent to it. Vault's Community edition ignores the header and would use its root
   * namespace; a namespace that cannot exist shows whether the header has an effect.
   * @throws VaultError of kind `NamespaceNotFound`, `NamespaceSealed`, `NamespaceLocked`, `NamespaceUnsupported`; any other if a request fails
   */
  async #assertNamespace(client: VaultClient, connection: VaultClientOptions, proxy: Proxy | undefined): Promise<void> {
    const { address, namespace } = connection;
    if (namespace === undefined) return;
    // a server that does not answer this without a token shows nothing here; the login does then
    if (!(await answersWithoutToken(client))) return;
    const other = new VaultClient({ ...connection, namespace: `${namespace}/${impossibleNamespace}`, proxy });
    try {
      if (!(await answersWithoutToken(other))) return;
    } finally {
      other.close();
    }
    const detail = `the server at ${address} ignores namespaces, so that everything would go to its root namespace`;
    throw new VaultError('NamespaceUnsupported', 'read', namespacedPath, 200, detail);
  }

  async #authenticate(client: VaultClient, key: string, { user, connection, login }: SessionRequest) {
    switch (login.method) {
      case 'token':
        return await this.#useGivenToken(client, login.token);
      case 'serviceAccount':
        return await this.#logIn(client, login.mount, {
          role: login.role,
          jwt: (await login.requestJwt()).reveal(),
        });
      case 'appRole': {
        const secretId = await this.#secretIds.resolve(client, serverOf(connection), login);
        const credentials = { role_id: login.roleId, secret_id: secretId.reveal() };
        try {
          const token = await this.#logIn(client, login.mount, credentials);
          this.#refusals.delete(key);
          return token;
        } catch (error) {
          if (error instanceof VaultError && isRefusal(error)) {
            const untilMs = this.#options.clock.now() + refusedAppRoleMs;
            this.#refusals.set(key, { error, untilMs, attempts: new Map([[user, login.attempt]]) });
          }
          throw error;
        }
      }
    }
  }

  async #logIn(client: VaultClient, mount: string, credentials: JsonObject) {
    this.#options.onLogin();
    const reply = await client.call('POST', `auth/${mount}/login`, credentials);
    const auth = authSchema.parse(reply.auth);
    client.useToken(new Secret(auth.client_token));
    return { ttlSeconds: auth.lease_duration, renewable: auth.renewable };
  }

  async #useGivenToken(client: VaultClient, token: Secret) {
    client.useToken(token);
    const path = 'auth/token/lookup-self';
    const found = await client.read(path);
    // every namespace has this path, so without an answer there is no such namespace
    if (found === undefined) throw new VaultError('NotFound', 'read', path, 404, 'no answer');
    const { ttl, renewable } = lookupSchema.parse(found);
    return { ttlSeconds: ttl, renewable };
  }

  /** @param delayMs from now */
  #scheduleRenewal(session: Session, delayMs: number): void {
    const { clock, logger } = this.#options;
    session.timer = clock.setTimeout(() => {
      this.#renew(session).catch((error: unknown) => {
        const left = (session.expiresAt ?? 0) - clock.now();
        logger.warn('Vault token was not renewed', { err: error, secondsLeft: Math.round(left / 1000) });
        // retried until the token expires, because a given token cannot be replaced by a login
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
    // Near the maximum TTL of a token, renewals extend it less and less. It is then left to expire, and the next `open` logs in.
    const remaining = session.expiresAt === undefined ? 0 : session.expiresAt - now;
    session.expiresAt = now + auth.lease_duration * 1000;
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
