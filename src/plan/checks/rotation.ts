/** What a root rotation needs of the delivery and of istiod: said before it begins. */
import { annotations as known } from '../../api/annotations.ts';
import { handledText, type Desired } from '../desired.ts';
import { own, type Observed } from '../observed.ts';
import type { Problem } from '../problem.ts';

/** Istio versions as numbers that compare: 1.20.3 is 1020. 0: unknown. */
const minor = (version: string): number => {
  const found = /^v?(\d+)\.(\d+)/.exec(version);
  return found ? Number(found[1]) * 1000 + Number(found[2]) : 0;
};

/**
 * Why istiod, left to watch its files, would not take up a bundle of two roots.
 * Istio before 1.20 takes up no other root at all without a restart; later ones only with ISTIO_MULTIROOT_MESH.
 * https://github.com/istio/istio, pilot/pkg/bootstrap/istio_ca.go, handleEvent
 */
export function cannotReload(istiod: { name: string; multiRoot: boolean; version: string }): string | undefined {
  const version = minor(istiod.version);
  if (version > 0 && version < 1020)
    return `Deployment ${istiod.name} runs Istio ${istiod.version}, which takes up no other root without a restart: set spec.rollout: WhenChanged`;
  if (istiod.multiRoot) return undefined;
  return `Deployment ${istiod.name} takes up no second root without a restart: set ISTIO_MULTIROOT_MESH=true on istiod, or spec.rollout: WhenChanged`;
}

/** A rotation that is asked for cannot begin, or one that goes on could not be delivered. */
export function rotationProblem(d: Desired, o: Observed): Problem | undefined {
  const state = own(o.vault.state);
  const asked = state && handledText(d, known.rotateRoot) !== state.handled[known.rotateRoot];
  if (!state?.rotation && !(asked && known.rotateRoot in d.annotations)) return undefined;
  const { delivery, rollout, controlPlane } = d.spec;
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
  if (rollout === 'WhenChanged' && controlPlane.write === 'Patch') return undefined;
  const istiods = (o.kubernetes.istiod?.deployments ?? []).filter(({ replicas }) => replicas.desired > 0);
  const why = istiods.map(cannotReload).find((reason) => reason !== undefined);
  if (why === undefined) return undefined;
  return { condition: 'RootReady', reason: 'MultiRootDisabled', message: why, blocks: 'nothing' };
}
