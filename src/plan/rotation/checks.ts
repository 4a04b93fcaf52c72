/** What a root rotation needs of the delivery and of istiod: said before it begins. */
import type { DerivedState } from '../facts/derived.ts';
import { annotations as known } from '../../api/annotations.ts';
import { pendingRequest } from '../facts/desired.ts';
import { hasDigest } from '../control-plane/istiod-fields.ts';
import { olderThan } from '../proof/replica.ts';
import type { Problem } from '../facts/problem.ts';

/**
 * Why istiod, left to watch its files, would not take up a bundle of two roots.
 * Istio before 1.20 takes up no other root at all without a restart; later ones only with ISTIO_MULTIROOT_MESH.
 * https://github.com/istio/istio, pilot/pkg/bootstrap/istio_ca.go, handleEvent
 */
export function cannotReload(istiod: { name: string; multiRoot: boolean; version: string }): string | undefined {
  if (olderThan(istiod.version, 20))
    return `Deployment ${istiod.name} runs Istio ${istiod.version}, which takes up no other root without a restart: set spec.rollout: WhenChanged (with controlPlane.write: Patch)`;
  if (istiod.multiRoot) return undefined;
  return `Deployment ${istiod.name} takes up no second root without a restart: set ISTIO_MULTIROOT_MESH=true on istiod, or spec.rollout: WhenChanged (with controlPlane.write: Patch)`;
}

/** A rotation that is asked for cannot begin, or one that goes on could not be delivered. */
export function rotationProblem(s: DerivedState): Problem | undefined {
  const state = s.stateEntry;
  if (!state || (!state.rotation && pendingRequest(s.desired, state.handled, known.rotateRoot) === undefined))
    return undefined;
  const { delivery } = s.spec;
  if (delivery.source === 'PKI') {
    return {
      condition: 'RootReady',
      reason: 'RootRotationNeedsBundle',
      message:
        'spec.delivery.source: PKI hands out one root only, and a rotation needs two at a time: set spec.delivery.source: Bundle until the rotation is over',
      // istiod must not be moved to another source while two roots are in use
      blocks: state.rotation ? 'controlPlane' : 'nothing',
    };
  }
  if (hasDigest(s.spec)) return undefined;
  const istiods = (s.kubernetes.istiod?.deployments ?? []).filter(({ replicas }) => replicas.desired > 0);
  const why = istiods.map(cannotReload).find((reason) => reason !== undefined);
  if (why === undefined) return undefined;
  return { condition: 'RootReady', reason: 'MultiRootDisabled', message: why, blocks: 'nothing' };
}
