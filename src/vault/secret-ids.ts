/**
 * Secret IDs of AppRole logins: given as they are, or as a response-wrapping token that is unwrapped once. The unwrapped secret ID is kept in
 * memory only. https://developer.hashicorp.com/vault/docs/concepts/response-wrapping
 */
import { createHash } from 'node:crypto';
import { z } from 'zod';
import { Secret } from '../observability/secret.ts';
import type { VaultClient } from './client.ts';
import { isRefusal, VaultError } from './errors.ts';

/** The login with a role ID and a secret ID. */
export interface AppRoleLogin {
  method: 'appRole';
  /** The namespace whose Secret it is. A used wrapping token is no secret any more: others who know it must not get what it gave. */
  namespace: string;
  mount: string;
  roleId: string;
  /** The secret ID, or a wrapping token for it. */
  secretId: Secret;
  /** What the user asks for a new attempt with: a refused login with the same secret ID is repeated at once when it changes. */
  attempt: string;
}

interface Entry {
  /** Undefined: not resolved yet, or it could not be. */
  secretId: Promise<Secret> | undefined;
  /** The resources that log in with it. */
  readonly users: Set<string>;
}

const lookupSchema = z.object({ creation_path: z.string() });
const secretIdSchema = z.object({ secret_id: z.string().min(1) });

/** A secret ID that Vault generated. */
const uuid = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;
/** A token of Vault or OpenBao, or a JSON Web Token, as which a response can be wrapped too. */
const tokenShape = /^(hv[sbr]\.[A-Za-z0-9_-]{16,}|[sbr]\.[A-Za-z0-9]{20,}(\.[A-Za-z0-9]+)?|eyJ[\w-]+\.[\w-]+\.[\w-]+)$/;
/** The paths below an AppRole mount that return a secret ID. */
const secretIdPath = /^role\/[^/]+\/(secret-id|custom-secret-id)$/;

/** The command that creates a wrapped secret ID. */
const command = (mount: string): string => `vault write -wrap-ttl=10m -f auth/${mount}/role/<role>/secret-id`;

const unusable = (mount: string, detail: string, remedy: string): VaultError =>
  new VaultError('WrappingToken', 'unwrap', `auth/${mount}`, 0, detail, remedy);

/** The error for a token that was valid before, or is none at all. */
const spent = (mount: string, detail: string): VaultError =>
  unusable(
    mount,
    detail,
    `The operator unwraps a token once and keeps the secret ID in memory only, so it needs a new one after a restart: ${command(mount)}. If the operator was not restarted and the token is new, somebody else has unwrapped it: destroy its secret ID`,
  );

const keyOf = (server: string, { namespace, mount, secretId }: AppRoleLogin): string =>
  createHash('sha256')
    .update(JSON.stringify([server, namespace, mount, secretId.reveal()]))
    .digest('hex');

export class SecretIds {
  /** By server, namespace, mount, and what the Secret holds. */
  readonly #entries = new Map<string, Entry>();
  readonly #unwraps: boolean;

  /** @param unwraps whether wrapping tokens are unwrapped; false: they are left to another process */
  constructor(unwraps: boolean) {
    this.#unwraps = unwraps;
  }

  /** Records that a resource logs in with a secret ID, which is then kept until `forget`, or until another one has replaced it. */
  use(server: string, user: string, login: AppRoleLogin): void {
    const key = keyOf(server, login);
    for (const [other, entry] of this.#entries)
      if (other !== key && entry.secretId === undefined) this.#leave(entry, [user]);
    const entry = this.#entries.get(key) ?? { secretId: undefined, users: new Set<string>() };
    entry.users.add(user);
    this.#entries.set(key, entry);
  }

  /**
   * Returns the secret ID to log in with. A wrapping token is recognised by `sys/wrapping/lookup`, which needs no token, and unwrapped once,
   * however often and for however many resources this is called.
   * @param server what identifies server and Vault namespace
   * @throws VaultError of kind `WrappingToken` if the token was already used, has expired, wraps something else than a secret ID of this mount,
   *   or is not to be unwrapped here; any other if a request fails
   */
  async resolve(client: VaultClient, server: string, login: AppRoleLogin): Promise<Secret> {
    const entry = this.#entries.get(keyOf(server, login));
    if (!entry) return await this.#read(client, login);
    const reading = (entry.secretId ??= this.#read(client, login));
    try {
      const secretId = await reading;
      for (const other of this.#entries.values()) if (other !== entry) this.#leave(other, entry.users);
      return secretId;
    } catch (error) {
      if (entry.secretId === reading) entry.secretId = undefined;
      throw error;
    }
  }

  /** Forgets the secret IDs of a deleted resource, unless others log in with them. */
  forget(user: string): void {
    for (const entry of this.#entries.values()) this.#leave(entry, [user]);
  }

  #leave(entry: Entry, users: Iterable<string>): void {
    for (const user of users) entry.users.delete(user);
    if (entry.users.size > 0) return;
    for (const [key, one] of this.#entries) if (one === entry) this.#entries.delete(key);
  }

  async #read(client: VaultClient, { mount, secretId }: AppRoleLogin): Promise<Secret> {
    if (uuid.test(secretId.reveal())) return secretId;
    const looksLikeToken = tokenShape.test(secretId.reveal());
    if (looksLikeToken && !this.#unwraps) {
      const remedy =
        'It can be unwrapped once only, so this command cannot log in; the status of the resource shows how the operator fares';
      throw unusable(mount, 'it is left to the running operator', remedy);
    }
    const origin = await creationPath(client, secretId);
    if (origin === undefined) {
      if (!looksLikeToken) return secretId;
      throw spent(mount, 'it was already used, or has expired');
    }
    const below = origin.startsWith(`auth/${mount}/`) ? origin.slice(`auth/${mount}/`.length) : '';
    if (!secretIdPath.test(below)) {
      const remedy = `It was not unwrapped. Find out who put it there, and issue one with: ${command(mount)}`;
      throw unusable(mount, 'it does not wrap a secret ID of this mount', remedy);
    }
    client.useToken(secretId);
    try {
      const { data } = await client.write('sys/wrapping/unwrap', {});
      return new Secret(secretIdSchema.parse(data).secret_id);
    } catch (error) {
      if (error instanceof VaultError && isRefusal(error))
        throw spent(mount, `Vault refused it, status ${error.status}`);
      throw error;
    } finally {
      client.useToken(undefined);
    }
  }
}

/** The path whose response a wrapping token wraps; undefined: it is no wrapping token, or none any more. @throws VaultError */
async function creationPath(client: VaultClient, token: Secret): Promise<string | undefined> {
  const reply = await client.call('POST', 'sys/wrapping/lookup', { token: token.reveal() }, { allow: [400, 403] });
  return reply.status === 200 ? lookupSchema.parse(reply.data).creation_path : undefined;
}
