/**
 * The stack in containers, with testcontainers. The Docker daemon must run on this machine: servers listen on
 * ports of 127.0.0.1, and share their logs and certificates through a folder.
 */
import { randomBytes } from 'node:crypto';
import { appendFileSync, chmodSync, existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import type { StartedNetwork, StartedTestContainer, TestContainer } from 'testcontainers';
import { startDockerd } from './dockerd.ts';
import { call } from './http.ts';
import {
  haveImage,
  imageNames,
  imageReference,
  images,
  makeImage,
  pluginsLabel,
  pullImage,
  type ImageName,
} from './images.ts';
import { kubeApiserverArgs, kubeClient, kubeFileNames, makeKubeFiles, waitForKube, type KubeFacts } from './kube.ts';
import { freePort } from './ports.ts';
import { makeTemporaryDir, removeTemporaryDir } from './processes.ts';
import { ensureServer, haveServer, serverFiles } from './servers.ts';
import type { OwnedStack } from './shared.ts';
import type { KubeServer, Product, VaultServer } from './types.ts';
import { auditConfig, finishVaultStart, productTraits, vaultClient, type VaultFacts } from './vault.ts';

export interface AvailabilityOptions {
  /** If the daemon or images are missing, starts and builds them instead of reporting it; default true. */
  readonly prepare?: boolean;
  readonly onProgress?: (line: string) => void;
}

export interface Availability {
  readonly available: boolean;
  /** One line: the reason why containers are not available, or what they run on. */
  readonly reason: string;
}

/** Loads testcontainers only when needed: it loads slowly, and process mode does not use it. */
const load = () => import('testcontainers');

const message = (error: unknown): string => (error instanceof Error ? error.message : String(error));

/** Whether the environment names a Docker daemon, or one answers at a usual socket. */
async function daemonMayAnswer(): Promise<boolean> {
  if (process.env['DOCKER_HOST'] !== undefined || existsSync(join(homedir(), '.testcontainers.properties')))
    return true;
  const runtimeDir = process.env['XDG_RUNTIME_DIR'];
  const sockets = [
    '/var/run/docker.sock',
    ...(runtimeDir === undefined ? [] : [join(runtimeDir, '.docker/run/docker.sock'), join(runtimeDir, 'docker.sock')]),
    ...['.docker/run/docker.sock', '.docker/desktop/docker.sock'].map((path) => join(homedir(), path)),
  ];
  for (const socketPath of sockets.filter((path) => existsSync(path))) {
    try {
      if ((await call('http://localhost/_ping', { socketPath, timeoutMs: 5000 })).status === 200) return true;
    } catch {
      // A socket without a server.
    }
  }
  return false;
}

/**
 * Checks whether the stack can run in containers. With `prepare`, provides what is missing: starts a Docker daemon if
 * none answers (see dockerd.ts), pulls the images, and builds those that cannot be pulled (see images.ts).
 */
export async function containersAvailable(options: AvailabilityOptions = {}): Promise<Availability> {
  const { prepare = true, onProgress = (line: string): void => console.error(line) } = options;
  // Before testcontainers searches for a daemon, because it caches the result.
  if (!(await daemonMayAnswer())) {
    if (!prepare) return { available: false, reason: 'no Docker daemon answers' };
    try {
      process.env['DOCKER_HOST'] = (await startDockerd(onProgress)).host;
    } catch (error) {
      return { available: false, reason: message(error) };
    }
    // Inside a container testcontainers would use the address of the bridge, but this daemon runs in the same container.
    process.env['TESTCONTAINERS_HOST_OVERRIDE'] ??= '127.0.0.1';
  }
  const { getContainerRuntimeClient } = await load();
  let client;
  try {
    client = await getContainerRuntimeClient();
  } catch (error) {
    return { available: false, reason: `no Docker daemon answers: ${message(error)}` };
  }
  const { host } = client.info.containerRuntime;
  if (!['localhost', '127.0.0.1'].includes(host)) {
    return { available: false, reason: `the Docker daemon is at ${host}, not on this machine` };
  }
  const docker = client.container.dockerode;
  const made: string[] = [];
  let canPull = true;
  for (const name of imageNames) {
    const reference = imageReference(name);
    if (await haveImage(docker, reference)) continue;
    if (canPull) {
      onProgress(`pulling ${reference} …`);
      // If one image cannot be pulled, the others are not tried.
      canPull = await pullImage(docker, reference);
      if (canPull) continue;
    }
    if (!prepare) return { available: false, reason: `the image ${reference} can not be pulled` };
    if (process.env[images[name].variable] !== undefined) {
      return { available: false, reason: `the image ${reference} (${images[name].variable}) can not be pulled` };
    }
    try {
      await makeImage(docker, name, onProgress);
    } catch (error) {
      return { available: false, reason: `image ${reference}: ${message(error)}` };
    }
    made.push(name);
  }
  // Ryuk removes containers whose owner has died; without its image, only `stop` removes them.
  const ryuk = process.env['RYUK_CONTAINER_IMAGE'] ?? 'testcontainers/ryuk:0.14.0';
  if (!(await haveImage(docker, ryuk)) && !(canPull && (await pullImage(docker, ryuk)))) {
    process.env['TESTCONTAINERS_RYUK_DISABLED'] = 'true';
  }
  const source = made.length === 0 ? 'images by their public names' : `images made here for ${made.join(', ')}`;
  return { available: true, reason: `Docker daemon on this machine, ${source}` };
}

/** The path of the shared folder inside the containers. */
const inside = '/stack';

interface Part {
  stop(): Promise<unknown>;
}

/**
 * Prepares one container: the program of the image, as the current user, with a folder of its own, its output
 * appended to a log file there.
 */
async function container(
  name: ImageName,
  network: StartedNetwork,
  alias: string,
  dir: string,
  port: { readonly container: number; readonly host: number },
  args: readonly string[],
): Promise<{ prepared: TestContainer; logPath: string }> {
  const { GenericContainer } = await load();
  const logPath = join(dir, `${name}.log`);
  writeFileSync(logPath, '', { mode: 0o600 });
  // The entrypoints of the public images differ, and some change the user.
  const prepared = new GenericContainer(imageReference(name))
    .withEntrypoint([images[name].program])
    .withCommand([...args])
    .withNetwork(network)
    .withNetworkAliases(alias)
    .withExposedPorts(port)
    .withBindMounts([{ source: dir, target: inside, mode: 'z' }])
    .withWorkingDir(inside)
    .withLogConsumer((stream: Readable) => {
      stream.on('data', (chunk: Buffer | string) => appendFileSync(logPath, chunk.toString().replace(/\n?$/, '\n')));
    });
  const [uid, gid] = [process.getuid?.(), process.getgid?.()];
  if (uid !== undefined && gid !== undefined) prepared.withUser(`${uid}:${gid}`);
  return { prepared, logPath };
}

async function startKube(
  network: StartedNetwork,
  dir: string,
  parts: Part[],
): Promise<KubeServer & { readonly facts: KubeFacts }> {
  const { Wait } = await load();
  const etcdPort = await freePort();
  const etcdUrl = 'http://etcd:2379';
  mkdirSync(join(dir, 'etcd'), { mode: 0o700 });
  const etcd = await container('etcd', network, 'etcd', join(dir, 'etcd'), { container: 2379, host: etcdPort }, [
    ...['--name=default', `--data-dir=${inside}/data`, '--unsafe-no-fsync', '--log-level=warn'],
    ...['--listen-client-urls=http://0.0.0.0:2379', `--advertise-client-urls=${etcdUrl}`],
  ]);
  parts.push(await etcd.prepared.withWaitStrategy(Wait.forHttp('/health', 2379)).start());

  const port = await freePort();
  const url = `https://127.0.0.1:${port}`;
  const alias = 'kubernetes.default.svc';
  const files = await makeKubeFiles(dir, ['127.0.0.1', 'localhost', alias], url);
  const apiserver = await container('kube-apiserver', network, alias, dir, { container: 6443, host: port }, [
    ...kubeApiserverArgs(inside, etcdUrl, '0.0.0.0', 6443),
  ]);
  const running = await apiserver.prepared.withWaitStrategy(Wait.forLogMessage(/Serving securely/)).start();
  parts.push(running);
  const facts: KubeFacts = {
    url,
    inClusterUrl: `https://${alias}:6443`,
    caPem: files.serving.caPem,
    adminKubeconfig: files.adminKubeconfig,
    adminToken: files.adminToken,
    auditLog: join(dir, kubeFileNames.auditLog),
    logs: [apiserver.logPath],
    dir,
  };
  await waitForKube(facts);
  return {
    ...kubeClient(facts),
    facts,
    stop: async () => {
      await running.stop();
    },
    restart: async () => {
      await running.restart({ timeout: 2000 });
      await waitForKube(facts);
    },
  };
}

async function startVault(
  product: Product,
  network: StartedNetwork,
  dir: string,
  parts: Part[],
): Promise<VaultServer & { readonly facts: VaultFacts }> {
  const { getContainerRuntimeClient, Wait } = await load();
  const traits = productTraits[product];
  const name = traits.server as ImageName;
  const docker = (await getContainerRuntimeClient()).container.dockerode;
  const labels = (await docker.getImage(imageReference(name)).inspect()).Config.Labels as Record<string, string> | null;
  const plugins = labels?.[pluginsLabel];
  const port = await freePort();
  const rootToken = randomBytes(16).toString('hex');
  await writeFile(join(dir, 'audit.hcl'), auditConfig(`${inside}/audit.log`));
  const { prepared, logPath } = await container(name, network, traits.binary, dir, { container: 8200, host: port }, [
    ...['server', '-dev', '-dev-no-store-token', '-dev-listen-address=0.0.0.0:8200'],
    ...['-dev-tls', `-dev-tls-cert-dir=${inside}`],
    ...(traits.auditByConfig ? [`-config=${inside}/audit.hcl`] : []),
    ...(plugins === undefined ? [] : [`-dev-plugin-dir=${plugins}`]),
  ]);
  const running = await prepared
    .withEnvironment({ HOME: inside, [`${traits.envPrefix}_DEV_ROOT_TOKEN_ID`]: rootToken })
    // The program of the public image can have this capability as a file attribute, and then does not start without it.
    .withAddedCapabilities('IPC_LOCK')
    .withWaitStrategy(Wait.forLogMessage(/Unseal Key: /))
    .start();
  parts.push(running);
  const agentBinary = await agentBinaryOf(product, running, dir);
  const facts = await finishVaultStart(
    {
      mode: 'containers',
      product,
      address: `https://127.0.0.1:${port}`,
      rootToken,
      auditLog: join(dir, 'audit.log'),
      agentBinary,
      logPath,
    },
    join(dir, 'vault-ca.pem'),
    `${inside}/audit.log`,
    {},
  );
  return {
    ...vaultClient(facts),
    facts,
    stop: async () => {
      await running.stop();
    },
  };
}

/** Agents run as processes in container mode too: with the cached binary, or else with the binary of the image. */
async function agentBinaryOf(product: Product, running: StartedTestContainer, dir: string): Promise<string> {
  const { server, binary } = productTraits[product];
  if (haveServer(server)) return serverFiles(server).binary;
  if (process.platform !== 'linux') return (await ensureServer(server)).binary;
  const path = join(dir, binary);
  const archive = await running.copyArchiveFromContainer(images[server as ImageName].program);
  const chunks: Buffer[] = [];
  for await (const chunk of archive) chunks.push(chunk as Buffer);
  const tar = Buffer.concat(chunks);
  // One member, whose size is in its header, in octal.
  const size = parseInt(tar.toString('ascii', 124, 135), 8);
  await writeFile(path, tar.subarray(512, 512 + size));
  chmodSync(path, 0o755);
  return path;
}

/**
 * Starts the stack in containers. `containersAvailable` must have returned that it can run.
 * @throws with the log of the server that did not start; nothing is left running
 */
export async function startContainerStack(): Promise<OwnedStack> {
  const { Network } = await load();
  const dir = makeTemporaryDir('stack');
  const sub = (name: string): string => {
    const path = join(dir, name);
    mkdirSync(path, { mode: 0o700 });
    return path;
  };
  const network = await new Network().start();
  const parts: Part[] = [];
  const stop = async (): Promise<void> => {
    await Promise.all(parts.splice(0).map((part) => part.stop()));
    await network.stop();
    removeTemporaryDir(dir);
  };
  const started = await Promise.allSettled([
    startKube(network, sub('kube'), parts),
    startVault('OpenBao', network, sub('openbao'), parts),
    startVault('Vault', network, sub('vault'), parts),
  ]);
  const [kube, bao, vault] = started;
  if (kube.status === 'rejected' || bao.status === 'rejected' || vault.status === 'rejected') {
    await stop();
    throw started.find((one) => one.status === 'rejected')?.reason;
  }
  return {
    mode: 'containers',
    kube: kube.value,
    vaults: { OpenBao: bao.value, Vault: vault.value },
    dir,
    stop,
    kubeFacts: kube.value.facts,
    vaultFacts: { OpenBao: bao.value.facts, Vault: vault.value.facts },
  };
}
