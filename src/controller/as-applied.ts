/** A read-only view of the cluster as if a resource were already applied. */
import { dig, isObject, type JsonObject } from '../api/json.ts';
import { group, kind, resourceSchema, version, type IstioVaultCA, type Spec } from '../api/schema.ts';
import { rfc3339 } from '../api/time.ts';
import type { KubeClient } from '../kube/client.ts';
import { isKubeError } from '../kube/errors.ts';
import { resources } from './observe-kubernetes.ts';
import { plainJson } from './report.ts';

/** The resource to apply, from a manifest. */
export interface Applied {
  namespace: string;
  name: string;
  annotations: Record<string, string>;
  spec: Spec;
}

/** UID of a resource that does not exist yet, in ownership markers. Cluster, namespace and name identify the owner, not the UID. */
const noUid = 'not-applied';

/**
 * Returns the resource as the API server would store it. Annotations of the manifest are merged over existing annotations.
 * @param existing the resource in the cluster; `undefined`: it does not exist, and counts as created now
 * @param now milliseconds since the epoch
 */
export function applied(
  { namespace, name, annotations, spec }: Applied,
  existing: JsonObject | undefined,
  now: number,
): IstioVaultCA {
  const before = dig(existing, 'metadata');
  const existingAnnotations = dig(before, 'annotations');
  return resourceSchema.parse({
    apiVersion: `${group}/${version}`,
    kind,
    metadata: {
      uid: noUid,
      creationTimestamp: rfc3339(now),
      ...(isObject(before) ? before : {}),
      namespace,
      name,
      annotations: { ...(isObject(existingAnnotations) ? existingAnnotations : {}), ...annotations },
    },
    spec,
    status: existing?.['status'],
  });
}

/** Rejects a write: the caller of a read-only client has a bug. */
const rejectWrite = (what: string) => () => Promise.reject(new Error(`a bug: ${what} of a client that only looks`));

/** Returns a client that reads as if the resource were applied, also if its CRD is not installed. Every write fails. */
export function asApplied(kube: KubeClient, resource: IstioVaultCA): KubeClient {
  const object = plainJson(resource);
  const { namespace, name } = resource.metadata;
  const isThisType = (gvr: { group: string; plural: string }) =>
    gvr.group === resources.group && gvr.plural === resources.plural;
  return {
    ...kube,
    getObject: async (gvr, at, called, options) =>
      isThisType(gvr) && at === namespace && called === name ? object : await kube.getObject(gvr, at, called, options),
    listObjects: async (gvr, at, labels, options) => {
      if (!isThisType(gvr)) return await kube.listObjects(gvr, at, labels, options);
      const listed = await kube.listObjects(gvr, at, labels, options).catch((error: unknown) => {
        if (isKubeError(error, 'NotFound')) return [];
        throw error;
      });
      const isThisResource = (item: unknown) =>
        dig(item, 'metadata', 'namespace') === namespace && dig(item, 'metadata', 'name') === name;
      return [...listed.filter((item) => !isThisResource(item)), object];
    },
    createObject: rejectWrite('a creation'),
    replaceObject: rejectWrite('a replacement'),
    deleteObject: rejectWrite('a deletion'),
    patchObject: rejectWrite('a patch'),
    withToken: (token) => asApplied(kube.withToken(token), resource),
    within: (signal) => asApplied(kube.within(signal), resource),
  };
}
