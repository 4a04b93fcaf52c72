/** Whether a list of overlay patches has the effect of ours, in whatever form: what counts is what they leave at a place. */
import { dig, isObject } from '../api/json.ts';
import { elementsOf, leftAt, leftInList } from './istio-path.ts';
import { envList, type OverlayPatch } from './overlay.ts';

const envPlace = /^spec\.values\.pilot\.env\.(.+)$/;

/** Places of wanted patches that the list does not set to the wanted value; an env variable may also stand in the env list. */
export function placesWithout(patches: unknown, wanted: readonly OverlayPatch[]): string[] {
  const list = (Array.isArray(patches) ? patches : [])
    .filter((patch) => isObject(patch) && typeof patch['path'] === 'string')
    .map((patch) => ({ path: String(dig(patch, 'path')), value: dig(patch, 'value') }));
  return wanted
    .filter(({ path, value }) => {
      const left = leftAt(list, elementsOf(path));
      const stands = left.by !== 'blocked' && left.value === value;
      const name = envPlace.exec(path)?.[1];
      const items = name === undefined ? [] : leftInList(list, envList, name);
      const listed = items.filter((item) => item === null || 'value' in item);
      return listed.length > 0 ? !listed.every((item) => item?.['value'] === value) : !stands;
    })
    .map(({ path }) => path);
}
