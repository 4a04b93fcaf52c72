/** Reads from a control plane object where its istiod will publish the roots that workloads trust, and which namespaces it discovers. Pure. */
import { dig, isObject, items } from '../api/json.ts';
import { isTrue, placeOf, settingThatSignsNothing, type IstiodValues } from '../plan/facts/trust-places.ts';
import { effectAt, effectInList, isTooLong, pathPatches } from './istio-path.ts';
import { envList } from './overlay.ts';

/** How one kind of control plane is read. */
export interface SettingsReader {
  /** Returns the value at a path below `spec.values` or `spec`; undefined: it is not set. */
  at: (path: readonly string[]) => unknown;
  /** Returns the item of a name in a list of environment variables; undefined: the list has none. */
  item: (list: readonly string[], name: string) => unknown;
}

/** Where the environment of istiod stands in the values of its chart, and which list takes precedence over them. */
export interface SettingsPaths {
  values: readonly string[];
  envList: readonly string[] | undefined;
  meshConfig: readonly string[];
}

/** The paths in an IstioOperator. */
export const istioOperatorPaths: SettingsPaths = {
  values: ['spec', 'values'],
  envList,
  meshConfig: ['spec', 'meshConfig'],
};

const scalar = (value: unknown): string | undefined =>
  typeof value === 'string' || typeof value === 'boolean' || typeof value === 'number' ? String(value) : undefined;

/** The value of an item of a list of environment variables; null: it stands in another object. */
const valueOfItem = (item: unknown): string | null | undefined =>
  item === undefined ? undefined : dig(item, 'valueFrom') === undefined ? (scalar(dig(item, 'value')) ?? '') : null;

/**
 * Reads the settings as the chart takes them: `global.trustBundleName` comes last among the environment variables and so takes precedence, then
 * `pilot.envVarFrom`, then `pilot.env`. The list of an IstioOperator changes what the chart rendered.
 * Source: https://github.com/istio/istio, manifests/charts/istio-control/istio-discovery/templates/deployment.yaml
 */
export function istiodValuesOf(reader: SettingsReader, { values, envList, meshConfig }: SettingsPaths): IstiodValues {
  const trustBundleName = scalar(reader.at([...values, 'global', 'trustBundleName']));
  const lookup = (name: string): string | null | undefined => {
    const listed = envList === undefined ? undefined : valueOfItem(reader.item(envList, name));
    if (listed !== undefined) return listed;
    if (name === 'PILOT_CA_CERT_CONFIGMAP' && trustBundleName) return trustBundleName;
    const from = valueOfItem(reader.item([...values, 'pilot', 'envVarFrom'], name));
    return from ?? (from === null ? null : scalar(reader.at([...values, 'pilot', 'env', name])));
  };
  const selectors = [meshConfig, [...values, 'meshConfig']].map((path) => reader.at([...path, 'discoverySelectors']));
  const labels = reader.at([...values, 'pilot', 'podLabels']);
  return {
    place: placeOf(lookup),
    discoverySelectors: selectors.find((list) => Array.isArray(list)) ?? [],
    signsNothing: settingThatSignsNothing(lookup),
    localInjector: ['enabled', 'enabledLocalInjectorIstiod'].every((name) =>
      isTrue(scalar(reader.at([...values, 'istiodRemote', name]))),
    )
      ? 'istiodRemote.enabledLocalInjectorIstiod=true'
      : undefined,
    podLabels: Object.fromEntries(
      Object.entries(isObject(labels) ? labels : {}).map(([name, value]) => [name, scalar(value) ?? '']),
    ),
  };
}

/** Reads an object whose fields are nested maps. */
export const objectReader = (object: unknown): SettingsReader => ({
  at: (path) => dig(object, ...path),
  item: (list, name) => items(dig(object, ...list)).findLast((one) => dig(one, 'name') === name),
});

/** Reads the effect of the patches of an overlay. What the overlay does not set is not known. */
export function patchReader(patches: unknown): SettingsReader {
  const listed = pathPatches(patches);
  const read = isTooLong(listed) ? [] : listed;
  return {
    at: (path) => {
      const { by, value } = effectAt(read, path);
      return by === 'blocked' ? undefined : value;
    },
    item: (list, name) => effectInList(read, list, name).find((one) => one !== null && 'name' in one) ?? undefined,
  };
}
