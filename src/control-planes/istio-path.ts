/**
 * The effect of a list of overlay patches at a path, according to Istio's path library: `operator/pkg/util/path.go` and
 * `operator/pkg/tpath/tree.go`. The patched object is unknown here, because TSB renders it.
 */
import { posix } from 'node:path';
import { parse } from 'yaml';
import { dig, isObject, items, str, type JsonObject } from '../api/json.ts';

export interface PathPatch {
  path: string;
  value: unknown;
}

/** Splits a path, in any of its spellings, into its elements. A patch whose path has no elements has no effect. */
export function elementsOf(path: string): string[] {
  const clean = posix.normalize(path).replace(/(?<=.)\/$/, '');
  return clean
    .replace(/^\./, '')
    .replace(/\.$/, '')
    .split(/(?<!\\)\./)
    .filter((part) => part !== '')
    .map((part) => part.replaceAll('\\.', '.'))
    .flatMap((part) =>
      part.indexOf('[') > 0 ? [part.slice(0, part.indexOf('[')), part.slice(part.indexOf('['))] : [part],
    );
}

/** Joins elements to a path. Dots inside an element are escaped. */
export const pathOfElements = (elements: readonly string[]) =>
  elements.map((element) => element.replaceAll('.', '\\.')).join('.');

/** The longest text of a patch that is read as YAML, in UTF-16 code units. A longer one counts as a text, which no field can be set in. */
const longestYaml = 8 * 1024;
/** The most patches of an overlay that are read, and the longest their paths and texts can be together, in UTF-16 code units. */
const mostPatches = 300;
const longestTogether = 128 * 1024;

/** Returns the patches of a list that have a path; none if it is no list. */
export const pathPatches = (patches: unknown): PathPatch[] =>
  items(patches)
    .filter((patch) => typeof dig(patch, 'path') === 'string')
    .map((patch) => ({ path: str(dig(patch, 'path')), value: dig(patch, 'value') }));

/** Whether a list of patches is too long to be read. Real ones have a few dozen. */
export function isTooLong(patches: readonly PathPatch[]): boolean {
  if (patches.length > mostPatches) return true;
  const length = ({ path, value }: PathPatch) => path.length + (typeof value === 'string' ? value.length : 0);
  return patches.reduce((sum, patch) => sum + length(patch), 0) > longestTogether;
}

/** The elements and the value of each patch: each field asks for them, and they are read once. */
const known = new WeakMap<PathPatch, { elements: readonly string[]; value: unknown }>();

function read(patch: PathPatch): { elements: readonly string[]; value: unknown } {
  const found = known.get(patch) ?? { elements: elementsOf(patch.path), value: readValue(patch) };
  known.set(patch, found);
  return found;
}

/** The value of a patch. The library parses a text that is YAML of an object, unless it is JSON of an object. */
function readValue({ value }: PathPatch): unknown {
  if (typeof value !== 'string' || value.length > longestYaml || !value.includes(value.includes('\n') ? ':' : ': '))
    return value;
  try {
    if (isObject(JSON.parse(value))) return value;
  } catch {
    // not JSON
  }
  try {
    const parsed: unknown = parse(value, { version: '1.1', logLevel: 'error', prettyErrors: false });
    return isObject(parsed) ? parsed : value;
  } catch {
    return value;
  }
}

/** The number of leading elements that two paths have in common. */
const commonLength = (a: readonly string[], b: readonly string[]) => {
  const differs = a.findIndex((element, i) => element !== b[i]);
  return differs < 0 ? a.length : differs;
};

/** The index of an element such as `[3]`; undefined if it is none. The index -1 appends an item. */
const indexOf = (element: string | undefined): number | undefined => {
  const digits = /^\[([0-9]+|-1)\]$/.exec(element ?? '')?.[1];
  return digits === undefined ? undefined : Number(digits);
};

