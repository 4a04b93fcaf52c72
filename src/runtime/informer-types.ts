/** Types of the informer: options, handlers and the returned handle. */
import type { Backoff } from './backoff.ts';
import type { Clock } from './clock.ts';
import type { Logger } from './logger.ts';

/** The metadata of an object that a handler receives. */
export interface ObjectMetadata {
  name: string;
  namespace?: string;
  labels?: Record<string, string>;
  ownerReferences?: { apiVersion: string; kind: string; name: string; uid: string }[];
}

/** An object as the API server returns it. */
export interface InformedObject {
  metadata?: { name?: string | undefined; namespace?: string | undefined; resourceVersion?: string | undefined };
}

/**
 * The `watch` method of client-node's Watch. Starts a watch, calls `onEvent` for each event and `onDone` once at its end. Returns the
 * controller that aborts the watch.
 */
export type WatchFunction = (
  path: string,
  query: Record<string, string | number | boolean | undefined>,
  onEvent: (phase: string, object: unknown, raw?: unknown) => void,
  onDone: (error: unknown) => void,
) => Promise<AbortController>;

export interface InformerOptions<T extends InformedObject> {
  /** URL path of the collection on the API server. */
  path: string;
  /** Lists the whole collection. */
  list: () => Promise<{ items: T[]; resourceVersion: string }>;
  /** client-node's Watch, or a replacement in tests. */
  watch: { watch: WatchFunction };
  labelSelector?: string | undefined;
  /** Called if an object was added, changed or deleted, and for every object after a full list. Errors that it throws are logged. */
  onKey: (metadata: ObjectMetadata) => void;
  clock: Clock;
  backoff: Backoff;
  logger: Logger;
  /** Interval of full lists, in milliseconds; default 10 minutes. */
  relistMs?: number;
  /** Interval of checks for a resource type that is not served, in milliseconds; default 30 s. */
  missingRetryMs?: number;
}

export interface InformerHandle<T extends InformedObject> {
  /** Resolves after the first complete list, or if the API server does not serve the resource type. */
  synced: Promise<void>;
  hasSynced(): boolean;
  /** Returns an object from the cache; undefined if it is not there. @param namespace undefined for cluster-scoped objects */
  get(namespace: string | undefined, name: string): T | undefined;
  /** Returns all objects of the cache. */
  list(): T[];
  /** Stops the informer. No handler is called afterwards. */
  stop(): void;
  /** When the API server last responded, in milliseconds since the epoch; 0 before the first response. */
  lastContactMs(): number;
}
