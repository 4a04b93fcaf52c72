/**
 * Checks that every object at the paths of this resource is owned by the resource or can be adopted. They run before the first write, so that
 * nothing is left half done.
 */
import type { DerivedState } from '../facts/derived.ts';
import type { Tier } from '../facts/derived-vault.ts';
import { rootSourceOf } from '../facts/desired.ts';
import { annotations as known } from '../../api/annotations.ts';
import { adoptionOf } from './adoption.ts';
import { abandonedStagingMarker, adoptable, ownables, owns, ownsRole, roleFits, type Ownable } from './ownership.ts';
import { hasSupportedKey } from '../facts/certificate.ts';
import { parseMarker } from '../facts/identity.ts';
import type { Mount } from '../facts/observed.ts';
import type { Problem } from '../facts/problem.ts';

const problem = (condition: Problem['condition'], reason: Problem['reason'], message: string): Problem => ({
  condition,
  reason,
  message,
  blocks: 'all',
});

/**
 * What the user can do about an object that this resource does not own.
 * @param alternative to adoption
 */
function remedyFor(s: DerivedState, object: Ownable | undefined, alternative: string): string {
  const marker = parseMarker(object?.text);
  const otherwise = `${alternative}, or remove it if nobody needs it`;
  const wasOwned = object && s.stateEntry?.made.includes(object.name);
  if (!marker && wasOwned)
    return `it was, and holds something else now: restore it; do not remove it before you know what it holds`;
  // without a state entry nothing says what was adopted
  if (!s.spec.keyStore.manage) return otherwise;
  if (!marker) return s.spec.adopt ? otherwise : `set spec.adopt: true to take it over as it is; else ${otherwise}`;
  const owner = `${marker.cluster}/${marker.namespace}/${marker.name}`;
  if (marker.cluster !== s.identity.cluster)
    return `it is marked for ${owner} of another cluster; when that is gone, set spec.adopt: true and annotation ${known.takeOver}=${owner}; else ${otherwise}`;
  return s.kubernetes.goneOwners.includes(`${marker.namespace}/${marker.name}`)
    ? `it is marked for ${marker.namespace}/${marker.name}, which is gone: set spec.adopt: true to take it over; else ${otherwise}`
    : `it belongs to IstioVaultCA ${marker.namespace}/${marker.name}: ${alternative}${canaryRemedy(s, marker)}`;
}

/**
 * What the user can do if the owner is in the same namespace: the two are revisions of one mesh, and can have CAs of their own under one root.
 * @param owner of the object
 */
function canaryRemedy({ identity, spec }: DerivedState, owner: { namespace: string; name: string }): string {
  if (owner.namespace !== identity.namespace || rootSourceOf(spec) !== 'Generate') return '';
  return `. If both are revisions of one mesh, have this one sign under the root of the other: \`root: {source: Existing, mount: <spec.root.mount of ${owner.name}>}\`, and names of its own in spec.intermediate.mount, spec.keyStore.path, spec.policy.name and spec.kubernetesAuth.role; see docs/existing-root.md`;
}

/** What the user can do about an entry at the path of the staging entry that this resource does not own. Such an entry is never adopted. */
function stagingRemedyFor(s: DerivedState, object: Ownable): string {
  const { mount, path, version } = s.spec.keyStore;
  const marker = parseMarker(object.text);
  const alternative = 'choose another path';
  const remove = `\`vault kv ${version === 2 ? 'metadata delete' : 'delete'} -mount=${mount} ${path}-staging\``;
  if (!marker) return `${alternative}, or remove it if nobody needs it: ${remove}`;
  const inCluster = marker.cluster === s.identity.cluster;
  const owner = `${marker.namespace}/${marker.name}`;
  const what = `it is a key of IstioVaultCA ${owner} that was never published`;
  if (inCluster && !s.kubernetes.goneOwners.includes(owner)) return `${what}: ${alternative}`;
  const destroyed = `and it is destroyed; or remove it: ${remove}`;
  if (inCluster) return `${what}, and that resource is gone: set spec.adopt: true, ${destroyed}`;
  const named = `${marker.cluster}/${owner}`;
  return `${what}, of another cluster; when that resource is gone, set spec.adopt: true and annotation ${known.takeOver}=${named}, ${destroyed}`;
}

const notOwned = (condition: Problem['condition'], path: string, remedy: string): Problem =>
  problem(condition, 'MountNotOwned', `${path} exists and is not this resource's; ${remedy}`);

/** A PKI mount that is neither owned nor adoptable, or an adoptable one of another type. */
function mountProblem(
  s: DerivedState,
  condition: Problem['condition'],
  tier: Tier,
  mount: Mount | undefined,
  object: Ownable | undefined,
): Problem | undefined {
  if (!mount || !object || owns(s, object)) return undefined;
  const path = `spec.${tier}.mount: ${s.spec[tier].mount}`;
  if (!adoptable(s, object))
    return notOwned(condition, `${path} (type ${mount.type})`, remedyFor(s, object, 'choose another mount'));
  if (mount.type === 'pki') return undefined;
  return problem(condition, 'MountTypeMismatch', `${path} is of type ${mount.type}, not pki; choose another mount`);
}

