/**
 * Builds the session request for Vault from `spec.vault`: resolves references to ConfigMaps and Secrets, and prepares the login. Only the
 * namespace of the resource is read.
 */
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { annotations } from '../api/annotations.ts';
import { clientCertificateKeys } from '../api/client-certificate.ts';
import { dig } from '../api/json.ts';
import { grantOnSecret } from '../api/permissions.ts';
import type { KubeClient } from '../kube/client.ts';
import { KubeError } from '../kube/errors.ts';
import type { IstioVaultCA, Spec } from '../api/schema.ts';
import { Secret } from '../observability/secret.ts';
import { ProblemError, type Problem } from '../plan/facts/problem.ts';
import { isRefusal, VaultError } from '../vault/errors.ts';
import type { Login, SessionRequest } from '../vault/sessions.ts';
import { configMaps } from './observe-kubernetes.ts';
import { messageOf } from './problems.ts';

const secrets = { group: '', version: 'v1', plural: 'secrets' };

/** The only service account of which the base of the deployment lets the operator request tokens. */
const loginAccount = 'istio-vault-ca';

type Auth = Spec['vault']['auth'];
type ServiceAccountAuth = NonNullable<Auth['kubernetes']>;
type AppRoleAuth = NonNullable<Auth['appRole']>;

export type ReferenceReader = Pick<KubeClient, 'getObject' | 'requestToken'>;

/** Returns an error with a problem that blocks every write. */
function problem(condition: Problem['condition'], reason: Problem['reason'], message: string): ProblemError {
  return new ProblemError({ condition, reason, message, blocks: 'all' });
}

type Kind = 'ConfigMap' | 'Secret';

/** Where a reference of the spec leads. */
interface Reference {
  kind: Kind;
  namespace: string;
  name: string;
  /** Path of the reference in the spec, for messages. */
  field: string;
  /** The condition of a problem. */
  condition: Problem['condition'];
}

/**
 * Reads a ConfigMap or Secret; undefined: it does not exist.
 * @throws ProblemError if the operator lacks the permission
 * @throws KubeError for other failures
 */
async function readReferenced(kube: ReferenceReader, { kind, namespace, name, field, condition }: Reference) {
  const gvr = kind === 'Secret' ? secrets : configMaps;
  return await kube.getObject(gvr, namespace, name).catch((error: unknown) => {
    if (!(error instanceof KubeError && error.kind === 'Forbidden')) throw error;
    const message = messageOf(error, kind === 'Secret' ? grantOnSecret(name) : undefined);
    throw problem(condition, 'Forbidden', `${field}: ${message}`);
  });
}

/**
 * Returns the value of a key of what `readReferenced` has read; of a Secret decoded.
 * @throws ProblemError if the object or key does not exist, or the value is empty
 */
function valueOf(object: unknown, key: string, { kind, namespace, name, field, condition }: Reference): string {
  const value = dig(object, 'data', key);
  if (typeof value !== 'string' || value === '') {
    const message = `${field}: ${kind} ${name} in namespace ${namespace} has no key ${key}`;
    throw problem(condition, 'ReferenceNotFound', message);
  }
  return kind === 'Secret' ? Buffer.from(value, 'base64').toString('utf8') : value;
}

