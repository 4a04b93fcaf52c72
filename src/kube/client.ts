/** A Kubernetes client for objects as plain JSON. Every failure is a `KubeError`. */
import type { KubeConfig } from '@kubernetes/client-node';
import type { Gvr } from '../api/gvr.ts';
import type { Permission } from '../api/permissions.ts';
import { dig, isObject, items as itemsIn, str, type JsonObject } from '../api/json.ts';
import type { Secret } from '../observability/secret.ts';
import { isKubeError, KubeError, unless } from './errors.ts';
import { groupVersionPath, resourcePath } from './resources.ts';
import {
  createTextTransport,
  createTransport,
  type KubeRequest,
  type Send,
  type SendForText,
  type TransportOptions,
} from './transport.ts';

/** Options of every call. */
interface CallOptions {
  /** If the signal aborts, the call fails with a `KubeError` of kind `Unavailable` and reason `Aborted`. */
  signal?: AbortSignal | undefined;
}

interface PatchOptions {
  type: 'merge' | 'json' | 'apply';
  subresource?: 'status';
  /** Required for `apply`. */
  fieldManager?: string;
  /** `apply` only: takes over fields that other field managers own. */
  force?: boolean;
}

interface DeleteOptions extends CallOptions {
  /** Precondition: deletes only the object with this UID, not a later object of the same name. */
  uid?: string;
  /** Precondition: deletes the object only at this version. */
  resourceVersion?: string;
}

/** The part of a container log to read. */
interface LogPart {
  /** Reads the log of the previous run of the container. */
  previous?: boolean | undefined;
  /** Reads only the last lines; default: from the beginning. */
  tailLines?: number | undefined;
  /** The maximum size in bytes, counted from the start of the part. */
  limitBytes: number;
}

/** All objects of a collection at one resourceVersion. */
interface Collection {
  items: JsonObject[];
  resourceVersion: string;
}

export interface KubeClient {
  /** @returns undefined if the object or its resource type does not exist; see `isServed` */
  getObject(
    gvr: Gvr,
    namespace: string | undefined,
    name: string,
    options?: CallOptions,
  ): Promise<JsonObject | undefined>;
  /**
   * Lists all objects, in pages. Each object has `apiVersion` and `kind`.
   * @param namespace undefined for all namespaces or cluster-scoped objects
   * @throws KubeError of kind `NotFound` if the API server does not serve the resource type
   */
  listObjects(
    gvr: Gvr,
    namespace: string | undefined,
    labelSelector?: string,
    options?: CallOptions,
  ): Promise<JsonObject[]>;
  /** Like `listObjects`, with the resourceVersion from which to watch. */
  listCollection(
    gvr: Gvr,
    namespace: string | undefined,
    selectors?: { labelSelector?: string | undefined; fieldSelector?: string | undefined },
    options?: CallOptions,
  ): Promise<Collection>;
  /** @throws KubeError of kind `Conflict` and reason `AlreadyExists` if the object exists */
  createObject(gvr: Gvr, namespace: string | undefined, body: JsonObject, options?: CallOptions): Promise<JsonObject>;
  /** Replaces the object. If the body has `metadata.resourceVersion`, the object must have that version. */
  replaceObject(
    gvr: Gvr,
    namespace: string | undefined,
    name: string,
    body: JsonObject,
    options?: CallOptions,
  ): Promise<JsonObject>;
  /** @returns false if the object does not exist */
  deleteObject(gvr: Gvr, namespace: string | undefined, name: string, options?: DeleteOptions): Promise<boolean>;
  /**
   * Patches the object. `apply` creates it if it does not exist.
   * @param body a partial object; for `apply` with `apiVersion`, `kind` and `metadata.name`; for `json` a list of operations
   */
  patchObject(
    gvr: Gvr,
    namespace: string | undefined,
    name: string,
    body: JsonObject | unknown[],
    patch: PatchOptions,
    options?: CallOptions,
  ): Promise<JsonObject>;
  /** Reads the log of a container. The text is untrusted. Requires permission to get `pods/log`. */
  podLog(namespace: string, pod: string, container: string, part: LogPart, options?: CallOptions): Promise<string>;
  /**
   * Requests a token of a service account (TokenRequest).
   * @param audiences empty: the audience of the API server
   * @param expirationSeconds at least 600
   * @returns the token, and when it expires, in milliseconds since the epoch
   */
  requestToken(
    namespace: string,
    serviceAccountName: string,
    audiences: readonly string[],
    expirationSeconds: number,
    options?: CallOptions,
  ): Promise<{ token: string; expiresAtMs: number }>;
  /**
   * Whether RBAC gives the caller a permission (SelfSubjectAccessReview). Admission can refuse the request all the same.
   * @throws KubeError, also of kind `Forbidden` if the cluster does not let service accounts ask
   */
  isAllowed(permission: Omit<Permission, 'user'>, options?: CallOptions): Promise<boolean>;
  /** Whether the API server serves the resource type; for a custom resource, whether its CRD is installed. */
  isServed(gvr: Gvr, options?: CallOptions): Promise<boolean>;
  /** Returns the version of the API server, such as `v1.34.4`. The call also shows whether the API server responds. */
  version(options?: CallOptions): Promise<string>;
  /** Returns the issuer (claim `iss`) of the tokens of service accounts, from the discovery document; every service account may read it by default. */
  tokenIssuer(options?: CallOptions): Promise<string>;
  /** Returns a client whose requests carry this token, and no other credentials. */
  withToken(token: Secret): KubeClient;
  /** Returns a client whose calls all fail when the signal aborts, as if each had this signal in its options. */
  within(signal: AbortSignal): KubeClient;
}

