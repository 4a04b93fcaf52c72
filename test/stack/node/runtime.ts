/**
 * A stand-in for the container runtime: a container is a process of this machine, in a folder of its own that has the
 * container's mounts as links.
 *
 * There are two images: istiod's, for a container named `discovery`, and the agent's, for one whose name begins with
 * `vault-agent`. Commands and arguments run as in the Pod, except where they need a mount or network namespace: absolute
 * paths under a mount, or in the environment, are replaced by paths in the folder. istiod listens only on the address of the
 * Pod, and uses a kubeconfig instead of the in-cluster configuration. A program does not find files at other absolute
 * paths. For istiod this affects only its own token, from which it would learn the issuer outside a cluster.
 */
import { mkdir, rm, symlink, writeFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { dirname, join, posix } from 'node:path';
import { agentEnv } from '../agent.ts';
import { tokenMount } from '../injection.ts';
import { mapPaths, mapStrings } from '../pod-paths.ts';
import { startProcess, type ManagedProcess } from '../processes.ts';
import type { KubeServer } from '../types.ts';
import type { Container, EnvVar, Pod } from './objects.ts';
import { entriesOf, fieldOf, type PodAddress } from './volumes.ts';

export interface Runtime {
  readonly kube: Pick<KubeServer, 'request' | 'url' | 'caPem'>;
  readonly istiod: string;
  /** Folder with the program `vault`. */
  readonly agentPath: string;
}

/** Why a container waits instead of running: a reason of Kubernetes and a message. */
export class CannotStart extends Error {
  readonly reason: string;

  constructor(reason: string, message: string) {
    super(message);
    this.reason = reason;
  }
}

export interface PodSandbox {
  readonly pod: Pod;
  readonly address: PodAddress;
  /** Folder of the Pod. */
  readonly dir: string;
  /** Folder by volume name. */
  readonly volumes: ReadonlyMap<string, string>;
}

/** The folders of a container's mounts, by mount path. */
export function mountsOf(sandbox: PodSandbox, container: Container): Map<string, string> {
  return new Map(
    (container.volumeMounts ?? []).map(({ name, mountPath, subPath }) => {
      if (subPath !== undefined)
        throw new CannotStart('CreateContainerConfigError', `subPath is not known: ${subPath}`);
      return [posix.normalize(mountPath), sandbox.volumes.get(name) ?? ''] as const;
    }),
  );
}

/** Creates the folder in place of a container's root, with its mounts as links. */
async function makeRoot(sandbox: PodSandbox, container: Container, mounts: Map<string, string>): Promise<string> {
  const root = join(sandbox.dir, 'containers', container.name, 'root');
  // shorter ones first: one can be within another
  for (const [path, folder] of [...mounts].sort(([a], [b]) => a.length - b.length)) {
    const link = join(root, path);
    await mkdir(dirname(link), { recursive: true, mode: 0o700 });
    await rm(link, { force: true, recursive: false });
    await symlink(folder, link);
  }
  await mkdir(root, { recursive: true, mode: 0o700 });
  return root;
}

async function valueOf(runtime: Runtime, { pod, address }: PodSandbox, env: EnvVar): Promise<string | undefined> {
  const { fieldRef, resourceFieldRef, configMapKeyRef, secretKeyRef } = env.valueFrom ?? {};
  if (fieldRef !== undefined) return fieldOf(pod, address, fieldRef.fieldPath);
  // without a limit, the capacity of the node applies
  if (resourceFieldRef?.resource === 'limits.cpu') return String(availableParallelism());
  const ref = configMapKeyRef ?? secretKeyRef;
  if (ref !== undefined) {
    const kind = configMapKeyRef === undefined ? 'secrets' : 'configmaps';
    const entries = await entriesOf(runtime.kube, pod.metadata.namespace, kind, ref.name, ref.optional);
    const value = entries?.get(ref.key)?.toString('utf8');
    if (value === undefined && ref.optional !== true)
      throw new Error(`couldn't find key ${ref.key} in ${kind} ${ref.name}`);
    return value;
  }
  if (env.valueFrom !== undefined) throw new Error(`unknown source of env ${env.name}`);
  return env.value ?? '';
}

async function environment(
  runtime: Runtime,
  sandbox: PodSandbox,
  container: Container,
): Promise<Record<string, string>> {
  const api = new URL(runtime.kube.url);
  // the kubelet adds the variables of the API server's Service, and the runtime the host name
  const env: Record<string, string> = {
    HOSTNAME: sandbox.pod.metadata.name,
    KUBERNETES_SERVICE_HOST: api.hostname,
    KUBERNETES_SERVICE_PORT: api.port,
  };
  for (const variable of container.env ?? []) {
    const value = await valueOf(runtime, sandbox, variable).catch((error: unknown) => {
      throw new CannotStart('CreateContainerConfigError', error instanceof Error ? error.message : String(error));
    });
    if (value !== undefined)
      env[variable.name] = value.replaceAll(/\$\((\w+)\)/g, (text, name: string) => env[name] ?? text);
  }
  return env;
}

interface Program {
  readonly command: readonly string[];
  readonly env: Readonly<Record<string, string>>;
}

/** istiod's image: its entrypoint, with the address to listen on and a kubeconfig. */
async function istiodProgram(
  runtime: Runtime,
  sandbox: PodSandbox,
  container: Container,
  mounts: ReadonlyMap<string, string>,
  env: Record<string, string>,
): Promise<Program> {
  const kubeconfig = join(sandbox.dir, 'containers', container.name, 'kubeconfig');
  const ca = Buffer.from(runtime.kube.caPem).toString('base64');
  await writeFile(
    kubeconfig,
    JSON.stringify({
      apiVersion: 'v1',
      kind: 'Config',
      clusters: [{ name: 'in-cluster', cluster: { server: runtime.kube.url, 'certificate-authority-data': ca } }],
      users: [{ name: 'pod', user: { tokenFile: join(mounts.get(tokenMount) ?? '/nonexistent', 'token') } }],
      contexts: [{ name: 'in-cluster', context: { cluster: 'in-cluster', user: 'pod' } }],
      'current-context': 'in-cluster',
    }),
    { mode: 0o600 },
  );
  const { podIP } = sandbox.address;
  const here = [
    `--kubeconfig=${kubeconfig}`,
    `--httpAddr=${podIP}:8080`,
    `--httpsAddr=${podIP}:15017`,
    `--grpcAddr=${podIP}:15010`,
    `--secureGRPCAddr=${podIP}:15012`,
    `--monitoringAddr=${podIP}:15014`,
    // its introspection port is on loopback, which all Pods share
    '--ctrlz_port=0',
    // there are no proxies, so it needs no ten seconds to drain connections
    '--shutdownDuration=1s',
  ];
  const given = (container.args ?? []).map(mapPaths(mounts));
  return { command: [...(container.command ?? [runtime.istiod]), ...given, ...here], env };
}

/** The agent's image: a shell, and the program `vault`. */
function agentProgram(
  runtime: Runtime,
  container: Container,
  map: (text: string) => string,
  env: Record<string, string>,
): Program {
  const config = env['VAULT_CONFIG'];
  const mapped =
    config === undefined
      ? {}
      : {
          VAULT_CONFIG: Buffer.from(
            JSON.stringify(mapStrings(JSON.parse(Buffer.from(config, 'base64').toString('utf8')), map)),
          ).toString('base64'),
        };
  return {
    command: [...(container.command ?? ['vault']), ...(container.args ?? [])].map(map),
    env: { ...agentEnv(env), ...mapped, PATH: `${runtime.agentPath}:${process.env['PATH'] ?? ''}` },
  };
}

/**
 * Starts an instance of a container.
 * @param logPath of this instance
 * @throws CannotStart
 */
export async function startContainer(
  runtime: Runtime,
  sandbox: PodSandbox,
  container: Container,
  logPath: string,
): Promise<ManagedProcess> {
  const mounts = mountsOf(sandbox, container);
  const root = await makeRoot(sandbox, container, mounts);
  const env = await environment(runtime, sandbox, container);
  let program: Program;
  if (container.name === 'discovery') {
    const inRoot = ([name, value]: [string, string]): [string, string] => [
      name,
      value.startsWith('/') ? join(root, value) : value,
    ];
    program = await istiodProgram(
      runtime,
      sandbox,
      container,
      mounts,
      Object.fromEntries(Object.entries(env).map(inRoot)),
    );
  } else if (container.name.startsWith('vault-agent')) {
    program = agentProgram(runtime, container, mapPaths(mounts), env);
  } else {
    throw new CannotStart('ImagePullBackOff', `Back-off pulling image "${container.image ?? ''}": no such image here`);
  }
  const [command = '', ...args] = program.command;
  const grace = Math.min(sandbox.pod.spec.terminationGracePeriodSeconds ?? 30, 10);
  return startProcess({
    name: `${sandbox.pod.metadata.name}/${container.name}`,
    command,
    args,
    env: { HOME: root, ...program.env },
    cwd: root,
    logPath,
    graceMs: grace * 1000,
  });
}
