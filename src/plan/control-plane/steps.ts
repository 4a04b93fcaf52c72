/** Steps of `spec.controlPlane.write: Render`: publish the fields to commit, and release the fields that the operator wrote before. Pure. */
import type { DerivedState } from '../facts/derived.ts';
import type { Step } from '../steps.ts';
import { renderName, objectName } from './istiod-fields.ts';

/** Reasons that do not block publishing: the control plane object can be created or corrected by the same commit as the fields. */
const targetReasons: ReadonlySet<string> = new Set(['ControlPlaneNotFound', 'ControlPlaneUnfit', 'FieldConflict']);

/**
 * Returns the step that publishes the fields to commit, or the step that releases fields which the operator wrote itself with `write:
 * Patch`. The fields are published under the same preconditions as a write, so not before istiod can use them. The operator releases its
 * own fields when another field manager sets the same values.
 * @param blockers reasons of the problems that block writes to the control plane
 */
export function renderSteps(s: DerivedState, blockers: string[]): Step[] {
  const { rendered, controlPlane } = s.kubernetes;
  if (rendered !== 'foreign' && rendered !== 'current' && blockers.every((reason) => targetReasons.has(reason)))
    return [{ kind: 'PublishRender', name: renderName(s.desired), again: rendered === 'other' }];
  if (!controlPlane?.superfluous || controlPlane.owner !== s.identity.name) return [];
  return [{ kind: 'ReleaseControlPlane', target: objectName(s.desired) }];
}
