/**
 * client-node's KubeConfig with one connection pool. As published it makes an undici Agent, and so a TLS connection,
 * for each request (kubernetes-client/javascript#2893).
 */
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import type { RequestOptions } from 'node:https';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { KubeConfig, type RequestContext } from '@kubernetes/client-node';

type Dispatcher = Parameters<RequestContext['setDispatcher']>[0];

export class PooledKubeConfig extends KubeConfig {
  #pool: { fingerprint: string; dispatcher: Dispatcher | undefined } | undefined;

  /**
   * Gives the request its credentials and the shared pool. Tokens are read anew as client-node does it; the pool is
   * replaced when the CA, the client certificate or the server change, and the old one closes its idle connections.
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
 * With HTTP/2 everything shares one connection, and a request that times out on a dead one leaves it in the pool for
 * the next. With HTTP/1.1 it takes its connection along.
 */
function http1Only(dispatcher: Dispatcher | undefined): Dispatcher | undefined {
  // undici's types do not name the option, its Agent reads it.
  const http1 = { allowH2: false };
  return dispatcher?.compose((dispatch) => (options, handler) => dispatch({ ...options, ...http1 }, handler));
}

/** Where the credentials were found, for the log. */
export interface LoadedKubeConfig {
  kubeConfig: PooledKubeConfig;
  source: string;
  /** Of the current context. */
  namespace: string | undefined;
}

export interface LoadOptions {
  /** `--kubeconfig`. */
  path?: string | undefined;
  env: Readonly<Record<string, string | undefined>>;
  /** The user's home directory; the process's unless given. */
  home?: string;
}

/**
 * Loads credentials: the given file, else `KUBECONFIG`, else `~/.kube/config`, else the pod's service account.
 * @throws Error when a named file cannot be read, or when there is none and this is no pod
 */
export function loadKubeConfig(options: LoadOptions): LoadedKubeConfig {
  const kubeConfig = new PooledKubeConfig();
  const { path, env, home = homedir() } = options;
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
