/** What an informer takes and gives. */
import type { Backoff } from './backoff.ts';
import type { Clock } from './clock.ts';
import type { Logger } from './logger.ts';

/** What of an object a handler sees. */
export interface ObjectMetadata {
  name: string;
  namespace?: string;
  labels?: Record<string, string>;
  ownerReferences?: { apiVersion: string; kind: string; name: string; uid: string }[];
}

/** An object as the API server gives it. */
export interface InformedObject {
  metadata?: { name?: string | undefined; namespace?: string | undefined; resourceVersion?: string | undefined };
}

/** As client-node's Watch: starts a watch, tells its events, and once its end; gives what aborts it. */
export type WatchFunction = (
  path: string,
  query: Record<string, string | number | boolean | undefined>,
  onEvent: (phase: string, object: unknown, raw?: unknown) => void,
  onDone: (error: unknown) => void,
) => Promise<AbortController>;

export interface InformerOptions<T extends InformedObject> {
  /** The collection's path on the API server. */
  path: string;
  /** Lists the whole collection. */
  list: () => Promise<{ items: T[]; resourceVersion: string }>;
  /** client-node's Watch, or anything that watches alike. */
  watch: { watch: WatchFunction };
  labelSelector?: string | undefined;
  /** An object was added, changed or deleted, or is handed out again. What it throws is logged. */
  onKey: (metadata: ObjectMetadata) => void;
  clock: Clock;
  backoff: Backoff;
  logger: Logger;
  /** How often everything is listed and handed out anew, in milliseconds; 10 min unless given. */
  relistMs?: number;
  /** How often to look whether a resource type that is not served has come, in milliseconds; 30 s unless given. */
  missingRetryMs?: number;
}

export interface InformerHandle<T extends InformedObject> {
  /** Resolves when everything was seen once; also when the resource type is not served: there is nothing to see. */
  synced: Promise<void>;
  hasSynced(): boolean;
  /** From the cache. @param namespace undefined for cluster-scoped objects */
  get(namespace: string | undefined, name: string): T | undefined;
  /** From the cache. */
  list(): T[];
  /** Ends it; nothing is handed out afterwards. */
  stop(): void;
  /** When the API server last answered, in milliseconds since the epoch; 0 before the first time. */
  lastContactMs(): number;
}