/** The effect of patches at a path. */
export interface PatchEffect {
  /**
   * `nobody`: no patch sets the path. `path`: a patch of exactly this path sets it; `value` null deletes it. `above`: a patch sets an object
   * above the path; `value` undefined means that the object does not contain the path. `blocked`: `value`, at or above the path, prevents
   * other patches from setting the path.
   */
  by: 'nobody' | 'path' | 'above' | 'blocked';
  value: unknown;
  /** The number of leading elements of the path that are certainly objects; if blocked, the number of elements that lead to `value`. */
  depth: number;
}

/** The effect of setting a value at a path. A list blocks: the library possibly adds later values to it instead of replacing it. */
const effectOf = (by: 'path' | 'above', value: unknown, path: readonly string[]): PatchEffect =>
  Array.isArray(value) ? { by: 'blocked', value, depth: path.length } : { by, value, depth: path.length - 1 };

/** The effect at a path of setting a value above it. @param from the number of elements that lead to the value */
function effectFromAbove(value: unknown, path: readonly string[], from: number): PatchEffect {
  let at = value;
  for (let depth = from; depth < path.length; depth += 1) {
    if (at === undefined || at === null) return { by: 'above', value: undefined, depth: depth - 1 };
    if (!isObject(at)) return { by: 'blocked', value: at, depth };
    at = at[path[depth] ?? ''];
  }
  return effectOf('above', at ?? undefined, path);
}

const isScalar = (value: unknown) => value !== undefined && value !== null && typeof value !== 'object';

/** Before the first patch. The first element of a path, `spec`, exists in the patched object. */
const noEffect: PatchEffect = { by: 'nobody', value: undefined, depth: 1 };

/** The effect at a path of one more patch, after those that had this effect. */
function withPatch(effect: PatchEffect, patch: PathPatch, path: readonly string[]): PatchEffect {
  const { elements, value: given } = read(patch);
  const value = given ?? null;
  const common = commonLength(elements, path);
  const rest = elements.slice(common);
  if (common === 0) return effect;
  if (effect.by === 'blocked') {
    const replaces =
      common < effect.depth || (common === effect.depth && (value === null || !Array.isArray(effect.value)));
    if (rest.length > 0 || !replaces) return effect;
  }
  if (rest.length === 0)
    return common < path.length ? effectFromAbove(value, path, common) : effectOf('path', value, path);
  if (common === path.length && isScalar(effect.value)) return effect;
  // If nothing exists at that element, the library possibly creates a list.
  if (common > effect.depth && indexOf(rest[0]) !== undefined) return { by: 'blocked', value: [value], depth: common };
  if (common === path.length) return effectOf('path', { [pathOfElements(rest)]: value }, path);
  return { ...effect, depth: Math.max(effect.depth, common) };
}

/**
 * Computes the effect of patches, in their order, at a path.
 * @param path elements of a path that leads only through maps. The first one, `spec`, exists in the patched object
 */
export const effectAt = (patches: readonly PathPatch[], path: readonly string[]): PatchEffect =>
  patches.reduce((effect, patch) => withPatch(effect, patch, path), noEffect);

/**
 * Parses an element `[key:value]`; undefined if it is none. A colon in the value must be escaped. The library does not remove the escape, so
 * such a selector matches no item.
 */
function selectorOf(element: string | undefined): [key: string, value: string] | undefined {
  const match = /^\[([a-zA-Z0-9_-]+):((?:[^:\\]|\\:?)+)\]$/.exec(element ?? '');
  return match?.[1] === undefined || match[2] === undefined ? undefined : [match[1], match[2]];
}

/** An item of a list that is merged by name. */
interface Item {
  fields: JsonObject;
  /** Whether it is an item of the rendered object, which possibly does not exist. */
  maybe: boolean;
}

/**
 * Computes the possible effects of patches on a named item of a list that is merged by name, such as a list of environment variables.
 * The function assumes that the rendered list has no item of that name. The list can have other items, unless a patch sets the whole list.
 * @returns for each possible effect the fields of the item; without fields: no such item; null: the item is removed
 */
