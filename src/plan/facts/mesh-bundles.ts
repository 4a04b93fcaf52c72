/** The trust bundles of a mesh: which ones belong to it, and why they are unknown. Pure. */
import { componentPath, missingPermission } from '../../api/permissions.ts';
import type { DerivedState } from './derived.ts';
import type { MeshBundle, ObservedIstiod, UnknownBundles } from './observed-istiod.ts';
import { defaultRootConfigMap, describePlace, type TrustPlace } from './trust-places.ts';

/**
 * Returns the trust bundles of this mesh. A namespace whose bundle holds the root of another IstioVaultCA belongs to another mesh. An operator
 * that is confined to namespaces (`--namespaces`) does not see every IstioVaultCA. Outside these namespaces, it counts only bundles with a
 * root of this CA.
 */
export function bundlesOfThisMesh(
  s: DerivedState,
  published: Pick<ObservedIstiod, 'bundles' | 'rootsOfOthers' | 'confinedTo'>,
): MeshBundle[] | UnknownBundles {
  const { bundles, rootsOfOthers, confinedTo } = published;
  if (typeof bundles === 'string') return bundles;
  // the roots of an owner under whose root this CA is are those of its mesh too
  const own = [...s.ownRoots.map(({ certificate }) => certificate), ...(s.rootRoles.trusted ?? [])];
  const ownRoots = own.map(({ fingerprint }) => fingerprint);
  // a root of this CA is this mesh's, whatever another resource says of it: else that could hide a namespace that lags behind
  const foreignRoots = rootsOfOthers.filter((root) => !ownRoots.includes(root));
  const holds = ({ roots }: MeshBundle, some: readonly string[]) => roots.some((root) => some.includes(root));
  return bundles.filter((bundle) => {
    if (bundle.namespace === undefined || bundle.namespace === s.identity.namespace) return true;
    if (holds(bundle, foreignRoots)) return false;
    return confinedTo.length === 0 || confinedTo.includes(bundle.namespace) || holds(bundle, ownRoots);
  });
}

const unknownReasons: Readonly<Record<UnknownBundles, (places: readonly TrustPlace[]) => string>> = {
  unreadable: () =>
    `${missingPermission({ verb: 'list', group: '', resource: 'configmaps' }, `Apply deploy/base again, which grants it for ConfigMaps named ${defaultRootConfigMap}`)} Which root workloads trust is unknown without it.`,
  unreadableElsewhere: (places) => {
    const missing = places.some(({ kind }) => kind === 'ClusterTrustBundle')
      ? { verb: 'get', group: 'certificates.k8s.io', resource: 'clustertrustbundles' }
      : { verb: 'list', group: '', resource: 'configmaps' };
    const names = places.map(describePlace).join(' and ');
    const remedy = `Add ${componentPath('trust-bundle')} to the kustomization of the operator, with the name of the ConfigMap (docs/rbac.md)`;
    return `${missingPermission(missing, remedy)} istiod publishes the roots that workloads trust as ${names}; which ones they are is unknown without it.`;
  },
  unselectable: () =>
    `${missingPermission({ verb: 'list', group: '', resource: 'namespaces' })} istiod has discoverySelectors, and without the labels of the namespaces it is unknown which namespaces belong to the mesh.`,
};

/** Returns a message why the trust bundles are unknown, with the right that is missing. @param places where istiod publishes */
export const unknownBundles = (why: UnknownBundles, places: readonly TrustPlace[]): string =>
  unknownReasons[why](places);
