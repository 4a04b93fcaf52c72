/**
 * The ControlPlane of Tetrate Service Bridge (TSB): the fields are an overlay on the IstioOperator that TSB renders. API:
 * install.tetrate.io/v1alpha1
 */
import { z } from 'zod';
import { ownerAnnotation, previousAnnotation } from '../api/annotations.ts';
import { dig, isObject, items, str, type JsonObject } from '../api/json.ts';
import { grantedBy, missingPermission, permissionOn } from '../api/permissions.ts';
import type { IstiodFields } from '../plan/control-plane/istiod-fields.ts';
import { controlPlaneKinds } from '../plan/control-plane/kinds.ts';
import type { ControlPlaneFacts, Unfit } from '../plan/facts/observed.ts';
import {
  annotationOf,
  nest,
  previousOf,
  formatValue,
  type ControlPlaneAdapter,
  type Target,
  type Write,
} from './adapter.ts';
import { isManagedOnlyByOperator, managerOf, toolOf } from './managers.ts';
import {
  isEntry,
  overlayCarries,
  overlayConflicts,
  overlayPatches,
  releaseOverlay,
  writeOverlay,
  type EntryBefore,
  type OverlayPatch,
  type PatchCounts,
} from './overlay.ts';
import { missingPaths } from './overlay-effect.ts';
import type { IstiodValues } from '../plan/facts/trust-places.ts';
import { istioOperatorPaths, objectReader, patchReader, istiodValuesOf } from './istiod-values.ts';

const { group, clusterScoped, component } = controlPlaneKinds.TetrateControlPlane;
/** The type of the IstioOperators that TSB renders. */
const rendered = { group: 'install.istio.io', version: 'v1alpha1', plural: 'istiooperators' };

const plainOperator = 'tsb-istiocontrolplane';
const operatorOf = (revision: string) => `xcp-iop-${revision}`;

/** The revisions in the isolation boundaries of the ControlPlane. https://docs.tetrate.io/service-bridge, Istio isolation boundaries */
function boundaryRevisions(object: JsonObject | undefined): string[] {
  return items(dig(object, 'spec', 'components', 'xcp', 'isolationBoundaries'))
    .flatMap((boundary) => items(dig(boundary, 'revisions')))
    .map((revision) => dig(revision, 'name'))
    .filter((name) => typeof name === 'string');
}

/**
 * The name of the IstioOperator that TSB renders for the revision. An overlay must not name another IstioOperator: TSB's library fails on an
 * overlay without an object, and TSB then renders nothing.
 */
function operatorFor(target: Pick<Target, 'object' | 'spec' | 'relatives'>): string | Unfit {
  const { object, spec, relatives } = target;
  // The command `render` reads no cluster: object and relatives are both undefined.
  if (object !== undefined && relatives === undefined) {
    const permission = permissionOn('list', rendered, str(dig(object, 'metadata', 'namespace')));
    return { unfit: { reason: 'Forbidden', message: missingPermission(permission, grantedBy(component)) } };
  }
  const names = new Set((relatives ?? []).map((relative) => dig(relative, 'metadata', 'name')));
  const revisions = boundaryRevisions(object);
  const exists = (revision: string) => revisions.includes(revision) || names.has(operatorOf(revision));
  const known = `revisions of ${spec.name} are: ${revisions.join(', ') || 'none'}`;
  const unfit = (message: string): Unfit => ({ unfit: { reason: 'ControlPlaneNotFound', message } });
  if (spec.revision !== undefined) {
    if (object === undefined || exists(spec.revision)) return operatorOf(spec.revision);
    return unfit(
      `spec.controlPlane.revision: no isolation boundary of ControlPlane ${spec.name} has revision ${spec.revision} (${known}); it is configured as soon as one has`,
    );
  }
  if (revisions.length === 0 && names.has(plainOperator)) return plainOperator;
  if (revisions.length === 0 && !names.has(operatorOf('default'))) return operatorBeforeRendering(target);
  if (exists('default')) return operatorOf('default');
  if (names.has(plainOperator)) return plainOperator;
  return unfit(
    `spec.controlPlane.revision: ControlPlane ${spec.name} has isolation boundaries; create this resource anew with the revision that it is for (${known})`,
  );
}

/**
 * The name of the IstioOperator while TSB renders none without a revision: the recorded name, else that of an existing overlay, else
 * `tsb-istiocontrolplane`. TSB re-creates an IstioOperator that is temporarily deleted under the same name.
 */
function operatorBeforeRendering({ object, spec }: Pick<Target, 'object' | 'spec'>): string {
  const hasEntry = (name: string) => overlaysOf(object ?? {}).some((entry) => isEntry(entry, name));
  const written = previousOf({ object, spec }, previousSchema)?.operator;
  if (written !== undefined) return written;
  return hasEntry(operatorOf('default')) && !hasEntry(plainOperator) ? operatorOf('default') : plainOperator;
}

