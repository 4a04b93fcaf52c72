/** Steps that must precede all others in Vault: key store, state entry and audit device, strictly in this order. Pure. */
import type { DerivedState } from '../facts/derived.ts';
import { isDeepStrictEqual } from 'node:util';
import { annotations } from '../../api/annotations.ts';
import { fieldsAppliedFlag } from '../facts/observed.ts';
import type { StateEntry } from '../facts/state-entry.ts';
import { intendedState } from './state.ts';
import { needsRewrite } from './entry-lifetime.ts';
import type { Step } from '../steps.ts';

/**
 * Why the state entry is written, for the user, and the reason of the Event if it is not the default one. Each phase of a root rotation has its
 * own Event, and so has a request for a rollback that is not possible.
 */
function reasonToWrite(before: StateEntry | undefined, after: StateEntry): { reason: string; event?: string } {
  const [was, is] = [before?.rotation, after.rotation];
  if (before && !before.made.includes(fieldsAppliedFlag) && after.made.includes(fieldsAppliedFlag))
    return { reason: 'the control plane carries the fields' };
  if (was?.phase === is?.phase && was?.back === is?.back && was?.reachedAt === is?.reachedAt) {
    const answered = before?.handled[annotations.rollbackRotation] !== after.handled[annotations.rollbackRotation];
    if (is && !is.back && answered)
      return { reason: `root rotation goes on: ${is.phase}, and no way back`, event: 'RootRotationNotRolledBack' };
    if (before && !isDeepStrictEqual(before.trustedRoots, after.trustedRoots))
      return { reason: 'since when the mesh trusts the roots of the mount' };
    if (is?.awaitsMembers && !was?.awaitsMembers)
      return { reason: `root rotation: ${is.phase} waits for the members`, event: 'RootRotationPhase' };
    return { reason: 'what is about to be made' };
  }
  if (!is)
    return {
      reason: `root rotation ${was?.back ? 'rolled back' : 'finished'}`,
      event: was?.back ? 'RootRotationRolledBack' : 'RootRotated',
    };
  if (!before) return { reason: 'a root rotation that was found goes on', event: 'RootRotationPhase' };
  if (!was) return { reason: 'root rotation begins', event: 'RootRotationStarted' };
  if (was.back && !is.back)
    return { reason: 'root rotation turns forward again: the root before cannot sign', event: 'RootRotationPhase' };
  const direction = is.back ? ', on its way back' : '';
  const reached = is.reachedAt === undefined ? '' : ' is everywhere; workload certificates run out';
  return {
    reason: `root rotation: ${is.phase}${direction}${reached}`,
    event: is.back && !was.back ? 'RootRotationCalledOff' : 'RootRotationPhase',
  };
}

/** Steps for the key store, the state entry and the audit device. The state entry records the intent before the audit device is enabled. */
export function foundationSteps(s: DerivedState): Step[] {
  const { keyStore, audit } = s.spec;
  // without a state entry nothing records what was made, so nothing shared is
  if (!keyStore.manage) return [];
  if (!s.vault.kvMount) {
    return [{ kind: 'MountKV', mount: keyStore.mount, version: keyStore.version, description: s.desired.mark }];
  }
  const state = intendedState(s);
  if (!isDeepStrictEqual(state, s.writtenState)) {
    return [{ kind: 'WriteState', state, cas: s.vault.state.casVersion, ...reasonToWrite(s.writtenState, state) }];
  }
  if (needsRewrite(s.vault.state, s))
    return [{ kind: 'WriteState', state, cas: s.vault.state.casVersion, reason: 'Vault would have deleted it' }];
  if (!audit || s.vault.auditDevice) return [];
  return [{ kind: 'EnableAudit', path: audit.path, type: audit.type, options: audit.options }];
}

/** Versions of the CA entry that KV 2 keeps: the current and the previous one. istiod's policy also allows it to read older versions. */
const keptVersions = 2;

/**
 * Step that limits the versions of the CA entry. Vault deletes the versions beyond the limit at the next write, so there is no such step if the
 * operator did not write some of the versions.
 */
export function versionSteps(s: DerivedState): Step[] {
  const limited = s.spec.keyStore.version === 1 || s.vault.liveVersions === keptVersions;
  if (limited || s.checksOnly || s.stateEntry?.stood) return [];
  return [{ kind: 'LimitVersions', versions: keptVersions }];
}
