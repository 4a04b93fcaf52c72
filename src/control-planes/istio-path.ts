/**
 * What a list of overlay patches makes of a place, as Istio's path library has it: `operator/pkg/util/path.go` and
 * `operator/pkg/tpath/tree.go`. The object that they are applied to is not known here: it is rendered elsewhere.
 */
import { posix } from 'node:path';
import { parse } from 'yaml';
import { isObject, type JsonObject } from '../api/json.ts';

export interface PathPatch {
  path: string;
  value: unknown;
}

/** The elements of a path in any of its spellings; a path without any has no effect. */
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

/** The path of elements. Dots inside one are escaped. */
export const pathOfElements = (elements: readonly string[]) =>
  elements.map((element) => element.replaceAll('.', '\\.')).join('.');

/** Text that reads as YAML of an object is one to the library, unless it is JSON. */
function valueOf({ value }: PathPatch): unknown {
  if (typeof value !== 'string' || !value.includes(value.includes('\n') ? ':' : ': ')) return value;
  try {
    if (isObject(JSON.parse(value))) return value;
  } catch {
    // no JSON
  }
  try {
    const read: unknown = parse(value, { version: '1.1', logLevel: 'error' });
    return isObject(read) ? read : value;
  } catch {
    return value;
  }
}

const commonLength = (a: readonly string[], b: readonly string[]) => {
  const differs = a.findIndex((element, i) => element !== b[i]);
  return differs < 0 ? a.length : differs;
};

/** `[3]`, or `[-1]` for one behind the last. */
const indexOf = (element: string | undefined): number | undefined => {
  const found = /^\[([0-9]+|-1)\]$/.exec(element ?? '')?.[1];
  return found === undefined ? undefined : Number(found);
};

/**
 * What is left at a place: the last word of a patch of that very place (`value` null: it deletes), of a whole object above it
 * (undefined: without it), or something at or above it that keeps anything else from being set there.
 */
export interface Left {
  by: 'nobody' | 'place' | 'above' | 'blocked';
  value: unknown;
  /** How many elements of the place lead to objects for certain; when blocked, to what blocks. */
  depth: number;
}

/** A place with a value. Where a list is, the library may add to it what others set there, instead of replacing it. */
const leftBy = (by: 'place' | 'above', value: unknown, place: readonly string[]): Left =>
  Array.isArray(value) ? { by: 'blocked', value, depth: place.length } : { by, value, depth: place.length - 1 };

/** What is there when a value is set above a place. */
function below(value: unknown, place: readonly string[], from: number): Left {
  let at = value;
  for (let depth = from; depth < place.length; depth += 1) {
    if (at === undefined || at === null) return { by: 'above', value: undefined, depth: depth - 1 };
    if (!isObject(at)) return { by: 'blocked', value: at, depth };
    at = at[place[depth] ?? ''];
  }
  return leftBy('above', at ?? undefined, place);
}

const isScalar = (value: unknown) => value !== undefined && value !== null && typeof value !== 'object';

/** What patches, in their order, leave at a place that is reached through objects, of which the first is there: the spec. */
export function leftAt(patches: readonly PathPatch[], place: readonly string[]): Left {
  let left: Left = { by: 'nobody', value: undefined, depth: 1 };
  for (const patch of patches) {
    const elements = elementsOf(patch.path);
    const value = valueOf(patch) ?? null;
    const common = commonLength(elements, place);
    const rest = elements.slice(common);
    if (common === 0) continue;
    if (left.by === 'blocked') {
      const replaces = common < left.depth || (common === left.depth && (value === null || !Array.isArray(left.value)));
      if (rest.length > 0 || !replaces) continue;
    }
    if (rest.length === 0) {
      left = common < place.length ? below(value, place, common) : leftBy('place', value, place);
    } else if (common === place.length && isScalar(left.value)) {
      continue;
    } else if (common > left.depth && indexOf(rest[0]) !== undefined) {
      // where nothing is yet, the library may make a list of it
      left = { by: 'blocked', value: [value], depth: common };
    } else if (common === place.length) {
      left = leftBy('place', { [pathOfElements(rest)]: value }, place);
    } else {
      left = { ...left, depth: Math.max(left.depth, common) };
    }
  }
  return left;
}

