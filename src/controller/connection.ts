/**
 * Builds the session request for Vault from `spec.vault`: resolves references to ConfigMaps and Secrets, and prepares the login. Only the
 * namespace of the resource is read.
 */
import { dig } from '../api/json.ts';
import { grantedBy, grantedSecrets } from '../api/permissions.ts';
import type { KubeClient } from '../kube/client.ts';
import { KubeError } from '../kube/errors.ts';
import type { IstioVaultCA, Spec } from '../api/schema.ts';
import { Secret } from '../observability/secret.ts';
import { ProblemError, type Problem } from '../plan/facts/problem.ts';
import { VaultError } from '../vault/errors.ts';
import type { TlsOptions } from '../vault/transport.ts';
import type { Login, SessionRequest } from '../vault/sessions.ts';
import { configMaps } from './observe-kubernetes.ts';
import { messageOf } from './problems.ts';

const secrets = { group: '', version: 'v1', plural: 'secrets' };

/** The only service account of which the base of the deployment lets the operator request tokens. */
const loginAccount = 'istio-vault-ca';

export type ReferenceReader = Pick<KubeClient, 'getObject' | 'requestToken'>;

/** Returns an error with a problem that blocks every write. */
function problem(condition: Problem['condition'], reason: Problem['reason'], message: string): ProblemError {
  return new ProblemError({ condition, reason, message, blocks: 'all' });
}

/**
 * Returns the value of a key of a ConfigMap or, decoded, of a Secret.
 * @param field path of the reference in the spec, for messages
 * @throws ProblemError if the object or key does not exist, the value is empty, or the operator lacks the permission
 * @throws KubeError for other failures
 */
async function readKey(
  kube: ReferenceReader,
  kind: 'ConfigMap' | 'Secret',
  namespace: string,
  ref: { name: string; key: string },
  field: string,
  condition: Problem['condition'] = 'VaultReady',
): Promise<string> {
  const gvr = kind === 'Secret' ? secrets : configMaps;
  const object = await kube.getObject(gvr, namespace, ref.name).catch((error: unknown) => {
    if (!(error instanceof KubeError && error.kind === 'Forbidden')) throw error;
    const secretRemedy = grantedSecrets.includes(ref.name)
      ? grantedBy('secrets')
      : `Grant get on Secret ${ref.name} of that namespace`;
    throw problem(
      condition,
      'Forbidden',
      `${field}: ${messageOf(error, kind === 'Secret' ? secretRemedy : undefined)}`,
    );
  });
  const value = dig(object, 'data', ref.key);
  if (typeof value !== 'string' || value === '') {
    throw problem(
      condition,
      'ReferenceNotFound',
      `${field}: ${kind} ${ref.name} in namespace ${namespace} has no key ${ref.key}`,
    );
  }
  return kind === 'Secret' ? Buffer.from(value, 'base64').toString('utf8') : value;
}

/** Returns the value of a key of a ConfigMap, such as a PEM certificate. @throws ProblemError, KubeError */
export const readConfigMapKey = (
  kube: ReferenceReader,
  namespace: string,
  ref: { name: string; key: string },
  field: string,
  condition: Problem['condition'],
) => readKey(kube, 'ConfigMap', namespace, ref, field, condition);

/** Returns the trimmed value of a key of a Secret, wrapped so that it cannot be logged. @throws ProblemError, KubeError */
async function readSecretKey(
  kube: ReferenceReader,
  namespace: string,
  ref: { name: string; key: string },
  field: string,
  condition: Problem['condition'] = 'VaultReady',
): Promise<Secret> {
  return new Secret((await readKey(kube, 'Secret', namespace, ref, field, condition)).trim());
}

/** Returns the token of the token reviewer that the spec names; undefined: it names none. @throws ProblemError, KubeError */
export async function readReviewerToken(
  kube: ReferenceReader,
  { metadata, spec }: IstioVaultCA,
): Promise<Secret | undefined> {
  const { secretRef } = spec.kubernetesAuth.config.tokenReviewer;
  const field = 'spec.kubernetesAuth.config.tokenReviewer.secretRef';
  return secretRef && (await readSecretKey(kube, metadata.namespace, secretRef, field, 'AccessReady'));
}

/** Resolves the references of `spec.vault.tls`. @throws ProblemError, KubeError */
async function tlsOptions(kube: ReferenceReader, namespace: string, tls: Spec['vault']['tls']): Promise<TlsOptions> {
  if (!tls) return {};
  const field = 'spec.vault.tls';
  const [ca, cert, key] = await Promise.all([
    tls.caConfigMapRef
      ? readKey(kube, 'ConfigMap', namespace, tls.caConfigMapRef, `${field}.caConfigMapRef`)
      : tls.caSecretRef
        ? readKey(kube, 'Secret', namespace, tls.caSecretRef, `${field}.caSecretRef`)
        : undefined,
    tls.clientCertSecretRef &&
      readKey(
        kube,
        'Secret',
        namespace,
        { ...tls.clientCertSecretRef, key: 'tls.crt' },
        `${field}.clientCertSecretRef`,
      ),
    tls.clientCertSecretRef &&
      readKey(
        kube,
        'Secret',
        namespace,
        { ...tls.clientCertSecretRef, key: 'tls.key' },
        `${field}.clientCertSecretRef`,
      ),
  ]);
  return {
    ...(ca === undefined ? {} : { ca }),
    ...(cert === undefined ? {} : { cert }),
    ...(key === undefined ? {} : { key }),
    ...(tls.serverName === undefined ? {} : { serverName: tls.serverName }),
  };
}

