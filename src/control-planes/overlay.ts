/**
 * Edits the overlay list of a Tetrate ControlPlane: in the one entry for an IstioOperator, the operator appends its patches to those of others.
 *
 * The operator writes only paths through maps, one patch per key. A patch of a whole list would replace what TSB rendered, and `[-1]` corrupts
 * a list that does not exist. A patch is identified by its path; `PatchCounts` records how many patches of others have the same path.
 */
import { isDeepStrictEqual } from 'node:util';
import { isObject, type JsonObject } from '../api/json.ts';
import type { IstiodFields } from '../plan/control-plane/istiod-fields.ts';
import { formatValue } from './adapter.ts';
import { elementsOf, effectAt, effectInList, isTooLong, pathOfElements, type PathPatch } from './istio-path.ts';

export interface OverlayPatch {
  path: string;
  value: unknown;
}

/** By the path of each patch of the operator: the number of patches of others with the same path, all of them before it; null: none. */
export type PatchCounts = Record<string, unknown>;

/**
 * The entry for the IstioOperator before the first write. `made`: it did not exist, so the operator created it. `bare`: it existed without the
 * field `patches`. `kept`: it existed with that field.
 */
export type EntryBefore = 'made' | 'bare' | 'kept';

const envMap = ['spec', 'values', 'pilot', 'env'];
/** Path of the env list, whose items take precedence over the map `pilot.env`. */
export const envList = ['spec', 'components', 'pilot', 'k8s', 'env'];
const podAnnotations = ['spec', 'components', 'pilot', 'k8s', 'podAnnotations'];
const hold = ['spec', 'meshConfig', 'defaultConfig', 'holdApplicationUntilProxyStarts'];

/** Returns the patches of the operator, in a stable order. */
export function overlayPatches(fields: IstiodFields): OverlayPatch[] {
  return [
    ...Object.entries(fields.env).map(([name, value]) => ({ path: pathOfElements([...envMap, name]), value })),
    ...Object.entries(fields.podAnnotations)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([name, value]) => ({ path: pathOfElements([...podAnnotations, name]), value })),
    ...(fields.holdApplicationUntilProxyStarts ? [{ path: pathOfElements(hold), value: true }] : []),
  ];
}

/** Whether an entry of the overlay list is for the IstioOperator of that name. */
export const isEntry = (entry: unknown, operator: string): entry is JsonObject =>
  isObject(entry) && entry['kind'] === 'IstioOperator' && entry['name'] === operator;

const patchesOf = (entry: JsonObject | undefined): unknown[] =>
  Array.isArray(entry?.['patches']) ? entry['patches'] : [];
const pathOf = (patch: unknown): string => (isObject(patch) && typeof patch['path'] === 'string' ? patch['path'] : '');
const valueOf = (patch: unknown): unknown => (isObject(patch) ? patch['value'] : undefined);

const pathPatch = (patch: unknown): PathPatch => ({ path: pathOf(patch), value: valueOf(patch) });

/** The value that the env list gives to the environment variable at a path of the operator; undefined: none, or the wanted value. */
function envListConflict(patches: PathPatch[], path: string[], wanted: unknown): unknown {
  const name = path.at(-1);
  if (name === undefined || !isDeepStrictEqual(path, [...envMap, name])) return undefined;
  return effectInList(patches, envList, name)
    .map((item) => {
      if (item === null) return null;
      const hasOtherFields = Object.keys(item).some((field) => field !== 'name' && field !== 'value');
      return hasOtherFields ? formatValue(item) : 'value' in item ? item['value'] : wanted;
    })
    .find((value) => value !== wanted);
}

/**
 * Returns the conflicts with patches of others: another value at a path of the operator, a list in which a value of the operator would be
 * lost, and a value above a path that is not an object. An object that others set above a path is no conflict, because the patches of the
 * operator come later.
 */
