/** Whether istiod has had the fields of a resource. Pure. */
import type { DerivedState } from './derived.ts';
import { fieldsAppliedFlag } from './observed.ts';

/**
 * Whether the fields of istiod were written before, so that istiod distributes the roots of this CA. Without a state entry, the fields can come
 * from an earlier resource, which distributed other roots.
 */
export function fieldsWereApplied(s: DerivedState): boolean {
  // nothing is recorded then: only fields as they are to be show it, and before others are written, the roots of the mesh are compared again
  if (!s.spec.keyStore.manage) return s.kubernetes.controlPlane?.carriesFields === true;
  const state = s.stateEntry;
  return (
    state !== undefined && (s.kubernetes.controlPlane?.writtenBefore === true || state.made.includes(fieldsAppliedFlag))
  );
}
