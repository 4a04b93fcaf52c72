/** What `status.rotation` tells of a root rotation: its phase, what it waits for, and when it goes on. Pure. */
import { annotations as known } from '../../api/annotations.ts';
import type { Status } from '../../api/status-schema.ts';
import { rfc3339 } from '../../api/time.ts';
import { rotationProblem } from './checks.ts';
import type { Desired } from '../facts/desired.ts';
import { currentRoot, recordedRoot } from '../facts/derived.ts';
import { ownEntry, type Observed } from '../facts/observed.ts';
import type { Rotation } from '../facts/state-entry.ts';
import { propagation } from './gates.ts';
import { canRollBack, earliestNext, paused, rotationAsked } from './rotation.ts';

/** The root that signs now ends before the next phase may begin. */
function tooLate(d: Desired, o: Observed, due: number): string {
  const root = currentRoot(d, o)?.certificate;
  if (!root || root.notAfter >= due) return '';
  return `; but the root that signs now ends on ${rfc3339(root.notAfter)}, before that: if no workload certificate lives so long, set spec.intermediate.maxWorkloadCertTTL`;
}

/** Why a rotation cannot be rolled back any more, though its phase allows it; empty when it can. */
function noWayBack(d: Desired, o: Observed, { phase, back, found }: Rotation, now: number): string {
  if (back || phase === 'Retiring') return '';
  if (found)
    return `; no way back: it was found under way, and not all may trust root ${ownEntry(o.vault.state)?.root?.serial ?? ''}`;
  if (canRollBack(d, o, now)) return '';
  const how = recordedRoot(d, o) ? 'has run out' : 'is lost';
  return `; no way back: root ${ownEntry(o.vault.state)?.root?.serial ?? ''} ${how}`;
}

/** What `status.rotation` shows of a root rotation; undefined when there is none. */
export function rotationView(d: Desired, o: Observed, now: number): Status['rotation'] {
  const rotation = ownEntry(o.vault.state)?.rotation;
  if (!rotation) {
    if (rotationAsked(d, o) === undefined) return undefined;
    if (paused(d))
      return { kind: 'Root', phase: 'Paused', waitingFor: `annotation ${known.pauseRotation} to be removed` };
    const waitingFor = rotationProblem(d, o)?.message ?? propagation(d, o, now).waitingFor;
    return { kind: 'Root', phase: 'Issuing', ...(waitingFor === '' ? {} : { waitingFor: waitingFor.slice(0, 1024) }) };
  }
  const gate = propagation(d, o, now);
  const due = earliestNext(d, o, rotation);
  const runOut =
    due !== undefined && due > now
      ? `workload certificates that were issued before to run out${tooLate(d, o, due)}`
      : '';
  const held = paused(d) ? `annotation ${known.pauseRotation} to be removed (phase ${rotation.phase})` : '';
  const waits = [held, gate.waitingFor || runOut].filter(Boolean).join('; ');
  const waitingFor = waits && `${waits}${noWayBack(d, o, rotation, now)}`;
  return {
    kind: 'Root',
    phase: paused(d) ? 'Paused' : rotation.phase,
    startedAt: rotation.startedAt,
    ...(waitingFor === ''
      ? {}
      : { waitingFor: `${rotation.back ? 'on its way back: ' : ''}${waitingFor}`.slice(0, 1024) }),
    ...(due === undefined ? {} : { earliestNext: rfc3339(due) }),
  };
}
