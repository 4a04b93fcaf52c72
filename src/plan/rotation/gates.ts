/**
 * Checks whether the CA and the roots of a rotation phase are propagated to every istiod replica and to every namespace of the mesh. Pure.
 */
import { derivedOnce, type DerivedState } from '../facts/derived.ts';
import type { OwnIssuer, CurrentCa } from '../facts/derived-vault.ts';
import { bundleFacts } from '../facts/certificate.ts';
import type { UnknownBundles } from '../facts/observed-istiod.ts';
import { describePlace } from '../facts/trust-places.ts';
import { meshView, type MeshView } from '../proof/mesh.ts';
import { comingRoots, fingerprintOf } from './owners-roots.ts';

/** Result of a propagation check. */
interface Gate {
  passed: boolean;
  /** A replica serves or distributes something else, so propagation that was recorded earlier no longer holds. */
  contradicted: boolean;
  /** What is missing, as a noun phrase; empty if the gate is passed. */
  waitingFor: string;
}

const passed: Gate = { passed: true, contradicted: false, waitingFor: '' };
const waiting = (waitingFor: string, contradicted = false): Gate => ({ passed: false, contradicted, waitingFor });

const sameSet = (one: readonly string[], other: readonly string[]): boolean =>
  one.every((item) => other.includes(item)) && other.every((item) => one.includes(item));

type Replica = MeshView['replicas'][number];

/** The staged CA generation was signed outside of Vault, or imported, under the root that a rotation is about to switch to. It waits for that. */
export function isStagedForNextRoot({ signsOutside, rotation, stagingEntry }: DerivedState): boolean {
  const before = rotation?.phase === 'Issuing' || rotation?.phase === 'Distributing';
  return signsOutside && stagingEntry !== undefined && before && !rotation.back;
}

/** Returns the current CA in Vault, if it matches the phase, with fingerprints of its roots; else what Vault lacks, as a noun phrase. */
function publishedCa(s: DerivedState): { ca: CurrentCa; signer: OwnIssuer; roots: string[] } | string {
  const ca = s.currentCa;
  const { signer } = s.rootRoles;
  const bundle = s.trustBundle;
  // what is staged for a signature outside of Vault can wait for days, and the CA in use goes on meanwhile
  if (!ca || !signer || (s.stagingEntry && !s.signsOutside) || !s.isUnderSigner(ca.certificate)) return lackOfCa(s);
  if (bundle === undefined || ca.root !== bundle) return 'root-cert.pem in the key store';
  return { ca, signer, roots: bundleFacts(bundle).map((root) => root.fingerprint) };
}

/** What the current CA lacks, as a noun phrase. A root that was imported signs nothing: its CA has to be imported again. */
function lackOfCa({ hasKeylessRoot, lostSigner, imports, signer }: DerivedState): string {
  return hasKeylessRoot && !lostSigner && !imports
    ? `spec.intermediate.source: Import, with the Secret of the CA under root ${signer?.certificate.serial ?? ''}`
    : 'an intermediate under the root that signs now';
}

type PublishedCa = Exclude<ReturnType<typeof publishedCa>, string>;

/** Checks whether every istiod replica serves the current intermediate. */
export function servedEverywhere(s: DerivedState): Gate {
  const published = publishedCa(s);
  return typeof published === 'string' ? waiting(published) : servedByReplicas(s, published, meshView(s));
}

function servedByReplicas(s: DerivedState, { ca }: PublishedCa, mesh: MeshView | undefined): Gate {
  if (!s.kubernetes.controlPlane?.carriesFields) return waiting(`${s.spec.controlPlane.kind} to carry the fields`);
  if (!mesh) return waiting('istiod to be looked at');
  if (mesh.unfinished !== undefined) return waiting(mesh.unfinished);
  if (mesh.replicas.length === 0) return waiting('an istiod replica');
  const lagging = mesh.replicas.find(({ serves }) => serves !== ca.certificate.fingerprint);
  return lagging ? waiting(`replica ${lagging.name} to serve the current intermediate`) : passed;
}

