/** What a phase of a root rotation brought, and whether it is everywhere: at every replica of istiod and in every namespace. Pure. */
import { derivedOnce, type OwnIssuer, type CurrentCa, type DerivedState } from '../facts/derived.ts';
import { bundleFacts, isSignedBy } from '../facts/certificate.ts';
import { meshView, type MeshView } from '../proof/mesh.ts';

/** Whether what a phase brought is everywhere. */
interface Gate {
  passed: boolean;
  /** Somebody was seen to have something else: what was reached before is reached no more. */
  contradicted: boolean;
  /** What is missing; empty when it is passed. */
  waitingFor: string;
}

const passed: Gate = { passed: true, contradicted: false, waitingFor: '' };
const waiting = (waitingFor: string, contradicted = false): Gate => ({ passed: false, contradicted, waitingFor });

const sameSet = (one: readonly string[], other: readonly string[]): boolean =>
  one.every((item) => other.includes(item)) && other.every((item) => one.includes(item));

type Replica = MeshView['replicas'][number];

/** The set of the phase in Vault, which replicas are compared with; or what is missing of it. */
function publishedSet(s: DerivedState): { live: CurrentCa; signer: OwnIssuer; roots: string[] } | string {
  const live = s.currentCa;
  const { signer } = s.rootRoles;
  const bundle = s.trustBundle;
  if (!live || !signer || s.stagingEntry || !isSignedBy(live.certificate, signer.certificate))
    return 'an intermediate under the root that signs now';
  if (bundle === undefined || live.root !== bundle) return 'root-cert.pem in the key store';
  return { live, signer, roots: bundleFacts(bundle).map((root) => root.fingerprint) };
}

type PublishedSet = Exclude<ReturnType<typeof publishedSet>, string>;

/** Whether every replica of istiod was seen to serve the live intermediate. */
export function servedEverywhere(s: DerivedState): Gate {
  const set = publishedSet(s);
  return typeof set === 'string' ? waiting(set) : servedIn(s, set, meshView(s));
}

function servedIn(s: DerivedState, { live }: PublishedSet, mesh: MeshView | undefined): Gate {
  if (!s.kubernetes.controlPlane?.carriesFields) return waiting(`${s.spec.controlPlane.kind} to carry the fields`);
  if (!mesh) return waiting('istiod to be looked at');
  if (mesh.unfinished !== undefined) return waiting(mesh.unfinished);
  if (mesh.replicas.length === 0) return waiting('an istiod replica');
  const behind = mesh.replicas.find(({ serves }) => serves !== live.certificate.fingerprint);
  return behind ? waiting(`replica ${behind.name} to serve the current intermediate`) : passed;
}

/** Whether istiod and the namespaces have the set that Vault holds now, and Vault the set of the phase. */
export const propagation = derivedOnce((s: DerivedState): Gate => {
  const set = publishedSet(s);
  if (typeof set === 'string') return waiting(set);
  const mesh = meshView(s);
  const { signer, roots } = set;
  // an older intermediate under the root that signs is only late; another root, or other roots, undo what was reached
  const underSigner = (fingerprint: string) =>
    s.vault.intermediatePki?.issuers.some(
      ({ certificate }) => certificate.fingerprint === fingerprint && isSignedBy(certificate, signer.certificate),
    ) === true;
  const contradicts = ({ serves, roots: held }: Replica) =>
    (serves !== undefined && !underSigner(serves)) || (held !== undefined && !sameSet(held, roots));
  const other = mesh?.replicas.find(contradicts);
  if (other) return waiting(`replica ${other.name} to take up the current set`, true);
  const all = servedIn(s, set, mesh);
  if (!mesh || !all.passed) return all;
  const unknown = mesh.replicas.find(({ roots: held }) => held === undefined);
  if (unknown) {
    const why = unknown.why === undefined ? '' : ` (${unknown.why})`;
    return waiting(`replica ${unknown.name} to be seen with the current root-cert.pem${why}`);
  }
  return distributed(s, mesh, roots);
});

/** Whether `istio-ca-root-cert` holds exactly these roots wherever it is. */
function distributed(s: DerivedState, { namespaces }: MeshView, roots: string[]): Gate {
  if (namespaces === 'unreadable')
    return waiting('the right to read ConfigMap istio-ca-root-cert in all namespaces (docs/rbac.md)');
  const home = s.identity.namespace;
  if (!namespaces.some(({ namespace }) => namespace === home))
    return waiting(`ConfigMap istio-ca-root-cert of namespace ${home}`);
  const behind = namespaces.filter((one) => !sameSet(one.roots, roots)).map(({ namespace }) => namespace);
  if (behind.length === 0) return passed;
  return waiting(
    `ConfigMap istio-ca-root-cert of ${behind.length} namespaces to follow (${behind.slice(0, 5).join(', ')})`,
  );
}
