/**
 * Cleanup with `deletionPolicy: Delete`: removes the objects that this resource created. Adopted objects, objects of others, and objects with
 * `manage: false` stay. Each iteration has the steps of one stage of a fixed order, so a crash leaves the objects of later stages complete.
 * Pure.
 */
import { DerivedState } from '../facts/derived.ts';
import type { Tier } from '../facts/derived-vault.ts';
import { annotations as known } from '../../api/annotations.ts';
import { created, ownables, ownsRole } from '../ownership/ownership.ts';
import type { Desired } from '../facts/desired.ts';
import { objectName } from '../control-plane/istiod-fields.ts';
import { generationOf } from '../facts/identity.ts';
import { ownEntry, type Issuer, type Observed } from '../facts/observed.ts';
import type { StateEntry } from '../facts/state-entry.ts';
import { describeManager } from '../control-plane/field-ownership.ts';
import { forbidden } from './server-checks.ts';
import type { Plan, Step } from '../steps.ts';
import type { Problem } from '../facts/problem.ts';

/** Whether this resource created the role: it owns the role and did not adopt it. If the state entry is lost, the policy decides. */
function createdRole(s: DerivedState): boolean {
  const { role, policy } = ownables(s);
  if (!role || !ownsRole(s)) return false;
  const state = s.stateEntry;
  return state ? !state.adopted.includes(role.name) : created(s, policy);
}

function controlPlaneSteps(s: DerivedState): Step[] {
  const target = s.kubernetes.controlPlane;
  const owner = target?.owner ?? s.kubernetes.controlPlaneUnfit?.owner;
  // only the owner of the control plane releases its fields
  if (owner !== s.identity.name) return [];
  return [{ kind: 'ReleaseControlPlane', target: objectName(s.desired) }];
}

function accessSteps(s: DerivedState): Step[] {
  const { kubernetesAuth, policy } = s.spec;
  if (kubernetesAuth.manage && createdRole(s))
    return [{ kind: 'DeleteRole', mount: kubernetesAuth.mount, role: kubernetesAuth.role }];
  return policy.manage && created(s, ownables(s).policy) ? [{ kind: 'DeletePolicy', name: policy.name }] : [];
}

function entrySteps(s: DerivedState): Step[] {
  const { live, staging } = s.vault;
  const steps: Step[] = [];
  if (!s.spec.keyStore.manage) return steps;
  // the metadata of a staging entry stays after its versions are destroyed
  const metadataOnly = s.stateEntry && staging.entry === undefined && staging.casVersion > 0;
  if (ownEntry(staging) || metadataOnly) steps.push({ kind: 'DeleteEntry', entry: 'staging' });
  const stood = s.stateEntry?.stood;
  if (ownEntry(live) && created(s, ownables(s).live))
    steps.push({ kind: 'DeleteEntry', entry: 'live', ...(stood ? { after: stood.version } : {}) });
  return steps;
}

/** An issuer or a key of others in one of the PKI mounts, as a text for the user; undefined: the mount contains none. */
function foreignContent(s: DerivedState, tier: Tier): string | undefined {
  const { mount } = s.spec[tier];
  const pki = tier === 'root' ? s.vault.rootPki : s.vault.intermediatePki;
  const own = s.ownIssuers(tier);
  const ownKeyIds = new Set([...own.map((issuer) => issuer.keyId), ...recordedKeys(s)]);
  const ownPublicKeys = new Set([...(s.stateEntry?.publicKeys ?? []), ...own.map((i) => i.certificate.publicKey)]);
  // the CAs above an intermediate come along with it, without keys: they sign nothing here
  const comesAlong = ({ keyId }: Issuer) => tier === 'intermediate' && s.rootSource !== 'Generate' && keyId === '';
  const issuer = pki?.issuers.find(
    (one) => !own.some(({ id }) => id === one.id) && !ownPublicKeys.has(one.certificate.publicKey) && !comesAlong(one),
  );
  if (issuer) return `${mount} also holds the issuer ${issuer.certificate.serial} of somebody else`;
  const key = pki?.keys.find(
    ({ id, name }) => generationOf(s.identity, tier, name) === undefined && !ownKeyIds.has(id),
  );
  return key && `${mount} also holds the key ${key.name || key.id} of somebody else`;
}

