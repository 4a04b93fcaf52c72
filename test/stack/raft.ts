/**
 * OpenBao or Vault as users run it: nodes with integrated (raft) storage on disk, as processes on loopback. Tests can
 * initialize, seal, unseal, kill and restart them.
 */
import { createHash } from 'node:crypto';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { makeServingCertificate } from './certificates.ts';
import { call, expectStatus } from './http.ts';
import { freePort, retryTakenPorts } from './ports.ts';
import { makeTemporaryDir, readLog, removeTemporaryDir, startProcess, type ManagedProcess } from './processes.ts';
import { ensureServer, type ServerFiles } from './servers.ts';
import type { Product, RunningServer } from './types.ts';
import { auditConfig, productTraits, vaultClient, type VaultFacts } from './vault.ts';
import { waitFor } from './wait.ts';

/** The status that a node reports; `gone`: it does not answer. */
type NodeState = 'active' | 'standby' | 'sealed' | 'uninitialized' | 'gone';

export interface RaftNode {
  readonly name: string;
  readonly port: number;
  state(): Promise<NodeState>;
  /** Kills its process at once, like a crash of the machine. */
  kill(): Promise<void>;
  /** Starts it with its existing storage; it starts sealed. */
  start(): Promise<void>;
  unseal(): Promise<void>;
}

export interface RaftCluster extends RunningServer {
  readonly product: Product;
  readonly nodes: readonly RaftNode[];
  readonly caPem: string;
  /** Initializes the first node, unseals all nodes, and waits until they are voters. */
  initialize(): Promise<void>;
  /** Waits for an active node and returns it. */
  active(): Promise<RaftNode>;
  /** The data that clients need after the initialization, except the address: that of a node, or of a Service in front of the nodes. */
  facts(address: string): VaultFacts;
}

interface Settings {
  product: Product;
  files: ServerFiles;
  dir: string;
  ports: readonly number[];
  certificate: { caPem: string; certFile: string; keyFile: string };
}

const addressOf = (port: number): string => `https://127.0.0.1:${port}`;
const auditLogOf = (dir: string): string => join(dir, 'audit.log');

/** @param port of the node itself; the next one is for its cluster */
function nodeConfig({ product, files, dir, ports, certificate }: Settings, port: number): string {
  const text = (value: string): string => JSON.stringify(value);
  const joins = ports
    .filter((other) => other !== port)
    .map(
      (other) =>
        `  retry_join {\n    leader_api_addr = ${text(addressOf(other))}\n    leader_ca_cert_file = ${text(join(dir, 'ca.pem'))}\n  }\n`,
    );
  return [
    // The multiplier that HashiCorp recommends for production: the cluster notices a lost leader within seconds.
    `storage "raft" {\n  path = ${text(join(dir, `data-${port}`))}\n  node_id = "node-${port}"\n  performance_multiplier = "1"\n${joins.join('')}}`,
    `listener "tcp" {\n  address = "127.0.0.1:${port}"\n  cluster_address = "127.0.0.1:${port + 1}"\n  tls_cert_file = ${text(certificate.certFile)}\n  tls_key_file = ${text(certificate.keyFile)}\n}`,
    `api_addr = ${text(addressOf(port))}\ncluster_addr = ${text(addressOf(port + 1))}`,
    product === 'OpenBao' ? auditConfig(auditLogOf(dir)) : 'disable_mlock = true',
    files.plugins === undefined ? '' : `plugin_directory = ${text(files.plugins)}`,
  ].join('\n');
}

async function stateOf(port: number, caPem: string): Promise<NodeState> {
  const answer = await call(`${addressOf(port)}/v1/sys/health`, { ca: caPem, timeoutMs: 5_000 }).catch(() => undefined);
  const states: Record<number, NodeState> = { 200: 'active', 429: 'standby', 501: 'uninitialized', 503: 'sealed' };
  return states[answer?.status ?? 0] ?? 'gone';
}

/** One node, not started yet. @param unsealKey defined after the initialization of the cluster */
function makeNode(settings: Settings, port: number, unsealKey: () => string): RaftNode & RunningServer {
  const { product, files, dir, certificate } = settings;
  const name = `node-${port}`;
  const logPath = join(dir, `${name}.log`);
  const state = (): Promise<NodeState> => stateOf(port, certificate.caPem);
  let child: ManagedProcess | undefined;
  return {
    name,
    port,
    state,
    log: () => readLog(logPath),
    start: async () => {
      await mkdir(join(dir, `data-${port}`), { recursive: true, mode: 0o700 });
      await writeFile(join(dir, `${name}.hcl`), nodeConfig(settings, port), { mode: 0o600 });
      child = startProcess({
        name: `${product} ${name}`,
        command: files.binary,
        args: ['server', `-config=${join(dir, `${name}.hcl`)}`],
        // TMPDIR too: if the node is killed, sockets of plugins remain
        env: { HOME: dir, TMPDIR: dir },
        cwd: dir,
        logPath,
      });
      await waitFor(`${name} to answer`, async () => (await state()) !== 'gone', { process: child });
    },
    kill: async () => {
      if (child === undefined || child.ended() !== undefined) return;
      process.kill(-child.pid, 'SIGKILL');
      await child.exited;
    },
    unseal: async () => {
      // while the node joins the cluster, it answers that there is nothing to unseal
      const process = child === undefined ? {} : { process: child };
      const unsealed = async (): Promise<boolean> => {
        await call(`${addressOf(port)}/v1/sys/unseal`, {
          method: 'PUT',
          ca: certificate.caPem,
          body: { key: unsealKey() },
        });
        return ['active', 'standby'].includes(await state());
      };
      await waitFor(`${name} to be unsealed`, unsealed, { ...process, intervalMs: 200, timeoutMs: 60_000 });
    },
    stop: async () => {
      await child?.stop();
    },
  };
}