export function effectInList(
  patches: readonly PathPatch[],
  list: readonly string[],
  name: string,
): (JsonObject | null)[] {
  let items: Item[] | null = [];
  let whole = false;
  let after = noEffect;
  for (const patch of patches) {
    const { elements, value } = read(patch);
    const common = commonLength(elements, list);
    const rest = list.slice(common);
    const sets = common > 0 && common === elements.length;
    const effect = after;
    after = withPatch(effect, patch, list);
    if (effect.by === 'blocked' && effect.depth < list.length && !(sets && common <= effect.depth)) continue;
    if (sets) {
      const newList = rest.length === 0 ? value : effectFromAbove(value, list, common).value;
      const objects = Array.isArray(newList) ? newList.filter(isObject) : [];
      items =
        rest.length > 0 && isNull(value, rest) ? null : objects.map((item) => ({ fields: { ...item }, maybe: false }));
      whole = true;
    } else if (common === list.length && items !== null && !isScalar(effect.value)) {
      setItem(items, whole, elements.slice(common), value, name);
    }
  }
  if (items === null) return [null];
  const named = items.filter(({ fields }) => fields['name'] === name);
  const possible = named.filter(({ maybe }) => maybe).map(({ fields }) => fields);
  const certain = named.filter(({ maybe }) => !maybe).map(({ fields }) => fields);
  // The directives `replace` and `delete` of strategic merge patches remove what others set elsewhere. With `replace`, items are not merged.
  const replaces = items.some(({ fields }) => fields['$patch'] === 'replace');
  const deletes = named.some(({ fields }) => fields['$patch'] === 'delete');
  const kept = certain.filter((fields) => fields['$patch'] !== 'delete');
  const merged: JsonObject = Object.assign({}, ...(replaces ? kept.slice(-1) : kept)) as JsonObject;
  if ((replaces || deletes) && !('value' in merged)) return [null];
  return [merged, ...possible.filter((fields) => fields['$patch'] !== 'delete')];
}

/** Whether the field at a path below the value exists and is null. */
const isNull = (value: unknown, path: readonly string[]): boolean => {
  const [field, ...rest] = path;
  if (field === undefined) return value === null;
  return isObject(value) && Object.hasOwn(value, field) && isNull(value[field], rest);
};

/**
 * Applies a patch to an item, or to a field of an item. An index, or a selector that no item matches, can refer to an item of the rendered
 * object.
 * @param whole whether a patch has set the whole list, so that the rendered object has no items of its own
 * @param name the name of the item that the caller asks about
 */
function setItem(
  items: Item[],
  whole: boolean,
  [at, field, ...deeper]: readonly string[],
  value: unknown,
  name: string,
): void {
  const index = indexOf(at);
  const selector = selectorOf(at);
  if (index === undefined && selector === undefined) return;
  const position = selector
    ? items.findIndex(({ fields }) => String(fields[selector[0]]) === selector[1])
    : whole && index !== undefined
      ? index
      : -1;
  const item = items[position];
  if (selector && !item && whole) return;
  const maybe = !whole && index !== -1;
  const add = (fields: JsonObject) => (maybe ? items.unshift({ fields, maybe }) : items.push({ fields, maybe }));
  if (field === undefined) {
    if (item) items.splice(position, 1, ...(isObject(value) ? [{ ...item, fields: { ...value } }] : []));
    else if (isObject(value)) add({ ...value });
    return;
  }
  const isNamed = ({ fields }: Item) => fields['name'] === name;
  const assumed: JsonObject = maybe && index !== undefined && field !== 'name' && items.some(isNamed) ? { name } : {};
  const fields = item?.fields ?? (selector ? { [selector[0]]: selector[1] } : assumed);
  if (!item) add(fields);
  if (deeper.length > 0) {
    if (typeof fields[field] !== 'string') fields[field] = { [pathOfElements(deeper)]: value };
  } else if (value === undefined || value === null) {
    Reflect.deleteProperty(fields, field);
  } else {
    fields[field] = value;
  }
  if (!item && maybe && fields['name'] === name && !('value' in fields)) fields['value'] = `that of ${at ?? ''}`;
}
