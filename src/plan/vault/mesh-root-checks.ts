/**
 * Checks that protect the roots that workloads of a running mesh trust: until the operator has written istiod's fields for the first time, it
 * replaces none of them unasked. Pure.
 */
import type { DerivedState } from '../facts/derived.ts';
import { annotations as known } from '../../api/annotations.ts';
import { missingPermission } from '../../api/permissions.ts';
import { bundleFacts, isSignedBy, signedPath, type CertificateFacts } from '../facts/certificate.ts';
import { offeredRoot, wasPublished } from '../facts/outside-roots.ts';
import { adoptionOf } from '../ownership/adoption.ts';
import { ownables, owns } from '../ownership/ownership.ts';
import { fieldsWereApplied } from '../facts/applied.ts';
import type { MeshBundle, MeshEvidence, Served } from '../facts/observed-istiod.ts';
import { defaultPlace, describePlace, samePlace } from '../facts/trust-places.ts';
import type { Problem } from '../facts/problem.ts';
import { listNames } from '../facts/list-names.ts';
import { bundlesOfThisMesh, unknownBundles } from '../facts/mesh-bundles.ts';

/** Maximum number of different published roots that are compared with what replicas serve. */
const mostRoots = 300;

/** The roots that istiod would distribute. If this resource does not own the root mount, which is another problem, all roots in it count. */
function rootsToDistribute(s: DerivedState): CertificateFacts[] {
  const adoption = adoptionOf(s);
  const { root, retiring } = (typeof adoption === 'string' ? undefined : adoption?.ca) ?? {};
  if (root) return [root, ...(retiring ? [retiring] : [])].map(({ certificate }) => certificate);
  const ownIds = s.ownRoots.map(({ id }) => id);
  const { rootMount } = ownables(s);
  const all = rootMount && !owns(s, rootMount) ? (s.vault.rootPki?.issuers ?? []) : [];
  const foreign = all.filter(({ id }) => !ownIds.includes(id));
  // once something is published, another root is not distributed before a rotation
  const offered = wasPublished(s) ? [] : bundleFacts(offeredRoot(s)?.certificate ?? '');
  return [...(s.rootRoles.trusted ?? []), ...offered, ...foreign.map(({ certificate }) => certificate)];
}

/**
 * The roots that a replica shows: a self-signed certificate at the end of its chain, and published roots that signed the last certificate below
 * it. An istiod that signs by itself sends no chain, and two roots can have one key.
 */
function rootsShownBy({ leaf, chain }: Served, published: readonly CertificateFacts[]): CertificateFacts[] {
  const path = signedPath(leaf, chain);
  const top = path.at(-1);
  const sent = top?.selfIssued && path.length > 1 ? [top] : [];
  const last = sent.length > 0 ? path.at(-2) : top;
  const signers = published.filter((root) => last !== undefined && isSignedBy(last, root));
  return [...signers, ...sent.filter(({ fingerprint }) => !signers.some((root) => root.fingerprint === fingerprint))];
}

/** The roots of a mesh, as far as they are known. */
interface MeshRoots {
  /** Trust bundles that workloads use, those of the own namespace first. */
  bundles: MeshBundle[];
  /** Trust bundles that no replica stands for any more. */
  leftOver: MeshBundle[];
  /** For each Ready replica that answered, by name: the roots that it shows. */
  shown: CertificateFacts[][];
}

/** The different roots of trust bundles, limited in number. Equal bundles, as namespaces of one mesh have them, are read once. */
function differentRoots(bundles: readonly MeshBundle[]): CertificateFacts[] {
  const found = new Map<string, CertificateFacts>();
  for (const bundle of bundles) {
    if (found.size >= mostRoots) break;
    if (bundle.roots.every((root) => found.has(root))) continue;
    for (const one of bundle.certificates) found.set(one.fingerprint, one);
  }
  return [...found.values()].slice(0, mostRoots);
}