/** Checks whether Vault holds the CA of the phase, every istiod replica serves it, and every namespace of the mesh holds its roots. */
export const propagation = derivedOnce((s: DerivedState): Gate => {
  const published = publishedCa(s);
  if (typeof published === 'string') return waiting(published);
  const mesh = meshView(s);
  const { signer, roots } = published;
  // a replica with an older intermediate of the signing root is only late; a replica with another signing root or other roots revokes the
  // propagation
  // an imported CA is in no mount
  const known = [published.ca.certificate, ...(s.vault.intermediatePki?.issuers ?? []).map((one) => one.certificate)];
  const underSigner = (fingerprint: string) =>
    known.some((certificate) => certificate.fingerprint === fingerprint && s.leads(certificate, signer.certificate));
  const contradicts = ({ serves, roots: held }: Replica) =>
    (serves !== undefined && !underSigner(serves)) || (held !== undefined && !sameSet(held, roots));
  const contradicting = mesh?.replicas.find(contradicts);
  if (contradicting) return waiting(`replica ${contradicting.name} to take up the current set`, true);
  const served = servedByReplicas(s, published, mesh);
  if (!mesh || !served.passed) return served;
  const unknown = mesh.replicas.find(({ roots: held }) => held === undefined);
  if (unknown) {
    const why = unknown.why === undefined ? '' : ` (${unknown.why})`;
    return waiting(`replica ${unknown.name} to be seen with the current root-cert.pem${why}`);
  }
  return rootsInBundles(s, mesh, roots);
});

/**
 * Whether a trust bundle holds the roots, given as fingerprints. Under a shared root, the istiod of another revision can be the one that publishes, with
 * more roots of the owner, or with fewer: those that sign or will sign must be there.
 */
function holds(s: DerivedState, { roots: held }: { roots: string[] }, roots: string[]): boolean {
  if (!s.spec.root.shared && !s.sharedRoots) return sameSet(held, roots);
  const phase = (s.phaseRoles.trusted ?? []).map(({ fingerprint }) => fingerprint);
  const needed = s.sharedRoots ? [...phase, ...comingRoots(s).map(fingerprintOf)] : roots;
  return needed.every((root) => held.includes(root));
}

/** Checks whether every trust bundle of the mesh holds the roots, given as fingerprints. */
function rootsInBundles(s: DerivedState, { bundles, places, homeDiscovered }: MeshView, roots: string[]): Gate {
  if (typeof bundles === 'string') return waiting(missingRights[bundles]);
  const home = s.identity.namespace;
  const what = places.map(describePlace).join(' or ');
  const isPublished = homeDiscovered
    ? bundles.some(({ namespace }) => namespace === undefined || namespace === home)
    : bundles.length > 0;
  if (!isPublished) {
    const where = places.every(({ kind }) => kind === 'ClusterTrustBundle')
      ? ''
      : ` of ${homeDiscovered ? `namespace ${home}` : 'a namespace that istiod discovers'}`;
    return waiting(`${what === '' ? 'the place where istiod publishes' : what}${where}`);
  }
  const lagging = bundles.filter((bundle) => !holds(s, bundle, roots));
  if (lagging.length === 0) return passed;
  const namespaces = lagging.flatMap(({ namespace }) => namespace ?? []);
  if (namespaces.length === 0) return waiting(`${what} to follow`);
  return waiting(`${what} of ${namespaces.length} namespaces to follow (${namespaces.slice(0, 5).join(', ')})`);
}

/** The right without which the trust bundles are unknown. */
const missingRights: Readonly<Record<UnknownBundles, string>> = {
  unreadable: 'permission to list configmaps named istio-ca-root-cert in all namespaces (docs/rbac.md)',
  unreadableElsewhere: 'permission to read where istiod publishes the roots (component trust-bundle, docs/rbac.md)',
  unselectable: "permission to list namespaces, whose labels istiod's discoverySelectors select (docs/rbac.md)",
};