/** Ids of keys that the state entry records. */
function recordedKeys({ stateEntry }: DerivedState): string[] {
  const { root, intermediate } = stateEntry ?? {};
  return [root?.keyId, intermediate?.keyId].filter((id) => id !== undefined);
}

/** Why cleanup keeps the root mount although this resource created it, for the user; undefined: cleanup removes the mount. */
export function rootStays(s: DerivedState): string | undefined {
  const { mount } = s.spec.root;
  const root = s.signer;
  const confirmed = s.desired.annotations[known.confirmDeleteRoot]?.toLowerCase();
  if (!root || confirmed !== root.certificate.serial) {
    const serial = root?.certificate.serial ?? 'its serial';
    return `${mount} keeps the root: annotate this resource with ${known.confirmDeleteRoot}=${serial} before deleting it to remove it too`;
  }
  if (s.spec.root.shared)
    return `${mount} has the root of other resources too (spec.root.shared): once none is left, set that to false before deleting this resource`;
  const foreign = foreignContent(s, 'root');
  if (foreign !== undefined) return foreign;
  const { signed, rootMountRoles } = s.vault.remains ?? {};
  if (rootMountRoles?.length !== 0)
    return `${mount} has roles, by which others have certificates signed: ${(rootMountRoles ?? ['not known']).slice(0, 5).join(', ')}`;
  if (!signed) return `${mount} has issued too many certificates to tell whether all are this resource's`;
  const ownPublicKeys = new Set([
    ...(s.stateEntry?.publicKeys ?? []),
    ...s.ownRoots.map((issuer) => issuer.certificate.publicKey),
  ]);
  const other = signed.find((certificate) => !ownPublicKeys.has(certificate.publicKey));
  return other && `${mount} has signed for somebody else: certificate ${other.serial} is valid still`;
}

/**
 * Why cleanup keeps PKI mounts that this resource created, for the user; undefined: cleanup removes the mount, or this resource did not create
 * it.
 */
export function mountsThatStay(s: DerivedState): { root?: string | undefined; intermediate?: string | undefined } {
  const { rootMount, intermediateMount } = ownables(s);
  return {
    ...(created(s, intermediateMount) ? { intermediate: foreignContent(s, 'intermediate') } : {}),
    ...(created(s, rootMount) ? { root: rootStays(s) } : {}),
  };
}

function mountSteps(s: DerivedState): Step[] {
  const { rootMount, intermediateMount } = ownables(s);
  const { root, intermediate } = s.spec;
  const stays = mountsThatStay(s);
  if (intermediate.manage && created(s, intermediateMount) && stays.intermediate === undefined)
    return [{ kind: 'Unmount', mount: intermediate.mount, type: 'pki' }];
  if (root.manage && created(s, rootMount) && stays.root === undefined)
    return [{ kind: 'Unmount', mount: root.mount, type: 'pki' }];
  return [];
}

/**
 * Deletes the state entry. If the root mount stays, the entry stays too, without the intermediate: it records for which keys the root has
 * signed.
 */
function stateEntrySteps(s: DerivedState, state: StateEntry): Step[] {
  if (!created(s, ownables(s).rootMount)) return [{ kind: 'DeleteEntry', entry: 'state' }];
  if (state.intermediate?.fingerprint === undefined) return [];
  const rootMount = `mount:${s.spec.root.mount}`;
  const next = {
    ...state,
    intermediate: { generation: 0, spec: s.desired.intermediate },
    made: state.made.filter((name) => name === rootMount),
  };
  return [{ kind: 'WriteState', state: next, cas: s.vault.state.casVersion, reason: 'the root stays' }];
}

/**
 * The last stage: the state entry, once everything that it records is removed; then shared mounts that this resource created and that are
 * empty.
 */
