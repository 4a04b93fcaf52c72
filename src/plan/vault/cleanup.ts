/**
 * What `deletionPolicy: Delete` takes away, in order, and what stays: pure. Only what this resource made goes; what was taken over
 * and what belongs to others stays. Each round gives the steps of one place in the order, so that a crash leaves a beginning, never a hole.
 */
import { DerivedState } from '../facts/derived.ts';
import { annotations as known } from '../../api/annotations.ts';
import { ownables, ownsRole, type Ownable } from '../ownership/ownership.ts';
import type { Desired } from '../facts/desired.ts';
import { objectName } from '../control-plane/istiod-fields.ts';
import { generationOf, isOwnMarker, parseMarker } from '../facts/identity.ts';
import { ownEntry, type Observed } from '../facts/observed.ts';
import type { StateEntry } from '../facts/state-entry.ts';
import { describeManager } from '../control-plane/field-ownership.ts';
import { forbidden } from './server-checks.ts';
import type { Plan, Step } from '../steps.ts';
import type { Problem } from '../facts/problem.ts';

/** Marked as made by this resource, and not taken over. What the spec says not to manage is left alone, too. */
function made(s: DerivedState, thing: Ownable | undefined): boolean {
  if (!thing || s.stateEntry?.adopted.includes(thing.name) === true) return false;
  return isOwnMarker(s.identity, thing.text) && parseMarker(thing.text)?.origin === 'made';
}

/** The role goes if it is ours and was not taken over; when the memory is lost, the policy that it carries tells. */
function roleIsOurs(s: DerivedState): boolean {
  const { role, policy } = ownables(s);
  if (!role || !ownsRole(s)) return false;
  const state = s.stateEntry;
  return state ? !state.adopted.includes(role.name) : made(s, policy);
}

function controlPlaneSteps(s: DerivedState): Step[] {
  const target = s.kubernetes.controlPlane;
  const owner = target?.owner ?? s.kubernetes.controlPlaneUnfit?.owner;
  // another owner's fields are not ours to give back
  if (owner !== s.identity.name) return [];
  return [{ kind: 'ReleaseControlPlane', target: objectName(s.desired) }];
}

function accessSteps(s: DerivedState): Step[] {
  const { kubernetesAuth, policy } = s.spec;
  if (kubernetesAuth.manage && roleIsOurs(s))
    return [{ kind: 'DeleteRole', mount: kubernetesAuth.mount, role: kubernetesAuth.role }];
  return policy.manage && made(s, ownables(s).policy) ? [{ kind: 'DeletePolicy', name: policy.name }] : [];
}

function entrySteps(s: DerivedState): Step[] {
  const { live, staging } = s.vault;
  const steps: Step[] = [];
  if (!s.spec.keyStore.manage) return steps;
  // an empty shell is left of what was destroyed
  const shell = s.stateEntry && staging.entry === undefined && staging.casVersion > 0;
  if (ownEntry(staging) || shell) steps.push({ kind: 'DeleteEntry', entry: 'staging' });
  const stood = s.stateEntry?.stood;
  if (ownEntry(live) && made(s, ownables(s).live))
    steps.push({ kind: 'DeleteEntry', entry: 'live', ...(stood ? { after: stood.version } : {}) });
  return steps;
}

/** What of somebody else lies in one of our PKI mounts; undefined: nothing. */
function foreignIn(s: DerivedState, tier: 'root' | 'intermediate'): string | undefined {
  const { mount } = s.spec[tier];
  const pki = tier === 'root' ? s.vault.rootPki : s.vault.intermediatePki;
  const ours = s.ownIssuers(tier);
  const carried = new Set([...ours.map((issuer) => issuer.keyId), ...recordedKeys(s)]);
  const known_ = new Set([...(s.stateEntry?.publicKeys ?? []), ...ours.map((i) => i.certificate.publicKey)]);
  const issuer = pki?.issuers.find(
    (one) => !ours.some((own_) => own_.id === one.id) && !known_.has(one.certificate.publicKey),
  );
  if (issuer) return `${mount} also holds the issuer ${issuer.certificate.serial} of somebody else`;
  const key = pki?.keys.find((one) => generationOf(s.identity, tier, one.name) === undefined && !carried.has(one.id));
  return key && `${mount} also holds the key ${key.name || key.id} of somebody else`;
}

/** Ids of keys that the memory names. */
function recordedKeys({ stateEntry }: DerivedState): string[] {
  const { root, intermediate } = stateEntry ?? {};
  return [root?.keyId, intermediate?.keyId].filter((id) => id !== undefined);
}

/** Why the root mount stays although this resource made it; undefined when it may go. */
export function rootStays(s: DerivedState): string | undefined {
  const { mount } = s.spec.root;
  const root = s.signer;
  const confirmed = s.desired.annotations[known.confirmDeleteRoot]?.toLowerCase();
  if (!root || confirmed !== root.certificate.serial) {
    const serial = root?.certificate.serial ?? 'its serial';
    return `${mount} keeps the root: annotate this resource with ${known.confirmDeleteRoot}=${serial} before deleting it to remove it too`;
  }
  const foreignPart = foreignIn(s, 'root');
  if (foreignPart !== undefined) return foreignPart;
  const { signed, rootRoles } = s.vault.remains ?? {};
  if (rootRoles?.length !== 0)
    return `${mount} has roles, by which others have certificates signed: ${(rootRoles ?? ['not known']).slice(0, 5).join(', ')}`;
  if (!signed) return `${mount} has issued too many certificates to tell whether all are this resource's`;
  const ours = new Set([
    ...(s.stateEntry?.publicKeys ?? []),
    ...s.ownRoots.map((issuer) => issuer.certificate.publicKey),
  ]);
  const foreign = signed.find((certificate) => !ours.has(certificate.publicKey));
  return foreign && `${mount} has signed for somebody else: certificate ${foreign.serial} is valid still`;
}

