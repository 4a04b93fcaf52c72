/** The cluster as it would be if a resource had been applied: to look at, never to change. */
import { dig, isObject, type JsonObject } from '../api/json.ts';
import { group, kind, resourceSchema, version, type IstioVaultCA, type Spec } from '../api/schema.ts';
import { rfc3339 } from '../api/time.ts';
import type { KubeClient } from '../kube/client.ts';
import { isKubeError } from '../kube/errors.ts';
import { resources } from './observe-kubernetes.ts';
import { plainJson } from './report.ts';

/** What is applied. */
export interface Applied {
  namespace: string;
  name: string;
  annotations: Record<string, string>;
  spec: Spec;
}

/** Stands in marks for the uid that the API server has not given yet; the owner is told by cluster, namespace and name. */
const noUid = 'not-applied';

/**
 * The resource as the API server would hold it afterwards: annotations of the manifest over those that stand.
 * @param existing as it stands; undefined: not there yet, and so younger than every other
 * @param now milliseconds since the epoch
 */
export function applied(
  { namespace, name, annotations, spec }: Applied,
  existing: JsonObject | undefined,
  now: number,
): IstioVaultCA {
  const before = dig(existing, 'metadata');
  const standing = dig(before, 'annotations');
  return resourceSchema.parse({
    apiVersion: `${group}/${version}`,
    kind,
    metadata: {
      uid: noUid,
      creationTimestamp: rfc3339(now),
      ...(isObject(before) ? before : {}),
      namespace,
      name,
      annotations: { ...(isObject(standing) ? standing : {}), ...annotations },
    },
    spec,
    status: existing?.['status'],
  });
}

const refused = (what: string) => () => Promise.reject(new Error(`a bug: ${what} of a client that only looks`));

/** Reads as if the resource had been applied; also where its type is not installed yet. Every write fails. */
export function asApplied(kube: KubeClient, resource: IstioVaultCA): KubeClient {
  const object = plainJson(resource);
  const { namespace, name } = resource.metadata;
  const ours = (gvr: { group: string; plural: string }) =>
    gvr.group === resources.group && gvr.plural === resources.plural;
  return {
    ...kube,
    getObject: async (gvr, at, called, options) =>
      ours(gvr) && at === namespace && called === name ? object : await kube.getObject(gvr, at, called, options),
    listObjects: async (gvr, at, labels, options) => {
      if (!ours(gvr)) return await kube.listObjects(gvr, at, labels, options);
      const found = await kube.listObjects(gvr, at, labels, options).catch((error: unknown) => {
        if (isKubeError(error, 'NotFound')) return [];
        throw error;
      });
      const isIt = (one: unknown) =>
        dig(one, 'metadata', 'namespace') === namespace && dig(one, 'metadata', 'name') === name;
      return [...found.filter((one) => !isIt(one)), object];
    },
    createObject: refused('a creation'),
    replaceObject: refused('a replacement'),
    deleteObject: refused('a deletion'),
    patchObject: refused('a patch'),
  };
}