/** The record of the object before the first write. */
const previousSchema = z.object({
  /** The IstioOperator whose overlay has the fields; unset: the default name for the revision. */
  operator: z.string().exactOptional(),
  entry: z.enum(['made', 'bare', 'kept']) satisfies z.ZodType<EntryBefore>,
  /** How many fields of the path to the list existed before the first write; unset: all five. */
  depth: z.int().min(0).exactOptional(),
  places: z.record(z.string(), z.unknown()),
});

type Previous = z.output<typeof previousSchema>;

const listPath = ['spec', 'components', 'istio', 'kubeSpec', 'overlays'];
const overlaysIn = (object: JsonObject) => dig(object, ...listPath);

/** The fields of the path to the list, from the first one to the list itself, each with its value. */
const fieldsToList = (object: JsonObject) =>
  listPath.map((_, i) => listPath.slice(0, i + 1)).map((path) => ({ path, value: dig(object, ...path) ?? undefined }));

/** How many fields of the path to the list exist. */
function depthOf(object: JsonObject): number {
  const missing = fieldsToList(object).findIndex(({ value }) => value === undefined);
  return missing < 0 ? listPath.length : missing;
}

const overlaysOf = (object: JsonObject): unknown[] => items(overlaysIn(object));

/** The current and the wanted overlay. `moved`: TSB has renamed the IstioOperator, so the overlay of the old name must be removed. */
function overlayState(target: Target, fields: IstiodFields) {
  const object = target.object ?? {};
  const operator = operatorFor(target);
  const previous = previousOf(target, previousSchema);
  const places: PatchCounts = previous?.places ?? {};
  const moved = typeof operator === 'string' && previous && operatorWritten(previous, target) !== operator;
  return { object, operator, overlays: overlaysOf(object), wanted: overlayPatches(fields), previous, places, moved };
}

/** The IstioOperator whose overlay the operator wrote. */
const operatorWritten = (previous: Previous, { spec }: Pick<Target, 'spec'>): string =>
  previous.operator ?? (spec.revision === undefined ? plainOperator : operatorOf(spec.revision));

/** The first field of the path to the list that has the wrong type; undefined: there is none. */
function malformedField(object: JsonObject): { place: string; value: string } | undefined {
  const isMalformed = ({ path, value }: { path: string[]; value: unknown }) =>
    value !== undefined && !(path.length === listPath.length ? Array.isArray(value) : isObject(value));
  const field = fieldsToList(object).find(isMalformed);
  return (
    field && {
      place: field.path.join('.'),
      value: `${formatValue(field.value)}, which is not ${field.path.length === listPath.length ? 'a list' : 'an object'}`,
    }
  );
}

/**
 * The field by which istiod of this cluster gets an intermediate CA from TSB; undefined: none is set. `certIssuer` is a field of the
 * ManagementPlane first of all.
 * Source: https://docs.tetrate.io/service-bridge/1.7.x/setup/certificate/automated-certificate-management
 */
function issuerField(object: JsonObject): string | undefined {
  const provided = ['xcp', 'istio'].find(
    (name) => dig(object, 'spec', 'components', name, 'centralProvidedCaCert') === true,
  );
  if (provided !== undefined) return `spec.components.${provided}.centralProvidedCaCert`;
  const set = ['clusterIntermediateCAs', 'defaultIssuer'].find((name) =>
    isObject(dig(object, 'spec', 'certIssuer', name)),
  );
  return set === undefined ? undefined : `spec.certIssuer.${set}`;
}

/** The wanted patches without effect, which the user must still commit. */
function missingPatches(overlays: unknown[], operator: string, wanted: OverlayPatch[]): string[] {
  const entry = overlays.find((overlay) => isEntry(overlay, operator));
  return missingPaths(dig(entry, 'patches'), wanted).map((path) => `${operator}: ${path}`);
}

function look(target: Target, fields: IstiodFields): ControlPlaneFacts | Unfit {
  const { object, operator, overlays, wanted, previous, places, moved } = overlayState(target, fields);
  const owner = annotationOf(object, ownerAnnotation(target.spec.revision));
  if (typeof operator !== 'string') return { unfit: { ...operator.unfit, owner } };
  const managedBy = managerOf(object, listPath);
  const tool = toolOf(object);
  const rivalCa = issuerField(object);
  const shared = {
    owner,
    ...(managedBy ? { managedBy } : {}),
    ...(tool ? { tool } : {}),
    ...(rivalCa === undefined ? {} : { rivalCa }),
  };
  const malformed = malformedField(object);
  const conflicts = malformed ? [malformed] : overlayConflicts(overlays, operator, wanted, moved ? {} : places);
  if (target.spec.write === 'Render') {
    // A list that only the operator has written is not committed.
    const uncommitted = previous !== undefined && isManagedOnlyByOperator(object, listPath);
    const missing = uncommitted
      ? wanted.map(({ path }) => `${operator}: ${path}`)
      : missingPatches(overlays, operator, wanted);
    const ambiguous = conflicts.filter(({ place }) => !place.startsWith(`${operator}: `));
    const carriesFields = missing.length === 0 && ambiguous.length === 0;
    return {
      ...shared,
      carriesFields,
      writtenBefore: previous !== undefined,
      superfluous: carriesFields,
      missing,
      conflicts: ambiguous,
    };
  }
  return {
    ...shared,
    carriesFields: previous !== undefined && !moved && overlayCarries(overlays, operator, wanted, places),
    writtenBefore: previous !== undefined,
    conflicts,
  };
}

