/**
 * Editing the overlay list of a Tetrate ControlPlane: one entry for an IstioOperator, our patches at its end, all else as it was.
 *
 * Only map-shaped paths are written, one patch a key: whole-list patches replace what others rendered, and `[-1]` corrupts an
 * absent list. Identity of a patch is its path; what stood there before is remembered outside, in `Places`.
 */
import { isDeepStrictEqual } from 'node:util';
import type { IstiodFields } from '../plan/desired.ts';
import { dig, isObject, type JsonObject } from './adapter.ts';

export interface OverlayPatch {
  path: string;
  value: unknown;
}

/** Path of each patch of ours → the value of the patch that stands there besides, and stays (null: none does). */
export type Places = Record<string, unknown>;

/** Our patches, in a stable order. Dots inside a key are escaped, as Istio's path grammar has it. */
export function overlayPatches(fields: IstiodFields): OverlayPatch[] {
  const escape = (key: string) => key.replaceAll('.', '\\.');
  return [
    ...Object.entries(fields.env).map(([name, value]) => ({ path: `spec.values.pilot.env.${name}`, value })),
    ...Object.entries(fields.podAnnotations)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([name, value]) => ({ path: `spec.components.pilot.k8s.podAnnotations.${escape(name)}`, value })),
    ...(fields.holdApplicationUntilProxyStarts
      ? [{ path: 'spec.meshConfig.defaultConfig.holdApplicationUntilProxyStarts', value: true }]
      : []),
  ];
}

const isEntry = (entry: unknown, operator: string): entry is JsonObject =>
  isObject(entry) && entry['kind'] === 'IstioOperator' && entry['name'] === operator;

const patchesOf = (entry: JsonObject | undefined): unknown[] =>
  Array.isArray(entry?.['patches']) ? entry['patches'] : [];
const pathOf = (patch: unknown): string => (isObject(patch) && typeof patch['path'] === 'string' ? patch['path'] : '');
const valueOf = (patch: unknown): unknown => (isObject(patch) ? patch['value'] : undefined);

/** A later patch whose path is a prefix of ours replaces what ours set. */
const shadows = (later: string, ours: string) => later !== '' && ours.startsWith(`${later}.`);

const envList = 'spec.components.pilot.k8s.env';

/**
 * What a patch sets an env variable to through the env list, which wins over `spec.values.pilot.env` when Istio merges by
 * name: by the list itself, by one item of it, or by any object above it. undefined: it does not.
 */
function envListValue(patch: unknown, name: string): string | undefined {
  const path = pathOf(patch);
  const value = valueOf(patch);
  const item = path.startsWith(envList) ? path.slice(envList.length) : undefined;
  if (item?.includes(`[name:${name}]`)) return typeof value === 'string' ? value : show(value);
  if (item !== undefined && !/^(\.?\[-?[0-9]+\])?$/.test(item)) return undefined;
  if (item === undefined && !envList.startsWith(`${path}.`)) return undefined;
  // Istio's library reads YAML out of strings
  if (typeof value === 'string') return value.includes(name) ? value : undefined;
  const below = item === undefined ? envList.slice(path.length + 1).split('.') : [];
  const found = dig(value, ...below);
  const items: unknown[] = Array.isArray(found) ? found : [found];
  const hit = items.find((entry) => isObject(entry) && entry['name'] === name);
  if (!isObject(hit)) return undefined;
  return typeof hit['value'] === 'string' ? hit['value'] : show(hit);
}

const show = (value: unknown): string => JSON.stringify(value ?? null).slice(0, 120);

/** Somebody else's values at exactly our places, and lists in which an entry of ours would be lost. */
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
  const existing = patchesOf(entries[0]);
  return wanted.flatMap((patch) => {
    const same = existing.filter((p) => pathOf(p) === patch.path && !isDeepStrictEqual(valueOf(p), patch.value));
    const foreign = Object.hasOwn(places, patch.path) ? [] : same.map((p) => show(valueOf(p)));
    const name = /^spec\.values\.pilot\.env\.(.+)$/.exec(patch.path)?.[1];
    const inList =
      name === undefined
        ? []
        : existing.map((p) => envListValue(p, name)).filter((v) => v !== undefined && v !== patch.value);
    return [...foreign, ...inList.map(show)].map((value) => ({ place: `${operator}: ${patch.path}`, value }));
  });
}

/** Whether every wanted patch stands once, unshadowed, and nothing of ours stands that is no longer wanted. */
export function overlayCarries(overlays: unknown[], operator: string, wanted: OverlayPatch[], places: Places): boolean {
  const existing = patchesOf(overlays.find((entry): entry is JsonObject => isEntry(entry, operator)));
  const obsolete = Object.keys(places).some((path) => !wanted.some((patch) => patch.path === path));
  return (
    !obsolete &&
    wanted.every((patch) => {
      const at = existing.findLastIndex((p) => pathOf(p) === patch.path);
      return (
        isDeepStrictEqual(valueOf(existing[at]), patch.value) &&
        !existing.slice(at + 1).some((later) => shadows(pathOf(later), patch.path))
      );
    })
  );
}

/** A patch list without ours: at a place where something stood before, only the last of two is ours. */
function withoutOurs(patches: unknown[], places: Places): unknown[] {
  const at = (path: string) => patches.flatMap((patch, i) => (pathOf(patch) === path ? [i] : []));
  const ours = new Set(
    Object.entries(places).flatMap(([path, before]) => (before === null ? at(path) : at(path).slice(1).slice(-1))),
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
): { overlays: unknown[]; places: Places } {
  const index = overlays.findIndex((entry) => isEntry(entry, operator));
  const entry: JsonObject = isObject(overlays[index])
    ? overlays[index]
    : { apiVersion: 'install.istio.io/v1alpha1', kind: 'IstioOperator', name: operator };
  const others = withoutOurs(patchesOf(entry), places);
  const before = (path: string): unknown => {
    const found = others.find((patch) => pathOf(patch) === path);
    return found === undefined ? null : valueOf(found);
  };
  const next = { ...entry, patches: [...others, ...wanted] };
  return {
    overlays: index < 0 ? [...overlays, next] : overlays.map((old, i) => (i === index ? next : old)),
    places: Object.fromEntries(wanted.map((patch) => [patch.path, before(patch.path)])),
  };
}

/** The list without our patches; an entry that we made goes when nobody else has put anything into it. */
export function releaseOverlay(overlays: unknown[], operator: string, places: Places, made: boolean): unknown[] {
  return overlays.flatMap((entry) => {
    if (!isEntry(entry, operator)) return [entry];
    const patches = withoutOurs(patchesOf(entry), places);
    return made && patches.length === 0 ? [] : [{ ...entry, patches }];
  });
}
