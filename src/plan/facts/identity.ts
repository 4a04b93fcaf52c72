/** Who owns what: marks and names that carry the identity of a resource into Vault. */
import { createHash } from 'node:crypto';

/** What identifies a resource across clusters and re-creations. */
export interface Identity {
  /** UID of the cluster's kube-system namespace. */
  cluster: string;
  namespace: string;
  name: string;
  /** UID of the resource; another one with the same cluster, namespace and name is the same owner. */
  uid: string;
}

export type Origin = 'made' | 'adopted';

/** The mark on a mount's description, a policy's first comment and a KV entry. */
export function markerOf(id: Identity, origin: Origin = 'made'): string {
  return `istio-vault-ca cluster=${id.cluster} ns=${id.namespace} name=${id.name} uid=${id.uid} origin=${origin}`;
}

/** Reads a mark; undefined when the text carries none. */
export function parseMarker(text: string | undefined): (Identity & { origin: Origin }) | undefined {
  const match = /istio-vault-ca cluster=(\S+) ns=(\S+) name=(\S+) uid=(\S+) origin=(made|adopted)/.exec(text ?? '');
  if (!match) return undefined;
  const [, cluster = '', namespace = '', name = '', uid = '', origin = ''] = match;
  return { cluster, namespace, name, uid, origin: origin === 'adopted' ? 'adopted' : 'made' };
}

/** Ours: the same cluster, namespace and name; a re-created resource has another uid and is still the owner. */
export function isOwnMarker(id: Identity, text: string | undefined): boolean {
  const mark = parseMarker(text);
  return mark?.cluster === id.cluster && mark.namespace === id.namespace && mark.name === id.name;
}

/** Eight hex digits that tell our keys and issuers from those of other resources. */
export function identityHash(id: Identity): string {
  return createHash('sha256').update(`${id.cluster}/${id.namespace}/${id.name}`).digest('hex').slice(0, 8);
}

/** Name of the key and the issuer of a CA generation; `root` ones carry an r. */
export function generationName(id: Identity, tier: 'root' | 'intermediate', generation: number): string {
  return `ivca-${identityHash(id)}-${tier === 'root' ? 'r' : ''}${generation}`;
}

/** The generation in a name of ours; undefined when the name is not ours or of the other tier. */
export function generationOf(id: Identity, tier: 'root' | 'intermediate', name: string): number | undefined {
  const prefix = `ivca-${identityHash(id)}-${tier === 'root' ? 'r' : ''}`;
  const rest = name.startsWith(prefix) ? name.slice(prefix.length) : '';
  return /^[1-9][0-9]{0,8}$/.test(rest) ? Number(rest) : undefined;
}
