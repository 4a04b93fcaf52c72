/** Steps that publish what to commit, with `spec.controlPlane.write: Render`. Pure. */
import type { Desired } from '../facts/desired.ts';
import type { Observed } from '../facts/observed.ts';
import type { Step } from '../steps.ts';
import { renderName, objectName } from './istiod-fields.ts';

/** How the target is does not matter for what is shown: it may come from the same repository. */
const aboutTarget: ReadonlySet<string> = new Set(['ControlPlaneNotFound', 'ControlPlaneUnfit', 'FieldConflict']);

/**
 * What is to be committed is shown when it would be written otherwise: not before istiod could use it. What this operator has written
 * itself before stays until others hold it too, and then goes.
 */
export function renderSteps(d: Desired, { kubernetes }: Observed, blockers: string[]): Step[] {
  const { rendered, controlPlane } = kubernetes;
  if (rendered !== 'foreign' && rendered !== 'current' && blockers.every((reason) => aboutTarget.has(reason)))
    return [{ kind: 'PublishRender', name: renderName(d), again: rendered === 'other' }];
  if (!controlPlane?.superfluous || controlPlane.owner !== d.identity.name) return [];
  return [{ kind: 'ReleaseControlPlane', target: objectName(d) }];
}
