/**
 * What `deletionPolicy: Delete` takes away, in order, and what stays: pure. Only what this resource made goes; what was taken over
 * and what belongs to others stays. Each round gives the steps of one place in the order, so that a crash leaves a beginning, never a hole.
 */
import { annotations as known } from '../../api/annotations.ts';
import { ownables, ownsRole, type Ownable } from '../ownership/ownership.ts';
import type { Desired } from '../facts/desired.ts';
import { objectName } from '../control-plane/istiod-fields.ts';
import { currentRoot, ownIssuers } from '../facts/derived.ts';
import { generationOf, isOwnMarker, parseMarker } from '../facts/identity.ts';
import { ownEntry, type Observed } from '../facts/observed.ts';
import type { StateEntry } from '../facts/state-entry.ts';
import { describeManager } from '../control-plane/field-ownership.ts';
import { forbidden } from './server-checks.ts';
import type { Plan, Step } from '../steps.ts';
import type { Problem } from '../facts/problem.ts';

/** Marked as made by this resource, and not taken over. What the spec says not to manage is left alone, too. */
function made(d: Desired, o: Observed, thing: Ownable | undefined): boolean {
  if (!thing || ownEntry(o.vault.state)?.adopted.includes(thing.name) === true) return false;
  return isOwnMarker(d.identity, thing.text) && parseMarker(thing.text)?.origin === 'made';
}

/** The role goes if it is ours and was not taken over; when the memory is lost, the policy that it carries tells. */
function roleIsOurs(d: Desired, o: Observed): boolean {
  const { role, policy } = ownables(d, o.vault);
  if (!role || !ownsRole(d, o)) return false;
  const state = ownEntry(o.vault.state);
  return state ? !state.adopted.includes(role.name) : made(d, o, policy);
}

function controlPlaneSteps(d: Desired, o: Observed): Step[] {
  const target = o.kubernetes.controlPlane;
  const owner = target?.owner ?? o.kubernetes.controlPlaneUnfit?.owner;
  // another owner's fields are not ours to give back
  if (owner !== d.identity.name) return [];
  return [{ kind: 'ReleaseControlPlane', target: objectName(d) }];
}

function accessSteps(d: Desired, o: Observed): Step[] {
  const { kubernetesAuth, policy } = d.spec;
  if (kubernetesAuth.manage && roleIsOurs(d, o))
    return [{ kind: 'DeleteRole', mount: kubernetesAuth.mount, role: kubernetesAuth.role }];
  return policy.manage && made(d, o, ownables(d, o.vault).policy) ? [{ kind: 'DeletePolicy', name: policy.name }] : [];
}

function entrySteps(d: Desired, o: Observed): Step[] {
  const { live, staging } = o.vault;
  const steps: Step[] = [];
  if (!d.spec.keyStore.manage) return steps;
  // an empty shell is left of what was destroyed
  const shell = ownEntry(o.vault.state) && staging.entry === undefined && staging.casVersion > 0;
  if (ownEntry(staging) || shell) steps.push({ kind: 'DeleteEntry', entry: 'staging' });
  const stood = ownEntry(o.vault.state)?.stood;
  if (ownEntry(live) && made(d, o, ownables(d, o.vault).live))
    steps.push({ kind: 'DeleteEntry', entry: 'live', ...(stood ? { after: stood.version } : {}) });
  return steps;
}

/** What of somebody else lies in one of our PKI mounts; undefined: nothing. */
function foreignIn(d: Desired, o: Observed, tier: 'root' | 'intermediate'): string | undefined {
  const { mount } = d.spec[tier];
  const pki = tier === 'root' ? o.vault.rootPki : o.vault.intermediatePki;
  const ours = ownIssuers(d, tier, o.vault);
  const carried = new Set([...ours.map((issuer) => issuer.keyId), ...recordedKeys(o)]);
  const known_ = new Set([...(ownEntry(o.vault.state)?.publicKeys ?? []), ...ours.map((i) => i.certificate.publicKey)]);
  const issuer = pki?.issuers.find(
    (one) => !ours.some((own_) => own_.id === one.id) && !known_.has(one.certificate.publicKey),
  );
  if (issuer) return `${mount} also holds the issuer ${issuer.certificate.serial} of somebody else`;
  const key = pki?.keys.find((one) => generationOf(d.identity, tier, one.name) === undefined && !carried.has(one.id));
  return key && `${mount} also holds the key ${key.name || key.id} of somebody else`;
}

/** Ids of keys that the memory names. */
function recordedKeys({ vault }: Observed): string[] {
  const { root, intermediate } = ownEntry(vault.state) ?? {};
  return [root?.keyId, intermediate?.keyId].filter((id) => id !== undefined);
}

