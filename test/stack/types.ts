/** The two servers that speak the Vault API. */
export type Product = 'OpenBao' | 'Vault';

export const products: readonly Product[] = ['OpenBao', 'Vault'];

/** How the servers run: as processes on loopback, or in containers. */
export type StackMode = 'processes' | 'containers';

/** Something that runs until it is stopped. */
export interface RunningServer {
  /** Everything it has written to its output so far. */
  readonly log: () => string;
  /** Stops it and waits for its end. Can be called twice. */
  stop(): Promise<void>;
}

/** An HTTP answer whose body is parsed JSON where it is JSON, and text where it is not. */
export interface Answer {
  readonly status: number;
  readonly body: unknown;
}

/** A Kubernetes API server with its etcd, and no controllers. */
export interface KubeServer extends RunningServer {
  /** `https://127.0.0.1:<port>`, the address for tests. */
  readonly url: string;
  /** The address for a Vault server of the same stack: equal to `url` in process mode. */
  readonly inClusterUrl: string;
  /** The CA of its serving certificate. */
  readonly caPem: string;
  /** Path of a kubeconfig with all rights (group `system:masters`). */
  readonly adminKubeconfig: string;
  /** Path of the audit log: one JSON event per line, level Metadata, stage ResponseComplete. */
  readonly auditLog: string;
  /** Writes a kubeconfig that authenticates with the given bearer token; returns its path. */
  kubeconfigWithToken(token: string, name: string): Promise<string>;
  /**
   * Makes one raw call as administrator. A string body is sent unchanged, anything else as JSON; the content type is
   * `application/json`, and `application/merge-patch+json` for PATCH, unless given. Never throws on a status.
   */
  request(method: string, path: string, body?: unknown, contentType?: string): Promise<Answer>;
  /** Stops and starts the API server on the same port; etcd, and so every object, stays. */
  restart(): Promise<void>;
}

/** A Vault or OpenBao server in dev mode: in memory, unsealed, with KV version 2 at `secret/`. */
export interface VaultServer extends RunningServer {
  /** Process or container: determines the address at which it reaches the API server. */
  readonly mode: StackMode;
  readonly product: Product;
  readonly version: string;
  /** `https://127.0.0.1:<port>`, or `http://…` when started without TLS. */
  readonly address: string;
  /** The CA of its serving certificate; absent without TLS. */
  readonly caPem: string | undefined;
  readonly rootToken: string;
  /** Path of the file audit device's log: one JSON entry per line. */
  readonly auditLog: string;
  /** The binary whose `agent` subcommand belongs to this server. */
  readonly agentBinary: string;
  /** One call; `path` without `/v1/`, token the root token unless given. Never throws on a status. */
  request(method: string, path: string, body?: unknown, token?: string): Promise<Answer>;
  seal(): Promise<void>;
  /** Unseals and waits until the server serves again. */
  unseal(): Promise<void>;
}

/** One API server and one server of each product. */
export interface Stack {
  readonly mode: StackMode;
  readonly kube: KubeServer;
  readonly vaults: Record<Product, VaultServer>;
  /** Folder of logs and kubeconfigs; removed at the end unless KEEP_STACK=1. */
  readonly dir: string;
  stop(): Promise<void>;
}
