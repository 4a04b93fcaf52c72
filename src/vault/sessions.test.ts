/**
 * Tests of the sessions with a small server that imitates login, renewal and revocation of Vault. They count logins, and check their time and
 * credentials. The end-to-end tests cover the behaviour of the real servers.
 */
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, beforeEach, describe, expect, it, jest } from '@jest/globals';
import { createLogger } from '../observability/logger.ts';
import { Secret } from '../observability/secret.ts';
import { FakeClock } from '../runtime/fake-clock.ts';
import { VaultError } from './errors.ts';
import { Sessions, type SessionRequest } from './sessions.ts';

/** No reconcile of these tests runs out of time. */
const unbounded = new AbortController().signal;

const ttlSeconds = 1200;
const minute = 60_000;

/** A fake Vault server: records calls as `path token`, and has settable responses. */
class FakeVault {
  readonly calls: string[] = [];
  readonly bodies: unknown[] = [];
  logins = 0;
  lease = ttlSeconds;
  renewedLease = ttlSeconds;
  loginStatus = 200;
  renewStatus = 200;
  renewable = true;
  isVault = true;
  sealed = false;
  /** What `sys/wrapping/unwrap` returns once, by wrapping token. */
  readonly wrapped = new Map<unknown, string>();
  /** Tokens that the server rejects. */
  readonly revoked = new Set<unknown>();
  readonly #server = http.createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      const path = (request.url ?? '').replace('/v1/', '');
      this.calls.push([path, request.headers['x-vault-token']].filter((part) => part !== undefined).join(' '));
      if (chunks.length > 0) this.bodies.push(JSON.parse(Buffer.concat(chunks).toString()));
      const [status, body] = this.#answer(path, request.headers['x-vault-token']);
      response.writeHead(status).end(JSON.stringify(body));
    });
  });

  #answer(path: string, token: unknown): [number, unknown] {
    const auth = (token: string, lease_duration: number) => ({
      auth: { client_token: token, lease_duration, renewable: this.renewable },
    });
    const refused = { errors: ['permission denied'] };
    if (!this.isVault) return [200, { status: 'ok' }];
    if (path === 'sys/health')
      return [200, { initialized: true, sealed: this.sealed, standby: false, version: '2.7.2' }];
    if (this.revoked.has(token)) return [403, refused];
    if (path.endsWith('/login')) {
      if (this.loginStatus !== 200) return [this.loginStatus, refused];
      this.logins += 1;
      return [200, auth(`token-${this.logins}`, this.lease)];
    }
    if (path === 'sys/wrapping/lookup') {
      const known = this.wrapped.has((this.bodies.at(-1) as { token: unknown }).token);
      if (!known) return [400, { errors: ['wrapping token is not valid or does not exist'] }];
      return [200, { data: { creation_path: 'auth/approle/role/operator/secret-id' } }];
    }
    if (path === 'sys/wrapping/unwrap') {
      const secretId = this.wrapped.get(token);
      this.wrapped.delete(token);
      return secretId === undefined ? [400, refused] : [200, { data: { secret_id: secretId } }];
    }
    if (path === 'auth/token/renew-self') return [this.renewStatus, auth('same', this.renewedLease)];
    if (path === 'auth/token/lookup-self') return [200, { data: { ttl: this.lease, renewable: this.renewable } }];
    return [204, undefined];
  }

  async start(): Promise<this> {
    await new Promise<void>((resolve) => this.#server.listen(0, '127.0.0.1', resolve));
    return this;
  }
  stop(): void {
    this.#server.closeAllConnections();
    this.#server.close();
  }
  get address(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }
  count(call: string): number {
    return this.calls.filter((c) => c.startsWith(call)).length;
  }
}

let vault: FakeVault;
let other: FakeVault;
let clock: FakeClock;
let sessions: Sessions;
let log: string;
let loginsCounted: number;