/** Creates a client with the credentials of the KubeConfig. Pass a `PooledKubeConfig`: a plain one opens a connection per request. */
export function createKubeClient(kubeConfig: KubeConfig, options: TransportOptions = {}): KubeClient {
  return clientOn(createTransport(kubeConfig, options), createTextTransport(kubeConfig, options));
}

const pageSize = '500';
/** The longest issuer of tokens that is kept, in UTF-16 code units. */
const longestIssuer = 300;

const pods = { group: '', version: 'v1', plural: 'pods' };

const contentTypes = {
  merge: 'application/merge-patch+json',
  json: 'application/json-patch+json',
  apply: 'application/apply-patch+yaml',
} as const;

const noText: SendForText = ({ what }) =>
  Promise.reject(new KubeError(`${what}: no transport for text`, { kind: 'Unknown' }));

/** Creates a client on a transport. @param sendForText transport for logs; default: reading logs fails */
export function clientOn(send: Send, sendForText: SendForText = noText): KubeClient {
  const listCollection: KubeClient['listCollection'] = async (gvr, namespace, selectors = {}, { signal } = {}) => {
    const items: JsonObject[] = [];
    const path = resourcePath(gvr, namespace);
    const what = describeRequest('list', gvr, namespace);
    for (let token: string | undefined; ;) {
      const query = { ...selectors, limit: pageSize, continue: token };
      try {
        const page = await send({ method: 'GET', path, query, signal, what });
        items.push(...itemsOf(page));
        token = str(dig(page, 'metadata', 'continue')) || undefined;
        if (token === undefined) return { items, resourceVersion: str(dig(page, 'metadata', 'resourceVersion')) };
      } catch (error) {
        // The version of the first page was compacted (410 Gone): start again at the first page.
        if (token === undefined || !isKubeError(error, 'Gone')) throw error;
        token = undefined;
        items.length = 0;
      }
    }
  };

  return {
    listCollection,
    listObjects: async (gvr, namespace, labelSelector, options) =>
      (await listCollection(gvr, namespace, { labelSelector }, options)).items,
    getObject: (gvr, namespace, name, { signal } = {}) => {
      const what = describeRequest('get', gvr, namespace, name);
      return unless('NotFound', send({ method: 'GET', path: resourcePath(gvr, namespace, name), signal, what }));
    },
    createObject: (gvr, namespace, body, { signal } = {}) => {
      const what = describeRequest('create', gvr, namespace, nameOf(body));
      return send({ method: 'POST', path: resourcePath(gvr, namespace), body, signal, what });
    },
    replaceObject: (gvr, namespace, name, body, { signal } = {}) => {
      const what = describeRequest('update', gvr, namespace, name);
      return send({ method: 'PUT', path: resourcePath(gvr, namespace, name), body, signal, what });
    },
    deleteObject: async (gvr, namespace, name, options = {}) => {
      const what = describeRequest('delete', gvr, namespace, name);
      const body = deleteBody(options);
      const path = resourcePath(gvr, namespace, name);
      return (
        (await unless('NotFound', send({ method: 'DELETE', path, body, signal: options.signal, what }))) !== undefined
      );
    },
    patchObject: (gvr, namespace, name, body, patch, { signal } = {}) => {
      const what = describeRequest('patch', gvr, namespace, name);
      const path =
        resourcePath(gvr, namespace, name) + (patch.subresource === undefined ? '' : `/${patch.subresource}`);
      const query = { fieldManager: patch.fieldManager, force: patch.force === true ? 'true' : undefined };
      return send({ method: 'PATCH', path, query, body, contentType: contentTypes[patch.type], signal, what });
    },
    podLog: (namespace, pod, container, { previous, tailLines, limitBytes }, { signal } = {}) => {
      const query = {
        container,
        previous: previous === true ? 'true' : undefined,
        tailLines: tailLines === undefined ? undefined : String(tailLines),
        limitBytes: String(limitBytes),
      };
      const path = `${resourcePath(pods, namespace, pod)}/log`;
      return sendForText({
        method: 'GET',
        path,
        query,
        signal,
        what: describeRequest('get the log of', pods, namespace, pod),
      });
    },
    requestToken: (namespace, name, audiences, seconds, options) =>
      requestToken(send, namespace, name, audiences, seconds, options),
    isAllowed: async ({ verb, group, resource, namespace }, { signal } = {}) => {
      const reviews = { group: 'authorization.k8s.io', version: 'v1', plural: 'selfsubjectaccessreviews' };
      const what = `ask for the right to ${verb} ${resource}`;
      const body = {
        apiVersion: 'authorization.k8s.io/v1',
        kind: 'SelfSubjectAccessReview',
        spec: { resourceAttributes: { verb, group, resource, namespace } },
      };
      const answer = await send({ method: 'POST', path: resourcePath(reviews), body, signal, what });
      return dig(answer, 'status', 'allowed') === true;
    },
    isServed: async (gvr, { signal } = {}) => {
      const what = `discover ${gvr.group === '' ? gvr.version : `${gvr.group}/${gvr.version}`}`;
      const discovery = await unless('NotFound', send({ method: 'GET', path: groupVersionPath(gvr), signal, what }));
      return itemsIn(discovery?.['resources']).some((resource) => dig(resource, 'name') === gvr.plural);
    },
    tokenIssuer: async ({ signal } = {}) => {
      const path = '/.well-known/openid-configuration';
      const answer = await send({ method: 'GET', path, signal, what: 'read the issuer of service account tokens' });
      return str(dig(answer, 'issuer')).slice(0, longestIssuer);
    },
    version: async ({ signal } = {}) => {
      const answer = await send({ method: 'GET', path: '/version', signal, what: 'ask for the version' });
      return str(answer['gitVersion']);
    },
    withToken: (token) => clientOn(as(send, token), as(sendForText, token)),
    within: (signal) => clientOn(bound(send, signal), bound(sendForText, signal)),
  };
}

