/**
 * Where a certificate signing request goes to be signed outside of Vault (`root.source: External`): a ConfigMap for people, and a CertificateRequest
 * of cert-manager. Pure.
 */
import { createHash } from 'node:crypto';
import type { Spec } from '../../api/schema.ts';
import type { DerivedVault } from './derived-vault.ts';
import type { Identity } from './identity.ts';

/** Name of the ConfigMap with the request. */
export const requestMapName = ({ name }: Pick<Identity, 'name'>): string => `${name}-csr`;

/** Key of the request in that ConfigMap. */
export const requestKey = 'tls.csr';

/** The request of a dry run, in which no key is made. */
export const plannedRequest = 'planned request';

/** An issuer of cert-manager, or one for which another controller answers CertificateRequests. */
export interface IssuerRef {
  name: string;
  kind: string;
  group: string;
}

/** The issuer of cert-manager that a spec names; undefined: none. */
export const issuerRefOf = ({ root }: Spec): IssuerRef | undefined => root.external?.certManagerIssuerRef;

/** Names an issuer in a message: `ClusterIssuer corporate-ca`. */
export const nameOfIssuer = ({ name, kind }: Pick<IssuerRef, 'kind' | 'name'>): string => `${kind} ${name}`;

/** A CertificateRequest that this resource is to have. */
export interface WantedRequest {
  name: string;
  /** The certificate signing request, PEM. */
  csr: string;
  issuer: IssuerRef;
}

/** The most characters of the name of an object. */
const longestName = 253;

/**
 * The CertificateRequest for the request that waits; undefined: the spec names no issuer of cert-manager, or nothing waits. Its name says for which request,
 * issuer, lifetime and resource it is: after a crash it is found again, and one for another issuer is another object.
 */
export function wantedRequest(s: DerivedVault): WantedRequest | undefined {
  const issuer = issuerRefOf(s.spec);
  const staged = s.stagingEntry;
  if (!issuer || s.imports || s.spec.root.source !== 'External' || !staged?.csr) return undefined;
  const csr = staged.csr.pem;
  const { uid } = s.identity;
  const text = [csr, issuer.group, issuer.kind, issuer.name, s.spec.intermediate.ttl, uid].join('\n');
  const hash = createHash('sha256').update(text).digest('hex').slice(0, 8);
  const suffix = `-${staged.generation}-${csr === plannedRequest ? '<hash>' : hash}`;
  const prefix = s.identity.name.slice(0, longestName - suffix.length).replace(/[.-]+$/, '');
  return { name: prefix + suffix, csr, issuer };
}