beforeEach(async () => {
  [vault, other] = await Promise.all([new FakeVault().start(), new FakeVault().start()]);
  clock = new FakeClock();
  log = '';
  loginsCounted = 0;
  sessions = new Sessions({
    clock,
    logger: createLogger({ level: 'debug', destination: { write: (line: string) => void (log += line) } }),
    onLogin: () => (loginsCounted += 1),
    retirementMs: 60_000,
    proxyFor: () => undefined,
    unwraps: true,
  });
});
afterEach(async () => {
  await sessions.close();
  vault.stop();
  other.stop();
  expect(clock.pending).toBe(0);
  expect(log).not.toMatch(/token-\d|jwt-of/);
});

const request = (over: { user?: string; role?: string; mount?: string; identity?: string; namespace?: string; address?: string } = {}): SessionRequest => ({
  user: over.user ?? 'istio-system/istioca',
  connection: { address: over.address ?? vault.address, ...(over.namespace === undefined ? {} : { namespace: over.namespace }) },
  login: {
    method: 'serviceAccount',
    mount: over.mount ?? 'kubernetes',
    role: over.role ?? 'istio-vault-ca',
    identity: over.identity ?? 'istio-system/istio-vault-ca',
    requestJwt: () => Promise.resolve(new Secret(`jwt-of-${over.identity ?? 'default'}`)),
  },
}); // prettier-ignore
const given = (token: string, user = 'istio-system/istioca'): SessionRequest => ({
  user,
  connection: { address: vault.address },
  login: { method: 'token', token: new Secret(token) },
});

const appRole = (secretId: string, { user = 'istio-system/istioca', attempt = '', serverName = '' } = {}): SessionRequest => ({
  user,
  connection: { address: vault.address, ...(serverName === '' ? {} : { tls: { serverName } }) },
  login: { method: 'appRole', namespace: user.replace(/\/.*/, ''), mount: 'approle', roleId: 'role-1', secretId: new Secret(secretId), attempt },
}); // prettier-ignore

/** Waits for a condition that depends on the loopback server. The time limit of the test ends the wait. */
async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setImmediate(resolve));
}

describe('logging in', () => {
  it('happens once for many opens', async () => {
    const first = await sessions.open(request(), unbounded);
    for (let i = 0; i < 5; i += 1) expect(await sessions.open(request(), unbounded)).toBe(first);
    expect(vault.calls).toEqual(['sys/health', 'auth/kubernetes/login']);
    expect(vault.bodies).toEqual([{ role: 'istio-vault-ca', jwt: 'jwt-of-default' }]);
    expect(loginsCounted).toBe(1);
    await first.read('kv/x');
    expect(vault.calls.at(-1)).toBe('kv/x token-1');
  });

  it('happens once for concurrent opens, also of several resources with the same identity', async () => {
    const users = ['a/x', 'a/y', 'a/z', 'a/x'];
    const clients = await Promise.all(users.map((user) => sessions.open(request({ user }), unbounded)));
    expect(new Set(clients).size).toBe(1);
    expect(vault.logins).toBe(1);
  });

  it.each([
    ['role', { role: 'another' }],
    ['mount', { mount: 'another' }],
    ['service account', { identity: 'another/istio-vault-ca' }],
    ['Vault namespace', { namespace: 'another' }],
  ])('another %s never shares a token', async (_, over) => {
    const [a, b] = await Promise.all([
      sessions.open(request(), unbounded),
      sessions.open(request({ ...over, user: 'another/one' }), unbounded),
    ]);
    expect(a).not.toBe(b);
    expect(vault.logins).toBe(2);
  });

  it('another address never shares a token, and no token meets another server', async () => {
    const before = await sessions.open(request(), unbounded);
    const after = await sessions.open(request({ address: other.address }), unbounded);
    expect(after).not.toBe(before);
    await after.read('kv/x');
    expect(other.calls).toEqual(['sys/health', 'auth/kubernetes/login', 'kv/x token-1']);
    await until(() => vault.count('auth/token/revoke-self token-1') === 1);
  });

  it('sends no JWT to what is not Vault', async () => {
    vault.isVault = false;
    await expect(sessions.open(request(), unbounded)).rejects.toMatchObject({ kind: 'Unreachable' });
    expect([vault.calls, vault.bodies]).toEqual([['sys/health'], []]);
  });

  it('that fails is tried again by the next open', async () => {
    vault.loginStatus = 403;
    const failed = await Promise.allSettled([sessions.open(request(), unbounded), sessions.open(request(), unbounded)]);
    expect(failed.map((f) => f.status)).toEqual(['rejected', 'rejected']);
    await expect(sessions.open(request(), unbounded)).rejects.toBeInstanceOf(VaultError);
    expect(vault.count('auth/kubernetes/login')).toBe(2);
    vault.loginStatus = 200;
    await sessions.open(request(), unbounded);
    expect(vault.logins).toBe(1);
  });
});