/** Returns a function that sends requests which fail when the signal aborts. */
const bound =
  <T>(send: (request: KubeRequest) => Promise<T>, signal: AbortSignal) =>
  (request: KubeRequest): Promise<T> =>
    send({ ...request, signal: request.signal ? AbortSignal.any([request.signal, signal]) : signal });

/** Returns a function that sends requests with a token in place of other credentials. */
const as =
  <T>(send: (request: KubeRequest) => Promise<T>, token: Secret) =>
  (request: KubeRequest): Promise<T> =>
    send({ ...request, token });

async function requestToken(
  send: Send,
  namespace: string,
  name: string,
  audiences: readonly string[],
  expirationSeconds: number,
  { signal }: CallOptions = {},
): Promise<{ token: string; expiresAtMs: number }> {
  const accounts = { group: '', version: 'v1', plural: 'serviceaccounts' };
  const what = describeRequest('request a token of', accounts, namespace, name);
  const spec = { expirationSeconds, ...(audiences.length === 0 ? {} : { audiences: [...audiences] }) };
  const body = { apiVersion: 'authentication.k8s.io/v1', kind: 'TokenRequest', spec };
  const path = `${resourcePath(accounts, namespace, name)}/token`;
  const answer = await send({ method: 'POST', path, body, signal, what });
  const token = str(dig(answer, 'status', 'token'));
  const expiresAtMs = Date.parse(str(dig(answer, 'status', 'expirationTimestamp')));
  if (token === '' || Number.isNaN(expiresAtMs))
    throw new KubeError(`${what}: no token came back`, { kind: 'Unknown' });
  return { token, expiresAtMs };
}

/** The objects of a list. Each gets `apiVersion` and `kind`, which the API server omits for built-in types in lists. */
function itemsOf(page: JsonObject): JsonObject[] {
  const { apiVersion } = page;
  const kind = str(page['kind']).replace(/List$/, '');
  return itemsIn(page['items'])
    .filter(isObject)
    .map((item) => ({ ...(apiVersion === undefined ? {} : { apiVersion }), kind, ...item }));
}

function deleteBody(options: DeleteOptions): JsonObject {
  const { uid, resourceVersion } = options;
  const preconditions = {
    ...(uid === undefined ? {} : { uid }),
    ...(resourceVersion === undefined ? {} : { resourceVersion }),
  };
  return { apiVersion: 'v1', kind: 'DeleteOptions', propagationPolicy: 'Background', preconditions };
}

/** Describes a request for error messages, such as `get deployments.apps istio-system/istiod`. */
function describeRequest(verb: string, gvr: Gvr, namespace: string | undefined, name?: string): string {
  const resource = gvr.group === '' ? gvr.plural : `${gvr.plural}.${gvr.group}`;
  const object = [namespace, name].filter((part) => part !== undefined).join('/');
  return `${verb} ${resource}${object === '' ? '' : ` ${object}`}`;
}

/** The name of an object to create, or its `generateName` followed by `*`. */
function nameOf(body: JsonObject): string {
  return str(dig(body, 'metadata', 'name')) || `${str(dig(body, 'metadata', 'generateName'))}*`;
}
