/** Applies the manifest and prints the operator's Events as they occur, until Vault is the CA. */
import { setTimeout as pause } from 'node:timers/promises';
import { applyOk, conditionOf, getResource, type Json, type Kube, type Resource } from '../support/cluster.ts';
import { readManifest, showManifest } from './manifest.ts';
import { namespace, resourceName } from './names.ts';
import type { Servers } from './servers.ts';
import { note, seconds, step, title } from './terminal.ts';

/** Milliseconds. */
const deadlineMs = 90_000;
const lookMs = 40;
const quietMs = 1000;
const stillMs = 10_000;

interface Event {
  metadata: { name: string };
  eventTime: string;
  type: string;
  reason: string;
  note: string;
  regarding: { kind: string; name: string };
}

/** Prints each Event of the resource once. */
class EventFeed {
  readonly #kube: Kube;
  readonly #appliedAt: number;
  readonly #seen = new Set<string>();

  constructor(kube: Kube, appliedAt: number) {
    this.#kube = kube;
    this.#appliedAt = appliedAt;
  }

  /** @returns the number of new Events */
  async look(): Promise<number> {
    const answer = await this.#kube.request('GET', `/apis/events.k8s.io/v1/namespaces/${namespace}/events`);
    const fresh = (answer.body as { items: Event[] }).items
      .filter((event) => event.regarding.kind === 'IstioVaultCA' && !this.#seen.has(event.metadata.name))
      .sort((a, b) => (a.eventTime < b.eventTime ? -1 : 1));
    for (const event of fresh) {
      this.#seen.add(event.metadata.name);
      const label = { text: event.reason, style: event.type === 'Warning' ? 'yellow' : 'cyan' } as const;
      step(event.note, Date.parse(event.eventTime) - this.#appliedAt, label);
    }
    return fresh.length;
  }

  /** Polls until no new Event has appeared for a while. */
  async drain(): Promise<void> {
    let last = Date.now();
    while (Date.now() - last < quietMs) {
      if ((await this.look()) > 0) last = Date.now();
      await pause(lookMs);
    }
  }
}

export interface Provisioned {
  readonly resource: Resource;
  /** Milliseconds from the apply until the condition was observed. */
  readonly tookMs: number;
}

/** @throws if user action is required, or it takes too long */
async function follow(kube: Kube, appliedAt: number): Promise<Provisioned> {
  const feed = new EventFeed(kube, appliedAt);
  let lastNews = Date.now();
  for (;;) {
    const resource = await getResource(kube, namespace, resourceName);
    const provisioned = conditionOf(resource, 'Provisioned');
    const tookMs = Date.now() - appliedAt;
    if ((await feed.look()) > 0) lastNews = Date.now();
    if (provisioned?.status === 'True' && provisioned.observedGeneration === resource.metadata.generation) {
      await feed.drain();
      return { resource: await getResource(kube, namespace, resourceName), tookMs };
    }
    if (conditionOf(resource, 'Stalled')?.status === 'True')
      throw new Error('the operator waits for a person (condition Stalled)');
    if (tookMs > deadlineMs) throw new Error(`condition Provisioned is not True after ${seconds(deadlineMs)}`);
    if (Date.now() - lastNews > stillMs) {
      const ready = conditionOf(resource, 'Ready');
      step(
        `still waiting for condition Provisioned; Ready is ${ready?.status ?? 'not set'}: ${ready?.reason ?? ''}`,
        tookMs,
      );
      lastNews = Date.now();
    }
    await pause(lookMs);
  }
}

/** Follows the comment in deploy/samples/private-ca.yaml. */
const caSecret = (caPem: string): Json => ({
  apiVersion: 'v1',
  kind: 'Secret',
  metadata: { name: 'istio-vault-ca-tls', namespace },
  data: { 'ca.crt': Buffer.from(caPem).toString('base64') },
});

export async function provision({ kube, vault }: Servers): Promise<Provisioned> {
  title('One manifest');
  const { objects, diff } = await readManifest(vault.address);
  showManifest(diff);
  await applyOk(kube, caSecret(vault.caPem ?? ''));
  title('What the operator does');
  note('Events of the resource; seconds since the manifest was applied.');
  const appliedAt = Date.now();
  for (const object of objects) await applyOk(kube, object);
  const result = await follow(kube, appliedAt);
  step('condition Provisioned is True', result.tookMs);
  return result;
}
