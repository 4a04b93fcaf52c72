import { randomBytes } from 'node:crypto';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { call, expectStatus } from './http.ts';
import { createNamespace, requestToken } from './kube.ts';
import { freePort, retryTakenPorts } from './ports.ts';
import {
  leanEnv,
  makeTemporaryDir,
  readLog,
  removeTemporaryDir,
  startProcess,
  type ManagedProcess,
} from './processes.ts';
import type { VersionedServer } from './builds/versions.ts';
import { ensureServer } from './servers.ts';
import type { Answer, KubeServer, Product, StackMode, VaultServer } from './types.ts';
import { waitFor, type WaitOptions } from './wait.ts';

export interface VaultOptions {
  /** Serves TLS with a certificate for 127.0.0.1; default: true. */
  readonly tls?: boolean;
  /** `<address>:<port>` to listen at; default: 127.0.0.1 and a free port. The next port must be free too. */
  readonly devListen?: string;
  /** Folder for its files; default: a temporary one, which is removed at the end. */
  readonly dir?: string;
  /** A further configuration file in HCL, for example with another listener. */
  readonly config?: string;
  /** For very many requests: no audit device, and memory rather than garbage collection. */
  readonly lean?: boolean;
}

/** The data that a client of a running server needs; plain data, so that another process can use it. */
export interface VaultFacts {
  readonly mode: StackMode;
  readonly product: Product;
  readonly version: string;
  readonly address: string;
  readonly caPem?: string;
  readonly rootToken: string;
  readonly unsealKey: string;
  readonly auditLog: string;
  readonly agentBinary: string;
  readonly logPath: string;
}

/** The differences between the two products in starting a dev server. */
export const productTraits: Readonly<
  Record<Product, { server: VersionedServer; binary: string; envPrefix: string; auditByConfig: boolean }>
> = {
  OpenBao: { server: 'openbao', binary: 'bao', envPrefix: 'BAO', auditByConfig: true },
  Vault: { server: 'vault', binary: 'vault', envPrefix: 'VAULT', auditByConfig: false },
};

/** The configuration of OpenBao's audit device, which OpenBao does not accept through the API. */
export const auditConfig = (path: string): string =>
  `audit "file" "to-file" {\n  options {\n    file_path = ${JSON.stringify(path)}\n  }\n}\n`;

/** A server, and what only its owner can do. */
export interface StartedVault extends VaultServer {
  readonly facts: VaultFacts;
  /** Has it read the certificates of its listeners again. Vault in dev mode does not survive that. */
  reload(): void;
}

/** The part of the interface that needs only the facts. */
export function vaultClient(facts: VaultFacts): Omit<VaultServer, 'stop'> {
  const request = (method: string, path: string, body?: unknown, token = facts.rootToken): Promise<Answer> =>
    call(`${facts.address}/v1/${path}`, {
      method,
      ca: facts.caPem,
      headers: { 'x-vault-token': token, 'x-vault-request': 'true', 'content-type': 'application/json' },
      body,
    });
  const log = (): string => readLog(facts.logPath);
  return {
    mode: facts.mode,
    product: facts.product,
    version: facts.version,
    address: facts.address,
    caPem: facts.caPem,
    rootToken: facts.rootToken,
    auditLog: facts.auditLog,
    agentBinary: facts.agentBinary,
    log,
    request,
    seal: async () => {
      expectStatus(await request('PUT', 'sys/seal'), [200, 204], `seal ${facts.product}`);
      await waitFor(`${facts.product} to be sealed`, async () => (await request('GET', 'sys/health')).status === 503, {
        log,
      });
    },
    unseal: async () => {
      expectStatus(await request('PUT', 'sys/unseal', { key: facts.unsealKey }), [200], `unseal ${facts.product}`);
      await waitForVault(facts, { log });
    },
  };
}

async function waitForVault(
  facts: Pick<VaultFacts, 'product' | 'address' | 'caPem' | 'rootToken'>,
  options: WaitOptions,
): Promise<void> {
  const get = (path: string) =>
    call(`${facts.address}/v1/${path}`, { ca: facts.caPem, headers: { 'x-vault-token': facts.rootToken } });
  // A new KV version 2 answers 400 until its upgrade is finished, and 404 until dev mode has mounted it.
  for (const path of ['sys/health', 'secret/config']) {
    await waitFor(`${facts.product} to answer ${path} with 200`, async () => (await get(path)).status === 200, options);
  }
}

/**
 * The common part for a process and a container after the start of the server: waits for its CA, the unseal key that it
 * prints, and its readiness, and enables the audit device if the API allows it.
 * @param auditLog its path for the server; undefined: no audit device
 */
export async function finishVaultStart(
  facts: Omit<VaultFacts, 'unsealKey' | 'caPem' | 'version'>,
  caFile: string | undefined,
  auditLog: string | undefined,
  options: WaitOptions,
): Promise<VaultFacts> {
  const log = (): string => readLog(facts.logPath);
  const unsealKey = await waitFor(
    `${facts.product} to print its unseal key`,
    () => /Unseal Key: (\S+)/.exec(log())?.[1],
    options,
  );
  const started: VaultFacts = {
    ...facts,
    version: '',
    unsealKey,
    ...(caFile === undefined ? {} : { caPem: await readFile(caFile, 'utf8') }),
  };
  await waitForVault(started, options);
  const health = await vaultClient(started).request('GET', 'sys/health');
  const full = { ...started, version: (health.body as { version: string }).version };
  if (auditLog !== undefined && !productTraits[facts.product].auditByConfig) {
    const body = { type: 'file', options: { file_path: auditLog } };
    expectStatus(
      await vaultClient(full).request('PUT', 'sys/audit/to-file', body),
      [200, 204],
      `enable the audit device of ${facts.product}`,
    );
  }
  return full;
}

