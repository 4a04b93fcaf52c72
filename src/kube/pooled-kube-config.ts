/**
 * client-node's KubeConfig with one connection pool. client-node 2.0.1 creates an undici Agent, and thus a TLS connection, for each request
 * (https://github.com/kubernetes-client/javascript/issues/2893).
 */
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import type { RequestOptions } from 'node:https';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { KubeConfig, type RequestContext } from '@kubernetes/client-node';
import type { Proxy, ProxyFor } from '../runtime/proxy.ts';

type Dispatcher = Parameters<RequestContext['setDispatcher']>[0];

export class PooledKubeConfig extends KubeConfig {
  /** The proxy that requests to the current cluster go through; undefined: none. */
  proxy: Proxy | undefined;
  #pool: { fingerprint: string; dispatcher: Dispatcher | undefined } | undefined;

  /**
   * Sets the credentials and the shared pool of a request. client-node reads the token for each request. If CA, client certificate or server
   * change, a new pool replaces the old one, which closes its idle connections.
   */
  override async applySecurityAuthentication(context: RequestContext): Promise<void> {
    const options: RequestOptions = {};
    await this.applyToHTTPSOptions(options);
    const fingerprint = this.#fingerprint(options);
    if (this.#pool?.fingerprint !== fingerprint) {
      await super.applySecurityAuthentication(context);
      this.#pool = { fingerprint, dispatcher: http1Only(context.getDispatcher()) };
    } else {
      this.#setHeaders(context, options);
    }
    if (this.#pool.dispatcher !== undefined) context.setDispatcher(this.#pool.dispatcher);
  }

  #setHeaders(context: RequestContext, options: RequestOptions): void {
    if (typeof options.auth === 'string') {
      context.setHeaderParam('Authorization', `Basic ${Buffer.from(options.auth).toString('base64')}`);
    }
    const headers = (options.headers ?? {}) as Record<string, unknown>;
    for (const [name, value] of Object.entries(headers)) context.setHeaderParam(name, String(value));
  }

  /** A hash of everything that a pooled connection depends on. */
  #fingerprint(options: RequestOptions): string {
    const cluster = this.getCurrentCluster();
    const hash = createHash('sha256');
    const parts = [
      cluster?.server,
      cluster?.proxyUrl,
      options.ca,
      options.cert,
      options.key,
      options.pfx,
      options.passphrase,
      options.servername,
      String(options.rejectUnauthorized),
    ];
    for (const part of parts) {
      const bytes = Buffer.isBuffer(part) ? part : Buffer.from(JSON.stringify(part ?? null));
      hash.update(`${bytes.length}:`).update(bytes);
    }
    return hash.digest('hex');
  }
}

/**
 * Disables HTTP/2 for a dispatcher. With HTTP/2 all requests share one connection. If that connection is dead, a request that times out
 * leaves it in the pool for the next request. With HTTP/1.1 such a request closes its own connection.
 */
function http1Only(dispatcher: Dispatcher | undefined): Dispatcher | undefined {
  // undici's types of dispatch options do not have this option, but its Agent reads it.
  const http1 = { allowH2: false };
  return dispatcher?.compose((dispatch) => (options, handler) => dispatch({ ...options, ...http1 }, handler));
}

/** Returns a configuration for the same server that sends no credentials, not even a client certificate, which would win over a token. */
export function withoutCredentials(kubeConfig: KubeConfig): PooledKubeConfig {
  const cluster = kubeConfig.getCurrentCluster();
  const bare = new PooledKubeConfig();
  if (cluster) bare.loadFromClusterAndUser(cluster, { name: 'none' });
  bare.proxy = kubeConfig instanceof PooledKubeConfig ? kubeConfig.proxy : undefined;
  return bare;
}

export interface LoadedKubeConfig {
  kubeConfig: PooledKubeConfig;
  /** The source of the credentials, for the log. */
  source: string;
  /** The namespace of the current context; undefined if it has none. */
  namespace: string | undefined;
}

export interface LoadOptions {
  /** The value of `--kubeconfig`. */
  path?: string | undefined;
  env: Readonly<Record<string, string | undefined>>;
  /** The home directory of the user; default: that of the process. */
  home?: string;
  /** The proxy for the address of a server; `proxy-url` of a kubeconfig file takes precedence, as in client-go. Default: none. */
  proxyFor?: ProxyFor;
}

/**
 * Loads credentials from the first of: the given file, `KUBECONFIG`, `~/.kube/config`, the service account of the Pod.
 * @throws Error if a file cannot be read, if the current context has no cluster, or if there is no file and the process does not run in a Pod
 */
export function loadKubeConfig(options: LoadOptions): LoadedKubeConfig {
  const loaded = loadCredentials(options);
  const { kubeConfig } = loaded;
  const current = kubeConfig.getCurrentCluster();
  if (current === null) return loaded;
  const { proxyUrl, server } = current;
  kubeConfig.proxy =
    proxyUrl === undefined ? options.proxyFor?.(server) : { url: proxyUrl, variable: 'proxy-url in the kubeconfig' };
  const { proxy } = kubeConfig;
  if (proxy)
    kubeConfig.clusters = kubeConfig.clusters.map((cluster) =>
      cluster === current ? { ...cluster, proxyUrl: proxy.url } : cluster,
    );
  return loaded;
}

function loadCredentials({ path, env, home = homedir() }: LoadOptions): LoadedKubeConfig {
  const kubeConfig = new PooledKubeConfig();
  if (path !== undefined) {
    kubeConfig.loadFromFile(path);
    return checked(kubeConfig, path);
  }
  if ((env['KUBECONFIG'] ?? '') !== '') {
    kubeConfig.loadFromDefault();
    return checked(kubeConfig, 'KUBECONFIG');
  }
  const file = join(home, '.kube', 'config');
  if (existsSync(file)) {
    kubeConfig.loadFromFile(file);
    return checked(kubeConfig, file);
  }
  if ((env['KUBERNETES_SERVICE_HOST'] ?? '') === '') {
    throw new Error('no credentials for Kubernetes: give --kubeconfig, set KUBECONFIG, or run in a pod');
  }
  kubeConfig.loadFromCluster();
  return checked(kubeConfig, 'the service account of the pod');
}

function checked(kubeConfig: PooledKubeConfig, source: string): LoadedKubeConfig {
  if (kubeConfig.getCurrentCluster() === null) throw new Error(`${source}: no current context with a cluster`);
  const namespace = kubeConfig.getContextObject(kubeConfig.getCurrentContext())?.namespace;
  return { kubeConfig, source, namespace: namespace === '' ? undefined : namespace };
}