/** Tells the roots in use from those that were left over. Only if every Ready replica shows a published root, other bundles are left over. */
function meshRootsOf(s: DerivedState, evidence: MeshEvidence | undefined, bundles: MeshBundle[]): MeshRoots {
  const home = s.identity.namespace;
  const order = ({ namespace = '' }: MeshBundle) => (namespace === home ? '' : `/${namespace}`);
  const sorted = bundles
    .filter(({ roots }) => roots.length > 0)
    .sort((a, b) => (order(a) < order(b) ? -1 : order(a) > order(b) ? 1 : 0));
  const published = new Set(sorted.flatMap(({ roots }) => roots));
  const compared = differentRoots(sorted);
  const replicas = [...(evidence?.replicas ?? [])].sort((a, b) => (a.name < b.name ? -1 : 1));
  const shown = replicas.map(({ served }) => ('leaf' in served ? rootsShownBy(served, compared) : []));
  const shows = (roots: readonly string[]) => shown.some((list) => list.some((one) => roots.includes(one.fingerprint)));
  const allShow =
    evidence !== undefined &&
    shown.length > 0 &&
    shown.length === evidence.ready &&
    shown.every((list) => list.some(({ fingerprint }) => published.has(fingerprint)));
  const isLeftOver = ({ roots }: MeshBundle) => allShow && !shows(roots);
  return { bundles: sorted.filter((one) => !isLeftOver(one)), leftOver: sorted.filter(isLeftOver), shown };
}

/**
 * The trust bundles of this mesh. The own namespace's is read more often than the others, so that one takes precedence. Namespaces that the operator
 * is not confined to count too: their workloads have a root to lose.
 */
function publishedBundles(s: DerivedState, evidence: MeshEvidence | undefined): ReturnType<typeof bundlesOfThisMesh> {
  const { meshRoots, meshRootsPlace: place = defaultPlace } = s.kubernetes;
  const all = evidence ? bundlesOfThisMesh(s, { ...evidence, confinedTo: [] }) : [];
  // without a certificate that can be read, the evidence has at least the hashes of what is there
  if (typeof all === 'string' || !meshRoots?.length || (evidence && !evidence.homeDiscovered)) return all;
  const home: MeshBundle = {
    place,
    namespace: place.kind === 'ConfigMap' ? s.identity.namespace : undefined,
    roots: meshRoots.map(({ fingerprint }) => fingerprint),
    certificates: meshRoots,
  };
  return [home, ...all.filter((one) => !(one.namespace === home.namespace && samePlace(one.place, place)))];
}

const nameOf = (bundle: MeshBundle): string =>
  `${describePlace(bundle.place)}${bundle.namespace === undefined ? '' : ` of namespace ${bundle.namespace}`}`;

/** A root as a message names it; without a certificate that can be read, `subject` is empty and `serial` undefined. */
type NamedRoot = Pick<CertificateFacts, 'fingerprint' | 'subject'> & Partial<Pick<CertificateFacts, 'serial'>>;

const firstRoot = (bundle: MeshBundle | undefined): NamedRoot | undefined =>
  bundle &&
  (bundle.certificates[0] ?? { fingerprint: bundle.roots[0] ?? '', subject: { commonName: '', organization: '' } });

const describeRoot = ({ subject, fingerprint }: NamedRoot): string =>
  `"${subject.commonName || subject.organization}", SHA-256 ${fingerprint}`;

/**
 * The roots that workloads of this mesh trust are not those that istiod would distribute, or they cannot be found although istiod runs. The
 * check applies until the fields of the control plane are written for the first time.
 */
export function wouldReplaceRoot(s: DerivedState): Problem | undefined {
  // if both entries of a root outside were lost, the next root comes from outside again, and nothing says that it is the same
  if (fieldsWereApplied(s) && (s.issuesRoot || wasPublished(s))) return undefined;
  const distributed = rootsToDistribute(s);
  // nothing is distributed before a certificate is signed under a root outside, which is judged then
  if (!s.issuesRoot && distributed.length === 0) return undefined;
  const { mesh } = s.kubernetes;
  const published = publishedBundles(s, mesh);
  if (typeof published === 'string') return problem('Forbidden', unknownBundles(published, mesh?.places ?? []));
  const roots = meshRootsOf(s, mesh, published);
  const acceptable = new Set([...distributed, ...bundleFacts(s.caEntry?.root ?? '')].map((root) => root.fingerprint));
  const replaced = (list: readonly { fingerprint: string }[]) =>
    list.length > 0 && !list.some(({ fingerprint }) => acceptable.has(fingerprint));
  const bundles = roots.bundles.filter(({ roots: published }) => !published.some((root) => acceptable.has(root)));
  // a root that a replica shows and that is published beside one of this CA can be replaced: workloads trust both
  const isPublished = ({ fingerprint }: CertificateFacts) =>
    roots.bundles.some((bundle) => bundle.roots.includes(fingerprint) && !bundles.includes(bundle));
  const replica = roots.shown.flatMap((list) => (replaced(list) && !list.some(isPublished) ? list : []))[0];
  const root = replica ?? firstRoot(bundles[0]);
  const confirmed = s.desired.annotations[known.confirmRootChange];
  if (root)
    return confirmed === root.fingerprint || isGivenUp(s, root)
      ? undefined
      : otherRoot(root, replica !== undefined, bundles, roots);
  if (roots.bundles.length > 0 || roots.shown.some((list) => list.length > 0) || confirmed === 'unknown')
    return undefined;
  return mesh && meshRootUnknown(s, mesh);
}

