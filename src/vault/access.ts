/** ACL policies, and the configuration and roles of the Kubernetes auth method, for the Vault Agent of istiod. */
import { z } from 'zod';
import type { KubernetesAuthConfig, KubernetesRole } from '../plan/facts/observed.ts';
import type { Secret } from '../observability/secret.ts';
import type { VaultClient } from './client.ts';

/** Returns the text of an ACL policy; undefined if it does not exist. */
export async function readPolicy(client: VaultClient, name: string): Promise<string | undefined> {
  const body = await client.read(`sys/policies/acl/${name}`);
  return body && z.object({ policy: z.string() }).parse(body).policy;
}

export async function writePolicy(client: VaultClient, name: string, policy: string): Promise<void> {
  await client.call('PUT', `sys/policies/acl/${name}`, { policy });
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
  audience: z.string().nullish(),
});

/** Reads a role of a Kubernetes auth mount; undefined if it does not exist. */
export async function readRole(client: VaultClient, mount: string, role: string): Promise<KubernetesRole | undefined> {
  const body = await client.read(`auth/${mount}/role/${role}`);
  if (!body) return undefined;
  const fields = roleSchema.parse(body);
  return {
    serviceAccountNames: [...(fields.bound_service_account_names ?? [])].sort(),
    serviceAccountNamespaces: fields.bound_service_account_namespaces ?? [],
    policies: fields.token_policies ?? [],
    tokenTtl: fields.token_ttl,
    audience: fields.audience ?? '',
  };
}

export async function writeRole(
  client: VaultClient,
  mount: string,
  role: string,
  fields: KubernetesRole,
): Promise<void> {
  await client.write(`auth/${mount}/role/${role}`, {
    bound_service_account_names: fields.serviceAccountNames,
    bound_service_account_namespaces: fields.serviceAccountNamespaces,
    token_policies: fields.policies,
    token_ttl: `${fields.tokenTtl}s`,
    audience: fields.audience,
  });
}

const configSchema = z.object({
  kubernetes_host: z.string().default(''),
  kubernetes_ca_cert: z.string().default(''),
  disable_local_ca_jwt: z.boolean().default(false),
  token_reviewer_jwt_set: z.boolean().optional(),
});

/** Reads the configuration of a Kubernetes auth mount; undefined if none was written. */
export async function readAuthConfig(client: VaultClient, mount: string): Promise<KubernetesAuthConfig | undefined> {
  const body = await client.read(`auth/${mount}/config`);
  if (!body) return undefined;
  const fields = configSchema.parse(body);
  return {
    host: fields.kubernetes_host,
    caCert: fields.kubernetes_ca_cert.trim(),
    disableLocalCaJwt: fields.disable_local_ca_jwt,
    reviewerJwtSet: fields.token_reviewer_jwt_set,
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