describe('an AppRole', () => {
  const [first, second] = ['11111111-1111-1111-1111-111111111111', '22222222-2222-2222-2222-222222222222'];
  const wrapping = 's.0123456789abcdefghijklmn';
  const logins = () => vault.count('auth/approle/login');

  it('logs in once with a secret ID, and again with another one', async () => {
    for (let i = 0; i < 3; i += 1) await sessions.open(appRole(first), unbounded);
    expect(vault.calls).toEqual(['sys/health', 'auth/approle/login']);
    expect(vault.bodies).toEqual([{ role_id: 'role-1', secret_id: first }]);
    await sessions.open(appRole(second), unbounded);
    expect(vault.bodies.at(-1)).toEqual({ role_id: 'role-1', secret_id: second });
    expect([logins(), loginsCounted]).toEqual([2, 2]);
    await until(() => vault.count('auth/token/revoke-self token-1') === 1);
  });

  it('is not locked by refused logins: the same secret ID is tried again on request, or after 16 minutes', async () => {
    vault.loginStatus = 400;
    const refused = (request: SessionRequest) =>
      expect(sessions.open(request, unbounded)).rejects.toMatchObject({ kind: 'Invalid' });
    for (let i = 0; i < 30; i += 1) {
      await refused(appRole(first));
      await refused(appRole(first, { user: 'istio-system/other', attempt: 'text of its own' }));
      await clock.advance(30_000);
    }
    expect(logins()).toBe(1);
    await refused(appRole(first, { attempt: 'now' }));
    await refused(appRole(first, { attempt: 'now' }));
    expect(logins()).toBe(2);
    await refused(appRole(second));
    expect(logins()).toBe(3);
    vault.loginStatus = 200;
    await refused(appRole(second));
    await clock.advance(16 * minute);
    await sessions.open(appRole(second), unbounded);
    expect(logins()).toBe(4);
  });

  it('gets its secret ID by unwrapping a token once, for every session, until the resource is gone', async () => {
    vault.wrapped.set(wrapping, first);
    const users = ['istio-system/istioca', 'istio-system/other'];
    await Promise.all(users.map((user) => sessions.open(appRole(wrapping, { user }), unbounded)));
    await sessions.open(appRole(wrapping, { serverName: 'renewed.example' }), unbounded);
    // another namespace gets nothing for a token that was used already
    const stranger = appRole(wrapping, { user: 'elsewhere/istioca' });
    await expect(sessions.open(stranger, unbounded)).rejects.toMatchObject({ kind: 'WrappingToken' });
    for (const user of users) sessions.release(user);
    for (const user of users) await sessions.open(appRole(wrapping, { user }), unbounded);
    const unwraps = () => vault.count(`sys/wrapping/unwrap ${wrapping}`);
    expect([unwraps(), vault.count('sys/wrapping/lookup')]).toEqual([1, 2]);
    expect(vault.bodies.filter((body) => JSON.stringify(body).includes(first))).toHaveLength(3);
    sessions.forget('istio-system/istioca');
    await sessions.open(appRole(wrapping, { user: 'istio-system/other', serverName: 'kept.example' }), unbounded);
    expect(unwraps()).toBe(1);
    sessions.forget('istio-system/other');
    await expect(sessions.open(appRole(wrapping), unbounded)).rejects.toMatchObject({ kind: 'WrappingToken' });
    expect(log).not.toContain(wrapping);
  });

  it('takes a secret ID that somebody chose for what it is, and no login follows a used wrapping token', async () => {
    await sessions.open(appRole('chosen by hand'), unbounded);
    expect(vault.bodies.at(-1)).toEqual({ role_id: 'role-1', secret_id: 'chosen by hand' });
    await expect(sessions.open(appRole(wrapping), unbounded)).rejects.toMatchObject({ kind: 'WrappingToken' });
    expect(logins()).toBe(1);
  });
});

