/** Tetrate Service Bridge's ControlPlane: an overlay on the IstioOperator that TSB renders. docs: install.tetrate.io/v1alpha1 */
import { z } from 'zod';
import { ownerAnnotation, previousAnnotation } from '../api/annotations.ts';
import type { ControlPlaneFacts } from '../plan/observed.ts';
import {
  annotationOf,
  annotationPatch,
  dig,
  type AdapterInput,
  type ControlPlaneAdapter,
  type JsonObject,
} from './adapter.ts';
import { overlayCarries, overlayConflicts, overlayPatches, writeOverlay, type Places } from './overlay.ts';

/** TSB names the IstioOperator after the revision; without one it has its fixed name. */
export const istioOperatorName = (revision: string | undefined) =>
  revision === undefined ? 'tsb-istiocontrolplane' : `xcp-iop-${revision}`;

const previousSchema = z.object({ entry: z.enum(['made', 'kept']), places: z.record(z.string(), z.unknown()) });

const overlaysIn = (object: JsonObject) => dig(object, 'spec', 'components', 'istio', 'kubeSpec', 'overlays');

function overlaysOf(object: JsonObject): unknown[] {
  const list = overlaysIn(object);
  return Array.isArray(list) ? list : [];
}

function previousOf(object: JsonObject, revision: string | undefined): z.output<typeof previousSchema> | undefined {
  const text = annotationOf(object, previousAnnotation(revision));
  if (text === undefined) return undefined;
  try {
    return previousSchema.safeParse(JSON.parse(text)).data;
  } catch {
    return undefined; // edited by hand into something else: our patches are then judged like anybody's
  }
}

function look({ object, revision, fields }: AdapterInput) {
  const previous = previousOf(object, revision);
  const places: Places = previous?.places ?? {};
  return {
    operator: istioOperatorName(revision),
    overlays: overlaysOf(object),
    wanted: overlayPatches(fields),
    previous,
    places,
  };
}

function facts(input: AdapterInput): ControlPlaneFacts {
  const { operator, overlays, wanted, previous, places } = look(input);
  const present = overlaysIn(input.object) ?? [];
  return {
    owner: annotationOf(input.object, ownerAnnotation(input.revision)),
    carriesFields: previous !== undefined && overlayCarries(overlays, operator, wanted, places),
    writtenBefore: previous !== undefined,
    conflicts: Array.isArray(present)
      ? overlayConflicts(overlays, operator, wanted, places)
      : [{ place: 'spec.components.istio.kubeSpec.overlays', value: 'not a list' }],
  };
}

function patch(input: AdapterInput): JsonObject {
  const { operator, overlays, wanted, previous, places } = look(input);
  const written = writeOverlay(overlays, operator, wanted, places);
  const entry = previous?.entry ?? (written.overlays.length > overlays.length ? 'made' : 'kept');
  return {
    ...annotationPatch(input.object, {
      [previousAnnotation(input.revision)]: JSON.stringify({ entry, places: written.places }),
    }),
    spec: { components: { istio: { kubeSpec: { overlays: written.overlays } } } },
  };
}

export const tetrate: ControlPlaneAdapter = {
  gvr: { group: 'install.tetrate.io', version: 'v1alpha1', plural: 'controlplanes' },
  facts,
  patch,
};
