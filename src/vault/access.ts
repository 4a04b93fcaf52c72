/** ACL policies, and the configuration and roles of the Kubernetes auth method, for the Vault Agent of istiod. */
import { z } from 'zod';
import { isObject, type JsonObject } from '../api/json.ts';
import type { KubernetesAuthConfig, KubernetesRole, RoleFields } from '../plan/facts/observed.ts';
import type { Secret } from '../observability/secret.ts';
import { cut, printable } from '../text/bounded.ts';
import type { VaultClient } from './client.ts';

/** Returns the text of an ACL policy; undefined if it does not exist. */
export async function readPolicy(client: VaultClient, name: string): Promise<string | undefined> {
  const body = await client.read(`sys/policies/acl/${name}`);
  return body && z.object({ policy: z.string() }).parse(body).policy;
}

/** What OpenBao says of a policy besides its text. Vault says neither. https://openbao.org/api-docs/system/policies/ */
const policyVersionSchema = z.object({ version: z.int().exactOptional(), cas_required: z.boolean().default(false) });

/**
 * Writes an ACL policy, in OpenBao by check-and-set: a policy can require that (`cas_required`), and goes on requiring it.
 * @throws VaultError of kind `CheckAndSet` if somebody else wrote the policy meanwhile
 */
export async function writePolicy(client: VaultClient, name: string, policy: string): Promise<void> {
  const path = `sys/policies/acl/${name}`;
  const { version, cas_required } = policyVersionSchema.parse((await client.read(path)) ?? {});
  await client.call('PUT', path, {
    policy,
    ...(version === undefined ? {} : { cas: version }),
    ...(cas_required ? { cas_required } : {}),
  });
}

export async function deletePolicy(client: VaultClient, name: string): Promise<void> {
  await client.delete(`sys/policies/acl/${name}`);
}

export async function deleteRole(client: VaultClient, mount: string, role: string): Promise<void> {
  await client.delete(`auth/${mount}/role/${role}`);
}

/** Returns the names of all roles of a Kubernetes auth mount. */
export async function listRoles(client: VaultClient, mount: string): Promise<string[]> {
  return await client.list(`auth/${mount}/role`);
}

const roleSchema = z.object({
  bound_service_account_names: z.array(z.string()).nullish(),
  bound_service_account_namespaces: z.array(z.string()).nullish(),
  token_policies: z.array(z.string()).nullish(),
  token_ttl: z.number().default(0),
  token_max_ttl: z.number().default(0),
  audience: z.string().nullish(),
});

/** Fields that `writeRole` writes, and deprecated names of fields, with which the server answers in addition to the present names. */
const knownFields: ReadonlySet<string> = new Set([
  ...Object.keys(roleSchema.shape).filter((name) => name !== 'token_max_ttl'),
  ...['policies', 'ttl', 'max_ttl', 'period', 'num_uses', 'bound_cidrs'],
]);

/** Values of other fields that mean the same as no value. Source: https://developer.hashicorp.com/vault/api-docs/auth/kubernetes */
const defaults: Readonly<Record<string, readonly unknown[]>> = {
  alias_name_source: ['serviceaccount_uid'],
  token_type: ['default', 'default-service', 'service'],
};

/** The most names of other fields that are kept, and the longest of them, in UTF-16 code units. */
const mostFields = 30;
const longestField = 60;

/** The names of the fields that have another value than their default, without the known ones, sorted. */
function otherFields(body: JsonObject, known: ReadonlySet<string>): string[] {
  const isEmpty = (value: unknown): boolean =>
    value === null ||
    ['', 0, false].includes(value as string) ||
    (Array.isArray(value) && value.length === 0) ||
    (isObject(value) && Object.keys(value).length === 0);
  return Object.entries(body)
    .filter(([name, value]) => !known.has(name) && !isEmpty(value) && defaults[name]?.includes(value) !== true)
    .map(([name]) => cut(printable(name), longestField))
    .sort()
    .slice(0, mostFields);
}

/** The most names of a list of a role that are kept, and the longest of them, in UTF-16 code units: the longest name in Kubernetes. */
const mostNames = 200;
const longestName = 253;

const boundedName = (name: string): string => cut(printable(name), longestName);

