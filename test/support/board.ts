/** One watch for all resources of the fault runs and benchmarks, instead of a poll for each. */
import { readFileSync } from 'node:fs';
import type http from 'node:http';
import https from 'node:https';
import { setTimeout as pause } from 'node:timers/promises';
import { waitFor } from '../stack/index.ts';
import type { Kube, Resource } from './cluster.ts';

function adminToken(kube: Kube): string {
  const config = JSON.parse(readFileSync(kube.adminKubeconfig, 'utf8')) as { users: { user: { token: string } }[] };
  return config.users[0]?.user.token ?? '';
}

const collection = '/apis/istiovaultca.io/v1alpha1/istiovaultcas';

interface WatchEvent {
  type: string;
  object: Resource & { metadata: { resourceVersion: string } };
}

interface Waiting {
  key: string;
  check: (resource: Resource | undefined) => boolean;
  resolve: (resource: Resource | undefined) => void;
}

/** All IstioVaultCA resources as the API server has them, kept up to date by one watch. */
export class Board {
  readonly #kube: Kube;
  readonly #resources = new Map<string, Resource>();
  readonly #waiting = new Set<Waiting>();
  #version = '';
  #watch: http.ClientRequest | undefined;
  #stopped = false;

  constructor(kube: Kube) {
    this.#kube = kube;
  }

  async start(): Promise<void> {
    // a CRD that was just established is possibly not served yet
    const answer = await waitFor('the resources to be listed', async () => {
      const found = await this.#kube.request('GET', collection);
      return found.status === 200 && found;
    });
    const list = answer.body as { metadata: { resourceVersion: string }; items: Resource[] };
    this.#resources.clear();
    for (const item of list.items) this.#resources.set(`${item.metadata.namespace}/${item.metadata.name}`, item);
    this.#version = list.metadata.resourceVersion;
    for (const waiting of [...this.#waiting]) this.#look(waiting);
    this.#open();
  }

  stop(): void {
    this.#stopped = true;
    this.#watch?.destroy();
  }

  /** Waits until a resource, or its absence, satisfies `check`. @throws after the timeout, with the conditions of the resource */
  async wait(
    namespace: string,
    name: string,
    what: string,
    check: (resource: Resource | undefined) => boolean,
    timeoutMs = 60_000,
  ): Promise<Resource | undefined> {
    const key = `${namespace}/${name}`;
    const done = Promise.withResolvers<Resource | undefined>();
    const waiting: Waiting = { key, check, resolve: done.resolve };
    this.#waiting.add(waiting);
    this.#look(waiting);
    const timer = setTimeout(() => {
      const { conditions = [] } = this.#resources.get(key)?.status ?? {};
      const lines = conditions.map((c) => `  ${c.type}=${c.status} ${c.reason}: ${c.message}`);
      done.reject(
        new Error(`waited ${timeoutMs / 1000} s in vain for ${key} to be ${what}; conditions:\n${lines.join('\n')}`),
      );
    }, timeoutMs);
    try {
      return await done.promise;
    } finally {
      clearTimeout(timer);
      this.#waiting.delete(waiting);
    }
  }

  #look(waiting: Waiting): void {
    const resource = this.#resources.get(waiting.key);
    if (waiting.check(resource)) waiting.resolve(resource);
  }

  #open(): void {
    const path = `${collection}?watch=true&allowWatchBookmarks=true&resourceVersion=${this.#version}`;
    const headers = { authorization: `Bearer ${adminToken(this.#kube)}` };
    const request = https.get(`${this.#kube.url}${path}`, { ca: this.#kube.caPem, headers, agent: false }, (answer) => {
      let rest = '';
      answer.setEncoding('utf8');
      answer.on('data', (chunk: string) => {
        const lines = `${rest}${chunk}`.split('\n');
        rest = lines.pop() ?? '';
        for (const line of lines) this.#take(JSON.parse(line) as WatchEvent);
      });
    });
    // whatever ended the watch, the next list is up to date
    request.on('error', () => undefined);
    request.on('close', () => void this.#again());
    this.#watch = request;
  }

  async #again(): Promise<void> {
    while (!this.#stopped) {
      try {
        await this.start();
        return;
      } catch {
        await pause(100); // the API server can be restarting
      }
    }
  }

  #take({ type, object }: WatchEvent): void {
    if (type === 'ERROR') {
      this.#watch?.destroy();
      return;
    }
    this.#version = object.metadata.resourceVersion;
    if (type === 'BOOKMARK') return;
    const key = `${object.metadata.namespace}/${object.metadata.name}`;
    if (type === 'DELETED') this.#resources.delete(key);
    else this.#resources.set(key, object);
    for (const waiting of [...this.#waiting]) if (waiting.key === key) this.#look(waiting);
  }
}
