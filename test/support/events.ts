/** Events of a namespace, as `kubectl get events` shows them. */
import type { Kube } from './cluster.ts';

export interface ShownEvent {
  type: string;
  reason: string;
  note: string;
}

/** All Events of a namespace, in no particular order. */
export async function eventsOf(kube: Kube, namespace: string): Promise<ShownEvent[]> {
  const { body } = await kube.request('GET', `/apis/events.k8s.io/v1/namespaces/${namespace}/events`);
  return (body as { items: ShownEvent[] }).items;
}
