/** Derives Events from a status change. Only transitions create Events, so a condition that persists is reported once. Pure. */
import { expiryReason, outsideReasons, type StageCondition } from '../../api/conditions.ts';
import { failingPhases, type IstiodPhase } from '../../api/istiod.ts';
import type { Condition, Status } from '../../api/status-schema.ts';

/** An Event about a status transition; `action` is the `action` field of `events.k8s.io/v1`. */
export interface TransitionEvent {
  type: 'Normal' | 'Warning';
  reason: string;
  action: string;
  message: string;
}

const find = (status: Status | undefined, type: string): Condition | undefined =>
  status?.conditions?.find((condition) => condition.type === type);

/** Returns an Event if the status or reason of `Ready` changed. */
function ofReady(before: Status | undefined, after: Status): TransitionEvent[] {
  const [was, is] = [find(before, 'Ready'), find(after, 'Ready')];
  if (!is || (is.reason === was?.reason && is.status === was.status)) return [];
  return [
    {
      type: is.status === 'False' ? 'Warning' : 'Normal',
      reason: is.reason,
      action: 'Reconcile',
      message: is.message,
    },
  ];
}

/** Returns an Event for each certificate that expires soon and did not before, so that user action is required. */
function ofExpiry(before: Status | undefined, after: Status): TransitionEvent[] {
  return (Object.entries(expiryReason) as [StageCondition, string][]).flatMap(([stage, reason]): TransitionEvent[] => {
    const is = find(after, stage);
    if (is?.reason !== reason || find(before, stage)?.reason === reason) return [];
    return [{ type: 'Warning', reason, action: 'Look', message: is.message }];
  });
}

/** Returns an Event if a signature outside of Vault, or a CA to import, is newly missing while the CA in use goes on: user action is required. */
function ofOutside(before: Status | undefined, after: Status): TransitionEvent[] {
  const [was, is] = [find(before, 'IntermediateReady'), find(after, 'IntermediateReady')];
  const reason = outsideReasons.find((one) => one === is?.reason);
  if (!is || reason === undefined || was?.reason === reason) return [];
  return [{ type: 'Warning', reason, action: 'Check', message: is.message }];
}

/** Returns one Event per failing phase that replicas have newly entered, whatever their number. */
function ofReplicas(before: Status | undefined, after: Status): TransitionEvent[] {
  const was = new Map((before?.istiod ?? []).map(({ pod, phase }) => [pod, phase]));
  const moved = (after.istiod ?? []).filter(({ pod, phase }) => was.get(pod) !== phase);
  return (failingPhases as readonly IstiodPhase[]).flatMap((phase): TransitionEvent[] => {
    // until the fields reach istiod, only the condition reports the failure
    const entered = moved.filter((pod) => pod.phase === phase && pod.reason !== 'NotPropagated');
    const [first] = entered;
    if (!first) return [];
    const names = entered.slice(0, 3).map(({ pod }) => pod);
    const more = entered.length > names.length ? ` and ${entered.length - names.length} more` : '';
    return [
      {
        type: 'Warning',
        reason: phase,
        action: 'Look',
        message: `${names.join(', ')}${more}: ${first.message ?? ''}`,
      },
    ];
  });
}

/**
 * Returns an Event if `IstiodReady` became `False` or changed its reason while `False`. The reason of `Ready` can come from another
 * condition.
 */
function ofIstiod(before: Status | undefined, after: Status): TransitionEvent[] {
  const [was, is] = [find(before, 'IstiodReady'), find(after, 'IstiodReady')];
  if (is?.status !== 'False' || is.reason === was?.reason) return [];
  return [{ type: 'Warning', reason: is.reason, action: 'Look', message: is.message }];
}

/** Returns the Events for a status change, at most one per reason. */
export function eventsForTransition(before: Status | undefined, after: Status): TransitionEvent[] {
  const all = [
    ...ofReady(before, after),
    ...ofExpiry(before, after),
    ...ofOutside(before, after),
    ...ofReplicas(before, after),
    ...ofIstiod(before, after),
  ];
  return all.filter((event, i) => all.findIndex(({ reason }) => reason === event.reason) === i);
}
