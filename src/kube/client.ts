/** The operations on Kubernetes objects that the program uses, on plain JSON. Every failure is a KubeError. */
import type { KubeConfig } from '@kubernetes/client-node';
import type { Gvr } from '../api/gvr.ts';
import { dig, isObject, items as itemsIn, str, type JsonObject } from '../api/json.ts';
import { isKubeError, KubeError, unless } from './errors.ts';
import { groupVersionPath, resourcePath } from './resources.ts';
import {
  createTextTransport,
  createTransport,
  type Send,
  type SendForText,
  type TransportOptions,
} from './transport.ts';

/** The last argument of every call. */
interface CallOptions {
  /** Ends the call with KubeError `Unavailable`, reason `Aborted`. */
  signal?: AbortSignal | undefined;
}

interface PatchOptions {
  type: 'merge' | 'json' | 'apply';
  subresource?: 'status';
  /** Required for `apply`. */
  fieldManager?: string;
  /** Of `apply`: takes fields over from other managers. */
  force?: boolean;
}

interface DeleteOptions extends CallOptions {
  /** Deletes only this object, not a namesake made since. */
  uid?: string;
  resourceVersion?: string;
}

/** Which part of a container's log. */
interface LogPart {
  /** Of the run before the one that is there. */
  previous?: boolean | undefined;
  /** The last so many lines; from the beginning unless given. */
  tailLines?: number | undefined;
  /** At most so many bytes, counted from where it begins. */
  limitBytes: number;
}

/** A whole collection at one version. */
interface Collection {
  items: JsonObject[];
  resourceVersion: string;
}

export interface KubeClient {
  /** @returns undefined when the object or its resource type does not exist (see `isServed`) */
  getObject(
    gvr: Gvr,
    namespace: string | undefined,
    name: string,
    options?: CallOptions,
  ): Promise<JsonObject | undefined>;
  /**
   * All objects, page by page; `apiVersion` and `kind` are filled in.
   * @param namespace undefined for all namespaces or cluster-scoped objects
   * @throws KubeError NotFound when the resource type is not served
   */
  listObjects(
    gvr: Gvr,
    namespace: string | undefined,
    labelSelector?: string,
    options?: CallOptions,
  ): Promise<JsonObject[]>;
  /** As `listObjects`, with the version to watch from. */
  listCollection(
    gvr: Gvr,
    namespace: string | undefined,
    selectors?: { labelSelector?: string | undefined; fieldSelector?: string | undefined },
    options?: CallOptions,
  ): Promise<Collection>;
  /** @throws KubeError Conflict, reason `AlreadyExists` */
  createObject(gvr: Gvr, namespace: string | undefined, body: JsonObject, options?: CallOptions): Promise<JsonObject>;
  /** Replaces the object; `metadata.resourceVersion` in the body makes it conditional. */
  replaceObject(
    gvr: Gvr,
    namespace: string | undefined,
    name: string,
    body: JsonObject,
    options?: CallOptions,
  ): Promise<JsonObject>;
  /** @returns false when there was nothing to delete */
  deleteObject(gvr: Gvr, namespace: string | undefined, name: string, options?: DeleteOptions): Promise<boolean>;
  /**
   * Patches the object; `apply` makes it when it is absent.
   * @param body a partial object, for `apply` with `apiVersion`, `kind` and `metadata.name`; for `json` a list of operations
   */
  patchObject(
    gvr: Gvr,
    namespace: string | undefined,
    name: string,
    body: JsonObject | unknown[],
    patch: PatchOptions,
    options?: CallOptions,
  ): Promise<JsonObject>;
  /** The log of a container of a pod; foreign text. Needs the right to get `pods/log`. */
  podLog(namespace: string, pod: string, container: string, part: LogPart, options?: CallOptions): Promise<string>;
  /**
   * A token of the service account.
   * @param audiences empty for the API server's own
   * @param expirationSeconds at least 600
   */
  requestToken(
    namespace: string,
    serviceAccountName: string,
    audiences: readonly string[],
    expirationSeconds: number,
    options?: CallOptions,
  ): Promise<{ token: string; expiresAtMs: number }>;
  /** Whether the API server serves the resource type: its CRD is installed. */
  isServed(gvr: Gvr, options?: CallOptions): Promise<boolean>;
  /** The API server's version, such as `v1.34.4`; also the way to see whether it answers. */
  version(options?: CallOptions): Promise<string>;
}