/** Why the root mount stays although this resource made it; undefined when it may go. */
export function rootStays(d: Desired, o: Observed): string | undefined {
  const { mount } = d.spec.root;
  const root = currentRoot(d, o);
  const confirmed = d.annotations[known.confirmDeleteRoot]?.toLowerCase();
  if (!root || confirmed !== root.certificate.serial) {
    const serial = root?.certificate.serial ?? 'its serial';
    return `${mount} keeps the root: annotate this resource with ${known.confirmDeleteRoot}=${serial} before deleting it to remove it too`;
  }
  const foreignPart = foreignIn(d, o, 'root');
  if (foreignPart !== undefined) return foreignPart;
  const { signed, rootRoles } = o.vault.remains ?? {};
  if (rootRoles?.length !== 0)
    return `${mount} has roles, by which others have certificates signed: ${(rootRoles ?? ['not known']).slice(0, 5).join(', ')}`;
  if (!signed) return `${mount} has issued too many certificates to tell whether all are this resource's`;
  const ours = new Set([
    ...(ownEntry(o.vault.state)?.publicKeys ?? []),
    ...ownIssuers(d, 'root', o.vault).map((issuer) => issuer.certificate.publicKey),
  ]);
  const foreign = signed.find((certificate) => !ours.has(certificate.publicKey));
  return foreign && `${mount} has signed for somebody else: certificate ${foreign.serial} is valid still`;
}

/** Why mounts that this resource made stay; undefined for one that goes, or is not ours to take. */
export function mountsThatStay(
  d: Desired,
  o: Observed,
): { root?: string | undefined; intermediate?: string | undefined } {
  const { rootMount, intermediateMount } = ownables(d, o.vault);
  return {
    ...(made(d, o, intermediateMount) ? { intermediate: foreignIn(d, o, 'intermediate') } : {}),
    ...(made(d, o, rootMount) ? { root: rootStays(d, o) } : {}),
  };
}

function mountSteps(d: Desired, o: Observed): Step[] {
  const { rootMount, intermediateMount } = ownables(d, o.vault);
  const { root, intermediate } = d.spec;
  const stays = mountsThatStay(d, o);
  if (intermediate.manage && made(d, o, intermediateMount) && stays.intermediate === undefined)
    return [{ kind: 'Unmount', mount: intermediate.mount, type: 'pki' }];
  if (root.manage && made(d, o, rootMount) && stays.root === undefined)
    return [{ kind: 'Unmount', mount: root.mount, type: 'pki' }];
  return [];
}

/** The memory of a root of ours that stays: it tells which keys that root has signed for, and no longer of an intermediate. */
function memorySteps(d: Desired, o: Observed, state: StateEntry): Step[] {
  if (!made(d, o, ownables(d, o.vault).rootMount)) return [{ kind: 'DeleteEntry', entry: 'state' }];
  if (state.intermediate?.fingerprint === undefined) return [];
  const stays = `mount:${d.spec.root.mount}`;
  const next = {
    ...state,
    intermediate: { generation: 0, spec: d.intermediate },
    made: state.made.filter((name) => name === stays),
  };
  return [{ kind: 'WriteState', state: next, cas: o.vault.state.casVersion, reason: 'the root stays' }];
}

/** The memory goes when nothing is left that it would tell of; then shared mounts that we made and that are empty. */
function lastSteps(d: Desired, o: Observed): Step[] {
  const { kvMount, remains, live, staging } = o.vault;
  const { keyStore, kubernetesAuth } = d.spec;
  const state = ownEntry(o.vault.state);
  const memory = state ? memorySteps(d, o, state) : [];
  if (memory.length > 0) return memory;
  const steps: Step[] = [];
  const kv = kvMount && { name: `mount:${keyStore.mount}`, text: kvMount.description };
  const empty = [live, staging, o.vault.state].every((slot) => slot.entry === undefined);
  if (made(d, o, kv) && empty && live.casVersion === 0 && remains?.otherEntries.length === 0)
    steps.push({ kind: 'Unmount', mount: keyStore.mount, type: 'kv' });
  if (made(d, o, ownables(d, o.vault).authMount) && !o.vault.role && remains?.otherRoles.length === 0)
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
function stillUsed(d: Desired, { kubernetes }: Observed): Problem | undefined {
  if (kubernetes.istiodUses.length === 0) return undefined;
  const list = kubernetes.istiodUses.slice(0, 5).join(', ');
  const { sharedWith } = kubernetes.controlPlane ?? {};
  const out = sharedWith
    ? `, but ${describeManager(sharedWith)} has set some in ${objectName(d)} too: take them out there`
    : '';
  const given =
    d.spec.controlPlane.write === 'Render' ? 'take the fields out of what is committed' : `fields are given back${out}`;
  return {
    condition: 'ControlPlanePatched',
    reason: 'Deleting',
    message: `${given}; waiting until istiod was rolled out without them: ${list} still use them. Annotation ${known.skipCleanup}=true ends the deletion and leaves Vault as it is`,
    blocks: 'all',
    retryAfterMs: 5_000,
  };
}

/** What deletion does now; neither problems nor steps: it is done. */
export function cleanup(d: Desired, o: Observed): Plan {
  const denied = forbidden(d, o);
  if (denied) return { problems: [denied], steps: [] };
  const release = controlPlaneSteps(d, o);
  if (release.length > 0) return { problems: [], steps: release };
  const order = [accessSteps, entrySteps, mountSteps, lastSteps];
  const steps = order.map((next) => next(d, o)).find((found) => found.length > 0) ?? [];
  // a place that must wait holds up those behind it: the memory never goes before what it tells of
  const used = steps.some(takesFromIstiod) ? stillUsed(d, o) : undefined;
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
