/** What others manage (`manage: false`), as far as it is known by its certificates. Pure. */
import type { Spec } from '../../api/schema.ts';
import { bundleFacts, type CertificateFacts } from './certificate.ts';
import { pathTo } from './certificate-path.ts';
import type { CaEntry, ObservedVault } from './observed.ts';
import type { IssuedRoot } from './state-entry.ts';

/**
 * The files of the CA that istiod gets while others manage it (`intermediate.manage: false`), which need not fit together: with `delivery.source: Bundle` those of the CA entry. With `PKI` only the key is from there: the
 * certificates are those that the two mounts serve, as in the manual procedure.
 * @param entry the CA entry, whoever wrote it
 * @returns undefined: there is no such entry, and no certificate
 */
export function deliveredCa(
  { delivery }: Spec,
  { intermediatePki, existing, rootPki }: ObservedVault,
  entry: CaEntry | undefined,
): CaEntry | undefined {
  if (delivery.source === 'Bundle') return entry;
  const issuers = intermediatePki?.issuers ?? [];
  const certificate = issuers.find(({ id }) => id === intermediatePki?.defaultIssuerId)?.certificate;
  if (!entry && !certificate) return undefined;
  const root = (
    rootPki?.issuers.find(({ id }) => id === rootPki.defaultIssuerId) ??
    existing?.found.find(({ id }) => id === existing.defaultId)
  )?.certificate;
  const cas = issuers.map((issuer) => issuer.certificate);
  const path = certificate && root ? pathTo(certificate, cas, [root]) : undefined;
  const chain = path && path.length > 1 ? path.slice(0, -1) : certificate ? [certificate] : [];
  return {
    generation: entry?.generation ?? 0,
    keyRef: '',
    certificate,
    chain: chain.map(({ pem }) => pem).join(''),
    root: root?.pem ?? '',
    publicKey: entry?.publicKey,
    ...(entry?.unreadableKey ? { unreadableKey: true as const } : {}),
  };
}

/**
 * The certificate of a root that this resource generated and others manage now, whose record has none; undefined: it is not known, or it is no such
 * root.
 * @param entry the CA entry
 */
export function certificateOfHandedOver(
  { root }: Spec,
  { existing }: ObservedVault,
  entry: CaEntry | undefined,
  record: IssuedRoot | undefined,
): CertificateFacts | undefined {
  if (root.source !== 'Generate' || root.manage || record?.fingerprint === undefined) return undefined;
  const inMount = (existing?.found ?? []).map(({ certificate }) => certificate);
  return [...inMount, ...bundleFacts(entry?.root ?? '')].find(({ fingerprint }) => fingerprint === record.fingerprint);
}