function lastSteps(s: DerivedState): Step[] {
  const { kvMount, remains, live, staging } = s.vault;
  const { keyStore, kubernetesAuth } = s.spec;
  const state = s.writtenState;
  const ofStateEntry = state ? stateEntrySteps(s, state) : [];
  if (ofStateEntry.length > 0) return ofStateEntry;
  const steps: Step[] = [];
  const kv = kvMount && { name: `mount:${keyStore.mount}`, text: kvMount.description };
  const empty = [live, staging, s.vault.state].every((slot) => slot.entry === undefined);
  if (keyStore.manage && created(s, kv) && empty && live.casVersion === 0 && remains?.otherEntries.length === 0)
    steps.push({ kind: 'Unmount', mount: keyStore.mount, type: 'kv' });
  const managesAuth = kubernetesAuth.manage && keyStore.manage;
  if (managesAuth && created(s, ownables(s).authMount) && !s.vault.role && remains?.otherRoles.length === 0)
    steps.push({ kind: 'DisableAuth', mount: kubernetesAuth.mount });
  return steps;
}

/** Whether a step removes something that istiod reads or logs in with. istiod's policy does not cover the staging and the state entry. */
const affectsIstiod = (step: Step): boolean =>
  step.kind !== 'WriteState' && !(step.kind === 'DeleteEntry' && step.entry !== 'live');

/**
 * istiod still uses the objects that cleanup is about to remove. Adopted objects stay, and istiod can continue to use them: they are no reason
 * to wait.
 */
function stillUsed(s: DerivedState): Problem | undefined {
  const { kubernetes } = s;
  if (kubernetes.istiodUses.length === 0) return undefined;
  const list = kubernetes.istiodUses.slice(0, 5).join(', ');
  const { sharedWith } = kubernetes.controlPlane ?? {};
  const shared = sharedWith
    ? `, but ${describeManager(sharedWith)} has set some in ${objectName(s.desired)} too: take them out there`
    : '';
  const action =
    s.spec.controlPlane.write === 'Render'
      ? 'take the fields out of what is committed'
      : `fields are given back${shared}`;
  return {
    condition: 'ControlPlanePatched',
    reason: 'Deleting',
    message: `${action}; waiting until istiod was rolled out without them: ${list} still use them. Annotation ${known.skipCleanup}=true ends the deletion and leaves Vault as it is`,
    blocks: 'all',
  };
}

/**
 * Plans the next iteration of cleanup. A plan with neither problems nor steps: cleanup is complete.
 * @param now milliseconds since the epoch
 */
export function cleanup(d: Desired, o: Observed, now: number): Plan {
  const s = new DerivedState(d, o, now);
  const denied = forbidden(s);
  if (denied) return { problems: [denied], steps: [] };
  const release = controlPlaneSteps(s);
  if (release.length > 0) return { problems: [], steps: release };
  const stages = [accessSteps, entrySteps, mountSteps, lastSteps];
  const steps = stages.map((stepsOf) => stepsOf(s)).find(({ length }) => length > 0) ?? [];
  // a stage that must wait blocks the stages after it, so the state entry is never deleted before the objects that it records
  const used = steps.some(affectsIstiod) ? stillUsed(s) : undefined;
  return used ? { problems: [used], steps: [] } : { problems: [], steps };
}

/** Objects that can be left in Vault, by the spec alone, for a Vault that cannot be observed. What the spec leaves to others is not among them. */
export function possiblyLeft({ spec }: Desired): string[] {
  const { keyStore, kubernetesAuth, policy, intermediate, root } = spec;
  const ifManaged = ({ manage }: { manage: boolean }, name: string) => (manage ? [name] : []);
  return [
    ...ifManaged(kubernetesAuth, `auth/${kubernetesAuth.mount}/role/${kubernetesAuth.role}`),
    ...ifManaged(policy, `policy ${policy.name}`),
    ...ifManaged(
      keyStore,
      `${keyStore.mount}/${keyStore.path}${intermediate.manage ? ', -staging and -state' : '-staging and -state'}`,
    ),
    ...ifManaged(intermediate, `mount ${intermediate.mount}`),
    ...ifManaged(root, `mount ${root.mount}`),
  ];
}
