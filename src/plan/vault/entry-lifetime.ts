/** Vault's `delete_version_after`: a key store that deletes what it is given, by itself and without a word. */
import { reasons } from '../../api/conditions.ts';
import type { DerivedState } from '../facts/derived.ts';
import { rfc3339 } from '../../api/time.ts';
import { abandonedStagingMarker } from '../ownership/ownership.ts';
import { ownEntry, type Lifetime, type Observed, type Slot } from '../facts/observed.ts';
import type { Problem } from '../facts/problem.ts';

const halfOf = ({ from, to }: Lifetime): number => from + (to - from) / 2;

/**
 * Half of its time is over, by the clock that set it: it is written again, and the new version lives as long anew, or for good once the setting is
 * gone. Since that clock is read once a reconcile, nothing is written anew twice in one.
 */
export const needsRewrite = ({ lifetime }: Slot<unknown>, { vault }: Observed): boolean =>
  lifetime !== undefined && vault.time >= halfOf(lifetime);

/**
 * What we have written, or are about to take over, would vanish. The state tells it before a key is stored: then none is. What is published already is kept
 * alive and renewed all the same, since istiod needs it.
 */
export function keyStoreDeletes(s: DerivedState): Problem | undefined {
  const { mount, path } = s.spec.keyStore;
  const { live, staging, state } = s.vault;
  const ending = [
    { name: path, slot: live },
    // what a gone resource has left there is destroyed anyway
    ...(abandonedStagingMarker(s) === undefined ? [{ name: `${path}-staging`, slot: staging }] : []),
    { name: `${path}-state`, slot: state },
  ].flatMap(({ name, slot }) => (slot.lifetime ? [{ name, version: slot.casVersion, lifetime: slot.lifetime }] : []));
  if (ending.length === 0) return undefined;
  // published already, be it written over since
  const { made = [], history = [] } = ownEntry(state) ?? {};
  const needed =
    ownEntry(live) !== undefined || made.includes(`entry:${path}`) || (live.entry === undefined && history.length > 0);
  const what = ending.map(({ name, lifetime }) => `${mount}/${name} on ${rfc3339(lifetime.to)}`).join(', ');
  const meanwhile = needed
    ? 'While that lasts, what is published and what is recorded is written anew when half of its time is over, and is lost when this operator is away for longer, or something else stops it'
    : 'No key is stored there';
  const commands = [
    `vault write ${mount}/config delete_version_after=0s`,
    ...ending.map(({ name }) => `vault kv metadata put -mount=${mount} -delete-version-after=0s ${name}`),
    ...ending.map(({ name, version }) => `vault kv undelete -mount=${mount} -versions=${version} ${name}`),
  ];
  const due = [live, state].flatMap(({ lifetime }) => (lifetime ? [halfOf(lifetime) - s.vault.time] : []));
  return {
    condition: 'KeyStored',
    reason: 'TTLTruncated',
    message: `spec.keyStore: Vault deletes ${what}, since delete_version_after is set for the mount or the entry. ${meanwhile}. Take the setting away, and then the end that it has given: ${commands.map((command) => `\`${command}\``).join(', ')}`,
    blocks: needed ? 'nothing' : 'all',
    retryAfterMs: Math.max(
      1_000,
      Math.min(reasons.TTLTruncated.recheckMs, ...(needed ? due.filter((ms) => ms > 0) : [])),
    ),
  };
}
