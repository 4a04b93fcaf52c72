/**
 * KV entries that Vault deletes itself, because `delete_version_after` is set for the mount or the entry.
 * https://developer.hashicorp.com/vault/api-docs/secret/kv/kv-v2
 */
import { reasons } from '../../api/conditions.ts';
import type { DerivedState } from '../facts/derived.ts';
import { rfc3339 } from '../../api/time.ts';
import { abandonedStagingMarker } from '../ownership/ownership.ts';
import { ownEntry, type Lifetime, type Observed, type Slot } from '../facts/observed.ts';
import type { Problem } from '../facts/problem.ts';

/** Middle of a lifetime, milliseconds since the epoch. */
const halfOf = ({ from, to }: Lifetime): number => from + (to - from) / 2;

/**
 * Whether half of the lifetime of an entry is over, by Vault's clock, which set the lifetime. The operator then writes the entry again. The new
 * version has a new lifetime of the same length, or none once the setting is removed. The operator reads Vault's clock once in a reconcile, so
 * it does not write an entry twice in one.
 */
export const needsRewrite = ({ lifetime }: Slot<unknown>, { vault }: Observed): boolean =>
  lifetime !== undefined && vault.time >= halfOf(lifetime);

/**
 * Vault deletes an entry that the operator wrote or is about to adopt. The state entry, which is written first, shows the setting before any
 * key is stored, and then the operator stores none. A CA that is published already is kept and renewed all the same, because istiod needs it.
 */
export function keyStoreDeletes(s: DerivedState): Problem | undefined {
  const { mount, path } = s.spec.keyStore;
  const { live, staging, state } = s.vault;
  if (!s.spec.keyStore.manage) return undefined;
  const expiring = [
    ...(s.checksOnly ? [] : [{ name: path, slot: live }]),
    // an abandoned staging entry is destroyed anyway
    ...(abandonedStagingMarker(s) === undefined ? [{ name: `${path}-staging`, slot: staging }] : []),
    { name: `${path}-state`, slot: state },
  ].flatMap(({ name, slot }) => (slot.lifetime ? [{ name, version: slot.casVersion, lifetime: slot.lifetime }] : []));
  if (expiring.length === 0) return undefined;
  // published already; others can have overwritten the entry since
  const { made = [], history = [] } = ownEntry(state) ?? {};
  const published =
    ownEntry(live) !== undefined || made.includes(`entry:${path}`) || (live.entry === undefined && history.length > 0);
  const what = expiring.map(({ name, lifetime }) => `${mount}/${name} on ${rfc3339(lifetime.to)}`).join(', ');
  const meanwhile = published
    ? 'While that lasts, what is published and what is recorded is written anew when half of its time is over, and is lost when this operator is away for longer, or something else stops it'
    : 'No key is stored there';
  const commands = [
    `vault write ${mount}/config delete_version_after=0s`,
    ...expiring.map(({ name }) => `vault kv metadata put -mount=${mount} -delete-version-after=0s ${name}`),
    ...expiring.map(({ name, version }) => `vault kv undelete -mount=${mount} -versions=${version} ${name}`),
  ];
  const due = [live, state].flatMap(({ lifetime }) => (lifetime ? [halfOf(lifetime) - s.vault.time] : []));
  return {
    condition: 'KeyStored',
    reason: 'TTLTruncated',
    message: `spec.keyStore: Vault deletes ${what}, since delete_version_after is set for the mount or the entry. ${meanwhile}. Take the setting away, and then the end that it has given: ${commands.map((command) => `\`${command}\``).join(', ')}`,
    blocks: published ? 'nothing' : 'all',
    retryAfterMs: Math.max(
      1_000,
      Math.min(reasons.TTLTruncated.recheckMs, ...(published ? due.filter((ms) => ms > 0) : [])),
    ),
  };
}
