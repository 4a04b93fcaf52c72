/** Reports on a resource: writes its status if it changed, and creates Events. */
import { isDeepStrictEqual } from 'node:util';
import { fieldManager } from '../api/annotations.ts';
import { dig, type JsonObject } from '../api/json.ts';
import type { IstioVaultCA } from '../api/schema.ts';
import type { Status } from '../api/status-schema.ts';
import type { KubeClient } from '../kube/client.ts';
import { isKubeError } from '../kube/errors.ts';
import { eventsForTransition } from '../plan/status/events.ts';
import { redact } from '../text/redact.ts';
import type { EventRecorder } from '../kube/events.ts';
import type { Logger } from '../observability/logger.ts';
import { resources } from './observe-kubernetes.ts';

type Body = Parameters<KubeClient['createObject']>[2];

/** Returns a value as JSON data, without fields that are `undefined`, in the type that the client expects. */
export function plainJson(value: object): Body {
  return JSON.parse(JSON.stringify(value)) as Body;
}

export class Reporter {
  readonly #kube: Pick<KubeClient, 'patchObject'>;
  readonly #events: Pick<EventRecorder, 'record'>;
  readonly #logger: Logger;

  constructor(kube: Pick<KubeClient, 'patchObject'>, events: Pick<EventRecorder, 'record'>, logger: Logger) {
    this.#kube = kube;
    this.#events = events;
    this.#logger = logger;
  }

  /** Records an Event about a resource, with secrets removed from its note. */
  event(resource: IstioVaultCA, type: 'Normal' | 'Warning', reason: string, action: string, note: string): void {
    const { namespace, name, uid, resourceVersion } = resource.metadata;
    this.#events.record({
      regarding: { apiVersion: resource.apiVersion, kind: resource.kind, namespace, name, uid, resourceVersion },
      type,
      reason,
      action,
      note: redact(note),
    });
  }

  /**
   * Writes the status if it differs from the status in `raw`, and stores it there. Status transitions create Events and log lines.
   * @param raw the resource as read; its status is replaced
   * @param resource `undefined`: the resource could not be parsed, so no Events are created
   * @param announce whether transitions create Events
   * @throws KubeError, but not if the resource does not exist any more
   */
  async status(raw: JsonObject, resource: IstioVaultCA | undefined, status: Status, announce = true): Promise<void> {
    const before = raw['status'];
    // a second removal of secrets: texts of Pods and logs are already redacted where they are read
    const next = JSON.parse(redact(JSON.stringify(status))) as Body;
    if (isDeepStrictEqual(before, next)) return;
    const [namespace, name] = ['namespace', 'name'].map((key) => String(dig(raw, 'metadata', key)));
    const patch = [{ op: 'add', path: '/status', value: next }];
    try {
      await this.#kube.patchObject(resources, namespace ?? '', name ?? '', patch, {
        type: 'json',
        subresource: 'status',
        fieldManager,
      });
    } catch (error) {
      if (isKubeError(error, 'NotFound')) return; // the resource was deleted meanwhile
      throw error;
    }
    raw['status'] = next;
    if (resource && announce) this.#announce(resource, status);
  }

  /** Creates Events and log lines for the transitions from the status in `resource` to the new status. */
  #announce(resource: IstioVaultCA, status: Status): void {
    const { namespace, name } = resource.metadata;
    for (const { type, reason, action, message } of eventsForTransition(resource.status, status)) {
      const line = `${reason}: ${message}`;
      if (type === 'Warning') this.#logger.warn(line, { namespace, name });
      else this.#logger.info(line, { namespace, name });
      this.event(resource, type, reason, action, message);
    }
  }
}