/** The role that an answer describes, within limits. */
export function roleOf(body: JsonObject): KubernetesRole {
  const fields = roleSchema.parse(body);
  const names = fields.bound_service_account_names ?? [];
  const namespaces = fields.bound_service_account_namespaces ?? [];
  const policies = fields.token_policies ?? [];
  const bounded = (list: string[]) => list.slice(0, mostNames).map(boundedName);
  return {
    serviceAccountNames: bounded(names).sort(),
    serviceAccountNamespaces: bounded(namespaces),
    policies: bounded(policies),
    tokenTtl: fields.token_ttl,
    audience: boundedName(fields.audience ?? ''),
    otherFields: otherFields(body, knownFields),
    ...(fields.token_max_ttl > 0 ? { tokenMaxTtl: fields.token_max_ttl } : {}),
    ...([names, namespaces, policies].some((list) => list.length > mostNames) ? { more: true } : {}),
  };
}

/** Reads a role of a Kubernetes auth mount; undefined if it does not exist. */
export async function readRole(client: VaultClient, mount: string, role: string): Promise<KubernetesRole | undefined> {
  const body = await client.read(`auth/${mount}/role/${role}`);
  return body && roleOf(body);
}

/**
 * Writes a role. Fields that the call does not name stay as they are.
 * @param resets further fields, by their names in the API
 */
export async function writeRole(
  client: VaultClient,
  mount: string,
  role: string,
  fields: RoleFields,
  resets: Readonly<Record<string, string | number>>,
): Promise<void> {
  await client.write(`auth/${mount}/role/${role}`, {
    bound_service_account_names: fields.serviceAccountNames,
    bound_service_account_namespaces: fields.serviceAccountNamespaces,
    token_policies: fields.policies,
    token_ttl: `${fields.tokenTtl}s`,
    audience: fields.audience,
    ...resets,
  });
}

const configSchema = z.object({
  kubernetes_host: z.string().default(''),
  kubernetes_ca_cert: z.string().default(''),
  disable_local_ca_jwt: z.boolean().default(false),
  token_reviewer_jwt_set: z.boolean().optional(),
  issuer: z.string().default(''),
  disable_iss_validation: z.boolean().default(true),
});

/** The longest issuer that is kept, in UTF-16 code units. */
const longestIssuer = 300;

/** Fields that `writeAuthConfig` writes, and those that are evaluated by themselves. */
const knownConfigFields: ReadonlySet<string> = new Set([...Object.keys(configSchema.shape), 'token_reviewer_jwt']);

/** Reads the configuration of a Kubernetes auth mount; undefined if none was written. */
export async function readAuthConfig(client: VaultClient, mount: string): Promise<KubernetesAuthConfig | undefined> {
  const body = await client.read(`auth/${mount}/config`);
  if (!body) return undefined;
  const fields = configSchema.parse(body);
  const checksIssuer = !fields.disable_iss_validation;
  const others = [
    ...otherFields(body, knownConfigFields),
    ...(checksIssuer ? ['disable_iss_validation'] : []),
    ...(fields.issuer === '' ? [] : ['issuer']),
  ];
  return {
    host: fields.kubernetes_host,
    caCert: fields.kubernetes_ca_cert.trim(),
    disableLocalCaJwt: fields.disable_local_ca_jwt,
    reviewerJwtSet: fields.token_reviewer_jwt_set,
    // with an empty issuer, logins succeed whether the server checks it or not
    ...(checksIssuer && fields.issuer !== '' ? { issuer: cut(printable(fields.issuer), longestIssuer) } : {}),
    otherFields: others.sort(),
  };
}

/**
 * Replaces the whole configuration of a Kubernetes auth mount.
 * @param reviewerJwt the token for TokenReview requests. The call must include it every time; undefined configures none
 */
export async function writeAuthConfig(
  client: VaultClient,
  mount: string,
  config: KubernetesAuthConfig,
  reviewerJwt: Secret | undefined,
): Promise<void> {
  await client.write(`auth/${mount}/config`, {
    kubernetes_host: config.host,
    kubernetes_ca_cert: config.caCert,
    disable_local_ca_jwt: config.disableLocalCaJwt,
    ...(reviewerJwt ? { token_reviewer_jwt: reviewerJwt.reveal() } : {}),
  });
}