describe('a server that cannot serve', () => {
  it('is not logged in to, and no service account token is asked for', async () => {
    vault.sealed = true;
    const requestJwt = jest.fn(() => Promise.resolve(new Secret('jwt-of-default')));
    const asked: SessionRequest = {
      ...request(),
      login: { ...request().login, requestJwt } as SessionRequest['login'],
    };
    for (let i = 0; i < 3; i += 1)
      await expect(sessions.open(asked, unbounded)).rejects.toMatchObject({ kind: 'Sealed' });
    expect(requestJwt).not.toHaveBeenCalled();
    expect(loginsCounted).toBe(0);
    expect(vault.calls).toEqual(Array(3).fill('sys/health'));
    vault.sealed = false;
    await sessions.open(asked, unbounded);
    expect(loginsCounted).toBe(1);
  });
});

describe("a token's life", () => {
  it('is prolonged at two thirds of it, again and again', async () => {
    const client = await sessions.open(request(), unbounded);
    for (let renewals = 1; renewals <= 3; renewals += 1) {
      await clock.advance((ttlSeconds * 1000 * 2) / 3 - 1);
      expect(vault.count('auth/token/renew-self')).toBe(renewals - 1);
      await clock.advance(1);
      await until(() => vault.count('auth/token/renew-self token-1') === renewals && clock.pending === 1);
      expect(await sessions.open(request(), unbounded)).toBe(client);
    }
    expect(vault.logins).toBe(1);
  });

  it('that is not prolonged any more ends, and a login follows', async () => {
    vault.renewedLease = 400; // at the maximum TTL, a renewal does not extend the token
    await sessions.open(request(), unbounded);
    await clock.advance(800_000);
    await until(() => vault.count('auth/token/renew-self') === 1);
    await sessions.open(request(), unbounded);
    expect(vault.logins).toBe(1);
    await clock.advance(400_000);
    const client = await sessions.open(request(), unbounded);
    await client.read('kv/x');
    expect(vault.calls.at(-1)).toBe('kv/x token-2');
    expect(vault.count('auth/token/renew-self')).toBe(1);
  });

  it('goes on to its end when a renewal fails', async () => {
    vault.renewStatus = 503;
    const client = await sessions.open(request(), unbounded);
    await clock.advance(800_000);
    await until(() => log.includes('not renewed'));
    expect(await sessions.open(request(), unbounded)).toBe(client);
    await clock.advance(400_000);
    expect(await sessions.open(request(), unbounded)).not.toBe(client);
  });

  it('that has run out is not revoked: there is nothing left to revoke', async () => {
    vault.renewable = false;
    await sessions.open(request(), unbounded);
    await clock.advance(ttlSeconds * 1000);
    await sessions.open(request(), unbounded);
    expect([vault.logins, vault.count('auth/token/revoke-self'), vault.count('auth/token/renew-self')]).toEqual([
      2, 0, 0,
    ]);
  });
});

