/**
 * Editing the overlay list of a Tetrate ControlPlane: one entry for an IstioOperator, our patches at its end, all else as it was.
 *
 * Only map-shaped paths are written, one patch a key: whole-list patches replace what others rendered, and `[-1]` corrupts an
 * absent list. Identity of a patch is its path; what stood there before is remembered outside, in `Places`.
 */
import { isDeepStrictEqual } from 'node:util';
import { isObject, type JsonObject } from '../api/json.ts';
import type { IstiodFields } from '../plan/control-plane/istiod-fields.ts';
import { show } from './adapter.ts';
import { elementsOf, leftAt, leftInList, pathOfElements, type PathPatch } from './istio-path.ts';

export interface OverlayPatch {
  path: string;
  value: unknown;
}

/** Path of each patch of ours → how many patches of others stand at that path besides, and stay (null: none). */
export type Places = Record<string, unknown>;

/** The entry for the IstioOperator before it was first written: not there, there without patches, or with some. */
export type EntryBefore = 'made' | 'bare' | 'kept';

const envMap = ['spec', 'values', 'pilot', 'env'];
/** What is in the list wins over the map, by name. */
export const envList = ['spec', 'components', 'pilot', 'k8s', 'env'];
const podAnnotations = ['spec', 'components', 'pilot', 'k8s', 'podAnnotations'];
const hold = ['spec', 'meshConfig', 'defaultConfig', 'holdApplicationUntilProxyStarts'];

/** Our patches, in a stable order. */
export function overlayPatches(fields: IstiodFields): OverlayPatch[] {
  return [
    ...Object.entries(fields.env).map(([name, value]) => ({ path: pathOfElements([...envMap, name]), value })),
    ...Object.entries(fields.podAnnotations)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([name, value]) => ({ path: pathOfElements([...podAnnotations, name]), value })),
    ...(fields.holdApplicationUntilProxyStarts ? [{ path: pathOfElements(hold), value: true }] : []),
  ];
}

/** Whether an entry of the list is for that IstioOperator. */
export const isEntry = (entry: unknown, operator: string): entry is JsonObject =>
  isObject(entry) && entry['kind'] === 'IstioOperator' && entry['name'] === operator;

const patchesOf = (entry: JsonObject | undefined): unknown[] =>
  Array.isArray(entry?.['patches']) ? entry['patches'] : [];
const pathOf = (patch: unknown): string => (isObject(patch) && typeof patch['path'] === 'string' ? patch['path'] : '');
const valueOf = (patch: unknown): unknown => (isObject(patch) ? patch['value'] : undefined);

const pathPatch = (patch: unknown): PathPatch => ({ path: pathOf(patch), value: valueOf(patch) });

/** What the env list makes of the variable at a place of ours; undefined: nothing, or the same. */
function listedElsewise(patches: PathPatch[], place: string[], wanted: unknown): unknown {
  const name = place.at(-1);
  if (name === undefined || !isDeepStrictEqual(place, [...envMap, name])) return undefined;
  return leftInList(patches, envList, name)
    .map((item) => {
      if (item === null) return null;
      const more = Object.keys(item).some((field) => field !== 'name' && field !== 'value');
      return more ? show(item) : 'value' in item ? item['value'] : wanted;
    })
    .find((value) => value !== wanted);
}

/**
 * What others make of exactly our places, lists in which an entry of ours would be lost, and what is no object above our places.
 * Whole objects that others set above them are none: ours stand behind.
 */
export function overlayConflicts(
  overlays: unknown[],
  operator: string,
  wanted: OverlayPatch[],
  places: Places,
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
    return [{ place: `overlays: patches of IstioOperator ${operator}`, value: `${show(listed)}, which is not a list` }];
  const foreign = withoutOurs(patchesOf(entries[0]), places).map(pathPatch);
  const found = wanted.flatMap((patch) => {
    const place = elementsOf(patch.path);
    const { by, value, depth } = leftAt(foreign, place);
    const elsewise = listedElsewise(foreign, place, patch.value);
    return [
      ...(by === 'blocked' ? [{ path: pathOfElements(place.slice(0, depth)), value }] : []),
      ...(by === 'place' && !isDeepStrictEqual(value, patch.value) ? [{ path: patch.path, value }] : []),
      ...(elsewise === undefined ? [] : [{ path: patch.path, value: elsewise }]),
    ];
  });
  const lines = new Map(found.map(({ path, value }) => [path, { place: `${operator}: ${path}`, value: show(value) }]));
  return [...lines.values()];
}

/** Whether every wanted patch stands and has effect, and nothing of ours stands that is no longer wanted. */
export function overlayCarries(overlays: unknown[], operator: string, wanted: OverlayPatch[], places: Places): boolean {
  const existing = patchesOf(overlays.find((entry): entry is JsonObject => isEntry(entry, operator))).map(pathPatch);
  const obsolete = Object.keys(places).some((path) => !wanted.some((patch) => patch.path === path));
  return (
    !obsolete &&
    wanted.every((patch) => {
      const last = existing.findLast(({ path }) => path === patch.path);
      const { by, value } = leftAt(existing, elementsOf(patch.path));
      return by === 'place' && isDeepStrictEqual(value, patch.value) && isDeepStrictEqual(last?.value, patch.value);
    })
  );
}

/** A patch list without ours: those behind the ones that stood at our places before. */
function withoutOurs(patches: unknown[], places: Places): unknown[] {
  const ours = new Set(
    Object.entries(places).flatMap(([path, before]) => {
      const at = patches.flatMap((patch, i) => (pathOf(patch) === path ? [i] : []));
      // once, the value of one that stands there was kept instead of the number
      return at.slice(typeof before === 'number' ? before : before === null ? 0 : 1);
    }),
  );
  return patches.filter((_, i) => !ours.has(i));
}

/**
 * The list with our patches at the end of the one entry, and the places to remember. What is foreign stays as it is, at our
 * places too: a later patch of the same path wins.
 */
export function writeOverlay(
  overlays: unknown[],
  operator: string,
  wanted: OverlayPatch[],
  places: Places,
): { overlays: unknown[]; places: Places; entry: EntryBefore } {
  const index = overlays.findIndex((entry) => isEntry(entry, operator));
  const entry: JsonObject = isObject(overlays[index])
    ? overlays[index]
    : { apiVersion: 'install.istio.io/v1alpha1', kind: 'IstioOperator', name: operator };
  const others = withoutOurs(patchesOf(entry), places);
  const before = (path: string) => others.filter((patch) => pathOf(patch) === path).length || null;
  const next = { ...entry, patches: [...others, ...wanted] };
  return {
    entry: index < 0 ? 'made' : (entry['patches'] ?? undefined) === undefined ? 'bare' : 'kept',
    overlays: index < 0 ? [...overlays, next] : overlays.map((old, i) => (i === index ? next : old)),
    places: Object.fromEntries(wanted.map((patch) => [patch.path, before(patch.path)])),
  };
}

/** The list without our patches; an entry that we made, and patches that it did not have, go when nobody else has put anything into it. */
export function releaseOverlay(overlays: unknown[], operator: string, places: Places, before: EntryBefore): unknown[] {
  return overlays.flatMap((entry) => {
    if (!isEntry(entry, operator)) return [entry];
    const patches = withoutOurs(patchesOf(entry), places);
    if (patches.length > 0 || before === 'kept') return [{ ...entry, patches }];
    const rest = Object.entries(entry).filter(([field]) => field !== 'patches');
    return before === 'made' ? [] : [Object.fromEntries(rest)];
  });
}
