import { expect, it } from '@jest/globals';
import { converge, derived, desiredOf, emptyWorld } from '../../../test/unit/model.ts';
import { holdingMessage } from './holding.ts';

it('ControlPlanePatched names a CA that the control plane’s own operator issues for istiod', () => {
  const d = desiredOf();
  const { world } = converge(d, emptyWorld());
  expect(holdingMessage('ControlPlanePatched', derived(d, world))).not.toContain('another CA');
  Object.assign(world.kubernetes.controlPlane ?? {}, { rivalCa: 'spec.certIssuer.defaultIssuer' });
  expect(holdingMessage('ControlPlanePatched', derived(d, world))).toContain(
    'spec.certIssuer.defaultIssuer of ControlPlane controlplane has another CA issued for istiod',
  );
});
