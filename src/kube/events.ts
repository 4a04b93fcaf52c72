/**
 * Kubernetes Events (`events.k8s.io/v1`). Recording never fails and never waits: Events are delivered in sequence in the background, and one
 * that cannot be delivered is logged and counted. A repetition of an Event within ten minutes becomes part of a series.
 */
import { randomBytes } from 'node:crypto';
import type { JsonObject } from '../api/json.ts';
import type { Logger } from '../observability/logger.ts';
import { microTime, type Clock } from '../runtime/clock.ts';
import type { KubeClient } from './client.ts';
import { isKubeError } from './errors.ts';

/** The object that an Event is about. */
interface ObjectReference {
  apiVersion: string;
  kind: string;
  name: string;
  /** Unset for cluster-scoped objects; their Events are in namespace `default`. */
  namespace?: string;
  uid?: string;
  resourceVersion?: string;
}

export interface EventToRecord {
  regarding: ObjectReference;
  type: 'Normal' | 'Warning';
  /** The reason in UpperCamelCase; truncated to 128 characters. */
  reason: string;
  /** The completed or failed action in UpperCamelCase, 1 to 128 characters. */
  action: string;
  /** Text for the user, without secrets; truncated to 1024 bytes. */
  note: string;
}

export interface EventRecorder {
  record(event: EventToRecord): void;
  /** Waits until all recorded Events are delivered or have failed. Never rejects. */
  flush(): Promise<void>;
}

export interface EventRecorderOptions {
  client: Pick<KubeClient, 'createObject' | 'patchObject'>;
  clock: Clock;
  logger: Logger;
  /** Name of the reporting process, such as the name of the Pod; truncated to 128 characters. */
  reportingInstance: string;
  /** Called for each Event that was not delivered. */
  onDropped?: () => void;
  /** Makes the names of simultaneous Events unique; default: three random bytes in hexadecimal. */
  uniqueSuffix?: () => string;
}

const reportingController = 'istiovaultca.io/istio-vault-ca';

const events = { group: 'events.k8s.io', version: 'v1', plural: 'events' };
/** Repetitions within this time belong to one series, in milliseconds. */
const seriesWindowMs = 600_000;
/** The shortest time between two writes of a series, in milliseconds. The next write counts the repetitions in between. */
const seriesPauseMs = 60_000;
/** The maximum number of undelivered Events. Further Events are dropped, so that memory is limited while the API server is unavailable. */
const maxQueued = 500;

/** A created Event, of which repetitions become a series. */
interface Sent {
  namespace: string;
  name: string;
  count: number;
  lastMs: number;
  writtenMs: number;
}

export function createEventRecorder(options: EventRecorderOptions): EventRecorder {
  return new Recorder(options);
}

class Recorder implements EventRecorder {
  readonly #options: EventRecorderOptions;
  readonly #sent = new Map<string, Sent>();
  #tail: Promise<void> = Promise.resolve();
  #queued = 0;

  constructor(options: EventRecorderOptions) {
    this.#options = options;
  }

  record(event: EventToRecord): void {
    if (this.#queued >= maxQueued) {
      this.#drop(event, new Error('too many events wait'));
      return;
    }
    const atMs = this.#options.clock.now();
    this.#queued += 1;
    this.#tail = this.#tail
      .then(() => this.#deliver(event, atMs))
      .catch((error: unknown) => this.#drop(event, error))
      .finally(() => {
        this.#queued -= 1;
      });
  }

  flush(): Promise<void> {
    return this.#tail;
  }

  async #deliver(event: EventToRecord, atMs: number): Promise<void> {
    this.#expire(atMs);
    const key = keyOf(event);
    const before = this.#sent.get(key);
    if (before !== undefined && (await this.#repeat(before, atMs))) return;
    this.#sent.delete(key);
    this.#sent.set(key, await this.#create(event, atMs));
  }

  /** Counts a repetition. @returns false if the API server has deleted the Event, by default an hour after its creation */
  async #repeat(sent: Sent, atMs: number): Promise<boolean> {
    sent.count += 1;
    sent.lastMs = atMs;
    if (sent.count > 2 && atMs - sent.writtenMs < seriesPauseMs) return true;
    const series = { count: sent.count, lastObservedTime: microTime(atMs) };
    try {
      await this.#options.client.patchObject(events, sent.namespace, sent.name, { series }, { type: 'merge' });
      sent.writtenMs = atMs;
      return true;
    } catch (error) {
      if (isKubeError(error, 'NotFound')) return false;
      throw error;
    }
  }

  async #create(event: EventToRecord, atMs: number): Promise<Sent> {
    const { client, reportingInstance, uniqueSuffix = () => randomBytes(3).toString('hex') } = this.#options;
    const { regarding } = event;
    const namespace = regarding.namespace ?? 'default';
    // kubectl sorts Events of the same time by name, so the suffix starts with the time.
    const name = `${regarding.name.slice(0, 220)}.${Math.round(atMs * 1000).toString(16)}${uniqueSuffix()}`;
    const body: JsonObject = {
      apiVersion: 'events.k8s.io/v1',
      kind: 'Event',
      metadata: { name, namespace },
      eventTime: microTime(atMs),
      type: event.type,
      reason: event.reason.slice(0, 128),
      action: event.action.slice(0, 128),
      note: truncateUtf8(event.note, 1024),
      regarding: { ...regarding },
      reportingController,
      reportingInstance: reportingInstance.slice(0, 128),
    };
    await client.createObject(events, namespace, body);
    return { namespace, name, count: 1, lastMs: atMs, writtenMs: atMs };
  }

  #expire(nowMs: number): void {
    for (const [key, sent] of this.#sent) {
      if (nowMs - sent.lastMs > seriesWindowMs) this.#sent.delete(key);
    }
  }

  #drop(event: EventToRecord, error: unknown): void {
    const { namespace, name } = event.regarding;
    this.#options.logger.warn('could not deliver an Event', { err: error, reason: event.reason, namespace, name });
    this.#options.onDropped?.();
  }
}

function keyOf({ regarding, type, reason, action, note }: EventToRecord): string {
  const { apiVersion, kind, namespace, name, uid } = regarding;
  return JSON.stringify([apiVersion, kind, namespace, name, uid, type, reason, action, note]);
}

/** Truncates text to a length in bytes of UTF-8, without splitting a character. */
export function truncateUtf8(text: string, maxBytes: number): string {
  const bytes = Buffer.from(text.toWellFormed());
  if (bytes.length <= maxBytes) return bytes.toString();
  let end = maxBytes;
  while (end > 0 && ((bytes[end] ?? 0) & 0xc0) === 0x80) end -= 1;
  return bytes.subarray(0, end).toString();
}
