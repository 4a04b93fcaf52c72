/** Steps that publish what to commit, with `spec.controlPlane.write: Render`. Pure. */
import type { DerivedState } from '../facts/derived.ts';
import type { Step } from '../steps.ts';
import { renderName, objectName } from './istiod-fields.ts';

/** How the target is does not matter for what is shown: it may come from the same repository. */
const aboutTarget: ReadonlySet<string> = new Set(['ControlPlaneNotFound', 'ControlPlaneUnfit', 'FieldConflict']);

/**
 * What is to be committed is shown when it would be written otherwise: not before istiod could use it. What this operator has written
 * itself before stays until others hold it too, and then goes.
 */
export function renderSteps(s: DerivedState, blockers: string[]): Step[] {
  const { rendered, controlPlane } = s.kubernetes;
  if (rendered !== 'foreign' && rendered !== 'current' && blockers.every((reason) => aboutTarget.has(reason)))
    return [{ kind: 'PublishRender', name: renderName(s.desired), again: rendered === 'other' }];
  if (!controlPlane?.superfluous || controlPlane.owner !== s.identity.name) return [];
  return [{ kind: 'ReleaseControlPlane', target: objectName(s.desired) }];
}
