/** Steps that everything else in Vault stands on: key store, state entry and audit device, strictly in this order. Pure. */
import type { DerivedState } from '../facts/derived.ts';
import { isDeepStrictEqual } from 'node:util';
import { annotations } from '../../api/annotations.ts';
import { fieldsAppliedFlag } from '../facts/observed.ts';
import type { StateEntry } from '../facts/state-entry.ts';
import { intendedState } from './state.ts';
import { needsRewrite } from './entry-lifetime.ts';
import type { Step } from '../steps.ts';

/** A phase of a rotation is worth an Event of its own, and so is a roll-back that is not done. */
function whyRecorded(before: StateEntry | undefined, after: StateEntry): { reason: string; event?: string } {
  const [was, is] = [before?.rotation, after.rotation];
  if (before && !before.made.includes(fieldsAppliedFlag) && after.made.includes(fieldsAppliedFlag))
    return { reason: 'the control plane carries the fields' };
  if (was?.phase === is?.phase && was?.back === is?.back && was?.reachedAt === is?.reachedAt) {
    const answered = before?.handled[annotations.rollbackRotation] !== after.handled[annotations.rollbackRotation];
    if (is && !is.back && answered)
      return { reason: `root rotation goes on: ${is.phase}, and no way back`, event: 'RootRotationNotRolledBack' };
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
  const way = is.back ? ', on its way back' : '';
  const reached = is.reachedAt === undefined ? '' : ' is everywhere; workload certificates run out';
  return {
    reason: `root rotation: ${is.phase}${way}${reached}`,
    event: is.back && !was.back ? 'RootRotationCalledOff' : 'RootRotationPhase',
  };
}

/** The key store, the memory in it, then what the memory must know of beforehand; strictly in this order. */
export function foundationSteps(s: DerivedState): Step[] {
  const { keyStore, audit } = s.spec;
  if (!s.vault.kvMount) {
    return [{ kind: 'MountKV', mount: keyStore.mount, version: keyStore.version, description: s.desired.mark }];
  }
  const state = intendedState(s);
  if (!isDeepStrictEqual(state, s.stateEntry)) {
    return [{ kind: 'WriteState', state, cas: s.vault.state.casVersion, ...whyRecorded(s.stateEntry, state) }];
  }
  if (needsRewrite(s.vault.state, s))
    return [{ kind: 'WriteState', state, cas: s.vault.state.casVersion, reason: 'Vault would have deleted it' }];
  if (!audit || s.vault.auditDevice) return [];
  return [{ kind: 'EnableAudit', path: audit.path, type: audit.type, options: audit.options }];
}

/** istiod's policy reads older versions of the live entry too: only the one before it is kept. */
const keptVersions = 2;

/** Vault then deletes those that are too many at the next write: not where a person's are among them. */
export function versionSteps(s: DerivedState): Step[] {
  const limited = s.spec.keyStore.version === 1 || s.vault.liveVersions === keptVersions;
  if (limited || s.stateEntry?.stood) return [];
  return [{ kind: 'LimitVersions', versions: keptVersions }];
}
