/** Tetrate Service Bridge's ControlPlane: an overlay on the IstioOperator that TSB renders. docs: install.tetrate.io/v1alpha1 */
import { z } from 'zod';
import { ownerAnnotation, previousAnnotation } from '../api/annotations.ts';
import { dig, isObject, items, str, type JsonObject } from '../api/json.ts';
import type { IstiodFields } from '../plan/control-plane/istiod-fields.ts';
import type { ControlPlaneFacts, Unfit } from '../plan/facts/observed.ts';
import { annotationOf, nest, previousOf, show, type ControlPlaneAdapter, type Target, type Write } from './adapter.ts';
import { isOnlyOurs, managerOf, toolOf } from './managers.ts';
import {
  isEntry,
  overlayCarries,
  overlayConflicts,
  overlayPatches,
  releaseOverlay,
  writeOverlay,
  type EntryBefore,
  type OverlayPatch,
  type Places,
} from './overlay.ts';
import { placesWithout } from './overlay-effect.ts';

const plainOperator = 'tsb-istiocontrolplane';
const operatorOf = (revision: string) => `xcp-iop-${revision}`;

/** Revisions that the ControlPlane's isolation boundaries name. https://docs.tetrate.io/service-bridge, Istio isolation boundaries */
function boundaryRevisions(object: JsonObject | undefined): string[] {
  return items(dig(object, 'spec', 'components', 'xcp', 'isolationBoundaries'))
    .flatMap((boundary) => items(dig(boundary, 'revisions')))
    .map((revision) => dig(revision, 'name'))
    .filter((name) => typeof name === 'string');
}

/**
 * The IstioOperator that TSB renders for this revision. One that TSB does not render must not be named: TSB's library fails on an overlay
 * without an object, and with it everything else that TSB renders.
 */
function operatorFor(target: Pick<Target, 'object' | 'spec' | 'relatives'>): string | Unfit {
  const { object, spec, relatives } = target;
  // without a cluster there is nothing to read
  if (object !== undefined && relatives === undefined)
    return {
      unfit: {
        reason: 'Forbidden',
        message: `the operator may not list istiooperators.install.istio.io in namespace ${str(dig(object, 'metadata', 'namespace'))}, and so not see which one TSB renders; give it that right (docs/rbac.md)`,
      },
    };
  const rendered = new Set((relatives ?? []).map((one) => dig(one, 'metadata', 'name')));
  const revisions = boundaryRevisions(object);
  const exists = (revision: string) => revisions.includes(revision) || rendered.has(operatorOf(revision));
  const known = `revisions of ${spec.name} are: ${revisions.join(', ') || 'none'}`;
  const unfit = (message: string): Unfit => ({ unfit: { reason: 'ControlPlaneNotFound', message } });
  if (spec.revision !== undefined) {
    if (object === undefined || exists(spec.revision)) return operatorOf(spec.revision);
    return unfit(
      `spec.controlPlane.revision: no isolation boundary of ControlPlane ${spec.name} has revision ${spec.revision} (${known}); it is configured as soon as one has`,
    );
  }
  if (revisions.length === 0 && rendered.has(plainOperator)) return plainOperator;
  if (revisions.length === 0 && !rendered.has(operatorOf('default'))) return namedIn(target);
  if (exists('default')) return operatorOf('default');
  if (rendered.has(plainOperator)) return plainOperator;
  return unfit(
    `spec.controlPlane.revision: ControlPlane ${spec.name} has isolation boundaries; create this resource anew with the revision that it is for (${known})`,
  );
}

/** While TSB renders neither: the one whose overlay stands; one that is gone for a moment comes back under its name. */
function namedIn({ object, spec }: Pick<Target, 'object' | 'spec'>): string {
  const hasEntry = (name: string) => overlaysOf(object ?? {}).some((entry) => isEntry(entry, name));
  const written = previousOf({ object, spec }, previousSchema)?.operator;
  if (written !== undefined) return written;
  return hasEntry(operatorOf('default')) && !hasEntry(plainOperator) ? operatorOf('default') : plainOperator;
}

const previousSchema = z.object({
  /** The IstioOperator whose overlay holds the fields; unset: the one that goes by the revision. */
  operator: z.string().exactOptional(),
  entry: z.enum(['made', 'bare', 'kept']) satisfies z.ZodType<EntryBefore>,
  /** How many of the fields that lead to the list were there before it was first written; all five if unset. */
  depth: z.int().min(0).exactOptional(),
  places: z.record(z.string(), z.unknown()),
});

type Previous = z.output<typeof previousSchema>;

const listPath = ['spec', 'components', 'istio', 'kubeSpec', 'overlays'];
const overlaysIn = (object: JsonObject) => dig(object, ...listPath);

/** Fields from the first to the list itself, each with its value. */
const above = (object: JsonObject) =>
  listPath.map((_, i) => listPath.slice(0, i + 1)).map((path) => ({ path, value: dig(object, ...path) ?? undefined }));

