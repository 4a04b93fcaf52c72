/** Derives `status.rotation`: the phase of a root rotation, what it waits for, and when it continues. Pure. */
import type { DerivedState } from '../facts/derived.ts';
import { annotations as known } from '../../api/annotations.ts';
import type { Status } from '../../api/status-schema.ts';
import { rfc3339 } from '../../api/time.ts';
import { rotationProblem } from './checks.ts';
import type { Rotation } from '../facts/state-entry.ts';
import { propagation } from './gates.ts';
import { membersWait, readyText } from './members.ts';
import { comingRoots, fingerprintOf, ownersSigner } from './owners-roots.ts';
import { canRollBack, rotationRequest } from './rotation.ts';
import { beforeSigning } from './shared-root.ts';
import { earliestNext, paused, standsStill } from './waits.ts';
import { ztunnelRestart } from './ztunnels.ts';

/**
 * Returns a warning that the signing root expires before the next phase can begin; empty: it does not.
 * @param due milliseconds since the epoch
 */
function signerExpiresFirst(s: DerivedState, due: number): string {
  const root = s.signer?.certificate;
  if (!root || root.notAfter >= due) return '';
  return `; but the root that signs now ends on ${rfc3339(root.notAfter)}, before that: if no workload certificate lives so long, set spec.intermediate.maxWorkloadCertTTL`;
}

/** Returns why a rotation cannot be rolled back although its phase allows it; empty: it can, or its phase does not allow it. */
function rollbackObstacle(s: DerivedState, { phase, back, found }: Rotation): string {
  if (back || phase === 'Retiring') return '';
  if (found)
    return `; no way back: it was found under way, and not all may trust root ${s.stateEntry?.root?.serial ?? ''}`;
  if (canRollBack(s)) return '';
  return `; no way back: root ${s.stateEntry?.root?.serial ?? ''} ${whyLost(s)}`;
}

/** Why the root that a rotation began with cannot sign again, as a predicate. */
function whyLost(s: DerivedState): string {
  const root = s.recordedRoot;
  if (!root) return 'is lost';
  if (root.revoked) return 'was revoked';
  return root.certificate.notAfter <= s.now ? 'has run out' : 'has no issuer any more';
}

/**
 * Returns `status.rotation` of a member whose owner signs with another root, or can begin to: whether its workloads trust that root. `undefined`: there
 * is no such root.
 */
function comingView(s: DerivedState): Status['rotation'] {
  const coming = comingRoots(s);
  const present = ownersSigner(s);
  const root = coming.find(({ id }) => id === present?.id) ?? coming[0];
  if (!root) return undefined;
  const fingerprint = fingerprintOf(root);
  const { waitingFor, due } = beforeSigning(s, fingerprint);
  const wait = rotationProblem(s)?.message ?? waitingFor;
  const { existing, mount } = s.spec.root;
  const notes = [
    wait === '' ? readyText(fingerprint) : `${wait} (root ${fingerprint} of mount ${mount}/)`,
    ...(existing?.issuerRef === undefined
      ? []
      : [
          `spec.root.existing.issuerRef names another issuer, so this resource does not follow when the owner of the mount signs with that root: then change it, and set annotation ${known.rotateRoot}`,
        ]),
    ...(s.lacksIssuer(s.recordedRoot)
      ? [
          `the issuer that signed so far is gone: once the owner signs with that root, set annotation ${known.rotateRoot}`,
        ]
      : []),
    ...(paused(s) ? [`annotation ${known.pauseRotation} keeps it from being signed with`] : []),
  ];
  return {
    kind: 'Root',
    phase: 'Distributing',
    waitingFor: notes.join('; ').slice(0, 1024),
    ...(due === undefined ? {} : { earliestNext: rfc3339(due) }),
  };
}

/** Returns `status.rotation`; `undefined`: no root rotation is requested or in progress. */
export function rotationView(s: DerivedState): Status['rotation'] {
  const rotation = s.stateEntry?.rotation;
  const left = s.writtenState?.rotation;
  if (!rotation && left)
    return {
      kind: 'Root',
      phase: 'Paused',
      startedAt: left.startedAt,
      waitingFor: `spec.intermediate.manage to be true (phase ${left.phase})`,
    };
  if (!rotation) {
    if (s.checksOnly) return undefined;
    if (rotationRequest(s) === undefined) return comingView(s);
    if (paused(s))
      return { kind: 'Root', phase: 'Paused', waitingFor: `annotation ${known.pauseRotation} to be removed` };
    const waitingFor = rotationProblem(s)?.message ?? propagation(s).waitingFor;
    return { kind: 'Root', phase: 'Issuing', ...(waitingFor === '' ? {} : { waitingFor: waitingFor.slice(0, 1024) }) };
  }
  const gate = propagation(s);
  const due = earliestNext(s, rotation);
  const expiry =
    due !== undefined && due > s.now
      ? `workload certificates that were issued before to run out${signerExpiresFirst(s, due)}`
      : '';
  const resumes = standsStill(s) ? 'spec.root.manage to be true' : `annotation ${known.pauseRotation} to be removed`;
  const pause = paused(s) ? `${resumes} (phase ${rotation.phase})` : '';
  const restart = ztunnelRestart(s, rotation);
  const members = restart === '' && expiry === '' && rotation.reachedAt !== undefined ? membersWait(s, rotation) : '';
  const waits = [pause, gate.waitingFor || [restart, expiry, members].filter(Boolean).join('; and for ')]
    .filter(Boolean)
    .join('; ');
  const waitingFor = waits && `${waits}${rollbackObstacle(s, rotation)}`;
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
