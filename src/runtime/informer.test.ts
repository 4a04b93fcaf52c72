import { describe, expect, jest, test } from '@jest/globals';
import { silentLogger } from './logger.ts';
import { createBackoff } from './backoff.ts';
import { FakeClock } from './fake-clock.ts';
import { superviseInformer, type ObjectMetadata } from './informer.ts';

interface Item {
  metadata: { name: string; namespace: string; resourceVersion: string };
}

type OnEvent = (phase: string, object: unknown) => void;

const item = (name: string, resourceVersion = '1'): Item => ({ metadata: { name, namespace: 'ns', resourceVersion } });

/** A fake API server with one collection. The test sends the watch events. */
function setup(
  prepare: (server: { items: Item[]; listError: Error | undefined; throwInWatch: boolean }) => void = () => undefined,
) {
  const clock = new FakeClock(0);
  const server = {
    items: [] as Item[],
    listError: undefined as Error | undefined,
    watchError: undefined as unknown,
    throwInWatch: false,
    lists: 0,
    watches: [] as { onEvent: OnEvent; done: (error: unknown) => void; controller: AbortController }[],
  };
  prepare(server);
  const keys: string[] = [];
  const onKey = jest.fn((metadata: ObjectMetadata) => void keys.push(`${metadata.namespace ?? ''}/${metadata.name}`));
  const warnings: string[] = [];
  const informer = superviseInformer<Item>({
    path: '/api/v1/configmaps',
    list: () => {
      server.lists += 1;
      if (server.listError !== undefined) return Promise.reject(server.listError);
      return Promise.resolve({ items: [...server.items], resourceVersion: String(100 + server.lists) });
    },
    watch: {
      watch: (_path, _query, onEvent: OnEvent, onDone) => {
        let ended = false;
        const done = (error: unknown): void => {
          if (ended) return;
          ended = true;
          onDone(error);
        };
        if (server.throwInWatch) throw new Error('no credentials');
        const controller = new AbortController();
        // As in client-node, an aborted watch ends with an error.
        controller.signal.addEventListener('abort', () => done(new DOMException('aborted', 'AbortError')));
        if (server.watchError === undefined) server.watches.push({ onEvent, done, controller });
        else done(server.watchError);
        return Promise.resolve(controller);
      },
    },
    onKey,
    clock,
    backoff: createBackoff({ baseMs: 1000, capMs: 30_000 }, () => 0.5),
    logger: { ...silentLogger, warn: (message) => void warnings.push(message) },
    relistMs: 600_000,
  });
  const open = () => server.watches.filter(({ controller }) => !controller.signal.aborted);
  const taken = (): string[] => keys.splice(0);
  return { clock, server, informer, onKey, taken, warnings, open };
}

const httpError = (statusCode: number): Error => Object.assign(new Error(`status ${statusCode}`), { statusCode });
const reset = (): Error => Object.assign(new TypeError('terminated'), { cause: new Error('ECONNRESET') });