/** How many fields of the path to the list are there. */
function depthOf(object: JsonObject): number {
  const missing = above(object).findIndex(({ value }) => value === undefined);
  return missing < 0 ? listPath.length : missing;
}

const overlaysOf = (object: JsonObject): unknown[] => items(overlaysIn(object));

/** Our part of the list, and what it must be. */
function lookAt(target: Target, fields: IstiodFields) {
  const object = target.object ?? {};
  const operator = operatorFor(target);
  const previous = previousOf(target, previousSchema);
  const places: Places = previous?.places ?? {};
  // TSB has given the IstioOperator another name: what stands in the old one's overlay goes
  const moved = typeof operator === 'string' && previous && operatorWritten(previous, target) !== operator;
  return { object, operator, overlays: overlaysOf(object), wanted: overlayPatches(fields), previous, places, moved };
}

const operatorWritten = (previous: Previous, { spec }: Pick<Target, 'spec'>): string =>
  previous.operator ?? (spec.revision === undefined ? plainOperator : operatorOf(spec.revision));

/** What must be an object, or the list, and is something else. */
function oddPlace(object: JsonObject): { place: string; value: string } | undefined {
  const isOdd = ({ path, value }: { path: string[]; value: unknown }) =>
    value !== undefined && !(path.length === listPath.length ? Array.isArray(value) : isObject(value));
  const odd = above(object).find(isOdd);
  return (
    odd && {
      place: odd.path.join('.'),
      value: `${show(odd.value)}, which is not ${odd.path.length === listPath.length ? 'a list' : 'an object'}`,
    }
  );
}

/** What is still to be committed. */
function rendered(target: Target, overlays: unknown[], operator: string, wanted: OverlayPatch[]): string[] {
  const entry = overlays.find((one) => isEntry(one, operator));
  return placesWithout(dig(entry, 'patches'), wanted).map((path) => `${operator}: ${path}`);
}

function look(target: Target, fields: IstiodFields): ControlPlaneFacts | Unfit {
  const { object, operator, overlays, wanted, previous, places, moved } = lookAt(target, fields);
  const owner = annotationOf(object, ownerAnnotation(target.spec.revision));
  if (typeof operator !== 'string') return { unfit: { ...operator.unfit, owner } };
  const managedBy = managerOf(object, listPath);
  const tool = toolOf(object);
  const shared = { owner, ...(managedBy ? { managedBy } : {}), ...(tool ? { tool } : {}) };
  const odd = oddPlace(object);
  const conflicts = odd ? [odd] : overlayConflicts(overlays, operator, wanted, moved ? {} : places);
  if (target.spec.write === 'Render') {
    // a list that only this operator holds nobody has committed
    const uncommitted = previous !== undefined && isOnlyOurs(object, listPath);
    const missing = uncommitted
      ? wanted.map(({ path }) => `${operator}: ${path}`)
      : rendered(target, overlays, operator, wanted);
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
  const at = lookAt(target, fields);
  const { object, operator, wanted, moved } = at;
  if (typeof operator !== 'string') return [];
  const overlays =
    moved && at.previous
      ? releaseOverlay(at.overlays, operatorWritten(at.previous, target), at.places, at.previous.entry)
      : at.overlays;
  const [previous, places]: [Previous | undefined, Places] = moved ? [undefined, {}] : [at.previous, at.places];
  const written = writeOverlay(overlays, operator, wanted, places);
  const entry = previous?.entry ?? written.entry;
  const depth = at.previous ? at.previous.depth : depthOf(object);
  const record = { operator, entry, ...(depth === undefined ? {} : { depth }), places: written.places };
  const annotations = { [previousAnnotation(target.spec.revision)]: JSON.stringify(record) };
  return [{ kind: 'merge', patch: { metadata: { annotations }, ...listPatch(written.overlays) } }];
}

/** Takes away the fields that only lead to an empty list and were not there before. */
function withoutEmpty(object: JsonObject, depth: number): JsonObject {
  let cut = listPath.length;
  // the field above is only ours to remove when the one below was its only content
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
  // with Render, a list that others hold is theirs, whatever stood in it before
  const theirs = spec.write === 'Render' && !isOnlyOurs(object, listPath);
  if (!previous || theirs || overlaysIn(object) === undefined) return [{ kind: 'merge', patch: { metadata } }];
  const { entry, depth = listPath.length, places } = previous;
  const overlays = releaseOverlay(overlaysOf(object), operatorWritten(previous, target), places, entry);
  const bare = overlays.length === 0 && depth < listPath.length;
  return [{ kind: 'merge', patch: { metadata, ...(bare ? withoutEmpty(object, depth) : listPatch(overlays)) } }];
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

export const tetrate: ControlPlaneAdapter = {
  gvr: { group: 'install.tetrate.io', version: 'v1alpha1', plural: 'controlplanes' },
  clusterScoped: false,
  makesIt: false,
  relatives: { group: 'install.istio.io', version: 'v1alpha1', plural: 'istiooperators' },
  revisions: ({ spec }) => [spec.revision ?? 'default'],
  look,
  claim,
  write,
  release,
  render,
};
