/** Ownership markers and names of Vault objects, which identify the resource that an object belongs to. */
import { createHash } from 'node:crypto';

/** Identifies a resource across clusters. */
export interface Identity {
  /** UID of the namespace kube-system, which identifies the cluster. */
  cluster: string;
  namespace: string;
  name: string;
  /** UID of the resource. A re-created resource has another UID and counts as the same owner. */
  uid: string;
}

/** Whether the resource created an object or adopted it. */
export type Origin = 'made' | 'adopted';

/** The ownership marker: part of a mount's description, the first comment of a policy, or a field of a KV entry. */
export function markerOf(id: Identity, origin: Origin = 'made'): string {
  return `istio-vault-ca cluster=${id.cluster} ns=${id.namespace} name=${id.name} uid=${id.uid} origin=${origin}`;
}

/** The part of a text in which an ownership marker is looked for, in UTF-16 code units: a description of a mount, or the text of a policy. */
const markerWithin = 4096;

/** Reads an ownership marker; undefined: the text contains none. Names longer than Kubernetes allows are none. */
export function parseMarker(text: string | undefined): (Identity & { origin: Origin }) | undefined {
  const match =
    /istio-vault-ca cluster=([!-~]{1,64}) ns=([!-~]{1,63}) name=([!-~]{1,253}) uid=([!-~]{1,64}) origin=(made|adopted)/.exec(
      (text ?? '').slice(0, markerWithin),
    );
  if (!match) return undefined;
  const [, cluster = '', namespace = '', name = '', uid = '', origin = ''] = match;
  return { cluster, namespace, name, uid, origin: origin === 'adopted' ? 'adopted' : 'made' };
}

/** Whether a text contains the ownership marker of a resource: cluster, namespace and name are equal. A re-created resource has another UID. */
export function isOwnMarker(id: Identity, text: string | undefined): boolean {
  const marker = parseMarker(text);
  return marker?.cluster === id.cluster && marker.namespace === id.namespace && marker.name === id.name;
}

/** Eight hex digits that distinguish the keys and issuers of this resource from those of other resources. */
export function identityHash(id: Identity): string {
  return createHash('sha256').update(`${id.cluster}/${id.namespace}/${id.name}`).digest('hex').slice(0, 8);
}

/** Name of the key and the issuer of a CA generation. The number in the name of a root follows the letter r. */
export function generationName(id: Identity, tier: 'root' | 'intermediate', generation: number): string {
  return `ivca-${identityHash(id)}-${tier === 'root' ? 'r' : ''}${generation}`;
}

/** The CA generation in a name of {@link generationName}; undefined: the name is of another resource or tier. */
export function generationOf(id: Identity, tier: 'root' | 'intermediate', name: string): number | undefined {
  const prefix = `ivca-${identityHash(id)}-${tier === 'root' ? 'r' : ''}`;
  const rest = name.startsWith(prefix) ? name.slice(prefix.length) : '';
  return /^[1-9][0-9]{0,8}$/.test(rest) ? Number(rest) : undefined;
}

/**
 * The CA generation in a name that some IstioVaultCA gave a root; undefined: another name. A mount has one owner at a time, but one that was taken over
 * has roots named by both.
 */
export function generationOfAnyRoot(name: string): number | undefined {
  const [, digits] = /^ivca-[0-9a-f]{8}-r([1-9][0-9]{0,8})$/.exec(name) ?? [];
  return digits === undefined ? undefined : Number(digits);
}