/** A client on the KubeConfig's credentials; give it a PooledKubeConfig. */
export function createKubeClient(kubeConfig: KubeConfig, options: TransportOptions = {}): KubeClient {
  return clientOn(createTransport(kubeConfig, options), createTextTransport(kubeConfig, options));
}

const pageSize = '500';
const pods = { group: '', version: 'v1', plural: 'pods' };

const contentTypes = {
  merge: 'application/merge-patch+json',
  json: 'application/json-patch+json',
  apply: 'application/apply-patch+yaml',
} as const;

const noText: SendForText = ({ what }) =>
  Promise.reject(new KubeError(`${what}: no transport for text`, { kind: 'Unknown' }));

/** A client on any transport. @param sendForText for logs */
export function clientOn(send: Send, sendForText: SendForText = noText): KubeClient {
  const listCollection: KubeClient['listCollection'] = async (gvr, namespace, selectors = {}, { signal } = {}) => {
    const items: JsonObject[] = [];
    const path = resourcePath(gvr, namespace);
    const what = words('list', gvr, namespace);
    for (let token: string | undefined; ;) {
      const query = { ...selectors, limit: pageSize, continue: token };
      try {
        const page = await send({ method: 'GET', path, query, signal, what });
        items.push(...itemsOf(page));
        token = str(dig(page, 'metadata', 'continue')) || undefined;
        if (token === undefined) return { items, resourceVersion: str(dig(page, 'metadata', 'resourceVersion')) };
      } catch (error) {
        // The version the first page was read at has been compacted away: begin anew.
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
      const what = words('get', gvr, namespace, name);
      return unless('NotFound', send({ method: 'GET', path: resourcePath(gvr, namespace, name), signal, what }));
    },
    createObject: (gvr, namespace, body, { signal } = {}) => {
      const what = words('create', gvr, namespace, nameOf(body));
      return send({ method: 'POST', path: resourcePath(gvr, namespace), body, signal, what });
    },
    replaceObject: (gvr, namespace, name, body, { signal } = {}) => {
      const what = words('update', gvr, namespace, name);
      return send({ method: 'PUT', path: resourcePath(gvr, namespace, name), body, signal, what });
    },
    deleteObject: async (gvr, namespace, name, options = {}) => {
      const what = words('delete', gvr, namespace, name);
      const body = deleteBody(options);
      const path = resourcePath(gvr, namespace, name);
      return (
        (await unless('NotFound', send({ method: 'DELETE', path, body, signal: options.signal, what }))) !== undefined
      );
    },
    patchObject: (gvr, namespace, name, body, patch, { signal } = {}) => {
      const what = words('patch', gvr, namespace, name);
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
      return sendForText({ method: 'GET', path, query, signal, what: words('get the log of', pods, namespace, pod) });
    },
    requestToken: (namespace, name, audiences, seconds, options) =>
      requestToken(send, namespace, name, audiences, seconds, options),
    isServed: async (gvr, { signal } = {}) => {
      const what = `discover ${gvr.group === '' ? gvr.version : `${gvr.group}/${gvr.version}`}`;
      const found = await unless('NotFound', send({ method: 'GET', path: groupVersionPath(gvr), signal, what }));
      return itemsIn(found?.['resources']).some((resource) => dig(resource, 'name') === gvr.plural);
    },
    version: async ({ signal } = {}) => {
      const answer = await send({ method: 'GET', path: '/version', signal, what: 'ask for the version' });
      return str(answer['gitVersion']);
    },
  };
}

async function requestToken(
  send: Send,
  namespace: string,
  name: string,
  audiences: readonly string[],
  expirationSeconds: number,
  { signal }: CallOptions = {},
): Promise<{ token: string; expiresAtMs: number }> {
  const accounts = { group: '', version: 'v1', plural: 'serviceaccounts' };
  const what = words('request a token of', accounts, namespace, name);
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

/** The objects of a list, each with the `apiVersion` and `kind` that lists leave out. */
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

function words(verb: string, gvr: Gvr, namespace: string | undefined, name?: string): string {
  const resource = gvr.group === '' ? gvr.plural : `${gvr.plural}.${gvr.group}`;
  const object = [namespace, name].filter((part) => part !== undefined).join('/');
  return `${verb} ${resource}${object === '' ? '' : ` ${object}`}`;
}

function nameOf(body: JsonObject): string {
  return str(dig(body, 'metadata', 'name')) || `${str(dig(body, 'metadata', 'generateName'))}*`;
}