describe('the informer supervisor', () => {
  test('hands out what is there, then what changes, and keeps a cache', async () => {
    const { clock, informer, taken, open } = setup((server) => {
      server.items = [item('a'), item('b')];
    });
    await clock.advance(0);
    await informer.synced;
    expect(taken()).toEqual(['ns/a', 'ns/b']);
    const [watch] = open();
    watch!.onEvent('ADDED', item('c', '5'));
    watch!.onEvent('MODIFIED', item('a', '6'));
    watch!.onEvent('MODIFIED', item('a', '6'));
    watch!.onEvent('DELETED', item('b', '7'));
    await clock.advance(0);
    expect(taken()).toEqual(['ns/c', 'ns/a', 'ns/b']);
    expect(informer.get('ns', 'a')?.metadata.resourceVersion).toBe('6');
    expect(informer.get('ns', 'b')).toBeUndefined();
    expect(informer.list()).toHaveLength(2);
  });

  test('after a broken watch lists again and hands out what differs, deletions too', async () => {
    const { clock, server, taken, open, warnings } = setup((server) => {
      server.items = [item('same'), item('changed'), item('deleted')];
    });
    await clock.advance(0);
    taken();
    server.items = [item('same'), item('changed', '9'), item('new', '8')];
    open()[0]!.done(reset());
    await clock.advance(499);
    expect(server.lists).toBe(1);
    await clock.advance(1);
    expect(taken()).toEqual(['ns/changed', 'ns/new', 'ns/deleted']);
    expect(open()).toHaveLength(1);
    expect(warnings).toHaveLength(1);
  });

  test('backs off while the server is away, warns once, and stays synced on its cache', async () => {
    const { clock, server, informer, taken, open, warnings } = setup((server) => {
      server.items = [item('a')];
    });
    await clock.advance(0);
    server.listError = reset();
    open()[0]!.done(reset());
    await clock.advance(500 + 1000 + 2000 + 4000);
    expect(server.lists).toBe(1 + 4);
    expect(warnings).toHaveLength(1);
    expect(informer.hasSynced()).toBe(true);
    expect(informer.get('ns', 'a')).toBeDefined();
    expect(informer.lastContactMs()).toBe(0);
    server.listError = undefined;
    taken();
    await clock.advance(8000);
    expect(open()).toHaveLength(1);
    expect(taken()).toEqual([]);
    expect(informer.lastContactMs()).toBe(clock.now());
  });

  test('the server closing the watch in good order, or its silence, costs no list', async () => {
    const { clock, server, open } = setup();
    await clock.advance(0);
    open()[0]!.done(null);
    await clock.advance(1000);
    server.watches.at(-1)!.done(new DOMException('quiet', 'TimeoutError'));
    await clock.advance(1000);
    expect(server.lists).toBe(1);
    expect(server.watches).toHaveLength(3);
  });

  test('a compacted version leads to a list', async () => {
    const { clock, server, open, taken } = setup((server) => {
      server.items = [item('a')];
    });
    await clock.advance(0);
    taken();
    server.items = [];
    open()[0]!.done(httpError(410));
    await clock.advance(2000);
    expect(server.lists).toBe(2);
    expect(taken()).toEqual(['ns/a']);
  });

  test('every ten minutes lists anew and hands out everything, with one watch open', async () => {
    const { clock, server, taken, open } = setup((server) => {
      server.items = [item('a'), item('b')];
    });
    await clock.advance(0);
    taken();
    server.items = [item('a')];
    await clock.advance(600_000);
    expect(taken()).toEqual(['ns/a', 'ns/b']);
    expect(open()).toHaveLength(1);
    await clock.advance(600_000);
    expect(taken()).toEqual(['ns/a']);
  });

  test('a resource type that is not served counts as empty, without noise, and is found when it comes', async () => {
    const { clock, server, informer, taken, warnings } = setup((server) => {
      server.listError = httpError(404);
    });
    await clock.advance(0);
    await informer.synced;
    await clock.advance(300_000);
    expect(warnings).toEqual([]);
    server.listError = undefined;
    server.items = [item('a')];
    await clock.advance(30_000);
    expect(taken()).toEqual(['ns/a']);
  });

  test('a resource type that goes away empties the cache and hands out its keys', async () => {
    const { clock, server, informer, taken, open } = setup((server) => {
      server.items = [item('a')];
    });
    await clock.advance(0);
    taken();
    server.listError = httpError(404);
    open()[0]!.done(httpError(404));
    await clock.advance(31_000);
    expect(taken()).toEqual(['ns/a']);
    expect(informer.list()).toEqual([]);
    expect(open()).toHaveLength(0);
  });

  test('is not synced while it may not list', async () => {
    const { clock, informer } = setup((server) => {
      server.listError = httpError(403);
    });
    await clock.advance(60_000);
    expect(informer.hasSynced()).toBe(false);
  });

  test('survives a watch that throws, a watch that fails at once, events that are none, and a handler that throws', async () => {
    const { clock, server, onKey, open, taken } = setup((server) => {
      server.throwInWatch = true;
    });
    await clock.advance(100);
    server.throwInWatch = false;
    server.watchError = httpError(500);
    await clock.advance(500);
    server.watchError = undefined;
    await clock.advance(1000);
    expect(open()).toHaveLength(1);
    onKey.mockImplementationOnce(() => {
      throw new Error('handler');
    });
    const [watch] = open();
    watch!.onEvent('ADDED', undefined);
    watch!.onEvent('ADDED', { no: 'metadata' });
    watch!.onEvent('ERROR', undefined);
    watch!.onEvent('ADDED', item('a', '2'));
    watch!.onEvent('ADDED', item('b', '3'));
    await clock.advance(0);
    expect(taken()).toEqual(['ns/b']);
  });

  test('stopped, it stays stopped: no restart, no key, no timer, no watch left open', async () => {
    const { clock, server, informer, taken, open } = setup((server) => {
      server.items = [item('a')];
    });
    await clock.advance(0);
    taken();
    const [watch] = open();
    informer.stop();
    watch!.onEvent('ADDED', item('b', '2'));
    await clock.advance(3_600_000);
    expect(taken()).toEqual([]);
    expect(open()).toHaveLength(0);
    expect(server.lists).toBe(1);
    expect(clock.pending).toBe(0);
  });

  test('stopped within its list, it opens no watch', async () => {
    const { clock, server, informer } = setup();
    informer.stop();
    await clock.advance(1000);
    expect(server.watches).toHaveLength(0);
    expect(clock.pending).toBe(0);
  });

  test('stopped while ListWatch waits to reconnect, it opens no watch', async () => {
    const { clock, server, informer, open } = setup();
    await clock.advance(0);
    open()[0]!.done(null);
    await clock.advance(0);
    open().at(-1)!.done(null);
    await clock.advance(0);
    const before = server.watches.length;
    informer.stop();
    await clock.advance(60_000);
    expect(server.watches).toHaveLength(before);
    expect(clock.pending).toBe(0);
  });
});