/** `[key:value]`. A colon in the value is escaped, and then stays so: it fits nothing. */
function selectorOf(element: string | undefined): [key: string, value: string] | undefined {
  const found = /^\[([a-zA-Z0-9_-]+):((?:[^:\\]|\\:?)+)\]$/.exec(element ?? '');
  return found?.[1] === undefined || found[2] === undefined ? undefined : [found[1], found[2]];
}

/** An item of a list that is merged by name. */
interface Item {
  fields: JsonObject;
  /** It is one of the rendered object, if there is such an item. */
  maybe: boolean;
}

/**
 * What patches may leave of a named item in a list that is merged by name, as the list of env variables is: its fields, as
 * they may turn out, or null for one that is taken away. Nothing of that name is in the list before them; other items may be,
 * unless a patch sets the list as a whole.
 */
export function leftInList(
  patches: readonly PathPatch[],
  list: readonly string[],
  name: string,
): (JsonObject | null)[] {
  let items: Item[] | null = [];
  let whole = false;
  for (const [i, patch] of patches.entries()) {
    const elements = elementsOf(patch.path);
    const value = valueOf(patch);
    const common = commonLength(elements, list);
    const way = list.slice(common);
    const sets = common > 0 && common === elements.length;
    const left = leftAt(patches.slice(0, i), list);
    if (left.by === 'blocked' && left.depth < list.length && !(sets && common <= left.depth)) continue;
    if (sets) {
      const found = way.length === 0 ? value : below(value, list, common).value;
      const objects = Array.isArray(found) ? found.filter(isObject) : [];
      items =
        way.length > 0 && isNull(value, way) ? null : objects.map((item) => ({ fields: { ...item }, maybe: false }));
      whole = true;
    } else if (common === list.length && items !== null && !isScalar(left.value)) {
      setItem(items, whole, elements.slice(common), value, name);
    }
  }
  if (items === null) return [null];
  const named = items.filter(({ fields }) => fields['name'] === name);
  const guesses = named.filter(({ maybe }) => maybe).map(({ fields }) => fields);
  const certain = named.filter(({ maybe }) => !maybe).map(({ fields }) => fields);
  // with these directives of strategic merge patches, what others set elsewhere goes; a list that replaces is not merged
  const replaces = items.some(({ fields }) => fields['$patch'] === 'replace');
  const deletes = named.some(({ fields }) => fields['$patch'] === 'delete');
  const kept = certain.filter((fields) => fields['$patch'] !== 'delete');
  const merged: JsonObject = Object.assign({}, ...(replaces ? kept.slice(-1) : kept)) as JsonObject;
  if ((replaces || deletes) && !('value' in merged)) return [null];
  return [merged, ...guesses.filter((fields) => fields['$patch'] !== 'delete')];
}

/** Whether the last field of a way is there, and null. */
const isNull = (value: unknown, way: readonly string[]): boolean => {
  const [field, ...rest] = way;
  if (field === undefined) return value === null;
  return isObject(value) && Object.hasOwn(value, field) && isNull(value[field], rest);
};

/** Sets an item, or a field of one. An index, and an item that no patch has made, may mean one of the rendered object. */
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
  const found = items[position];
  if (selector && !found && whole) return;
  const maybe = !whole && index !== -1;
  const add = (fields: JsonObject) => (maybe ? items.unshift({ fields, maybe }) : items.push({ fields, maybe }));
  if (field === undefined) {
    if (found) items.splice(position, 1, ...(isObject(value) ? [{ ...found, fields: { ...value } }] : []));
    else if (isObject(value)) add({ ...value });
    return;
  }
  const isOurs = ({ fields }: Item) => fields['name'] === name;
  const hidden: JsonObject = maybe && index !== undefined && field !== 'name' && items.some(isOurs) ? { name } : {};
  const fields = found?.fields ?? (selector ? { [selector[0]]: selector[1] } : hidden);
  if (!found) add(fields);
  if (deeper.length > 0) {
    if (typeof fields[field] !== 'string') fields[field] = { [pathOfElements(deeper)]: value };
  } else if (value === undefined || value === null) {
    Reflect.deleteProperty(fields, field);
  } else {
    fields[field] = value;
  }
  if (!found && maybe && fields['name'] === name && !('value' in fields)) fields['value'] = `that of ${at ?? ''}`;
}
