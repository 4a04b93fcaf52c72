/** The Lease object of the leader election in the API server. */
import { isObject, str, type JsonObject } from '../api/json.ts';
import type { LeaseRecord, LeaseSnapshot, LeaseStore } from '../runtime/leader-election.ts';
import type { KubeClient } from './client.ts';

const leases = { group: 'coordination.k8s.io', version: 'v1', plural: 'leases' };

/** Creates the operations on one Lease. They throw `KubeError`. */
export function createLeaseStore(client: KubeClient, namespace: string, name: string): LeaseStore {
  const body = (record: LeaseRecord, metadata: JsonObject): JsonObject => ({
    apiVersion: 'coordination.k8s.io/v1',
    kind: 'Lease',
    metadata: { ...metadata, name, namespace },
    spec: specOf(record),
  });
  let metadata: JsonObject = {};
  const remember = (object: JsonObject): LeaseSnapshot => {
    metadata = isObject(object['metadata']) ? object['metadata'] : {};
    return { record: recordOf(object), resourceVersion: str(metadata['resourceVersion']) };
  };
  return {
    async get(signal) {
      const object = await client.getObject(leases, namespace, name, { signal });
      return object === undefined ? undefined : remember(object);
    },
    async create(record, signal) {
      return remember(await client.createObject(leases, namespace, body(record, {}), { signal }));
    },
    async update(record, resourceVersion, signal) {
      const object = body(record, { ...metadata, resourceVersion });
      return remember(await client.replaceObject(leases, namespace, name, object, { signal }));
    },
  };
}

/** The spec of the Lease. Fields with an empty value are omitted, as client-go does. */
function specOf(record: LeaseRecord): JsonObject {
  return Object.fromEntries(Object.entries(record).filter(([, value]) => value !== ''));
}

function recordOf(object: JsonObject): LeaseRecord {
  const spec = isObject(object['spec']) ? object['spec'] : {};
  return {
    holderIdentity: str(spec['holderIdentity']),
    leaseDurationSeconds: asNumber(spec['leaseDurationSeconds']),
    acquireTime: str(spec['acquireTime']),
    renewTime: str(spec['renewTime']),
    leaseTransitions: asNumber(spec['leaseTransitions']),
  };
}

const asNumber = (value: unknown): number => (typeof value === 'number' ? value : 0);