/** Returns the value of a key of a ConfigMap or, decoded, of a Secret. @throws as `readReferenced` and `valueOf` */
async function readKey(
  kube: ReferenceReader,
  kind: Kind,
  namespace: string,
  { name, key }: { name: string; key: string },
  field: string,
  condition: Problem['condition'] = 'VaultReady',
): Promise<string> {
  const reference: Reference = { kind, namespace, name, field, condition };
  return valueOf(await readReferenced(kube, reference), key, reference);
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

/** What a connection uses for TLS, and where it is from. */
type TlsMaterial = Required<Pick<SessionRequest['connection'], 'tls' | 'tlsSources'>>;

/** Resolves the references of `spec.vault.tls`. @throws ProblemError, KubeError */
async function tlsMaterial(kube: ReferenceReader, namespace: string, tls: Spec['vault']['tls']): Promise<TlsMaterial> {
  if (!tls) return { tls: {}, tlsSources: {} };
  const { caConfigMapRef, caSecretRef, clientCertSecretRef, serverName } = tls;
  const field = 'spec.vault.tls';
  const clientField = `${field}.clientCertSecretRef`;
  const [givenCa, client] = await Promise.all([
    caConfigMapRef
      ? readKey(kube, 'ConfigMap', namespace, caConfigMapRef, `${field}.caConfigMapRef`)
      : caSecretRef && readKey(kube, 'Secret', namespace, caSecretRef, `${field}.caSecretRef`),
    clientCertSecretRef && readClientCertificate(kube, namespace, clientCertSecretRef, clientField, !caSecretRef),
  ]);
  const ca = givenCa ?? client?.ca;
  const caSource = caConfigMapRef
    ? describeSource(`${field}.caConfigMapRef`, 'ConfigMap', caConfigMapRef)
    : caSecretRef
      ? describeSource(`${field}.caSecretRef`, 'Secret', caSecretRef)
      : clientCertSecretRef &&
        describeSource(clientField, 'Secret', { ...clientCertSecretRef, key: clientCertificateKeys.ca });
  const clientSource = clientCertSecretRef && `Secret ${clientCertSecretRef.name} (${clientField})`;
  if (client) {
    const defect = defectOfKeyPair(client.cert, client.key);
    if (defect !== undefined)
      throw problem('VaultReady', 'TLSFailed', `The client certificate in ${clientSource} cannot be used: ${defect}.`);
  }
  return {
    tls: {
      ...(ca === undefined ? {} : { ca }),
      ...(client && { cert: client.cert, key: client.key }),
      ...(serverName === undefined ? {} : { serverName }),
    },
    tlsSources: {
      ...(caSource === undefined ? {} : { ca: caSource }),
      ...(clientSource === undefined ? {} : { clientCert: clientSource }),
    },
  };
}

/**
 * Reads a client certificate in one request, so that no key is taken for that of another certificate while the Secret changes.
 * @param withCa whether the Secret must hold Vault's CA, by which istiod's Vault Agent verifies Vault
 */
async function readClientCertificate(
  kube: ReferenceReader,
  namespace: string,
  { name }: { name: string },
  field: string,
  withCa: boolean,
): Promise<{ ca: string | undefined; cert: string; key: string }> {
  const reference: Reference = { kind: 'Secret', namespace, name, field, condition: 'VaultReady' };
  const secret = await readReferenced(kube, reference);
  const { ca, cert, key } = clientCertificateKeys;
  return {
    ca: withCa ? valueOf(secret, ca, reference) : undefined,
    cert: valueOf(secret, cert, reference),
    key: valueOf(secret, key, reference),
  };
}

const describeSource = (field: string, kind: string, { name, key }: { name: string; key: string }): string =>
  `${kind} ${name} (${field}, key ${key})`;

/** What is wrong with a certificate and its key, in PEM; undefined: nothing. Whether the server accepts it, only the server knows. */
function defectOfKeyPair(cert: string, key: string): string | undefined {
  try {
    const certificate = new X509Certificate(cert);
    try {
      return certificate.checkPrivateKey(createPrivateKey(key))
        ? undefined
        : 'tls.key is not the key of the certificate in tls.crt';
    } catch {
      return 'tls.key is not a private key in PEM without passphrase';
    }
  } catch {
    return 'tls.crt is not a certificate in PEM';
  }
}

/** Lifetime of a requested service account token, in seconds: the minimum of the API server. The token is used once, at login. */
const loginTokenSeconds = 600;

/**
 * Prepares the login of `spec.vault.auth`.
 * @throws ProblemError if a reference does not exist or is unreadable
 */
async function loginOf(kube: ReferenceReader, { metadata, spec }: IstioVaultCA): Promise<Login> {
  const { namespace } = metadata;
  const { method, kubernetes, appRole, token, jwt } = spec.vault.auth;
  const field = 'spec.vault.auth';
  if (token)
    return {
      method: 'token',
      token: await readSecretKey(kube, namespace, token.secretRef, `${field}.token.secretRef`),
    };
  if (appRole) {
    const { mount, roleId, secretIdRef } = appRole;
    return {
      method: 'appRole',
      namespace,
      mount,
      roleId,
      secretId: await readSecretKey(kube, namespace, secretIdRef, `${field}.appRole.secretIdRef`),
      attempt: metadata.annotations[annotations.reconcileRequestedAt] ?? '',
    };
  }
  if (kubernetes) return serviceAccountLogin(kube, namespace, `${field}.kubernetes`, kubernetes);
  if (jwt) return serviceAccountLogin(kube, namespace, `${field}.jwt`, jwt);
  throw problem('VaultReady', 'InvalidSpec', `${field}: give the sub-object of method ${method}`);
}

/** The login with a token of a service account, as the methods Kubernetes and JWT have it. @param field of the login in the spec */
function serviceAccountLogin(
  kube: ReferenceReader,
  namespace: string,
  field: string,
  { mount, role, serviceAccountName, audiences }: ServiceAccountAuth,
): Login {
  const accountField = `${field}.serviceAccountName`;
  const requestJwt = async (): Promise<Secret> => {
    const { token } = await kube
      .requestToken(namespace, serviceAccountName, audiences, loginTokenSeconds)
      .catch((error: unknown) => {
        if (error instanceof KubeError && error.kind === 'NotFound') {
          throw problem(
            'VaultReady',
            'ReferenceNotFound',
            `${accountField}: there is no ServiceAccount ${serviceAccountName} in namespace ${namespace}`,
          );
        }
        if (error instanceof KubeError && error.kind === 'Forbidden') {
          const remedy =
            serviceAccountName === loginAccount
              ? undefined
              : `It can request tokens only of service accounts named ${loginAccount}`;
          throw problem('VaultReady', 'Forbidden', `${accountField}: ${messageOf(error, remedy)}`);
        }
        throw error;
      });
    return new Secret(token);
  };
  const identity = `${namespace}/${serviceAccountName}?${audiences.join(',')}`;
  return { method: 'serviceAccount', mount, role, identity, requestJwt };
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
  const [material, login] = await Promise.all([tlsMaterial(kube, namespace, vault.tls), loginOf(kube, resource)]);
  return {
    user: `${namespace}/${name}`,
    connection: {
      address: vault.address,
      ...material,
      onRequest,
      ...(vault.namespace === undefined ? {} : { namespace: vault.namespace }),
    },
    login,
  };
}

/**
 * Explains a refused login: the message names role, service account and audience or, for a refused token or secret ID, its Secret. `undefined`:
 * another failure, whose own message suffices.
 */
export function loginProblem(error: unknown, { spec, metadata }: IstioVaultCA): ProblemError | undefined {
  const { kubernetes, token, jwt, appRole } = spec.vault.auth;
  if (appRole && error instanceof VaultError && error.kind === 'WrappingToken')
    return problem('VaultReady', 'WrappingTokenInvalid', wrappingTokenMessage(appRole, error));
  if (!(error instanceof VaultError && isRefusal(error))) return undefined;
  const hint = token
    ? tokenHint(token.secretRef, error)
    : appRole
      ? appRoleHint(appRole, error)
      : kubernetes
        ? loginHint(kubernetes, metadata.namespace)
        : jwt
          ? jwtHint(jwt, metadata.namespace)
          : 'check spec.vault.auth';
  const { namespace } = spec.vault;
  const inNamespace =
    namespace === undefined ? '' : `; all of it in Vault namespace ${namespace} (spec.vault.namespace)`;
  return problem('VaultReady', 'LoginFailed', `the login was refused (${error.message}): ${hint}${inNamespace}`);
}

/** Vault since 1.17 reports an unknown token as `invalid token`. OpenBao gives the same answer as for a missing permission. */
function tokenHint({ name, key }: { name: string; key: string }, { message }: VaultError): string {
  const otherCause = /invalid token/i.test(message) ? '' : ', or lacks policy default and may not look itself up';
  return `the token in Secret ${name} (key ${key}) was revoked or has run out${otherCause}; put one into it that is valid (spec.vault.auth.token.secretRef)`;
}

/** Vault gives one answer for an unknown role ID and for an invalid secret ID, and refuses any login to a locked role ID. */
function appRoleHint({ mount, secretIdRef: { name, key } }: AppRoleAuth, { kind }: VaultError): string {
  const again =
    'The operator logs in again when the Secret changes, when annotation istiovaultca.io/reconcile-requested-at changes, or after 16m';
  if (kind !== 'Invalid')
    return `auth/${mount} must exist (spec.vault.auth.appRole.mount), and its role ID must not be locked: Vault locks a role ID for 15m after five refused logins. ${again}`;
  return `spec.vault.auth.appRole.roleId is unknown to auth/${mount}, or the secret ID in Secret ${name} (key ${key}, spec.vault.auth.appRole.secretIdRef) is wrong, used up, has expired, or is bound to other addresses. Put one into it that is valid: vault write -f auth/${mount}/role/<role>/secret-id. ${again}`;
}

function wrappingTokenMessage(
  { secretIdRef: { name, key } }: AppRoleAuth,
  { message, remedy = '' }: VaultError,
): string {
  return `The wrapping token in Secret ${name} (key ${key}, spec.vault.auth.appRole.secretIdRef) gives no secret ID (${message}). ${remedy}`;
}

/** Returns what the Vault role of a Kubernetes login must be bound to. */
function loginHint({ mount, role, serviceAccountName, audiences }: ServiceAccountAuth, namespace: string): string {
  const audience =
    audiences.length > 0
      ? `and carry audience ${audiences.join(' or ')}`
      : 'and carry no audience (spec.vault.auth.kubernetes.audiences is empty)';
  return `role ${role} of auth/${mount} must exist, be bound to service account ${serviceAccountName} in namespace ${namespace} ${audience}`;
}

/** Returns what the Vault role of a JWT login must be bound to. */
function jwtHint({ mount, role, serviceAccountName, audiences }: ServiceAccountAuth, namespace: string): string {
  const bound =
    audiences.length > 0
      ? `bound_audiences ${audiences.join(' or ')}`
      : "bound_audiences of the API server's own audience (spec.vault.auth.jwt.audiences is empty)";
  return `role ${role} of auth/${mount} must exist with role_type jwt, user_claim sub, bound_subject system:serviceaccount:${namespace}:${serviceAccountName} and ${bound}, and the mount must know the key and the issuer of this cluster's tokens`;
}