/** Why mounts that this resource made stay; undefined for one that goes, or is not ours to take. */
export function mountsThatStay(s: DerivedState): { root?: string | undefined; intermediate?: string | undefined } {
  const { rootMount, intermediateMount } = ownables(s);
  return {
    ...(made(s, intermediateMount) ? { intermediate: foreignIn(s, 'intermediate') } : {}),
    ...(made(s, rootMount) ? { root: rootStays(s) } : {}),
  };
}

function mountSteps(s: DerivedState): Step[] {
  const { rootMount, intermediateMount } = ownables(s);
  const { root, intermediate } = s.spec;
  const stays = mountsThatStay(s);
  if (intermediate.manage && made(s, intermediateMount) && stays.intermediate === undefined)
    return [{ kind: 'Unmount', mount: intermediate.mount, type: 'pki' }];
  if (root.manage && made(s, rootMount) && stays.root === undefined)
    return [{ kind: 'Unmount', mount: root.mount, type: 'pki' }];
  return [];
}

/** The memory of a root of ours that stays: it tells which keys that root has signed for, and no longer of an intermediate. */
function memorySteps(s: DerivedState, state: StateEntry): Step[] {
  if (!made(s, ownables(s).rootMount)) return [{ kind: 'DeleteEntry', entry: 'state' }];
  if (state.intermediate?.fingerprint === undefined) return [];
  const stays = `mount:${s.spec.root.mount}`;
  const next = {
    ...state,
    intermediate: { generation: 0, spec: s.desired.intermediate },
    made: state.made.filter((name) => name === stays),
  };
  return [{ kind: 'WriteState', state: next, cas: s.vault.state.casVersion, reason: 'the root stays' }];
}

/** The memory goes when nothing is left that it would tell of; then shared mounts that we made and that are empty. */
function lastSteps(s: DerivedState): Step[] {
  const { kvMount, remains, live, staging } = s.vault;
  const { keyStore, kubernetesAuth } = s.spec;
  const state = s.stateEntry;
  const memory = state ? memorySteps(s, state) : [];
  if (memory.length > 0) return memory;
  const steps: Step[] = [];
  const kv = kvMount && { name: `mount:${keyStore.mount}`, text: kvMount.description };
  const empty = [live, staging, s.vault.state].every((slot) => slot.entry === undefined);
  if (made(s, kv) && empty && live.casVersion === 0 && remains?.otherEntries.length === 0)
    steps.push({ kind: 'Unmount', mount: keyStore.mount, type: 'kv' });
  if (made(s, ownables(s).authMount) && !s.vault.role && remains?.otherRoles.length === 0)
    steps.push({ kind: 'DisableAuth', mount: kubernetesAuth.mount });
  return steps;
}

/** Whether a step takes away what istiod reads, or logs in with. Of the staged entry and the memory it can read nothing. */
const takesFromIstiod = (step: Step): boolean =>
  step.kind !== 'WriteState' && !(step.kind === 'DeleteEntry' && step.entry !== 'live');

/**
 * istiod must not lose what it still reads. What was taken over stays, and istiod may go on reading it for ever: then there is nothing to
 * wait for.
 */
function stillUsed(s: DerivedState): Problem | undefined {
  const { kubernetes } = s;
  if (kubernetes.istiodUses.length === 0) return undefined;
  const list = kubernetes.istiodUses.slice(0, 5).join(', ');
  const { sharedWith } = kubernetes.controlPlane ?? {};
  const out = sharedWith
    ? `, but ${describeManager(sharedWith)} has set some in ${objectName(s.desired)} too: take them out there`
    : '';
  const given =
    s.spec.controlPlane.write === 'Render' ? 'take the fields out of what is committed' : `fields are given back${out}`;
  return {
    condition: 'ControlPlanePatched',
    reason: 'Deleting',
    message: `${given}; waiting until istiod was rolled out without them: ${list} still use them. Annotation ${known.skipCleanup}=true ends the deletion and leaves Vault as it is`,
    blocks: 'all',
  };
}

/**
 * Decides what deletion does now; neither problems nor steps: it is done.
 * @param now milliseconds since the epoch
 */
export function cleanup(d: Desired, o: Observed, now: number): Plan {
  const s = new DerivedState(d, o, now);
  const denied = forbidden(s);
  if (denied) return { problems: [denied], steps: [] };
  const release = controlPlaneSteps(s);
  if (release.length > 0) return { problems: [], steps: release };
  const order = [accessSteps, entrySteps, mountSteps, lastSteps];
  const steps = order.map((next) => next(s)).find((found) => found.length > 0) ?? [];
  // a place that must wait holds up those behind it: the memory never goes before what it tells of
  const used = steps.some(takesFromIstiod) ? stillUsed(s) : undefined;
  return used ? { problems: [used], steps: [] } : { problems: [], steps };
}

/** What may be left in Vault when it could not be looked at, by the spec. */
export function possiblyLeft({ spec }: Desired): string[] {
  const { keyStore, kubernetesAuth } = spec;
  return [
    `auth/${kubernetesAuth.mount}/role/${kubernetesAuth.role}`,
    `policy ${spec.policy.name}`,
    `${keyStore.mount}/${keyStore.path}, -staging and -state`,
    `mount ${spec.intermediate.mount}`,
    `mount ${spec.root.mount}`,
  ];
}