/** Registers the Kubernetes auth method in the plugin catalog: the Vault build here contains it only as a plugin. */
async function registerPlugin(facts: VaultFacts, files: ServerFiles): Promise<void> {
  if (files.plugins === undefined) return;
  const sha256 = createHash('sha256')
    .update(await readFile(join(files.plugins, 'kubernetes')))
    .digest('hex');
  const answer = await vaultClient(facts).request('PUT', 'sys/plugins/catalog/auth/kubernetes', {
    sha256,
    command: 'kubernetes',
  });
  expectStatus(answer, [200, 204], 'register the Kubernetes auth method');
}

/**
 * Starts the nodes, not yet initialized, with TLS for 127.0.0.1 and one audit log for all.
 * @throws if they are not available or do not answer; the message contains the end of the log
 */
export async function startRaft(product: Product, count: number): Promise<RaftCluster> {
  const files = await ensureServer(productTraits[product].server);
  const dir = makeTemporaryDir('raft');
  const certificate = await makeServingCertificate(dir, ['127.0.0.1', 'localhost']);
  let keys = { unseal: '', rootToken: '', version: '' };
  let nodes: (RaftNode & RunningServer)[] = [];
  const stop = async (): Promise<void> => {
    await Promise.all(nodes.map((node) => node.stop()));
    removeTemporaryDir(dir);
  };
  try {
    await retryTakenPorts(async () => {
      await Promise.all(nodes.map((node) => node.stop()));
      const ports = await Promise.all(Array.from({ length: count }, () => freePort(2)));
      const settings: Settings = { product, files, dir, ports, certificate };
      nodes = ports.map((port) => makeNode(settings, port, () => keys.unseal));
      await Promise.all(nodes.map((node) => node.start()));
    });
  } catch (error) {
    await stop();
    throw error;
  }
  const log = (): string => nodes.map((node) => node.log()).join('');
  const active = (): Promise<RaftNode> =>
    waitFor(
      `a node of ${product} to lead`,
      async () => {
        const states = await Promise.all(nodes.map((node) => node.state()));
        return nodes[states.indexOf('active')];
      },
      { log },
    );
  const facts = (address: string): VaultFacts => ({
    mode: 'processes',
    product,
    version: keys.version,
    address,
    caPem: certificate.caPem,
    rootToken: keys.rootToken,
    unsealKey: keys.unseal,
    auditLog: auditLogOf(dir),
    agentBinary: files.binary,
    logPath: join(dir, `${nodes[0]?.name ?? ''}.log`),
  });
  const initialize = async (): Promise<void> => {
    const [first] = nodes;
    if (first === undefined) throw new Error('a cluster without nodes');
    const init = await call(`${addressOf(first.port)}/v1/sys/init`, {
      method: 'PUT',
      ca: certificate.caPem,
      body: { secret_shares: 1, secret_threshold: 1 },
    });
    const made = expectStatus(init, [200], `initialize ${product}`) as { keys_base64: [string]; root_token: string };
    keys = { unseal: made.keys_base64[0], rootToken: made.root_token, version: '' };
    await first.unseal();
    await waitFor('the first node to lead', async () => (await first.state()) === 'active', { log });
    const client = vaultClient(facts(addressOf(first.port)));
    // otherwise a new node waits ten seconds to become a voter
    const autopilot = { server_stabilization_time: '1s' };
    await client.request('POST', 'sys/storage/raft/autopilot/configuration', autopilot);
    await Promise.all(nodes.slice(1).map((node) => node.unseal()));
    await waitFor(
      'all nodes to vote',
      async () => {
        const body = (await client.request('GET', 'sys/storage/raft/configuration')).body as {
          data?: { config: { servers: { voter: boolean }[] } };
        };
        return body.data?.config.servers.filter((server) => server.voter).length === count;
      },
      { log, timeoutMs: 60_000 },
    );
    keys.version = ((await client.request('GET', 'sys/health')).body as { version: string }).version;
    if (!productTraits[product].auditByConfig) {
      const body = { type: 'file', options: { file_path: auditLogOf(dir) } };
      expectStatus(await client.request('PUT', 'sys/audit/to-file', body), [200, 204], 'enable the audit device');
    }
    await registerPlugin(facts(addressOf(first.port)), files);
  };
  return { product, nodes, caPem: certificate.caPem, initialize, active, facts, log, stop };
}
