/** Clients of the fault runs: administrators' clients that keep their connections, and one watch for all resources. */
import { readFileSync } from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import { setTimeout as pause } from 'node:timers/promises';
import { waitFor, type Answer } from '../stack/index.ts';
import type { Kube, Resource } from '../support/cluster.ts';
import type { Vault } from '../support/scene.ts';

interface Call {
  method: string;
  url: string;
  headers: Record<string, string>;
  body: unknown;
}

type Send = (call: Call) => Promise<Answer>;

function parse(text: string): unknown {
  if (text === '') return undefined;
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return text;
  }
}

const agentFor = (url: string, caPem: string | undefined): http.Agent =>
  url.startsWith('https:')
    ? new https.Agent({ keepAlive: true, maxSockets: 32, ...(caPem === undefined ? {} : { ca: caPem }) })
    : new http.Agent({ keepAlive: true, maxSockets: 32 });

function sender(agent: http.Agent): Send {
  return ({ method, url, headers, body }) =>
    new Promise((resolve, reject) => {
      const payload = body === undefined || typeof body === 'string' ? body : JSON.stringify(body);
      const length = payload === undefined ? {} : { 'content-length': String(Buffer.byteLength(payload)) };
      const options = { method, agent, headers: { ...headers, ...length }, timeout: 30_000 };
      const client = url.startsWith('https:') ? https : http;
      const request = client.request(url, options, (answer) => {
        const chunks: Buffer[] = [];
        answer.on('data', (chunk: Buffer) => chunks.push(chunk));
        answer.on('error', reject);
        answer.on('end', () =>
          resolve({ status: answer.statusCode ?? 0, body: parse(Buffer.concat(chunks).toString('utf8')) }),
        );
      });
      request.on('timeout', () => request.destroy(new Error(`${method} ${url}: no answer in 30 s`)));
      request.on('error', reject);
      request.end(payload);
    });
}

function adminToken(kube: Kube): string {
  const config = JSON.parse(readFileSync(kube.adminKubeconfig, 'utf8')) as { users: { user: { token: string } }[] };
  return config.users[0]?.user.token ?? '';
}

/** The same API server with connections that are kept. */
export function keepAliveKube(kube: Kube): Kube {
  const send = sender(agentFor(kube.url, kube.caPem));
  const authorization = `Bearer ${adminToken(kube)}`;
  return {
    ...kube,
    request: (method, path, body, contentType) => {
      const type = contentType ?? (method === 'PATCH' ? 'application/merge-patch+json' : 'application/json');
      const headers = { authorization, accept: 'application/json', 'content-type': type };
      return send({ method, url: `${kube.url}${path}`, headers, body });
    },
  };
}

/** The same Vault with connections that are kept. */
export function keepAliveVault(vault: Vault): Vault {
  const send = sender(agentFor(vault.address, vault.caPem));
  return {
    ...vault,
    request: (method, path, body, token = vault.rootToken) => {
      const headers = { 'x-vault-token': token, 'x-vault-request': 'true', 'content-type': 'application/json' };
      return send({ method, url: `${vault.address}/v1/${path}`, headers, body });
    },
  };
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
