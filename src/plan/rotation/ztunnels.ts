/**
 * The ztunnels of an ambient mesh in a root rotation. ztunnel verifies istiod by the roots in its file, which is istiod's ConfigMap. Before
 * version 1.30 (and patches of 1.28 and 1.29 whose numbers are not known here), or with `CA_CERT_WATCHER=false`, it reads that file only when it starts: without a restart it
 * would refuse istiod as soon as the new root signs, and would get neither certificates nor configuration any more. Pure.
 * Source: https://github.com/istio/ztunnel/pull/1775
 */
import { rfc3339 } from '../../api/time.ts';
import { grantedBy, missingPermission } from '../../api/permissions.ts';
import type { DerivedState } from '../facts/derived.ts';
import type { Ztunnel } from '../facts/observed-istiod.ts';
import type { Problem } from '../facts/problem.ts';
import type { Rotation } from '../facts/state-entry.ts';
import { olderThan } from '../proof/replica.ts';

/** The first minor version of Istio 1 whose ztunnel takes up other roots without a restart. An unknown version does not. */
const reloadsSince = 30;

/** Every Pod of the ztunnel takes up other roots without a restart. The version is that of the template. */
const reloads = ({ version, outdated, watchesNoRoots }: Ztunnel): boolean =>
  version !== '' && !olderThan(version, reloadsSince) && !outdated && !watchesNoRoots;

/** Whether ztunnels decide when a rotation goes on: until the new root signs. */
export const needsZtunnels = (rotation: Rotation | undefined): boolean =>
  rotation === undefined || /^(Issuing|Distributing)$/.test(rotation.phase);

/**
 * Allowance in milliseconds between the time at which both roots were seen everywhere, by the operator's clock, and the creation of a Pod, by
 * the API server's.
 */
const clockSkewMs = 60_000;

/** Returns the problem that the ztunnels cannot be read; undefined: they can, or nothing depends on them. */
export function ztunnelsUnreadable(s: DerivedState): Problem | undefined {
  const { ztunnels } = s.kubernetes.istiod ?? {};
  if (!ztunnels || Array.isArray(ztunnels) || !needsZtunnels(s.stateEntry?.rotation)) return undefined;
  const why = 'istiod has PILOT_ENABLE_AMBIENT, and a ztunnel can need a restart before another root signs';
  const message = `${missingPermission(ztunnels.lacking, grantedBy('ambient'))} A rotation of the root needs it: ${why}`;
  return { condition: 'RootReady', reason: 'Forbidden', message, blocks: 'nothing' };
}

/**
 * Returns the ztunnel restart that a phase waits for before the new root signs, as a noun phrase; empty: none.
 */
export function ztunnelRestart(s: DerivedState, { phase, reachedAt }: Pick<Rotation, 'phase' | 'reachedAt'>): string {
  const { ztunnels } = s.kubernetes.istiod ?? {};
  if (phase !== 'Distributing' || reachedAt === undefined || !ztunnels) return '';
  if (!Array.isArray(ztunnels)) return 'permission to read the ztunnels (component ambient, docs/rbac.md)';
  const from = Date.parse(reachedAt) + clockSkewMs;
  for (const ztunnel of ztunnels.filter((one) => !reloads(one))) {
    const { namespace, name, unfinished, oldestPod } = ztunnel;
    const what = `DaemonSet ${namespace}/${name}`;
    if (oldestPod && oldestPod.createdMs <= from)
      return `a restart of ${what} after ${rfc3339(from)} (pod ${oldestPod.name} is older), since its ztunnel takes up another root only when it starts: kubectl rollout restart daemonset/${name} -n ${namespace}${unfinished === undefined ? '' : ` (its rollout: ${unfinished})`}`;
    if (unfinished !== undefined) return `the rollout of ${what}: ${unfinished}`;
  }
  return '';
}