describe('a refusal', () => {
  it('causes one login in five minutes', async () => {
    const user = request().user;
    await sessions.open(request(), unbounded);
    expect(sessions.dropRefusedSession(user, 'token')).toBe(true);
    const second = await sessions.open(request(), unbounded);
    expect(vault.logins).toBe(2);
    for (let i = 0; i < 4; i += 1) {
      await clock.advance(minute);
      expect(sessions.dropRefusedSession(user, 'token')).toBe(false);
      expect(await sessions.open(request(), unbounded)).toBe(second);
    }
    await clock.advance(minute);
    sessions.dropRefusedSession(user, 'token');
    await sessions.open(request(), unbounded);
    expect(vault.logins).toBe(3);
    await until(() => vault.count('auth/token/revoke-self') === 2);
  });

  it('of one identity does not touch the session of another', async () => {
    const theirs = await sessions.open(request({ user: 'b/y', role: 'b' }), unbounded);
    await sessions.open(request({ user: 'a/x' }), unbounded);
    sessions.dropRefusedSession('a/x', 'token');
    expect(await sessions.open(request({ user: 'b/y', role: 'b' }), unbounded)).toBe(theirs);
  });

  it('leaves those that share the token time to end what they do', async () => {
    const theirs = await sessions.open(request({ user: 'a/y' }), unbounded);
    await sessions.open(request({ user: 'a/x' }), unbounded);
    expect(sessions.dropRefusedSession('a/x', 'token')).toBe(true);
    expect(await sessions.open(request({ user: 'a/x' }), unbounded)).not.toBe(theirs);
    await theirs.read('auth/token/lookup-self');
    expect(vault.count('auth/token/lookup-self token-1')).toBe(1);
    expect(vault.count('auth/token/revoke-self')).toBe(0);
    await clock.advance(minute);
    await until(() => vault.count('auth/token/revoke-self token-1') === 1);
    expect(vault.logins).toBe(2);
  });

  it.each(['release', 'close'] as const)('%s ends the one that was replaced, too', async (how) => {
    for (const user of ['a/x', 'a/y']) await sessions.open(request({ user }), unbounded);
    sessions.dropRefusedSession('a/x', 'token');
    if (how === 'close') await sessions.close();
    else for (const user of ['a/x', 'a/y']) sessions.release(user);
    await until(() => vault.count('auth/token/revoke-self token-1') === 1);
    expect(clock.pending).toBe(0);
  });

  it.each(['token', 'rights'] as const)('of %s causes a login, which may bring another token or other rights', async (what) => {
    const { user } = request();
    await sessions.open(request(), unbounded);
    expect(sessions.dropRefusedSession(user, what)).toBe(true);
    await sessions.open(request(), unbounded);
    expect(vault.logins).toBe(2);
  }); // prettier-ignore

  describe('of a given token', () => {
    const user = 'istio-system/istioca';

    it('has it looked at anew, once in five minutes; it is revoked by nobody', async () => {
      const client = await sessions.open(given('token-0'), unbounded);
      expect(sessions.dropRefusedSession(user, 'token')).toBe(true);
      const again = await sessions.open(given('token-0'), unbounded);
      expect(again).not.toBe(client);
      for (let i = 0; i < 4; i += 1) {
        await clock.advance(minute);
        expect(sessions.dropRefusedSession(user, 'token')).toBe(false);
        expect(await sessions.open(given('token-0'), unbounded)).toBe(again);
      }
      expect(vault.count('auth/token/lookup-self')).toBe(2);
      await clock.advance(minute);
      expect(sessions.dropRefusedSession(user, 'token')).toBe(true);
      await sessions.open(given('token-0'), unbounded);
      expect([vault.count('auth/token/lookup-self'), vault.count('auth/token/revoke-self')]).toEqual([3, 0]);
    });

    it('is refused at the next open when it was revoked, and renewed no more; another one is taken at once', async () => {
      await sessions.open(given('token-0'), unbounded);
      vault.revoked.add('token-0');
      expect(sessions.dropRefusedSession(user, 'token')).toBe(true);
      for (let i = 0; i < 3; i += 1)
        await expect(sessions.open(given('token-0'), unbounded)).rejects.toMatchObject({ kind: 'Forbidden' });
      expect(clock.pending).toBe(0);
      const client = await sessions.open(given('token-9'), unbounded);
      await client.read('kv/x');
      expect(vault.calls.at(-1)).toBe('kv/x token-9');
      // the five minutes of the new token are its own
      vault.revoked.add('token-9');
      expect(sessions.dropRefusedSession(user, 'token')).toBe(true);
      await expect(sessions.open(given('token-9'), unbounded)).rejects.toMatchObject({ kind: 'Forbidden' });
    });

    it('changes nothing where only rights are missing: looking at it brings no others', async () => {
      const client = await sessions.open(given('token-0'), unbounded);
      expect(sessions.dropRefusedSession(user, 'rights')).toBe(false);
      expect(await sessions.open(given('token-0'), unbounded)).toBe(client);
      // missing rights do not delay the drop of a rejected token
      expect(sessions.dropRefusedSession(user, 'token')).toBe(true);
    });

    it('leaves those that share it time to end what they do', async () => {
      const theirs = await sessions.open(given('token-0', 'a/y'), unbounded);
      await sessions.open(given('token-0', 'a/x'), unbounded);
      expect(sessions.dropRefusedSession('a/x', 'token')).toBe(true);
      expect(await sessions.open(given('token-0', 'a/x'), unbounded)).not.toBe(theirs);
      await theirs.read('kv/x');
      await clock.advance(minute);
      expect([clock.pending, vault.count('auth/token/revoke-self')]).toEqual([1, 0]);
    });
  });
});

