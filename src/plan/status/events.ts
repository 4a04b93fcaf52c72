/** What of a new status is worth an Event: transitions only, so that one that lasts is told once. Pure. */
import { expiryReason, type StageCondition } from '../../api/conditions.ts';
import { failingPhases, type IstiodPhase } from '../../api/istiod.ts';
import type { Condition, Status } from '../../api/status-schema.ts';

export interface TransitionEvent {
  type: 'Normal' | 'Warning';
  reason: string;
  action: string;
  message: string;
}

const find = (status: Status | undefined, type: string): Condition | undefined =>
  status?.conditions?.find((condition) => condition.type === type);

/** `Ready` has another status or reason. */
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

/** A certificate has come so near to its end that a person should act. */
function ofExpiry(before: Status | undefined, after: Status): TransitionEvent[] {
  return (Object.entries(expiryReason) as [StageCondition, string][]).flatMap(([stage, reason]): TransitionEvent[] => {
    const is = find(after, stage);
    if (is?.reason !== reason || find(before, stage)?.reason === reason) return [];
    return [{ type: 'Warning', reason, action: 'Look', message: is.message }];
  });
}

/** Replicas that have newly come into a phase that they do not leave by waiting: one Event a phase, however many they are. */
function ofReplicas(before: Status | undefined, after: Status): TransitionEvent[] {
  const was = new Map((before?.istiod ?? []).map(({ pod, phase }) => [pod, phase]));
  const fresh = (after.istiod ?? []).filter(({ pod, phase }) => was.get(pod) !== phase);
  return (failingPhases as readonly IstiodPhase[]).flatMap((phase): TransitionEvent[] => {
    // before the fields have arrived at all, the condition alone tells of it
    const those = fresh.filter((pod) => pod.phase === phase && pod.reason !== 'NotPropagated');
    const [first] = those;
    if (!first) return [];
    const names = those.slice(0, 3).map(({ pod }) => pod);
    const more = those.length > names.length ? ` and ${those.length - names.length} more` : '';
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

/** What `IstiodReady` says newly while another condition is the reason of `Ready`. */
function ofIstiod(before: Status | undefined, after: Status): TransitionEvent[] {
  const [was, is] = [find(before, 'IstiodReady'), find(after, 'IstiodReady')];
  if (is?.status !== 'False' || is.reason === was?.reason) return [];
  return [{ type: 'Warning', reason: is.reason, action: 'Look', message: is.message }];
}

/** What is to be told, each reason once. */
export function eventsForTransition(before: Status | undefined, after: Status): TransitionEvent[] {
  const all = [
    ...ofReady(before, after),
    ...ofExpiry(before, after),
    ...ofReplicas(before, after),
    ...ofIstiod(before, after),
  ];
  return all.filter((news, i) => all.findIndex(({ reason }) => reason === news.reason) === i);
}
