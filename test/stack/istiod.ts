/** The real istiod as a process with an API server without controllers, and its CA files in a folder. */
import { randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { call } from './http.ts';
import { createCertificate, peerCertificates, type CertificateRequest } from './istiod-client.ts';
import { freePort } from './ports.ts';
import { makeTemporaryDir, removeTemporaryDir, startProcess } from './processes.ts';
import { ensureServer } from './servers.ts';
import type { KubeServer, RunningServer } from './types.ts';
import { waitFor } from './wait.ts';

export interface IstiodOptions {
  readonly kube: Pick<KubeServer, 'adminKubeconfig'>;
  /** Path of the kubeconfig; default: the administrator's. */
  readonly kubeconfig?: string;
  /** The folder with ca-cert.pem, ca-key.pem, cert-chain.pem and root-cert.pem (environment ROOT_CA_DIR). */
  readonly rootCaDir: string;
  /** Default: `istio-system`; the namespace must exist. */
  readonly namespace?: string;
  /** Default: `default`. */
  readonly revision?: string;
  readonly extraEnv?: Readonly<Record<string, string>>;
}

export interface Istiod extends RunningServer {
  /** Port of the secure gRPC server (15012 in a cluster). */
  readonly securePort: number;
  /** Port of /metrics (15014 in a cluster). */
  readonly monitoringPort: number;
  /** The exit code or signal after its end: istiod refuses to start with invalid CA files. */
  readonly ended: () => number | string | undefined;
  /** Waits until it is ready. @throws with the end of its log if it ends, or is not ready within 60 seconds */
  ready(): Promise<void>;
  /** The chain that a TLS handshake without credentials shows, leaf first, PEM: which CA this replica uses. */
  peerCertificates(): Promise<string[]>;
  /** Requests a workload certificate. The response contains leaf, intermediates, and root-cert.pem as the last element. */
  createCertificate(request: CertificateRequest): Promise<string[]>;
}

/**
 * Starts istiod as a process, with free ports on 127.0.0.1, in an empty folder, and without the environment variables of a
 * cluster. It is limited to its own namespace, because by default istiod writes its root to every namespace. Does not
 * wait: call `ready()`.
 */
export async function startIstiod(options: IstiodOptions): Promise<Istiod> {
  const { binary } = await ensureServer('istiod');
  const namespace = options.namespace ?? 'istio-system';
  const revision = options.revision ?? 'default';
  const first = await freePort(5);
  const [http, https, grpc, secure, monitoring] = [first, first + 1, first + 2, first + 3, first + 4];
  const dir = makeTemporaryDir('istiod');
  // Paths like ./etc/istio and ./var/run are relative to its working directory, which must be empty.
  mkdirSync(join(dir, 'empty'));
  const meshConfig = join(dir, 'mesh.json');
  const discoverySelectors = [{ matchLabels: { 'kubernetes.io/metadata.name': namespace } }];
  writeFileSync(meshConfig, JSON.stringify({ discoverySelectors }));
  const child = startProcess({
    name: 'istiod',
    command: binary,
    args: [
      ...['discovery', `--kubeconfig=${options.kubeconfig ?? options.kube.adminKubeconfig}`],
      `--meshConfig=${meshConfig}`,
      ...[`--httpAddr=127.0.0.1:${http}`, `--httpsAddr=127.0.0.1:${https}`, `--grpcAddr=127.0.0.1:${grpc}`],
      ...[`--secureGRPCAddr=127.0.0.1:${secure}`, `--monitoringAddr=127.0.0.1:${monitoring}`],
      ...['--ctrlz_port=0', '--shutdownDuration=1s', '--log_output_level=default:info'],
    ],
    env: {
      HOME: dir,
      ROOT_CA_DIR: options.rootCaDir,
      POD_NAMESPACE: namespace,
      POD_NAME: `istiod-${randomBytes(4).toString('hex')}`,
      SERVICE_ACCOUNT: revision === 'default' ? 'istiod' : `istiod-${revision}`,
      REVISION: revision,
      CLUSTER_ID: 'Kubernetes',
      PILOT_CERT_PROVIDER: 'istiod',
      JWT_POLICY: 'third-party-jwt',
      ...options.extraEnv,
    },
    cwd: join(dir, 'empty'),
    logPath: join(dir, 'istiod.log'),
  });
  let finalLog: string | undefined;
  const at = { host: '127.0.0.1', port: secure, namespace };
  return {
    securePort: secure,
    monitoringPort: monitoring,
    ended: child.ended,
    log: () => finalLog ?? child.log(),
    stop: async () => {
      await child.stop();
      finalLog ??= child.log();
      removeTemporaryDir(dir);
    },
    ready: async () => {
      const ready = async (): Promise<boolean> => (await call(`http://127.0.0.1:${http}/ready`)).status === 200;
      await waitFor('istiod to be ready', ready, { timeoutMs: 60_000, intervalMs: 100, process: child });
    },
    peerCertificates: () => peerCertificates(at),
    createCertificate: async (request) =>
      createCertificate(at, await readFile(join(options.rootCaDir, 'root-cert.pem')), request),
  };
}