describe('the end', () => {
  it('a resource that goes revokes its token, when no other uses it', async () => {
    await sessions.open(request({ user: 'a/x' }), unbounded);
    const shared = await sessions.open(request({ user: 'a/y' }), unbounded);
    sessions.release('a/x');
    expect(await sessions.open(request({ user: 'a/y' }), unbounded)).toBe(shared);
    sessions.release('a/y');
    await until(() => vault.count('auth/token/revoke-self token-1') === 1);
    expect(clock.pending).toBe(0);
    await sessions.open(request({ user: 'a/y' }), unbounded);
    expect(vault.logins).toBe(2);
  });

  it('a resource that changes its role revokes the token of the old one', async () => {
    await sessions.open(request({ role: 'old' }), unbounded);
    await sessions.open(request({ role: 'new' }), unbounded);
    await until(() => vault.count('auth/token/revoke-self token-1') === 1);
  });

  it('close revokes every token that was logged in for', async () => {
    await sessions.open(request({ user: 'a/x' }), unbounded);
    await sessions.open(request({ user: 'b/y', role: 'b' }), unbounded);
    await sessions.open(request({ user: 'c/z', address: other.address }), unbounded);
    await sessions.close();
    expect(vault.calls.filter((c) => c.includes('revoke')).sort()).toEqual([
      'auth/token/revoke-self token-1',
      'auth/token/revoke-self token-2',
    ]);
    expect(other.count('auth/token/revoke-self token-1')).toBe(1);
  });

  it.each(['release', 'close'] as const)('%s during a login revokes what the login brings', async (how) => {
    const login = sessions.open(request(), unbounded);
    if (how === 'release') sessions.release('istio-system/istioca');
    else await sessions.close();
    await expect(login).rejects.toThrow('nobody waits');
    expect(vault.count('auth/token/revoke-self token-1')).toBe(1);
    expect(clock.pending).toBe(0);
  });

  it('a server that is gone does not keep close from ending', async () => {
    await sessions.open(request(), unbounded);
    vault.stop();
    await sessions.close();
    expect(log).toContain('not revoked');
  });

  it('a given token is looked up and renewed, never revoked', async () => {
    await sessions.open(given('token-0'), unbounded);
    await clock.advance((ttlSeconds * 1000 * 2) / 3);
    await until(() => vault.count('auth/token/renew-self token-0') === 1);
    sessions.release('istio-system/istioca');
    await sessions.open(given('token-9'), unbounded);
    await sessions.close();
    expect(vault.count('auth/token/lookup-self')).toBe(2);
    expect(vault.count('auth/token/revoke-self')).toBe(0);
    expect(loginsCounted).toBe(0);
  });

  it('a given token without an end is neither renewed nor dropped', async () => {
    Object.assign(vault, { lease: 0, renewable: false });
    const client = await sessions.open(given('token-0'), unbounded);
    await clock.advance(365 * 24 * 60 * minute);
    expect(await sessions.open(given('token-0'), unbounded)).toBe(client);
    expect(vault.calls).toEqual(['sys/health', 'auth/token/lookup-self token-0']);
  });
});
