/**
 * An informer that supervises client-node's ListWatch. A ListWatch stops permanently at its first error, reports its own stop as an error, and
 * lets an exception of a handler end the process. Each restart is a new ListWatch with a new list. The supervisor compares both lists to find
 * changes and deletions in between. Handlers receive only metadata, from which they create a key.
 */
import { ListWatch, type KubernetesListObject, type KubernetesObject, type Watch } from '@kubernetes/client-node';
import { sleep, type Timer } from './clock.ts';
import type { InformedObject, InformerHandle, InformerOptions, WatchFunction } from './informer-types.ts';

export type { InformerHandle, ObjectMetadata } from './informer-types.ts';

/** If a ListWatch ran for this time, its failure starts a new back-off; in milliseconds. */
const stableMs = 60_000;

/** Keeps a cache of a collection and calls `onKey` for changed objects, until it is stopped. Never throws. */
export function superviseInformer<T extends InformedObject>(options: InformerOptions<T>): InformerHandle<T> {
  const supervisor = new Supervisor(options);
  void supervisor.next(true);
  return {
    synced: supervisor.synced,
    hasSynced: () => supervisor.hasSynced,
    get: (namespace, name) => supervisor.cache.get(cacheKey(namespace, name)),
    list: () => [...supervisor.cache.values()],
    stop: () => supervisor.stop(),
    lastContactMs: () => supervisor.lastContactMs,
  };
}

class Supervisor<T extends InformedObject> {
  readonly synced: Promise<void>;
  hasSynced = false;
  lastContactMs = 0;
  cache = new Map<string, T>();

  readonly #options: InformerOptions<T>;
  #resolveSynced: () => void = () => undefined;
  #current: WatchRun<T> | undefined;
  #starting: WatchRun<T> | undefined;
  /** When `#current` was started, in milliseconds since the epoch. */
  #currentSinceMs = 0;
  /** The timer of the next start; undefined while a start is in progress. */
  #timer: Timer | undefined;
  #stopped = false;
  /** The last logged failure; empty after a success. */
  #lastFailure = '';

  constructor(options: InformerOptions<T>) {
    this.#options = options;
    this.synced = new Promise((resolve) => {
      this.#resolveSynced = resolve;
    });
  }

  stop(): void {
    this.#stopped = true;
    this.#timer?.cancel();
    this.#current?.stop();
    this.#starting?.stop();
  }

  #isStopped(): boolean {
    return this.#stopped;
  }

  /**
   * Starts a ListWatch, which then replaces the current one.
   * @param all calls the handler for every object, not only for changed ones
   */
  async next(all: boolean): Promise<void> {
    if (this.#stopped) return;
    this.#timer = undefined;
    const run = new WatchRun(this.#options, {
      onContact: () => {
        this.lastContactMs = this.#options.clock.now();
      },
      onChange: (object, deleted) => this.#changed(run, object, deleted),
      onFailure: (error) => this.#failed(run, error),
    });
    this.#starting = run;
    const failure = await run.start();
    this.#starting = undefined;
    if (this.#isStopped()) run.stop();
    else if (failure === undefined) this.#replaceCurrent(run, all);
    else this.#retry(failure.error, all);
  }

  #replaceCurrent(run: WatchRun<T>, all: boolean): void {
    const { clock, logger, relistMs = 600_000, path } = this.#options;
    this.#current?.stop();
    this.#current = run;
    this.#currentSinceMs = clock.now();
    if (this.#lastFailure !== '') logger.info('watching again', { path });
    this.#lastFailure = '';
    this.#replaceCache(run.objects(), all);
    this.#schedule(relistMs, true);
    this.#markSynced();
  }

  #replaceCache(objects: readonly T[], all: boolean): void {
    const before = this.cache;
    this.cache = new Map(objects.map((object) => [keyOf(object), object]));
    for (const [key, object] of this.cache) {
      const version = object.metadata?.resourceVersion;
      if (all || version === undefined || before.get(key)?.metadata?.resourceVersion !== version) this.#notify(object);
    }
    for (const [key, object] of before) {
      if (!this.cache.has(key)) this.#notify(object);
    }
  }

  #changed(run: WatchRun<T>, object: T, deleted: boolean): void {
    if (this.#stopped || run !== this.#current) return;
    if (deleted) this.cache.delete(keyOf(object));
    else this.cache.set(keyOf(object), object);
    this.#notify(object);
  }

  /** Handles the end of the current ListWatch. If the start of the next one is in progress, nothing is to be done. */
  #failed(run: WatchRun<T>, error: unknown): void {
    if (this.#stopped || run !== this.#current || this.#timer === undefined) return;
    this.#timer.cancel();
    const { clock, backoff } = this.#options;
    if (clock.now() - this.#currentSinceMs >= stableMs) backoff.reset();
    this.#retry(error, false);
  }

  /** Schedules the next start after a failure. Status 404 means that the resource type is not served: the cache is then empty. */
  #retry(error: unknown, all: boolean): void {
    const { logger, path, backoff, missingRetryMs = 30_000 } = this.#options;
    if (statusOf(error) === 404) {
      if (this.#lastFailure !== '404') logger.debug('not served; looking again from time to time', { path });
      this.#lastFailure = '404';
      this.#current?.stop();
      this.#current = undefined;
      this.lastContactMs = this.#options.clock.now();
      this.#replaceCache([], false);
      this.#markSynced();
      this.#schedule(missingRetryMs, all);
      return;
    }
    const failure = String(error);
    logger[failure === this.#lastFailure ? 'debug' : 'warn']('cannot watch; trying again', { path, err: error });
    this.#lastFailure = failure;
    this.#schedule(backoff.next(), all);
  }

  #schedule(ms: number, all: boolean): void {
    this.#timer = this.#options.clock.setTimeout(() => void this.next(all), ms);
  }

  #markSynced(): void {
    this.hasSynced = true;
    this.#resolveSynced();
  }

  /** Calls the handler with the metadata of an object. */
  #notify(object: T): void {
    const { name, namespace, ...rest } = object.metadata ?? {};
    if (name === undefined) return;
    try {
      this.#options.onKey({ ...rest, name, ...(namespace === undefined ? {} : { namespace }) });
    } catch (error) {
      this.#options.logger.error('an informer handler failed', { path: this.#options.path, err: error });
    }
  }
}

