/** The policy of istiod's agent, and the Kubernetes auth method's configuration and role. */
import { z } from 'zod';
import type { KubernetesAuthConfig, KubernetesRole } from '../plan/facts/observed.ts';
import type { Secret } from '../observability/secret.ts';
import type { VaultClient } from './client.ts';

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

/** Names of all roles of a Kubernetes auth mount. */
export async function listRoles(client: VaultClient, mount: string): Promise<string[]> {
  const reply = await client.call('LIST', `auth/${mount}/role`, undefined, { allow: [404] });
  return z.object({ keys: z.array(z.string()).default([]) }).parse(reply.data).keys;
}

const roleSchema = z.object({
  bound_service_account_names: z.array(z.string()).nullish(),
  bound_service_account_namespaces: z.array(z.string()).nullish(),
  token_policies: z.array(z.string()).nullish(),
  token_ttl: z.number().default(0),
  audience: z.string().nullish(),
});

export async function readRole(client: VaultClient, mount: string, role: string): Promise<KubernetesRole | undefined> {
  const body = await client.read(`auth/${mount}/role/${role}`);
  if (!body) return undefined;
  const found = roleSchema.parse(body);
  return {
    serviceAccountNames: [...(found.bound_service_account_names ?? [])].sort(),
    serviceAccountNamespaces: found.bound_service_account_namespaces ?? [],
    policies: found.token_policies ?? [],
    tokenTtl: found.token_ttl,
    audience: found.audience ?? '',
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

export async function readAuthConfig(client: VaultClient, mount: string): Promise<KubernetesAuthConfig | undefined> {
  const body = await client.read(`auth/${mount}/config`);
  if (!body) return undefined;
  const found = configSchema.parse(body);
  return {
    host: found.kubernetes_host,
    caCert: found.kubernetes_ca_cert.trim(),
    disableLocalCaJwt: found.disable_local_ca_jwt,
    reviewerJwtSet: found.token_reviewer_jwt_set,
  };
}

/** A full replacement: the reviewer's token must be sent each time. */
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