export function overlayConflicts(
  overlays: unknown[],
  operator: string,
  wanted: OverlayPatch[],
  places: PatchCounts,
): { place: string; value: string }[] {
  const entries = overlays.filter((entry) => isEntry(entry, operator));
  if (entries.length > 1) {
    return [
      {
        place: `overlays: ${entries.length} entries for IstioOperator ${operator}`,
        value: 'ambiguous (only the last one takes effect)',
      },
    ];
  }
  const listed = entries[0]?.['patches'] ?? undefined;
  if (listed !== undefined && !Array.isArray(listed))
    return [
      { place: `overlays: patches of IstioOperator ${operator}`, value: `${formatValue(listed)}, which is not a list` },
    ];
  const others = patchesOfOthers(patchesOf(entries[0]), places).map(pathPatch);
  if (isTooLong(others))
    return [
      {
        place: `overlays: patches of IstioOperator ${operator}`,
        value: `${others.length} patches, more than are read`,
      },
    ];
  const conflicts = wanted.flatMap((patch) => {
    const elements = elementsOf(patch.path);
    const { by, value, depth } = effectAt(others, elements);
    const listed = envListConflict(others, elements, patch.value);
    return [
      ...(by === 'blocked' ? [{ path: pathOfElements(elements.slice(0, depth)), value }] : []),
      ...(by === 'path' && !isDeepStrictEqual(value, patch.value) ? [{ path: patch.path, value }] : []),
      ...(listed === undefined ? [] : [{ path: patch.path, value: listed }]),
    ];
  });
  const byPath = new Map(
    conflicts.map(({ path, value }) => [path, { place: `${operator}: ${path}`, value: formatValue(value) }]),
  );
  return [...byPath.values()];
}

/** Whether every wanted patch exists and has effect, and the operator has no patch that is no longer wanted. */
export function overlayCarries(
  overlays: unknown[],
  operator: string,
  wanted: OverlayPatch[],
  places: PatchCounts,
): boolean {
  const existing = patchesOf(overlays.find((entry): entry is JsonObject => isEntry(entry, operator))).map(pathPatch);
  if (isTooLong(existing)) return false;
  const obsolete = Object.keys(places).some((path) => !wanted.some((patch) => patch.path === path));
  return (
    !obsolete &&
    wanted.every((patch) => {
      const last = existing.findLast(({ path }) => path === patch.path);
      const { by, value } = effectAt(existing, elementsOf(patch.path));
      return by === 'path' && isDeepStrictEqual(value, patch.value) && isDeepStrictEqual(last?.value, patch.value);
    })
  );
}

/** The patches of others: at each path the recorded number of patches, and all patches of other paths. */
function patchesOfOthers(patches: unknown[], places: PatchCounts): unknown[] {
  const own = new Set(
    Object.entries(places).flatMap(([path, count]) => {
      const indices = patches.flatMap((patch, i) => (pathOf(patch) === path ? [i] : []));
      // Earlier versions of the operator recorded the value of one existing patch instead of the number.
      return indices.slice(typeof count === 'number' ? count : count === null ? 0 : 1);
    }),
  );
  return patches.filter((_, i) => !own.has(i));
}

/**
 * Returns the list with the patches of the operator at the end of the entry, and what to record about the other patches. Patches of others
 * stay unchanged, also those with the same path: a later patch of a path takes precedence.
 */
export function writeOverlay(
  overlays: unknown[],
  operator: string,
  wanted: OverlayPatch[],
  places: PatchCounts,
): { overlays: unknown[]; places: PatchCounts; entry: EntryBefore } {
  const index = overlays.findIndex((entry) => isEntry(entry, operator));
  const entry: JsonObject = isObject(overlays[index])
    ? overlays[index]
    : { apiVersion: 'install.istio.io/v1alpha1', kind: 'IstioOperator', name: operator };
  const others = patchesOfOthers(patchesOf(entry), places);
  const before = (path: string) => others.filter((patch) => pathOf(patch) === path).length || null;
  const next = { ...entry, patches: [...others, ...wanted] };
  return {
    entry: index < 0 ? 'made' : (entry['patches'] ?? undefined) === undefined ? 'bare' : 'kept',
    overlays: index < 0 ? [...overlays, next] : overlays.map((old, i) => (i === index ? next : old)),
    places: Object.fromEntries(wanted.map((patch) => [patch.path, before(patch.path)])),
  };
}

/**
 * Returns the list without the patches of the operator. If no patches of others remain, an entry that the operator created is removed, and so
 * is a field `patches` that did not exist.
 */
export function releaseOverlay(
  overlays: unknown[],
  operator: string,
  places: PatchCounts,
  before: EntryBefore,
): unknown[] {
  return overlays.flatMap((entry) => {
    if (!isEntry(entry, operator)) return [entry];
    const patches = patchesOfOthers(patchesOf(entry), places);
    if (patches.length > 0 || before === 'kept') return [{ ...entry, patches }];
    const rest = Object.entries(entry).filter(([field]) => field !== 'patches');
    return before === 'made' ? [] : [Object.fromEntries(rest)];
  });
}