/** Lifetime of a requested service account token, in seconds: the minimum of the API server. The token is used once, at login. */
const loginTokenSeconds = 600;

/**
 * Prepares the login of `spec.vault.auth`.
 * @throws ProblemError if the method is not supported, or a reference does not exist or is unreadable
 */
async function loginOf(kube: ReferenceReader, namespace: string, auth: Spec['vault']['auth']): Promise<Login> {
  if (auth.method === 'Token' && auth.token) {
    return {
      method: 'token',
      token: await readSecretKey(kube, namespace, auth.token.secretRef, 'spec.vault.auth.token.secretRef'),
    };
  }
  if (auth.method !== 'Kubernetes' || !auth.kubernetes) {
    throw problem(
      'VaultReady',
      'NotYetSupported',
      `spec.vault.auth.method: ${auth.method} is not supported by this version`,
    );
  }
  const { mount, role, serviceAccountName, audiences } = auth.kubernetes;
  return {
    method: 'serviceAccount',
    mount,
    role,
    identity: `${namespace}/${serviceAccountName}?${audiences.join(',')}`,
    requestJwt: async () => {
      const field = 'spec.vault.auth.kubernetes.serviceAccountName';
      const { token } = await kube
        .requestToken(namespace, serviceAccountName, audiences, loginTokenSeconds)
        .catch((error: unknown) => {
          if (error instanceof KubeError && error.kind === 'NotFound') {
            throw problem(
              'VaultReady',
              'ReferenceNotFound',
              `${field}: there is no ServiceAccount ${serviceAccountName} in namespace ${namespace}`,
            );
          }
          if (error instanceof KubeError && error.kind === 'Forbidden') {
            const remedy =
              serviceAccountName === loginAccount
                ? undefined
                : `It can request tokens only of service accounts named ${loginAccount}`;
            throw problem('VaultReady', 'Forbidden', `${field}: ${messageOf(error, remedy)}`);
          }
          throw error;
        });
      return new Secret(token);
    },
  };
}

/**
 * Returns the session request of a resource: the server, the connection options and the login.
 * @param onRequest called after each request to Vault with its operation and HTTP status
 * @throws ProblemError, KubeError
 */
export async function sessionRequest(
  kube: ReferenceReader,
  resource: IstioVaultCA,
  onRequest: (operation: string, status: number) => void,
): Promise<SessionRequest> {
  const { namespace, name } = resource.metadata;
  const { vault } = resource.spec;
  const [tls, login] = await Promise.all([
    tlsOptions(kube, namespace, vault.tls),
    loginOf(kube, namespace, vault.auth),
  ]);
  return {
    user: `${namespace}/${name}`,
    connection: {
      address: vault.address,
      tls,
      onRequest,
      ...(vault.namespace === undefined ? {} : { namespace: vault.namespace }),
    },
    login,
  };
}

/**
 * Explains a refused login: the message names role, service account and audience or, for a refused token, its Secret. `undefined`: another
 * failure, whose own message suffices.
 */
export function loginProblem(error: unknown, resource: IstioVaultCA): ProblemError | undefined {
  if (!(error instanceof VaultError && ['Forbidden', 'Invalid', 'NotFound'].includes(error.kind))) return undefined;
  const { kubernetes, token } = resource.spec.vault.auth;
  const hint = token
    ? tokenHint(token.secretRef, error)
    : kubernetes
      ? loginHint(kubernetes, resource.metadata.namespace)
      : 'check spec.vault.auth';
  const { namespace } = resource.spec.vault;
  const inNamespace = namespace === undefined ? '' : `; and spec.vault.namespace ${namespace} must exist`;
  return problem('VaultReady', 'LoginFailed', `the login was refused (${error.message}): ${hint}${inNamespace}`);
}

/** Vault since 1.17 reports an unknown token as `invalid token`. OpenBao gives the same answer as for a missing permission. */
function tokenHint({ name, key }: { name: string; key: string }, { message }: VaultError): string {
  const otherCause = /invalid token/i.test(message) ? '' : ', or lacks policy default and may not look itself up';
  return `the token in Secret ${name} (key ${key}) was revoked or has run out${otherCause}; put one into it that is valid`;
}

/** Returns what the Vault role of a Kubernetes login must be bound to. */
function loginHint(
  { mount, role, serviceAccountName, audiences }: NonNullable<Spec['vault']['auth']['kubernetes']>,
  namespace: string,
): string {
  const audience =
    audiences.length > 0
      ? `and carry audience ${audiences.join(' or ')}`
      : 'and carry no audience (spec.vault.auth.kubernetes.audiences is empty)';
  return `role ${role} of auth/${mount} must exist, be bound to service account ${serviceAccountName} in namespace ${namespace} ${audience}`;
}
