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
  type ReleaseInput,
} from './adapter.ts';
import {
  overlayCarries,
  overlayConflicts,
  overlayPatches,
  releaseOverlay,
  writeOverlay,
  type Places,
} from './overlay.ts';

/** TSB names the IstioOperator after the revision; without one it has its fixed name. */
export const istioOperatorName = (revision: string | undefined) =>
  revision === undefined ? 'tsb-istiocontrolplane' : `xcp-iop-${revision}`;

const previousSchema = z.object({
  entry: z.enum(['made', 'kept']),
  /** How many of the fields that lead to the list were there before it was first written; all five if unset. */
  depth: z.int().min(0).exactOptional(),
  places: z.record(z.string(), z.unknown()),
});

const listPath = ['spec', 'components', 'istio', 'kubeSpec', 'overlays'];
const overlaysIn = (object: JsonObject) => dig(object, ...listPath);

/** How many fields of the path to the list are there. */
function depthOf(object: JsonObject): number {
  const missing = listPath.findIndex((_, i) => dig(object, ...listPath.slice(0, i + 1)) === undefined);
  return missing < 0 ? listPath.length : missing;
}

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

/** A merge patch of the list. */
const listPatch = (overlays: unknown[]) => ({ spec: { components: { istio: { kubeSpec: { overlays } } } } });

function patch(input: AdapterInput): JsonObject {
  const { operator, overlays, wanted, previous, places } = look(input);
  const written = writeOverlay(overlays, operator, wanted, places);
  const entry = previous?.entry ?? (written.overlays.length > overlays.length ? 'made' : 'kept');
  const depth = previous ? previous.depth : depthOf(input.object);
  const record = { entry, ...(depth === undefined ? {} : { depth }), places: written.places };
  return {
    ...annotationPatch(input.object, { [previousAnnotation(input.revision)]: JSON.stringify(record) }),
    ...listPatch(written.overlays),
  };
}

/** Takes away the fields that only lead to an empty list and were not there before. */
function withoutEmpty(object: JsonObject, depth: number): JsonObject {
  let cut = listPath.length;
  // the field above is only ours to remove when the one below was its only content
  while (cut > depth + 1 && Object.keys(dig(object, ...listPath.slice(0, cut - 1)) as JsonObject).length === 1)
    cut -= 1;
  return listPath
    .slice(0, cut)
    .reduceRight<JsonObject | null>((below, field) => ({ [field]: below }), null) as JsonObject;
}

function release({ object, revision }: ReleaseInput): JsonObject {
  const previous = previousOf(object, revision);
  const annotations = annotationPatch(object, {
    [ownerAnnotation(revision)]: null,
    [previousAnnotation(revision)]: null,
  });
  if (!previous || overlaysIn(object) === undefined) return annotations;
  const { entry, depth = listPath.length, places } = previous;
  const overlays = releaseOverlay(overlaysOf(object), istioOperatorName(revision), places, entry === 'made');
  const bare = overlays.length === 0 && depth < listPath.length;
  return { ...annotations, ...(bare ? withoutEmpty(object, depth) : listPatch(overlays)) };
}

export const tetrate: ControlPlaneAdapter = {
  gvr: { group: 'install.tetrate.io', version: 'v1alpha1', plural: 'controlplanes' },
  facts,
  patch,
  release,
};
