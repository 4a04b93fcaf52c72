/**
 * A supervisor round client-node's ListWatch, which stops for good at its first error, reports its own stop as one, and
 * lets exceptions of handlers end the process. Each restart is a new ListWatch with a new list; what changed between the
 * two, deletions too, is found by comparing them. Handlers only ever get metadata to make a key of.
 */
import { ListWatch, type KubernetesListObject, type KubernetesObject, type Watch } from '@kubernetes/client-node';
import { sleep, type Timer } from './clock.ts';
import type { InformedObject, InformerHandle, InformerOptions, WatchFunction } from './informer-types.ts';

export type { InformerHandle, ObjectMetadata } from './informer-types.ts';

/** A back-off that is this old has served: the next failure is a new story. In milliseconds. */
const stableMs = 60_000;

/** Keeps a cache of a collection and hands out keys of what changes, until stopped. Never throws. */
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
  #live: Generation<T> | undefined;
  #starting: Generation<T> | undefined;
  #liveSinceMs = 0;
  #timer: Timer | undefined;
  #stopped = false;
  #lastTrouble = '';

  constructor(options: InformerOptions<T>) {
    this.#options = options;
    this.synced = new Promise((resolve) => {
      this.#resolveSynced = resolve;
    });
  }

  stop(): void {
    this.#stopped = true;
    this.#timer?.cancel();
    this.#live?.stop();
    this.#starting?.stop();
  }

  #isStopped(): boolean {
    return this.#stopped;
  }

  /**
   * Starts the next ListWatch and lets it take the place of the one before.
   * @param all hand out every object, not only those that differ
   */
  async next(all: boolean): Promise<void> {
    if (this.#stopped) return;
    this.#timer = undefined;
    const generation = new Generation(this.#options, {
      onContact: () => {
        this.lastContactMs = this.#options.clock.now();
      },
      onChange: (object, deleted) => this.#changed(generation, object, deleted),
      onFailure: (error) => this.#failed(generation, error),
    });
    this.#starting = generation;
    const failure = await generation.start();
    this.#starting = undefined;
    if (this.#isStopped()) generation.stop();
    else if (failure === undefined) this.#takeOver(generation, all);
    else this.#retry(failure.error, all);
  }

  #takeOver(generation: Generation<T>, all: boolean): void {
    const { clock, logger, relistMs = 600_000, path } = this.#options;
    this.#live?.stop();
    this.#live = generation;
    this.#liveSinceMs = clock.now();
    if (this.#lastTrouble !== '') logger.info('watching again', { path });
    this.#lastTrouble = '';
    this.#replaceCache(generation.objects(), all);
    this.#schedule(relistMs, true);
    this.#markSynced();
  }

  #replaceCache(objects: readonly T[], all: boolean): void {
    const before = this.cache;
    this.cache = new Map(objects.map((object) => [keyOf(object), object]));
    for (const [key, object] of this.cache) {
      const version = object.metadata?.resourceVersion;
      if (all || version === undefined || before.get(key)?.metadata?.resourceVersion !== version) this.#handOut(object);
    }
    for (const [key, object] of before) {
      if (!this.cache.has(key)) this.#handOut(object);
    }
  }

  #changed(generation: Generation<T>, object: T, deleted: boolean): void {
    if (this.#stopped || generation !== this.#live) return;
    if (deleted) this.cache.delete(keyOf(object));
    else this.cache.set(keyOf(object), object);
    this.#handOut(object);
  }

  /** The live ListWatch has ended. While another is being started its fate decides. */
  #failed(generation: Generation<T>, error: unknown): void {
    if (this.#stopped || generation !== this.#live || this.#timer === undefined) return;
    this.#timer.cancel();
    const { clock, backoff } = this.#options;
    if (clock.now() - this.#liveSinceMs >= stableMs) backoff.reset();
    this.#retry(error, false);
  }

  #retry(error: unknown, all: boolean): void {
    const { logger, path, backoff, missingRetryMs = 30_000 } = this.#options;
    if (statusOf(error) === 404) {
      if (this.#lastTrouble !== '404') logger.debug('not served; looking again from time to time', { path });
      this.#lastTrouble = '404';
      this.#live?.stop();
      this.#live = undefined;
      this.lastContactMs = this.#options.clock.now();
      this.#replaceCache([], false);
      this.#markSynced();
      this.#schedule(missingRetryMs, all);
      return;
    }
    const trouble = String(error);
    logger[trouble === this.#lastTrouble ? 'debug' : 'warn']('cannot watch; trying again', { path, err: error });
    this.#lastTrouble = trouble;
    this.#schedule(backoff.next(), all);
  }

  #schedule(ms: number, all: boolean): void {
    this.#timer = this.#options.clock.setTimeout(() => void this.next(all), ms);
  }

  #markSynced(): void {
    this.hasSynced = true;
    this.#resolveSynced();
  }

  #handOut(object: T): void {
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
  /** After a successful start only. At most once. */
  onFailure: (error: unknown) => void;
}

/** One ListWatch from its list to its end. */
class Generation<T extends InformedObject> {
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

  /** @returns the failure, or undefined when the list is here and the watch stands */
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
    // Lists come as plain JSON here, not as instances of client-node's classes; ListWatch reads the one field.
    return { items, metadata: { resourceVersion } } as unknown as KubernetesListObject<KubernetesObject>;
  }

  /**
   * client-node's watch, made safe: what it throws ends this ListWatch instead of the process, nothing is started or
   * reported after the stop, and events that are no objects are passed over.
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
    const none = new AbortController();
    if (stopped()) return none;
    try {
      const request = await this.#options.watch.watch(path, query, event, done);
      if (stopped()) request.abort();
      else if (!state.ended) this.#callbacks.onContact();
      return request;
    } catch (error) {
      done(error);
      return none;
    }
  }
}

/** The fields of a value; of what has none, none. */
const fieldsOf = (value: unknown): Partial<Record<string, unknown>> => Object(value) as Record<string, unknown>;

const cacheKey = (namespace: string | undefined, name: string): string => `${namespace ?? ''}/${name}`;

const keyOf = ({ metadata }: InformedObject): string => cacheKey(metadata?.namespace, metadata?.name ?? '');

function statusOf(error: unknown): number | undefined {
  const { status, statusCode, code } = fieldsOf(error);
  return [status, statusCode, code].find((one) => typeof one === 'number');
}
