/** Compares overlay patches by their effect: the patches in Git can set the fields in another form than the operator would. */
import { elementsOf, effectAt, effectInList, isTooLong, pathPatches } from './istio-path.ts';
import { envList, type OverlayPatch } from './overlay.ts';

const envPath = /^spec\.values\.pilot\.env\.(.+)$/;

/** Returns the paths of wanted patches that the list does not set to the wanted value. An environment variable can also be in the env list. */
export function missingPaths(patches: unknown, wanted: readonly OverlayPatch[]): string[] {
  const list = pathPatches(patches);
  if (isTooLong(list)) return wanted.map(({ path }) => path);
  return wanted
    .filter(({ path, value }) => {
      const effect = effectAt(list, elementsOf(path));
      const isSet = effect.by !== 'blocked' && effect.value === value;
      const name = envPath.exec(path)?.[1];
      const items = name === undefined ? [] : effectInList(list, envList, name);
      const listed = items.filter((item) => item === null || 'value' in item);
      return listed.length > 0 ? !listed.every((item) => item?.['value'] === value) : !isSet;
    })
    .map(({ path }) => path);
}