/** The root is the one that `RootLost` named, and the user has answered that it is permanently lost: another one is generated. */
const isGivenUp = (s: DerivedState, root: NamedRoot): boolean =>
  s.issuesRoot &&
  s.kubernetes.controlPlane?.writtenBefore === true &&
  s.desired.annotations[known.allowReissue]?.toLowerCase() === root.serial;

const problem = (reason: Problem['reason'], message: string): Problem => ({
  condition: 'RootReady',
  reason,
  message,
  blocks: 'all',
});

/** @param served whether a replica shows the root, else a trust bundle does */
function otherRoot(root: NamedRoot, served: boolean, bundles: MeshBundle[], { leftOver }: MeshRoots): Problem {
  const names = listNames(bundles.map(nameOf));
  const where = served
    ? `a running istiod has another root (${describeRoot(root)})${names === '' ? '' : `; no root of this CA is in ${names}`}`
    : `another root (${describeRoot(root)}) is in ${names}`;
  const rest = leftOver.length === 0 ? '' : `. Left over, and used by no replica: ${listNames(leftOver.map(nameOf))}`;
  return problem(
    'WouldReplaceRoot',
    `${where}: workloads that trust only that root would fail. To go on, annotate this resource with ${known.confirmRootChange}=${root.fingerprint}${rest}`,
  );
}

/** No root of the mesh is to be found: a problem if istiod runs, or could have published one in a place that is not known. */
function meshRootUnknown(s: DerivedState, mesh: MeshEvidence): Problem | undefined {
  if (mesh.ready === 'unreadable') {
    const permission = { verb: 'list', group: 'apps', resource: 'deployments', namespace: s.identity.namespace };
    return problem(
      'Forbidden',
      `${missingPermission(permission)} Whether istiod runs, and which root workloads trust, is unknown without it.`,
    );
  }
  if (mesh.ready === 0 && !mesh.incomplete) return undefined;
  if (mesh.podsUnreadable) {
    const permission = { verb: 'list', group: '', resource: 'pods', namespace: s.identity.namespace };
    return problem(
      'Forbidden',
      `${missingPermission(permission)} What istiod serves is unknown without it, and it has published no root where it should.`,
    );
  }
  const places = mesh.places.map(describePlace);
  const bundleApi = mesh.places.some(({ kind }) => kind === 'ClusterTrustBundle')
    ? '. An API server that does not serve ClusterTrustBundles leaves istiod without a place to publish in, which only its log says'
    : '';
  const unknownPlace = mesh.incomplete
    ? [
        'a place that is not known (PILOT_CA_CERT_CONFIGMAP or ENABLE_CLUSTER_TRUST_BUNDLE_API of istiod is empty, or has its value from elsewhere)',
      ]
    : [];
  const failed = mesh.replicas.flatMap(({ name, served }) =>
    'unreachable' in served ? [`${name}: ${served.unreachable}`] : [],
  );
  const handshakes = failed.length === 0 ? '' : ` (${listNames(failed, 2)})`;
  return problem(
    'MeshRootUnknown',
    `istiod ${mesh.ready === 0 ? 'has no Ready replica' : 'runs'}, and the root that workloads trust is to be found neither in ${[...places, ...unknownPlace].join(' or ')} of a namespace that istiod discovers, nor in what a Ready replica serves${handshakes}${bundleApi}. See istiod's log for why it publishes none. If no workload trusts a root of this mesh yet, annotate this resource with ${known.confirmRootChange}=unknown`,
  );
}
