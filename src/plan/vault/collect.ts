/** Garbage collection: own keys and issuers in the intermediate mount, and versions of the CA entry, that nothing needs. Pure. */
import type { DerivedState } from '../facts/derived.ts';
import type { CurrentCa, OwnIssuer } from '../facts/derived-vault.ts';
import { generationOf } from '../facts/identity.ts';
import type { Pki } from '../facts/observed.ts';
import { servedEverywhere } from '../rotation/gates.ts';
import type { Step } from '../steps.ts';
import { olderRunOutAt } from './revocation-lists.ts';

/** Most intermediates that are kept for their revocation lists, newest first. */
const mostKeptForLists = 10;

/** Intermediates that Vault needs to go on signing their revocation lists: those that workload certificates can still be from. */
function keptForLists(s: DerivedState): OwnIssuer[] {
  if (!s.spec.delivery.crl || s.now >= olderRunOutAt(s)) return [];
  return s.ownIntermediates.filter(({ certificate }) => certificate.notAfter > s.now).slice(0, mostKeptForLists);
}

/**
 * Garbage-collects own keys and issuers in the intermediate mount. The previous CA generation is kept until every istiod replica serves the
 * current one. Then it is removed, and after it the older versions of the CA entry, which contain its key. Removal does not affect workloads:
 * they verify certificates with the files that they have, not with issuers in Vault.
 */
export function collectUnused(s: DerivedState): Step[] {
  const ca = s.currentCa;
  const state = s.stateEntry;
  const pki = s.vault.intermediatePki;
  if (!ca || !pki || state?.intermediate?.fingerprint !== ca.certificate.fingerprint) return [];
  const previous = state.history.find((e) => e.kind === 'Intermediate' && e.fingerprint !== ca.certificate.fingerprint);
  const served = servedEverywhere(s).passed;
  const own = s.ownIntermediates;
  const kept = new Set([
    ca.certificate.fingerprint,
    served ? undefined : previous?.fingerprint,
    ...keptForLists(s).map(({ certificate }) => certificate.fingerprint),
  ]);
  const issuers = own.filter((issuer) => !kept.has(issuer.certificate.fingerprint));
  const neededKeys = new Set([
    s.keyIdOf(pki, ca),
    ...pki.issuers.filter((i) => kept.has(i.certificate.fingerprint)).map((i) => i.keyId),
  ]);
  const ownKeys = new Set(own.map((issuer) => issuer.keyId));
  const isOwn = ({ id, name }: Pki['keys'][number]) =>
    generationOf(s.identity, 'intermediate', name) !== undefined || ownKeys.has(id);
  const keys = pki.keys.filter((key) => isOwn(key) && !neededKeys.has(key.id));
  if (issuers.length + keys.length === 0) {
    const versions = unusedVersions(s, ca, served);
    return versions.length > 0 ? [{ kind: 'DestroyVersions', versions }] : [];
  }
  const what = `${issuers.length} issuers and ${keys.length} keys that nothing needs`;
  const { mount } = s.spec.intermediate;
  return [{ kind: 'Collect', mount, issuerIds: issuers.map((i) => i.id), keyIds: keys.map((k) => k.id), what }];
}

/**
 * Versions of the CA entry before the current one that can be destroyed. Of the operator's own versions: all of them if every istiod replica
 * serves the current CA, else all but the newest, which is what `max_versions` keeps if the operator wrote all versions. Of other versions: only
 * the adopted one, once its key is not in use.
 * @param served every istiod replica serves the current CA
 */
function unusedVersions({ stateEntry, vault: { liveOlder } }: DerivedState, ca: CurrentCa, served: boolean): number[] {
  const { version: adopted = 0, publicKey } = stateEntry?.stood ?? {};
  const own = liveOlder.filter((version) => version > adopted).sort((a, b) => a - b);
  if (!served) return own.slice(0, -1);
  const keyRetired = publicKey !== undefined && publicKey !== ca.publicKey;
  return [...liveOlder.filter((version) => version === adopted && keyRetired), ...own];
}