const claim = ({ spec }: Target, owner: string): Write[] => [
  { kind: 'merge', patch: { metadata: { annotations: { [ownerAnnotation(spec.revision)]: owner } } } },
];

/** A merge patch of the list. */
const listPatch = (overlays: unknown[]) => nest(listPath, overlays);

function write(target: Target, fields: IstiodFields): Write[] {
  const state = overlayState(target, fields);
  const { object, operator, wanted, moved } = state;
  if (typeof operator !== 'string') return [];
  const overlays =
    moved && state.previous
      ? releaseOverlay(state.overlays, operatorWritten(state.previous, target), state.places, state.previous.entry)
      : state.overlays;
  const [previous, places]: [Previous | undefined, PatchCounts] = moved
    ? [undefined, {}]
    : [state.previous, state.places];
  const written = writeOverlay(overlays, operator, wanted, places);
  const entry = previous?.entry ?? written.entry;
  const depth = state.previous ? state.previous.depth : depthOf(object);
  const record = { operator, entry, ...(depth === undefined ? {} : { depth }), places: written.places };
  const annotations = { [previousAnnotation(target.spec.revision)]: JSON.stringify(record) };
  return [{ kind: 'merge', patch: { metadata: { annotations }, ...listPatch(written.overlays) } }];
}

/** A merge patch that removes the empty list, and the fields above it that did not exist before the first write and contain nothing else. */
function withoutEmpty(object: JsonObject, depth: number): JsonObject {
  let cut = listPath.length;
  // A field is removed only if the next one is its only content.
  while (cut > depth + 1 && Object.keys(dig(object, ...listPath.slice(0, cut - 1)) as JsonObject).length === 1)
    cut -= 1;
  return nest(listPath.slice(0, cut), null);
}

function release(target: Target): Write[] {
  const { object = {}, spec } = target;
  const previous = previousOf(target, previousSchema);
  const metadata = {
    annotations: { [ownerAnnotation(spec.revision)]: null, [previousAnnotation(spec.revision)]: null },
  };
  // With `write: Render`, the release does not change a list that other field managers own.
  const ownedByOthers = spec.write === 'Render' && !isManagedOnlyByOperator(object, listPath);
  if (!previous || ownedByOthers || overlaysIn(object) === undefined) return [{ kind: 'merge', patch: { metadata } }];
  const { entry, depth = listPath.length, places } = previous;
  const overlays = releaseOverlay(overlaysOf(object), operatorWritten(previous, target), places, entry);
  const removeList = overlays.length === 0 && depth < listPath.length;
  return [{ kind: 'merge', patch: { metadata, ...(removeList ? withoutEmpty(object, depth) : listPatch(overlays)) } }];
}

function render(target: Omit<Target, 'deployments'>, fields: IstiodFields): JsonObject {
  const operator = operatorFor(target);
  const { name, revision } = target.spec;
  const fallback = revision === undefined ? plainOperator : operatorOf(revision);
  const entry = {
    apiVersion: 'install.istio.io/v1alpha1',
    kind: 'IstioOperator',
    name: typeof operator === 'string' ? operator : fallback,
    patches: overlayPatches(fields),
  };
  return {
    apiVersion: 'install.tetrate.io/v1alpha1',
    kind: 'ControlPlane',
    metadata: { name, namespace: target.namespace },
    ...listPatch([entry]),
  };
}

/** Reads the IstioOperator that TSB has rendered, else what the overlay says of it. */
function istiodValues(target: Pick<Target, 'object' | 'spec' | 'relatives'>): IstiodValues {
  const operator = operatorFor(target);
  const result = target.relatives?.find((relative) => dig(relative, 'metadata', 'name') === operator);
  if (result) return istiodValuesOf(objectReader(result), istioOperatorPaths);
  const entry = overlaysOf(target.object ?? {}).find((one) => typeof operator === 'string' && isEntry(one, operator));
  return istiodValuesOf(patchReader(dig(entry, 'patches')), istioOperatorPaths);
}

export const tetrate: ControlPlaneAdapter = {
  gvr: { group, version: 'v1alpha1', plural: 'controlplanes' },
  clusterScoped,
  makesIt: false,
  relatives: rendered,
  revisions: ({ spec }) => [spec.revision ?? 'default'],
  look,
  claim,
  write,
  release,
  istiodValues,
  render,
};
