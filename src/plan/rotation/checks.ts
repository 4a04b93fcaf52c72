/** Preconditions of a root rotation in `spec.delivery` and in istiod, checked before the rotation begins and while it lasts. Pure. */
import type { DerivedState } from '../facts/derived.ts';
import { annotations as known } from '../../api/annotations.ts';
import { pendingRequest } from '../facts/desired.ts';
import { hasDigest } from '../control-plane/istiod-fields.ts';
import { olderThan } from '../proof/replica.ts';
import type { Problem } from '../facts/problem.ts';
import { comingRoots } from './owners-roots.ts';
import { ztunnelsUnreadable } from './ztunnels.ts';

/**
 * Returns why istiod would not reload a trust bundle with two roots from its files; `undefined`: istiod reloads it. Before version 1.20,
 * istiod needs a restart to load another root. Since 1.20, istiod reloads a second root only if `ISTIO_MULTIROOT_MESH` is true. An unknown
 * version counts as 1.20 or newer.
 * Source: https://github.com/istio/istio, pilot/pkg/bootstrap/istio_ca.go, handleEvent
 */
export function cannotReload(istiod: { name: string; multiRoot: boolean; version: string }): string | undefined {
  if (olderThan(istiod.version, 20))
    return `Deployment ${istiod.name} runs Istio ${istiod.version}, which takes up no other root without a restart: set spec.rollout: WhenChanged (with controlPlane.write: Patch)`;
  if (istiod.multiRoot) return undefined;
  return `Deployment ${istiod.name} takes up no second root without a restart: set ISTIO_MULTIROOT_MESH=true on istiod, or spec.rollout: WhenChanged (with controlPlane.write: Patch)`;
}

/** Returns why a requested rotation cannot begin or why the roots of a running rotation cannot be delivered; `undefined`: neither is so. */
export function rotationProblem(s: DerivedState): Problem | undefined {
  const state = s.stateEntry;
  if (s.checksOnly) return undefined;
  const isAsked = state && pendingRequest(s.desired, state.handled, known.rotateRoot) !== undefined;
  if (!state || !(state.rotation || isAsked || comingRoots(s).length > 0)) return undefined;
  const { delivery } = s.spec;
  if (delivery.source === 'PKI') {
    return {
      condition: 'RootReady',
      reason: 'RootRotationNeedsBundle',
      message:
        'spec.delivery.source: PKI hands out one root only, and a rotation needs two at a time: set spec.delivery.source: Bundle until the rotation is over',
      // while two roots are in use, istiod must not be switched to another delivery source
      blocks: state.rotation ? 'controlPlane' : 'nothing',
    };
  }
  const unreadable = ztunnelsUnreadable(s);
  if (unreadable) return unreadable;
  if (hasDigest(s.spec)) return undefined;
  const deployments = (s.kubernetes.istiod?.deployments ?? []).filter(({ replicas }) => replicas.desired > 0);
  const message = deployments.map(cannotReload).find((obstacle) => obstacle !== undefined);
  if (message === undefined) return undefined;
  return { condition: 'RootReady', reason: 'MultiRootDisabled', message, blocks: 'nothing' };
}
