/** What `status.rotation` tells of a root rotation: its phase, what it waits for, and when it goes on. Pure. */
import type { DerivedState } from '../facts/derived.ts';
import { annotations as known } from '../../api/annotations.ts';
import type { Status } from '../../api/status-schema.ts';
import { rfc3339 } from '../../api/time.ts';
import { rotationProblem } from './checks.ts';
import type { Rotation } from '../facts/state-entry.ts';
import { propagation } from './gates.ts';
import { canRollBack, earliestNext, paused, rotationAsked } from './rotation.ts';

/** The root that signs now ends before the next phase may begin. */
function tooLate(s: DerivedState, due: number): string {
  const root = s.signer?.certificate;
  if (!root || root.notAfter >= due) return '';
  return `; but the root that signs now ends on ${rfc3339(root.notAfter)}, before that: if no workload certificate lives so long, set spec.intermediate.maxWorkloadCertTTL`;
}

/** Why a rotation cannot be rolled back any more, though its phase allows it; empty when it can. */
function noWayBack(s: DerivedState, { phase, back, found }: Rotation): string {
  if (back || phase === 'Retiring') return '';
  if (found)
    return `; no way back: it was found under way, and not all may trust root ${s.stateEntry?.root?.serial ?? ''}`;
  if (canRollBack(s)) return '';
  const how = s.recordedRoot ? 'has run out' : 'is lost';
  return `; no way back: root ${s.stateEntry?.root?.serial ?? ''} ${how}`;
}

/** What `status.rotation` shows of a root rotation; undefined when there is none. */
export function rotationView(s: DerivedState): Status['rotation'] {
  const rotation = s.stateEntry?.rotation;
  if (!rotation) {
    if (rotationAsked(s) === undefined) return undefined;
    if (paused(s))
      return { kind: 'Root', phase: 'Paused', waitingFor: `annotation ${known.pauseRotation} to be removed` };
    const waitingFor = rotationProblem(s)?.message ?? propagation(s).waitingFor;
    return { kind: 'Root', phase: 'Issuing', ...(waitingFor === '' ? {} : { waitingFor: waitingFor.slice(0, 1024) }) };
  }
  const gate = propagation(s);
  const due = earliestNext(s, rotation);
  const runOut =
    due !== undefined && due > s.now
      ? `workload certificates that were issued before to run out${tooLate(s, due)}`
      : '';
  const held = paused(s) ? `annotation ${known.pauseRotation} to be removed (phase ${rotation.phase})` : '';
  const waits = [held, gate.waitingFor || runOut].filter(Boolean).join('; ');
  const waitingFor = waits && `${waits}${noWayBack(s, rotation)}`;
  return {
    kind: 'Root',
    phase: paused(s) ? 'Paused' : rotation.phase,
    startedAt: rotation.startedAt,
    ...(waitingFor === ''
      ? {}
      : { waitingFor: `${rotation.back ? 'on its way back: ' : ''}${waitingFor}`.slice(0, 1024) }),
    ...(due === undefined ? {} : { earliestNext: rfc3339(due) }),
  };
}