/**
 * Starts OpenBao or Vault in dev mode as a process on loopback: in memory, unsealed, with a random root token, a file
 * audit device, and TLS unless told otherwise. The Kubernetes auth method can be enabled on both.
 * @throws if it is not available or does not become ready; the message contains the end of its log
 */
export async function startVault(product: Product, options: VaultOptions = {}): Promise<StartedVault> {
  const traits = productTraits[product];
  const files = await ensureServer(traits.server);
  const dir = options.dir ?? makeTemporaryDir(traits.binary);
  await mkdir(dir, { recursive: true, mode: 0o700 });
  const { tls = true, lean = false } = options;
  let child: ManagedProcess | undefined;
  const stop = async (): Promise<void> => {
    await child?.stop();
    if (options.dir === undefined) removeTemporaryDir(dir);
  };
  try {
    return await retryTakenPorts(async () => {
      await child?.stop();
      // Its cluster port is the port after its API port.
      const listen = options.devListen ?? `127.0.0.1:${await freePort(2)}`;
      const rootToken = randomBytes(16).toString('hex');
      const auditLog = join(dir, 'audit.log');
      const logPath = join(dir, `${traits.binary}-${listen.replace(/.*:/, '')}.log`);
      await writeFile(join(dir, 'audit.hcl'), auditConfig(auditLog));
      if (options.config !== undefined) await writeFile(join(dir, 'more.hcl'), options.config);
      child = startProcess({
        name: product,
        command: files.binary,
        args: [
          ...['server', '-dev', '-dev-no-store-token', `-dev-listen-address=${listen}`],
          ...(tls ? ['-dev-tls', `-dev-tls-cert-dir=${dir}`] : []),
          ...(traits.auditByConfig && !lean ? [`-config=${join(dir, 'audit.hcl')}`] : []),
          ...(options.config === undefined ? [] : [`-config=${join(dir, 'more.hcl')}`]),
          ...(files.plugins === undefined ? [] : [`-dev-plugin-dir=${files.plugins}`]),
        ],
        // In the environment and not in the arguments, which other users can read.
        env: {
          HOME: dir,
          [`${traits.envPrefix}_DEV_ROOT_TOKEN_ID`]: rootToken,
          ...(lean ? leanEnv : {}),
        },
        cwd: dir,
        logPath,
      });
      const facts = await finishVaultStart(
        {
          mode: 'processes',
          product,
          address: `${tls ? 'https' : 'http'}://${listen}`,
          rootToken,
          auditLog,
          agentBinary: files.binary,
          logPath,
        },
        tls ? join(dir, 'vault-ca.pem') : undefined,
        lean ? undefined : auditLog,
        { process: child },
      );
      const { pid } = child;
      return { ...vaultClient(facts), facts, stop, reload: () => process.kill(pid, 'SIGHUP') };
    });
  } catch (error) {
    await stop();
    throw error;
  }
}

/**
 * Enables the Kubernetes auth method at a mount and points it at the API server, with a reviewer of its own: the
 * ServiceAccount `vault-reviewer` in namespace `vault`, bound to ClusterRole `system:auth-delegator`, by a token of
 * one day.
 * @throws if the mount already exists
 */
export async function enableKubernetesAuth(
  vault: Pick<VaultServer, 'request' | 'mode'>,
  kube: Pick<KubeServer, 'request' | 'url' | 'inClusterUrl' | 'caPem'>,
  mount = 'kubernetes',
): Promise<void> {
  await createNamespace(kube, 'vault');
  const reviewer = await requestToken(kube, 'vault', 'vault-reviewer', undefined, 86_400);
  const binding = await kube.request('POST', '/apis/rbac.authorization.k8s.io/v1/clusterrolebindings', {
    metadata: { name: 'vault-reviewer' },
    roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: 'system:auth-delegator' },
    subjects: [{ kind: 'ServiceAccount', namespace: 'vault', name: 'vault-reviewer' }],
  });
  expectStatus(binding, [201, 409], 'bind vault-reviewer to system:auth-delegator');
  await waitFor('the API server to know the rights of vault-reviewer', async () => {
    const review = await kube.request('POST', '/apis/authorization.k8s.io/v1/subjectaccessreviews', {
      spec: {
        user: 'system:serviceaccount:vault:vault-reviewer',
        resourceAttributes: { group: 'authentication.k8s.io', resource: 'tokenreviews', verb: 'create' },
      },
    });
    return (review.body as { status?: { allowed?: boolean } }).status?.allowed === true;
  });
  expectStatus(
    await vault.request('POST', `sys/auth/${mount}`, { type: 'kubernetes' }),
    [200, 204],
    `enable auth method ${mount}`,
  );
  const config = await vault.request('POST', `auth/${mount}/config`, {
    kubernetes_host: vault.mode === 'containers' ? kube.inClusterUrl : kube.url,
    kubernetes_ca_cert: kube.caPem,
    token_reviewer_jwt: reviewer,
    disable_local_ca_jwt: true,
  });
  expectStatus(config, [200, 204], `configure auth method ${mount}`);
}