export const rootMountNotOwned = (s: DerivedState): Problem | undefined =>
  mountProblem(s, 'RootReady', 'root', s.vault.rootMount, ownables(s).rootMount);

export const intermediateMountNotOwned = (s: DerivedState): Problem | undefined =>
  mountProblem(s, 'IntermediateReady', 'intermediate', s.vault.intermediateMount, ownables(s).intermediateMount);

/** The CA, state or staging entry is neither owned nor, as far as that is possible, adoptable or abandoned. */
export function keyStoreEntryNotOwned(s: DerivedState): Problem | undefined {
  const { mount, path } = s.spec.keyStore;
  const { live, staging, state } = ownables(s);
  const entryPath = `spec.keyStore.path: the entry ${mount}/${path}`;
  const foreign = [
    { suffix: '', slot: s.vault.live, object: live },
    { suffix: '-state', slot: s.vault.state, object: state },
  ].find(({ slot, object }) => object && slot.entry === 'foreign' && !owns(s, object) && !adoptable(s, object));
  if (foreign)
    return notOwned('KeyStored', `${entryPath}${foreign.suffix}`, remedyFor(s, foreign.object, 'choose another path'));
  if (!staging || s.vault.staging.entry !== 'foreign' || abandonedStagingMarker(s) !== undefined) return undefined;
  return notOwned('KeyStored', `${entryPath}-staging`, stagingRemedyFor(s, staging));
}

export function policyNotOwned(s: DerivedState): Problem | undefined {
  const { policy } = ownables(s);
  if (!policy || !s.spec.policy.manage || owns(s, policy) || adoptable(s, policy)) return undefined;
  const path = `spec.policy.name: policy ${s.spec.policy.name}`;
  return notOwned('AccessReady', path, remedyFor(s, policy, 'choose another name'));
}

export function roleNotOwned(s: DerivedState): Problem | undefined {
  const { role } = ownables(s);
  if (!role || !s.spec.kubernetesAuth.manage || ownsRole(s) || (roleFits(s) && adoptable(s, role))) return undefined;
  const { mount, role: name } = s.spec.kubernetesAuth;
  const path = `spec.kubernetesAuth.role: role ${name} of auth/${mount}`;
  if (roleFits(s)) return notOwned('AccessReady', path, remedyFor(s, role, 'choose another name'));
  return problem(
    'AccessReady',
    'MountNotOwned',
    `${path} is somebody else's, for another policy or namespace: choose another name`,
  );
}

/** A CA whose key istiod does not take is to be adopted: istiod would exit with it. Nothing is written before. */
export function keyUnsupported(s: DerivedState): Problem | undefined {
  const adoption = adoptionOf(s);
  const { intermediate, root } = (typeof adoption === 'string' ? undefined : adoption?.ca) ?? {};
  const issuers = [
    { what: `the intermediate of ${s.spec.intermediate.mount}`, issuer: intermediate },
    { what: `the root of ${s.spec.root.mount}`, issuer: root },
  ];
  const [bad] = issuers.filter(({ issuer }) => issuer && !hasSupportedKey(issuer.certificate));
  if (!bad?.issuer) return undefined;
  const { serial, keyType, keyBits } = bad.issuer.certificate;
  const kind =
    keyType === 'other' ? 'of a kind that is neither RSA nor on a NIST curve' : `${keyType} of ${keyBits} bits`;
  return problem(
    'IntermediateReady',
    'KeyUnsupported',
    `${bad.what}, serial ${serial}, has a key that is ${kind}: istiod takes RSA of 2048 bits and more, P-256, P-384 and P-521; nothing was changed. Choose other mounts and paths and let a new CA be made`,
  );
}

/** The objects to adopt are not one CA: a key, its certificate, and the root that signed the certificate. */
export function adoptionMismatch(s: DerivedState): Problem | undefined {
  const mismatch = adoptionOf(s);
  if (typeof mismatch !== 'string') return undefined;
  return problem('KeyStored', 'AdoptionMismatch', `spec.adopt: ${mismatch}`);
}

/** Another IstioVaultCA owns the control plane. This resource then writes nothing, neither to Vault nor to the control plane. */
export function controlPlaneConflict(s: DerivedState): Problem | undefined {
  const { ownerIs } = s.kubernetes;
  if (ownerIs === 'us') return undefined;
  const { kind, name, revision } = s.spec.controlPlane;
  return {
    condition: 'ControlPlanePatched',
    reason: 'ControlPlaneConflict',
    message: `${kind} ${name} (revision ${revision ?? 'default'}) belongs to IstioVaultCA ${ownerIs.name}; delete one of the two or give this one another spec.controlPlane`,
    blocks: 'all',
  };
}