interface Callbacks<T> {
  onContact: () => void;
  onChange: (object: T, deleted: boolean) => void;
  /** Called at most once, and only after a successful start. */
  onFailure: (error: unknown) => void;
}

/** One ListWatch, from its list to its end. */
class WatchRun<T extends InformedObject> {
  readonly #options: InformerOptions<T>;
  readonly #callbacks: Callbacks<T>;
  readonly #listWatch: ListWatch<KubernetesObject>;
  readonly #stop = new AbortController();
  #failure: { error: unknown } | undefined;
  #started = false;

  constructor(options: InformerOptions<T>, callbacks: Callbacks<T>) {
    this.#options = options;
    this.#callbacks = callbacks;
    const { path, labelSelector, clock } = options;
    const delayFn = async (ms: number): Promise<void> => {
      await sleep(clock, ms, this.#stop.signal);
    };
    const watch = { watch: this.#watch.bind(this) } as unknown as Watch;
    const list = this.#list.bind(this);
    this.#listWatch = new ListWatch(path, watch, list, false, labelSelector, undefined, { delayFn });
    const changed = (deleted: boolean) => (object: KubernetesObject) => {
      if (this.#started) callbacks.onChange(object as T, deleted);
    };
    this.#listWatch.on('add', changed(false));
    this.#listWatch.on('update', changed(false));
    this.#listWatch.on('delete', changed(true));
    this.#listWatch.on('error', (error: unknown) => this.#fail(error));
  }

  /** Starts the ListWatch. @returns the failure; undefined if the list was read and the watch was started */
  async start(): Promise<{ error: unknown } | undefined> {
    await this.#listWatch.start().catch((error: unknown) => this.#fail(error));
    this.#started = this.#failure === undefined;
    return this.#failure;
  }

  stop(): void {
    this.#stop.abort();
    void this.#listWatch.stop();
  }

  objects(): T[] {
    return [...this.#listWatch.list()] as T[];
  }

  #fail(error: unknown): void {
    if (this.#stop.signal.aborted || this.#failure !== undefined) return;
    this.#failure = { error };
    this.stop();
    if (this.#started) this.#callbacks.onFailure(error);
  }

  async #list(): Promise<KubernetesListObject<KubernetesObject>> {
    const { items, resourceVersion } = await this.#options.list();
    this.#callbacks.onContact();
    // The list is plain JSON and no instance of a client-node class. ListWatch reads only resourceVersion of its metadata.
    return { items, metadata: { resourceVersion } } as unknown as KubernetesListObject<KubernetesObject>;
  }

  /**
   * Wraps client-node's watch. An exception ends this ListWatch instead of the process. After the stop, nothing is started or reported.
   * Events without an object are ignored.
   */
  async #watch(...[path, query, onEvent, onDone]: Parameters<WatchFunction>): Promise<AbortController> {
    const stopped = (): boolean => this.#stop.signal.aborted;
    const state = { ended: false };
    const done = (error: unknown): void => {
      state.ended = true;
      if (!stopped()) onDone(error);
    };
    const event = (phase: string, object: unknown, raw: unknown): void => {
      if (stopped()) return;
      this.#callbacks.onContact();
      const expected = phase === 'ERROR' ? object : fieldsOf(object)['metadata'];
      if (typeof expected === 'object' && expected !== null) onEvent(phase, object, raw);
    };
    const unused = new AbortController();
    if (stopped()) return unused;
    try {
      const request = await this.#options.watch.watch(path, query, event, done);
      if (stopped()) request.abort();
      else if (!state.ended) this.#callbacks.onContact();
      return request;
    } catch (error) {
      done(error);
      return unused;
    }
  }
}

/** The properties of any value, also of null and undefined. */
const fieldsOf = (value: unknown): Partial<Record<string, unknown>> => Object(value) as Record<string, unknown>;

const cacheKey = (namespace: string | undefined, name: string): string => `${namespace ?? ''}/${name}`;

const keyOf = ({ metadata }: InformedObject): string => cacheKey(metadata?.namespace, metadata?.name ?? '');

/** The HTTP status of an error; undefined if it has none. */
function statusOf(error: unknown): number | undefined {
  const { status, statusCode, code } = fieldsOf(error);
  return [status, statusCode, code].find((value) => typeof value === 'number');
}
