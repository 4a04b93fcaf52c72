/** List and watch, like Kubernetes' own clients: a listener gets the latest version of every object. */
import { readFileSync } from 'node:fs';
import type { IncomingMessage } from 'node:http';
import { request } from 'node:https';
import { expectStatus } from './http.ts';
import type { KubeServer } from './types.ts';
import { pause } from './wait.ts';

interface Watchable {
  readonly metadata: { readonly uid: string; readonly resourceVersion: string };
}

export interface WatchHandlers<T> {
  /** Called for an object that exists or has changed; after a lost connection, again for all objects. */
  readonly seen: (object: T) => void;
  readonly gone: (object: T) => void;
  /** Called if the connection was lost or a response was invalid; the watch reconnects. */
  readonly failed: (error: unknown) => void;
}

export interface Watch {
  stop(): Promise<void>;
}

interface WatchEvent<T> {
  readonly type: 'ADDED' | 'MODIFIED' | 'DELETED' | 'BOOKMARK' | 'ERROR';
  readonly object: T;
}

/** The administrator's token. The kubeconfig comes from `kube.ts` and is JSON. */
function adminToken(kube: Pick<KubeServer, 'adminKubeconfig'>): string {
  const config = JSON.parse(readFileSync(kube.adminKubeconfig, 'utf8')) as { users: [{ user: { token: string } }] };
  return config.users[0].user.token;
}

/**
 * Watches a collection until it is stopped.
 * @param path of the collection; can contain a query
 */
export function watchObjects<T extends Watchable>(
  kube: Pick<KubeServer, 'request' | 'url' | 'caPem' | 'adminKubeconfig'>,
  path: string,
  handlers: WatchHandlers<T>,
): Watch {
  const known = new Map<string, T>();
  const token = adminToken(kube);
  let stopped = false;
  let end = (): void => undefined;

  const take = ({ type, object }: WatchEvent<T>): void => {
    const { uid } = object.metadata;
    if (type === 'DELETED') {
      known.delete(uid);
      handlers.gone(object);
    } else {
      known.set(uid, object);
      handlers.seen(object);
    }
  };
  const list = async (): Promise<string> => {
    const body = expectStatus(await kube.request('GET', path), [200], `list ${path}`) as {
      metadata: { resourceVersion: string };
      items: T[];
    };
    const now = new Set(body.items.map((object) => object.metadata.uid));
    for (const [uid, object] of [...known]) if (!now.has(uid)) take({ type: 'DELETED', object });
    for (const object of body.items) take({ type: 'MODIFIED', object });
    return body.metadata.resourceVersion;
  };
  /** Settles when the API server ends the watch, or at an error. */
  const stream = (resourceVersion: string): Promise<void> =>
    new Promise((resolve, reject) => {
      const url = new URL(`${kube.url}${path}`);
      url.searchParams.set('watch', 'true');
      url.searchParams.set('resourceVersion', resourceVersion);
      const onResponse = (response: IncomingMessage): void => {
        let rest = '';
        response.setEncoding('utf8');
        response.on('data', (text: string) => {
          const lines = (rest + text).split('\n');
          rest = lines.pop() ?? '';
          try {
            if (response.statusCode !== 200) throw new Error(`watch ${path}: HTTP ${response.statusCode ?? 0}`);
            for (const line of lines) {
              const event = JSON.parse(line) as WatchEvent<T>;
              if (event.type === 'ERROR') throw new Error(`watch ${path}: ${JSON.stringify(event.object)}`);
              if (!stopped) take(event);
            }
          } catch (error) {
            reject(error instanceof Error ? error : new Error(String(error)));
            watching.destroy();
          }
        });
        response.on('error', reject);
        response.on('close', resolve);
      };
      const watching = request(
        url,
        { ca: kube.caPem, agent: false, headers: { authorization: `Bearer ${token}` } },
        onResponse,
      );
      watching.on('error', reject);
      end = () => {
        resolve();
        watching.destroy();
      };
      watching.end();
    });

  const run = async (): Promise<void> => {
    while (!stopped) {
      try {
        const version = await list();
        // it can be stopped meanwhile, which the compiler does not know
        if (!(stopped as boolean)) await stream(version);
      } catch (error) {
        if (stopped as boolean) return;
        handlers.failed(error);
        await pause(100);
      }
    }
  };
  const running = run();
  return {
    stop: async () => {
      stopped = true;
      end();
      await running;
    },
  };
}
