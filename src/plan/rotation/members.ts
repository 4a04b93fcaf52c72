/**
 * The owner of a shared root (`root.shared`): its rotation waits for the resources that sign under the root too, its members. Nothing shows the owner
 * how far they are, so the user says it: once before the new root signs, and once before the old one is no longer trusted. Pure.
 */
import { annotations as known } from '../../api/annotations.ts';
import type { DerivedState } from '../facts/derived.ts';
import { handledText, pendingRequest, type Desired } from '../facts/desired.ts';
import type { Rotation, StateEntry } from '../facts/state-entry.ts';
import { oldRootExpired } from './waits.ts';

/** Handled texts with the text of `members-ready` that is set now: it was about something else. */
export function withMembersText(desired: Desired, handled: StateEntry['handled']): StateEntry['handled'] {
  const text = handledText(desired, known.membersReady);
  return text === undefined ? handled : { ...handled, [known.membersReady]: text };
}

/** The root that workloads stop trusting next: the old one or, on the way back, the new one. */
function retiredRootExpired(s: DerivedState, { back, to }: Rotation): boolean {
  return back ? (s.findRoot(to)?.certificate.notAfter ?? Infinity) <= s.now : oldRootExpired(s);
}

/** Whether a phase ends only when the members are ready. What has expired breaks no connection any more. */
export function needsMembers(s: DerivedState, rotation: Rotation): boolean {
  const { phase } = rotation;
  return s.spec.root.shared && (phase === 'Distributing' || phase === 'Switching') && !retiredRootExpired(s, rotation);
}

/**
 * The state entry as it has to be when a phase is over for this resource itself, and the members are not known to be ready; undefined: they are, or
 * the phase does not wait for them. A text that was set before the second stop was about the first one.
 */
export function awaitMembers(s: DerivedState, state: StateEntry, rotation: Rotation): StateEntry | undefined {
  if (!needsMembers(s, rotation)) return undefined;
  if (rotation.phase === 'Switching' && !rotation.awaitsMembers)
    return {
      ...state,
      handled: withMembersText(s.desired, state.handled),
      rotation: { ...rotation, awaitsMembers: true },
    };
  return pendingRequest(s.desired, state.handled, known.membersReady) === undefined ? state : undefined;
}

/** What the end of a phase waits for at the members, as a noun phrase; empty: nothing. */
export function membersWait(s: DerivedState, rotation: Rotation): string {
  if (!needsMembers(s, rotation)) return '';
  const members = `every IstioVaultCA with root.source: Existing and root.mount: ${s.spec.root.mount}, in each cluster`;
  if (rotation.phase === 'Distributing')
    return `annotation ${known.membersReady} with a new text: set it when status.rotation.waitingFor of ${members}, begins with "${readyText(rotation.to.fingerprint ?? '')}"`;
  const signer = rotation.back ? s.stateEntry?.root : rotation.to;
  return `annotation ${known.membersReady} with another new text: set it when ${members}, has status.root.fingerprint ${signer?.fingerprint ?? ''}, and no status.rotation or one in phase Distributing`;
}

/** How a member says that its workloads trust a root: at the beginning of `status.rotation.waitingFor`. @param fingerprint of the root */
export const readyText = (fingerprint: string): string => `ready for members-ready: root ${fingerprint}`;
