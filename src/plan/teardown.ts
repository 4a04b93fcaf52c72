/**
 * What `deletionPolicy: Delete` takes away, in order, and what stays: pure. Only what this resource made goes; what was taken over
 * and what belongs to others stays. Each round gives the steps of one place in the order, so that a crash leaves a beginning, never a hole.
 */
import { annotations as known } from '../api/annotations.ts';
import { things, type Thing } from './adoption.ts';
import type { Desired } from './desired.ts';
import { currentRoot, ownIssuers } from './facts.ts';
import { generationOf, isOwn, parseMark } from './identity.ts';
import { own, type Observed, type StateEntry } from './observed.ts';
import { forbidden } from './checks/servers.ts';
import type { Plan } from './plan.ts';
import type { Problem } from './problem.ts';
import type { Step } from './steps.ts';

/** Marked as made by this resource, and not taken over. */
function made(d: Desired, o: Observed, thing: Thing | undefined): boolean {
  if (!thing || own(o.vault.state)?.adopted.includes(thing.name) === true) return false;
  return isOwn(d.identity, thing.text) && parseMark(thing.text)?.origin === 'made';
}

/** The role goes if the state names it as ours and it was not taken over. */
function roleIsOurs(d: Desired, o: Observed): boolean {
  const state = own(o.vault.state);
  const { role } = things(d, o.vault);
  return role !== undefined && state?.role === d.spec.kubernetesAuth.role && !state.adopted.includes(role.name);
}

function controlPlaneSteps(d: Desired, o: Observed): Step[] {
  const target = o.kubernetes.controlPlane;
  const { kind, name } = d.spec.controlPlane;
  // another owner's fields are not ours to give back
  if (target?.owner !== d.identity.name) return [];
  return [{ kind: 'ReleaseControlPlane', target: `${kind} ${name}` }];
}

function accessSteps(d: Desired, o: Observed): Step[] {
  const { kubernetesAuth, policy } = d.spec;
  if (roleIsOurs(d, o)) return [{ kind: 'DeleteRole', mount: kubernetesAuth.mount, role: kubernetesAuth.role }];
  return made(d, o, things(d, o.vault).policy) ? [{ kind: 'DeletePolicy', name: policy.name }] : [];
}

function entrySteps(d: Desired, o: Observed): Step[] {
  const { live, staging } = o.vault;
  const steps: Step[] = [];
  if (own(staging)) steps.push({ kind: 'DeleteEntry', entry: 'staging' });
  if (own(live) && made(d, o, things(d, o.vault).live)) steps.push({ kind: 'DeleteEntry', entry: 'live' });
  return steps;
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
  const roots = ownIssuers(d, 'root', o.vault);
  const foreignIssuer = o.vault.rootPki?.issuers.find((issuer) => !roots.some((r) => r.id === issuer.id));
  if (foreignIssuer) return `${mount} also holds the issuer ${foreignIssuer.certificate.serial} of somebody else`;
  const ownKeys = new Set(roots.map((issuer) => issuer.keyId));
  const foreignKey = o.vault.rootPki?.keys.find(
    (key) => generationOf(d.identity, 'root', key.name) === undefined && !ownKeys.has(key.id),
  );
  if (foreignKey) return `${mount} also holds the key ${foreignKey.name || foreignKey.id} of somebody else`;
  const signed = o.vault.remains?.signed;
  if (!signed) return `${mount} has issued too many certificates to tell whether all are this resource's`;
  const ours = new Set([
    ...(own(o.vault.state)?.publicKeys ?? []),
    ...roots.map((issuer) => issuer.certificate.publicKey),
  ]);
  const foreign = signed.find((certificate) => !ours.has(certificate.publicKey));
  return foreign && `${mount} has signed for somebody else: certificate ${foreign.serial} is valid still`;
}

function mountSteps(d: Desired, o: Observed): Step[] {
  const { rootMount, intermediateMount } = things(d, o.vault);
  if (made(d, o, intermediateMount)) return [{ kind: 'Unmount', mount: d.spec.intermediate.mount, type: 'pki' }];
  if (made(d, o, rootMount) && rootStays(d, o) === undefined)
    return [{ kind: 'Unmount', mount: d.spec.root.mount, type: 'pki' }];
  return [];
}

/** The memory of a root of ours that stays: it tells which keys that root has signed for, and no longer of an intermediate. */
function memorySteps(d: Desired, o: Observed, state: StateEntry): Step[] {
  if (!made(d, o, things(d, o.vault).rootMount)) return [{ kind: 'DeleteEntry', entry: 'state' }];
  const next = { ...state, intermediate: { generation: 0, spec: d.intermediate } };
  if (state.intermediate?.fingerprint === undefined) return [];
  return [{ kind: 'WriteState', state: next, cas: o.vault.state.casVersion, reason: 'the root stays' }];
}

/** The memory goes when nothing is left that it would tell of; then shared mounts that we made and that are empty. */
function lastSteps(d: Desired, o: Observed): Step[] {
  const { kvMount, remains, live } = o.vault;
  const { keyStore, kubernetesAuth } = d.spec;
  const state = own(o.vault.state);
  const memory = state ? memorySteps(d, o, state) : [];
  if (memory.length > 0) return memory;
  const steps: Step[] = [];
  const kv = kvMount && { name: `mount:${keyStore.mount}`, text: kvMount.description };
  if (made(d, o, kv) && live.entry === undefined && !state && remains?.otherEntries.length === 0)
    steps.push({ kind: 'Unmount', mount: keyStore.mount, type: 'kv' });
  if (made(d, o, things(d, o.vault).authMount) && !o.vault.role && remains?.otherRoles.length === 0)
    steps.push({ kind: 'DisableAuth', mount: kubernetesAuth.mount });
  return steps;
}

/** istiod must not lose what it still reads. */
function stillUsed({ kubernetes }: Observed): Problem | undefined {
  if (kubernetes.istiodUses.length === 0) return undefined;
  const list = kubernetes.istiodUses.slice(0, 5).join(', ');
  return {
    condition: 'ControlPlanePatched',
    reason: 'Deleting',
    message: `fields are given back; waiting until istiod was rolled out without them: ${list} still use them. Annotation ${known.skipCleanup}=true ends the deletion and leaves Vault as it is`,
    blocks: 'all',
    retryAfterMs: 5_000,
  };
}

/** What deletion does now; neither problems nor steps: it is done. */
export function teardown(d: Desired, o: Observed): Plan {
  const denied = forbidden(d, o);
  if (denied) return { problems: [denied], steps: [] };
  const release = controlPlaneSteps(d, o);
  if (release.length > 0) return { problems: [], steps: release };
  const used = stillUsed(o);
  if (used) return { problems: [used], steps: [] };
  const order = [accessSteps, entrySteps, mountSteps, lastSteps];
  const steps = order.map((next) => next(d, o)).find((found) => found.length > 0) ?? [];
  return { problems: [], steps };
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
